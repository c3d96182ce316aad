"""When the new client is rolled back, and what a shadow run counts: both pure (SPEC G2, G3)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime_fsm.machine.errors import ConfigurationError
from realtime_fsm.monitoring.records import Attempt, Measurements, OutageRecord, Run
from realtime_fsm.rollout.rule import FailureRate, RollbackLimits, RollbackRule, judge, rates
from realtime_fsm.rollout.shadow import EventComparison

LIMITS = RollbackLimits(threshold=0.1, min_samples=10, window=60.0)


@pytest.mark.parametrize(
    ("new", "legacy", "rolls_back"),
    [
        (FailureRate(10, 5), FailureRate(10, 0), True),
        (FailureRate(10, 1), FailureRate(10, 0), False),  # exactly the threshold is not more than it
        (FailureRate(10, 2), FailureRate(10, 0), True),
        (FailureRate(9, 9), FailureRate(10, 0), False),
        (FailureRate(10, 10), FailureRate(9, 0), False),
        (FailureRate(0, 0), FailureRate(0, 0), False),
        (FailureRate(100, 50), FailureRate(100, 45), False),
        (FailureRate(100, 0), FailureRate(100, 100), False),
    ],
)
def test_new_one_is_rolled_back_by_threshold_and_samples(
    new: FailureRate, legacy: FailureRate, rolls_back: bool
) -> None:
    """Only by more than the threshold, and only with enough samples of both (SPEC G3)."""
    verdict = judge(LIMITS, new=new, legacy=legacy)
    assert verdict.roll_back is rolls_back
    assert verdict.reason


def test_baseline_stands_in_for_the_old_one() -> None:
    """With a baseline the old one needs no samples; with enough of them it is not looked at."""
    limits = RollbackLimits(threshold=0.1, min_samples=10, baseline=0.05)
    assert judge(limits, new=FailureRate(10, 2), legacy=FailureRate(0, 0)).roll_back
    assert not judge(limits, new=FailureRate(10, 2), legacy=FailureRate(10, 2)).roll_back


def test_only_what_is_in_the_window_counts() -> None:
    """A failure counts for as long as the window lasts, and not longer."""
    rule = RollbackRule(LIMITS)
    for at in range(10):
        rule.add("new", failed=True, at=float(at))
        rule.add("legacy", failed=False, at=float(at))
    assert rule.decide(9.0).roll_back
    assert rule.decide(60.0).roll_back
    assert not rule.decide(61.0).roll_back
    assert rule.rate("new", 69.5) == FailureRate(0, 0)


def test_forgotten_samples_do_not_count() -> None:
    """After a release it is counted anew."""
    rule = RollbackRule(LIMITS)
    for _ in range(10):
        rule.add("new", failed=True, at=0.0)
        rule.add("legacy", failed=False, at=0.0)
    rule.forget()
    assert not rule.decide(0.0).roll_back


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50), st.integers(0, 50))
def test_more_failures_of_the_new_one_never_speak_for_it(
    good: int, bad: int, legacy_good: int, legacy_bad: int
) -> None:
    """If it is rolled back, it would be with one more failure as well."""
    legacy = FailureRate(legacy_good + legacy_bad, legacy_bad)
    before = judge(LIMITS, new=FailureRate(good + bad, bad), legacy=legacy)
    after = judge(LIMITS, new=FailureRate(good + bad + 1, bad + 1), legacy=legacy)
    assert after.roll_back or not before.roll_back


@pytest.mark.parametrize(
    "wrong", [{"threshold": 1.0}, {"threshold": -0.1}, {"min_samples": 0}, {"window": 0.0}, {"baseline": 2.0}]
)
def test_wrong_limits_are_refused(wrong: dict[str, float]) -> None:
    """Limits that are wrong name the field."""
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        RollbackLimits(**wrong)  # type: ignore[arg-type]


def test_rates_of_a_database_count_dials_and_outages_of_each() -> None:
    """Dials and outages within the time count for the implementation of their run."""
    runs = tuple(
        Run(number=n, implementation=name, version="", instance="", began_at=0.0, seen_at=9.0)
        for n, name in ((1, "new"), (2, "legacy"), (3, "new"))
    )
    dials = ((1, 5.0, None), (3, 6.0, "ServerUnreachableError"), (2, 6.0, None), (1, 1.0, "TooOldError"))
    measured = Measurements(
        since=0.0,
        runs=runs,
        spans=(),
        attempts=tuple(Attempt(run=run, at=at, duration=0.1, cause=cause) for run, at, cause in dials),
        outages=(
            OutageRecord(run=3, began_at=7.0, ended_at=None, cause="x", recovered=False),
            OutageRecord(run=2, began_at=1.0, ended_at=8.0, cause="x", recovered=True),
        ),
        latencies=(),
    )
    assert rates(measured, since=2.0) == (FailureRate(3, 2), FailureRate(1, 0))


# The comparison of a shadow run.


def test_equal_events_cancel_each_other_out() -> None:
    """In whatever order and however often: what both see equally often is no difference."""
    comparison = EventComparison(within=1.0)
    comparison.begin()
    for number in (1, 2, 2):
        comparison.seen("legacy", "tick", [{"n": number, "m": 0}], 0.0)
    for number in (2, 1, 2):
        comparison.seen("new", "tick", [{"m": 0, "n": number}], 0.5)
    comparison.expire(100.0)
    assert comparison.differences.to_json() == {"matched": 3, "late": 0, "only_legacy": 0, "only_new": 0}


def test_event_that_one_side_misses_is_counted_after_the_time() -> None:
    """What the other does not see in time is a difference; that it comes late is one of another kind."""
    comparison = EventComparison(within=1.0)
    comparison.begin()
    comparison.seen("legacy", "tick", [1], 0.0)
    comparison.seen("new", "tick", [b"2"], 0.0)
    comparison.expire(1.0)
    assert comparison.differences.only_legacy == 0
    comparison.expire(1.1)
    assert (comparison.differences.only_legacy, comparison.differences.only_new) == (1, 1)
    comparison.seen("new", "tick", [1], 5.0)
    comparison.expire(100.0)
    assert comparison.differences.to_json() == {"matched": 0, "late": 1, "only_legacy": 0, "only_new": 1}


def test_what_came_before_the_begin_is_no_difference() -> None:
    """Events that the old one saw before both were listening match, but do not count when they do not."""
    comparison = EventComparison(within=1.0)
    comparison.seen("legacy", "tick", [1], 0.0)
    comparison.seen("legacy", "tick", [2], 0.0)
    comparison.begin()
    comparison.seen("new", "tick", [2], 0.1)
    comparison.expire(100.0)
    assert comparison.differences.to_json() == {"matched": 1, "late": 0, "only_legacy": 0, "only_new": 0}


@given(st.lists(st.tuples(st.sampled_from(["legacy", "new"]), st.integers(0, 3)), max_size=60))
def test_comparison_counts_every_event_once(seen: list[tuple[str, int]]) -> None:
    """Of each side the events are matched, or counted as unseen: none twice, none forgotten."""
    comparison = EventComparison(within=1.0)
    comparison.begin()
    for side, number in seen:
        comparison.seen(side, "tick", [number], 0.0)
    comparison.expire(10.0)
    differences = comparison.differences
    assert differences.matched + differences.only_legacy == sum(side == "legacy" for side, _ in seen)
    assert differences.matched + differences.only_new == sum(side == "new" for side, _ in seen)
