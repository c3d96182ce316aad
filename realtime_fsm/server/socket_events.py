"""The Socket.IO side: the events of the reference dialect, and the end of connections that must not go on."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import socketio
from aiohttp import web
from attrs import frozen

from realtime_fsm.machine.errors import ErrorCategory, ServerUnavailableError
from realtime_fsm.server.channels import Channels
from realtime_fsm.server.config import BackendConfig
from realtime_fsm.server.request import (
    Answer,
    RequestError,
    read_names,
    read_requests,
    refusal,
    split_arguments,
)
from realtime_fsm.server.router import MessageRouter
from realtime_fsm.server.session import Session, Sessions
from realtime_fsm.server.socketio_server import NAMELESS, SocketIOServer
from realtime_fsm.server.token import TOKEN_INVALID, Identity, TokenRefusedError, Verifier

_GRACE: Final = 1.0
"""Seconds that a client has to close a connection itself, once its session has ended."""

_RETRY_AFTER: Final = 5.0
"""Seconds that a client is asked to wait when the server is full."""

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
    """Ends connections: of expired tokens, of clients that cannot keep up, of those without a name.

    ``run`` lasts as long as the server.

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


class SocketEvents:
    """Handles what comes over the socket. What cannot be handled any more is not acknowledged.

    Args:
        config: The limits.
        server: Where it comes from.
        sessions: Who is connected.
        watch: Told of sessions that ended or must end.
        verifier: Says whose a token is.
        channels: What is subscribed to.
        router: What the application's messages go through.
    """

    def __init__(
        self,
        config: BackendConfig,
        server: SocketIOServer,
        sessions: Sessions,
        watch: SessionWatch,
        *,
        verifier: Verifier,
        channels: Channels,
        router: MessageRouter,
    ) -> None:
        self._config = config
        self._server = server
        self._sessions = sessions
        self._watch = watch
        self._verifier = verifier
        self._channels = channels
        self._router = router
        handlers: dict[str, Callable[..., Any]] = {
            "connect": self._connect,
            "disconnect": self._disconnect,
            "heartbeat": self._heartbeat,
            "reauthenticate": self._reauthenticate,
            "subscribe": self._subscribe,
            "unsubscribe": self._unsubscribe,
            "monitor_bookings": self._monitor_bookings,
            "*": self._message,
        }
        for event, handler in handlers.items():
            server.on(event, handler)

    def _connect(self, sid: str, environ: Mapping[str, Any], auth: Any = None) -> None:
        if self._server.eio.is_closing or len(self._sessions) >= self._config.max_clients:
            raise _refused(
                ErrorCategory.CONNECTION, "unavailable", "The server is full, or stops.", _RETRY_AFTER
            )
        try:
            identity = self._verify(auth)
        except TokenRefusedError as error:
            _logger.info("a client is refused: %s", error.code)
            raise _refused(ErrorCategory.AUTHENTICATION, error.code, error.message, None) from None
        session = Session(
            sid=sid,
            engine_sid=self._server.engine_sid(sid),
            request=environ["aiohttp.request"],
            identity=identity,
        )
        self._sessions.add(session)
        _logger.debug("%s (%s) is connected", sid, identity.subject)

    def _disconnect(self, sid: str, reason: str) -> None:
        session = self._sessions.remove(sid)
        if session is not None:
            self._watch.released(session)
            _logger.debug("%s is disconnected: %s", sid, reason)

    def _heartbeat(self, _: str, *__: Any) -> Answer:
        return {"ok": True}

    def _reauthenticate(self, sid: str, body: Any = None, *_: Any) -> Any:
        session = self._sessions.get(sid)
        if session is None:
            return self._server.not_handled
        try:
            identity = self._verify(body)
        except TokenRefusedError as error:
            return refusal(ErrorCategory.AUTHENTICATION, error.code, error.message)
        if identity.subject != session.identity.subject:
            told = "The token is of another subject."
            return refusal(ErrorCategory.AUTHENTICATION, TOKEN_INVALID, told)
        session.identity = identity
        return {"ok": True, "expires_at": identity.expires_at}

    async def _subscribe(self, sid: str, body: Any = None, *_: Any) -> Any:
        return await self._join(sid, body, "channels")

    async def _monitor_bookings(self, sid: str, body: Any = None, *_: Any) -> Any:
        return await self._join(sid, body, "booking_ids")

    async def _join(self, sid: str, body: Any, key: str) -> Any:
        session = self._sessions.get(sid)
        if session is None:
            return self._server.not_handled
        try:
            return await self._channels.subscribe(session, read_requests(body, key))
        except RequestError as error:
            return {"ok": False, "error": error.problem}

    async def _unsubscribe(self, sid: str, body: Any = None, *_: Any) -> Any:
        session = self._sessions.get(sid)
        if session is None:
            return self._server.not_handled
        try:
            return await self._channels.unsubscribe(session, read_names(body, "channels"))
        except RequestError as error:
            return {"ok": False, "error": error.problem}

    async def _message(self, event: str, sid: str, *args: Any) -> Any:
        session = self._sessions.get(sid)
        if session is None:
            return self._server.not_handled
        if event == NAMELESS:
            told = "The event has no name that may be used."
            return refusal(ErrorCategory.PROTOCOL, "invalid_event", told)
        number = session.messages
        session.messages += 1
        try:
            envelope, rest = split_arguments(args)
        except RequestError as error:
            return {"ok": False, "error": error.problem}
        client = session.client(envelope)
        try:
            async with self._router.turn(client.subject):
                if number > session.refused_from:
                    return self._server.not_handled
                return await self._router.handle(client, event, rest)
        except ServerUnavailableError as error:
            session.refused_from = min(session.refused_from, number)
            self._watch.condemn(session, error.message)
            return self._server.not_handled

    def _verify(self, body: Any) -> Identity:
        return self._verifier.verify(body.get("token") if isinstance(body, Mapping) else None)


def _refused(category: ErrorCategory, code: str, text: str, retry_after: float | None) -> Exception:
    """Return what python-socketio turns into a CONNECT_ERROR."""
    data = {"category": category.value, "code": code, "retry_after": retry_after}
    return socketio.exceptions.ConnectionRefusedError(text, data)  # type: ignore[no-any-return]
