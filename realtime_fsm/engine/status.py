"""Who is told about the status: observers, in order, with none skipped."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Final, TypeVar
from weakref import WeakSet

from attrs import evolve, frozen

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
        self._streams: WeakSet[Stream[StatusChange]] = WeakSet()
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
        self._streams.add(stream)
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


# Tells of outages that people notice: short blips are nobody's business.

_outage_logger = logging.getLogger("realtime_fsm.outage")


@frozen(kw_only=True)
class Outage:
    """A time without a connection.

    Attributes:
        began_at: When the connection was lost, seconds since the Unix epoch.
        reason: Why, in words for people.
        seconds: How long it has lasted so far, or lasted altogether.
        is_over: Whether the connection is back. It is not where the client was disconnected meanwhile.
    """

    began_at: float
    reason: str
    seconds: float
    is_over: bool = False


OutageHook = Callable[[Outage], object]


class OutageWatch:
    """Calls a hook when a connection has been lost for a while, and another when it is back.

    They come strictly in turn: ``restored`` after each ``lost``. To disconnect on purpose is no outage; one
    that was told of ends then, though it ``is_over`` only where the connection is back.

    Args:
        status: Tells the changes.
        statistics: What it counts into.
        lost: Called once an outage has lasted ``after``.
        restored: Called when it ends.
        after: Seconds that are hidden.
    """

    def __init__(
        self,
        status: ConnectionStatusManager,
        statistics: Statistics,
        *,
        lost: OutageHook,
        restored: OutageHook,
        after: float,
    ) -> None:
        self._statistics = statistics
        self._lost = lost
        self._restored = restored
        self._after = after
        self._outage: Outage | None = None
        self._begun = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._was_told = False
        self._remove = status.subscribe(self._changed)

    def stop(self) -> None:
        """Tell nothing any more."""
        self._remove()
        self._forget()

    def _changed(self, change: StatusChange) -> None:
        if change.is_lost and change.error is not None:
            loop = asyncio.get_running_loop()
            self._begun = loop.time()
            self._outage = Outage(began_at=change.at, reason=change.reason, seconds=0.0)
            self._timer = loop.call_later(self._after, self._lasts)
        elif self._outage is not None and (change.is_connected or change.is_goodbye):
            told, outage = self._was_told, self._measured()
            self._forget()
            if told:
                self._call(self._restored, evolve(outage, is_over=change.is_connected))

    def _lasts(self) -> None:
        self._timer = None
        self._was_told = True
        self._call(self._lost, self._measured())

    def _measured(self) -> Outage:
        if self._outage is None:  # pragma: no cover - asked only during an outage
            raise AssertionError("there is no outage")
        return evolve(self._outage, seconds=asyncio.get_running_loop().time() - self._begun)

    def _forget(self) -> None:
        self._outage, self._was_told = None, False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _call(self, hook: OutageHook, outage: Outage) -> None:
        try:
            hook(outage)
        except Exception:
            self._statistics.handler_errors += 1
            _outage_logger.exception("an outage hook raised")
