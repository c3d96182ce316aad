"""The intervals of a report: they hold the truth as often as they say, and are no wider than they must be."""

import random
from collections.abc import Callable
from math import log

import pytest

from realtime_fsm.report import statistics as confidence
from realtime_fsm.report.statistics import (
    Interval,
    Rate,
    quantile,
    resampled_median,
    resampled_ratio,
)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resample less often than for people."""
    monkeypatch.setattr(confidence, "RESAMPLES", 200)


def hits(truth: float, interval: Callable[[], Interval], repeats: int = 300) -> float:
    """Return in which share of repeats an interval holds the truth."""
    found = [interval() for _ in range(repeats)]
    return sum(one.low <= truth <= one.high for one in found) / repeats


@pytest.mark.parametrize(
    ("share", "expected"), [(0.5, 10.0), (0.95, 19.0), (0.99, 20.0), (1.0, 20.0), (0.01, 1.0), (0.05, 1.0)]
)
def test_quantile_is_the_least_value_that_enough_do_not_exceed(share: float, expected: float) -> None:
    """Of 1 to 20 the median is 10 and the 95th percentile 19: the same as the live metrics say."""
    assert quantile([float(number) for number in range(1, 21)], share) == expected


def test_quantile_of_nothing_is_nothing() -> None:
    """Without values there is no quantile, and of one value it is that one."""
    assert quantile([], 0.5) is None
    assert quantile([3.0], 0.01) == quantile([3.0], 1.0) == 3.0


def test_rate_has_the_interval_of_the_books() -> None:
    """Wilson's interval of 10 in 100, and of none in 20, are those that tables give."""
    interval = Rate([(10, 100)]).interval
    assert (interval.low, interval.high) == pytest.approx((0.05523, 0.17437), abs=1e-5)
    assert Rate([(0, 20)]).interval.low == 0.0
    assert Rate([(0, 20)]).interval.high == pytest.approx(0.16113, abs=1e-5)
    assert Rate([(20, 20)]).interval.high == 1.0


def test_rates_differ_as_newcombe_has_it() -> None:
    """The difference of 56/70 and 48/80 has the interval of Newcombe's own example (1998, method 10)."""
    interval = Rate([(56, 70)]).minus(Rate([(48, 80)]))
    assert (interval.low, interval.high) == pytest.approx((0.0524, 0.3339), abs=1e-4)
    swapped = Rate([(48, 80)]).minus(Rate([(56, 70)]))
    assert (swapped.low, swapped.high) == pytest.approx((-interval.high, -interval.low))


def test_rate_counts_trials_of_a_run_as_alike_as_they_are() -> None:
    """Runs that all fail or all succeed count as one trial each or so; runs that are equal count in full."""
    assert Rate([(50, 50), (0, 50)] * 10).effective_trials == pytest.approx(19.0)
    assert Rate([(5, 50)] * 20).effective_trials == 1000


def test_difference_of_rates_holds_the_truth_where_runs_are_unequal() -> None:
    """Where runs differ in their rates the interval still holds the truth; counting each trial would not."""
    chance = random.Random(1)  # noqa: S311

    def rate(mean: float) -> Rate:
        pairs = []
        for _ in range(20):
            own = chance.betavariate(mean * 5, (1 - mean) * 5)
            pairs.append((sum(chance.random() < own for _ in range(50)), 50))
        return Rate(pairs)

    def pooled(rate: Rate) -> Rate:
        return Rate([(sum(failures for failures, _ in rate.pairs), rate.trials)])

    assert hits(0.1, lambda: rate(0.2).minus(rate(0.1))) > 0.90
    assert hits(0.1, lambda: pooled(rate(0.2)).minus(pooled(rate(0.1)))) < 0.70


@pytest.mark.parametrize(("runs", "values"), [(8, 1), (8, 5), (25, 3)])
def test_median_and_differences_of_medians_hold_the_truth(runs: int, values: int) -> None:
    """Of exponential times with a known median intervals hold it about 95 times in 100, even with 8 runs."""
    chance = random.Random(2)  # noqa: S311

    def groups(mean: float) -> list[list[float]]:
        return [[chance.expovariate(1 / mean) for _ in range(values)] for _ in range(runs)]

    assert hits(log(2), lambda: resampled_median(groups(1), chance).interval) > 0.90
    difference = hits(
        log(2), lambda: resampled_median(groups(2), chance).minus(resampled_median(groups(1), chance))
    )
    assert difference > 0.92


def test_ratio_and_differences_of_ratios_hold_the_truth() -> None:
    """Of runs of unequal length with a known availability the intervals hold it about 95 times in 100."""
    chance = random.Random(3)  # noqa: S311

    def pairs(down: float) -> list[tuple[float, float]]:
        lengths = [chance.uniform(50, 150) for _ in range(20)]
        return [(length * (1 - chance.uniform(0, 2 * down)), length) for length in lengths]

    assert hits(0.95, lambda: resampled_ratio(pairs(0.05), chance).interval) > 0.90
    difference = hits(
        0.03, lambda: resampled_ratio(pairs(0.02), chance).minus(resampled_ratio(pairs(0.05), chance))
    )
    assert 0.90 < difference < 1.0


def test_intervals_shrink_with_the_runs() -> None:
    """Sixteen times as many runs make the interval about four times narrower: it is no mere guess."""
    chance = random.Random(4)  # noqa: S311

    def width(runs: int) -> float:
        interval = resampled_ratio([(chance.random(), 1.0) for _ in range(runs)], chance).interval
        return interval.high - interval.low

    assert 3 < width(50) / width(800) < 5.5


def test_many_runs_and_values_are_dealt_out_without_changing_the_answer() -> None:
    """Beyond the bounds on runs and values the interval is that of the theory: bounded work, same answer."""
    chance = random.Random(5)  # noqa: S311
    groups = [[chance.expovariate(1) for _ in range(10)] for _ in range(3000)]
    interval = resampled_median(groups, chance).interval
    # The standard error of the median of 30,000 exponential times is 1 / sqrt(30,000).
    assert interval.high - interval.low == pytest.approx(2 * 1.96 / 30_000**0.5, rel=0.35)
    assert interval.low < log(2) < interval.high


@pytest.mark.parametrize(("freedom", "expected"), [(7, 2.3646), (10, 2.2281), (30, 2.0423)])
def test_quantiles_of_student_are_those_of_the_books(freedom: int, expected: float) -> None:
    """What intervals of few runs are widened by agrees with the tables."""
    assert confidence._student(freedom) == pytest.approx(expected, abs=2e-4)
