"""A report as one page of HTML that needs nothing else: no script, no address outside, light and dark."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from realtime_fsm.monitoring.report import Report
from realtime_fsm.monitoring.report_comparison import Verdict
from realtime_fsm.monitoring.report_plots import plots
from realtime_fsm.monitoring.report_svg import dark_rules
from realtime_fsm.monitoring.report_tables import Row, period, tables

_SIGNS: Final = {
    Verdict.BETTER: ("✓", "better"),
    Verdict.WORSE: ("✗", "worse"),
    Verdict.UNDECIDED: ("=", "no difference told"),
    Verdict.TOO_FEW: ("?", "too few samples"),
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


def page(report: Report) -> str:
    """Return the page.

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


def _verdicts(report: Report) -> Iterable[str]:
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


def _figures(report: Report) -> Iterable[str]:
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
