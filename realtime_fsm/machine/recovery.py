"""What is done about each category of error, and what people are told (SPEC A4)."""

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final

from attrs import frozen

from realtime_fsm.machine.errors import ErrorCategory, RealtimeError
from realtime_fsm.machine.table import Severity


class Recovery(Enum):
    """What the engine does about an error."""

    RETRY = "retry"
    REFRESH_TOKEN = "refresh_token"  # noqa: S105 - the name of a recovery
    GIVE_UP = "give_up"
    REPORT = "report"


@frozen(kw_only=True)
class RecoveryRow:
    """How one category is recovered from.

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
            notice="A message could not be handled; the connection is not affected.",
        ),
    }
)


@frozen(kw_only=True)
class ConnectionIssue:
    """What a person is told about an error.

    Attributes:
        severity: How much it should worry them.
        message: What is wrong and what they can do.
        error: The error itself.
    """

    severity: Severity
    message: str
    error: RealtimeError


def recovery_for(error: RealtimeError) -> Recovery:
    """Return what is done about an error; pure, so that it can be tested and replaced."""
    row = RECOVERIES[error.category]
    return row.retryable if error.retryable else row.final


def issue_for(error: RealtimeError) -> ConnectionIssue:
    """Return what people are told about an error."""
    row = RECOVERIES[error.category]
    return ConnectionIssue(severity=row.severity, message=f"{row.notice} {error}", error=error)
