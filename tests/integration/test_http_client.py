import asyncio
import gzip
import json
import socket as sockets
import time
from email.utils import formatdate
from typing import Any

import canary
import pytest
from aiohttp import web
from hostile_server import Server, http, run, tcp

from realtime_fsm.adapters import http as http_adapter
from realtime_fsm.adapters.http import AiohttpClient
from realtime_fsm.engine.port import HttpAnswer
from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.machine.errors import (
    AuthenticationError,
    InternalError,
    MalformedFrameError,
    PayloadTooLargeError,
    ProtocolError,
    RealtimeError,
    RedirectRefusedError,
    ServerUnavailableError,
    ServerUnreachableError,
)

SECRET = canary.token()


async def fetch(server: Server, path: str = "/data?room=secret", **options: Any) -> HttpAnswer:
    """Fetch something with a client of its own, and check that it leaves nothing."""
    client = AiohttpClient(RealtimeConfig(server_url=server.url, **options))
    try:
        return await client.get(server.url + path, token=SECRET, etag=None)
    finally:
        await client.close()
        assert server.client_sockets() == []


async def failure(server: Server, **options: Any) -> RealtimeError:
    """Return the error with which fetching fails, having checked that it tells no secret."""
    with pytest.raises(RealtimeError) as raised:
        await fetch(server, **options)
    error: BaseException | None = raised.value
    while error is not None:
        assert SECRET not in repr(error)
        assert "room=secret" not in str(raised.value)
        error = error.__cause__
    return raised.value


def test_get_returns_json_and_asks_again_only_for_what_changed() -> None:
    """The ETag of an answer is sent with the next request, and 304 comes back as an answer without a body."""
    seen: list[Any] = []

    async def handle(request: web.Request) -> web.Response:
        seen.append((request.headers.get("Authorization"), request.headers.get("If-None-Match")))
        if request.headers.get("If-None-Match") == '"v1"':
            return web.Response(status=304, headers={"ETag": '"v1"'})
        return web.Response(text='{"a": ["ž"]}', headers={"ETag": '"v1"', "Content-Type": "text/plain"})

    async def main(server: Server) -> None:
        client = AiohttpClient(RealtimeConfig(server_url=server.url))
        first = await client.get(f"{server.url}/x", token="t", etag=None)
        assert first == HttpAnswer(status=200, body={"a": ["ž"]}, etag='"v1"', size_bytes=13)
        second = await client.get(f"{server.url}/x", token=None, etag=first.etag)
        assert second == HttpAnswer(status=304, etag='"v1"')
        assert seen == [("Bearer t", None), (None, '"v1"')]
        await client.close()
        assert server.client_sockets() == []

    with http(handle) as server:
        run(main(server))


@pytest.mark.parametrize("size", [10, 3_000_000])
def test_post_sends_json_with_its_key(size: int) -> None:
    """A body of any size arrives as JSON, with its idempotency key, and the JSON answer is returned."""

    async def handle(request: web.Request) -> web.Response:
        return web.json_response(
            {
                "length": len((await request.json())["text"]),
                "key": request.headers["Idempotency-Key"],
                "type": request.content_type,
                "token": request.headers["Authorization"],
            }
        )

    async def main(server: Server) -> None:
        client = AiohttpClient(RealtimeConfig(server_url=server.url))
        answer = await client.post(f"{server.url}/x", {"text": "ž" * size}, token="t", idempotency_key="k1")
        assert answer.body == {
            "length": size,
            "key": "k1",
            "type": "application/json",
            "token": "Bearer t",
        }
        await client.close()

    with http(handle) as server:
        run(main(server))


def test_empty_answer_has_no_body() -> None:
    """A success without a body is one."""

    async def handle(_: web.Request) -> web.Response:
        return web.Response(status=204)

    async def main(server: Server) -> None:
        assert await fetch(server) == HttpAnswer(status=204)

    with http(handle) as server:
        run(main(server))


def test_token_is_shown_only_to_the_servers_own_origin() -> None:
    """A request to another origin carries no token, even where one is given."""
    seen: list[str | None] = []

    async def handle(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Authorization"))
        return web.json_response(1)

    async def main(server: Server) -> None:
        client = AiohttpClient(RealtimeConfig(server_url="https://example.org"))
        await client.get(server.url, token=SECRET, etag=None)
        await client.post(server.url, {}, token=SECRET, idempotency_key="k")
        await client.close()
        assert seen == [None, None]

    with http(handle) as server:
        run(main(server))


@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [
        (401, AuthenticationError, False),
        (403, AuthenticationError, False),
        (404, ProtocolError, True),
        (413, ProtocolError, True),
        (429, ServerUnavailableError, True),
        (500, ServerUnavailableError, True),
        (503, ServerUnavailableError, True),
    ],
)
def test_refusal_is_told_by_its_status(status: int, kind: type, retryable: bool) -> None:
    """A status is translated by its meaning."""

    async def handle(_: web.Request) -> web.Response:
        return web.Response(status=status, text="<html>")

    async def main(server: Server) -> None:
        error = await failure(server)
        assert type(error) is kind
        assert error.retryable is retryable
        assert str(status) in error.message

    with http(handle) as server:
        run(main(server))


@pytest.mark.parametrize(
    ("token", "headers", "kind"),
    [
        (SECRET, {"Content-Type": "application/json"}, AuthenticationError),
        (SECRET, {"Content-Type": "text/html; charset=utf-8"}, ServerUnavailableError),
        (SECRET, {"Content-Type": "text/plain", "cf-mitigated": "challenge"}, ServerUnavailableError),
        (None, {"Content-Type": "application/json"}, ServerUnavailableError),
    ],
)
def test_forbidden_refuses_an_identity_only_where_a_server_says_so(
    token: str | None, headers: dict[str, str], kind: type
) -> None:
    """A 403 without a token, or with a gateway's page, is retried; and certainly nothing was done."""

    async def handle(_: web.Request) -> web.Response:
        return web.Response(status=403, body=b"{}", headers=headers | {"Retry-After": "7"})

    async def main(server: Server) -> None:
        client = AiohttpClient(RealtimeConfig(server_url=server.url))
        for request in (
            client.get(server.url, token=token, etag=None),
            client.post(server.url, {}, token=token, idempotency_key="k"),
        ):
            with pytest.raises(RealtimeError) as caught:
                await request
            assert type(caught.value) is kind
            assert caught.value.retryable is (kind is ServerUnavailableError)
            assert caught.value.retry_after == (7.0 if caught.value.retryable else None)
        await client.close()

    with http(handle) as server:
        run(main(server))


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [
        ("17", 17, 17),
        ("0", 0, 0),
        ("in 5000 s", 4000, 5001),
        ("in -50 s", 0, 0),
        ("9" * 400, 1, 1e9),
    ],
)
def test_retry_after_is_read_in_all_its_forms(value: str, least: float, most: float) -> None:
    """Retry-After is read as seconds and as a date, and is never negative or infinite."""

    async def handle(_: web.Request) -> web.Response:
        shown = value
        if value.startswith("in "):
            shown = formatdate(time.time() + float(value.split()[1]), usegmt=True)
        return web.Response(status=503, headers={"Retry-After": shown})

    async def main(server: Server) -> None:
        error = await failure(server)
        assert error.retry_after is not None
        assert least <= error.retry_after <= most

    with http(handle) as server:
        run(main(server))


def test_redirect_is_refused_and_nothing_reaches_its_target() -> None:
    """A redirect is an error that names the target's origin, and the target hears nothing."""
    reached: list[str] = []

    async def target(request: web.Request) -> web.Response:
        reached.append(request.path)
        return web.json_response(1)

    async def main(server: Server, other: Server) -> None:
        error = await failure(server)
        assert type(error) is RedirectRefusedError
        assert other.url in error.message
        assert reached == []

    with http(target) as other:

        async def redirect(_: web.Request) -> web.Response:
            return web.Response(status=302, headers={"Location": f"{other.url}/?t={SECRET}"})

        with http(redirect) as server:
            run(main(server, other))


@pytest.mark.parametrize("content", ["<html>", "{", "NaN", "[" * 100_000, "9" * 6000, b"\xff"])
def test_answer_that_is_not_json_is_an_error(content: str | bytes) -> None:
    """Whatever is not strict JSON is refused, whatever its content type says."""

    async def handle(_: web.Request) -> web.Response:
        return web.Response(body=content, content_type="application/json")

    async def main(server: Server) -> None:
        assert type(await failure(server)) is MalformedFrameError

    with http(handle) as server:
        run(main(server))


def test_answer_that_is_too_large_is_not_read_to_its_end() -> None:
    """An endless body is given up at the limit, and so is one that grows by decompression."""

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"1" * 65536)

    async def bomb(_: web.Request) -> web.Response:
        return web.Response(
            body=gzip.compress(json.dumps("x" * 50_000_000).encode(), 1), headers={"Content-Encoding": "gzip"}
        )

    async def main(server: Server) -> None:
        error = await failure(server, max_inbound_bytes=100_000)
        assert type(error) is PayloadTooLargeError
        assert "100000" in error.message

    for handle in (endless, bomb):
        with http(handle) as server:
            run(main(server))


def test_silent_server_is_given_up_in_time() -> None:
    """A server that does not answer within the timeout is unreachable."""

    async def silent(_: web.Request) -> web.Response:
        await asyncio.sleep(10)
        return web.Response()

    async def main(server: Server) -> None:
        error = await failure(server, request_timeout=0.05)
        assert type(error) is ServerUnreachableError
        assert "in time" in error.message

    with http(silent) as server:
        run(main(server))


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1"])
def test_answer_that_is_broken_is_an_error(answer: bytes) -> None:
    """No answer, one that is not HTTP and one that is cut off make a server that cannot be reached."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(answer)
        writer.close()

    async def main(server: Server) -> None:
        assert type(await failure(server)) is ServerUnreachableError

    with tcp(handle) as server:
        run(main(server))


async def test_nobody_listening_is_told_in_the_words_of_the_system() -> None:
    """A refused connection is told as the system says it."""
    with sockets.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        client = AiohttpClient(RealtimeConfig(server_url=url))
        with pytest.raises(ServerUnreachableError, match="Connection refused"):
            await client.get(url, token=None, etag=None)
        await client.close()


async def test_close_may_be_repeated_and_ends_the_client() -> None:
    """Closing twice, or before any request, does nothing more; afterwards nothing can be fetched."""
    client = AiohttpClient(RealtimeConfig())
    await client.close()
    await client.close()
    with pytest.raises(InternalError):
        await client.get("http://127.0.0.1:1/", token=None, etag=None)


def test_close_does_not_wait_for_a_peer_that_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that is stuck in the middle of its body does not keep the client from being closed."""
    monkeypatch.setattr(http_adapter, "_CLOSE_TIMEOUT", 60.0)

    async def stall(request: web.Request) -> web.Response:
        request.transport.pause_reading()
        await asyncio.sleep(60)
        return web.Response()

    async def main(server: Server) -> None:
        client = AiohttpClient(RealtimeConfig(server_url=server.url))
        sending = asyncio.create_task(
            client.post(server.url, "x" * 9_000_000, token=None, idempotency_key="k")
        )
        await asyncio.sleep(0.1)
        sending.cancel()
        await asyncio.wait({sending})
        started = time.monotonic()
        await client.close()
        assert time.monotonic() - started < 20
        assert server.client_sockets() == []

    with http(stall) as server:
        run(main(server))
