"""One TCP connection through a ``FaultProxy``: two lanes, and how they end."""

import asyncio
import socket
import struct
from typing import TYPE_CHECKING, Final

from realtime_fsm.testing.frame_filter import FrameFilter, Piece
from realtime_fsm.testing.lane_faults import Direction
from realtime_fsm.testing.proxied_lane import CHUNK, BlockedError, Lane, LimitReachedError

if TYPE_CHECKING:
    from realtime_fsm.testing.fault_proxy import FaultProxy

_HEAD: Final = 8 * 1024
"""Bytes of a first line at most."""

_LONGEST_METHOD: Final = 16
_DIAL_TIMEOUT: Final = 5.0
_PART_TIMEOUT: Final = 1.0
"""Seconds that the two sides get to answer an orderly end."""

_CLOSE_TIMEOUT: Final = 2.0
_RESET: Final = struct.pack("ii", 1, 0)


class ProxiedConnection:
    """A client's connection, and the one to the server that belongs to it.

    Args:
        proxy: Whose faults apply.
        client: The accepted socket; it is closed by ``run``.
    """

    def __init__(self, proxy: "FaultProxy", client: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._sides: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._head = b""
        self._unclear = b""  # sent by the client, and held until its first line is clear
        self._is_clear = asyncio.Event()
        self._is_ordered_to_end = asyncio.Event()
        self._is_reset = False
        self._filter = None if proxy.frames is None else FrameFilter(proxy.frames)
        self._deadline: asyncio.TimerHandle | None = None

    @property
    def is_blocked(self) -> bool | None:
        """Whether its first request is for a blocked path; ``None`` where that is not clear yet."""
        prefix = self._proxy.blocked_path
        return False if prefix is None else is_request_for(prefix, self._head)

    async def run(self) -> None:
        """Forward until both sides have ended, one was reset, or a fault ends it."""
        self._sides.append(await asyncio.open_connection(sock=self._client, limit=CHUNK))
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
        up = Lane(self._proxy, Direction.UP, reader, inspect=self._inspect_up, count=self._count_up)
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
        down = Lane(self._proxy, Direction.DOWN, reader, inspect=self._inspect_down, count=self._count_down)
        return down, writer

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
