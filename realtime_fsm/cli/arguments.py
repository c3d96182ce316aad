"""How a command is added to the command line: each has examples and its exit codes in its help."""

import argparse
import re
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from attrs import frozen

# What the arguments of several commands are read as.

_LONGEST: Final = 24 * 3600.0


def seconds(text: str) -> float:
    """Read a number of seconds that is more than 0.

    Raises:
        ArgumentTypeError: If it is none.
    """
    read = seconds_or_none(text)
    if read == 0:
        raise argparse.ArgumentTypeError("must be more than 0 seconds")
    return read


def seconds_or_none(text: str) -> float:
    """Read a number of seconds, 0 included.

    Raises:
        ArgumentTypeError: If it is none.
    """
    try:
        read = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None
    if not 0 <= read <= _LONGEST:
        raise argparse.ArgumentTypeError(f"must be 0 to {_LONGEST:.0f} seconds")
    return read


# The arguments of the commands that are a client of a server, without what they run.


@frozen(kw_only=True)
class ClientRequest:
    """Which client is asked for; each is the argument of its name."""

    url: str
    channels: tuple[str, ...] = ()
    namespace: str = "/"
    dialect: str = "plain"
    token_env: str | None = None


def add_client_arguments(parser: argparse.ArgumentParser) -> None:
    """Add them to a command's parser."""
    parser.add_argument("url", metavar="URL", help="the server's address, http:// or https://")
    parser.add_argument(
        "--channel", action="append", default=[], metavar="NAME", help="subscribe to a channel; repeatable"
    )
    parser.add_argument("--namespace", default="/", help="the Socket.IO namespace (default: /)")
    parser.add_argument(
        "--dialect", default="plain", choices=["plain", "reference"], help="the server's conventions"
    )
    parser.add_argument("--token-env", metavar="NAME", help="environment variable that holds the token")


def client_request(parsed: argparse.Namespace) -> ClientRequest:
    """Return what was asked for with them."""
    return ClientRequest(
        url=parsed.url,
        channels=tuple(parsed.channel),
        namespace=parsed.namespace,
        dialect=parsed.dialect,
        token_env=parsed.token_env,
    )


# What the exit codes of the command line mean.

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNREACHABLE: Final = 3
EXIT_REFUSED: Final = 4
EXIT_INTERRUPTED: Final = 130

# The arguments of ``realtime-fsm doctor``, without what it runs.

DOCTOR_EXAMPLES: Final = (
    "  realtime-fsm doctor http://localhost:3001\n"
    "  TOKEN=... realtime-fsm doctor https://example.org --dialect reference --token-env TOKEN\n"
    "  realtime-fsm doctor https://example.org --idle 65      # is a silent connection cut by a proxy?\n"
    "  realtime-fsm doctor https://example.org --json | jq '.checks[] | select(.verdict == \"failed\")'\n"
    "\nexit codes:\n"
    "  0 nothing failed; warnings do not count\n"
    "  1 it answers, but something does not work: no Socket.IO, websocket blocked, deaf, cut when idle\n"
    "  2 wrong usage or configuration\n"
    "  3 unreachable: name, TCP, TLS, no HTTP answer, 429 or 5xx\n"
    "  4 refused: the token, the namespace, 401 or 403, a redirect\n"
    "  Where several things failed, the first of 2, 3, 4, 1 counts.\n"
)


def add_doctor_arguments(parser: argparse.ArgumentParser) -> None:
    """Add them to the command's parser."""
    parser.add_argument("url", metavar="URL", help="the server's address, http:// or https://")
    parser.add_argument("--namespace", help="the Socket.IO namespace (default: /)")
    parser.add_argument("--path", metavar="PATH", help="where it speaks Socket.IO (default: socket.io)")
    parser.add_argument("--dialect", choices=["plain", "reference"], help="its conventions (default: plain)")
    parser.add_argument("--token-env", metavar="NAME", help="environment variable that holds the token")
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=5.0,
        metavar="SECONDS",
        help="how long each step may wait (default: 5)",
    )
    parser.add_argument(
        "--idle",
        type=seconds_or_none,
        default=5.0,
        metavar="SECONDS",
        help="how long to keep the open connection silent; 0 leaves it out (default: 5)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end, nothing else")
    parser.set_defaults(run=_run)


def _run(parsed: argparse.Namespace) -> int:
    from realtime_fsm.cli.doctor import run_doctor  # noqa: PLC0415

    given = {"namespace": parsed.namespace, "socketio_path": parsed.path, "dialect": parsed.dialect}
    return run_doctor(
        parsed.url,
        fields={name: value for name, value in given.items() if value is not None},
        token_env=parsed.token_env,
        timeout=parsed.timeout,
        idle=parsed.idle,
        as_json=parsed.json,
    )


Commands = argparse._SubParsersAction  # noqa: SLF001 - argparse names the type of its own result so

EXIT_CODES: Final = """
exit codes:
  0 all is well   1 the command failed   2 wrong usage   3 unreachable   4 refused   130 interrupted
"""


def add_command(
    commands: "Commands[argparse.ArgumentParser]",
    name: str,
    summary: str,
    examples: str,
    parents: Sequence[argparse.ArgumentParser] = (),
) -> argparse.ArgumentParser:
    """Add a command, and return its parser.

    Args:
        commands: Where to.
        name: What is typed.
        summary: What it does, in a line that begins small and has no full stop.
        examples: Lines that can be typed as they are; its own exit codes may follow them.
        parents: Parsers whose arguments it has too.
    """
    codes = "" if "exit codes:" in examples else EXIT_CODES
    return commands.add_parser(
        name,
        parents=parents,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=f"examples:\n{examples}{codes}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


# The arguments of ``realtime-fsm outbox``, without what it runs.


def add_outbox(commands: "Commands[argparse.ArgumentParser]") -> None:
    """Add the command and its actions."""
    parser = add_command(
        commands,
        "outbox",
        "look into the file of an outbox, and decide about its dead letters",
        "  realtime-fsm outbox list app.outbox\n"
        "  realtime-fsm outbox retry app.outbox 1f0c9a77e2b4-17\n"
        "  realtime-fsm outbox drop app.outbox --all\n",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    path = argparse.ArgumentParser(add_help=False)
    path.add_argument("path", metavar="PATH", type=Path, help="the file: the client's outbox_path")
    path.add_argument("--json", action="store_true", help="print one JSON object")
    listing = add_command(
        actions,
        "list",
        "show what waits and the dead letters, never a body; also while it is used",
        "  realtime-fsm outbox list app.outbox\n"
        "  realtime-fsm outbox list app.outbox --json | jq .waiting.oldest_age\n",
        [path],
    )
    listing.add_argument(
        "--limit", type=int, default=20, metavar="N", help="waiting messages to be listed (default: 20)"
    )
    listing.set_defaults(run=_list)
    for name, summary in (
        ("retry", "let dead letters wait again, behind all others"),
        ("drop", "delete dead letters for good"),
    ):
        examples = (
            f"  realtime-fsm outbox {name} app.outbox 1f0c9a77e2b4-17\n"
            f"  realtime-fsm outbox {name} app.outbox --all\n"
        )
        action = add_command(actions, name, summary, examples, [path])
        action.add_argument("ids", metavar="ID", nargs="*", help="id of a dead letter, as `list` shows it")
        action.add_argument("--all", action="store_true", help="all dead letters")
        action.set_defaults(run=_change, action=name)


def _list(parsed: argparse.Namespace) -> int:
    from realtime_fsm.cli.outbox import run_list  # noqa: PLC0415

    return run_list(parsed.path, limit=parsed.limit, as_json=parsed.json)


def _change(parsed: argparse.Namespace) -> int:
    from realtime_fsm.cli.outbox import run_change  # noqa: PLC0415

    if bool(parsed.ids) is parsed.all:
        sys.stderr.write(f"realtime-fsm: outbox {parsed.action} needs either IDs or --all.\n")
        return EXIT_USAGE
    return run_change(parsed.action, parsed.path, None if parsed.all else parsed.ids, as_json=parsed.json)


# The arguments of ``realtime-fsm report``, without what it runs.

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
    parser.set_defaults(run=_report_arguments_run)


def _report_arguments_run(parsed: argparse.Namespace) -> int:
    from realtime_fsm.cli.report import run_report  # noqa: PLC0415

    return run_report(
        parsed.file,
        since=parsed.since,
        compared=None if parsed.compare is None else tuple(parsed.compare),
        as_json=parsed.json,
        svg=parsed.svg,
        html=parsed.html,
    )


# The arguments of ``realtime-fsm watch``, without what it runs.

WATCH_EXAMPLES: Final = (
    "  realtime-fsm watch http://localhost:3001\n"
    "  TOKEN=... realtime-fsm watch https://example.org --token-env TOKEN --channel prices\n"
    "  REALTIME_HEARTBEAT_INTERVAL=5 REALTIME_HEARTBEAT_TIMEOUT=5 realtime-fsm watch http://localhost:3001\n"
    "  realtime-fsm watch https://example.org --every 60 > connection.log     # lines, for a file\n"
    "  realtime-fsm watch https://example.org --for 30 --json | tail -1 | jq .failures.rate\n"
    "\nIn a terminal it is one live view; elsewhere a line for each change, and at times the figures.\n"
    "Round trips are those of the heartbeats: REALTIME_HEARTBEAT_INTERVAL says how many there are.\n"
    "\nexit codes:\n"
    "  0 it was interrupted, or data flowed at the end of --for\n"
    "  1 it failed for a reason of its own\n"
    "  2 wrong usage or configuration\n"
    "  3 unreachable: it gave up, or no data flowed at the end of --for\n"
    "  4 refused: the token, or a channel\n"
)


def add_watch_arguments(parser: argparse.ArgumentParser) -> None:
    """Add them to the command's parser."""
    add_client_arguments(parser)
    parser.add_argument(
        "--for",
        dest="bound",
        type=seconds,
        metavar="SECONDS",
        help="end after this time (default: at Ctrl-C)",
    )
    parser.add_argument(
        "--every",
        type=seconds,
        metavar="SECONDS",
        help="how often the figures are shown (default: 0.25 in a terminal, otherwise 10)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object per line; the last one is how it stands"
    )
    parser.set_defaults(run=_watch_arguments_run)


def _watch_arguments_run(parsed: argparse.Namespace) -> int:
    from realtime_fsm.cli.watch import run_watch  # noqa: PLC0415

    return run_watch(client_request(parsed), bound=parsed.bound, every=parsed.every, as_json=parsed.json)
