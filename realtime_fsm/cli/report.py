"""``realtime-fsm report``: the contents of a metrics database, as text, JSON, plots or a page."""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Final

from realtime_fsm.adapters.metrics_file import read
from realtime_fsm.cli.arguments import EXIT_OK
from realtime_fsm.cli.paint import Painter, printable, write_file
from realtime_fsm.monitoring.records import Level, Measurements
from realtime_fsm.report import words
from realtime_fsm.report.comparison import ComparisonVerdict
from realtime_fsm.report.figures import Bucket
from realtime_fsm.report.html import Row, period, tables
from realtime_fsm.report.report import MetricsReport, make_report

_SIGNS: Final = {
    ComparisonVerdict.BETTER: ("✓", "green"),
    ComparisonVerdict.WORSE: ("✗", "red"),
    ComparisonVerdict.UNDECIDED: ("=", "dim"),
    ComparisonVerdict.TOO_FEW: ("?", "yellow"),
}
_STRIP: Final = ((1.0, "█"), (0.999, "▇"), (0.99, "▆"), (0.9, "▄"), (0.5, "▂"), (0.0, "▁"))
"""One glyph for each bucket, by the share of it that was live; thresholds, because most are near the top."""

_UNKNOWN: Final = "·"
_LEGEND: Final = "live: █ always  ▇ 99.9 %  ▆ 99 %  ▄ 90 %  ▂ 50 %  ▁ less  · not wanted, or not known"
_STRIP_WIDTH: Final = 72
_ROUNDING: Final = 1e-9
_LEFT: Final = frozenset({"", "version"})


def run_report(parsed: argparse.Namespace) -> int:
    """Make a report; return the exit code.

    Raises:
        MetricsStorageError: If it is missing, no metrics database, or has no records of what is asked for.
        MissingExtraError: If plots are asked for without the extra [report].
    """
    since, compared = parsed.since, parsed.compare
    begin = 0.0 if since is None else since
    found = Measurements.from_rows(read(parsed.file, since=begin), since=begin)
    report = make_report(
        found,
        source=str(parsed.file),
        since=since,
        compared=None if compared is None else (compared[0], compared[1]),
    )
    if parsed.json:
        sys.stdout.write(json.dumps(report.to_json(), allow_nan=False) + "\n")
        return EXIT_OK
    if parsed.svg is not None:
        from realtime_fsm.report.plots import plots_as_svg  # noqa: PLC0415 - only they need numpy

        return write_file(parsed.svg, plots_as_svg(report).encode())
    if parsed.html is not None:
        from realtime_fsm.report.html import page  # noqa: PLC0415

        return write_file(parsed.html, page(report).encode())
    _print_report(Painter(), report)
    return EXIT_OK


def _print_report(painter: Painter, report: MetricsReport) -> None:
    """Print the tables, the timeline and the comparison, for a terminal and for a pipe."""
    painter.line(f"{painter.paint(printable(report.source), 'bold')}  {period(report)}")
    for title, rows in tables(report):
        _print_table(painter, title, rows)
    _print_timeline(painter, report)
    _print_comparison(painter, report)


def _print_table(painter: Painter, title: str, rows: Sequence[Row]) -> None:
    """Print rows below their head. Columns of figures stand on the right."""
    painter.line()
    painter.line(painter.paint(title, "bold"))
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for index, row in enumerate(cells):
        text = "  ".join(
            cell.ljust(width) if column == 0 or head in _LEFT else cell.rjust(width)
            for column, (head, cell, width) in enumerate(zip(cells[0], row, widths, strict=True))
        )
        line = f"  {text}".rstrip()
        painter.line(painter.paint(line, "dim") if index == 0 else line)


def _print_timeline(painter: Painter, report: MetricsReport) -> None:
    """Print a strip for each implementation, unless the stream has no such characters."""
    try:
        _LEGEND.encode(painter.stream.encoding or "utf-8")
    except UnicodeEncodeError:
        return
    painter.line()
    begin = words.moment(report.timeline.begins[0])
    painter.line(painter.paint(f"each {report.timeline.unit} from {begin} UTC", "bold"))
    names = [printable(section.implementation) for section in report.sections]
    width = max(map(len, names))
    for name, section in zip(names, report.sections, strict=True):
        strip = "".join(_glyph(bucket) for bucket in section.buckets)
        for first in range(0, len(strip), _STRIP_WIDTH):
            label = name if first == 0 else ""
            painter.line(f"  {label:<{width}}  {strip[first : first + _STRIP_WIDTH]}")
    painter.line(painter.paint(f"  {_LEGEND}", "dim"))


def _glyph(bucket: Bucket) -> str:
    share = bucket.availability.share(Level.LIVE)
    if share is None:
        return _UNKNOWN
    return next(glyph for least, glyph in _STRIP if share >= least - _ROUNDING)


def _print_comparison(painter: Painter, report: MetricsReport) -> None:
    if not report.comparison:
        if len(report.sections) > 1:
            names = " ".join(printable(section.implementation) for section in report.sections[:2])
            painter.line()
            painter.line(painter.paint(f"What can be told of their difference: --compare {names}", "dim"))
        return
    first = report.comparison[0]
    title = f"{first.candidate.implementation} compared with {first.baseline.implementation}"
    painter.line()
    painter.line(
        painter.paint(printable(title), "bold")
        + painter.paint("  (differences with their 95 % confidence intervals)", "dim")
    )
    for one in report.comparison:
        glyph, style = _SIGNS[one.verdict]
        painter.line(f"  {painter.paint(glyph, style)} {printable(one.sentence)}")
