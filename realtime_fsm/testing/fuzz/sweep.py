"""Plays many schedules, stops at the first that fails, and says what was never seen."""

import hashlib
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
    for index in range(1, len(steps)):  # a step that matters by its pause alone
        before = Step(steps[index - 1].action, steps[index - 1].pause + steps[index].pause)
        yield evolve(schedule, steps=(*steps[: index - 1], before, *steps[index + 1 :]))
    if schedule.ending is not Action.HEAL:
        yield evolve(schedule, ending=Action.HEAL)
    if schedule.setting is not Setting.REFERENCE:
        yield evolve(schedule, setting=Setting.REFERENCE)
    if schedule.seed:
        yield evolve(schedule, seed=0)
    for index, step in enumerate(steps):
        if step.pause:
            yield evolve(schedule, steps=(*steps[:index], Step(step.action), *steps[index + 1 :]))


NOT_REPEATABLE: Final = (
    "Played again it went otherwise: something in it is not virtual, or its run was disturbed. The replay:"
)


@frozen(kw_only=True)
class Failure:
    """A schedule by which a promise was broken.

    Attributes:
        story: How it went when it was found: that very run, which nothing brings back if it does not repeat.
        replay: How it went when it was played again.
        shortest: How the shortest one went that was found from it; the replay, where that did not fail.
    """

    story: Story
    replay: Story
    shortest: Story

    @property
    def found(self) -> Schedule:
        """The schedule as it was found."""
        return self.story.schedule

    @property
    def shrunk(self) -> Schedule:
        """The shortest that was found from it."""
        return self.shortest.schedule

    @property
    def is_repeatable(self) -> bool:
        """True if it failed again in the same way, and the shortest one failed too."""
        return self.replay.digest == self.story.digest and bool(self.shortest.violations)

    def __str__(self) -> str:
        other = self.shortest if self.is_repeatable else self.replay
        said = f"shrunk to {self.shrunk}" if self.is_repeatable else NOT_REPEATABLE
        return "\n".join([str(self.story), f"found as  {self.found}", said, str(other)])


@define(kw_only=True)
class Sweep:
    """The result of playing many schedules.

    Attributes:
        played: How many.
        virtual_seconds: How long they took together.
        seen: What happened in them.
        digest: A hash of their stories, in order: the same for the same seeds, in every process.
        failure: The first failure; the sweep ended with it.
    """

    played: int = 0
    virtual_seconds: float = 0.0
    seen: set[str] = field(factory=set)
    digest: str = ""
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

    def add(self, story: Story) -> None:
        """Count what another schedule has shown."""
        self.played += 1
        self.virtual_seconds += story.virtual_seconds
        self.seen |= story.seen
        self.digest = hashlib.sha256(f"{self.digest}{story.digest}".encode()).hexdigest()


def sweep(
    seeds: Iterable[int],
    environment: EnvironmentFactory = SimulatedEnvironment,
    progress: Callable[[Sweep], None] = lambda _: None,
    preempt: float = 0.0,
) -> Sweep:
    """Play the schedule of each seed.

    Args:
        seeds: Which.
        environment: Makes the server and its network.
        progress: Called after each.
        preempt: As for ``play``.
    """
    result = Sweep()
    for seed in seeds:
        story = play(random_schedule(seed), environment, preempt)
        result.add(story)
        if story.violations:
            result.failure = failure_of(story, environment)
            break
        progress(result)
    return result


def failure_of(story: Story, environment: EnvironmentFactory = SimulatedEnvironment) -> Failure:
    """Shrink the schedule of a story in which a promise was broken."""

    def again(schedule: Schedule) -> Story:
        return play(schedule, environment, story.preempt)

    replay = shortest = again(story.schedule)
    if replay.violations:
        shortest = again(shrink(story.schedule, lambda simpler: bool(again(simpler).violations)))
    return Failure(story=story, replay=replay, shortest=shortest)
