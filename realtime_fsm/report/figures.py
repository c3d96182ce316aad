"""The figures of a report: of one implementation, or of one version of it."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Protocol, Self

from attrs import frozen

from realtime_fsm.machine.figures import quantile
from realtime_fsm.monitoring.records import Level, Measurements
from realtime_fsm.report.statistics import (
    MIN_RUNS,
    MIN_TRIALS,
    Interval,
    Rate,
    resampled_median,
    resampled_ratio,
)

DAY: Final = 24 * 3600.0


@frozen(kw_only=True)
class Availability:
    """Seconds in which a connection was wanted, by how well it was served."""

    live: float = 0.0
    degraded: float = 0.0
    down: float = 0.0

    @property
    def wanted(self) -> float:
        """All of them."""
        return self.live + self.degraded + self.down

    def share(self, level: Level) -> float | None:
        """Return the share of a level in the wanted time; ``None`` where there was none."""
        seconds: float = getattr(self, level.value)
        return seconds / self.wanted if self.wanted > 0 else None


@frozen(kw_only=True)
class Distribution:
    """How durations are spread; seconds, and ``None`` where there is none.

    Attributes:
        count: How many there are.
        p50: The median; like the next two the smallest that so many percent do not exceed.
        p95: The 95th percentile.
        p99: The 99th percentile.
        maximum: The longest.
    """

    count: int
    p50: float | None
    p95: float | None
    p99: float | None
    maximum: float | None

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Self:
        """Make it from all of them, in any order."""
        ordered = sorted(seconds)
        p50, p95, p99, maximum = (quantile(ordered, share) for share in (0.5, 0.95, 0.99, 1.0))
        return cls(count=len(ordered), p50=p50, p95=p95, p99=p99, maximum=maximum)


@frozen(kw_only=True)
class Outages:
    """Times without a live socket.

    Attributes:
        count: How many there were.
        recovered: That ended in a live socket.
        abandoned: That ended because nobody wanted one any more.
        unfinished: That had not ended when their run was last seen.
        seconds: All of them together; unfinished ones until their run was last seen.
        longest: The longest, seconds.
        per_day: By day of wanted time; ``None`` where there was none.
        causes: How many began by what, the most frequent first.
    """

    count: int
    recovered: int
    abandoned: int
    unfinished: int
    seconds: float
    longest: float
    per_day: float | None
    causes: Mapping[str, int]


@frozen(kw_only=True)
class Attempts:
    """Dials; ``causes`` says how many failed by what, the most frequent first."""

    count: int
    failures: int
    causes: Mapping[str, int]

    @property
    def failure_rate(self) -> float | None:
        """Failures by attempts; ``None`` where there was none."""
        return self.failures / self.count if self.count else None


@frozen(kw_only=True)
class Figures:
    """What a report says of some runs.

    Attributes:
        runs: How many.
        instances: Their different instances.
        versions: Their different versions.
        availability: Seconds by level.
        recovery: How long it took until outages were over, of those that were.
        outages: Times without a live socket.
        attempts: Dials.
        latency: Round trips.
    """

    runs: int
    instances: tuple[str, ...]
    versions: tuple[str, ...]
    availability: Availability
    recovery: Distribution
    outages: Outages
    attempts: Attempts
    latency: Distribution

    @classmethod
    def of(cls, found: Measurements) -> Self:
        """Compute them."""
        availability = _availability(found)
        failures = [attempt.cause for attempt in found.attempts if attempt.cause is not None]
        return cls(
            runs=len(found.runs),
            instances=tuple(sorted({run.instance for run in found.runs})),
            versions=tuple(sorted({run.version for run in found.runs})),
            availability=availability,
            recovery=Distribution.of(seconds for _, seconds in recoveries(found)),
            outages=_outages(found, availability.wanted),
            attempts=Attempts(count=len(found.attempts), failures=len(failures), causes=_ranked(failures)),
            latency=Distribution.of(sample.seconds for sample in found.latencies),
        )


def recoveries(found: Measurements) -> list[tuple[int, float]]:
    """Return the run and the seconds of each outage that ended in a live socket."""
    return [
        (outage.run, max(0.0, outage.ended_at - outage.began_at))  # clocks are set back
        for outage in found.outages
        if outage.recovered and outage.ended_at is not None
    ]


def _availability(found: Measurements) -> Availability:
    seconds = dict.fromkeys(Level, 0.0)
    for span in found.spans:
        seconds[span.level] += span.end - span.begin
    return Availability(live=seconds[Level.LIVE], degraded=seconds[Level.DEGRADED], down=seconds[Level.DOWN])


def _outages(found: Measurements, wanted: float) -> Outages:
    seen_at = {run.number: run.seen_at for run in found.runs}
    lengths = [
        max(0.0, (seen_at[one.run] if one.ended_at is None else one.ended_at) - one.began_at)
        for one in found.outages
    ]
    recovered = len(recoveries(found))
    unfinished = sum(one.ended_at is None for one in found.outages)
    return Outages(
        count=len(lengths),
        recovered=recovered,
        abandoned=len(lengths) - recovered - unfinished,
        unfinished=unfinished,
        seconds=sum(lengths),
        longest=max(lengths, default=0.0),
        per_day=len(lengths) / (wanted / DAY) if wanted > 0 else None,
        causes=_ranked(one.cause for one in found.outages),
    )


def _ranked(words: Iterable[str]) -> Mapping[str, int]:
    """Count words; the most frequent first, and those that are as frequent in the order of their letters."""
    return dict(sorted(Counter(words).items(), key=lambda pair: (-pair[1], pair[0])))


# What a comparison measures. Each figure is made from runs, because records of one run are alike.


class Estimate(Protocol):
    """What knows how far a figure can be trusted: a ``Rate``, or what was resampled."""

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


def availability(found: Measurements, chance: random.Random) -> Measured:
    """Return the live by the wanted time, resampled by runs."""
    return _ratio([(live, wanted) for live, wanted in _served(found).values() if wanted > 0], chance)


def outages(found: Measurements, chance: random.Random) -> Measured:
    """Return the outages by day of wanted time, resampled by runs."""
    counts = defaultdict[int, int](int)
    for outage in found.outages:
        counts[outage.run] += 1
    pairs = [(counts[run], wanted / DAY) for run, (_, wanted) in _served(found).items() if wanted > 0]
    return _ratio(pairs, chance)


def recovery(found: Measurements, chance: random.Random) -> Measured:
    """Return the median time to recover of outages that ended in a live socket, resampled by runs."""
    return _median(recoveries(found), chance)


def latency(found: Measurements, chance: random.Random) -> Measured:
    """Return the median round trip, resampled by runs."""
    return _median(((sample.run, sample.seconds) for sample in found.latencies), chance)


def failures(found: Measurements, _: random.Random) -> Measured:
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
