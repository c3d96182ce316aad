"""The faults of one direction of every connection through a ``FaultProxy``."""

import asyncio
from enum import StrEnum
from random import Random

from attrs import define, field, frozen


class Direction(StrEnum):
    """Which way data goes.

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
    """What is wrong with one direction at the moment. The proxy's methods set it; connections read it.

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
