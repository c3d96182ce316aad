"""Ends connections: of expired tokens, of clients that cannot keep up, of those without a name."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from aiohttp import web
from attrs import frozen

from realtime_fsm.server.config import BackendConfig
from realtime_fsm.server.session import Session, Sessions
from realtime_fsm.server.socketio_server import SocketIOServer

_GRACE: Final = 1.0
"""Seconds that a client has to close a connection itself, once its session has ended."""

_logger = logging.getLogger("realtime_fsm.server")


@frozen
class _Ending:
    """A connection without a session.

    Attributes:
        at: When it is cut, on the monotonic clock.
        request: The one that opened it.
    """

    at: float
    request: web.Request | None


class SessionWatch:
    """Runs beside the server.

    Args:
        config: How often it looks.
        sessions: Whom it looks after.
        server: What the sessions are connected to.
        clock: Seconds since the Unix epoch.
    """

    def __init__(
        self,
        config: BackendConfig,
        sessions: Sessions,
        server: SocketIOServer,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._sessions = sessions
        self._server = server
        self._clock = clock
        self._condemned: dict[str, str] = {}
        self._ending: dict[str, _Ending] = {}
        self._wake = asyncio.Event()

    def condemn(self, session: Session, why: str) -> None:
        """Have a session disconnected, soon."""
        self._condemned.setdefault(session.sid, why)
        self._wake.set()

    def released(self, session: Session) -> None:
        """Note that a session has ended; the connection below it has a moment to end as well."""
        self._condemned.pop(session.sid, None)
        now = asyncio.get_running_loop().time()
        self._ending[session.engine_sid] = _Ending(now + _GRACE, session.request)

    async def run(self) -> None:
        """Look for connections to be ended, until cancelled."""
        while True:
            self._wake.clear()
            try:
                await self._look()
            except Exception:  # the watch must go on, whatever a single connection does
                _logger.exception("the session watch failed, and goes on")
            try:
                async with asyncio.timeout(self._config.expiry_check_interval):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _look(self) -> None:
        now = self._clock()
        for session in self._sessions:
            why = self._condemned.get(session.sid)
            if session.identity.ends_at <= now:
                why = "its token has expired"
            if why is not None and session.is_open:
                _logger.info("%s (%s) is disconnected: %s", session.sid, session.identity.subject, why)
                await self._server.disconnect(session.sid)
        await self._cut_overdue()

    async def _cut_overdue(self) -> None:
        """Cut connections that have no session, and had time to get one or to end."""
        now = asyncio.get_running_loop().time()
        engine = self._server.eio
        with_session = {session.engine_sid for session in self._sessions}
        for engine_sid in [sid for sid in engine.sockets if sid not in with_session]:
            at = now + self._config.connect_timeout
            self._ending.setdefault(engine_sid, _Ending(at, self._request(engine_sid)))
        for engine_sid, ending in list(self._ending.items()):
            if engine_sid in with_session:
                del self._ending[engine_sid]
            elif ending.at <= now:
                del self._ending[engine_sid]
                await engine.cut(engine_sid, ending.request)

    def _request(self, engine_sid: str) -> web.Request | None:
        """Return the request that opened a connection."""
        request = self._server.environ.get(engine_sid, {}).get("aiohttp.request")
        return request if isinstance(request, web.Request) else None
