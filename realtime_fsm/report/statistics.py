"""Quantiles, and how far the figures of a report can be trusted. Pure; the standard library is enough."""

import random
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from math import sqrt
from operator import mul
from statistics import NormalDist
from typing import Final, TypeVar

from attrs import frozen

from realtime_fsm.machine.figures import quantile

LEVEL: Final = 0.95
RESAMPLES: Final = 2000
SEED: Final = 20_240_229
"""The same file gives the same report."""
MIN_RUNS: Final = 8
"""Runs below which resampling them says nothing: the intervals would be far too narrow."""
MIN_TRIALS: Final = 20

_MAX_UNITS: Final = 200
ROUNDING: Final = 1e-9
_Z: Final = NormalDist().inv_cdf((1 + LEVEL) / 2)

Item = TypeVar("Item")


@frozen
class Interval:
    """An interval that holds the truth with a confidence of ``LEVEL``."""

    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """True if all of it is on one side of zero, by more than rounding."""
        return self.low > ROUNDING or self.high < -ROUNDING


# Rates: Wilson.


@frozen
class Rate:
    """So many failures in so many trials, and the interval of their rate.

    Trials of one run are alike: while a server is down, every dial fails. Where the rates of the runs differ
    by more than chance, the trials count for as many fewer as that says (the design effect, by runs).

    Args:
        pairs: ``(failures, trials)`` of each run that has any.
    """

    pairs: Sequence[tuple[int, int]]

    @property
    def trials(self) -> int:
        """The number of trials in all runs."""
        return sum(trials for _, trials in self.pairs)

    @property
    def value(self) -> float:
        """The share of the trials that failed."""
        return sum(failures for failures, _ in self.pairs) / self.trials

    @property
    def effective_trials(self) -> float:
        """The number of independent trials that would say as much; never more than there were."""
        runs, rate, trials = len(self.pairs), self.value, self.trials
        if runs == 1 or rate in {0.0, 1.0}:
            return trials
        scatter = sum((failures - rate * count) ** 2 for failures, count in self.pairs)
        return trials / max(1.0, runs / (runs - 1) * scatter / (trials * rate * (1 - rate)))

    @property
    def interval(self) -> Interval:
        """Wilson's interval of the rate."""
        rate, trials = self.value, self.effective_trials
        middle = (rate + _Z**2 / (2 * trials)) / (1 + _Z**2 / trials)
        reach = _Z / (1 + _Z**2 / trials) * sqrt(rate * (1 - rate) / trials + _Z**2 / (4 * trials**2))
        return Interval(max(0.0, middle - reach), min(1.0, middle + reach))

    def minus(self, other: "Rate") -> Interval:
        """Return the interval of the difference to another rate (Newcombe, from both Wilson intervals)."""
        difference = self.value - other.value
        mine, its = self.interval, other.interval
        return Interval(
            difference - sqrt((self.value - mine.low) ** 2 + (its.high - other.value) ** 2),
            difference + sqrt((mine.high - self.value) ** 2 + (other.value - its.low) ** 2),
        )


# Everything else: the bootstrap. Runs are drawn, not records: records of one run are alike.


@frozen
class Resampled:
    """The values that a figure would have had with other runs of the same kind.

    Attributes:
        values: One for each time that as many runs were drawn.
        units: How many runs there are to be drawn.
    """

    values: Sequence[float]
    units: int

    @property
    def interval(self) -> Interval:
        """The interval of the figure."""
        return _interval(self.values, self.units)

    def minus(self, other: "Resampled") -> Interval:
        """Return the interval of the difference to another figure, of other runs."""
        differences = [mine - its for mine, its in zip(self.values, other.values, strict=True)]
        return _interval(differences, min(self.units, other.units))


def resampled_ratio(pairs: Sequence[tuple[float, float]], chance: random.Random) -> Resampled:
    """Resample a ratio of sums, such as of live by wanted time.

    Args:
        pairs: Numerator and denominator of each run; the denominators are more than zero.
        chance: Where chance comes from.
    """
    dealt = _dealt(pairs)
    above = [sum(pair[0] for pair in unit) for unit in dealt]
    below = [sum(pair[1] for pair in unit) for unit in dealt]
    values = [
        sum(map(mul, weights, above)) / sum(map(mul, weights, below))
        for weights in _draws(len(dealt), chance)
    ]
    return Resampled(values, len(dealt))


def resampled_median(groups: Sequence[Sequence[float]], chance: random.Random) -> Resampled:
    """Resample the median of the values of all runs.

    Args:
        groups: The values of each run that has any.
        chance: Where chance comes from.
    """
    units = [sorted(value for group in dealt for value in group) for dealt in _dealt(groups)]
    sizes = [len(unit) for unit in units]
    pooled = sorted({value for unit in units for value in unit})
    seen: dict[int, list[int]] = {}

    def reached(place: int) -> list[int]:
        """Count the values of each unit up to one of the pooled ones."""
        if place not in seen:
            seen[place] = [bisect_right(unit, pooled[place]) for unit in units]
        return seen[place]

    values = []
    for weights in _draws(len(units), chance):
        half = sum(map(mul, weights, sizes)) / 2
        place = bisect_left(
            range(len(pooled)),
            half,
            key=lambda at, weights=weights: sum(map(mul, weights, reached(at))),  # type: ignore[misc]
        )
        values.append(pooled[place])
    return Resampled(values, len(units))


def _draws(units: int, chance: random.Random) -> Iterator[list[int]]:
    """Draw as many units as there are, with repeats, again and again; yield how often each was drawn."""
    for _ in range(RESAMPLES):
        weights = [0] * units
        for unit in chance.choices(range(units), k=units):
            weights[unit] += 1
        yield weights


def _dealt(items: Sequence[Item]) -> list[Sequence[Item]]:
    """Deal runs out to a bounded number of units, so that a hundred thousand of them take no hour."""
    return [items[first::_MAX_UNITS] for first in range(min(len(items), _MAX_UNITS))]


def _interval(values: Sequence[float], units: int) -> Interval:
    """Return the interval of resampled values, widened for few units (Hesterberg's expanded percentile)."""
    tail = NormalDist().cdf(-sqrt(units / (units - 1)) * _student(units - 1))
    ordered = sorted(values)
    low, high = quantile(ordered, tail), quantile(ordered, 1 - tail)
    if low is None or high is None:  # pragma: no cover - there always are RESAMPLES of them
        raise AssertionError(units)
    return Interval(low, high)


def _student(freedom: int) -> float:
    """Return Student's quantile for ``LEVEL``, from the normal one (Cornish and Fisher; good from 4 on)."""
    z = _Z
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return sum((term / float(freedom) ** power for power, term in enumerate(terms)), 0.0)
