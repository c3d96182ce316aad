"""How the demo is shown: at full speed for who reads the lines, slowly for who watches the page."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from attrs import define, evolve

from realtime_fsm.cli.demo_report import Narrator
from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.service import RealtimeService
from realtime_fsm.web import StatusPage, serve_status_page

_STEP_LIMIT: Final = 15.0
_WATCHED_STEP_LIMIT: Final = 600.0
"""Somebody may press Pause."""

_OPENING: Final = 20.0
"""Seconds that a person gets to open the page, before the first fault."""

PACE: Final = 3.0
"""Seconds between an end and the next fault, for a person to see that all is well again."""


@define(kw_only=True)
class Show:
    """What the demo is shown with.

    Attributes:
        narrator: Tells it in lines.
        port: Of the page; ``None`` where there is to be none.
        pace: Seconds between a fault's end and the next one, on the page; waits for attempts go with it.
        page: The page, while it is served.
    """

    narrator: Narrator
    port: int | None = None
    pace: float = PACE
    page: StatusPage | None = None

    @property
    def step_limit(self) -> float:
        """Seconds that any one step may take before the demo says that it failed."""
        return _STEP_LIMIT if self.port is None else _WATCHED_STEP_LIMIT

    def paced(self, config: RealtimeConfig) -> RealtimeConfig:
        """Return a configuration with pauses that a person can watch, where somebody does."""
        if self.port is None:
            return config
        long, short = self.pace * 4 / 3, self.pace * 2 / 3
        return evolve(
            config,
            first_retry_within=long,
            backoff_base=short,
            backoff_maximum=long,
            reconnect_interval=long,
        )

    @asynccontextmanager
    async def running(self, realtime: RealtimeService) -> AsyncIterator[None]:
        """Serve the page of the demo's client, and say where; give time to open it."""
        if self.port is None:
            yield
            return
        async with serve_status_page(realtime, port=self.port) as page:
            self.page = page
            # Where stdout is for one JSON object, or for a pipe, a person still has to find the page.
            out = sys.stderr if self.narrator.quiet else sys.stdout
            out.write(f"Watch it at {page.url} (the first fault comes when you are there)\n")
            out.flush()
            page.announce("The demo waits for you, and then begins.")
            await page.opened(_OPENING)
            yield

    def chapter(self, title: str, explanation: str) -> None:
        """Announce a fault."""
        self.narrator.chapter(title, explanation)
        self.note(f"{title[0].upper()}{title[1:]}: {explanation}.")

    def note(self, text: str) -> None:
        """Say something on the page alone."""
        if self.page is not None:
            self.page.announce(text)

    async def look(self) -> None:
        """Give a person time to see what is so now."""
        if self.page is not None:
            await asyncio.sleep(self.pace)

    async def linger(self) -> None:
        """Leave the page as it is until Ctrl-C, where a person watches at a terminal."""
        if self.page is None or not sys.stdout.isatty():
            return
        ended = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, ended.set)
        sys.stdout.write(f"\nThe page stays at {self.page.url} until Ctrl-C.\n")
        await ended.wait()
