"""Telling of the status: every change to every observer, in order; of outages, what people notice."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Final

from attrs import evolve, frozen

from realtime_fsm.engine.observers import Observers, Stream, Streams
from realtime_fsm.engine.statistics import Statistics
from realtime_fsm.machine.errors import InvalidArgumentError, without_frames
from realtime_fsm.machine.record import AttemptRecord, StatusChange
from realtime_fsm.machine.table import ConnectionStatus

_MOST_UNREAD: Final = 10_000
"""Changes that an observer may leave unread: hours of the worst flapping."""

_HISTORY: Final = 200

_logger = logging.getLogger("realtime_fsm.status")


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


class ConnectionStatusManager:
    """Keeps the status and its history, and tells its observers.

    User code never runs inside a transition: callbacks run in the loop's next turn, and what they raise is
    logged and counted.

    Args:
        statistics: What it counts into.
    """

    def __init__(self, statistics: Statistics) -> None:
        self._statistics = statistics
        what = "a status callback"
        self._changes: Observers[[StatusChange]] = Observers(what, _logger, statistics)
        self._attempts: Observers[[AttemptRecord]] = Observers(what, _logger, statistics)
        self._round_trips: Observers[[float]] = Observers(what, _logger, statistics)
        statistics.latency.listeners.append(self._round_trips.tell_soon)
        self._streams: Streams[StatusChange] = Streams(limit=_MOST_UNREAD, what="status changes")
        self.history: deque[StatusChange] = deque(maxlen=_HISTORY)
        self.attempts: deque[AttemptRecord] = deque(maxlen=_HISTORY)

    @property
    def last(self) -> StatusChange | None:
        """The last change, or ``None`` before the first."""
        return self.history[-1] if self.history else None

    def get(self) -> ConnectionStatus:
        """Return the status after the last change."""
        return self.last.current if self.last else ConnectionStatus.DISCONNECTED

    # For the engine.

    def set(self, change: StatusChange) -> None:
        """Record a change and tell everybody."""
        without_frames(change.error)  # the history would keep whole dead connections alive
        self.history.append(change)
        self._changes.tell_soon(change)
        if lagging := self._streams.push(change):
            self._statistics.dropped["unread status change"] += lagging

    def record(self, attempt: AttemptRecord) -> None:
        """Record how a dial ended, and tell who wants to know."""
        without_frames(attempt.error)
        self.attempts.append(attempt)
        self._attempts.tell_soon(attempt)

    def end_streams(self) -> None:
        """End all streams, after what they still hold."""
        self._streams.end()

    def leave_loop(self) -> None:
        """End all streams on behalf of another event loop."""
        self._streams.leave_loop()

    # For everybody.

    def subscribe(self, callback: Callable[[StatusChange], object]) -> Callable[[], None]:
        """Call ``callback`` with every change from now on; return a function that ends it."""
        return self._changes.add(callback)

    def subscribe_attempts(self, callback: Callable[[AttemptRecord], object]) -> Callable[[], None]:
        """Call ``callback`` with the end of every dial from now on; return a function that ends it."""
        return self._attempts.add(callback)

    def subscribe_latency(self, callback: Callable[[float], object]) -> Callable[[], None]:
        """Call ``callback`` with every round trip of a heartbeat, in seconds; return what ends it."""
        return self._round_trips.add(callback)

    def changes(self) -> Stream[StatusChange]:
        """Return a stream of every change from now on. It ends when the client disconnects."""
        return self._streams.open()

    def on_outage(self, lost: OutageHook, restored: OutageHook, *, after: float = 2.0) -> Callable[[], None]:
        """Call ``lost`` when the connection has been gone for a while, and ``restored`` when that ends.

        They come strictly in turn: ``restored`` after each ``lost``. To disconnect on purpose is no outage;
        one that was told of ends then, though it ``is_over`` only where the connection is back.

        Args:
            lost: Called with the ``Outage`` once it has lasted ``after``.
            restored: Called with it when it ends.
            after: Seconds that are hidden; finite, ``>= 0``.

        Returns:
            A function that ends it.

        Raises:
            InvalidArgumentError: If ``after`` is no such time.
        """
        if not 0.0 <= after < float("inf"):
            raise InvalidArgumentError(
                f"after={after!r} must be a finite number of seconds, 0 or more.", remedy="Give 2.0, say."
            )
        watch = _OutageWatch(self._statistics, lost=lost, restored=restored, after=after)
        remove = self.subscribe(watch.changed)

        def end() -> None:
            remove()
            watch.forget()

        return end


class _OutageWatch:
    """Measures one outage after the other, for one pair of hooks."""

    def __init__(
        self, statistics: Statistics, *, lost: OutageHook, restored: OutageHook, after: float
    ) -> None:
        self._lost: Observers[[Outage]] = Observers("an outage hook", _logger, statistics)
        self._lost.add(lost)
        self._restored: Observers[[Outage]] = Observers("an outage hook", _logger, statistics)
        self._restored.add(restored)
        self._after = after
        self._outage: Outage | None = None
        self._begun = 0.0
        self._timer: asyncio.TimerHandle | None = None  # until the outage is told of
        self._was_told = False

    def changed(self, change: StatusChange) -> None:
        if change.is_lost and change.error is not None:
            loop = asyncio.get_running_loop()
            self._begun = loop.time()
            self._outage = Outage(began_at=change.at, reason=change.reason, seconds=0.0)
            self._timer = loop.call_later(self._after, self._lasts, self._outage)
        elif self._outage is not None and (change.is_connected or change.is_goodbye):
            was_told, outage = self._was_told, self._measured(self._outage)
            self.forget()
            if was_told:
                self._restored.tell(evolve(outage, is_over=change.is_connected))

    def forget(self) -> None:
        self._outage, self._was_told = None, False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _lasts(self, outage: Outage) -> None:
        self._timer = None
        self._was_told = True
        self._lost.tell(self._measured(outage))

    def _measured(self, outage: Outage) -> Outage:
        return evolve(outage, seconds=asyncio.get_running_loop().time() - self._begun)
