"""Servers that are not what they should be: a clear status with its cause and remedy, nothing hung."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import canary
import pytest
from aiohttp import web

from realtime_fsm import (
    ConnectionStatus,
    ConnectTimeoutError,
    NamespaceRefusedError,
    NotSocketIOError,
    RealtimeConfig,
    RealtimeError,
    RealtimeService,
    RedirectRefusedError,
    ServerUnavailableError,
    ServerUnreachableError,
)
from realtime_fsm.server import BackendConfig, WebSocketService

Run = Callable[[Coroutine[Any, Any, None]], None]
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
S = ConnectionStatus


@asynccontextmanager
async def answering(answer: Answer) -> Any:
    """Serve every request by one function; give the address."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def html(_: web.Request) -> web.Response:
    """Answer with a page."""
    return web.Response(text="<html>Welcome</html>", content_type="text/html")


async def missing(_: web.Request) -> web.Response:
    """Answer that there is nothing."""
    return web.Response(status=404, text="nothing here")


async def overloaded(_: web.Request) -> web.Response:
    """Answer that it is too much."""
    return web.Response(status=503, headers={"Retry-After": "7"})


async def elsewhere(_: web.Request) -> web.Response:
    """Send the client to another place."""
    raise web.HTTPFound(f"http://127.0.0.1:9/elsewhere?token={canary.token()}")


async def closes_at_once(request: web.Request) -> web.StreamResponse:
    """Accept a websocket and close it."""
    websocket = web.WebSocketResponse()
    if not websocket.can_prepare(request):
        return web.Response(status=400, text="a websocket is wanted")
    await websocket.prepare(request)
    await websocket.close()
    return websocket


async def stays_silent(request: web.Request) -> web.StreamResponse:
    """Accept whatever comes, and never say anything."""
    websocket = web.WebSocketResponse()
    if websocket.can_prepare(request):
        await websocket.prepare(request)
        await websocket.receive()
        return websocket
    await asyncio.sleep(60)
    return web.Response()


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (html, NotSocketIOError, "socketio_path"),
        (missing, NotSocketIOError, "404"),
        (closes_at_once, NotSocketIOError, "socketio_path"),
        (stays_silent, ConnectTimeoutError, "connection_timeout"),
        (overloaded, ServerUnavailableError, "503"),
        (elsewhere, RedirectRefusedError, "final address"),
    ],
)
def test_bad_server_ends_in_failed_with_its_cause_and_remedy(
    run_async: Run,
    caplog: pytest.LogCaptureFixture,
    answer: Answer,
    kind: type[RealtimeError],
    words: str,
) -> None:
    """A server that is no Socket.IO server is FAILED with an error that names the cause and the remedy."""

    async def main() -> None:
        async with answering(answer) as url:
            config = RealtimeConfig(server_url=url, connection_timeout=0.6, max_reconnect_attempts=0)
            realtime = RealtimeService(config, token=canary.token())
            with pytest.raises(kind) as caught:
                await realtime.connect()
            assert words in str(caught.value)
            assert caught.value.remedy
            assert realtime.status is S.FAILED
            receipt = await realtime.emit("n", 1)
            assert [receipt] == list(await realtime.disconnect())

    caplog.set_level(logging.DEBUG)
    run_async(main())
    assert canary.found_in(caplog.text) == []
    assert "Traceback" not in caplog.text


async def test_bad_server_that_is_not_there_is_told_from_the_others() -> None:
    """An address at which nobody listens is ``ServerUnreachableError`` with the system's words."""
    async with answering(html) as url:
        pass
    realtime = RealtimeService(RealtimeConfig(server_url=url, max_reconnect_attempts=0))
    with pytest.raises(ServerUnreachableError, match="refused"):
        await realtime.connect()
    await realtime.disconnect()


async def test_bad_namespace_is_refused_once_and_not_retried() -> None:
    """A namespace that the server does not have is FAILED after one dial, and names the field to check."""
    async with WebSocketService(BackendConfig(port=0, secret=canary.SIGNING)) as backend:
        realtime = RealtimeService(RealtimeConfig(server_url=backend.url, namespace="/none"))
        with pytest.raises(NamespaceRefusedError, match="`namespace`"):
            await realtime.connect()
        assert realtime.metrics.attempts == 1
        await realtime.disconnect()
