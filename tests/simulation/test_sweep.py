"""The simulation judges itself: sweeps hold, see everything, replay to the byte, and shrink what fails."""

from random import Random

import pytest
from attrs import evolve

from realtime_fsm.testing.fuzz.application import FULL_SWEEP, everything
from realtime_fsm.testing.fuzz.schedule import LASTING, Action, Schedule, Setting, random_schedule
from realtime_fsm.testing.fuzz.simulation import INTERLEAVED, EnvironmentFactory, Story, play
from realtime_fsm.testing.fuzz.sweep import NOT_REPEATABLE, Sweep, shrink, sweep
from realtime_fsm.testing.fuzz.world import SimulatedEnvironment

INTERLEAVED_SEEDS = range(500)


def test_sweep_finds_no_broken_promise_and_sees_everything() -> None:
    """Every schedule keeps every promise, and together they take every row, outcome and fault there is."""
    result = sweep(range(FULL_SWEEP))
    assert result.failure is None, (str(result.failure.shrunk), result.failure.story.violations)
    assert not result.missing
    assert result.ok


def test_sweep_finds_no_broken_promise_while_timers_cut_in() -> None:
    """No promise depends on callbacks taking no time: near timers go off in the middle of every chain."""
    result = sweep(INTERLEAVED_SEEDS, preempt=INTERLEAVED)
    assert result.failure is None, str(result.failure)
    some = INTERLEAVED_SEEDS[:20]
    assert sweep(some, preempt=INTERLEAVED).digest != sweep(some).digest  # or nothing has cut in


def test_sweep_is_vacuous_when_it_never_saw_something() -> None:
    """A sweep that is long enough fails when something never happened."""
    result = Sweep(played=FULL_SWEEP, seen=set(everything()))
    assert result.ok
    result.seen.discard("message dead")
    assert result.is_vacuous
    assert not result.ok
    assert result.missing == ("message dead",)


def test_sweep_keeps_the_story_as_it_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run that failed is told as it was, also where no other one fails; and that none did, is said."""
    disturbed = random_schedule(3)

    def play_disturbed(schedule: Schedule, environment: EnvironmentFactory, preempt: float) -> Story:
        story = play(schedule, environment, preempt)
        if schedule == disturbed and not told:
            story.violations = ["it was disturbed"]
            told.append(story)
        return story

    told: list[Story] = []
    monkeypatch.setattr("realtime_fsm.testing.fuzz.sweep.play", play_disturbed)
    failure = sweep(range(10)).failure
    assert failure is not None
    assert failure.story is told[0]
    assert not failure.is_repeatable
    assert not failure.replay.violations
    assert failure.shrunk == failure.found == disturbed
    assert str(failure).startswith(f"{told[0]}\n")
    assert NOT_REPEATABLE in str(failure)


def test_simulation_replays_to_the_byte() -> None:
    """The same schedule tells the same story, every time, with every instant in it."""
    for seed in range(60):
        schedule = random_schedule(seed)
        first, second = play(schedule), play(schedule)
        assert "\n".join(first.lines).encode() == "\n".join(second.lines).encode(), str(schedule)
        assert first.lines


def test_simulation_leaves_each_fault_for_ever_on_each_server() -> None:
    """Every fault that lasts leads where it must when nobody mends it, and breaks no promise."""
    for setting in Setting:
        for fault in LASTING:
            story = play(Schedule((), 1, setting, fault))
            assert not story.violations, (str(story.schedule), story.violations)


def test_simulation_does_without_the_faults_that_a_server_cannot_have() -> None:
    """A fault that an environment does not support is told, and not pretended."""
    assert Action.LOSE_EVENT not in SimulatedEnvironment(Setting.PLAIN, Random(0)).supports  # noqa: S311
    story = play(Schedule.parse("plain:0/lose-event/heal"))
    assert any("lose-event: not here" in line for line in story.lines)
    assert "step lose-event" not in story.seen


def test_shrink_leaves_only_what_is_needed() -> None:
    """A failure that needs two steps is shrunk to these two, without pauses, and to the plainest rest."""

    def fails(schedule: Schedule) -> bool:
        names = [step.action for step in schedule.steps]
        return Action.EMIT in names and Action.KICK in names[names.index(Action.EMIT) :]

    found = next(s for s in map(random_schedule, range(10_000)) if fails(s) and len(s.steps) > 8)
    assert str(shrink(found, fails)) == "reference:0/emit,kick/heal"


def test_shrink_keeps_what_cannot_be_simpler() -> None:
    """A schedule of which nothing can be left out comes back as it is, and one that never fails, too."""
    schedule = Schedule.parse("reference:0/emit,kick/heal")
    assert shrink(schedule, lambda s: s == schedule) == schedule
    assert shrink(evolve(schedule, seed=4), lambda _: False) == evolve(schedule, seed=4)


def test_shrink_is_bounded() -> None:
    """Shrinking ends, however slow every play is."""
    plays = 0

    def always(_: Schedule) -> bool:
        nonlocal plays
        plays += 1
        return True

    assert shrink(random_schedule(3), always).steps == ()
    assert plays < 100
