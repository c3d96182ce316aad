"""The tables of a report, as text in cells, for a terminal and a page alike. The first row is the head."""

from collections.abc import Iterable, Sequence
from typing import Final

from realtime_fsm.monitoring import report_words as words
from realtime_fsm.monitoring.report import Report, Section
from realtime_fsm.monitoring.report_data import Level
from realtime_fsm.monitoring.report_figures import Figures
from realtime_fsm.monitoring.report_timeline import Bucket

Row = tuple[str, ...]

_MOST_CAUSES: Final = 8
_MOST_BUCKETS: Final = 10
_LEAST: Final = 1e-6
"""Share of a bucket below which it counts as live all the time; less is rounding."""
_LEVELS: Final = (Level.LIVE, Level.DEGRADED, Level.DOWN)


def tables(report: Report) -> list[tuple[str, list[Row]]]:
    """Return the titles and rows of all tables that have anything to say."""
    found = [
        ("figures", _summary(report.sections)),
        ("by version", _versions(report.sections)),
        ("failed attempts by cause", _causes(report.sections, of_outages=False)),
        ("outages by cause", _causes(report.sections, of_outages=True)),
        ("the times that were live least", _worst(report)),
    ]
    return [(title, rows) for title, rows in found if len(rows) > 1]


def period(report: Report) -> str:
    """Return what times a report is about."""
    timeline = report.timeline
    return f"{words.moment(timeline.begin)} to {words.moment(timeline.end)} UTC"


def _summary(sections: Sequence[Section]) -> list[Row]:
    """Return the figures as rows, with a column for each implementation: a terminal is narrow."""
    columns = [_column(section.figures) for section in sections]
    names = [section.implementation for section in sections]
    return [("", *names), *((row[0][0], *(cell for _, cell in row)) for row in zip(*columns, strict=True))]


def _column(figures: Figures) -> list[tuple[str, str]]:
    availability, outages = figures.availability, figures.outages
    attempts, recovery, latency = figures.attempts, figures.recovery, figures.latency
    return [
        ("runs", f"{figures.runs}"),
        ("instances", f"{len(figures.instances)}"),
        ("version", _version_of(figures)),
        ("wanted time", words.duration(availability.wanted)),
        ("live", words.percent(availability.share(Level.LIVE))),
        ("degraded (polling)", words.percent(availability.share(Level.DEGRADED))),
        ("down", words.percent(availability.share(Level.DOWN))),
        ("outages", f"{outages.count}"),
        ("outages a day", words.number(outages.per_day)),
        ("outages not over", f"{outages.unfinished}"),
        ("longest outage", words.duration(outages.longest if outages.count else None)),
        ("time to recover, median", words.duration(recovery.p50)),
        ("time to recover, p95", words.duration(recovery.p95)),
        ("time to recover, max", words.duration(recovery.maximum)),
        ("attempts", f"{attempts.count}"),
        ("failed attempts", f"{attempts.failures}"),
        ("failure rate", words.percent(attempts.failure_rate)),
        ("round trips", f"{latency.count}"),
        ("latency, p50", words.duration(latency.p50)),
        ("latency, p95", words.duration(latency.p95)),
        ("latency, p99", words.duration(latency.p99)),
    ]


def _version_of(figures: Figures) -> str:
    if len(figures.versions) > 1:
        return f"{len(figures.versions)} versions"
    return figures.versions[0] or words.NOTHING


def _versions(sections: Iterable[Section]) -> list[Row]:
    return [
        ("", "version", "runs", "live", "outages", "recover", "failures", "latency"),
        *(
            (
                section.implementation,
                version or words.NOTHING,
                f"{figures.runs}",
                words.percent(figures.availability.share(Level.LIVE)),
                f"{figures.outages.count}",
                words.duration(figures.recovery.p50),
                words.percent(figures.attempts.failure_rate),
                words.duration(figures.latency.p50),
            )
            for section in sections
            for version, figures in section.by_version
        ),
    ]


def _causes(sections: Sequence[Section], *, of_outages: bool) -> list[Row]:
    counts = [
        section.figures.outages.causes if of_outages else section.figures.attempts.causes
        for section in sections
    ]
    names = sorted(
        {name for one in counts for name in one},
        key=lambda name: (-sum(one.get(name, 0) for one in counts), name),
    )
    rows = [(name, *(f"{one.get(name, 0)}" for one in counts)) for name in names[:_MOST_CAUSES]]
    rest = names[_MOST_CAUSES:]
    if rest:
        sums = [sum(one.get(name, 0) for name in rest) for one in counts]
        rows.append((f"{len(rest)} other", *map(str, sums)))
    return [("", *(section.implementation for section in sections)), *rows]


def _worst(report: Report) -> list[Row]:
    """Return the buckets in which most time was not live, in the order of time."""
    found: list[tuple[float, str, Bucket]] = []
    for section in report.sections:
        for bucket in section.buckets:
            lacking = bucket.availability.wanted - bucket.availability.live
            if lacking > _LEAST * report.timeline.step:
                found.append((lacking, section.implementation, bucket))
    chosen = sorted(found, key=lambda one: (-one[0], one[1], one[2].begin))[:_MOST_BUCKETS]
    return [
        (f"{report.timeline.unit} from", "", "live", "degraded", "down", "outages", "failures"),
        *(
            (
                words.moment(bucket.begin),
                name,
                *(words.percent(bucket.availability.share(level)) for level in _LEVELS),
                f"{bucket.outages}",
                f"{bucket.failures} of {bucket.attempts}",
            )
            for _, name, bucket in sorted(chosen, key=lambda one: (one[2].begin, one[1]))
        ),
    ]
