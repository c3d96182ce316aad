"""The page on a port of its own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from aiohttp import web
from attrs import frozen

from realtime_fsm.machine.errors import ConfigurationError
from realtime_fsm.service import RealtimeService
from realtime_fsm.web.actions import is_loopback
from realtime_fsm.web.application import HUB, status_application
from realtime_fsm.web.events import EventHub, Traffic

LOOPBACK: Final = "127.0.0.1"
_LOCAL_NAMES: Final = ("localhost", LOOPBACK, "::1")
_SHUTDOWN: Final = 1.0


@frozen
class StatusPage:
    """A page that is being served.

    Attributes:
        url: Where.
    """

    url: str
    _hub: EventHub

    @property
    def traffic(self) -> Traffic:
        """What its streams counted."""
        return self._hub.traffic

    async def opened(self, within: float) -> bool:
        """Wait until somebody has opened the page, for so many seconds; return whether anybody has."""
        try:
            async with asyncio.timeout(within):
                await self._hub.watched.wait()
        except TimeoutError:
            return False
        return True

    def announce(self, text: str) -> None:
        """Show a note on the page, and among the changes: what the program does just now."""
        self._hub.announce(text)


@asynccontextmanager
async def serve_status_page(
    realtime: RealtimeService, *, host: str = LOOPBACK, port: int = 0, **options: Any
) -> AsyncIterator[StatusPage]:
    """Serve the status page of a client while the context lasts.

    ::

        async with RealtimeService(config) as realtime, serve_status_page(realtime, port=9102) as page:
            print(page.url)

    Args:
        realtime: The client.
        host: Where to listen; by default only for this machine, and then only under names of this machine.
        port: Of it; 0 picks one.
        options: As of ``status_application``.

    Raises:
        ConfigurationError: If nothing can listen there.
    """
    if is_loopback(host):
        options.setdefault("hosts", (*_LOCAL_NAMES, host))
    application = status_application(realtime, **options)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=_SHUTDOWN)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise ConfigurationError(
                f"nothing can listen at host={host!r}, port={port}: {error.strerror or error}"
            ) from error
        where, bound, *_ = runner.addresses[0]
        shown = f"[{where}]" if ":" in where else where
        yield StatusPage(f"http://{shown}:{bound}/", application[HUB])
    finally:
        await runner.cleanup()
