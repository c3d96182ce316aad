"""``realtime-fsm report``: what a metrics database tells, as text, JSON, plots or a page."""

import json
import sys
from pathlib import Path

from realtime_fsm.adapters.sqlite_metrics_file import read
from realtime_fsm.cli.exit_code import EXIT_FAILED, EXIT_OK
from realtime_fsm.cli.paint import Painter
from realtime_fsm.cli.report_text import print_report
from realtime_fsm.monitoring.report import make_report
from realtime_fsm.monitoring.report_data import Measurements


def run_report(
    path: Path,
    *,
    since: float | None,
    compared: tuple[str, str] | None,
    as_json: bool,
    svg: Path | None,
    html: Path | None,
) -> int:
    """Make a report; return the exit code.

    Args:
        path: The metrics database.
        since: Unix time from which on records count; ``None`` for all.
        compared: Names of two implementations, the established one first.
        as_json: Print one JSON object.
        svg: Where to write the plots.
        html: Where to write a page.

    Raises:
        MetricsStorageError: If it is missing, no metrics database, or has no records of what is asked for.
        MissingExtraError: If plots are asked for without the extra [report].
    """
    begin = 0.0 if since is None else since
    found = Measurements.from_rows(read(path, since=begin), since=begin)
    report = make_report(found, source=str(path), since=since, compared=compared)
    if as_json:
        sys.stdout.write(json.dumps(report.to_json(), allow_nan=False) + "\n")
        return EXIT_OK
    if svg is not None:
        from realtime_fsm.monitoring.report_plots import plots_as_svg  # noqa: PLC0415 - only they need numpy

        return _written(svg, plots_as_svg(report))
    if html is not None:
        from realtime_fsm.monitoring.report_html import page  # noqa: PLC0415

        return _written(html, page(report))
    print_report(Painter(), report)
    return EXIT_OK


def _written(path: Path, text: str) -> int:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        sys.stderr.write(f"realtime-fsm: {path} cannot be written: {error.strerror}.\n")
        return EXIT_FAILED
    return EXIT_OK
