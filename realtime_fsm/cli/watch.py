"""``realtime-fsm watch``: shows how a connection fares, live in a terminal, or in lines for whatever else."""

import argparse
import asyncio
import json
import os
import shutil
import sys
import time
from typing import Any, Final, Protocol

from attrs import define, field, frozen

from realtime_fsm.cli.arguments import EXIT_OK, EXIT_UNREACHABLE
from realtime_fsm.cli.client import end_at_sigterm, exit_code_of, keep_connected, make_client, while_read
from realtime_fsm.cli.paint import Painter
from realtime_fsm.cli.watch_view import change_line, figures_line, frame, painted
from realtime_fsm.machine.errors import RealtimeError
from realtime_fsm.machine.record import StatusChange
from realtime_fsm.machine.table import ConnectionStatus
from realtime_fsm.monitoring.narration import narrate
from realtime_fsm.service import RealtimeService
from realtime_fsm.web.snapshot import change_json, view

_LIVE_EVERY: Final = 0.25
_LINES_EVERY: Final = 10.0

_BEGIN: Final = "\033[?1049h\033[?25l"  # a screen of its own, without a cursor
_END: Final = "\033[?25h\033[?1049l"


def run_watch(parsed: argparse.Namespace) -> int:
    """Watch until interrupted, or for as long as is asked for; return the exit code."""
    try:
        return asyncio.run(_watch(parsed))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return EXIT_OK  # being stopped is how this command is meant to end


async def _watch(parsed: argparse.Namespace) -> int:
    task = end_at_sigterm()
    realtime = make_client(parsed)
    display = _display(realtime, as_json=parsed.json)
    unsubscribe = realtime.connection_status.subscribe(while_read(display.change, task))
    running = {
        asyncio.create_task(keep_connected(realtime, parsed.channel)),
        asyncio.create_task(_keep_showing(display, display.every if parsed.every is None else parsed.every)),
    }
    failure: RealtimeError | None = None
    try:
        display.begin()
        ended, _ = await asyncio.wait(running, timeout=parsed.bound, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(0)  # what led to it is shown first
        for one in ended:
            one.result()
        return EXIT_OK if realtime.health().ready else EXIT_UNREACHABLE
    except RealtimeError as error:
        failure = error
        return exit_code_of(error)
    finally:
        unsubscribe()
        try:
            display.end()
            if failure is not None:
                sys.stderr.write(f"realtime-fsm: {failure}\n")
        finally:
            for one in running:
                one.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            await realtime.disconnect()


async def _keep_showing(display: "_Display", every: float) -> None:
    while True:
        await asyncio.sleep(every)
        display.figures()


@frozen
class _Seen:
    """The part of a snapshot that a change is told of."""

    status: ConnectionStatus
    messages_waiting: int


@define
class _Source:
    """A client, as the status page shows it."""

    realtime: RealtimeService

    def view(self) -> dict[str, Any]:
        """Return the state of the client."""
        return view(self.realtime, now=time.time())

    def changes(self) -> list[dict[str, Any]]:
        """Return the changes, the oldest first."""
        return [change_json(change) for change in self.realtime.connection_status.history]

    def words(self, change: StatusChange) -> str:
        """Return in words the meaning of a change, and what happens next."""
        seen = _Seen(change.current, self.realtime.metrics.messages_waiting)
        told = narrate(seen, change, self.realtime.config, next_attempt_in=change.retry_in)
        return f"{told.headline} {told.next}"


class _Display(Protocol):
    """A place where a client is shown.

    Attributes:
        every: Seconds between two showings of the figures, unless told otherwise.
    """

    every: float

    def begin(self) -> None:
        """Show that it has begun."""

    def change(self, change: StatusChange) -> None:
        """Show that the status has changed."""

    def figures(self) -> None:
        """Show how it stands."""

    def end(self) -> None:
        """Show how it stands in the end."""


def _display(realtime: RealtimeService, *, as_json: bool) -> _Display:
    source = _Source(realtime)
    if as_json:
        return _Json(source)
    is_live = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    return _Live(source) if is_live else _Lines(source)


@define
class _Live:
    """One view that is drawn over and over on a screen of its own; the last one stays in the end."""

    source: _Source
    painter: Painter = field(factory=Painter)
    every: float = _LIVE_EVERY

    def begin(self) -> None:
        """Take the screen, and draw the first view."""
        self.painter.stream.write(_BEGIN)
        self.figures()

    def change(self, change: StatusChange) -> None:
        """Draw it anew: the change is in it."""
        del change
        self.figures()

    def figures(self) -> None:
        """Draw it anew, line by line, so that nothing flickers and nothing scrolls."""
        drawn = [f"\033[{row}H{text}\033[K" for row, text in enumerate(self._lines(), start=1)]
        self.painter.stream.write("".join(drawn) + "\033[J")
        self.painter.stream.flush()

    def end(self) -> None:
        """Give the screen back, and leave the last view on it."""
        self.painter.stream.write(_END)
        for text in self._lines():
            self.painter.line(text)

    def _lines(self) -> list[str]:
        width, height = shutil.get_terminal_size()
        lines = frame(self.source.view(), self.source.changes(), width=width, height=height - 1)
        return [painted(line, self.painter, width - 1) for line in lines]


@define
class _Lines:
    """A line for each change, and for the figures now and then."""

    source: _Source
    painter: Painter = field(factory=Painter)
    every: float = _LINES_EVERY

    def begin(self) -> None:
        """Say nothing: nothing has happened."""

    def change(self, change: StatusChange) -> None:
        """Print it, with what happens next."""
        self.painter.line(painted(change_line(change_json(change), self.source.words(change)), self.painter))

    def figures(self) -> None:
        """Print the figures as one line."""
        self.painter.line(painted(figures_line(self.source.view()), self.painter))

    def end(self) -> None:
        """Print the figures of the end."""
        self.figures()


@define
class _Json:
    """An object a line: ``kind`` is ``status`` for a change, as ``listen`` has it, or ``view``."""

    source: _Source
    painter: Painter = field(factory=Painter)
    every: float = _LINES_EVERY

    def begin(self) -> None:
        """Say nothing: nothing has happened."""

    def change(self, change: StatusChange) -> None:
        """Print a change of the status."""
        self._print("status", change_json(change))

    def figures(self) -> None:
        """Print where it stands."""
        self._print("view", self.source.view())

    def end(self) -> None:
        """Print where it stands in the end."""
        self.figures()

    def _print(self, kind: str, record: dict[str, Any]) -> None:
        self.painter.line(json.dumps({"kind": kind, **record}, ensure_ascii=False))
