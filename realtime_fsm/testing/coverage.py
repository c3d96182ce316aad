"""What a sweep must have seen, or it proves nothing: every row, every fault, every outcome of an activity."""

from collections.abc import Iterator
from typing import Final

from realtime_fsm.machine.delivery import Outcome
from realtime_fsm.machine.errors import (
    AuthenticationError,
    ConnectionLostError,
    ConnectTimeoutError,
    HeartbeatTimeoutError,
    NamespaceRefusedError,
    RealtimeError,
    ServerDisconnectError,
    ServerUnavailableError,
    ServerUnreachableError,
    TokenSourceError,
)
from realtime_fsm.machine.record import StatusChange
from realtime_fsm.machine.table import TRANSITIONS, Activity, ConnectionStatus, Row, Trigger
from realtime_fsm.monitoring.metrics import ConnectionMetrics
from realtime_fsm.testing.schedule import Action

FULL_SWEEP: Final = 2000
"""Seeds that are enough to have seen everything; a sweep of so many that has not is vacuous."""

_DIAL_ERRORS: Final[tuple[type[RealtimeError], ...]] = (
    AuthenticationError,
    ConnectTimeoutError,
    NamespaceRefusedError,
    ServerUnavailableError,
    ServerUnreachableError,
    TokenSourceError,
)
_LOSSES: Final[tuple[type[RealtimeError], ...]] = (
    ConnectionLostError,
    HeartbeatTimeoutError,
    ServerDisconnectError,
)
_COUNTED: Final = {
    f"{Activity.HEARTBEAT}: answered": "last_latency",
    f"{Activity.CATCH_UP}: gap closed": "gaps",
    f"{Activity.CATCH_UP}: missed": "unrecovered",
    f"{Activity.CATCH_UP}: loaded anew": "resyncs",
    f"{Activity.POLLING}: failed": "failed_polls",
    f"{Activity.PUBLISHING}: published": "messages_published",
    f"{Activity.PUBLISHING}: failed": "failed_publishes",
}
_WAKEABLE: Final = (ConnectionStatus.RECONNECTING, ConnectionStatus.FAILED, ConnectionStatus.FALLBACK)
_NOT_HERE: Final = frozenset({Outcome.PENDING, Outcome.REFUSED})
"""No end of a message, and one that only the application's own handlers make."""


def everything() -> frozenset[str]:
    """Return all that there is to be seen."""
    return frozenset(
        [
            *(of_row(row) for row in TRANSITIONS),
            *(of_fault(action) for action in Action),
            *(of_error(Trigger.ATTEMPT_FAILED, error) for error in _DIAL_ERRORS),
            *(of_error(Trigger.CONNECTION_LOST, error) for error in _LOSSES),
            *_COUNTED,
            *(of_wake(status) for status in _WAKEABLE),
            *(of_outcome(outcome.value) for outcome in Outcome if outcome not in _NOT_HERE),
            *(of_refresh(failed=failed) for failed in (False, True)),
            _POLLED,
            _PROBE_FAILED,
        ]
    )


def of_row(row: Row | StatusChange) -> str:
    """Name a row."""
    source, dest = (row.source, row.dest) if isinstance(row, Row) else (row.previous, row.current)
    return f"row {source} {row.trigger} {dest}"


def of_fault(action: Action) -> str:
    """Name a step."""
    return f"step {action}"


def of_error(trigger: Trigger, error: type[RealtimeError]) -> str:
    """Name a failure."""
    return f"{trigger}: {error.__name__}"


def of_wake(status: ConnectionStatus) -> str:
    """Name a wait that was cut short."""
    return f"woken in {status}"


def of_outcome(outcome: str) -> str:
    """Name the end of a message."""
    return f"message {outcome}"


def of_refresh(*, failed: bool) -> str:
    """Name the end of a token's refresh on a live connection."""
    return f"{Activity.TOKEN_REFRESH}: {'failed' if failed else 'refreshed'}"


_POLLED: Final = f"{Activity.POLLING}: polled"
_PROBE_FAILED: Final = f"{Activity.PROBING}: failed"


def seen_of(changes: list[StatusChange], metrics: ConnectionMetrics) -> Iterator[str]:
    """Yield what one client went through."""
    for change in changes:
        yield of_row(change)
        if change.error is not None:
            yield of_error(change.trigger, type(change.error))
    for name, counter in _COUNTED.items():
        if getattr(metrics, counter):
            yield name
    for outcome in metrics.messages_by_outcome:
        yield of_outcome(outcome)
    if metrics.polls > metrics.failed_polls:
        yield _POLLED
    if metrics.failed_connections > 2 * sum(c.trigger is Trigger.ATTEMPT_FAILED for c in changes):
        yield _PROBE_FAILED  # an attempt fails twice at most: its token is renewed once
