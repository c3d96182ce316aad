"""Who is told about the status: observers, in order, with none skipped."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Final, TypeVar
from weakref import WeakKeyDictionary

from realtime_fsm.engine.statistics import Statistics
from realtime_fsm.engine.stream import Stream
from realtime_fsm.machine.errors import without_frames
from realtime_fsm.machine.record import AttemptRecord, StatusChange
from realtime_fsm.machine.table import ConnectionStatus

T = TypeVar("T")

_MOST_UNREAD: Final = 10_000
"""Changes that an observer may leave unread: hours of the worst flapping."""

_HISTORY: Final = 200

_logger = logging.getLogger("realtime_fsm.status")


class ConnectionStatusManager:
    """Keeps the status and its history, and tells its observers (SPEC B3).

    User code never runs inside a transition: callbacks run in the loop's next turn, and what they raise is
    logged and counted.

    Args:
        statistics: What it counts into.
    """

    def __init__(self, statistics: Statistics) -> None:
        self._statistics = statistics
        self._callbacks: list[Callable[[StatusChange], object]] = []
        self._attempt_callbacks: list[Callable[[AttemptRecord], object]] = []
        self._streams: WeakKeyDictionary[Stream[StatusChange], None] = WeakKeyDictionary()  # in order
        self.history: deque[StatusChange] = deque(maxlen=_HISTORY)
        self.attempts: deque[AttemptRecord] = deque(maxlen=_HISTORY)

    @property
    def last(self) -> StatusChange | None:
        """The last change, or ``None`` before the first."""
        return self.history[-1] if self.history else None

    def get(self) -> ConnectionStatus:
        """Return the status."""
        return self.last.current if self.last else ConnectionStatus.DISCONNECTED

    def set(self, change: StatusChange) -> None:
        """Record a change and tell everybody. For the connection manager alone."""
        without_frames(change.error)  # the history would keep whole dead connections alive
        self.history.append(change)
        loop = asyncio.get_running_loop()
        for callback in self._callbacks:
            loop.call_soon(self._call, callback, change)
        for stream in list(self._streams):
            if not stream.push(change):
                self._statistics.dropped["unread status change"] += 1

    def record(self, attempt: AttemptRecord) -> None:
        """Record how a dial ended. For the engine."""
        without_frames(attempt.error)
        self.attempts.append(attempt)
        for callback in self._attempt_callbacks:
            asyncio.get_running_loop().call_soon(self._call, callback, attempt)

    def subscribe(self, callback: Callable[[StatusChange], object]) -> Callable[[], None]:
        """Call ``callback`` with every change from now on; return a function that ends it."""
        return _added(self._callbacks, callback)

    def subscribe_attempts(self, callback: Callable[[AttemptRecord], object]) -> Callable[[], None]:
        """Call ``callback`` with the end of every dial from now on; return a function that ends it."""
        return _added(self._attempt_callbacks, callback)

    def subscribe_latency(self, callback: Callable[[float], object]) -> Callable[[], None]:
        """Call ``callback`` with every round trip of a heartbeat, in seconds; return what ends it."""

        def tell(seconds: float) -> None:
            asyncio.get_running_loop().call_soon(self._call, callback, seconds)

        return _added(self._statistics.latency.listeners, tell)

    def changes(self) -> Stream[StatusChange]:
        """Return a stream of every change from now on. It ends when the client disconnects."""
        stream: Stream[StatusChange] = Stream(limit=_MOST_UNREAD, what="status changes")
        self._streams[stream] = None
        return stream

    def end_streams(self) -> None:
        """End all streams, after what they still hold. For the connection manager alone."""
        for stream in list(self._streams):
            stream.end()
        self._streams.clear()

    def _call(self, callback: Callable[[T], object], told: T) -> None:
        try:
            callback(told)
        except Exception:
            self._statistics.handler_errors += 1
            _logger.exception("a status callback raised")


def _added(callbacks: list[Callable[[T], object]], callback: Callable[[T], object]) -> Callable[[], None]:
    """Add a callback; return a function that removes it."""
    callbacks.append(callback)

    def remove() -> None:
        if callback in callbacks:
            callbacks.remove(callback)

    return remove
