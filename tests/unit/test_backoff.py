from random import Random

import attrs
import pytest
from attrs import define, field

from realtime_fsm.machine.backoff import (
    FLOOR,
    FORMULAS,
    JITTER,
    BackoffLimits,
    ExponentialBackoff,
    Jitter,
    decorrelated,
    exponential,
    full,
)

LIMITS = BackoffLimits()
PLAIN = BackoffLimits(jitter=False)


@define
class ScriptedRandom:
    """Draws the given fraction of each range, and remembers the ranges."""

    fraction: float
    ranges: list[tuple[float, float]] = field(factory=list)

    def uniform(self, a: float, b: float, /) -> float:
        """Return the point at the fraction of the way."""
        self.ranges.append((a, b))
        return a + (b - a) * self.fraction


def test_backoff_defaults_are_those_of_the_specification() -> None:
    """Base 1 s, maximum 30 s, jitter on, exponential."""
    assert BackoffLimits(base=1.0, maximum=30.0, jitter=True) == LIMITS
    assert ExponentialBackoff(random=ScriptedRandom(0.5)).strategy is Jitter.EXPONENTIAL
    assert JITTER == 1.0


@pytest.mark.parametrize(
    ("attempt", "seconds"),
    [(0, 1.0), (1, 2.0), (2, 4.0), (3, 8.0), (4, 16.0), (5, 30.0), (6, 30.0), (10**6, 30.0)],
)
def test_exponential_without_jitter_is_exact(attempt: int, seconds: float) -> None:
    """Without jitter the delay is `min(base * 2 ** attempt, maximum)`, and nothing is drawn."""
    random = ScriptedRandom(0.5)
    assert exponential(PLAIN, attempt, 0.0, random) == seconds
    assert random.ranges == []


def test_exponential_draws_its_jitter_as_wide_as_the_limits_say() -> None:
    """The width of the jitter is one of the limits, and the draw knows it from nothing else."""
    random = ScriptedRandom(0.5)
    assert exponential(BackoffLimits(spread=6.0), 0, 0.0, random) == 4.0
    assert random.ranges == [(0.0, 6.0)]


@pytest.mark.parametrize("attempt", [0, 1, 4, 5, 10**6])
def test_exponential_adds_up_to_one_second_past_the_cap(attempt: int) -> None:
    """Jitter adds a draw from [0, 1 s], after the cap."""
    plain = exponential(PLAIN, attempt, 0.0, ScriptedRandom(0.5))
    for fraction in (0.0, 0.25, 1.0):
        random = ScriptedRandom(fraction)
        assert exponential(LIMITS, attempt, 0.0, random) == plain + fraction
        assert random.ranges == [(0.0, 1.0)]


@pytest.mark.parametrize(("attempt", "cap"), [(0, 1.0), (3, 8.0), (5, 30.0), (10**6, 30.0)])
def test_full_draws_from_nothing_to_the_exponential_delay(attempt: int, cap: float) -> None:
    """Full jitter draws from [0, min(base * 2 ** attempt, maximum)], but not below its floor."""
    random = ScriptedRandom(1.0)
    assert full(LIMITS, attempt, 0.0, random) == cap
    assert random.ranges == [(0.0, cap)]
    assert full(LIMITS, attempt, 0.0, ScriptedRandom(0.0)) == FLOOR


def test_full_floor_yields_to_a_smaller_maximum() -> None:
    """Where the maximum is below the floor, the maximum wins."""
    limits = BackoffLimits(base=0.01, maximum=0.1)
    assert full(limits, 0, 0.0, ScriptedRandom(0.0)) == 0.1


@pytest.mark.parametrize(
    ("previous", "upper", "longest"),
    [(0.0, 3.0, 3.0), (1.0, 3.0, 3.0), (4.0, 12.0, 12.0), (30.0, 90.0, 30.0)],
)
def test_decorrelated_draws_up_to_three_times_the_delay_before(
    previous: float, upper: float, longest: float
) -> None:
    """Decorrelated jitter draws from [base, 3 * previous], capped; nothing before counts as the base."""
    random = ScriptedRandom(1.0)
    assert decorrelated(LIMITS, 7, previous, random) == longest
    assert random.ranges == [(1.0, upper)]
    assert decorrelated(LIMITS, 7, previous, ScriptedRandom(0.0)) == 1.0


def test_backoff_every_jitter_has_a_formula() -> None:
    """Every name that can be configured has its own formula."""
    assert set(FORMULAS) == set(Jitter)
    assert len(set(FORMULAS.values())) == len(Jitter)


def test_backoff_counts_failures_and_begins_anew() -> None:
    """`increment` doubles, `next_delay` counts nothing, `reset` goes back to the base."""
    backoff = ExponentialBackoff(random=ScriptedRandom(0.5), limits=PLAIN)
    assert [backoff.next_delay(), backoff.next_delay()] == [1.0, 1.0]
    backoff.increment()
    backoff.increment()
    assert (backoff.attempt, backoff.next_delay()) == (2, 4.0)
    backoff.reset()
    assert (backoff.attempt, backoff.next_delay()) == (0, 1.0)


def test_backoff_remembers_the_delay_before_until_reset() -> None:
    """Decorrelated delays grow from the one before, and `reset` forgets it."""
    backoff = ExponentialBackoff(random=ScriptedRandom(1.0), strategy=Jitter.DECORRELATED)
    assert [backoff.next_delay() for _ in range(4)] == [3.0, 9.0, 27.0, 30.0]
    backoff.reset()
    assert backoff.next_delay() == 3.0


def test_backoff_same_seed_gives_the_same_delays() -> None:
    """Randomness comes from the given source alone."""
    first, second = (
        ExponentialBackoff(random=Random(7))  # noqa: S311 - jitter is no secret
        for _ in range(2)
    )
    assert [first.next_delay() for _ in range(5)] == [second.next_delay() for _ in range(5)]


def test_exponential_clamps_its_exponent_at_62() -> None:
    """Up to 62 attempts double the delay, and no later one does, so that no float overflows."""
    limits = BackoffLimits(base=1.0, maximum=1e300, jitter=False)
    delays = [exponential(limits, attempt, 0.0, ScriptedRandom(0.0)) for attempt in (61, 62, 63, 10_000)]
    assert delays == [2.0**61, 2.0**62, 2.0**62, 2.0**62]


def test_backoff_records_take_names_only() -> None:
    """Base and maximum cannot be mixed up, nor can the counter be given a start."""
    with pytest.raises(TypeError):
        BackoffLimits(1.0, 30.0)  # type: ignore[misc]
    with pytest.raises(TypeError):
        ExponentialBackoff(ScriptedRandom(0.0))  # type: ignore[misc]
    for hidden in ("attempt", "previous"):
        with pytest.raises(TypeError):
            ExponentialBackoff(random=ScriptedRandom(0.0), **{hidden: 1})
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        BackoffLimits().base = 2.0  # type: ignore[misc]
