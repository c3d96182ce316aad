"""Makes a schedule that fails as short and plain as it can be, and still fail."""

from collections.abc import Callable, Iterator
from typing import Final

from attrs import evolve

from realtime_fsm.testing.schedule import Action, Schedule, Setting, Step

MAX_PLAYS: Final = 2000
"""Schedules that are tried at most."""


def shrink(schedule: Schedule, fails: Callable[[Schedule], bool]) -> Schedule:
    """Return a schedule that still fails, of which nothing can be left out.

    Args:
        schedule: One that fails.
        fails: Plays a schedule, and tells whether it fails.
    """
    left = MAX_PLAYS
    improved = True
    while improved:
        improved = False
        for simpler in _simpler(schedule):
            left -= 1
            if left < 0:
                return schedule
            if fails(simpler):
                schedule, improved = simpler, True
                break
    return schedule


def _simpler(schedule: Schedule) -> Iterator[Schedule]:
    """Yield simpler schedules, the ones that promise most first."""
    steps = schedule.steps
    size = len(steps)
    while size:
        for start in range(0, len(steps), size):
            yield evolve(schedule, steps=steps[:start] + steps[start + size :])
        size //= 2
    if schedule.ending is not Action.HEAL:
        yield evolve(schedule, ending=Action.HEAL)
    if schedule.setting is not Setting.REFERENCE:
        yield evolve(schedule, setting=Setting.REFERENCE)
    if schedule.seed:
        yield evolve(schedule, seed=0)
    for index, step in enumerate(steps):
        if step.pause:
            yield evolve(schedule, steps=(*steps[:index], Step(step.action), *steps[index + 1 :]))
