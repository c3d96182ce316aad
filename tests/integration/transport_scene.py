"""A transport on a real Socket.IO server, or on a scripted one."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import canary
import pytest
import socketio
from aiohttp import web
from hostile_server import (
    Recorder,
    Server,
)

from realtime_fsm.adapters.library_check import SILENT
from realtime_fsm.adapters.socketio_transport import SocketIOTransport, SocketIOTransportFactory
from realtime_fsm.engine.payload import Payload, encode
from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.machine.errors import (
    RealtimeError,
)

both = pytest.mark.parametrize("name", ["websocket", "polling"])
SECRET = canary.token()


def payload(*args: Any) -> Payload:
    """Return the arguments, encoded."""
    return encode(args, what="a test message", max_bytes=10_000_000)


@contextlib.asynccontextmanager
async def started(server: Server, *names: str, **options: Any) -> AsyncIterator[tuple[Any, Recorder]]:
    """Open a connection to a scripted server, and give the word at which it begins."""
    async with opened(server, *names, **options) as (transport, recorder):
        transport.send(payload("begin"), None)
        await recorder.until(lambda: transport.written == 1)
        yield transport, recorder


@contextlib.asynccontextmanager
async def opened(
    server: Server,
    *names: str,
    auth: Any = None,
    listener: Recorder | None = None,
    connector_factory: Any = None,
    **options: Any,
) -> AsyncIterator[tuple[SocketIOTransport, Recorder]]:
    """Open a connection, and close it at the end."""
    recorder = listener or Recorder()
    config = RealtimeConfig(server_url=server.url, transports=names or ("websocket",), **options)
    transport = SocketIOTransportFactory(config, connector_factory)(recorder)
    try:
        async with asyncio.timeout(20):
            await transport.open(auth)
        yield transport, recorder
    finally:
        async with asyncio.timeout(20):
            await transport.close(goodbye=False)


async def failure(server_url: str, *names: str, auth: Any = None, **options: Any) -> RealtimeError:
    """Return the error with which opening fails, having checked that nothing is left."""
    recorder = Recorder()
    config = RealtimeConfig(server_url=server_url, transports=names or ("websocket",), **options)
    transport = SocketIOTransport(config, recorder)
    with pytest.raises(RealtimeError) as raised:
        async with asyncio.timeout(20):
            await transport.open(auth)
    await transport.close(goodbye=False)
    assert recorder.calls == []
    assert SECRET not in str(raised.value)
    return raised.value


class Backend:
    """A real Socket.IO server, and what it was told."""

    def __init__(self) -> None:
        self.sio = socketio.AsyncServer(
            async_mode="aiohttp", namespaces=["/", "/chat"], logger=SILENT, engineio_logger=SILENT
        )
        self.notes: list[Any] = []
        self.left: list[str] = []
        for namespace in ("/", "/chat"):
            self.sio.on("connect", self.connect(namespace), namespace=namespace)
            self.sio.on("disconnect", self.disconnect, namespace=namespace)
            self.sio.on("note", self.note, namespace=namespace)
            self.sio.on("echo", self.echo(namespace), namespace=namespace)
        self.sio.on("burst", self.burst)
        self.sio.on("ask", self.ask)
        self.sio.on("kick", self.kick)

    def connect(self, namespace: str) -> Any:
        """Accept a client, or refuse it as it asks."""

        async def handle(sid: str, _: Any, auth: Any) -> None:
            await self.sio.emit("welcome", {"auth": auth}, to=sid, namespace=namespace)
            if isinstance(auth, dict) and "refuse" in auth:
                raise socketio.exceptions.ConnectionRefusedError(*auth["refuse"])

        return handle

    async def disconnect(self, _: str, reason: str) -> None:
        """Keep why a client left."""
        self.left.append(reason)

    async def note(self, _: str, *args: Any) -> None:
        """Keep a message."""
        self.notes.append(args)

    def echo(self, namespace: str) -> Any:
        """Send a message back, as an event and as an answer."""

        async def handle(sid: str, *args: Any) -> Any:
            await self.sio.emit("echoed", args, to=sid, namespace=namespace)
            return args

        return handle

    async def burst(self, sid: str, count: int) -> None:
        """Emit many events."""
        for number in range(count):
            await self.sio.emit("tick", {"n": number}, to=sid)

    async def ask(self, sid: str) -> None:
        """Ask the client, and keep its answer."""
        self.notes.append(await self.sio.call("question", "why", to=sid))

    async def kick(self, sid: str) -> None:
        """Disconnect the client."""
        await self.sio.disconnect(sid)

    def app(self) -> web.Application:
        """Return the server as an application."""
        app = web.Application()
        self.sio.attach(app)
        return app


async def says_nothing(_: web.WebSocketResponse) -> None:
    """Follow no script: stay silent."""
