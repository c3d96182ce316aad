"""The Socket.IO side: what a client may emit, and what it is answered."""

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

import socketio

from realtime_fsm.machine.errors import ErrorCategory, ServerUnavailableError
from realtime_fsm.server.answer import Answer, refusal
from realtime_fsm.server.channel_request import RequestError, read_names, read_requests
from realtime_fsm.server.channels import Channels
from realtime_fsm.server.config import BackendConfig
from realtime_fsm.server.envelope import split_arguments
from realtime_fsm.server.message_router import MessageRouter
from realtime_fsm.server.session import Session, Sessions
from realtime_fsm.server.session_watch import SessionWatch
from realtime_fsm.server.socketio_server import NAMELESS, SocketIOServer
from realtime_fsm.server.token import TOKEN_INVALID, Identity, TokenRefusedError, Verifier

_RETRY_AFTER: Final = 5.0
"""Seconds that a client is asked to wait when the server is full."""

_logger = logging.getLogger("realtime_fsm.server")


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
