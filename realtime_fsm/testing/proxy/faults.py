"""The faults of a network, by the names of Toxiproxy: the same ones on real sockets and in memory."""

import asyncio
from abc import ABC, abstractmethod
from enum import StrEnum
from random import Random

from attrs import define, field, frozen


class BlockedError(ConnectionError):
    """The connection's first request is for a path that is blocked."""


class LimitReachedError(ConnectionError):
    """As many bytes have passed as may."""


class Direction(StrEnum):
    """A way that data goes.

    Attributes:
        UP: From the client to the server.
        DOWN: From the server to the client.
    """

    UP = "up"
    DOWN = "down"


def directions(direction: Direction | None) -> tuple[Direction, ...]:
    """Return the one direction, or both where it is ``None``."""
    return tuple(Direction) if direction is None else (direction,)


@frozen
class Slicer:
    """Cuts data into small segments.

    Attributes:
        average_size: Bytes of a segment.
        size_variation: By so many bytes a segment is longer or shorter at most.
        delay: Seconds after each segment.
    """

    average_size: int
    size_variation: int = 0
    delay: float = 0.0

    def __attrs_post_init__(self) -> None:
        if not 0 <= self.size_variation < self.average_size:
            raise ValueError("a slicer's segments have at least one byte")
        if self.delay < 0:
            raise ValueError("a slicer's delay is not negative")

    def size(self, random: Random) -> int:
        """Return the bytes of the next segment."""
        return self.average_size + random.randint(-self.size_variation, self.size_variation)


@frozen(eq=False)
class DataLimit:
    """Ends a connection after some bytes. Each one counts anew, from when it is switched on.

    Attributes:
        size: Bytes that still pass.
    """

    size: int


@define(eq=False)
class LaneFaults:
    """The faults of one direction at the moment. The proxy's methods set them; connections read them.

    Attributes:
        slicer: Cuts data into segments.
        limit: Ends connections after some bytes.
        slow_close: Seconds by which an end is late.
        timeout: Seconds after which a connection that is held ends; ``None``: there is no such fault.
        is_stalled: Nothing is forwarded.
        flowing: Set unless it is stalled or has a timeout.
    """

    slicer: Slicer | None = None
    limit: DataLimit | None = None
    slow_close: float = 0.0
    timeout: float | None = None
    is_stalled: bool = False
    flowing: asyncio.Event = field(factory=asyncio.Event)

    def __attrs_post_init__(self) -> None:
        self.settle()

    def settle(self) -> None:
        """Let data flow, or not: after a change."""
        if self.is_stalled or self.timeout is not None:
            self.flowing.clear()
        else:
            self.flowing.set()


class NetworkFaults(ABC):
    """The faults of a network at the moment; ``FaultProxy`` and ``MemoryNetwork`` are made of it.

    Faults can be switched at any time, and apply to the connections there are and to new ones. Those with a
    ``direction`` apply to both where it is ``None``.

    Args:
        random: Where the jitter and the sizes of segments come from.

    Attributes:
        latency: Seconds by which everything is late, each way.
        jitter: Up to so many seconds more, at random; the order is kept.
        bandwidth: Bytes per second, each way of each connection; ``None`` for no limit.
        faults: What is wrong with either direction, by ``slicer``, ``limit_data``, ``timeout``,
            ``slow_close`` and ``stall``.
        flowing: Set unless there is a black hole.
    """

    def __init__(self, random: Random) -> None:
        self.random = random
        self.latency = 0.0
        self.jitter = 0.0
        self.bandwidth: float | None = None
        self.faults = {direction: LaneFaults() for direction in Direction}
        self.flowing = asyncio.Event()
        self.flowing.set()

    @abstractmethod
    def reset_peer(self) -> None:
        """Reset every connection: both sides see RST."""

    @abstractmethod
    def refuse(self, enabled: bool) -> None:
        """Refuse new connections at once, as when nothing listens."""

    @abstractmethod
    def faults_changed(self) -> None:
        """Let every connection look again at what is wrong."""

    def heal(self) -> None:
        """End every fault that lasts."""
        self.latency = self.jitter = 0.0
        self.bandwidth = None
        self.slicer(None)
        self.limit_data(None)
        self.slow_close(0.0)
        self.refuse(enabled=False)
        self.timeout(None)
        self.stall(enabled=False)
        self.black_hole(enabled=False)

    def is_held(self, direction: Direction) -> bool:
        """Tell whether nothing passes in a direction at the moment."""
        return not (self.flowing.is_set() and self.faults[direction].flowing.is_set())

    def black_hole(self, enabled: bool) -> None:
        """Close nothing and forward nothing; connections are still accepted. Healed, what was held flows.

        Only so much is held; then no more is read, and the senders' own buffers fill up.
        """
        if enabled:
            self.flowing.clear()
        else:
            self.flowing.set()
        self.faults_changed()

    def slicer(
        self,
        average_size: int | None,
        *,
        size_variation: int = 0,
        delay: float = 0.0,
        direction: Direction | None = None,
    ) -> None:
        """Cut data into small segments, varied by some bytes, with a delay after each; ``None`` ends it.

        Raises:
            ValueError: If a segment could be empty, or the delay is negative.
        """
        slicer = None if average_size is None else Slicer(average_size, size_variation, delay)
        for each in directions(direction):
            self.faults[each].slicer = slicer

    def limit_data(self, size: int | None, *, direction: Direction | None = None) -> None:
        """End each connection in an orderly way once so many more bytes have passed; ``None`` ends it.

        What has passed arrives; the rest is lost. Nothing passes with 0: the next byte ends the connection.

        Raises:
            ValueError: If the size is negative.
        """
        if size is not None and size < 0:
            raise ValueError("the limit is negative")
        for each in directions(direction):
            self.faults[each].limit = None if size is None else DataLimit(size)

    def timeout(self, seconds: float | None, *, direction: Direction | None = None) -> None:
        """Forward nothing, and end each connection, in an orderly way, after a time; ``None`` ends it.

        New connections are accepted, and have the same time. Where it is ended before, what was held flows.
        """
        for each in directions(direction):
            self.faults[each].timeout = seconds
            self.faults[each].settle()
        self.faults_changed()

    def slow_close(self, seconds: float, *, direction: Direction | None = None) -> None:
        """Let an end, orderly or not, reach the other side late by so many seconds; 0 ends it.

        It applies to ends from now on. Those that the proxy makes itself are not late.
        """
        for each in directions(direction):
            self.faults[each].slow_close = seconds

    def stall(self, enabled: bool, *, direction: Direction | None = None) -> None:
        """Forward nothing in a direction: its sender stalls once the buffers are full. Healed, it flows.

        Unlike in a black hole, new connections reach the server, and the other direction may flow.
        """
        for each in directions(direction):
            self.faults[each].is_stalled = enabled
            self.faults[each].settle()
        self.faults_changed()

    def delay(self) -> float:
        """Return by how much the next piece of data is late. For the connections."""
        return self.latency + (self.random.uniform(0.0, self.jitter) if self.jitter else 0.0)
