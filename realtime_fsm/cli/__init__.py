"""The command line, ``realtime-fsm COMMAND``: demo, listen, watch, doctor, report, serve, and more.

Each command is imported only when it runs: ``--help`` and ``diagram`` never load the network libraries.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final

from realtime_fsm.cli.arguments import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE, command_line_parser
from realtime_fsm.cli.paint import discard_output, make_printable
from realtime_fsm.machine.errors import MissingExtraError, RealtimeError

__all__ = ["command_line_parser", "main"]

_COMMANDS: Final = {
    "demo": "realtime_fsm.cli.demo:run_demo",
    "listen": "realtime_fsm.cli.listen:run_listen",
    "watch": "realtime_fsm.cli.watch:run_watch",
    "doctor": "realtime_fsm.cli.doctor:run_doctor",
    "report": "realtime_fsm.cli.report:run_report",
    "diagram": "realtime_fsm.cli.diagram:run_diagram",
    "serve": "realtime_fsm.cli:run_serve",
    "outbox list": "realtime_fsm.cli.outbox:run_list",
    "outbox retry": "realtime_fsm.cli.outbox:run_change",
    "outbox drop": "realtime_fsm.cli.outbox:run_change",
    "fuzz": "realtime_fsm.cli.fuzz:run_fuzz",
}
"""The function that runs each command: it takes what was parsed, and returns the exit code."""


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
        module, _, function = _COMMANDS[parsed.command].partition(":")
        code: int = getattr(import_module(module), function)(parsed)
    except MissingExtraError as error:
        sys.stderr.write(f"realtime-fsm: {error}\n")
        return EXIT_USAGE
    except RealtimeError as error:
        sys.stderr.write(f"realtime-fsm: {error}\n")
        return EXIT_USAGE if isinstance(error, ValueError) else EXIT_FAILED
    finally:
        sys.stdout.flush()  # here, where it is known what to do about a pipe that nobody reads
    return code


def run_serve(parsed: argparse.Namespace) -> int:
    """Serve the reference backend until it is stopped; return the exit code."""
    from realtime_fsm.server import BackendConfig, serve  # noqa: PLC0415 - it loads the network libraries

    given = {} if parsed.ledger is None else {"ledger_path": parsed.ledger}
    serve(BackendConfig.from_env(host=parsed.host, port=parsed.port, **given))
    return EXIT_OK
