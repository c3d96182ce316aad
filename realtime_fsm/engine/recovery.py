"""Errors: what is done about them, and who is told."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from realtime_fsm.engine.flight_recorder import FlightRecorder, Kind
from realtime_fsm.engine.observers import Observers
from realtime_fsm.engine.statistics import Statistics
from realtime_fsm.machine.errors import ErrorCategory, RealtimeError
from realtime_fsm.machine.recovery import ConnectionIssue, Recovery, issue_for, recovery_for
from realtime_fsm.machine.table import ConnectionStatus, Severity

LEVELS: Final[Mapping[Severity, int]] = {
    Severity.INFO: logging.INFO,
    Severity.WARNING: logging.WARNING,
    Severity.ERROR: logging.ERROR,
}

_logger = logging.getLogger("realtime_fsm.recovery")


class ErrorRecoveryStrategy:
    """Classifies errors, counts them, and notifies the people who asked to be told.

    What follows from an error for the connection is decided by the guards of the table; this says it in
    words, and is where the fallback is switched by hand.

    Args:
        statistics: What it counts into.
        recorder: Remembers the issues.
        force_fallback: Switches the fallback on.
        release_fallback: Lets the socket come back.
    """

    def __init__(
        self,
        statistics: Statistics,
        recorder: FlightRecorder,
        *,
        force_fallback: Callable[[], bool],
        release_fallback: Callable[[], bool],
    ) -> None:
        self._recorder = recorder
        self._hooks: Observers[[ConnectionIssue]] = Observers("a connection issue hook", _logger, statistics)
        self.activate_fallback = force_fallback
        self.deactivate_fallback = release_fallback
        self.errors: Counter[ErrorCategory] = Counter()

    def handle(
        self, error: RealtimeError, *, log: bool = True, status: ConnectionStatus | None = None
    ) -> Recovery:
        """Count an error, tell people, and return what is done about it.

        Args:
            error: What went wrong.
            log: Whether nobody has logged it yet.
            status: The state to which it has led, if it has.
        """
        issue = issue_for(error, status)
        self.errors[error.category] += 1
        self._recorder.note(Kind.ISSUE, f"{type(error).__name__}: {error.message}")
        if log:
            _logger.log(LEVELS[issue.severity], "%s", issue.message)
        self.notify_connection_issue(issue)
        return recovery_for(error)

    def on_connection_issue(self, hook: Callable[[ConnectionIssue], object]) -> Callable[[], None]:
        """Call ``hook`` with every issue from now on; return a function that ends it."""
        return self._hooks.add(hook)

    def notify_connection_issue(self, issue: ConnectionIssue) -> None:
        """Tell the hooks, in the loop's next turn."""
        self._hooks.tell_soon(issue)
