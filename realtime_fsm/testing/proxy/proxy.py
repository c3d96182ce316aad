"""A TCP proxy that makes faults, on real sockets on 127.0.0.1."""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Final, Self

from attrs import define

from realtime_fsm.testing.proxy.faults import (
    BlockedError,
    DataLimit,
    Direction,
    LimitReachedError,
    NetworkFaults,
)
from realtime_fsm.testing.proxy.frames import (
    FrameAction,
    FrameFilter,
    FrameLog,
    FrameRules,
    Match,
    Piece,
    Rule,
)

_HOST: Final = "127.0.0.1"
_RESET: Final = struct.pack("ii", 1, 0)
"""``SO_LINGER`` with no time: closing sends RST, and what is under way is lost."""

_CHUNK: Final = 64 * 1024
"""Bytes that are read at a time."""

_BUFFER: Final = 256 * 1024
"""Bytes that a lane holds at most; then it reads no more, so that the sender feels it."""

_PACE: Final = 0.02
"""Seconds between two pieces where the bandwidth is limited."""

_LONGEST_FIRST_LINE: Final = 8 * 1024
_LONGEST_METHOD: Final = 16

_DIAL_TIMEOUT: Final = 5.0
_PART_TIMEOUT: Final = 1.0
"""Seconds that the two sides get to answer an orderly end."""

_CLOSE_TIMEOUT: Final = 2.0
_CONNECTIONS_END_TIMEOUT: Final = 5.0
"""Seconds that all connections get when the proxy ends: more than one of them needs."""


@define
class ProxyCounters:
    """Counters of what passed through a proxy.

    Attributes:
        accepted: Connections accepted.
        refused: Accepted connections that the server did not take. (What is refused while the proxy does not
            listen is refused by the kernel, and nobody counts it.)
        reset: Connections that the proxy reset, the blocked ones included.
        bytes_up: Bytes forwarded to the server.
        bytes_down: Bytes forwarded to the client.
    """

    accepted: int = 0
    refused: int = 0
    reset: int = 0
    bytes_up: int = 0
    bytes_down: int = 0


class FaultProxy(NetworkFaults):
    """Forwards TCP connections to a server, and makes trouble when it is told to.

    ::

        async with FaultProxy("127.0.0.1", port) as proxy:
            ...  # connect to proxy.url
            proxy.reset_peer()

    Faults can be switched at any time, and apply to the connections there are and to new ones. Without one,
    what either side does reaches the other: data, an orderly end, a reset. The others are those of
    ``NetworkFaults``.

    Args:
        host: Of the server.
        port: Of the server.
        random: Where the jitter and the sizes of segments come from; by default it is the same in every run.
        frames: Read HTTP, polling and WebSocket, so that ``rule`` can be used and ``log`` is kept. What is
            not HTTP passes. WebSockets are not compressed then.

    Attributes:
        port: Where it listens; it stays the same as long as the proxy lives.
        blocked_path: See ``block``.
        target: Host and port of the server.
        frames: The rules for frames, where frames are read.
        counters: What passed through.
    """

    def __init__(self, host: str, port: int, *, random: Random | None = None, frames: bool = False) -> None:
        super().__init__(Random(0) if random is None else random)  # noqa: S311 - jitter is no secret
        self._socket: socket.socket | None = None
        self._is_listening = False
        self._connections: dict[asyncio.Task[None], ProxiedConnection] = {}
        self.target = (host, port)
        self.port = 0
        self.blocked_path: str | None = None
        self.frames = FrameRules() if frames else None
        self.counters = ProxyCounters()

    @property
    def url(self) -> str:
        """The address at which the proxy listens."""
        return f"http://{_HOST}:{self.port}"

    @property
    def connection_count(self) -> int:
        """Connections that are open."""
        return len(self._connections)

    @property
    def log(self) -> FrameLog:
        """The frames that passed, and what was done with them.

        Raises:
            RuntimeError: If the proxy does not read frames.
        """
        return self._rules().log

    async def __aenter__(self) -> Self:
        self._reserve()
        self._listen()
        return self

    async def __aexit__(self, *exception: object) -> None:
        """Reset every connection and release everything, within a few seconds.

        Raises:
            RuntimeError: If a connection does not end.
        """
        self._release()
        tasks = set(self._connections)
        for connection in self._connections.values():
            connection.reset()
        if tasks:
            _, pending = await asyncio.wait(tasks, timeout=_CONNECTIONS_END_TIMEOUT)
            if pending:
                raise RuntimeError(f"{len(pending)} connections of the proxy do not end: {pending}")

    def set_target(self, host: str, port: int) -> None:
        """Forward new connections to another server."""
        self.target = (host, port)

    def reset_peer(self) -> None:
        """Reset every connection: both sides see RST."""
        for connection in self._connections.values():
            connection.make_reset()

    def cut(self) -> None:
        """Close every connection in an orderly way: both sides see FIN."""
        for connection in self._connections.values():
            connection.cut()

    def rule(self, match: Match, action: FrameAction, *, times: int | None = 1, skip: int = 0) -> Rule:
        """Do something with single frames: swallow an acknowledgement, refuse the second dial, ...

        Args:
            match: Which ones. Where several rules match, the one that was added first decides.
            action: What is done with them.
            times: How often at most; ``None`` for always.
            skip: So many matches pass before.

        Returns:
            The rule; its ``happened`` can be awaited.

        Raises:
            RuntimeError: If the proxy does not read frames.
        """
        rule = Rule(match, action, times, skip)
        self._rules().rules.append(rule)
        return rule

    def faults_changed(self) -> None:
        """Let every connection look at its deadline again."""
        for connection in self._connections.values():
            connection.set_deadline()

    def _rules(self) -> FrameRules:
        if self.frames is None:
            raise RuntimeError("frames are read by a proxy made with FaultProxy(..., frames=True)")
        return self.frames

    def block(self, path: str | None) -> None:
        """Reset connections whose first request is for a path that begins so; ``None`` ends it.

        Connections for other paths pass: so the socket can be blocked while plain HTTP gets through. Later
        requests on a connection are not looked at.
        """
        self.blocked_path = path
        for connection in self._connections.values():
            if connection.is_blocked:
                connection.make_reset()

    def refuse(self, enabled: bool) -> None:
        """Refuse new connections at once, as when nothing listens; the port is kept for later."""
        if enabled and self._is_listening:
            self._release()
            self._reserve()
        elif not enabled and not self._is_listening:
            self._listen()

    def _reserve(self) -> None:
        """Take the port without listening: connects are refused, and nobody else can have it."""
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((_HOST, self.port))
        self.port = self._socket.getsockname()[1]

    def _listen(self) -> None:
        if self._socket is None:
            raise RuntimeError("the proxy is used outside its `async with`")
        self._socket.listen()
        # Not asyncio's server: one that is closed just while a connection comes in forgets it, open.
        asyncio.get_running_loop().add_reader(self._socket, self._accept, self._socket)
        self._is_listening = True

    def _release(self) -> None:
        """Give the port up. The kernel resets the connections that have not been accepted."""
        if self._is_listening and self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
        self._is_listening = False
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _accept(self, listening: socket.socket) -> None:
        try:
            client, _ = listening.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # it has gone again
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.counters.accepted += 1
        connection = ProxiedConnection(self, client)
        task = asyncio.create_task(connection.run(), name="fault proxy: connection")
        self._connections[task] = connection
        task.add_done_callback(self._connections.pop)


class ProxiedLane:
    """One direction of a connection: what is read waits for its time, and is written on in order.

    An end or an error of the sender travels in the lane like data, so a black hole holds it back as well.

    Args:
        proxy: Whose faults apply.
        direction: Whose faults apply.
        reader: What is read from.
        inspect: Sees what was read, nothing at the end; returns what may be forwarded now, and by how many
            seconds more each piece is late.
        count: Told how many bytes were forwarded.
    """

    def __init__(
        self,
        proxy: FaultProxy,
        direction: Direction,
        reader: asyncio.StreamReader,
        *,
        inspect: Callable[[bytes], list[tuple[float, bytes]]],
        count: Callable[[int], None],
    ) -> None:
        self._proxy = proxy
        self._faults = proxy.faults[direction]
        self._limit: DataLimit | None = None
        self._left = 0  # bytes, where there is a limit
        self._reader = reader
        self._inspect = inspect
        self._count = count
        self._parcels: deque[tuple[float, bytes | OSError]] = deque()
        self._held_bytes = 0
        self._changed = asyncio.Event()

    async def read(self) -> None:
        """Read until the end. An empty parcel stands for it.

        Raises:
            BlockedError: If the connection must not be forwarded.
        """
        data = b"a beginning"
        while data:
            try:
                data = await self._reader.read(_CHUNK)
            except OSError as error:
                self._inspect(b"")
                await self._put(error)
                return
            for late, piece in self._inspect(data):
                if piece:
                    await self._put(piece, late)
        await self._put(b"")

    async def write(self, writer: asyncio.StreamWriter) -> None:
        """Write what has been read, each at its time, and the end when it comes.

        Raises:
            LimitReachedError: If as many bytes have passed as may.
            OSError: If the sender was reset, or the receiver has gone.
        """
        loop = asyncio.get_running_loop()
        while True:
            due, parcel = await self._get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            if isinstance(parcel, OSError) or not parcel:
                await asyncio.sleep(self._faults.slow_close)
            await self._until_flowing()
            if isinstance(parcel, OSError):
                raise parcel
            if not parcel:
                writer.write_eof()
                return
            await self._forward(parcel, writer)

    async def _forward(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        """Write data, at no more than the bandwidth, in segments, and up to the limit."""
        while data:
            bandwidth, slicer = self._proxy.bandwidth, self._faults.slicer
            size = len(data) if bandwidth is None else max(1, int(bandwidth * _PACE))
            if slicer is not None:
                size = min(size, slicer.size(self._proxy.random))
            if bandwidth is not None:
                await asyncio.sleep(min(size, len(data)) / bandwidth)
            await self._until_flowing()
            piece = data[: self._allowed(size)]
            data = data[len(piece) :]
            writer.write(piece)
            await writer.drain()
            self._count(len(piece))
            self._charge(len(piece))
            if slicer is not None:
                await asyncio.sleep(slicer.delay)

    def _allowed(self, size: int) -> int:
        """Return how many of so many bytes may pass."""
        limit = self._faults.limit
        if limit is not self._limit:
            self._limit = limit
            self._left = 0 if limit is None else limit.size
        return size if limit is None else min(size, self._left)

    def _charge(self, size: int) -> None:
        if self._limit is not None:
            self._left -= size
            if self._left == 0:
                raise LimitReachedError("as many bytes have passed as may")

    async def _until_flowing(self) -> None:
        """Wait until neither a black hole nor a fault of this direction holds the data."""
        held, stalled = self._proxy.flowing, self._faults.flowing
        while not (held.is_set() and stalled.is_set()):
            await held.wait()
            await stalled.wait()

    async def _put(self, parcel: bytes | OSError, late: float = 0.0) -> None:
        due = asyncio.get_running_loop().time() + self._proxy.delay() + late
        while self._held_bytes >= _BUFFER:
            self._changed.clear()
            await self._changed.wait()
        self._parcels.append((due, parcel))
        self._held_bytes += 0 if isinstance(parcel, OSError) else len(parcel)
        self._changed.set()

    async def _get(self) -> tuple[float, bytes | OSError]:
        while not self._parcels:
            self._changed.clear()
            await self._changed.wait()
        due, parcel = self._parcels.popleft()
        self._held_bytes -= 0 if isinstance(parcel, OSError) else len(parcel)
        self._changed.set()
        return due, parcel


class ProxiedConnection:
    """A client's connection, and the one to the server that belongs to it: two lanes, and how they end.

    Args:
        proxy: Whose faults apply.
        client: The accepted socket; it is closed by ``run``.
    """

    def __init__(self, proxy: FaultProxy, client: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._sides: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._first_line = b""
        self._unclear = b""  # sent by the client, and held until its first line is clear
        self._is_clear = asyncio.Event()
        self._is_ordered_to_end = asyncio.Event()
        self._is_reset = False
        self._filter = None if proxy.frames is None else FrameFilter(proxy.frames)
        self._deadline: asyncio.TimerHandle | None = None

    @property
    def is_blocked(self) -> bool | None:
        """True if its first request is for a blocked path; ``None`` where that is not clear yet."""
        prefix = self._proxy.blocked_path
        return False if prefix is None else is_request_for(prefix, self._first_line)

    async def run(self) -> None:
        """Forward until both sides have ended, one was reset, or a fault ends it."""
        self._sides.append(await asyncio.open_connection(sock=self._client, limit=_CHUNK))
        carrying = asyncio.create_task(self._carry(*self._sides[0]), name="fault proxy: carry")
        ordered = asyncio.create_task(self._is_ordered_to_end.wait(), name="fault proxy: order")
        self.set_deadline()
        try:
            await asyncio.wait({carrying, ordered}, return_when=asyncio.FIRST_COMPLETED)
            if carrying.done():
                carrying.result()
            else:
                carrying.cancel()
                await asyncio.wait({carrying}, timeout=_CLOSE_TIMEOUT)
            if self._is_ordered_to_end.is_set() and not self._is_reset:
                await self._part()
        finally:
            self._cancel_deadline()
            carrying.cancel()
            ordered.cancel()
            if self._is_reset:
                self.reset()  # a side that came late too
            for _, writer in self._sides:
                writer.close()
            closing = [asyncio.ensure_future(_closed(writer)) for _, writer in self._sides]
            await asyncio.wait([carrying, ordered, *closing], timeout=_CLOSE_TIMEOUT)

    def make_reset(self) -> None:
        """Reset both sides because the proxy was told to, and count it, once."""
        if not self._is_reset:
            self._proxy.counters.reset += 1
            self.reset()

    def reset(self) -> None:
        """Reset both sides at once: RST, and what is under way is lost."""
        self._is_reset = True
        self._is_ordered_to_end.set()
        for _, writer in self._sides:
            raw = writer.get_extra_info("socket")
            if raw.fileno() >= 0:  # or it is closed already
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()

    def cut(self) -> None:
        """End both sides in an orderly way: FIN; what is under way is lost."""
        self._is_ordered_to_end.set()

    def set_deadline(self) -> None:
        """End after the proxy's timeout, from now on; or no more, where there is none."""
        self._cancel_deadline()
        waits = [faults.timeout for faults in self._proxy.faults.values() if faults.timeout is not None]
        if waits:
            self._deadline = asyncio.get_running_loop().call_later(min(waits), self.cut)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    async def _carry(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        up = self._lane(Direction.UP, reader)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(up.read(), name="fault proxy: read from the client")
                down, server = await self._dial()
                group.create_task(up.write(server), name="fault proxy: write to the server")
                group.create_task(down.read(), name="fault proxy: read from the server")
                group.create_task(down.write(client), name="fault proxy: write to the client")
        except* BlockedError:
            self.make_reset()
        except* LimitReachedError:
            self.cut()
        except* OSError:
            self.reset()  # one side was, or the server refuses: so the other learns it

    async def _dial(self) -> tuple[ProxiedLane, asyncio.StreamWriter]:
        """Connect to the server, unless the connection is blocked or lost in a black hole."""
        if self._proxy.blocked_path is not None:
            await self._is_clear.wait()
        await self._proxy.flowing.wait()
        try:
            async with asyncio.timeout(_DIAL_TIMEOUT):
                reader, writer = await asyncio.open_connection(*self._proxy.target, limit=_CHUNK)
        except OSError:
            self._proxy.counters.refused += 1
            raise
        self._sides.append((reader, writer))
        return self._lane(Direction.DOWN, reader), writer

    def _lane(self, direction: Direction, reader: asyncio.StreamReader) -> ProxiedLane:
        if direction is Direction.UP:
            inspect, count = self._inspect_up, self._count_up
        else:
            inspect, count = self._inspect_down, self._count_down
        return ProxiedLane(self._proxy, direction, reader, inspect=inspect, count=count)

    async def _part(self) -> None:
        """Say the end to both sides, and read what they still send: closing on it would be a reset."""
        ending = [asyncio.ensure_future(_parted(*side)) for side in self._sides]
        try:
            await asyncio.wait(ending, timeout=_PART_TIMEOUT)
        finally:
            for task in ending:
                task.cancel()
            await asyncio.wait(ending, timeout=_CLOSE_TIMEOUT)

    def _inspect_up(self, data: bytes) -> list[Piece]:
        allowed = self._inspect(data)
        if self._filter is None:
            return [(0.0, allowed)]
        pieces = self._filter.feed(Direction.UP, allowed) if allowed else []
        return pieces if data else [*pieces, *self._filter.feed(Direction.UP, b"")]

    def _inspect_down(self, data: bytes) -> list[Piece]:
        return [(0.0, data)] if self._filter is None else self._filter.feed(Direction.DOWN, data)

    def _inspect(self, data: bytes) -> bytes:
        """Return what may be forwarded: nothing while it is not clear whether the path is blocked."""
        if b"\n" not in self._first_line:
            self._first_line = (self._first_line + data)[:_LONGEST_FIRST_LINE]
        verdict = self.is_blocked
        if verdict:
            raise BlockedError("the path of its first request is blocked")
        held = self._unclear + data
        if verdict is None and data:
            self._unclear = held
            return b""
        self._unclear = b""
        self._is_clear.set()
        return held

    def _count_up(self, count: int) -> None:
        self._proxy.counters.bytes_up += count

    def _count_down(self, count: int) -> None:
        self._proxy.counters.bytes_down += count


def is_request_for(prefix: str, head: bytes) -> bool | None:
    """Tell whether an HTTP request's target begins with ``prefix``.

    Args:
        prefix: Of the path.
        head: The beginning of what the client sent; it may end anywhere.

    Returns:
        ``None`` while more is needed to tell. What is not HTTP is for no path.
    """
    line, newline, _ = head.partition(b"\n")
    method, space, rest = line.partition(b" ")
    if not (method.isalpha() and method.isupper() and len(method) <= _LONGEST_METHOD):
        return False if method or newline else None
    target, end, _ = rest.partition(b" ")
    wanted = prefix.encode("latin-1")
    if target.startswith(wanted):
        return True
    is_whole = bool(newline or end or len(head) >= _LONGEST_FIRST_LINE)
    return None if not is_whole and (not space or wanted.startswith(target)) else False


async def _parted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        if not writer.is_closing():
            writer.write_eof()
        while await reader.read(_CHUNK):
            pass
    except OSError:
        return  # it went first


async def _closed(writer: asyncio.StreamWriter) -> None:
    try:
        await writer.wait_closed()
    except OSError:
        return  # closed all the same
