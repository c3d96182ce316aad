"""The comparison of two implementations: which is better in what, as far as it can be told."""

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import Any, Final, Protocol

from attrs import evolve, frozen

from realtime_fsm.machine.figures import quantile, scale_of
from realtime_fsm.monitoring.records import Level, Measurements
from realtime_fsm.report import words
from realtime_fsm.report.figures import DAY, recoveries
from realtime_fsm.report.statistics import (
    MIN_RUNS,
    MIN_TRIALS,
    SEED,
    Interval,
    Rate,
    resampled_median,
    resampled_ratio,
)


class ComparisonVerdict(StrEnum):
    """The verdicts that a comparison can give on the candidate."""

    BETTER = "better"
    WORSE = "worse"
    UNDECIDED = "undecided"
    """There are enough samples, and they do not tell a difference."""
    TOO_FEW = "too_few"


@frozen(kw_only=True)
class Side:
    """One of two that are compared.

    Attributes:
        implementation: Its name.
        samples: How many runs, or attempts, the figure was made from.
        value: The figure; ``None`` where there is nothing to make it from.
        interval: Of the figure; ``None`` where there are too few samples.
    """

    implementation: str
    samples: int
    value: float | None
    interval: Interval | None


@frozen(kw_only=True)
class Comparison:
    """One figure of two implementations, and the verdict on it.

    Attributes:
        figure: ``availability``, ``outages``, ``recovery``, ``failures`` or ``latency``.
        unit: Of the values: ``share``, ``per day`` or ``seconds``.
        baseline: What is compared with.
        candidate: What is compared.
        difference: The candidate's value less the baseline's; ``None`` where one has none.
        interval: Of the difference; ``None`` where there are too few samples.
        verdict: What that says of the candidate.
        sentence: The same for people.
    """

    figure: str
    unit: str
    baseline: Side
    candidate: Side
    difference: float | None
    interval: Interval | None
    verdict: ComparisonVerdict
    sentence: str


class Estimate(Protocol):
    """An estimate that knows how far a figure can be trusted: a ``Rate``, or a resampled one."""

    @property
    def interval(self) -> Interval:
        """The interval of the figure."""

    def minus(self, other: Any, /) -> Interval:
        """Return the interval of the difference to another one of its kind."""


@frozen(kw_only=True)
class Measured:
    """A figure of one side; ``estimate`` is ``None`` where there are too few samples."""

    count: int
    value: float | None
    estimate: Estimate | None


@frozen(kw_only=True)
class _Figure:
    """A figure that is compared, and the words for it."""

    name: str
    unit: str
    title: str
    better: str
    worse: str
    samples: str
    enough: int
    lower_is_better: bool
    measure: Callable[[Measurements, random.Random], Measured]


def compare(
    baseline: Measurements, candidate: Measurements, names: tuple[str, str]
) -> tuple[Comparison, ...]:
    """Compare two implementations in every figure.

    Args:
        baseline: What is compared with.
        candidate: What is compared.
        names: Of both.
    """
    return tuple(_compared(figure, baseline, candidate, names) for figure in _FIGURES)


def _compared(
    figure: _Figure, baseline: Measurements, candidate: Measurements, names: tuple[str, str]
) -> Comparison:
    chance = random.Random(SEED)  # noqa: S311 - the same report each time
    old, new = figure.measure(baseline, chance), figure.measure(candidate, chance)
    interval = None
    if old.estimate is not None and new.estimate is not None:
        interval = new.estimate.minus(old.estimate)
    comparison = Comparison(
        figure=figure.name,
        unit=figure.unit,
        baseline=_side(names[0], old),
        candidate=_side(names[1], new),
        difference=None if old.value is None or new.value is None else new.value - old.value,
        interval=interval,
        verdict=_verdict(interval, lower_is_better=figure.lower_is_better),
        sentence="",
    )
    return evolve(comparison, sentence=_sentence(figure, comparison))


def _side(implementation: str, sample: Measured) -> Side:
    return Side(
        implementation=implementation,
        samples=sample.count,
        value=sample.value,
        interval=None if sample.estimate is None else sample.estimate.interval,
    )


def _verdict(interval: Interval | None, *, lower_is_better: bool) -> ComparisonVerdict:
    if interval is None:
        return ComparisonVerdict.TOO_FEW
    if not interval.excludes_zero:
        return ComparisonVerdict.UNDECIDED
    return ComparisonVerdict.BETTER if (interval.high < 0) is lower_is_better else ComparisonVerdict.WORSE


# In words.


def said(value: float | None, unit: str) -> str:
    """Write a value of a comparison."""
    if value is None:
        return "nothing"
    if unit == "share":
        return words.percent(value)
    return words.duration(value) if unit == "seconds" else f"{words.number(value)} a day"


def said_difference(comparison: Comparison) -> str:
    """Write the difference and its interval; empty where there is none that can be told."""
    value, interval = comparison.difference, comparison.interval
    if value is None or interval is None:
        return ""
    factor, unit = 1.0, "a day"
    if comparison.unit == "share":
        factor, unit = 100.0, "points"
    elif comparison.unit == "seconds":
        factor, unit = scale_of(max(abs(interval.low), abs(interval.high)))
    scaled = Interval(interval.low * factor, interval.high * factor)
    return words.difference(value * factor, scaled, unit)


def _sentence(figure: _Figure, comparison: Comparison) -> str:
    old, new = comparison.baseline, comparison.candidate
    before, after = said(old.value, figure.unit), said(new.value, figure.unit)
    if comparison.verdict is ComparisonVerdict.TOO_FEW:
        return (
            f"Too few {figure.samples} to compare the {figure.title}: {new.implementation} has "
            f"{new.samples}, {old.implementation} {old.samples}, and each needs {figure.enough}."
        )
    told = f"difference {said_difference(comparison)}."
    if comparison.verdict is ComparisonVerdict.UNDECIDED:
        return (
            f"No difference in the {figure.title} can be told: {new.implementation} {after}, "
            f"{old.implementation} {before}, {told}"
        )
    does = figure.better if comparison.verdict is ComparisonVerdict.BETTER else figure.worse
    return f"{new.implementation} {does}: {after} against {before}, {told}"


# The figures. Each is made from runs, because records of one run are alike.


def _availability(found: Measurements, chance: random.Random) -> Measured:
    """Return the live by the wanted time, resampled by runs."""
    return _ratio([(live, wanted) for live, wanted in _served(found).values() if wanted > 0], chance)


def _outages(found: Measurements, chance: random.Random) -> Measured:
    """Return the outages by day of wanted time, resampled by runs."""
    counts = defaultdict[int, int](int)
    for outage in found.outages:
        counts[outage.run] += 1
    pairs = [(counts[run], wanted / DAY) for run, (_, wanted) in _served(found).items() if wanted > 0]
    return _ratio(pairs, chance)


def _recovery(found: Measurements, chance: random.Random) -> Measured:
    """Return the median time to recover of outages that ended in a live socket, resampled by runs."""
    return _median(recoveries(found), chance)


def _latency(found: Measurements, chance: random.Random) -> Measured:
    """Return the median round trip, resampled by runs."""
    return _median(((sample.run, sample.seconds) for sample in found.latencies), chance)


def _failures(found: Measurements, _: random.Random) -> Measured:
    """Return the failed by all attempts."""
    by_run = defaultdict[int, list[bool]](list)
    for attempt in found.attempts:
        by_run[attempt.run].append(attempt.cause is not None)
    if not by_run:
        return Measured(count=0, value=None, estimate=None)
    rate = Rate([(sum(failed), len(failed)) for failed in by_run.values()])
    return Measured(count=rate.trials, value=rate.value, estimate=rate if rate.trials >= MIN_TRIALS else None)


def _served(found: Measurements) -> dict[int, tuple[float, float]]:
    """Return the live and the wanted seconds of each run."""
    live = defaultdict[int, float](float)
    wanted = dict.fromkeys((run.number for run in found.runs), 0.0)
    for span in found.spans:
        if span.level is not Level.OFF:
            wanted[span.run] += span.end - span.begin
        if span.level is Level.LIVE:
            live[span.run] += span.end - span.begin
    return {run: (live[run], seconds) for run, seconds in wanted.items()}


def _ratio(pairs: Sequence[tuple[float, float]], chance: random.Random) -> Measured:
    total = sum(below for _, below in pairs)
    return Measured(
        count=len(pairs),
        value=sum(above for above, _ in pairs) / total if total else None,
        estimate=resampled_ratio(pairs, chance) if len(pairs) >= MIN_RUNS else None,
    )


def _median(values: Iterable[tuple[int, float]], chance: random.Random) -> Measured:
    by_run = defaultdict[int, list[float]](list)
    for run, value in values:
        by_run[run].append(value)
    groups = list(by_run.values())
    return Measured(
        count=len(groups),
        value=quantile(sorted(value for group in groups for value in group), 0.5),
        estimate=resampled_median(groups, chance) if len(groups) >= MIN_RUNS else None,
    )


_FIGURES: Final = (
    _Figure(
        name="availability",
        unit="share",
        title="availability",
        better="is available more",
        worse="is available less",
        samples="runs",
        enough=MIN_RUNS,
        lower_is_better=False,
        measure=_availability,
    ),
    _Figure(
        name="outages",
        unit="per day",
        title="number of outages",
        better="has fewer outages",
        worse="has more outages",
        samples="runs",
        enough=MIN_RUNS,
        lower_is_better=True,
        measure=_outages,
    ),
    _Figure(
        name="recovery",
        unit="seconds",
        title="median time to recover",
        better="recovers faster (median)",
        worse="recovers more slowly (median)",
        samples="runs with an outage that they got over",
        enough=MIN_RUNS,
        lower_is_better=True,
        measure=_recovery,
    ),
    _Figure(
        name="failures",
        unit="share",
        title="failure rate",
        better="fails less",
        worse="fails more",
        samples="attempts",
        enough=MIN_TRIALS,
        lower_is_better=True,
        measure=_failures,
    ),
    _Figure(
        name="latency",
        unit="seconds",
        title="median latency",
        better="answers faster (median)",
        worse="answers more slowly (median)",
        samples="runs with round trips",
        enough=MIN_RUNS,
        lower_is_better=True,
        measure=_latency,
    ),
)
