"""The report on a metrics database: availability, outages, failures and latency, per implementation."""

from datetime import UTC, datetime
from typing import Any, Final

from attrs import asdict, frozen

from realtime_fsm.machine.errors import InvalidArgumentError, MetricsStorageError
from realtime_fsm.monitoring.records import Level, Measurements
from realtime_fsm.report.comparison import Comparison, Side, compare
from realtime_fsm.report.figures import Bucket, Distribution, Figures, Timeline
from realtime_fsm.report.statistics import LEVEL, Interval

SCHEMA: Final = 1
"""Version of the JSON form; it changes when a field changes its meaning or goes."""

_WANTED: Final = (Level.LIVE, Level.DEGRADED, Level.DOWN)


@frozen(kw_only=True)
class Section:
    """The part of a report that is about one implementation.

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
    """Make a report on what was recorded.

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
