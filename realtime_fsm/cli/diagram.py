"""``realtime-fsm diagram``: the state machine as a picture or a table."""

import shlex
import sys
from pathlib import Path

from attrs import frozen

from realtime_fsm.cli.arguments import EXIT_FAILED, EXIT_OK, EXIT_USAGE
from realtime_fsm.diagram import render

_ONLY_DRAWN = ("svg", "png")


@frozen(kw_only=True)
class Request:
    """What is asked for; each is the option of its name, ``None`` where it is not given."""

    format: str
    direction: str | None = None
    highlight: str | None = None
    history: Path | None = None
    theme: str | None = None
    output: Path | None = None

    @property
    def command(self) -> str:
        """The command that asks for it."""
        options = {
            "format": self.format,
            "direction": self.direction,
            "highlight": self.highlight,
            "history": self.history,
            "theme": self.theme,
            "output": self.output,
        }
        words = [
            f"--{name} {shlex.quote(str(value))}" for name, value in options.items() if value is not None
        ]
        return " ".join(["realtime-fsm diagram", *words])


def run_diagram(request: Request, *, check: bool) -> int:
    """Print a picture, write it to a file, or compare it with one; return the exit code.

    Args:
        request: What is asked for.
        check: Whether to compare only.
    """
    if check and request.output is None:
        return _refused("--check needs --output FILE, the file to be checked.")
    if request.theme is not None and request.format not in _ONLY_DRAWN:
        return _refused(f"--theme is for --format {' and '.join(_ONLY_DRAWN)}.")
    if request.format == "png" and request.output is None and sys.stdout.isatty():
        return _refused("a PNG is nothing for a terminal: add --output FILE.")
    drawn = render(
        format=request.format,
        direction=request.direction,
        highlight=None if request.highlight is None else request.highlight.lower(),  # as the picture has it
        history=request.history,
        theme=request.theme,
    )
    data = drawn if isinstance(drawn, bytes) else drawn.encode()
    if request.output is None:
        return _printed(data)
    return _checked(request, request.output, data) if check else _written(request.output, data)


def _printed(data: bytes) -> int:
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
    return EXIT_OK


def _written(path: Path, data: bytes) -> int:
    try:
        path.write_bytes(data)
    except OSError as error:
        sys.stderr.write(f"realtime-fsm: {path} cannot be written: {error.strerror}.\n")
        return EXIT_FAILED
    return EXIT_OK


def _checked(request: Request, path: Path, data: bytes) -> int:
    if path.is_file() and path.read_bytes() == data:
        return EXIT_OK
    sys.stderr.write(f"realtime-fsm: {path} is stale; renew it: {request.command}\n")
    return EXIT_FAILED


def _refused(why: str) -> int:
    sys.stderr.write(f"realtime-fsm: {why}\n")
    return EXIT_USAGE
