"""One TCP connection through a ``FaultProxy``: two lanes, each read, delayed, and written on."""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from realtime_fsm.testing.fault_proxy import FaultProxy

CHUNK: Final = 64 * 1024
"""Bytes that are read at a time."""

_BUFFER: Final = 256 * 1024
"""Bytes that a lane holds at most; then it reads no more, so that the sender feels it."""

_HEAD: Final = 8 * 1024
"""Bytes of a first line at most."""

_LONGEST_METHOD: Final = 16
_PACE: Final = 0.02
"""Seconds between two pieces where the bandwidth is limited."""

_DIAL_TIMEOUT: Final = 5.0
_PART_TIMEOUT: Final = 1.0
"""Seconds that the two sides get to answer an orderly end."""

_CLOSE_TIMEOUT: Final = 2.0
_RESET: Final = struct.pack("ii", 1, 0)


class BlockedError(ConnectionError):
    """The connection's first request is for a path that is blocked."""


class Lane:
    """One direction: what is read waits for its time, and is written on in order.

    An end or an error of the sender travels in the lane like data, so a black hole holds it back as well.

    Args:
        proxy: Whose faults apply.
        reader: What is read from.
        inspect: Sees what was read, and returns what of it may be forwarded.
        count: Told how many bytes were forwarded.
    """

    def __init__(
        self,
        proxy: "FaultProxy",
        reader: asyncio.StreamReader,
        *,
        inspect: Callable[[bytes], bytes],
        count: Callable[[int], None],
    ) -> None:
        self._proxy = proxy
        self._reader = reader
        self._inspect = inspect
        self._count = count
        self._parcels: deque[tuple[float, bytes | OSError]] = deque()
        self._held_bytes = 0
        self._changed = asyncio.Event()
        self._last_due = 0.0

    async def read(self) -> None:
        """Read until the end. An empty parcel stands for it.

        Raises:
            BlockedError: If the connection must not be forwarded.
        """
        ended = False
        while not ended:
            parcel: bytes | OSError
            try:
                data = await self._reader.read(CHUNK)
            except OSError as error:
                self._inspect(b"")
                parcel, ended = error, True
            else:
                parcel, ended = self._inspect(data), not data
            if ended and isinstance(parcel, bytes) and parcel:
                await self._put(parcel)  # held back by the inspection until now
                parcel = b""
            if parcel or ended:
                await self._put(parcel)

    async def write(self, writer: asyncio.StreamWriter) -> None:
        """Write what has been read, each at its time, and the end when it comes.

        Raises:
            OSError: If the sender was reset, or the receiver has gone.
        """
        loop = asyncio.get_running_loop()
        while True:
            due, parcel = await self._get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            await self._proxy.flowing.wait()
            if isinstance(parcel, OSError):
                raise parcel
            if not parcel:
                writer.write_eof()
                return
            await self._forward(parcel, writer)

    async def _forward(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        """Write data, at no more than the bandwidth."""
        while data:
            bandwidth = self._proxy.bandwidth
            size = len(data) if bandwidth is None else max(1, int(bandwidth * _PACE))
            piece, data = data[:size], data[size:]
            if bandwidth is not None:
                await asyncio.sleep(len(piece) / bandwidth)
            await self._proxy.flowing.wait()
            writer.write(piece)
            await writer.drain()
            self._count(len(piece))

    async def _put(self, parcel: bytes | OSError) -> None:
        self._last_due = max(self._last_due, asyncio.get_running_loop().time() + self._proxy.delay())
        due = self._last_due
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
    """A client's connection, and the one to the server that belongs to it.

    Args:
        proxy: Whose faults apply.
        reader: The client's.
        writer: The client's.
    """

    def __init__(
        self, proxy: "FaultProxy", reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._proxy = proxy
        self._sides = [(reader, writer)]
        self._head = b""
        self._unclear = b""  # sent by the client, and held until its first line is clear
        self._is_clear = asyncio.Event()
        self._is_ordered_to_end = asyncio.Event()
        self._is_reset = False
        self._up = Lane(proxy, reader, inspect=self._inspect, count=self._count_up)

    @property
    def is_blocked(self) -> bool | None:
        """Whether its first request is for a blocked path; ``None`` where that is not clear yet."""
        prefix = self._proxy.blocked_path
        return False if prefix is None else is_request_for(prefix, self._head)

    async def run(self) -> None:
        """Forward until both sides have ended, one was reset, or a fault ends it."""
        carrying = asyncio.create_task(self._carry(), name="fault proxy: carry")
        ordered = asyncio.create_task(self._is_ordered_to_end.wait(), name="fault proxy: order")
        try:
            await asyncio.wait({carrying, ordered}, return_when=asyncio.FIRST_COMPLETED)
            if carrying.done():
                carrying.result()
            else:
                carrying.cancel()
                await asyncio.wait({carrying}, timeout=_CLOSE_TIMEOUT)
                if not self._is_reset:
                    await self._part()
        finally:
            carrying.cancel()
            ordered.cancel()
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
            if raw is not None and raw.fileno() >= 0:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()

    def cut(self) -> None:
        """End both sides in an orderly way: FIN; what is under way is lost."""
        self._is_ordered_to_end.set()

    async def _carry(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._up.read(), name="fault proxy: read from the client")
                down, server = await self._dial()
                client = self._sides[0][1]
                group.create_task(self._up.write(server), name="fault proxy: write to the server")
                group.create_task(down.read(), name="fault proxy: read from the server")
                group.create_task(down.write(client), name="fault proxy: write to the client")
        except* BlockedError:
            self.make_reset()
        except* OSError:
            self.reset()  # one side was, or the server refuses: so the other learns it

    async def _dial(self) -> tuple[Lane, asyncio.StreamWriter]:
        """Connect to the server, unless the connection is blocked or lost in a black hole."""
        if self._proxy.blocked_path is not None:
            await self._is_clear.wait()
        await self._proxy.flowing.wait()
        try:
            async with asyncio.timeout(_DIAL_TIMEOUT):
                reader, writer = await asyncio.open_connection(*self._proxy.target, limit=CHUNK)
        except OSError:
            self._proxy.counters.refused += 1
            raise
        self._sides.append((reader, writer))
        return Lane(self._proxy, reader, inspect=lambda data: data, count=self._count_down), writer

    async def _part(self) -> None:
        """Say the end to both sides, and read what they still send: closing on it would be a reset."""
        ending = [asyncio.ensure_future(_parted(*side)) for side in self._sides]
        try:
            await asyncio.wait(ending, timeout=_PART_TIMEOUT)
        finally:
            for task in ending:
                task.cancel()
            await asyncio.wait(ending, timeout=_CLOSE_TIMEOUT)

    def _inspect(self, data: bytes) -> bytes:
        """Return what may be forwarded: nothing while it is not clear whether the path is blocked."""
        if b"\n" not in self._head:
            self._head = (self._head + data)[:_HEAD]
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
    is_whole = bool(newline or end or len(head) >= _HEAD)
    return None if not is_whole and (not space or wanted.startswith(target)) else False


async def _parted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        if not writer.is_closing():
            writer.write_eof()
        while await reader.read(CHUNK):
            pass
    except OSError:
        return  # it went first


async def _closed(writer: asyncio.StreamWriter) -> None:
    try:
        await writer.wait_closed()
    except OSError:
        return  # closed all the same
