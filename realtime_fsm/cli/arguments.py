"""The arguments of every command, and what the exit codes mean: nothing here imports what a command runs.

So ``--help`` loads no network library. ``command`` in what is parsed names the command.
"""

import argparse
import re
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNREACHABLE: Final = 3
EXIT_REFUSED: Final = 4
EXIT_INTERRUPTED: Final = 130

_EXIT_CODES: Final = """
exit codes:
  0 all is well   1 the command failed   2 wrong usage   3 unreachable   4 refused   130 interrupted
"""
_DESCRIPTION: Final = """\
Keeps a Socket.IO connection alive, and the data flowing by HTTP polling when it cannot.
"""
_EPILOG: Final = """\
examples:
  realtime-fsm demo                                  # watch a client survive real faults (about 30 s)
  realtime-fsm listen http://localhost:3001          # print status changes and events until Ctrl-C
  realtime-fsm watch http://localhost:3001           # see live how the connection fares
  realtime-fsm doctor https://example.org            # find out why a server cannot be used
  realtime-fsm report metrics.db --since 24h         # tell how available a client was, and why not
  realtime-fsm diagram --format mermaid              # draw the state machine
  realtime-fsm serve --port 3001                     # start the reference backend
  realtime-fsm outbox list app.outbox                # show what waits, and what was given up
  realtime-fsm fuzz --seeds 2000                     # look for a schedule of faults that breaks a promise
"""

_LONGEST: Final = 24 * 3600.0
_UNITS: Final = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_SPAN: Final = re.compile(r"(\d{1,9}(?:\.\d{1,9})?) ?(s|m|min|h|d|w)")

_Commands = argparse._SubParsersAction  # noqa: SLF001 - argparse names the type of its own result so


def seconds(text: str) -> float:
    """Read a number of seconds that is more than 0.

    Raises:
        ArgumentTypeError: If it is none.
    """
    read = seconds_or_zero(text)
    if read == 0:
        raise argparse.ArgumentTypeError("must be more than 0 seconds")
    return read


def seconds_or_zero(text: str) -> float:
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


def command_line_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    root = argparse.ArgumentParser(
        prog="realtime-fsm",
        description=_DESCRIPTION,
        epilog=_EPILOG + _EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    root.add_argument("--version", action=_Version)
    commands = root.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_demo(commands)
    _add_listen(commands)
    _add_watch(commands)
    _add_doctor(commands)
    _add_report(commands)
    _add_diagram(commands)
    _add_serve(commands)
    _add_outbox(commands)
    _add_fuzz(commands)
    return root


class _Version(argparse.Action):
    """``--version``, read from the installed package only when it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="show the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version  # noqa: PLC0415

        sys.stdout.write(f"realtime-fsm {version('realtime-fsm')}\n")
        parser.exit()


def _add_command(
    commands: "_Commands[argparse.ArgumentParser]",
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
    codes = "" if "exit codes:" in examples else _EXIT_CODES
    return commands.add_parser(
        name,
        parents=parents,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=f"examples:\n{examples}{codes}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _add_demo(commands: "_Commands[argparse.ArgumentParser]") -> None:
    parser = _add_command(
        commands,
        "demo",
        "watch a real client on a real server survive real faults",
        "  realtime-fsm demo\n"
        "  realtime-fsm demo --web                 # watch it in a browser, slowly (about a minute)\n"
        "  realtime-fsm demo --json | jq .recovery_seconds\n",
    )
    _add_web(parser)
    parser.add_argument(
        "--pace",
        type=seconds,
        default=3.0,
        metavar="SECONDS",
        help="with --web: from the end of a fault to the next one (default: 3)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end, nothing else")
    parser.set_defaults(command="demo")


def _add_listen(commands: "_Commands[argparse.ArgumentParser]") -> None:
    parser = _add_command(
        commands,
        "listen",
        "connect to a Socket.IO server and print status changes and events until Ctrl-C",
        "  realtime-fsm listen http://localhost:3001\n"
        "  realtime-fsm listen https://example.org --channel bookings --channel prices\n"
        "  TOKEN=... realtime-fsm listen https://example.org --token-env TOKEN --json\n"
        "  realtime-fsm listen https://example.org --web --port 9102\n",
    )
    _add_client_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    _add_web(parser)
    parser.set_defaults(command="listen")


def _add_client_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of a command that is a client of a server."""
    parser.add_argument("url", metavar="URL", help="the server's address, http:// or https://")
    parser.add_argument(
        "--channel", action="append", default=[], metavar="NAME", help="subscribe to a channel; repeatable"
    )
    parser.add_argument("--namespace", default="/", help="the Socket.IO namespace (default: /)")
    parser.add_argument(
        "--dialect", default="plain", choices=["plain", "reference"], help="the server's conventions"
    )
    parser.add_argument("--token-env", metavar="NAME", help="environment variable that holds the token")


def _add_web(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of a command that can serve the status page."""
    parser.add_argument("--web", action="store_true", help="serve the status page on this machine")
    parser.add_argument(
        "--port", type=int, default=0, metavar="N", help="with --web: where; 0 picks one (default: 0)"
    )


def _add_watch(commands: "_Commands[argparse.ArgumentParser]") -> None:
    parser = _add_command(
        commands,
        "watch",
        "watch live how a connection to a Socket.IO server fares",
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
        "  4 refused: the token, or a channel\n",
    )
    _add_client_arguments(parser)
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
    parser.set_defaults(command="watch")


def _add_doctor(commands: "_Commands[argparse.ArgumentParser]") -> None:
    parser = _add_command(
        commands,
        "doctor",
        "find out what is wrong between here and a Socket.IO server, and what to do about it",
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
        "  Where several things failed, the first of 2, 3, 4, 1 counts.\n",
    )
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
        type=seconds_or_zero,
        default=5.0,
        metavar="SECONDS",
        help="how long to keep the open connection silent; 0 leaves it out (default: 5)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end, nothing else")
    parser.set_defaults(command="doctor")


def _add_report(commands: "_Commands[argparse.ArgumentParser]") -> None:
    parser = _add_command(
        commands,
        "report",
        "tell from a metrics database how available clients were, what failed, and which is better",
        "  realtime-fsm report metrics.db\n"
        "  realtime-fsm report metrics.db --since 24h\n"
        "  realtime-fsm report metrics.db --since 2026-05-01T08:00 --compare legacy new\n"
        "  realtime-fsm report metrics.db --json | jq '.implementations[].availability.live_share'\n"
        "  realtime-fsm report metrics.db --compare legacy new --html report.html\n"
        "  realtime-fsm report metrics.db --svg report.svg\n"
        "\nFILE is what a `MetricsDatabase` writes; it may be in use. Times are UTC.\n"
        "Intervals are 95 %: by the bootstrap over runs, for failures Wilson's. One run is one client from "
        "its\nstart to its end; what is compared needs several of each.\n"
        "\nexit codes:\n"
        "  0 the report was made\n"
        "  1 no such file, no metrics database, no records, or the report cannot be written\n"
        "  2 wrong usage, or the extra [report] is missing: pip install 'realtime-fsm[report]'\n"
        "  3 never   4 never: it reads a file\n",
    )
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
    parser.set_defaults(command="report")


def _add_diagram(commands: "_Commands[argparse.ArgumentParser]") -> None:
    parser = _add_command(
        commands,
        "diagram",
        "draw the state machine, from the machine itself",
        "  realtime-fsm diagram\n"
        "  realtime-fsm diagram --format svg --direction TB --highlight fallback --output machine.svg\n"
        "  realtime-fsm listen http://localhost:3001 --json > changes.jsonl\n"
        "  realtime-fsm diagram --format svg --history changes.jsonl --output outage.svg\n"
        "  realtime-fsm diagram --format png --theme dark --output machine.png\n"
        "  realtime-fsm diagram --format table --output transitions.md --check\n",
    )
    formats = ["svg", "png", "mermaid", "dot", "table"]
    parser.add_argument(
        "--format", default="mermaid", choices=formats, help="default: mermaid; png needs the extra [render]"
    )
    parser.add_argument("--highlight", metavar="STATE", help="mark a state as the current one")
    parser.add_argument(
        "--history",
        type=Path,
        metavar="FILE",
        help="mark what happened; FILE is what `listen --json` printed",
    )
    parser.add_argument(
        "--direction", choices=["LR", "TB"], help="from left to right, or from top to bottom, as for a phone"
    )
    parser.add_argument(
        "--theme", choices=["light", "dark"], help="colours of svg and png; by default an svg has both"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write to a file instead of stdout")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 when FILE is missing or stale"
    )
    parser.set_defaults(command="diagram")


def _add_serve(commands: "_Commands[argparse.ArgumentParser]") -> None:
    parser = _add_command(
        commands,
        "serve",
        "start the reference backend",
        "  REALTIME_SERVER_SECRET=$(openssl rand -hex 32) realtime-fsm serve\n"
        "  FRONTEND_URL=https://app.example.org realtime-fsm serve --host 0.0.0.0 --port 3001\n",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1)")
    parser.add_argument(
        "--port", type=int, default=3001, help="port to listen at; 0 picks one (default: 3001)"
    )
    parser.add_argument(
        "--ledger",
        metavar="PATH",
        help="SQLite database that keeps exactly-once effects over a restart (default: in memory)",
    )
    parser.set_defaults(command="serve")


def _add_outbox(commands: "_Commands[argparse.ArgumentParser]") -> None:
    """Add the command and its actions."""
    parser = _add_command(
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
    listing = _add_command(
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
    listing.set_defaults(command="outbox list")
    for name, summary in (
        ("retry", "let dead letters wait again, behind all others"),
        ("drop", "delete dead letters for good"),
    ):
        examples = (
            f"  realtime-fsm outbox {name} app.outbox 1f0c9a77e2b4-17\n"
            f"  realtime-fsm outbox {name} app.outbox --all\n"
        )
        action = _add_command(actions, name, summary, examples, [path])
        action.add_argument("ids", metavar="ID", nargs="*", help="id of a dead letter, as `list` shows it")
        action.add_argument("--all", action="store_true", help="all dead letters")
        action.set_defaults(command=f"outbox {name}", action=name)


def _add_fuzz(commands: "_Commands[argparse.ArgumentParser]") -> None:
    parser = _add_command(
        commands,
        "fuzz",
        "play schedules of faults on the whole engine, until one breaks a promise",
        "  realtime-fsm fuzz\n"
        "  realtime-fsm fuzz --seeds 200000 --json\n"
        "  realtime-fsm fuzz --full-stack --seeds 2000\n"
        "  realtime-fsm fuzz --interleave --seeds 20000\n"
        "  realtime-fsm fuzz --replay reference:7/emit,reset@0.5,black-hole@3/heal\n",
    )
    parser.add_argument(
        "--seeds", type=int, default=2000, metavar="N", help="schedules to be played (default: 2000)"
    )
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="the first seed (default: 0)")
    parser.add_argument(
        "--full-stack",
        action="store_true",
        help="play them on the real python-socketio and aiohttp, over a network in memory",
    )
    parser.add_argument(
        "--interleave",
        action="store_true",
        help="let near timers go off while callbacks are ready, as on a busy machine",
    )
    parser.add_argument("--replay", metavar="SCHEDULE", help="play this one, and tell what happens")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    parser.set_defaults(command="fuzz")
