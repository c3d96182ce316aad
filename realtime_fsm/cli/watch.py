"""``realtime-fsm watch``: a live view of a connection, or plain lines where nobody looks."""

import asyncio
import json
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from realtime_fsm.cli.exit_code import EXIT_OK, EXIT_REFUSED, EXIT_UNREACHABLE
from realtime_fsm.cli.listen import token_of
from realtime_fsm.cli.paint import GLYPHS, Painter
from realtime_fsm.cli.watch_view import Signs, change_line, figures_line, screen
from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.machine.errors import ErrorCategory, RealtimeError, SubscriptionRefusedError
from realtime_fsm.machine.record import StatusChange
from realtime_fsm.service import RealtimeService
from realtime_fsm.web.snapshot import change_json, view

_PACE: Final = 0.25
"""Seconds between two pictures on a terminal."""

_FIGURES_EVERY: Final = 10.0
"""Seconds between two lines of figures where nobody looks."""

_HIDE_CURSOR, _SHOW_CURSOR = "\033[?25l", "\033[?25h"
_CLEAR_REST: Final = "\033[K"
_CLEAR_BELOW: Final = "\033[J"


def run_watch(
    url: str,
    *,
    channels: list[str],
    namespace: str,
    dialect: str,
    token_env: str | None,
    seconds: float | None,
    as_json: bool,
) -> int:
    """Watch until interrupted, or for some seconds; return the exit code.

    Raises:
        ConfigurationError: If an argument makes no sense.
    """
    token = token_of(token_env)
    config = RealtimeConfig.from_env(server_url=url, namespace=namespace, dialect=dialect)
    try:
        return asyncio.run(_watch(config, channels, token, seconds=seconds, as_json=as_json))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return EXIT_OK  # being stopped is how this command is meant to end


async def _watch(
    config: RealtimeConfig,
    channels: list[str],
    token: str | None,
    *,
    seconds: float | None,
    as_json: bool,
) -> int:
    this = asyncio.current_task()
    if this is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    realtime = RealtimeService(config, token=token)
    painter = Painter()
    changes: asyncio.Queue[StatusChange] = asyncio.Queue()
    realtime.connection_status.subscribe(changes.put_nowait)
    live = sys.stdout.isatty() and not as_json
    show = _draw(realtime, painter) if live else _tell(realtime, changes, painter, as_json=as_json)
    showing, staying = asyncio.create_task(show), asyncio.create_task(_stay(realtime, channels))
    tasks = (showing, staying)
    try:
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        staying.cancel()
        if live:
            showing.cancel()  # the picture stays as it was; lines tell of the disconnect too
            await asyncio.wait({showing})
        await realtime.disconnect()
        await asyncio.sleep(0)  # callbacks run in the loop's next turn
        showing.cancel()
        await asyncio.wait(tasks)
    return _code_of([task.exception() for task in tasks if not task.cancelled()])


async def _stay(realtime: RealtimeService, channels: list[str]) -> None:
    """Connect, and stay until it gives up.

    Raises:
        RealtimeError: Why it gave up.
    """
    changes = realtime.changes()
    await realtime.connect()
    if channels:
        await realtime.subscribe(channels)
    async for _ in changes:
        if realtime.gave_up is not None:
            raise realtime.gave_up


def _code_of(errors: list[BaseException | None]) -> int:
    """Say why it ended; return the exit code."""
    for error in errors:
        if isinstance(error, RealtimeError):
            sys.stderr.write(f"realtime-fsm: {error}\n")
            refused = error.category is ErrorCategory.AUTHENTICATION
            return (
                EXIT_REFUSED if refused or isinstance(error, SubscriptionRefusedError) else EXIT_UNREACHABLE
            )
        if error is not None and not isinstance(error, BrokenPipeError):  # nobody reads it any more
            raise error
    return EXIT_OK


async def _tell(
    realtime: RealtimeService, changes: "asyncio.Queue[StatusChange]", painter: Painter, *, as_json: bool
) -> None:
    """Print a line for each change, and the figures now and then."""

    def tell(change: StatusChange) -> None:
        told = change_json(change)
        painter.line(_json(kind="status", **told) if as_json else change_line(told, painter))

    try:
        while True:
            try:
                async with asyncio.timeout(_FIGURES_EVERY):
                    tell(await changes.get())
            except TimeoutError:
                seen = view(realtime, now=time.time())
                painter.line(_json(kind="view", **seen) if as_json else figures_line(seen, painter))
    finally:
        while not changes.empty():  # what led to the end is printed too
            tell(changes.get_nowait())


async def _draw(realtime: RealtimeService, painter: Painter) -> None:
    """Draw the view over and over, in place."""
    with _in_place(painter) as draw:
        try:
            while True:
                draw(realtime)
                await asyncio.sleep(_PACE)
        finally:
            draw(realtime)  # what led to the end stays to be read


@contextmanager
def _in_place(painter: Painter) -> Iterator[Any]:
    """Give what draws over what it has drawn; the cursor comes back, whatever happens."""
    drawn = 0
    unicode = _can_print("".join(GLYPHS.values()), painter)

    def draw(realtime: RealtimeService) -> None:
        nonlocal drawn
        size = shutil.get_terminal_size()
        changes = [change_json(change) for change in realtime.connection_status.history]
        seen = view(realtime, now=time.time())
        lines = screen(seen, changes, painter, Signs(size.columns - 1, unicode))[: max(1, size.lines - 1)]
        up = f"\033[{drawn}A" if drawn else ""
        painter.stream.write(up + "".join(f"\r{line}{_CLEAR_REST}\n" for line in lines) + _CLEAR_BELOW)
        painter.stream.flush()
        drawn = len(lines)

    painter.stream.write(_HIDE_CURSOR)
    try:
        yield draw
    finally:
        painter.stream.write(_SHOW_CURSOR)
        painter.stream.flush()


def _can_print(text: str, painter: Painter) -> bool:
    try:
        text.encode(painter.stream.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _json(**told: Any) -> str:
    return json.dumps(told, ensure_ascii=False)
