import itertools

import attrs
import pytest

from realtime_fsm.machine.errors import (
    AuthenticationError,
    NamespaceRefusedError,
    NotSocketIOError,
    RealtimeError,
    TokenSourceError,
    TransportError,
)
from realtime_fsm.machine.guard import GUARDS, Facts, may_fall_back, may_probe, may_retry
from realtime_fsm.machine.table import Guard

RETRYABLE = TransportError("It broke.")
FINAL = NamespaceRefusedError("No.")


def test_guard_every_name_has_a_function() -> None:
    """Every guard named in the table has its function."""
    assert set(GUARDS) == set(Guard)


@pytest.mark.parametrize(
    ("reconnects", "allowed", "expected"),
    [(0, 0, False), (0, 1, True), (1, 1, False), (9, 10, True), (10, 10, False), (11, 10, False)],
)
def test_guard_may_retry_counts_attempts(reconnects: int, allowed: int, expected: bool) -> None:
    """Exactly `max_reconnect_attempts` attempts are made; with 0 there is none."""
    facts = Facts(reconnects=reconnects, max_reconnect_attempts=allowed)
    assert may_retry(facts) is expected


@pytest.mark.parametrize("reconnects", [0, 10, 10**9])
def test_guard_may_retry_for_ever_where_there_is_no_limit(reconnects: int) -> None:
    """Without a limit no number of attempts is too many."""
    assert may_retry(Facts(reconnects=reconnects, max_reconnect_attempts=None))


@pytest.mark.parametrize(
    ("outage", "after", "asked", "expected"),
    [
        (14.9, 15.0, None, True),
        (15.0, 15.0, None, False),
        (0.0, 0.0, None, False),
        (1e9, None, 1e9, True),
        (5.0, 15.0, 10.0, True),
        (5.0, 15.0, 10.1, False),
    ],
)
def test_guard_may_retry_until_the_fallback_is_due(
    outage: float, after: float | None, asked: float | None, expected: bool
) -> None:
    """An outage of `fallback_after`, or a `Retry-After` beyond it, ends the attempts for polling."""
    error = TransportError("Down.", retry_after=asked)
    facts = Facts(outage=outage, fallback_after=after, error=error, max_reconnect_attempts=None)
    assert may_retry(attrs.evolve(facts, fallback_available=True)) is expected
    assert may_retry(facts)  # with nothing to poll


@pytest.mark.parametrize(
    ("initial", "retry_initial", "expected"),
    [(True, True, True), (True, False, False), (False, False, True), (False, True, True)],
)
def test_guard_may_retry_heeds_the_first_connect(initial: bool, retry_initial: bool, expected: bool) -> None:
    """A failed first connect is not retried where that is switched off; any other is."""
    assert may_retry(Facts(initial=initial, retry_initial=retry_initial)) is expected


@pytest.mark.parametrize(("error", "expected"), [(None, True), (RETRYABLE, True), (FINAL, False)])
def test_guard_may_retry_gives_up_what_cannot_help(error: RealtimeError | None, expected: bool) -> None:
    """An error that trying again cannot mend is not tried again."""
    assert may_retry(Facts(error=error)) is expected


@pytest.mark.parametrize("error", [None, RETRYABLE, FINAL, NotSocketIOError("Nothing.")])
def test_guard_may_fall_back_needs_something_to_poll(error: RealtimeError | None) -> None:
    """Polling takes over where it is available, and only there."""
    assert may_fall_back(Facts(fallback_available=True, error=error))
    assert not may_fall_back(Facts(fallback_available=False, error=error))


@pytest.mark.parametrize("error", [AuthenticationError("Who?"), TokenSourceError("None.")])
def test_guard_may_fall_back_refuses_a_refused_identity(error: RealtimeError) -> None:
    """HTTP would refuse the same identity, so polling does not take over for it."""
    assert not may_fall_back(Facts(fallback_available=True, error=error))


def test_guard_may_probe_unless_forced() -> None:
    """A forced fallback does not look for the socket."""
    assert may_probe(Facts())
    assert not may_probe(Facts(forced=True))


def test_guard_is_pure_and_answers_a_bool() -> None:
    """A guard answers True or False, and the same each time."""
    for guard, forced, available, error in itertools.product(
        GUARDS.values(), (False, True), (False, True), (None, RETRYABLE, FINAL)
    ):
        facts = Facts(forced=forced, fallback_available=available, error=error)
        assert guard(facts) in {True, False}
        assert guard(facts) is guard(facts)


def test_guard_facts_are_modest_by_default() -> None:
    """Unless told otherwise nothing has been tried, ten attempts are allowed, and nothing can be polled."""
    assert attrs.asdict(Facts()) == {
        "reconnects": 0,
        "initial": False,
        "max_reconnect_attempts": 10,
        "retry_initial": True,
        "fallback_available": False,
        "forced": False,
        "error": None,
        "outage": 0.0,
        "fallback_after": None,
    }


def test_guard_facts_are_frozen_and_keyword_only() -> None:
    """A guard cannot change what the next one sees, and facts cannot be mixed up."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Facts().forced = True  # type: ignore[misc]
    with pytest.raises(TypeError):
        Facts(0, True)  # type: ignore[misc]
