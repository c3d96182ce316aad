"""A report as one page of HTML that needs nothing else: no script, no address outside, light and dark."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from realtime_fsm.monitoring.records import Level
from realtime_fsm.report import words
from realtime_fsm.report.comparison import ComparisonVerdict
from realtime_fsm.report.figures import Bucket, Figures
from realtime_fsm.report.plots import dark_rules, plots
from realtime_fsm.report.report import MetricsReport, Section

# The tables of a report, as text in cells, for a terminal and a page alike. The first row is the head.

Row = tuple[str, ...]

_MOST_CAUSES: Final = 8
_MOST_BUCKETS: Final = 10
_LEAST: Final = 1e-6
"""Share of a bucket below which it counts as live all the time; less is rounding."""
_LEVELS: Final = (Level.LIVE, Level.DEGRADED, Level.DOWN)


def tables(report: MetricsReport) -> list[tuple[str, list[Row]]]:
    """Return the titles and rows of all tables that have anything to say."""
    found = [
        ("figures", _summary(report.sections)),
        ("by version", _versions(report.sections)),
        ("failed attempts by cause", _causes(report.sections, of_outages=False)),
        ("outages by cause", _causes(report.sections, of_outages=True)),
        ("the times that were live least", _worst(report)),
    ]
    return [(title, rows) for title, rows in found if len(rows) > 1]


def period(report: MetricsReport) -> str:
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


def _worst(report: MetricsReport) -> list[Row]:
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


_SIGNS: Final = {
    ComparisonVerdict.BETTER: ("✓", "better"),
    ComparisonVerdict.WORSE: ("✗", "worse"),
    ComparisonVerdict.UNDECIDED: ("=", "no difference told"),
    ComparisonVerdict.TOO_FEW: ("?", "too few samples"),
}
_STYLE: Final = """\
:root{color-scheme:light dark;--ground:#ffffff;--ink:#1f2328;--muted:#59636e;--line:#d1d9e0;\
--better:#1a7f37;--worse:#cf222e;--few:#9a6700}
@media (prefers-color-scheme:dark){:root{--ground:#0d1117;--ink:#e6edf3;--muted:#9198a1;--line:#3d444d;\
--better:#3fb950;--worse:#f85149;--few:#d29922}}
body{background:var(--ground);color:var(--ink);font:16px/1.5 system-ui,sans-serif;margin:0 auto;\
max-width:70rem;padding:1rem}
h1{font-size:1.5rem;margin:0;overflow-wrap:anywhere}
h2{font-size:1.1rem;margin:2rem 0 .5rem}
p{color:var(--muted);margin:.25rem 0}
ul{list-style:none;margin:0;padding:0}
li{border-left:.25rem solid var(--line);margin:.5rem 0;overflow-wrap:anywhere;padding:.1rem .75rem}
li b{display:inline-block;min-width:1.2em}
.better{border-color:var(--better)}.better b{color:var(--better)}
.worse{border-color:var(--worse)}.worse b{color:var(--worse)}
.too_few{border-color:var(--few)}.too_few b{color:var(--few)}
.plots{display:grid;margin-top:1.5rem;gap:1.5rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr))}
figure{margin:0}
figcaption{font-weight:600}
svg{display:block;height:auto;max-width:100%;width:100%}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{border-bottom:1px solid var(--line);padding:.25rem .75rem .25rem 0;text-align:right;white-space:nowrap}
th{color:var(--muted);font-weight:600}
th:first-child,td:first-child,.text{text-align:left}
tbody th{white-space:normal}
tbody th{color:var(--ink);font-weight:400}
"""
_TEXT_COLUMNS: Final = frozenset({"", "version"})
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
_METHODS: Final = (
    "Intervals are 95 %. Availability, outages, medians: the bootstrap over runs, with a fixed seed. Failure "
    "rates: Wilson's, with attempts of one run counted as alike as they are. A run is one client from its "
    "start to its end. Live, degraded and down are shares of the time in which a connection was wanted. "
    "Times are UTC."
)


def page(report: MetricsReport) -> str:
    """Return the report as one page of HTML.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    title = escape(f"Report on {report.source}")
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<title>{title}</title><style>{_STYLE}{dark_rules('svg ')}</style></head>",
        f"<body><header><h1>{title}</h1><p>{escape(period(report))}</p></header><main>",
        *_verdicts(report),
        *_figures(report),
        *(part for heading, rows in tables(report) for part in _table(heading, rows)),
        f"</main><footer><h2>How it is computed</h2><p>{escape(_METHODS)}</p></footer></body></html>",
    ]
    return "\n".join(parts) + "\n"


def _verdicts(report: MetricsReport) -> Iterable[str]:
    if not report.comparison:
        return
    first = report.comparison[0]
    heading = f"{first.candidate.implementation} compared with {first.baseline.implementation}"
    yield f"<section><h2>{escape(heading)}</h2><ul>"
    for one in report.comparison:
        glyph, meaning = _SIGNS[one.verdict]
        sign = f'<b role="img" aria-label="{meaning}">{glyph}</b>'
        yield f'<li class="{one.verdict}">{sign} {escape(one.sentence)}</li>'
    yield "</ul></section>"


def _figures(report: MetricsReport) -> Iterable[str]:
    yield '<section class="plots" aria-label="plots">'
    for plot in plots(report):
        yield f"<figure><figcaption>{escape(plot.title)}</figcaption>{plot.svg}</figure>"
    yield "</section>"


def _table(title: str, rows: Sequence[Row]) -> Iterable[str]:
    head, *body = rows
    yield f"<section><h2>{escape(title.capitalize())}</h2>"
    yield f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(title)}"><table><thead><tr>'
    yield "".join(
        f'<th scope="col"{_kind(name)}>{escape(name)}</th>' if name else f"<td{_kind(name)}></td>"
        for name in head
    )
    yield "</tr></thead><tbody>"
    for first, *cells in body:
        rest = "".join(
            f"<td{_kind(name)}>{escape(cell)}</td>" for name, cell in zip(head[1:], cells, strict=True)
        )
        yield f'<tr><th scope="row">{escape(first)}</th>{rest}</tr>'
    yield "</tbody></table></div></section>"


def _kind(column: str) -> str:
    return ' class="text"' if column in _TEXT_COLUMNS else ""
