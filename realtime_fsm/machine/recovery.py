"""The recovery from each category of error, and the words with which people are told."""

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final

from attrs import frozen

from realtime_fsm.machine.errors import ErrorCategory, InternalError, RealtimeError
from realtime_fsm.machine.table import TRAITS, ConnectionStatus, Severity

_SEVERITIES: Final = (Severity.INFO, Severity.WARNING, Severity.ERROR)
_BUG: Final = "The client itself has made a mistake."
_PROMISE: Final = "by itself"


class Recovery(Enum):
    """The engine's reaction to an error."""

    RETRY = "retry"
    REFRESH_TOKEN = "refresh_token"  # noqa: S105 - the name of a recovery
    GIVE_UP = "give_up"
    REPORT = "report"


@frozen(kw_only=True)
class RecoveryRow:
    """The recovery from one category of error.

    Attributes:
        retryable: What is done where trying again can help.
        final: What is done where it cannot.
        severity: How loudly people are told.
        notice: What they are told, before the error's own words.
    """

    retryable: Recovery
    final: Recovery
    severity: Severity
    notice: str


RECOVERIES: Final[Mapping[ErrorCategory, RecoveryRow]] = MappingProxyType(
    {
        ErrorCategory.CONNECTION: RecoveryRow(
            retryable=Recovery.RETRY,
            final=Recovery.GIVE_UP,
            severity=Severity.WARNING,
            notice="The connection is having trouble.",
        ),
        ErrorCategory.AUTHENTICATION: RecoveryRow(
            retryable=Recovery.RETRY,
            final=Recovery.REFRESH_TOKEN,
            severity=Severity.ERROR,
            notice="The server does not accept who you are.",
        ),
        ErrorCategory.PROTOCOL: RecoveryRow(
            retryable=Recovery.RETRY,
            final=Recovery.GIVE_UP,
            severity=Severity.ERROR,
            notice="The server does not speak as expected.",
        ),
        ErrorCategory.APPLICATION: RecoveryRow(
            retryable=Recovery.REPORT,
            final=Recovery.REPORT,
            severity=Severity.WARNING,
            notice="Something could not be done; the connection is not affected.",
        ),
    }
)


@frozen(kw_only=True)
class ConnectionIssue:
    """An error as a person is told of it.

    Attributes:
        severity: How much it should worry them.
        message: What is wrong, what happens next, and what they can do.
        error: The error itself.
        status: The state to which the error has led; ``None`` where it has changed nothing.
    """

    severity: Severity
    message: str
    error: RealtimeError
    status: ConnectionStatus | None = None


def recovery_for(error: RealtimeError) -> Recovery:
    """Return what is done about an error; pure, so that it can be tested and replaced."""
    row = RECOVERIES[error.category]
    return row.retryable if error.retryable else row.final


def issue_for(error: RealtimeError, status: ConnectionStatus | None = None) -> ConnectionIssue:
    """Return what people are told about an error.

    Args:
        error: What went wrong.
        status: The state to which it has led, if it has: that one says what happens next.
    """
    row = RECOVERIES[error.category]
    notice = _BUG if isinstance(error, InternalError) else row.notice
    if status is None:
        return ConnectionIssue(severity=row.severity, message=f"{notice} {error}", error=error)
    traits = TRAITS[status]
    # Where nothing is tried any more, an error must not promise that it is.
    remedy = error.remedy if traits.online or _PROMISE not in error.remedy else ""
    return ConnectionIssue(
        severity=max(row.severity, traits.severity, key=_SEVERITIES.index),
        message=" ".join(part for part in (notice, error.message, traits.meaning, remedy) if part),
        error=error,
        status=status,
    )
