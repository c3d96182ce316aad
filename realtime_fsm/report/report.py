"""The report on a metrics database: availability, outages, failures and latency, per implementation."""

from collections.abc import Iterable
from datetime import UTC, datetime
from math import ceil, floor
from typing import Any, Final

from attrs import asdict, define, field, frozen

from realtime_fsm.machine.errors import InvalidArgumentError, MetricsStorageError
from realtime_fsm.monitoring.records import Level, Measurements
from realtime_fsm.report.comparison import Comparison, Side, compare
from realtime_fsm.report.figures import DAY, Availability, Distribution, Figures
from realtime_fsm.report.statistics import LEVEL, Interval

# The timeline of a report: the same figures, hour by hour or day by day.

HOUR: Final = 3600.0
MINUTE: Final = 60.0
_STEPS: Final = ((MINUTE, 2 * HOUR), (HOUR, 3 * DAY))
_MOST: Final = 400
"""Buckets that a timeline may have; records with absurd times must not make millions."""


@frozen(kw_only=True)
class Bucket:
    """What happened in one hour or day.

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
    """What times a report is about, and how they are cut.

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
        """What a bucket is called."""
        names = {MINUTE: "minute", HOUR: "hour", DAY: "day"}
        return names.get(self.step) or f"{self.step / DAY:.0f} days"

    @property
    def begins(self) -> tuple[float, ...]:
        """When the buckets begin; the first one holds ``begin``, the last one ``end``."""
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
        """Return it, filled."""
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


SCHEMA: Final = 1
"""Version of the JSON form; it changes when a field changes its meaning or goes."""


@frozen(kw_only=True)
class Section:
    """What is said of one implementation.

    Attributes:
        implementation: Its name.
        figures: Of all its runs.
        by_version: Of each version, where there are several.
        buckets: The same over time, cut as the report's timeline is.
        measurements: What all of it was made from.
    """

    implementation: str
    figures: Figures
    by_version: tuple[tuple[str, Figures], ...]
    buckets: tuple[Bucket, ...]
    measurements: Measurements


@frozen(kw_only=True)
class MetricsReport:
    """Everything that is said.

    Attributes:
        source: Name of the file.
        since: Unix time from which on records count; ``None`` for all.
        timeline: What times it is about.
        sections: One for each implementation, in the order of their names.
        comparison: One for each figure, where two implementations are compared; otherwise empty.
    """

    source: str
    since: float | None
    timeline: Timeline
    sections: tuple[Section, ...]
    comparison: tuple[Comparison, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as what ``json`` can write; times are ISO 8601 in UTC, durations are seconds."""
        comparison = None
        if self.comparison:
            comparison = {
                "baseline": self.comparison[0].baseline.implementation,
                "candidate": self.comparison[0].candidate.implementation,
                "confidence": LEVEL,
                "figures": [_comparison_json(one) for one in self.comparison],
            }
        return {
            "schema": SCHEMA,
            "file": self.source,
            "since": None if self.since is None else _iso(self.since),
            "begin": _iso(self.timeline.begin),
            "end": _iso(self.timeline.end),
            "bucket_seconds": self.timeline.step,
            "implementations": [_section_json(section) for section in self.sections],
            "comparison": comparison,
        }


def make_report(
    found: Measurements,
    *,
    source: str = "",
    since: float | None = None,
    compared: tuple[str, str] | None = None,
) -> MetricsReport:
    """Make a report.

    Args:
        found: What it is about.
        source: Name of the file.
        since: Unix time from which on records count, as people asked for it.
        compared: Names of the implementations to be compared, the established one first. Others are left out.

    Raises:
        MetricsStorageError: If there are no records.
        InvalidArgumentError: If both names are the same.
    """
    timeline = Timeline.over(found)
    if timeline is None:
        asked = "" if since is None else f" since {_iso(since)}"
        raise MetricsStorageError(
            f"There are no records in {source or 'the metrics database'}{asked}.",
            remedy="Ask for an earlier time." if since else "Let a `MetricsDatabase` write some.",
            retryable=False,
        )
    names = found.implementations if compared is None else _checked(compared, found, source)
    sections = tuple(_section(name, found.of(name), timeline) for name in names)
    comparison: tuple[Comparison, ...] = ()
    if compared is not None:
        comparison = compare(sections[0].measurements, sections[1].measurements, compared)
    return MetricsReport(
        source=source, since=since, timeline=timeline, sections=sections, comparison=comparison
    )


def _checked(compared: tuple[str, str], found: Measurements, source: str) -> tuple[str, str]:
    if compared[0] == compared[1]:
        raise InvalidArgumentError(
            f"{compared[0]} cannot be compared with itself.", remedy="Give the names of two implementations."
        )
    missing = [name for name in compared if name not in found.implementations]
    if missing:
        raise MetricsStorageError(
            f"There are no records of {' and '.join(missing)} in {source or 'the metrics database'}.",
            remedy=f"It has records of {', '.join(found.implementations)}.",
            retryable=False,
        )
    return compared


def _section(name: str, found: Measurements, timeline: Timeline) -> Section:
    figures = Figures.of(found)
    several = figures.versions if len(figures.versions) > 1 else ()
    return Section(
        implementation=name,
        figures=figures,
        by_version=tuple((version, Figures.of(found.of_version(version))) for version in several),
        buckets=timeline.buckets(found),
        measurements=found,
    )


# JSON.


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _section_json(section: Section) -> dict[str, Any]:
    return {
        "implementation": section.implementation,
        **_figures_json(section.figures),
        "by_version": [
            {"version": version, **_figures_json(figures)} for version, figures in section.by_version
        ],
        "timeline": [
            {
                "begin": _iso(bucket.begin),
                **_levels_json(bucket),
                "outages": bucket.outages,
                "attempts": bucket.attempts,
                "failures": bucket.failures,
            }
            for bucket in section.buckets
        ],
    }


def _levels_json(bucket: Bucket) -> dict[str, float]:
    return {f"{level}_seconds": getattr(bucket.availability, level) for level in _WANTED}


def _figures_json(figures: Figures) -> dict[str, Any]:
    availability = figures.availability
    return {
        "runs": figures.runs,
        "instances": list(figures.instances),
        "versions": list(figures.versions),
        "availability": {
            "wanted_seconds": availability.wanted,
            **{f"{level}_seconds": getattr(availability, level) for level in _WANTED},
            **{f"{level}_share": availability.share(level) for level in _WANTED},
        },
        "time_to_recover": _distribution_json(figures.recovery),
        "outages": asdict(figures.outages),
        "attempts": {
            "count": figures.attempts.count,
            "failures": figures.attempts.failures,
            "failure_rate": figures.attempts.failure_rate,
            "causes": dict(figures.attempts.causes),
        },
        "latency": _distribution_json(figures.latency),
    }


def _distribution_json(distribution: Distribution) -> dict[str, float | None]:
    fields = asdict(distribution)
    fields["max"] = fields.pop("maximum")
    return fields


def _comparison_json(one: Comparison) -> dict[str, Any]:
    return {
        "figure": one.figure,
        "unit": one.unit,
        "baseline": _side_json(one.baseline),
        "candidate": _side_json(one.candidate),
        "difference": one.difference,
        "interval": _interval_json(one.interval),
        "verdict": one.verdict.value,
        "sentence": one.sentence,
    }


def _side_json(side: Side) -> dict[str, Any]:
    return {"samples": side.samples, "value": side.value, "interval": _interval_json(side.interval)}


def _interval_json(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [interval.low, interval.high]


_WANTED: Final = (Level.LIVE, Level.DEGRADED, Level.DOWN)
