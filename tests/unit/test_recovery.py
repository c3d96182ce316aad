import itertools

import attrs
import pytest

from realtime_fsm.machine.delivery import Outcome
from realtime_fsm.machine.errors import (
    ApplicationError,
    AuthenticationError,
    ErrorCategory,
    InternalError,
    ProtocolError,
    RealtimeError,
    TransportError,
)
from realtime_fsm.machine.recovery import (
    RECOVERIES,
    ConnectionIssue,
    Recovery,
    RecoveryRow,
    issue_for,
    recovery_for,
)
from realtime_fsm.machine.table import Severity

KINDS = {
    ErrorCategory.CONNECTION: TransportError,
    ErrorCategory.AUTHENTICATION: AuthenticationError,
    ErrorCategory.PROTOCOL: ProtocolError,
    ErrorCategory.APPLICATION: ApplicationError,
}


def test_recovery_table_is_total() -> None:
    """Every category has its row, and every recovery is used."""
    assert set(RECOVERIES) == set(ErrorCategory)
    used = {recovery for row in RECOVERIES.values() for recovery in (row.retryable, row.final)}
    assert used == set(Recovery)


@pytest.mark.parametrize(
    ("category", "retryable", "expected"),
    [
        (ErrorCategory.CONNECTION, True, Recovery.RETRY),
        (ErrorCategory.CONNECTION, False, Recovery.GIVE_UP),
        (ErrorCategory.AUTHENTICATION, True, Recovery.RETRY),
        (ErrorCategory.AUTHENTICATION, False, Recovery.REFRESH_TOKEN),
        (ErrorCategory.PROTOCOL, True, Recovery.RETRY),
        (ErrorCategory.PROTOCOL, False, Recovery.GIVE_UP),
        (ErrorCategory.APPLICATION, True, Recovery.REPORT),
        (ErrorCategory.APPLICATION, False, Recovery.REPORT),
    ],
)
def test_recovery_for_each_category(category: ErrorCategory, retryable: bool, expected: Recovery) -> None:
    """What is done follows from the category and from whether trying again can help."""
    assert recovery_for(KINDS[category]("It broke.", retryable=retryable)) is expected


@pytest.mark.parametrize(
    ("category", "severity"),
    [
        (ErrorCategory.CONNECTION, Severity.WARNING),
        (ErrorCategory.AUTHENTICATION, Severity.ERROR),
        (ErrorCategory.PROTOCOL, Severity.ERROR),
        (ErrorCategory.APPLICATION, Severity.WARNING),
    ],
)
def test_issue_for_each_category(category: ErrorCategory, severity: Severity) -> None:
    """People are told the category's notice, what happened, and what they can do."""
    error = KINDS[category]("It broke.", remedy="Mend it.")
    issue = issue_for(error)
    assert (issue.severity, issue.error) == (severity, error)
    assert issue.message == f"{RECOVERIES[category].notice} It broke. Mend it."


def test_recovery_notices_differ() -> None:
    """No two categories are told in the same words."""
    assert all(a.notice != b.notice for a, b in itertools.combinations(RECOVERIES.values(), 2))


def test_recovery_of_a_bug_is_to_report_it() -> None:
    """An error of the library itself is reported, like any that does not touch the connection."""
    bug: RealtimeError = InternalError("It broke.")
    assert recovery_for(bug) is Recovery.REPORT


@pytest.mark.parametrize("outcome", Outcome)
def test_outcome_is_delivered_only_where_it_left(outcome: Outcome) -> None:
    """Only what was sent or acknowledged counts as delivered."""
    assert outcome.is_delivered is (outcome.value in {"sent", "acknowledged"})


def test_recovery_records_are_frozen_and_keyword_only() -> None:
    """What is done, and what people are told, cannot be mixed up or changed."""
    issue = issue_for(TransportError("It broke."))
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        issue.message = "All is well."  # type: ignore[misc]
    with pytest.raises(TypeError):
        ConnectionIssue(issue.severity, issue.message, issue.error)  # type: ignore[misc]
    row = RECOVERIES[ErrorCategory.CONNECTION]
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        row.final = Recovery.REPORT  # type: ignore[misc]
    with pytest.raises(TypeError):
        RecoveryRow(row.retryable, row.final, row.severity, row.notice)  # type: ignore[misc]
