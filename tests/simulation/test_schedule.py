"""The vocabulary of faults: written on one line, read back the same, and refused with every reason."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime_fsm import InvalidArgumentError
from realtime_fsm.testing.fuzz.schedule import (
    ENDINGS,
    EXAMPLE,
    LASTING,
    PAUSES,
    Action,
    Schedule,
    Setting,
    Step,
    random_schedule,
)


@given(st.integers(min_value=0))
def test_schedule_is_read_as_it_was_written(seed: int) -> None:
    """Any schedule survives being written on one line, without a character that a shell would mind."""
    schedule = random_schedule(seed)
    text = str(schedule)
    assert Schedule.parse(text) == schedule
    assert not set(text) & set(" \t\n'\"$&;|<>*?()[]{}!#~\\`")


def test_schedule_is_the_same_for_the_same_seed() -> None:
    """A seed gives one schedule, and different seeds give many."""
    assert [random_schedule(seed) for seed in range(50)] == [random_schedule(seed) for seed in range(50)]
    assert len({str(random_schedule(seed)) for seed in range(200)}) == 200


def test_schedule_of_some_seed_has_each_step_pause_setting_and_ending() -> None:
    """Nothing in the vocabulary is never used."""
    schedules = [random_schedule(seed) for seed in range(500)]
    assert {step.action for s in schedules for step in s.steps} == set(Action)
    assert {step.pause for s in schedules for step in s.steps} == set(PAUSES)
    assert {s.setting for s in schedules} == set(Setting)
    assert {s.ending for s in schedules} == set(ENDINGS)


def test_schedule_that_is_wrong_is_refused_with_every_reason() -> None:
    """All that is wrong is named at once, with an example of what is right."""
    with pytest.raises(InvalidArgumentError) as refusal:
        Schedule.parse("ref:x/emt,reset@-1/gone")
    text = str(refusal.value)
    for part in ("'ref'", "'x'", "'emt'", "'-1'", "'gone'", EXAMPLE):
        assert part in text
    with pytest.raises(InvalidArgumentError, match="three parts"):
        Schedule.parse("reset")
    for pause in ("inf", "nan", "soon"):
        with pytest.raises(InvalidArgumentError, match="must be seconds"):
            Schedule.parse(f"plain:1/emit@{pause}/heal")


def test_schedule_takes_plain_pairs_as_steps() -> None:
    """A list of pairs is enough to write a schedule by hand."""
    schedule = Schedule([(Action.EMIT, 0.5), (Action.RESET_PEER,)])
    assert schedule.steps == (Step(Action.EMIT, 0.5), Step(Action.RESET_PEER, 0.0))
    assert Schedule.parse(EXAMPLE).seed == 7


def test_schedule_knows_which_faults_last() -> None:
    """What lasts can be left for ever, and leads somewhere; what does not has no end to wait for."""
    assert all(action.lasts for action in LASTING)
    assert all(LASTING.values())
    assert not Action.RESET_PEER.lasts
