"""A network in memory: the real aiohttp and python-socketio on it, client and server, in virtual time."""

import asyncio
import time
from collections.abc import Callable
from random import Random
from typing import Any, Final

import aiohttp
from aiohttp import web
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest
from aiohttp.tracing import Trace
from engineio import async_socket, base_socket

from realtime_fsm.testing.lane_faults import Direction
from realtime_fsm.testing.memory_pipe import MemoryTransport
from realtime_fsm.testing.network_faults import NetworkFaults
from realtime_fsm.testing.virtual_loop import VirtualLoop

_FIRST_PORT: Final = 49_152
_NEVER: Final = 86_400.0
ProtocolFactory = Callable[[], asyncio.BaseProtocol]


class MemoryNetwork(NetworkFaults):
    """Hosts, ports and connections in memory. Use it on a ``VirtualLoop``, and an hour takes milliseconds.

    ::

        network = MemoryNetwork(random.Random(7))
        await network.serve(application, "backend", 80)
        session = aiohttp.ClientSession(connector=network.connector())
        ...
        network.reset_peer()

    Its faults are those of ``FaultProxy``, by the same names; but a black hole takes no connections either:
    a dial waits until it is healed. What is sent always takes ``least_latency``, as on any network.

    Of the real libraries one thing goes by the real clock, wherever it runs: python-engineio's server asks it
    whether a client has answered its ping. On a virtual loop it gets that loop's time: a run on a busy
    machine, which takes seconds between two pings, must not differ from one that takes none.

    Args:
        random: Where all jitter comes from: seeded, so that a run can be repeated.

    Attributes:
        dials: Connections that were asked for.
    """

    least_latency: Final = 0.001

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self._listeners: dict[tuple[str, int], ProtocolFactory] = {}
        self._runners: list[web.AppRunner] = []
        self._refuses: Callable[[int], bool] = lambda _: False
        self._ends: dict[MemoryTransport, None] = {}  # in order: a run must be repeatable
        self.dials = 0

    @property
    def connections(self) -> list[MemoryTransport]:
        """The ends that are open, the clients' and the servers'."""
        return [end for end in self._ends if not end.has_ended]

    def listen(self, host: str, port: int, factory: ProtocolFactory) -> None:
        """Let a program accept connections at an address."""
        self._listeners[host, port] = factory

    async def serve(
        self, application: web.Application, host: str, port: int = 80, **options: Any
    ) -> ProtocolFactory:
        """Serve an aiohttp application at an address.

        Args:
            application: Which.
            host: Any name.
            port: Any number.
            options: As for ``web.AppRunner``.

        Returns:
            What accepts its connections, for another network through which it can be reached too.
        """
        runner = web.AppRunner(application, access_log=None, handle_signals=False, **options)
        await runner.setup()
        if runner.server is None:  # pragma: no cover - it is there once it is set up
            raise AssertionError("the runner has no server")
        self._runners.append(runner)
        self.listen(host, port, runner.server)
        return runner.server

    async def close(self) -> None:
        """Stop serving, and end all connections."""
        self._listeners.clear()
        for runner in self._runners:
            await runner.cleanup()
        self._runners.clear()
        self.reset_peer()

    def connector(self) -> aiohttp.BaseConnector:
        """Return a new connector for an ``aiohttp.ClientSession``, whose connections come from here."""
        return _MemoryConnector(self)

    async def dial(
        self, factory: ProtocolFactory, host: str, port: int
    ) -> tuple[MemoryTransport, asyncio.BaseProtocol]:
        """Connect to an address: as ``loop.create_connection``, which has no such network.

        Raises:
            ConnectionRefusedError: If nobody listens there, or it is refused.
        """
        self.dials += 1
        number = self.dials
        await asyncio.sleep(self.delay())
        while not self.flowing.is_set():
            await self.flowing.wait()
        accept = self._listeners.get((host, port))
        if accept is None or self._refuses(number):
            raise ConnectionRefusedError(f"Connection refused by {host}:{port}")
        return self._connect(factory(), accept(), (host, port), ("client", _FIRST_PORT + number))

    def delay(self) -> float:
        """Return by how much the next piece of data is late."""
        return self.least_latency + super().delay()

    # Faults.

    def reset_peer(self) -> None:
        """Reset every connection: both sides see RST."""
        for transport in self.connections:
            transport.end(ConnectionResetError("Connection reset by peer"))

    def cut(self) -> None:
        """Close every connection in an orderly way: both sides see FIN."""
        for transport in self.connections:
            transport.hear_end()

    def refuse(self, enabled: bool) -> None:
        """Refuse new connections at once, as when nothing listens."""
        self._refuses = lambda _: enabled

    def refuse_dial(self, number: int) -> None:
        """Refuse one dial from now on: 1 for the next one."""
        wanted = self.dials + number
        self._refuses = lambda dial: dial == wanted

    def faults_changed(self) -> None:
        """Let every connection look again at what is wrong."""
        for transport in list(self._ends):
            transport.look()

    # Inside.

    def _connect(
        self,
        dialling: asyncio.BaseProtocol,
        accepting: asyncio.BaseProtocol,
        server: tuple[str, int],
        client: tuple[str, int],
    ) -> tuple[MemoryTransport, asyncio.BaseProtocol]:
        here = MemoryTransport(self, Direction.UP, (client, server), self._over)
        there = MemoryTransport(self, Direction.DOWN, (server, client), self._over)
        here.join(there, dialling)
        there.join(here, accepting)
        self._ends |= {here: None, there: None}
        accepting.connection_made(there)
        dialling.connection_made(here)
        here.look()
        there.look()
        return here, dialling

    def _over(self, *transports: MemoryTransport) -> None:
        for transport in transports:
            self._ends.pop(transport, None)


class _EngineClock:
    """The module ``time``, as far as python-engineio's server uses it."""

    @staticmethod
    def time() -> float:
        """Return the virtual time on a virtual loop, and the real one elsewhere."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # a server of threads
            return time.time()
        return loop.time() if isinstance(loop, VirtualLoop) else time.time()


async_socket.time = base_socket.time = _EngineClock


class _MemoryConnector(aiohttp.BaseConnector):
    """The extension point at which aiohttp's own connector for Unix sockets stands."""

    def __init__(self, network: MemoryNetwork) -> None:
        # aiohttp ages idle connections by the real clock, which must not decide anything here.
        super().__init__(keepalive_timeout=_NEVER)
        self._network = network

    async def _create_connection(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's signature
    ) -> ResponseHandler:
        del traces, timeout  # the caller bounds it, and there is nothing to trace
        host, port = req.url.host or "", req.url.port or 80
        try:
            _, protocol = await self._network.dial(self._factory, host, port)
        except OSError as error:
            raise aiohttp.ClientConnectorError(req.connection_key, error) from error
        return protocol  # type: ignore[return-value]  # what the factory made
