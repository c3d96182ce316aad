"""One direction of a connection through a ``FaultProxy``: read, delayed, and written on."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from realtime_fsm.testing.proxy.faults import DataLimit, Direction

if TYPE_CHECKING:
    from realtime_fsm.testing.proxy.proxy import FaultProxy

CHUNK: Final = 64 * 1024
"""Bytes that are read at a time."""

_BUFFER: Final = 256 * 1024
"""Bytes that a lane holds at most; then it reads no more, so that the sender feels it."""

_PACE: Final = 0.02
"""Seconds between two pieces where the bandwidth is limited."""


class BlockedError(ConnectionError):
    """The connection's first request is for a path that is blocked."""


class LimitReachedError(ConnectionError):
    """As many bytes have passed as may."""


class Lane:
    """One direction: what is read waits for its time, and is written on in order.

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
        proxy: "FaultProxy",
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
                data = await self._reader.read(CHUNK)
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
