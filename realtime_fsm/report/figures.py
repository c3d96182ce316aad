"""The figures of a report: of one implementation, or of one version of it, over all and over time."""

from collections import Counter
from collections.abc import Iterable, Mapping
from math import ceil, floor
from typing import Final, Self

from attrs import define, field, frozen

from realtime_fsm.machine.figures import quantile
from realtime_fsm.monitoring.records import Level, Measurements

DAY: Final = 24 * 3600.0
HOUR: Final = 3600.0
MINUTE: Final = 60.0
_STEPS: Final = ((MINUTE, 2 * HOUR), (HOUR, 3 * DAY))
_MOST: Final = 400
"""Buckets that a timeline may have; records with absurd times must not make millions."""


@frozen(kw_only=True)
class Availability:
    """Seconds in which a connection was wanted, by how well it was served."""

    live: float = 0.0
    degraded: float = 0.0
    down: float = 0.0

    @property
    def wanted(self) -> float:
        """Seconds in which a connection was wanted, altogether."""
        return self.live + self.degraded + self.down

    def share(self, level: Level) -> float | None:
        """Return the share of a level in the wanted time; ``None`` where there was none."""
        seconds: float = getattr(self, level.value)
        return seconds / self.wanted if self.wanted > 0 else None


@frozen(kw_only=True)
class Distribution:
    """The spread of durations; seconds, and ``None`` where there is none.

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
    """All figures of some runs.

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
        """Compute all figures of some runs."""
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


# The same over time: hour by hour, or day by day.


@frozen(kw_only=True)
class Bucket:
    """The figures of one hour or day.

    Attributes:
        begin: Unix time.
        availability: Seconds by level; all zero where nothing is known.
        outages: That began in it.
        attempts: Dials that ended in it.
        failures: Those of them that failed.
    """

    begin: float
    availability: Availability
    outages: int
    attempts: int
    failures: int


@frozen(kw_only=True)
class Timeline:
    """The times that a report is about, cut into buckets.

    Attributes:
        begin: Unix time of the first record.
        end: Of the last one.
        step: Seconds of a bucket: a minute for two hours, an hour for three days, otherwise one day or more.
    """

    begin: float
    end: float
    step: float

    @classmethod
    def over(cls, found: Measurements) -> "Timeline | None":
        """Find the times that records are about; ``None`` where there are none."""
        times = list(_times(found))
        if not times:
            return None
        begin, end = min(times), max(times)
        step = next((step for step, longest in _STEPS if end - begin <= longest), DAY)
        while (end - begin) / step > _MOST - 2:
            step *= 2
        return cls(begin=begin, end=end, step=step)

    @property
    def unit(self) -> str:
        """The word for the length of a bucket: ``hour``, ``7 days``."""
        names = {MINUTE: "minute", HOUR: "hour", DAY: "day"}
        return names.get(self.step) or f"{self.step / DAY:.0f} days"

    @property
    def begins(self) -> tuple[float, ...]:
        """The begins of the buckets; the first one holds ``begin``, the last one ``end``."""
        first = floor(self.begin / self.step)
        last = max(first + 1, ceil(self.end / self.step))
        return tuple(number * self.step for number in range(first, last))

    def buckets(self, found: Measurements) -> tuple[Bucket, ...]:
        """Count what happened in each of them."""
        begins = self.begins
        cells = [_Cell() for _ in begins]
        last = len(begins) - 1

        def place(at: float) -> int:
            return min(last, max(0, floor((at - begins[0]) / self.step)))

        for span in found.spans:
            for number in range(place(span.begin), place(span.end) + 1):
                begin = begins[number]
                seconds = min(span.end, begin + self.step) - max(span.begin, begin)
                cells[number].seconds[span.level] += max(0.0, seconds)
        for outage in found.outages:
            if outage.began_at >= found.since:
                cells[place(outage.began_at)].outages += 1
        for attempt in found.attempts:
            cell = cells[place(attempt.at)]
            cell.attempts += 1
            cell.failures += attempt.cause is not None
        return tuple(cell.bucket(begin) for cell, begin in zip(cells, begins, strict=True))


@define
class _Cell:
    """A bucket that is being filled."""

    seconds: dict[Level, float] = field(factory=lambda: dict.fromkeys(Level, 0.0))
    outages: int = 0
    attempts: int = 0
    failures: int = 0

    def bucket(self, begin: float) -> Bucket:
        """Return the bucket, now that it is filled."""
        return Bucket(
            begin=begin,
            availability=Availability(
                live=self.seconds[Level.LIVE],
                degraded=self.seconds[Level.DEGRADED],
                down=self.seconds[Level.DOWN],
            ),
            outages=self.outages,
            attempts=self.attempts,
            failures=self.failures,
        )


def _times(found: Measurements) -> Iterable[float]:
    for span in found.spans:
        yield span.begin
        yield span.end
    for attempt in found.attempts:
        yield attempt.at
    for outage in found.outages:
        yield max(outage.began_at, found.since)
    for sample in found.latencies:
        yield sample.at
