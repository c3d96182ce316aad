"""A network in memory: the real aiohttp and python-socketio on it, client and server, in virtual time."""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any, Final

import aiohttp
from aiohttp import web
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest
from aiohttp.tracing import Trace
from engineio import async_socket, base_socket

from realtime_fsm.testing.proxy.faults import DataLimit, Direction, NetworkFaults
from realtime_fsm.testing.simulated.server import Wire
from realtime_fsm.testing.virtual_loop import VirtualLoop

KERNEL_BUFFER: Final = 64 * 1024
"""Bytes that the sender's kernel takes off its hands. What is beyond waits in the transport."""

_HIGH_WATER: Final = 64 * 1024
_FIRST_PORT: Final = 49_152
_NEVER: Final = 86_400.0

ProtocolFactory = Callable[[], asyncio.BaseProtocol]


class MemoryTransport(asyncio.Transport):
    """One end of a TCP connection without a network, as a program holds it.

    Args:
        network: Whose faults apply.
        direction: Which way what it writes goes.
        address: Of this end, and of the other one.
        on_end: Told with both ends when both have ended.
    """

    def __init__(
        self,
        network: NetworkFaults,
        direction: Direction,
        address: tuple[tuple[str, int], tuple[str, int]],
        on_end: Callable[..., None],
    ) -> None:
        super().__init__({"sockname": address[0], "peername": address[1]})
        self._network = network
        self._direction = direction
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._wire = Wire(self._may_pass)
        self._peer: MemoryTransport
        self._protocol: asyncio.BaseProtocol
        self._under_way = 0  # bytes written and not yet received by the peer's program
        self._free_at = 0.0  # when the line has carried what is on it, where its bandwidth is limited
        self._high, self._low = _HIGH_WATER, _HIGH_WATER // 4
        self._is_paused = False  # its program's writing
        self._is_reading = True
        self._is_closing = False
        self._has_ended = False
        self._has_sent_end = False
        self._limit: DataLimit | None = None
        self._left = 0
        self._deadline: asyncio.TimerHandle | None = None

    def join(self, peer: "MemoryTransport", protocol: asyncio.BaseProtocol) -> None:
        """Say what is at the other end, and which program has this one."""
        self._peer = peer
        self._protocol = protocol

    # What asyncio's programs use.

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the program that holds this end."""
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Hand it to another program."""
        self._protocol = protocol

    def is_closing(self) -> bool:
        """Tell whether it is closed or about to be."""
        return self._is_closing

    def is_reading(self) -> bool:
        """Tell whether the program wants data."""
        return self._is_reading and not self._is_closing

    def pause_reading(self) -> None:
        """Hold the sender back."""
        self._is_reading = False

    def resume_reading(self) -> None:
        """Let data come again."""
        self._is_reading = True
        self._peer.look()

    def get_write_buffer_size(self) -> int:
        """Return the bytes that wait in the transport."""
        return max(0, self._under_way - KERNEL_BUFFER)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return the low and the high mark."""
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the marks, as any asyncio transport does."""
        if high is None:
            high = _HIGH_WATER if low is None else 4 * low
        self._high, self._low = high, high // 4 if low is None else low

    def can_write_eof(self) -> bool:
        """Return that it can, as TCP does."""
        return True

    def write_eof(self) -> None:
        """Say that nothing more comes, and go on reading."""
        if not (self._has_sent_end or self._has_ended):
            self._has_sent_end = True
            self._put(b"", self._peer.hear_end, late=self._network.faults[self._direction].slow_close)

    def write(self, data: "bytes | bytearray | memoryview[Any]") -> None:
        """Send data; what the kernel does not take waits here."""
        if self._is_closing or self._has_sent_end or not data:
            return
        content = bytes(data)
        for piece, late in self._pieces(content):
            self._under_way += len(piece)
            self._put(piece, partial(self._arrive, piece), late=late)
        self._mind_marks()

    def close(self) -> None:
        """Send what is left, say the end, and be gone."""
        if self._is_closing:
            return
        self._is_closing = True
        self.write_eof()
        self._end_when_flushed()

    def abort(self) -> None:
        """Be gone at once; the other end is reset."""
        if self._has_ended:
            return
        self._wire.cut()
        if not self._peer.has_ended:
            reset = ConnectionResetError("Connection reset by peer")
            self._put(b"", partial(self._peer.end, reset), late=0.0)
        self.end(None)

    # For the network, and the other end.

    @property
    def has_ended(self) -> bool:
        """True if its program has been told that it is over, or is about to be."""
        return self._has_ended

    def end(self, error: Exception | None) -> None:
        """End it at once, and tell the program why."""
        if self._has_ended:
            return
        self._has_ended = self._is_closing = True
        if error is not None:
            self._wire.cut()  # a reset throws away what is on its way
        if self._deadline is not None:
            self._deadline.cancel()
        if self._peer.has_ended:  # nobody is left to whom anything could come
            self._wire.cut()
            self._peer.forget()
            self._on_end(self, self._peer)
        self._loop.call_soon(self._protocol.connection_lost, error)

    def forget(self) -> None:
        """Throw away what is on its way."""
        self._wire.cut()

    def hear_end(self) -> None:
        """Tell the program that nothing more comes."""
        if self._has_ended or not isinstance(self._protocol, asyncio.Protocol):
            return
        if not self._protocol.eof_received():
            self.close()

    def look(self) -> None:
        """Look again at what is wrong with the network."""
        self._wire.resume()
        timeout = self._network.faults[self._direction].timeout
        if timeout is None and self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        elif timeout is not None and self._deadline is None and not self._has_ended:
            self._deadline = self._loop.call_later(timeout, self._time_out)

    # Inside.

    def _may_pass(self) -> bool:
        return self._peer.takes and not self._network.is_held(self._direction)

    @property
    def takes(self) -> bool:
        """True if its program takes data; an end that is gone takes and forgets it."""
        return self._is_reading or self._is_closing

    def _pieces(self, data: bytes) -> list[tuple[bytes, float]]:
        """Return data in the segments in which it is sent, with the seconds that each is later."""
        slicer = self._network.faults[self._direction].slicer
        if slicer is None:
            return [(data, 0.0)]
        pieces, late, begin = [], 0.0, 0
        while begin < len(data):
            size = slicer.size(self._network.random)
            pieces.append((data[begin : begin + size], late))
            late, begin = late + slicer.delay, begin + size
        return pieces

    def _put(self, data: bytes, arrive: Callable[[], None], *, late: float) -> None:
        now, bandwidth = self._loop.time(), self._network.bandwidth
        if bandwidth is not None:
            self._free_at = max(now, self._free_at) + len(data) / bandwidth
            late += self._free_at - now
        self._wire.put(arrive, self._network.delay() + late)

    def _arrive(self, data: bytes) -> None:
        """Give data to the other program, as far as it may pass."""
        self._under_way -= len(data)
        allowed = self._allowed(len(data))
        if allowed:
            self._peer.receive(data[:allowed])
        if self._limit is not None and self._left == 0:
            self.end(None)
            self._peer.end(None)
            return
        self._mind_marks()
        if self._is_closing:
            self._end_when_flushed()

    def receive(self, data: bytes) -> None:
        """Give data to the program, if it still wants any."""
        if not self._is_closing and isinstance(self._protocol, asyncio.Protocol):
            self._protocol.data_received(data)

    def _allowed(self, size: int) -> int:
        limit = self._network.faults[self._direction].limit
        if limit is not self._limit:
            self._limit = limit
            self._left = 0 if limit is None else limit.size
        if limit is None:
            return size
        allowed = min(size, self._left)
        self._left -= allowed
        return allowed

    def _mind_marks(self) -> None:
        """Hold the program's writing back, or let it go on."""
        if self._has_ended:
            return
        waiting = self.get_write_buffer_size()
        if waiting > self._high and not self._is_paused:
            self._is_paused = True
            self._protocol.pause_writing()
        elif self._is_paused and waiting <= self._low:
            self._is_paused = False
            self._protocol.resume_writing()

    def _end_when_flushed(self) -> None:
        """End once the kernel has all; what is on its way still arrives."""
        if not self.get_write_buffer_size():
            self.end(None)

    def _time_out(self) -> None:
        self._deadline = None
        self.end(None)
        self._peer.end(None)


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
