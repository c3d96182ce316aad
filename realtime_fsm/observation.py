"""What can be seen of a client: metrics, health, outages, the debug mode, and what it did last."""

import json
import logging
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any, Final

from attrs import asdict

from realtime_fsm.assembly import loop_time
from realtime_fsm.engine.message import Message
from realtime_fsm.engine.outage import OutageHook, OutageWatch
from realtime_fsm.engine.subscription import SubscriptionState
from realtime_fsm.lifecycle import Lifecycle
from realtime_fsm.machine.errors import InvalidArgumentError
from realtime_fsm.monitoring.health import Health, Signs, examine
from realtime_fsm.monitoring.metrics import ConnectionMetrics, measure

_LOG_LEVELS: Final = {
    "error": logging.ERROR,
    "warn": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
}
_STUCK_AFTER: Final = 30.0

_logger = logging.getLogger("realtime_fsm")


class Observation(Lifecycle):
    """The part of ``RealtimeService`` that shows how it fares; it changes nothing."""

    @property
    def metrics(self) -> ConnectionMetrics:
        """A frozen picture of how the connection fares."""
        return measure(
            self._assembly.statistics,
            status=self.status,
            retry_in=None if self._manager is None else self._manager.retry_in,
            sender=self._sender,
            pending=len(self._dispatcher),
            time=loop_time,
            wall=self._wall,
        )

    @property
    def latency_samples(self) -> tuple[float, ...]:
        """The last round trips of the heartbeats, 512 at most, the oldest first; seconds."""
        return tuple(self._assembly.statistics.latency.recent)

    def health(self) -> Health:
        """Examine the client, as a health check would."""
        manager, config = self._manager, self.config
        link = None if manager is None else manager.link
        return examine(
            self.status,
            self.connection_status.last,
            Signs(
                unanswered_since=None if link is None else link.unanswered_since,
                answer_within=config.heartbeat_timeout,
                unacknowledged_since=None if link is None else self._sender.oldest_in_flight_at,
                acknowledge_within=config.ack_timeout,
                polls_fail=manager is not None and manager.polling.is_failing,
                refused_channels=sum(
                    subscription.state is SubscriptionState.REFUSED
                    for subscription in self._assembly.subscriptions
                ),
            ),
            self._dispatcher,
            now=0.0 if manager is None else loop_time(),
            patience=_STUCK_AFTER,
        )

    def on_outage(self, lost: OutageHook, restored: OutageHook, *, after: float = 2.0) -> Callable[[], None]:
        """Tell of outages that people notice; blips shorter than ``after`` are hidden.

        Args:
            lost: Called with the ``Outage`` once it has lasted ``after``.
            restored: Called with it when it ends; strictly in turn with ``lost``.
            after: Seconds.

        Returns:
            A function that ends it.
        """
        if not 0.0 <= after < float("inf"):
            raise InvalidArgumentError(
                f"after={after!r} must be a finite number of seconds, 0 or more.", remedy="Give 2.0, say."
            )
        watch = OutageWatch(
            self.connection_status, self._assembly.statistics, lost=lost, restored=restored, after=after
        )
        return watch.stop

    def on_settled(self, observer: Callable[[Message, float], object]) -> Callable[[], None]:
        """Call ``observer`` with every message that comes to its end, and when that was (Unix time).

        Returns:
            A function that ends it.
        """
        observers = self._sender.settlement.observers
        observers.append(observer)

        def remove() -> None:
            if observer in observers:
                observers.remove(observer)

        return remove

    def debug_mode(self, enabled: bool) -> None:
        """Log everything, or go back to ``log_level``; at run time, for the whole process (SPEC D2).

        Every change, decision, attempt, event and message is a record of the logger ``realtime_fsm.trace``:
        one glyph per kind, and ``kind``, ``epoch`` and ``attempt`` in ``extra``. No body, and no secret.
        """
        _logger.setLevel(logging.DEBUG if enabled else _LOG_LEVELS[self.config.log_level])

    def dump(self, path: str | PathLike[str] | None = None) -> dict[str, Any]:
        """Return what the client did last: its last 500 records, metrics and health, as JSON.

        Messages and events are among the records in debug mode only. No body, and no secret.

        Args:
            path: File into which it is written as well.
        """
        health, metrics = self.health(), self.metrics
        told: dict[str, Any] = {
            "at": self._wall(),
            "status": self.status.value,
            "health": health.to_json(),
            "metrics": {**asdict(metrics), "status": metrics.status.value},
            "records": self._assembly.recorder.as_json(),
        }
        if path is not None:
            Path(path).write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return told
