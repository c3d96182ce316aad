"""The sentences for people: true for every state, complete, and free of secrets (SPEC B4)."""

import canary
import pytest
from attrs import frozen

from realtime_fsm import ConnectionStatus, RealtimeConfig
from realtime_fsm.machine.errors import AuthenticationError, ServerUnreachableError
from realtime_fsm.machine.record import StatusChange
from realtime_fsm.machine.table import TRAITS, TRANSITIONS, Trigger
from realtime_fsm.monitoring.narration import Narration, narrate

CONFIG = RealtimeConfig(max_reconnect_attempts=10, reconnect_interval=5, connection_timeout=10)


@frozen
class Seen:
    """As much of the metrics as is told of."""

    status: ConnectionStatus
    messages_waiting: int = 0


def change(
    status: ConnectionStatus, trigger: Trigger = Trigger.CONNECTION_LOST, **more: object
) -> StatusChange:
    """Return a change into a state."""
    return StatusChange(
        previous=ConnectionStatus.CONNECTED, current=status, trigger=trigger, reason="a reason", **more
    )  # type: ignore[arg-type]


def told(narration: Narration) -> str:
    """Return all of its sentences."""
    return f"{narration.headline} {narration.next} {narration.advice}".strip()


@pytest.mark.parametrize("row", TRANSITIONS, ids=lambda row: f"{row.trigger}-{row.dest}")
def test_every_change_can_be_told_in_whole_sentences(row: object) -> None:
    """Whatever has happened, each sentence begins with a capital, ends with a full stop, and has no gap."""
    error = ServerUnreachableError("nobody answers.")
    last = change(row.dest, row.trigger, error=error, attempt=3)  # type: ignore[attr-defined]
    narration = narrate(Seen(row.dest, 2), last, CONFIG, next_attempt_in=4.2)  # type: ignore[attr-defined]
    for sentence in filter(None, (narration.headline, narration.next, narration.advice)):
        assert sentence[0].isupper()
        assert sentence.endswith(".")
        assert "{" not in sentence
        assert ".." not in sentence
        assert "  " not in sentence


@pytest.mark.parametrize("status", ConnectionStatus)
def test_every_state_can_be_told_before_anything_has_happened(status: ConnectionStatus) -> None:
    """A state without a history is told too, and says what comes next."""
    narration = narrate(Seen(status), None, CONFIG)
    assert narration.headline
    assert narration.next


def test_a_wait_tells_which_attempt_comes_when_and_why() -> None:
    """People see the attempt, of how many, the seconds left, and the cause."""
    last = change(
        ConnectionStatus.RECONNECTING,
        error=ServerUnreachableError("nobody answers."),
        attempt=3,
        retry_in=9.0,
    )
    narration = narrate(Seen(ConnectionStatus.RECONNECTING), last, CONFIG, next_attempt_in=4.2)
    assert narration.headline == "The connection is down: nobody answers."
    assert narration.next == "Attempt 3 of 10 follows in 4 s."
    assert "retry" in narration.advice.lower()


def test_a_cause_that_begins_with_an_acronym_is_left_alone() -> None:
    """``TLS`` stays ``TLS`` where the cause goes on with a sentence."""
    last = change(ConnectionStatus.RECONNECTING, error=ServerUnreachableError("TLS is broken."))
    narration = narrate(Seen(ConnectionStatus.RECONNECTING), last, CONFIG)
    assert narration.headline == "The connection is down: TLS is broken."


def test_giving_up_tells_what_mends_it() -> None:
    """In FAILED the remedy of the cause is the advice."""
    last = change(
        ConnectionStatus.FAILED, error=AuthenticationError("the token is refused.", remedy="Log in anew.")
    )
    assert narrate(Seen(ConnectionStatus.FAILED), last, CONFIG).advice == "Log in anew."


def test_a_forced_fallback_is_not_told_as_one_that_ends_by_itself() -> None:
    """Who forced the fallback is told that it stays until it is released."""
    status = ConnectionStatus.FALLBACK
    forced = narrate(Seen(status), change(status, Trigger.FORCE_FALLBACK), CONFIG)
    own = narrate(Seen(status), change(status, Trigger.FALL_BACK), CONFIG)
    assert "until somebody releases it" in forced.next
    assert "as soon as it is back" in own.next


@pytest.mark.parametrize("status", ConnectionStatus)
def test_messages_that_wait_are_told_where_they_cannot_leave(status: ConnectionStatus) -> None:
    """Whoever has emitted while offline reads that nothing is lost; a live connection needs no such word."""
    one, many = (told(narrate(Seen(status, count), None, CONFIG)) for count in (1, 1200))
    assert ("1 message is kept" in one) is not TRAITS[status].sends
    assert ("1,200 messages are kept" in many) is not TRAITS[status].sends


def test_sentences_hold_no_secret() -> None:
    """What an error quotes of a token is not shown."""
    token = canary.jwt()
    error = AuthenticationError(f"refused Bearer {token}", remedy=f"token={token}")
    last = change(ConnectionStatus.FAILED, error=error)
    assert token not in told(narrate(Seen(ConnectionStatus.FAILED), last, CONFIG))
