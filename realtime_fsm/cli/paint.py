"""Output for a terminal, a pipe or a file: colour only where a person looks and has not declined it."""

import io
import os
import sys
from pathlib import Path
from typing import Final, TextIO

from attrs import define, field

from realtime_fsm.cli.arguments import EXIT_FAILED, EXIT_OK
from realtime_fsm.machine.table import TRAITS, ConnectionStatus, Severity

_RESET: Final = "\033[0m"
_CODES: Final = {
    "dim": "\033[2m",
    "bold": "\033[1m",
    "green": "\033[32m",
    "yellow": "\033[33m",
    "red": "\033[31m",
}

GLYPHS: Final = {
    ConnectionStatus.DISCONNECTED: "○",
    ConnectionStatus.CONNECTING: "◔",
    ConnectionStatus.CONNECTED: "●",
    ConnectionStatus.RECONNECTING: "◑",
    ConnectionStatus.FAILED: "✗",
    ConnectionStatus.FALLBACK: "◆",
}
"""One glyph per state, so that colour is never the only sign."""


def style_of(status: ConnectionStatus) -> str:
    """Return the style of a state: the colour of its severity."""
    traits = TRAITS[status]
    return {Severity.WARNING: "yellow", Severity.ERROR: "red"}.get(
        traits.severity, "green" if traits.sends else "dim"
    )


def wants_colour(stream: TextIO) -> bool:
    """Tell whether to colour: not in a pipe, and not where ``NO_COLOR`` is set (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def make_printable() -> None:
    """Let everything be printed: where the output's encoding lacks a sign, its number stands for it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def printable(text: str) -> str:
    """Return a text that cannot command the terminal: it may come from a server."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def discard_output() -> None:
    """Print nothing more: nobody reads it. Python itself would complain of that at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, sys.stdout.fileno())
    finally:
        os.close(nowhere)


def write_file(path: Path, data: bytes) -> int:
    """Write a file that was asked for; return the exit code."""
    try:
        path.write_bytes(data)
    except OSError as error:
        sys.stderr.write(f"realtime-fsm: {path} cannot be written: {error.strerror}.\n")
        return EXIT_FAILED
    return EXIT_OK


@define
class Painter:
    """Writes lines to a stream, coloured where that is wanted.

    Attributes:
        stream: Where to.
        colour: Whether to colour.
    """

    stream: TextIO = field(factory=lambda: sys.stdout)
    colour: bool = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.colour = wants_colour(self.stream)

    def paint(self, text: str, *styles: str) -> str:
        """Return ``text`` in styles such as ``bold`` or ``red``."""
        if not self.colour or not styles:
            return text
        return "".join(_CODES[style] for style in styles) + text + _RESET

    def status(self, status: ConnectionStatus) -> str:
        """Return a state as a glyph and a word, in the colour of its severity."""
        return self.paint(f"{GLYPHS[status]} {status:<12}", style_of(status))

    def line(self, text: str = "") -> None:
        """Write a line at once, so that a pipe sees it too."""
        self.stream.write(text + "\n")
        self.stream.flush()
