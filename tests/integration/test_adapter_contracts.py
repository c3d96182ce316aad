"""The adapters to real servers keep the laws of their ports."""

import asyncio
import contextlib
import socket as sockets
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest
import socketio
from aiohttp import web
from hostile_server import Server, application, tcp

from realtime_fsm.adapters.http import AiohttpClient
from realtime_fsm.adapters.library_check import SILENT
from realtime_fsm.adapters.socketio_transport import SocketIOTransport
from realtime_fsm.engine.port import HttpClient, Transport, TransportListener
from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.machine.errors import AuthenticationError, ProtocolError, RealtimeError
from realtime_fsm.testing import (
    FaultProxy,
    PollerContract,
    PollerServer,
    TransportContract,
    run_in_real_time,
)


@contextlib.contextmanager
def unused_port() -> Iterator[int]:
    """Give a port at which nobody listens: it stays bound, so that no other process gets it."""
    with sockets.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield int(holder.getsockname()[1])


class Backend:
    """A server of python-socketio that does what the contract asks for."""

    def __init__(self) -> None:
        self.notes: list[Any] = []
        self.sio = socketio.AsyncServer(async_mode="aiohttp", logger=SILENT, engineio_logger=SILENT)
        self.is_refusing = False
        self.sio.on("connect", self.connect)
        self.sio.on("note", self.note)
        self.sio.on("echo", self.echo)

    async def connect(self, _: str, __: Any, auth: Any) -> None:
        """Let in who has a token."""
        if self.is_refusing or not auth["token"]:
            raise socketio.exceptions.ConnectionRefusedError("not you")

    async def note(self, _: str, *args: Any) -> None:
        """Keep a message."""
        self.notes.append(args[0])

    async def echo(self, _: str, *args: Any) -> Any:
        """Acknowledge a message by its own arguments."""
        return args


class SocketIOTransportLaws(TransportContract):
    """The one of the library, through a proxy that makes the faults."""

    name: str
    backend: Backend
    running: Server
    proxy: FaultProxy
    stack: contextlib.AsyncExitStack

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        """Run a law on a real loop."""
        run_in_real_time(main)

    async def set_up(self) -> None:
        """Start a server on a thread, and the proxy."""
        self.backend = Backend()
        app = web.Application()
        self.backend.sio.attach(app)
        self.stack = contextlib.AsyncExitStack()
        self.running = self.stack.enter_context(application(app))
        self.proxy = await self.stack.enter_async_context(FaultProxy("127.0.0.1", self.running.port))

    async def tear_down(self) -> None:
        """Stop both."""
        self.proxy.black_hole(False)
        await self.stack.aclose()

    async def make(self, listener: TransportListener) -> Transport:
        """Return one."""
        return self.to(self.proxy.url, listener)

    async def make_failing(self, listener: TransportListener, kind: type[RealtimeError]) -> Transport:
        """Return one that nobody answers, that is refused, or that meets a web server."""
        if kind is AuthenticationError:
            self.backend.is_refusing = True
            return await self.make(listener)
        if kind is ProtocolError:
            return self.to(self.stack.enter_context(application(web.Application())).url, listener)
        return self.to(f"http://127.0.0.1:{self.stack.enter_context(unused_port())}", listener)

    async def make_hanging(self, listener: TransportListener) -> Transport:
        """Return one to a server that accepts, and says nothing."""

        async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        return self.to(self.stack.enter_context(tcp(say_nothing)).url, listener)

    async def emit(self, event: str, *args: Any) -> None:
        """Emit an event, on the server's loop."""
        await self.running.call(self.backend.sio.emit(event, args))

    async def break_connections(self) -> None:
        """Reset them."""
        self.proxy.reset_peer()
        if self.name == "polling":  # each of its requests is a connection: the next ones must fail as well
            self.proxy.refuse(True)

    async def silence(self) -> None:
        """Let nothing pass."""
        self.proxy.black_hole(True)

    def notes(self) -> list[Any]:
        """Return what arrived."""
        return self.backend.notes

    def to(self, url: str, listener: TransportListener) -> Transport:
        """Return a transport to a server."""
        return SocketIOTransport(RealtimeConfig(server_url=url, transports=(self.name,)), listener)


class TestSocketIOTransportOverWebsocket(SocketIOTransportLaws):
    """Over a websocket."""

    name = "websocket"


class TestSocketIOTransportOverPolling(SocketIOTransportLaws):
    """Over long polling."""

    name = "polling"


class TestAiohttpClient(PollerContract):
    """The HTTP client of the library."""

    bound = 5.0
    server: PollerServer
    unused: int

    @pytest.fixture(autouse=True)
    def nobody_listens(self) -> Iterator[None]:
        """Keep a port for it."""
        with unused_port() as self.unused:
            yield

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        """Run a law on a real loop."""
        run_in_real_time(main)

    async def set_up(self) -> None:
        """Start the server of the contract."""
        self.server = await PollerServer().__aenter__()

    async def tear_down(self) -> None:
        """Stop it."""
        await self.server.__aexit__(None, None, None)

    async def make(self) -> HttpClient:
        """Return one."""
        return AiohttpClient(RealtimeConfig(server_url=self.server.url, request_timeout=0.5))

    async def make_unreachable(self) -> tuple[HttpClient, str]:
        """Return one that reaches nobody."""
        url = f"http://127.0.0.1:{self.unused}"
        return AiohttpClient(RealtimeConfig(server_url=url)), f"{url}/"

    def url(self, path: str) -> str:
        """Return the address of a path."""
        return self.server.url + path
