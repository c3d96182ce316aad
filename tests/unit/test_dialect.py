"""The conventions of servers: what the two that come with us say, and what a user's own may not."""

import attrs
import pytest

from realtime_fsm import ConfigurationError, Dialect
from realtime_fsm.machine.dialect import RESERVED_EVENTS


def test_dialect_plain_assumes_nothing_beyond_socketio() -> None:
    """Of a plain server nothing is expected that Socket.IO itself does not bring."""
    plain = Dialect.PLAIN
    asked = {name for name, value in attrs.asdict(plain).items() if value is True}
    assert asked == {"recovers_sessions"}
    assert plain.name == "plain"
    assert (plain.reauthenticate_event, plain.poll_path, plain.publish_path) == (None, None, None)
    assert plain.offset_pattern is None


def test_dialect_reference_promises_what_the_backend_keeps() -> None:
    """The reference backend replays, deduplicates, confirms, and has its two addresses for HTTP."""
    reference = Dialect.REFERENCE
    asked = {name for name, value in attrs.asdict(reference).items() if value is True}
    assert asked == {
        "confirms_subscriptions",
        "positions",
        "wraps_answers",
        "message_ids",
        "deduplicates",
        "recovers_sessions",
    }
    assert reference.poll_path != reference.publish_path
    assert reference.reauthenticate_event == "reauthenticate"


def test_dialect_is_frozen_and_keyword_only() -> None:
    """A dialect is named field by field, and does not change under the engine that follows it."""
    with pytest.raises(TypeError):
        Dialect("mine")  # type: ignore[misc]
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Dialect.PLAIN.positions = True  # type: ignore[misc]


@pytest.mark.parametrize("key", ["pid", "offset"])
def test_dialect_refuses_a_token_key_that_leads_to_sessions(key: str) -> None:
    """The token may not take the place of what leads back to a session."""
    with pytest.raises(ConfigurationError) as refused:
        Dialect(name="mine", token_key=key)
    (problem,) = refused.value.problems
    assert problem.startswith(f"token_key='{key}' leads back to sessions")


def test_dialect_refuses_an_offset_pattern_that_cannot_be_read() -> None:
    """A pattern must be a regular expression; what is wrong with it is said."""
    with pytest.raises(ConfigurationError, match=r"offset_pattern='\(' is no regular expression: missing"):
        Dialect(name="mine", offset_pattern="(")
    assert Dialect(name="mine", offset_pattern=r"\d+-\d+").offset_pattern == r"\d+-\d+"


def test_dialect_reports_all_problems_at_once() -> None:
    """Two faults are two problems of one error."""
    with pytest.raises(ConfigurationError) as refused:
        Dialect(name="mine", token_key="pid", offset_pattern="[")
    assert [problem.partition("=")[0] for problem in refused.value.problems] == [
        "token_key",
        "offset_pattern",
    ]


def test_dialect_keeps_names_of_events_as_a_set() -> None:
    """Names of events are given as any iterable, and kept as what cannot change."""
    dialect = Dialect(name="mine", events_without_offset=["tick", "tick", "tock"])  # type: ignore[arg-type]
    assert dialect.events_without_offset == frozenset({"tick", "tock"})


def test_dialect_no_default_event_is_reserved() -> None:
    """What the two dialects emit may be emitted: a server closes the connection at a reserved name."""
    for dialect in (Dialect.PLAIN, Dialect.REFERENCE):
        events = {value for name, value in attrs.asdict(dialect).items() if name.endswith("_event")}
        assert events - {None}
        assert not events & RESERVED_EVENTS


def test_dialect_payloads_are_functions() -> None:
    """A payload of one's own is a function; what is none is refused, with what to write instead."""
    with pytest.raises(ConfigurationError, match="must be a function of a channel's name") as refused:
        Dialect(name="mine", subscribe_payload="room", unsubscribe_payload={})  # type: ignore[arg-type]
    assert len(refused.value.problems) == 2
