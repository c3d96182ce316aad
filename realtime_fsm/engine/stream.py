"""A bounded stream of records to one reader: nothing skipped, or told so."""

import asyncio
from collections import deque
from typing import Generic, Self, TypeVar

from realtime_fsm.machine.errors import LaggedError

T = TypeVar("T")


class Stream(Generic[T]):
    """What ``async for`` reads from. It receives from the moment it was made, read or not.

    It ends when the client disconnects. A reader that leaves more than ``limit`` records unread gets those,
    and then ``LaggedError`` instead of the ones that did not fit: a gap is never silent.

    Args:
        limit: Records that may be left unread.
        what: What they are, for the error.
    """

    def __init__(self, *, limit: int, what: str) -> None:
        self._limit = limit
        self._what = what
        self._unread: deque[T] = deque()
        self._arrived = asyncio.Event()
        self._ended = False
        self._lagged = 0

    def push(self, record: T) -> bool:
        """Add a record; ``False`` when it did not fit and the stream has ended by that. For the engine."""
        if self._ended:
            return True
        if len(self._unread) >= self._limit:
            self._lagged += 1
            self.end()
            return False
        self._unread.append(record)
        self._arrived.set()
        return True

    def end(self) -> None:
        """End it after what is unread."""
        self._ended = True
        self._arrived.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        while not self._unread:
            if self._lagged:
                raise LaggedError(f"More than {self._limit} {self._what} were left unread.")
            if self._ended:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        return self._unread.popleft()
