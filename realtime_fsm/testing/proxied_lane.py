"""One direction of a connection through a ``FaultProxy``: read, delayed, and written on."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from realtime_fsm.testing.fault_proxy import FaultProxy

CHUNK: Final = 64 * 1024
"""Bytes that are read at a time."""

_BUFFER: Final = 256 * 1024
"""Bytes that a lane holds at most; then it reads no more, so that the sender feels it."""

_PACE: Final = 0.02
"""Seconds between two pieces where the bandwidth is limited."""


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
        due = asyncio.get_running_loop().time() + self._proxy.delay()
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
