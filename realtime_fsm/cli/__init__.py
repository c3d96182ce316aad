"""The command line, ``realtime-fsm COMMAND``: demo, listen, watch, doctor, report, serve, and more.

Each command imports what it needs only when it runs: ``--help`` and ``diagram`` never load the network
libraries.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from realtime_fsm.cli.arguments import (
    DOCTOR_EXAMPLES,
    EXIT_CODES,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USAGE,
    REPORT_EXAMPLES,
    WATCH_EXAMPLES,
    Commands,
    add_client_arguments,
    add_command,
    add_doctor_arguments,
    add_outbox,
    add_report_arguments,
    add_watch_arguments,
    client_request,
    seconds,
)
from realtime_fsm.cli.paint import discard_output, make_printable
from realtime_fsm.machine.errors import MissingExtraError, RealtimeError

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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code. Errors of the library are one line on stderr."""
    make_printable()
    try:
        return _run(arguments)
    except BrokenPipeError:  # `realtime-fsm outbox list ... | head`
        discard_output()
        return EXIT_OK
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _run(arguments: Sequence[str] | None) -> int:
    try:
        parsed = command_line_parser().parse_args(arguments)
        code: int = parsed.run(parsed)
    except MissingExtraError as error:
        sys.stderr.write(f"realtime-fsm: {error}\n")
        return EXIT_USAGE
    except RealtimeError as error:
        sys.stderr.write(f"realtime-fsm: {error}\n")
        return EXIT_USAGE if isinstance(error, ValueError) else EXIT_FAILED
    finally:
        sys.stdout.flush()  # here, where it is known what to do about a pipe that nobody reads
    return code


def command_line_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    root = argparse.ArgumentParser(
        prog="realtime-fsm",
        description=_DESCRIPTION,
        epilog=_EPILOG + EXIT_CODES,
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
    add_outbox(commands)
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


def _add_demo(commands: "Commands[argparse.ArgumentParser]") -> None:
    parser = add_command(
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
    parser.set_defaults(run=_demo)


def _add_web(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--web", action="store_true", help="serve the status page on this machine")
    parser.add_argument(
        "--port", type=int, default=0, metavar="N", help="with --web: where; 0 picks one (default: 0)"
    )


def _add_listen(commands: "Commands[argparse.ArgumentParser]") -> None:
    parser = add_command(
        commands,
        "listen",
        "connect to a Socket.IO server and print status changes and events until Ctrl-C",
        "  realtime-fsm listen http://localhost:3001\n"
        "  realtime-fsm listen https://example.org --channel bookings --channel prices\n"
        "  TOKEN=... realtime-fsm listen https://example.org --token-env TOKEN --json\n"
        "  realtime-fsm listen https://example.org --web --port 9102\n",
    )
    add_client_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    _add_web(parser)
    parser.set_defaults(run=_listen)


def _add_watch(commands: "Commands[argparse.ArgumentParser]") -> None:
    parser = add_command(
        commands, "watch", "watch live how a connection to a Socket.IO server fares", WATCH_EXAMPLES
    )
    add_watch_arguments(parser)


def _add_doctor(commands: "Commands[argparse.ArgumentParser]") -> None:
    parser = add_command(
        commands,
        "doctor",
        "find out what is wrong between here and a Socket.IO server, and what to do about it",
        DOCTOR_EXAMPLES,
    )
    add_doctor_arguments(parser)


def _add_report(commands: "Commands[argparse.ArgumentParser]") -> None:
    parser = add_command(
        commands,
        "report",
        "tell from a metrics database how available clients were, what failed, and which is better",
        REPORT_EXAMPLES,
    )
    add_report_arguments(parser)


def _add_diagram(commands: "Commands[argparse.ArgumentParser]") -> None:
    parser = add_command(
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
    parser.set_defaults(run=_diagram)


def _add_serve(commands: "Commands[argparse.ArgumentParser]") -> None:
    parser = add_command(
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
    parser.set_defaults(run=_serve)


def _add_fuzz(commands: "Commands[argparse.ArgumentParser]") -> None:
    parser = add_command(
        commands,
        "fuzz",
        "play schedules of faults on the whole engine, until one breaks a promise",
        "  realtime-fsm fuzz\n"
        "  realtime-fsm fuzz --seeds 200000 --json\n"
        "  realtime-fsm fuzz --full-stack --seeds 2000\n"
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
    parser.add_argument("--replay", metavar="SCHEDULE", help="play this one, and tell what happens")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    parser.set_defaults(run=_fuzz)


def _demo(parsed: argparse.Namespace) -> int:
    from realtime_fsm.cli.demo import run_demo  # noqa: PLC0415

    return run_demo(as_json=parsed.json, web_port=parsed.port if parsed.web else None, pace=parsed.pace)


def _listen(parsed: argparse.Namespace) -> int:
    from realtime_fsm.cli.listen import run_listen  # noqa: PLC0415

    request = client_request(parsed)
    return run_listen(request, as_json=parsed.json, web_port=parsed.port if parsed.web else None)


def _diagram(parsed: argparse.Namespace) -> int:
    from realtime_fsm.cli.diagram import Request, run_diagram  # noqa: PLC0415

    request = Request(
        format=parsed.format,
        direction=parsed.direction,
        highlight=parsed.highlight,
        history=parsed.history,
        theme=parsed.theme,
        output=parsed.output,
    )
    return run_diagram(request, check=parsed.check)


def _serve(parsed: argparse.Namespace) -> int:
    from realtime_fsm.server import BackendConfig, serve  # noqa: PLC0415

    given = {} if parsed.ledger is None else {"ledger_path": parsed.ledger}
    serve(BackendConfig.from_env(host=parsed.host, port=parsed.port, **given))
    return EXIT_OK


def _fuzz(parsed: argparse.Namespace) -> int:
    from realtime_fsm.cli.fuzz import run_fuzz  # noqa: PLC0415

    return run_fuzz(
        seeds=parsed.seeds,
        first=parsed.first,
        replay=parsed.replay,
        full_stack=parsed.full_stack,
        as_json=parsed.json,
    )
