"""Plays many schedules, stops at the first that fails, and says what was never seen."""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from attrs import define, evolve, field, frozen

from realtime_fsm.testing.fuzz.application import FULL_SWEEP, everything
from realtime_fsm.testing.fuzz.schedule import Action, Schedule, Setting, Step, random_schedule
from realtime_fsm.testing.fuzz.simulation import EnvironmentFactory, Story, play
from realtime_fsm.testing.fuzz.world import SimulatedEnvironment

# Makes a schedule that fails as short and plain as it can be, and still fail.

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


@frozen(kw_only=True)
class Failure:
    """A schedule by which a promise was broken.

    Attributes:
        found: As it was found.
        shrunk: The shortest that was found from it.
        story: How the shrunk one went.
    """

    found: Schedule
    shrunk: Schedule
    story: Story


@define(kw_only=True)
class Sweep:
    """The result of playing many schedules.

    Attributes:
        played: How many.
        virtual_seconds: How long they took together.
        seen: What happened in them.
        failure: The first failure; the sweep ended with it.
    """

    played: int = 0
    virtual_seconds: float = 0.0
    seen: set[str] = field(factory=set)
    failure: Failure | None = None

    @property
    def missing(self) -> tuple[str, ...]:
        """The things that never happened in any of them."""
        return tuple(sorted(everything() - self.seen))

    @property
    def is_vacuous(self) -> bool:
        """True if it was long enough to see everything, and did not."""
        return self.played >= FULL_SWEEP and bool(self.missing)

    @property
    def ok(self) -> bool:
        """True if nothing failed, and that proves something."""
        return self.failure is None and not self.is_vacuous


def sweep(
    seeds: Iterable[int],
    environment: EnvironmentFactory = SimulatedEnvironment,
    progress: Callable[[Sweep], None] = lambda _: None,
) -> Sweep:
    """Play the schedule of each seed.

    Args:
        seeds: Which.
        environment: Makes the server and its network.
        progress: Called after each.
    """
    result = Sweep()
    for seed in seeds:
        story = play(random_schedule(seed), environment)
        result.played += 1
        result.virtual_seconds += story.virtual_seconds
        result.seen |= story.seen
        if story.violations:
            result.failure = failure_of(story.schedule, environment)
            break
        progress(result)
    return result


def failure_of(schedule: Schedule, environment: EnvironmentFactory = SimulatedEnvironment) -> Failure:
    """Shrink a schedule that fails."""
    shrunk = shrink(schedule, lambda simpler: bool(play(simpler, environment).violations))
    return Failure(found=schedule, shrunk=shrunk, story=play(shrunk, environment))
