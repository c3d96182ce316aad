"""Servers, and what stands in front of them, that are broken in one way each. All on 127.0.0.1."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Final

import socketio
from aiohttp import web

from realtime_fsm.adapters.library_check import SILENT

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

OPEN: Final = {"sid": "abcdefgh", "upgrades": ["websocket"], "pingInterval": 25000, "pingTimeout": 5000}


def _origin(port: int, tls: ssl.SSLContext | None) -> str:
    return f"http://127.0.0.1:{port}" if tls is None else f"https://localhost:{port}"


@asynccontextmanager
async def talking(talk: Talk, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Serve every connection by one coroutine function, and cut it afterwards; give the address."""
    tasks: set[asyncio.Task[None]] = set()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        except OSError:  # the client has gone
            return
        finally:
            writer.transport.abort()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(converse(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    try:
        yield _origin(server.sockets[0].getsockname()[1], tls)
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def serving(application: web.Application, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Serve an application; give the address."""
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    try:
        yield _origin(runner.addresses[0][1], tls)
    finally:
        await runner.cleanup()


@asynccontextmanager
async def answering(answer: Answer, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Serve every request by one function; give the address."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    async with serving(application, tls=tls) as url:
        yield url


@asynccontextmanager
async def sound(
    *,
    tls: ssl.SSLContext | None = None,
    acknowledges: bool = True,
    in_front: Any = None,
    handlers: Mapping[str, Callable[..., Any]] | None = None,
    **options: Any,
) -> AsyncIterator[str]:
    """Serve a plain python-socketio server, as sound as the options let it be; give the address.

    Args:
        tls: Its certificate.
        acknowledges: Whether it has a handler of ``heartbeat``.
        in_front: A middleware that stands in front of it.
        handlers: Its handlers of events, of connections too.
        options: Of python-socketio's server.
    """
    server = socketio.AsyncServer(async_mode="aiohttp", logger=SILENT, engineio_logger=SILENT, **options)
    tasks: set[asyncio.Task[Any]] = set()

    def start(target: Callable[..., Any], *args: Any, **named: Any) -> asyncio.Task[Any]:
        task = asyncio.create_task(target(*args, **named))
        tasks.add(task)
        return task

    server.eio.start_background_task = start  # python-engineio leaves the tasks of its sessions behind
    if acknowledges:
        server.on("heartbeat", lambda sid: {"ok": True})
    for event, handler in (handlers or {}).items():
        server.on(event, handler)
    application = web.Application(middlewares=[] if in_front is None else [in_front])
    server.attach(application)
    try:
        async with serving(application, tls=tls) as url:
            yield url
    finally:
        await server.shutdown()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _is_upgrade(request: web.Request) -> bool:
    return request.headers.get("Upgrade", "").lower() == "websocket"


@web.middleware
async def refuses_upgrades(request: web.Request, handler: Answer) -> web.StreamResponse:
    """Be a proxy that knows no websockets."""
    if _is_upgrade(request):
        return web.Response(status=400, text="Bad Request")
    return await handler(request)


@web.middleware
async def swallows_upgrades(request: web.Request, handler: Answer) -> web.StreamResponse:
    """Be a proxy that never answers a request for a websocket."""
    if _is_upgrade(request):
        await asyncio.Event().wait()
    return await handler(request)


@web.middleware
async def swallows_frames(request: web.Request, handler: Answer) -> web.StreamResponse:
    """Be a proxy that opens websockets and passes nothing on."""
    if not _is_upgrade(request):
        return await handler(request)
    websocket = web.WebSocketResponse()
    await websocket.prepare(request)
    async for _ in websocket:
        continue
    return websocket


def opening(packet: dict[str, Any]) -> web.Response:
    """Return an OPEN packet as a polling payload."""
    return web.Response(text="0" + json.dumps(packet))


async def forgets(request: web.Request) -> web.Response:
    """Be several servers behind one balancer that is not sticky."""
    if request.method == "GET" and "sid" not in request.query:
        return opening(OPEN)
    return web.json_response({"code": 1, "message": "Session ID unknown"}, status=HTTPStatus.BAD_REQUEST)


async def deaf(request: web.Request) -> web.StreamResponse:
    """Let the client into the namespace, and never read or say anything again."""
    if not _is_upgrade(request):
        return opening(OPEN) if request.method == "GET" else web.Response(text="ok")
    websocket = web.WebSocketResponse(autoping=False)
    await websocket.prepare(request)
    await websocket.send_str("0" + json.dumps(OPEN))
    await websocket.receive()
    await websocket.send_str('40{"sid":"x"}')
    await asyncio.Event().wait()
    return websocket


@asynccontextmanager
async def impatient_proxy(url: str, patience: float) -> AsyncIterator[str]:
    """Stand in front of a server, and cut every connection that has been silent for so long."""
    port = int(url.rpartition(":")[2])

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, noise: asyncio.Event) -> None:
        while data := await source.read(65536):
            noise.set()
            sink.write(data)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        noise = asyncio.Event()
        pumps = {
            asyncio.create_task(pump(reader, inner_writer, noise)),
            asyncio.create_task(pump(inner_reader, writer, noise)),
        }
        try:
            while not any(one.done() for one in pumps):
                noise.clear()
                async with asyncio.timeout(patience):
                    await noise.wait()
        except TimeoutError:
            return
        finally:
            for one in pumps:
                one.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            inner_writer.transport.abort()

    async with talking(talk) as front:
        yield front
