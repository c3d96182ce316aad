import asyncio
import json
import socket as sockets
import ssl
import time
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from hostile_server import (
    CERTIFICATE,
    CONNECT,
    OPEN,
    PollingScript,
    Recorder,
    Server,
    application,
    event,
    eventually,
    http,
    run,
    tcp,
    websocket,
)
from transport_scene import SECRET, Backend, both, failure, opened

from realtime_fsm.adapters.socketio_transport import SocketIOTransport
from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.machine.errors import (
    AuthenticationError,
    MalformedFrameError,
    NamespaceRefusedError,
    NotSocketIOError,
    ProtocolError,
    RedirectRefusedError,
    ServerDisconnectError,
    ServerUnavailableError,
    ServerUnreachableError,
)

# Refusals.


@both
@pytest.mark.parametrize(
    ("refuse", "kind", "retry_after"),
    [
        (["go away"], AuthenticationError, None),
        (["x", {"category": "authentication", "code": "token_expired"}], AuthenticationError, None),
        (["busy", {"category": "connection", "retry_after": 7}], ServerUnavailableError, 7.0),
        (["odd", {"category": "protocol"}], ProtocolError, None),
        (["Invalid namespace"], NamespaceRefusedError, None),
    ],
)
async def test_refusal_of_the_namespace_is_told_by_its_category(
    name: str, refuse: list[Any], kind: type, retry_after: float | None, server: Server
) -> None:
    """A refusal is translated by its category or its words, at once, and not tried over another transport."""
    other = "polling" if name == "websocket" else "websocket"
    error = await failure(server.url, name, other, auth={"refuse": refuse, "token": SECRET})
    assert type(error) is kind
    assert error.retry_after == retry_after
    assert refuse[0] in error.message
    assert server.client_sockets() == []


@both
async def test_unknown_namespace_is_refused_as_such(name: str, server: Server) -> None:
    """The answer of python-socketio to a namespace that it does not have is understood."""
    assert isinstance(await failure(server.url, name, namespace="/none"), NamespaceRefusedError)


def test_refusal_is_cut_to_a_bounded_line() -> None:
    """A refusal of many lines becomes one of bounded length."""

    async def refuse(socket: web.WebSocketResponse) -> None:
        await socket.receive()
        await socket.send_str("44" + json.dumps({"message": "x\n" * 100_000}))

    async def main(server: Server) -> None:
        error = await failure(server.url)
        assert len(error.message) < 300
        assert "\n" not in error.message

    with websocket(refuse) as server:
        run(main(server))


ANSWERS = [
    (401, {}, AuthenticationError, None),
    (403, {}, ServerUnavailableError, None),  # nobody said who they are
    (404, {}, NotSocketIOError, None),
    (400, {}, NotSocketIOError, None),
    (429, {"Retry-After": "3"}, ServerUnavailableError, 3.0),
    (500, {}, ServerUnavailableError, None),
    (503, {"Retry-After": "120"}, ServerUnavailableError, 120.0),
    (
        503,
        {"Retry-After": "Wed, 21 Oct 2015 07:28:30 GMT", "Date": "Wed, 21 Oct 2015 07:28:00 GMT"},
        ServerUnavailableError,
        30.0,
    ),
    (503, {"Retry-After": "soon"}, ServerUnavailableError, None),
]


@both
@pytest.mark.parametrize(("status", "headers", "kind", "retry_after"), ANSWERS)
def test_http_refusal_is_told_by_its_status(
    name: str, status: int, headers: dict[str, str], kind: type, retry_after: float | None
) -> None:
    """A status is translated by its meaning, with Retry-After, and without the query of the address."""

    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=status, headers=headers, text="<html>no</html>")

    async def main(server: Server) -> None:
        error = await failure(f"{server.url}/?room={SECRET}", name)
        assert type(error) is kind
        assert error.retry_after == retry_after
        assert str(status) in error.message
        assert server.client_sockets() == []

    with http(refuse) as server:
        run(main(server))


@both
@pytest.mark.parametrize(
    "body",
    ["", "<html>hello</html>", "{}", "0", "0[]", '0{"sid":1}', "4" * 40, "\x1e", OPEN[:-30], b"\xff\xfe"],
)
def test_answer_that_is_not_engine_io_is_told_as_such(name: str, body: str | bytes) -> None:
    """Whatever else a server answers with, it is not a Socket.IO server."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if name == "polling" or request.headers.get("Upgrade") is None:
            return web.Response(body=body)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await (socket.send_str(body) if isinstance(body, str) else socket.send_bytes(body))
        await socket.receive()
        return socket

    async def main(server: Server) -> None:
        assert isinstance(await failure(server.url, name), NotSocketIOError)
        assert server.client_sockets() == []

    with http(answer) as server:
        run(main(server))


@both
def test_server_that_hangs_up_at_once_is_told_as_such(name: str) -> None:
    """A server that accepts and closes without a word is not a Socket.IO server."""

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def main(server: Server) -> None:
        assert isinstance(await failure(server.url, name), (NotSocketIOError, ServerUnreachableError))

    with tcp(hang_up) as server:
        run(main(server))


def test_websocket_closed_instead_of_opened_is_told_with_its_code() -> None:
    """A close frame instead of OPEN is told with the server's code and reason."""

    async def close(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.close(code=1008, message=b"not here")
        return socket

    async def main(server: Server) -> None:
        error = await failure(server.url)
        assert isinstance(error, NotSocketIOError)
        assert "1008" in error.message
        assert "not here" in error.message

    with http(close) as server:
        run(main(server))


@both
async def test_nobody_listening_is_told_in_the_words_of_the_system(name: str) -> None:
    """A refused connection is told once, without trying the other transport."""
    with sockets.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        error = await failure(url, name, "polling" if name == "websocket" else "websocket")
    assert isinstance(error, ServerUnreachableError)
    assert "Connection refused" in error.message


async def test_name_that_cannot_be_resolved_is_told_in_the_words_of_the_system() -> None:
    """A name that does not exist is told as the resolver says it."""

    class NoName(aiohttp.abc.AbstractResolver):
        async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[Any]:
            raise sockets.gaierror(sockets.EAI_NONAME, "Name or service not known")

        async def close(self) -> None:
            pass

    transport = SocketIOTransport(
        RealtimeConfig(server_url="http://nowhere.example"),
        Recorder(),
        lambda: aiohttp.TCPConnector(resolver=NoName()),
    )
    with pytest.raises(ServerUnreachableError, match="Name or service not known"):
        await transport.open(None)
    await transport.close(goodbye=False)


@both
def test_certificate_is_verified(name: str, backend: Backend, tmp_path: Any) -> None:
    """A certificate that nobody trusts is refused; one that is trusted carries events, and closes cleanly."""
    path = tmp_path / "certificate.pem"
    path.write_text(CERTIFICATE)
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    served.load_cert_chain(path)
    trusting = ssl.create_default_context(cafile=path)

    async def main(server: Server) -> None:
        url = f"https://127.0.0.1:{server.port}"
        error = await failure(url, name)
        assert isinstance(error, ServerUnreachableError)
        assert "certificate" in error.message
        for goodbye in (True, False):
            recorder = Recorder()
            transport = SocketIOTransport(
                RealtimeConfig(server_url=url, transports=(name,)),
                recorder,
                lambda: aiohttp.TCPConnector(ssl=trusting),
            )
            await transport.open(None)
            await recorder.until(lambda recorder=recorder: recorder.events)
            await transport.close(goodbye=goodbye)
            await eventually(lambda: not server.client_sockets())  # TLS says goodbye by itself

    with application(backend.app(), served) as server:
        run(main(server))


@both
def test_redirect_is_refused_and_nothing_reaches_its_target(name: str) -> None:
    """A redirect ends the attempt; the target hears nothing, and its query is not shown."""
    reached: list[str] = []

    async def target(request: web.Request) -> web.Response:
        reached.append(request.path)
        return web.Response()

    async def main(server: Server, other: Server) -> None:
        error = await failure(server.url, name, "polling" if name == "websocket" else "websocket")
        assert isinstance(error, RedirectRefusedError)
        assert other.url in error.message
        assert reached == []

    with http(target) as other:

        async def redirect(_: web.Request) -> web.Response:
            return web.Response(status=307, headers={"Location": f"{other.url}/steal?token={SECRET}"})

        with http(redirect) as server:
            run(main(server, other))


# The choice of the transport.


@pytest.mark.parametrize("status", [400, 404, 200, 502])
def test_polling_is_tried_where_websockets_are_not_let_through(status: int, backend: Backend) -> None:
    """A proxy that refuses the upgrade does not keep the client from polling."""

    @web.middleware
    async def no_upgrade(request: web.Request, handler: Any) -> web.StreamResponse:
        if "Upgrade" in request.headers:
            return web.Response(status=status)
        return await handler(request)

    async def main(server: Server) -> None:
        async with opened(server, "websocket", "polling") as (transport, recorder):
            assert transport.name == "polling"
            await recorder.until(lambda: recorder.events)

    app = backend.app()
    app.middlewares.append(no_upgrade)
    with application(app) as server:
        run(main(server))


def test_polling_is_tried_where_websockets_are_swallowed(backend: Backend) -> None:
    """A websocket that stays silent is given up in time for polling."""

    @web.middleware
    async def swallow(request: web.Request, handler: Any) -> web.StreamResponse:
        if "Upgrade" not in request.headers:
            return await handler(request)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.receive()
        return socket

    async def main(server: Server) -> None:
        async with opened(server, "websocket", "polling", connection_timeout=0.4) as (transport, recorder):
            assert transport.name == "polling"
            await recorder.until(lambda: recorder.events)

    app = backend.app()
    app.middlewares.append(swallow)
    with application(app) as server:
        run(main(server))


@both
@pytest.mark.parametrize(
    ("auth", "content_type", "kind"),
    [
        ({"token": SECRET}, "application/json", AuthenticationError),
        ({"token": SECRET}, "text/html", ServerUnavailableError),
        ({"pid": "of-a-session", "offset": "7"}, "application/json", ServerUnavailableError),
        (None, "application/json", ServerUnavailableError),
    ],
)
def test_forbidden_refuses_an_identity_only_where_a_server_says_so(
    name: str, auth: dict[str, str] | None, content_type: str, kind: type
) -> None:
    """A 403 to who has not said who they are, or with a gateway's page, is retried."""

    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=403, text="{}", content_type=content_type, headers={"Retry-After": "9"})

    async def main(server: Server) -> None:
        error = await failure(server.url, name, auth=auth)
        assert type(error) is kind
        assert error.retryable is (kind is ServerUnavailableError)
        assert error.retry_after == (9.0 if error.retryable else None)

    with http(refuse) as server:
        run(main(server))


@pytest.mark.parametrize(("status", "requests"), [(401, 1), (403, 1), (429, 1), (503, 1), (404, 2)])
def test_other_transport_is_tried_only_where_it_may_help(status: int, requests: int) -> None:
    """A refusal that concerns the client or the server as a whole is not asked for twice."""
    seen: list[str] = []

    async def refuse(request: web.Request) -> web.Response:
        seen.append(request.query["transport"])
        return web.Response(status=status)

    async def main(server: Server) -> None:
        await failure(server.url, "websocket", "polling")
        assert len(seen) == requests

    with http(refuse) as server:
        run(main(server))


def test_the_clearer_of_two_failures_is_raised() -> None:
    """Where no transport works, the failure that tells more wins over the first one."""

    async def refuse(request: web.Request) -> web.Response:
        return web.Response(status=401 if request.query["transport"] == "polling" else 400)

    async def main(server: Server) -> None:
        assert isinstance(await failure(server.url, "websocket", "polling"), AuthenticationError)
        assert isinstance(await failure(server.url, "polling", "websocket"), AuthenticationError)

    with http(refuse) as server:
        run(main(server))


# Silence, and endings during the dial.


async def _silent_http(_: web.Request) -> web.Response:
    await asyncio.sleep(10)
    return web.Response()


@both
@pytest.mark.parametrize("stage", ["request", "session", "namespace"])
def test_silent_server_is_left_to_the_callers_timeout(name: str, stage: str) -> None:
    """A server that falls silent at any stage is given up when the caller gives up, and nothing is left."""

    async def open_only(request: web.Request) -> web.StreamResponse:
        if request.method == "POST" or request.query.get("sid"):
            return await _silent_http(request)
        return web.Response(text=OPEN)

    async def mute(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        if stage == "namespace":
            await socket.send_str(OPEN)
        return await _silent_http(request)

    handlers = {"request": _silent_http, "session": mute, "namespace": mute}
    handler = (
        handlers[stage] if name == "websocket" else (open_only if stage == "namespace" else _silent_http)
    )

    async def main(server: Server) -> None:
        recorder = Recorder()
        config = RealtimeConfig(server_url=server.url, transports=(name,), connection_timeout=60.0)
        transport = SocketIOTransport(config, recorder)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await transport.open(None)
        started = time.monotonic()
        await transport.close(goodbye=False)
        assert time.monotonic() - started < 20
        assert server.client_sockets() == []
        assert recorder.calls == []

    with http(handler) as server:
        run(main(server))


@both
@pytest.mark.parametrize(
    ("frames", "kind"),
    [
        (["41"], ServerDisconnectError),
        (["1"], ServerDisconnectError),
        ([CONNECT, "41"], ServerDisconnectError),
        (['44{"message":"no"}'], AuthenticationError),
        ([CONNECT, '44{"message":"no"}'], AuthenticationError),
    ],
)
def test_end_in_the_middle_of_the_dial_is_never_missed(name: str, frames: list[str], kind: type) -> None:
    """An end in one batch with the acceptance makes open() raise, or is told as a loss right after it."""
    script = PollingScript(_silent_http)

    async def poll(request: web.Request) -> web.StreamResponse:
        if request.method == "GET" and not script.opened:
            script.opened = True
            return web.Response(text="\x1e".join([OPEN, *frames]))
        return await script(request)

    async def send(socket: web.WebSocketResponse) -> None:
        await socket.receive()
        for one in frames:
            await socket.send_str(one)

    async def main(server: Server) -> None:
        recorder = Recorder()
        transport = SocketIOTransport(RealtimeConfig(server_url=server.url, transports=(name,)), recorder)
        opening = asyncio.create_task(transport.open(None))
        await asyncio.wait({opening}, timeout=20)
        if opening.exception() is None:
            await recorder.until(lambda: recorder.lost)
            assert recorder.calls == ["lost"]
        else:
            assert recorder.calls == []
        assert isinstance(opening.exception() or recorder.lost[0], kind)
        await transport.close(goodbye=False)

    with websocket(send) if name == "websocket" else http(poll) as server:
        run(main(server))


def test_flood_before_the_acceptance_is_bounded() -> None:
    """A server that sends events for ever without letting the client in is not believed for ever."""

    async def flood(socket: web.WebSocketResponse) -> None:
        for number in range(5000):
            await socket.send_str(event("tick", number))

    async def main(server: Server) -> None:
        assert isinstance(await failure(server.url), MalformedFrameError)

    with websocket(flood) as server:
        run(main(server))
