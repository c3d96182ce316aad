"""``realtime-fsm listen``: prints what a server says, and how the connection to it fares."""

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from attrs import define, field

from realtime_fsm.cli.arguments import EXIT_OK
from realtime_fsm.cli.client import end_at_sigterm, exit_code_of, keep_connected, make_client, while_read
from realtime_fsm.cli.paint import Painter, printable
from realtime_fsm.machine.errors import RealtimeError
from realtime_fsm.machine.record import StatusChange
from realtime_fsm.service import RealtimeService


def run_listen(parsed: argparse.Namespace) -> int:
    """Listen until interrupted; return the exit code."""
    try:
        return asyncio.run(_listen(parsed))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return EXIT_OK  # being stopped is how this command is meant to end


async def _listen(parsed: argparse.Namespace) -> int:
    task = end_at_sigterm()
    printer = _JsonPrinter() if parsed.json else _LinePrinter()
    realtime = make_client(parsed)
    realtime.on("*", while_read(printer.event, task))
    realtime.connection_status.subscribe(while_read(printer.change, task))
    try:
        async with _page(realtime, parsed.port if parsed.web else None):
            await keep_connected(realtime, parsed.channel)
    except RealtimeError as error:
        if isinstance(error, ValueError):  # wrong usage: the port of the page is taken
            raise
        await asyncio.sleep(0)  # what led to it is printed first
        sys.stderr.write(f"realtime-fsm: {error}\n")
        return exit_code_of(error)
    finally:
        await realtime.disconnect()
        await asyncio.sleep(0)  # callbacks run in the loop's next turn
    return EXIT_OK


@asynccontextmanager
async def _page(realtime: RealtimeService, port: int | None) -> AsyncIterator[None]:
    """Serve the status page where it is asked for, and say where; stdout is for what is listened to."""
    if port is None:
        yield
        return
    from realtime_fsm.web import serve_status_page  # noqa: PLC0415 - only who wants it pays for it

    async with serve_status_page(realtime, port=port) as page:
        sys.stderr.write(f"The status page is at {page.url}\n")
        sys.stderr.flush()
        yield


class _LinePrinter:
    """One line per status change and event, for people."""

    def __init__(self) -> None:
        self._painter = Painter()

    def change(self, change: StatusChange) -> None:
        """Print a status change."""
        then = "" if change.retry_in is None else f"; next attempt in {change.retry_in:.1f} s"
        clock = datetime.fromtimestamp(change.at, tz=UTC).astimezone().strftime("%H:%M:%S")
        painter = self._painter
        reason = printable(change.reason)
        painter.line(f"{painter.paint(clock, 'dim')} {painter.status(change.current)} {reason}{then}")

    def event(self, name: str, *args: Any) -> None:
        """Print an event with its arguments."""
        clock = datetime.now(tz=UTC).astimezone().strftime("%H:%M:%S")
        data = " ".join(printable(_shown(arg)) for arg in args)
        name = self._painter.paint(printable(name), "bold")
        self._painter.line(f"{self._painter.paint(clock, 'dim')} {name} {data}")


@define
class _JsonPrinter:
    """One JSON object per line, for programs."""

    painter: Painter = field(factory=Painter)

    def change(self, change: StatusChange) -> None:
        """Print a status change."""
        self._print(
            kind="status",
            at=change.at,
            previous=change.previous,
            current=change.current,
            trigger=change.trigger,
            reason=change.reason,
            attempt=change.attempt,
            retry_in=change.retry_in,
        )

    def event(self, name: str, *args: Any) -> None:
        """Print an event; binary parts as their length."""
        self._print(kind="event", at=datetime.now(tz=UTC).timestamp(), event=name, args=list(args))

    def _print(self, **record: Any) -> None:
        self.painter.line(json.dumps(record, default=_described, ensure_ascii=False))


def _shown(value: Any) -> str:
    return json.dumps(value, default=_described, ensure_ascii=False)


def _described(value: object) -> object:
    return f"<{len(value)} bytes>" if isinstance(value, bytes) else repr(value)
