"""Plays many schedules, stops at the first that fails, and says what was never seen."""

import hashlib
from collections.abc import Callable, Iterable
from typing import Final

from attrs import define, field, frozen

from realtime_fsm.testing.coverage import FULL_SWEEP, everything
from realtime_fsm.testing.environment import SimulatedEnvironment
from realtime_fsm.testing.schedule import Schedule, random_schedule
from realtime_fsm.testing.shrinking import shrink
from realtime_fsm.testing.simulation import EnvironmentFactory, Story, play

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
        """Whether it failed again, in the same way, and so did the shortest one."""
        return self.replay.digest == self.story.digest and bool(self.shortest.violations)

    def __str__(self) -> str:
        other = self.shortest if self.is_repeatable else self.replay
        said = f"shrunk to {self.shrunk}" if self.is_repeatable else NOT_REPEATABLE
        return "\n".join([str(self.story), f"found as  {self.found}", said, str(other)])


@define(kw_only=True)
class Sweep:
    """What many schedules have shown.

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
        """What never happened."""
        return tuple(sorted(everything() - self.seen))

    @property
    def is_vacuous(self) -> bool:
        """Whether it was long enough to see everything, and did not."""
        return self.played >= FULL_SWEEP and bool(self.missing)

    @property
    def ok(self) -> bool:
        """Whether nothing failed, and it proves something."""
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
        result.add(story)
        if story.violations:
            result.failure = failure_of(story, environment)
            break
        progress(result)
    return result


def failure_of(story: Story, environment: EnvironmentFactory = SimulatedEnvironment) -> Failure:
    """Shrink the schedule of a story in which a promise was broken."""
    replay = shortest = play(story.schedule, environment)
    if replay.violations:
        shrunk = shrink(story.schedule, lambda simpler: bool(play(simpler, environment).violations))
        shortest = play(shrunk, environment)
    return Failure(story=story, replay=replay, shortest=shortest)
