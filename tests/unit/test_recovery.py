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
from realtime_fsm.machine.table import TRAITS, ConnectionStatus, Severity

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


def kinds(base: type[RealtimeError]) -> list[type[RealtimeError]]:
    """Return an error of the tree and all that are derived from it there."""
    children = [child for child in base.__subclasses__() if child.__module__ == base.__module__]
    return [base, *(kind for child in children for kind in kinds(child))]


@pytest.mark.parametrize("status", [None, *ConnectionStatus])
@pytest.mark.parametrize("kind", kinds(TransportError) + kinds(AuthenticationError) + kinds(ProtocolError))
def test_issue_is_sentences_for_people(kind: type[RealtimeError], status: ConnectionStatus | None) -> None:
    """Every issue says what is wrong, what happens next and what one can do, as whole sentences."""
    issue = issue_for(kind("It broke."), status)
    assert issue.message.startswith(f"{RECOVERIES[kind.category].notice} It broke. ")
    assert issue.message.endswith(".")
    assert "  " not in issue.message
    assert kind.__name__ not in issue.message
    assert issue.status is status
    if status is not None:
        assert TRAITS[status].meaning in issue.message


@pytest.mark.parametrize("kind", kinds(TransportError) + kinds(AuthenticationError) + kinds(ProtocolError))
def test_issue_promises_nothing_where_nothing_is_tried(kind: type[RealtimeError]) -> None:
    """In FAILED an error is as grave as can be, and no remedy says that it is tried again by itself."""
    issue = issue_for(kind("It broke."), ConnectionStatus.FAILED)
    assert issue.severity is Severity.ERROR
    rest = issue.message.replace(TRAITS[ConnectionStatus.FAILED].meaning, "")
    assert "by itself" not in rest
    assert "retry_now()" in issue.message


def test_issue_is_as_grave_as_the_state_to_which_it_leads() -> None:
    """The graver of category and state counts: what is retried warns, what is final is an error."""
    lost, refused = TransportError("It broke."), AuthenticationError("It broke.")
    assert issue_for(lost, ConnectionStatus.RECONNECTING).severity is Severity.WARNING
    assert issue_for(lost, ConnectionStatus.FAILED).severity is Severity.ERROR
    assert issue_for(refused, ConnectionStatus.RECONNECTING).severity is Severity.ERROR


def test_issue_of_a_bug_blames_nobody_else() -> None:
    """An error of the library itself is told as such, and not as one that leaves the connection alone."""
    issue = issue_for(InternalError("It broke."), ConnectionStatus.RECONNECTING)
    assert issue.message.startswith("The client itself has made a mistake. It broke. ")
    assert "not affected" not in issue.message
    assert "report it" in issue.message


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
