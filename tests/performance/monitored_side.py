"""``RealtimeService`` with everything on that watches it: database, alerts, Prometheus, a page."""

import asyncio
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from realtime_side import RealtimeSide

from realtime_fsm import RealtimeService
from realtime_fsm.export.collector import RealtimeCollector
from realtime_fsm.monitoring.alerting import Alerts, LogSink
from realtime_fsm.monitoring.database import MetricsDatabase
from realtime_fsm.web import serve_status_page

_SCRAPE_INTERVAL: Final = 1.0
"""Seconds; fifteen times as often as Prometheus does by default, because a round is short."""

_READER: Final = "import sys, urllib.request\nfor line in urllib.request.urlopen(sys.argv[1]): pass"


class MonitoredSide(RealtimeSide):
    """A client of this library, watched by all that it has to offer."""

    async def connect(self) -> None:
        """Connect, and begin to watch."""
        await super().connect()
        self._watching = AsyncExitStack()
        await self._watching.enter_async_context(watched(self._realtime))

    async def close(self) -> None:
        """Stop watching, and disconnect."""
        await self._watching.aclose()
        await super().close()


@asynccontextmanager
async def watched(realtime: RealtimeService) -> AsyncIterator[None]:
    """Watch a client while the context lasts."""
    with tempfile.TemporaryDirectory() as folder:
        async with (
            MetricsDatabase(Path(folder) / "metrics.db") as database,
            Alerts(realtime, sinks=[LogSink()]),
            serve_status_page(realtime) as page,
            _reader(f"{page.url}events"),
            _scraped(realtime),
        ):
            database.attach(realtime)
            if not await page.opened(within=10.0):
                raise RuntimeError("the reader did not open the page")
            yield


@asynccontextmanager
async def _reader(url: str) -> AsyncIterator[None]:
    """Read the page's stream in a process of its own, as a browser does."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _READER, url, stdin=PIPE, stderr=DEVNULL
    )
    try:
        yield
    finally:
        child.kill()
        await child.wait()


@asynccontextmanager
async def _scraped(realtime: RealtimeService) -> AsyncIterator[None]:
    registry = CollectorRegistry()
    registry.register(RealtimeCollector(realtime))

    async def scrape() -> Any:
        while True:
            await asyncio.sleep(_SCRAPE_INTERVAL)
            generate_latest(registry)

    task = asyncio.create_task(scrape())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
