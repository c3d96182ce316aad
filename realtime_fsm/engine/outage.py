"""Tells of outages that people notice: short blips are nobody's business."""

import asyncio
import logging
from collections.abc import Callable

from attrs import evolve, frozen

from realtime_fsm.engine.statistics import Statistics
from realtime_fsm.engine.status import ConnectionStatusManager
from realtime_fsm.machine.record import StatusChange

_logger = logging.getLogger("realtime_fsm.outage")


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
            _logger.exception("an outage hook raised")
