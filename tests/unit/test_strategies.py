"""What the strategies draw: legal, up to the ends of every range, and shrunk to what matters."""

import subprocess
import sys
from collections.abc import Callable
from enum import Enum
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample
from transitions import Machine

from realtime_fsm import ConfigurationError, Delivery, Dialect, RealtimeConfig, Trigger
from realtime_fsm.engine.payload import MAX_ATTACHMENTS, Payload, check_event_name, encode
from realtime_fsm.machine.guard import GUARDS, Guard
from realtime_fsm.testing import (
    MessageDraft,
    configs,
    facts,
    failures,
    json_values,
    messages,
    trigger_sequences,
    triggers,
)
from realtime_fsm.testing.strategies import _filled

FIELDS = attrs.fields_dict(RealtimeConfig)
SEARCH = settings(
    max_examples=3000,
    database=None,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink],  # which parts could be otherwise is explained to nobody
)
GENERATE = settings(SEARCH, phases=[Phase.generate])


def found(strategy: st.SearchStrategy[Any], wanted: Callable[[Any], bool]) -> Any:
    """Return the least example that is wanted; there must be one."""
    return find(strategy, wanted, settings=SEARCH)


def drawn(strategy: st.SearchStrategy[Any], wanted: Callable[[Any], bool]) -> Any:
    """Return any example that is wanted, not shrunk."""
    return find(strategy, wanted, settings=GENERATE)


def sent(draft: MessageDraft, max_bytes: int) -> Payload:
    """Encode a message as the engine does."""
    return encode([draft.event, *draft.args], what="The message", max_bytes=max_bytes)


@pytest.mark.parametrize("trigger", Trigger)
def test_triggers_draw_each_of_ours(trigger: Trigger) -> None:
    """Every trigger of the shipped table is drawn, as itself."""
    assert found(triggers(), lambda one: one is trigger) is trigger


def test_triggers_draw_those_of_a_users_table() -> None:
    """Rows in every form, and a machine of the library, give their triggers and no others."""

    class Light(Enum):
        RED, GREEN = "red", "green"

    rows = [{"trigger": "go", "source": Light.RED, "dest": Light.GREEN}, (Light.GREEN, "stop", Light.RED)]
    machine = Machine(
        states=Light, transitions=[["go", Light.RED, Light.GREEN]], initial=Light.RED, auto_transitions=False
    )
    for strategy, expected in ((triggers(rows), {"go", "stop"}), (triggers(machine), {"go"})):
        for trigger in expected:
            assert found(strategy, lambda one, trigger=trigger: one == trigger) == trigger
        with pytest.raises(NoSuchExample):
            found(strategy, lambda one, expected=expected: one not in expected)


@given(trigger_sequences(min_size=2, max_size=5))
def test_trigger_sequences_are_plain_lists_within_their_sizes(sequence: list[Trigger]) -> None:
    """A sequence is a list of triggers, as long as asked for."""
    assert type(sequence) is list
    assert 2 <= len(sequence) <= 5
    assert all(isinstance(trigger, Trigger) for trigger in sequence)


def test_trigger_sequences_shrink_to_what_matters() -> None:
    """Of a long sequence only the triggers are left that are needed."""
    least = found(
        trigger_sequences(), lambda sequence: Trigger.RETRY in sequence and sequence[-1:] == [Trigger.CONNECT]
    )
    assert least == [Trigger.RETRY, Trigger.CONNECT]


@pytest.mark.parametrize("guard", Guard)
@pytest.mark.parametrize("verdict", [False, True])
def test_facts_make_each_guard_say_yes_and_no(guard: Guard, verdict: bool) -> None:
    """No guard is always true, nor always false, of what is drawn."""
    assert GUARDS[guard](found(facts(), lambda one: GUARDS[guard](one) is verdict)) is verdict


def test_failures_are_of_every_category() -> None:
    """The errors are worth retrying and not, of more than two categories."""
    for retryable in (False, True):
        assert found(failures(), lambda one, retryable=retryable: one.retryable is retryable)
    seen = {
        drawn(failures(), lambda one, kind=kind: one.category.value == kind)
        for kind in ("connection", "authentication", "protocol", "application")
    }
    assert len(seen) == 4


@given(configs())
def test_configs_are_legal_however_they_are_made_again(config: RealtimeConfig) -> None:
    """What is drawn is a configuration, and the same one when it is built from its own fields."""
    assert RealtimeConfig(**attrs.asdict(config, recurse=False)) == config


NUMBERS = [name for name, attribute in FIELDS.items() if attribute.type in (int, float)]


@pytest.mark.parametrize("name", NUMBERS)
def test_configs_reach_the_least_legal_number_and_a_huge_one(name: str) -> None:
    """Counts and durations are drawn from the least one that is legal up to the largest."""
    check = FIELDS[name].metadata["check"]
    if FIELDS[name].type is int:
        least = drawn(configs(), lambda config: check(getattr(config, name) - 1) is not None)
        with pytest.raises(ConfigurationError):
            attrs.evolve(least, **{name: getattr(least, name) - 1})
    else:
        drawn(configs(), lambda config: getattr(config, name) < 0.01)
        if check(0.0) is None:
            drawn(configs(), lambda config: getattr(config, name) == 0)
    drawn(configs(), lambda config: getattr(config, name) > 2**31)


@pytest.mark.parametrize("name", sorted(FIELDS.keys() - set(NUMBERS)))
def test_configs_change_every_field(name: str) -> None:
    """Each field is drawn with another value than its default."""
    default = getattr(RealtimeConfig(), name)
    assert getattr(drawn(configs(), lambda config: getattr(config, name) != default), name) != default


def test_configs_shrink_to_the_fields_that_matter() -> None:
    """All but what is asked for is at its default."""
    least = found(configs(), lambda config: config.max_in_flight > 100 and config.debug_mode)
    assert least == RealtimeConfig(max_in_flight=101, debug_mode=True)


FIXED = configs(
    heartbeat_interval=0.5,
    backoff_base=100.0,
    max_message_bytes=2**30,
    dialect=st.just(Dialect.REFERENCE),
)
SIZED = st.integers(256, 2000).flatmap(lambda size: st.tuples(st.just(size), messages(max_bytes=size)))


@given(FIXED)
def test_configs_fit_around_what_is_fixed(config: RealtimeConfig) -> None:
    """A fixed field stays as it is, and what must not be more or less than it is made to fit."""
    assert (config.heartbeat_interval, config.backoff_base, config.max_message_bytes) == (0.5, 100.0, 2**30)
    assert config.heartbeat_timeout <= 0.5
    assert config.backoff_maximum >= 100.0
    assert config.outbox_max_bytes >= 2**30
    assert config.dialect is Dialect.REFERENCE


def test_configs_refuse_what_is_no_field() -> None:
    """A misspelt field is not ignored."""
    with pytest.raises(TypeError, match="no field named max_in_fligth"):
        found(configs(max_in_fligth=3), lambda _: True)


@given(messages(binary=True), SIZED)
def test_messages_can_be_sent(draft: MessageDraft, small: tuple[int, MessageDraft]) -> None:
    """Each has a name that may be emitted, and arguments that are encoded within the limit."""
    for limit, one in ((1_000_000, draft), small):
        assert check_event_name(one.event) == one.event
        assert sent(one, limit).size_bytes <= limit
        assert isinstance(one.delivery, Delivery)


def test_messages_reach_every_end() -> None:
    """They fill the limit to the byte, carry as many binary parts as allowed, and names of every script."""
    filled = drawn(messages(max_bytes=500), lambda draft: sent(draft, 500).size_bytes == 500)
    assert sent(filled, 500).size_bytes == 500
    several = json_values(binary=True)
    assert drawn(several, lambda value: len(sent(draft_of(value), 10**6).attachments) > 2)
    assert drawn(messages(), lambda draft: any(ord(character) > 0xFFFF for character in draft.event))
    assert drawn(messages(), lambda draft: any(type(one) is int and one > 2**53 for one in draft.args))
    assert drawn(messages(), lambda draft: any("[{" in str(one)[:9] for one in draft.args))


def test_messages_that_are_full_already_are_left_as_they_are() -> None:
    """A message is filled up to the byte, in any script; one without room for another text stays."""
    for character in ("x", "é", "\U0001f469"):
        filled = _filled("e", [1], 300, character)
        assert encode(["e", *filled], what="It", max_bytes=300).size_bytes == 300
        assert filled[0] == 1
    size = encode(["e", "full"], what="It", max_bytes=300).size_bytes
    assert _filled("e", ["full"], size + 1, "x") == ["full"]


def draft_of(value: Any) -> MessageDraft:
    """Return a message that carries a value."""
    return MessageDraft(event="e", args=(value,), delivery=Delivery.VOLATILE)


@given(json_values(binary=True), json_values())
def test_json_values_are_json_and_binary_only_where_asked(value: Any, plain: Any) -> None:
    """Binary parts come only where they are asked for, and never too many."""
    assert len(sent(draft_of(value), 10**6).attachments) <= MAX_ATTACHMENTS
    assert sent(draft_of(plain), 10**6).attachments == ()


def test_messages_shrink_to_a_short_one() -> None:
    """The least message is a letter without arguments; deliveries may be narrowed."""
    least = found(messages(deliveries=[Delivery.AT_LEAST_ONCE]), lambda _: True)
    assert least == MessageDraft(event="0", args=(), delivery=Delivery.AT_LEAST_ONCE)


def test_messages_of_a_megabyte_are_shown_in_short() -> None:
    """What a failing test prints stays readable, however large the message is."""
    large = MessageDraft(event="e", args=("x" * 10**6,), delivery=Delivery.VOLATILE)
    assert len(repr(large)) < 3000
    assert "1000005 characters" in repr(large)
    assert "args=(1, 2)" in repr(attrs.evolve(large, args=(1, 2)))


def test_messages_need_room_for_a_name() -> None:
    """A limit in which not every name has room is refused."""
    with pytest.raises(ValueError, match="max_bytes=255 must be 256 or more"):
        found(messages(max_bytes=255), lambda _: True)


def test_schedules_are_played_without_hypothesis() -> None:
    """Where Hypothesis is missing a schedule can still be read and played: only the strategies need it."""
    program = (
        "import sys; sys.modules['hypothesis'] = None\n"
        "from realtime_fsm.testing import Schedule, play\n"
        "print(play(Schedule.parse('plain:1/emit/heal')).violations)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() in {"()", "[]"}


def test_strategies_without_hypothesis_say_what_to_install() -> None:
    """Where Hypothesis is missing, asking for a strategy names the extra that brings it."""
    program = (
        "import sys; sys.modules['hypothesis'] = None\n"
        "import realtime_fsm.testing as t\n"
        "for name in ('triggers', 'configs', 'MachineRules'):\n"
        "    try: getattr(t, name)\n"
        "    except ImportError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    assert all("pip install 'realtime-fsm[testing]'" in line for line in lines)
