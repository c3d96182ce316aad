"""``realtime-fsm diagram``: the state machine as a picture or a table."""

import argparse
import shlex
import sys
from pathlib import Path
from typing import Final

from realtime_fsm.cli.arguments import EXIT_FAILED, EXIT_OK, EXIT_USAGE
from realtime_fsm.cli.paint import write_file
from realtime_fsm.diagram import render

_ONLY_DRAWN: Final = ("svg", "png")
_OPTIONS: Final = ("format", "direction", "highlight", "history", "theme", "output")


def run_diagram(parsed: argparse.Namespace) -> int:
    """Print a picture, write it to a file, or compare it with one; return the exit code."""
    if parsed.check and parsed.output is None:
        return _refused("--check needs --output FILE, the file to be checked.")
    if parsed.theme is not None and parsed.format not in _ONLY_DRAWN:
        return _refused(f"--theme is for --format {' and '.join(_ONLY_DRAWN)}.")
    if parsed.format == "png" and parsed.output is None and sys.stdout.isatty():
        return _refused("a PNG is nothing for a terminal: add --output FILE.")
    drawn = render(
        format=parsed.format,
        direction=parsed.direction,
        highlight=None if parsed.highlight is None else parsed.highlight.lower(),  # as the picture has it
        history=parsed.history,
        theme=parsed.theme,
    )
    data = drawn if isinstance(drawn, bytes) else drawn.encode()
    if parsed.output is None:
        return _printed(data)
    return _checked(parsed, data) if parsed.check else write_file(parsed.output, data)


def _printed(data: bytes) -> int:
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
    return EXIT_OK


def _checked(parsed: argparse.Namespace, data: bytes) -> int:
    path: Path = parsed.output
    if path.is_file() and path.read_bytes() == data:
        return EXIT_OK
    sys.stderr.write(f"realtime-fsm: {path} is stale; renew it: {_command(parsed)}\n")
    return EXIT_FAILED


def _command(parsed: argparse.Namespace) -> str:
    """Return the command that makes the picture anew."""
    options = {name: getattr(parsed, name) for name in _OPTIONS}
    words = [f"--{name} {shlex.quote(str(value))}" for name, value in options.items() if value is not None]
    return " ".join(["realtime-fsm diagram", *words])


def _refused(why: str) -> int:
    sys.stderr.write(f"realtime-fsm: {why}\n")
    return EXIT_USAGE
