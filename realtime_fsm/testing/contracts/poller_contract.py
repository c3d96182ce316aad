"""The laws of every HTTP client of FALLBACK: inherit the suite, and override its hooks."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, ClassVar, Final, Self

from aiohttp import web

from realtime_fsm.adapters.serving import Listener
from realtime_fsm.engine.port import HttpAnswer, HttpClient
from realtime_fsm.machine.errors import (
    AuthenticationError,
    ProtocolError,
    RealtimeError,
    ServerUnavailableError,
    ServerUnreachableError,
    TransportError,
)
from realtime_fsm.testing.contracts.contract import Contract, texts_of

RETRY_AFTER: Final = 7.0
"""Seconds that ``/busy`` asks to wait."""

PATHS: Final = (
    "/count",
    "/same",
    "/echo",
    "/unauthorized",
    "/forbidden",
    "/missing",
    "/moved",
    "/garbled",
    "/busy",
    "/silent",
)
"""The paths that the server has; see ``PollerContract``."""

_SECRET: Final = "contract-token-51d07c0de5ec2e7"  # noqa: S105 - made up, and looked for in errors
_NOT_MODIFIED: Final = 304
_HOST: Final = "127.0.0.1"
_SAME_TAG: Final = '"same"'
_SHUTDOWN_TIMEOUT: Final = 0.1


class PollerContract(Contract):
    """The laws of the port ``HttpClient``: answers in order, errors in words of the tree, nothing left.

    The server at its other end has these paths. ``PollerServer`` is one, for clients that do real I/O.

    ============== ==========================================================================
    /count         GET: 1, 2, 3, ...: how often it was asked
    /same          GET: ``["same", 1]`` with an ``ETag``; 304 to who knows it already
    /echo          POST: ``{"body": ..., "token": ..., "key": ...}``: what came
    /unauthorized  401
    /forbidden     403
    /missing       404
    /moved         302, to another address
    /garbled       200, and no JSON
    /busy          503, with ``Retry-After: 7``
    /silent        no answer, for as long as the client waits
    ============== ==========================================================================

    Attributes:
        bound: More than the client's own time-out for one request.
    """

    bound: ClassVar[float] = 15.0

    async def set_up(self) -> None:
        """Start the server, where it is not there already. Called first in every law."""

    async def tear_down(self) -> None:
        """Stop it. Called last in every law, whatever came of it."""

    async def make(self) -> HttpClient:
        """Return a client, for which the server is its own origin."""
        raise NotImplementedError

    def url(self, path: str) -> str:
        """Return the absolute address of a path of the server."""
        raise NotImplementedError

    async def make_unreachable(self) -> tuple[HttpClient, str]:
        """Return a client, and an address at which nobody answers."""
        raise NotImplementedError

    # For the laws.

    @asynccontextmanager
    async def client(self) -> AsyncIterator[HttpClient]:
        """Have a client, with its server; afterwards close it."""
        try:
            await self.set_up()
            client = await self.make()
            try:
                yield client
            finally:
                await self.within_bound(client.close(), "the client is closed")
        finally:
            await self.tear_down()

    async def get(self, client: HttpClient, path: str, etag: str | None = None) -> HttpAnswer:
        """Fetch a path, within the bound."""
        answer = await self.within_bound(client.get(self.url(path), token=_SECRET, etag=etag), f"GET {path}")
        assert isinstance(answer, HttpAnswer)
        return answer

    async def post(self, client: HttpClient, path: str, body: object, key: str = "k-1") -> HttpAnswer:
        """Send a body to a path, within the bound."""
        request = client.post(self.url(path), body, token=_SECRET, idempotency_key=key)
        answer = await self.within_bound(request, f"POST {path}")
        assert isinstance(answer, HttpAnswer)
        return answer

    async def failure(self, client: HttpClient, path: str) -> RealtimeError:
        """Return the error by which a request fails, having checked that it shows no secret."""
        failed: RealtimeError | None = None
        try:
            await self.get(client, f"{path}?room={_SECRET}")
        except RealtimeError as error:
            failed = error
        assert failed is not None, f"GET {path} does not fail"
        assert _SECRET not in texts_of(failed), "the error shows the token, or the query"
        return failed

    # Answers.

    def test_answers_come_in_order(self) -> None:
        """Requests made one after the other are answered one after the other, each by its own answer."""

        async def main() -> None:
            async with self.client() as client:
                answers = [await self.get(client, "/count") for _ in range(5)]
                assert [answer.body for answer in answers] == [1, 2, 3, 4, 5]
                assert {answer.status for answer in answers} == {200}
                assert all(answer.size_bytes == 1 for answer in answers)

        self.run(main())

    def test_answers_find_their_requests(self) -> None:
        """Requests made at once are each answered by their own answer."""

        async def main() -> None:
            async with self.client() as client:
                answers = await asyncio.gather(*(self.post(client, "/echo", {"n": n}) for n in range(10)))
                assert [answer.body["body"] for answer in answers] == [{"n": n} for n in range(10)]

        self.run(main())

    def test_message_is_sent_whole(self) -> None:
        """A body arrives as it is, whatever JSON holds, with the token and the key that make it safe."""
        body: dict[str, Any] = {"messages": [None, True, 1.5, "ž☃", {"a": []}, "x" * 100_000]}

        async def main() -> None:
            async with self.client() as client:
                answer = await self.post(client, "/echo", body, "key-1")
                assert answer.body == {"body": body, "token": _SECRET, "key": "key-1"}

        self.run(main())

    def test_unchanged_answer_is_not_sent_again(self) -> None:
        """An answer's ``etag``, sent with the next request, brings 304 while nothing changes."""

        async def main() -> None:
            async with self.client() as client:
                first = await self.get(client, "/same")
                assert (first.status, first.body) == (200, ["same", 1])
                assert first.etag
                again = await self.get(client, "/same", first.etag)
                assert (again.status, again.body) == (_NOT_MODIFIED, None)
                assert (await self.get(client, "/same", '"another"')).body == ["same", 1]

        self.run(main())

    # Errors.

    def test_refusals_are_told_by_their_kind(self) -> None:
        """A refused identity is an ``AuthenticationError``; what should not be there, a ``ProtocolError``."""

        async def main() -> None:
            async with self.client() as client:
                for path, kind in {
                    "/unauthorized": AuthenticationError,
                    "/forbidden": AuthenticationError,
                    "/missing": ProtocolError,
                    "/moved": ProtocolError,
                    "/garbled": ProtocolError,
                }.items():
                    error = await self.failure(client, path)
                    assert isinstance(error, kind), f"{path}: {error!r}"
                assert (await self.get(client, "/count")).body == 1, "it is of no use after an error"

        self.run(main())

    def test_retry_after_is_told(self) -> None:
        """A server that cannot serve now is ``ServerUnavailableError``, with the seconds it asks to wait."""

        async def main() -> None:
            async with self.client() as client:
                error = await self.failure(client, "/busy")
                assert isinstance(error, ServerUnavailableError), repr(error)
                assert error.retry_after == RETRY_AFTER
                assert error.retryable

        self.run(main())

    def test_nobody_there_is_told_as_such(self) -> None:
        """A request that nobody answers fails as ``ServerUnreachableError``: it certainly was not heeded."""

        async def main() -> None:
            client, url = await self.make_unreachable()
            error: Exception | None = None
            try:
                request = client.post(url, {}, token=_SECRET, idempotency_key="k")
                await self.within_bound(request, "the request fails")
            except Exception as raised:  # noqa: BLE001 - which one it is is what the law is about
                error = raised
            finally:
                await self.within_bound(client.close(), "the client is closed")
            assert isinstance(error, ServerUnreachableError), repr(error)
            assert _SECRET not in texts_of(error)

        self.run(main())

    def test_silent_server_is_given_up_in_time(self) -> None:
        """A request that nobody answers fails by itself, as ``TransportError``, within ``bound``."""

        async def main() -> None:
            async with self.client() as client:
                error = await self.failure(client, "/silent")
                assert isinstance(error, TransportError), repr(error)

        self.run(main())

    # The end.

    def test_request_can_be_given_up(self) -> None:
        """A request that is cancelled ends by the cancellation, disturbs no other, and leaves nothing."""

        async def main() -> None:
            async with self.client() as client:
                given_up = await self._pending(client)
                given_up.cancel()
                await asyncio.wait({given_up}, timeout=self.bound)
                assert given_up.cancelled(), "the request does not pass on its cancellation"
                assert (await self.get(client, "/count")).body == 1

        self.run(main())

    def test_close_releases_requests_that_wait(self) -> None:
        """A request that waits when the client is closed ends within ``bound``, by an error of the tree."""

        async def main() -> None:
            async with self.client() as client:
                waiting = await self._pending(client)
                await self.within_bound(client.close(), "the client is closed")
                await asyncio.wait({waiting}, timeout=self.bound)
                assert waiting.done(), "the request outlives the client"
                assert waiting.cancelled() or isinstance(waiting.exception(), RealtimeError)

        self.run(main())

    def test_close_may_be_repeated_and_ends_the_client(self) -> None:
        """Closing before any request, twice and twice at once is safe; requests fail from then on."""

        async def main() -> None:
            async with self.client() as client:
                await asyncio.gather(client.close(), client.close())
                await self.within_bound(client.close(), "the client is closed again")
                await self.failure(client, "/count")
            async with self.client() as client:
                assert (await self.get(client, "/count")).body == 1
                await asyncio.gather(client.close(), client.close())
                await self.failure(client, "/count")

        self.run(main())

    def test_client_shows_no_token(self) -> None:
        """A client shows nothing of the token that it sent."""

        async def main() -> None:
            async with self.client() as client:
                await self.get(client, "/count")
                assert _SECRET not in repr(client)

        self.run(main())

    async def _pending(self, client: HttpClient) -> "asyncio.Future[Any]":
        """Return a request to which nobody answers, after it has had time to be made."""
        request = asyncio.ensure_future(client.get(self.url("/silent"), token=_SECRET, etag=None))
        done, _ = await asyncio.wait({request}, timeout=self.bound / 100)
        assert not done, "/silent was to be silent"
        return request


class PollerServer:
    """Serves the paths of ``PollerContract`` at a free port of 127.0.0.1, on the running loop.

    ::

        async with PollerServer() as server:
            ...  # fetch server.url + "/count"

    Attributes:
        url: Where it listens.
    """

    def __init__(self) -> None:
        self.url = ""
        self._count = 0
        self._listener: Listener | None = None

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/count", self._counted)
        app.router.add_get("/same", self._same)
        app.router.add_post("/echo", self._echo)
        app.router.add_get("/garbled", self._garbled)
        app.router.add_get("/silent", self._silent)
        app.router.add_get("/{status}", self._refuse)
        self._listener = Listener(
            app, _HOST, 0, shutdown_timeout=_SHUTDOWN_TIMEOUT, handler_cancellation=True
        )
        await self._listener.start()
        self.url = self._listener.url
        return self

    async def __aexit__(self, *exception: object) -> None:
        """Stop it; requests that wait are cancelled."""
        if self._listener is not None:
            await self._listener.stop()

    async def _counted(self, _: web.Request) -> web.Response:
        self._count += 1
        return web.json_response(self._count)

    async def _same(self, request: web.Request) -> web.Response:
        if request.headers.get("If-None-Match") == _SAME_TAG:
            return web.Response(status=HTTPStatus.NOT_MODIFIED, headers={"ETag": _SAME_TAG})
        return web.json_response(["same", 1], headers={"ETag": _SAME_TAG})

    async def _echo(self, request: web.Request) -> web.Response:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        key = request.headers.get("Idempotency-Key")
        shown = token if scheme == "Bearer" else None
        return web.json_response({"body": await request.json(), "token": shown, "key": key})

    async def _garbled(self, _: web.Request) -> web.Response:
        return web.Response(text="<html>", content_type="application/json")

    async def _silent(self, _: web.Request) -> web.Response:
        await asyncio.Event().wait()  # cancelled when the client goes away
        return web.Response()

    async def _refuse(self, request: web.Request) -> web.Response:
        match request.match_info["status"]:
            case "unauthorized":
                return web.Response(status=HTTPStatus.UNAUTHORIZED)
            case "forbidden":
                return web.Response(status=HTTPStatus.FORBIDDEN)
            case "moved":
                return web.Response(status=HTTPStatus.FOUND, headers={"Location": "http://127.0.0.2:9/"})
            case "busy":
                headers = {"Retry-After": f"{RETRY_AFTER:.0f}"}
                return web.Response(status=HTTPStatus.SERVICE_UNAVAILABLE, headers=headers)
        return web.Response(status=HTTPStatus.NOT_FOUND)
