"""What a comparison measures. Each figure is made from runs, because records of one run are alike."""

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from attrs import frozen

from realtime_fsm.monitoring.confidence import (
    MIN_RUNS,
    MIN_TRIALS,
    Interval,
    Rate,
    quantile,
    resampled_median,
    resampled_ratio,
)
from realtime_fsm.monitoring.report_data import Level, Measurements
from realtime_fsm.monitoring.report_figures import DAY, recoveries


class Estimate(Protocol):
    """What knows how far a figure can be trusted: a ``Rate``, or what was resampled."""

    @property
    def interval(self) -> Interval:
        """The interval of the figure."""

    def minus(self, other: Any, /) -> Interval:
        """Return the interval of the difference to another one of its kind."""


@frozen(kw_only=True)
class Sample:
    """A figure of one side; ``estimate`` is ``None`` where there are too few samples."""

    count: int
    value: float | None
    estimate: Estimate | None


def availability(found: Measurements, chance: random.Random) -> Sample:
    """Return the live by the wanted time, resampled by runs."""
    return _ratio([(live, wanted) for live, wanted in _served(found).values() if wanted > 0], chance)


def outages(found: Measurements, chance: random.Random) -> Sample:
    """Return the outages by day of wanted time, resampled by runs."""
    counts = defaultdict[int, int](int)
    for outage in found.outages:
        counts[outage.run] += 1
    pairs = [(counts[run], wanted / DAY) for run, (_, wanted) in _served(found).items() if wanted > 0]
    return _ratio(pairs, chance)


def recovery(found: Measurements, chance: random.Random) -> Sample:
    """Return the median time to recover of outages that ended in a live socket, resampled by runs."""
    return _median(recoveries(found), chance)


def latency(found: Measurements, chance: random.Random) -> Sample:
    """Return the median round trip, resampled by runs."""
    return _median(((sample.run, sample.seconds) for sample in found.latencies), chance)


def failures(found: Measurements, _: random.Random) -> Sample:
    """Return the failed by all attempts."""
    by_run = defaultdict[int, list[bool]](list)
    for attempt in found.attempts:
        by_run[attempt.run].append(attempt.cause is not None)
    if not by_run:
        return Sample(count=0, value=None, estimate=None)
    rate = Rate([(sum(failed), len(failed)) for failed in by_run.values()])
    return Sample(count=rate.trials, value=rate.value, estimate=rate if rate.trials >= MIN_TRIALS else None)


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


def _ratio(pairs: Sequence[tuple[float, float]], chance: random.Random) -> Sample:
    total = sum(below for _, below in pairs)
    return Sample(
        count=len(pairs),
        value=sum(above for above, _ in pairs) / total if total else None,
        estimate=resampled_ratio(pairs, chance) if len(pairs) >= MIN_RUNS else None,
    )


def _median(values: Iterable[tuple[int, float]], chance: random.Random) -> Sample:
    by_run = defaultdict[int, list[float]](list)
    for run, value in values:
        by_run[run].append(value)
    groups = list(by_run.values())
    return Sample(
        count=len(groups),
        value=quantile(sorted(value for group in groups for value in group), 0.5),
        estimate=resampled_median(groups, chance) if len(groups) >= MIN_RUNS else None,
    )
