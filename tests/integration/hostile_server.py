"""Servers to test a client against, well-behaved and hostile, each on a thread and a loop of its own.

On a loop of their own, so that every task, callback and exception on the test's loop is the client's.
"""

import asyncio
import contextlib
import gc
import json
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

import psutil
from aiohttp import web
from engineio import base_client

OPEN = '0{"sid":"s1","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}'
CONNECT = '40{"sid":"n1"}'
BOUND = 20.0
"""Seconds after which a test is given up; none comes near it."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Script = Callable[[web.WebSocketResponse], Awaitable[None]]


class Server:
    """A running server.

    Args:
        loop: On which it runs.
        port: At which it listens.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, port: int) -> None:
        self.loop = loop
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    async def call(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run something on the server's loop, and return its result on the caller's."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.loop))

    def client_sockets(self) -> list[Any]:
        """Return the sockets of this process that are connected to the server."""
        return [
            one
            for one in psutil.Process().net_connections("tcp")
            if one.raddr and one.raddr.port == self.port and one.fd != -1
        ]


@contextlib.contextmanager
def serving(start: Callable[[contextlib.AsyncExitStack], Awaitable[int]]) -> Iterator[Server]:
    """Run a server on a thread; ``start`` opens it on the given stack and returns its port."""
    started: list[Server] = []
    ready, stop = threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with contextlib.AsyncExitStack() as stack:
            started.append(Server(asyncio.get_running_loop(), await start(stack)))
            ready.set()
            await stop.wait()

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, __: None)  # hostile ones break off
        try:
            await serve()
        finally:
            ready.set()

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    assert ready.wait(BOUND)
    try:
        yield started[0]
    finally:
        started[0].loop.call_soon_threadsafe(stop.set)
        thread.join(BOUND)
        assert not thread.is_alive()


def application(app: web.Application, ssl_context: Any = None) -> contextlib.AbstractContextManager[Server]:
    """Serve an aiohttp application."""

    async def start(stack: contextlib.AsyncExitStack) -> int:
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.05, handler_cancellation=True)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=ssl_context)
        await site.start()
        return int(runner.addresses[0][1])

    return serving(start)


def http(handler: Handler) -> contextlib.AbstractContextManager[Server]:
    """Serve every request by one handler."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return await handler(request)

    app = web.Application(client_max_size=0)
    app.router.add_route("*", "/{path:.*}", handle)
    return application(app)


def tcp(
    callback: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> contextlib.AbstractContextManager[Server]:
    """Serve bare TCP connections."""

    async def start(stack: contextlib.AsyncExitStack) -> int:
        server = await asyncio.start_server(callback, "127.0.0.1", 0)
        stack.callback(server.close)
        return int(server.sockets[0].getsockname()[1])

    return serving(start)


def websocket(script: Script, *, opening: str = OPEN) -> contextlib.AbstractContextManager[Server]:
    """Serve websockets that open an Engine.IO session, and then follow a script."""

    async def handle(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(max_msg_size=0)
        await socket.prepare(request)
        await socket.send_str(opening)
        await script(socket)
        await asyncio.sleep(BOUND)  # cancelled when the client goes away
        return socket

    return http(handle)


def joined(
    script: Script, *, opening: str = OPEN, at_once: bool = False
) -> contextlib.AbstractContextManager[Server]:
    """Serve websockets that let the client in, and follow a script at its first word, or at once."""

    async def join(socket: web.WebSocketResponse) -> None:
        request = await socket.receive_str()
        namespace = request[2 : request.index(",") + 1] if request.startswith("40/") else ""
        await socket.send_str(f'40{namespace}{{"sid":"n1"}}')
        if not at_once:
            await socket.receive()
        await script(socket)

    return websocket(join, opening=opening)


class PollingScript:
    """A polling server that lets the client in, and follows its script at the client's first message.

    Args:
        bodies: The bodies of the answers, or handlers that make them; after the last one it is silent.
    """

    def __init__(self, *bodies: str | Handler) -> None:
        self.bodies = list(bodies)
        self.opened = False
        self.posted: list[str] = []
        self._started = asyncio.Event()

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        """Answer a request."""
        if request.method == "POST":
            self.posted.append(await request.text())
            if not self.posted[-1].startswith("40"):
                self._started.set()
            return web.Response(text="ok")
        if not self.opened:
            self.opened = True
            return web.Response(text=f"{OPEN}\x1e{CONNECT}")
        await self._started.wait()
        if not self.bodies:
            await asyncio.sleep(BOUND)
        body = self.bodies.pop(0)
        return web.Response(text=body) if isinstance(body, str) else await body(request)


class Recorder:
    """A listener that keeps what it is told.

    Attributes:
        events: ``(name, args, ack id)``.
        acks: ``(ack id, args)``.
        malformed: The errors of frames that were dropped.
        lost: The errors of the connection: one at most.
        calls: The names of all calls, in their order.
    """

    def __init__(self) -> None:
        self.events: list[tuple[str, list[Any], int | None]] = []
        self.acks: list[tuple[int, list[Any]]] = []
        self.malformed: list[Exception] = []
        self.lost: list[Exception] = []
        self.calls: list[str] = []
        self._changed = asyncio.Event()

    def _note(self, call: str) -> None:
        self.calls.append(call)
        self._changed.set()

    def on_event(self, name: str, args: list[Any], ack_id: int | None, size: int = 0) -> None:
        """Keep it."""
        self.events.append((name, args, ack_id))
        self._note("event")

    def on_ack(self, ack_id: int, args: list[Any]) -> None:
        """Keep it."""
        self.acks.append((ack_id, args))
        self._note("ack")

    def on_pong(self, number: int) -> None:
        """Keep it."""
        self._note("pong")

    def on_written(self) -> None:
        """Keep it."""
        self._note("written")

    def on_malformed(self, error: Exception) -> None:
        """Keep it."""
        self.malformed.append(error)
        self._note("malformed")

    def on_lost(self, error: Exception) -> None:
        """Keep it."""
        self.lost.append(error)
        self._note("lost")

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait until something that is told makes the condition true."""
        async with asyncio.timeout(BOUND):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


async def eventually(condition: Callable[[], Any]) -> None:
    """Wait until a condition on another thread is true."""
    async with asyncio.timeout(BOUND):
        while not condition():  # noqa: ASYNC110 - another thread sets no event of this loop
            await asyncio.sleep(0.002)


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a test on a fresh loop, and check that it leaves nothing behind and nothing unhandled."""
    unhandled: list[Any] = []

    async def watched() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: unhandled.append(context))
        async with asyncio.timeout(2 * BOUND):
            await main
        gc.collect(1)  # the test's own objects are young
        await asyncio.sleep(0)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, left

    asyncio.run(watched())
    assert unhandled == []
    assert base_client.connected_clients == []


def event(name: str, *args: Any) -> str:
    """Return the frame of an event."""
    return "42" + json.dumps([name, *args])


# Made for these tests only: a certificate that nobody trusts, for localhost and 127.0.0.1, and its key.
CERTIFICATE = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgeSAQKhAOIsKnXSBU
Cvf0myAJO29Me6DwlF/erFvhndWhRANCAAQS1sozAx2FkUMxCS9uDlv90b7w5101
tKCSJBlQo4GxxlK92hRGvY4BmTMYa+cYYlJYONixozewOSJWrdTyvMsT
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBmzCCAUGgAwIBAgIUEu6egPJPABUMsKChtEjBME8CJyIwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMzE1MjAyM1oYDzIxMjYxMDMw
MTUyMDIzWjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAQS1sozAx2FkUMxCS9uDlv90b7w5101tKCSJBlQo4GxxlK92hRGvY4B
mTMYa+cYYlJYONixozewOSJWrdTyvMsTo28wbTAdBgNVHQ4EFgQUySNpedZd6EGZ
XdSMgGkJToZf8rQwHwYDVR0jBBgwFoAUySNpedZd6EGZXdSMgGkJToZf8rQwDwYD
VR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZI
zj0EAwIDSAAwRQIgCqlf/YEM6yc4eOezdC2cVV9KRmuoxzvPKQkrcVz4jxcCIQCY
INS1K6P5sWvKMhbKsOT7WuXBmDHhyvFyBSsLIaJ2fA==
-----END CERTIFICATE-----
"""
