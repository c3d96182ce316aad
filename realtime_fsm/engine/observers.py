"""Telling a program of what happens: by a call to its observers, or by a stream that it reads."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Generic, ParamSpec, Self, TypeVar
from weakref import WeakKeyDictionary

from realtime_fsm.engine.statistics import Statistics
from realtime_fsm.machine.errors import LaggedError

P = ParamSpec("P")
T = TypeVar("T")


class Observers(Generic[P]):
    """Functions that are told of one kind of thing, in the order in which they were added.

    What one of them raises is logged, and counted where there is something to count into: it is the user's
    code, and must not disturb what it only watches.

    Args:
        what: What one of them is, for the log: "a status callback".
        logger: Where their errors are logged.
        statistics: Counts their errors.
    """

    def __init__(self, what: str, logger: logging.Logger, statistics: Statistics | None = None) -> None:
        self._what = what
        self._logger = logger
        self._statistics = statistics
        # Each has a key of its own: a function that was added twice is told twice, and ended one at a time.
        self._observers: dict[object, Callable[P, object]] = {}

    def __iter__(self) -> Iterator[Callable[P, object]]:
        return iter(tuple(self._observers.values()))

    def __len__(self) -> int:
        return len(self._observers)

    def add(self, observer: Callable[P, object]) -> Callable[[], None]:
        """Tell an observer from now on; return a function that ends it, and may be called twice."""
        key = object()
        self._observers[key] = observer

        def remove() -> None:
            self._observers.pop(key, None)

        return remove

    def tell(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Call all of them now. What one adds or removes meanwhile counts from the next time on."""
        for observer in self:
            self.call(observer, *args, **kwargs)

    def tell_soon(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Call all of them in the loop's next turn: a transition must not run the user's code."""
        for observer in self._observers.values():
            asyncio.get_running_loop().call_soon(partial(self.call, observer, *args, **kwargs))

    def call(self, observer: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Call one function like an observer, though it need not have been added."""
        try:
            observer(*args, **kwargs)
        except Exception:
            if self._statistics is not None:
                self._statistics.handler_errors += 1
            self._logger.exception("%s raised", self._what)


class Stream(Generic[T]):
    """Records for one ``async for``. It receives from the moment it was made, read or not.

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

    def leave_loop(self) -> None:
        """End it on behalf of another event loop: nobody waits on its own one any more. For the engine."""
        self._ended = True
        self._arrived = asyncio.Event()

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


class Streams(Generic[T]):
    """The streams of one kind that somebody still holds; one that its reader let go of is forgotten.

    Args:
        limit: Records that each may leave unread.
        what: What they are, for the error.
    """

    def __init__(self, *, limit: int, what: str) -> None:
        self._limit = limit
        self._what = what
        # In the order in which they were opened. A WeakSet would wake the readers in the order of their
        # addresses, and no run would be like another.
        self._open: WeakKeyDictionary[Stream[T], None] = WeakKeyDictionary()

    def __len__(self) -> int:
        return len(self._open)

    def open(self) -> Stream[T]:
        """Return a stream of every record from now on."""
        stream: Stream[T] = Stream(limit=self._limit, what=self._what)
        self._open[stream] = None
        return stream

    def push(self, record: T) -> int:
        """Add a record to each; return how many ended because it did not fit."""
        return sum(not stream.push(record) for stream in list(self._open))

    def end(self) -> None:
        """End them all, after what each still holds."""
        for stream in list(self._open):
            stream.end()
        self._open.clear()

    def leave_loop(self) -> None:
        """End them all on behalf of another event loop."""
        for stream in list(self._open):
            stream.leave_loop()
        self._open.clear()
