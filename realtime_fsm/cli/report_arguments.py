"""The arguments of ``realtime-fsm report``, without what it runs."""

import argparse
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

REPORT_EXAMPLES: Final = (
    "  realtime-fsm report metrics.db\n"
    "  realtime-fsm report metrics.db --since 24h\n"
    "  realtime-fsm report metrics.db --since 2026-05-01T08:00 --compare legacy new\n"
    "  realtime-fsm report metrics.db --json | jq '.implementations[].availability.live_share'\n"
    "  realtime-fsm report metrics.db --compare legacy new --html report.html\n"
    "  realtime-fsm report metrics.db --svg report.svg\n"
    "\nFILE is what a `MetricsDatabase` writes; it may be in use. Times are UTC.\n"
    "Intervals are 95 %: by the bootstrap over runs, for failures Wilson's. One run is one client from its\n"
    "start to its end; what is compared needs several of each.\n"
    "\nexit codes:\n"
    "  0 the report was made\n"
    "  1 no such file, no metrics database, no records, or the report cannot be written\n"
    "  2 wrong usage, or the extra [report] is missing: pip install 'realtime-fsm[report]'\n"
    "  3 never   4 never: it reads a file\n"
)

_UNITS: Final = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_SPAN: Final = re.compile(r"(\d{1,9}(?:\.\d{1,9})?) ?(s|m|min|h|d|w)")


def moment(text: str) -> float:
    """Read a time: how long ago it was, such as ``24h``, or ISO 8601; without an offset it is UTC.

    Returns:
        Unix time.

    Raises:
        ArgumentTypeError: If it is neither.
    """
    span = _SPAN.fullmatch(text.strip())
    if span is not None:
        return max(0.0, time.time() - float(span[1]) * _UNITS[span[2]])
    try:
        at = datetime.fromisoformat(text.strip())
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time; write how long ago, such as 90min, 24h or 7d, or 2026-05-01T08:00"
        ) from None


def add_report_arguments(parser: argparse.ArgumentParser) -> None:
    """Add them to the command's parser."""
    parser.add_argument("file", metavar="FILE", type=Path, help="the metrics database")
    parser.add_argument(
        "--since", type=moment, metavar="TIME", help="how long ago, such as 24h, or ISO time (default: all)"
    )
    parser.add_argument(
        "--compare",
        nargs=2,
        metavar=("BASELINE", "CANDIDATE"),
        help="compare two implementations, such as legacy and new, and say what can be told",
    )
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--json", action="store_true", help="print one JSON object")
    forms.add_argument("--svg", type=Path, metavar="PATH", help="write the plots; needs the extra [report]")
    forms.add_argument(
        "--html", type=Path, metavar="PATH", help="write one self-contained page; needs the extra [report]"
    )
    parser.set_defaults(run=_run)


def _run(parsed: argparse.Namespace) -> int:
    from realtime_fsm.cli.report import run_report  # noqa: PLC0415

    return run_report(
        parsed.file,
        since=parsed.since,
        compared=None if parsed.compare is None else tuple(parsed.compare),
        as_json=parsed.json,
        svg=parsed.svg,
        html=parsed.html,
    )
