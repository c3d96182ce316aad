"""The reference backend's Socket.IO side, and its life."""

import asyncio
import inspect
import logging
import secrets
import signal
import sys
from collections.abc import Callable
from typing import Any, Final, Self, TypeVar, overload

from aiohttp import web
from socketio.exceptions import ConnectionRefusedError as SocketIORefusal

from realtime_fsm.engine.payload import check_event_name
from realtime_fsm.machine.dialect import Dialect
from realtime_fsm.server.channel_log import ChannelLog, Entry
from realtime_fsm.server.config import BackendConfig
from realtime_fsm.server.http_route import HttpRoutes
from realtime_fsm.server.identity import TokenVerifier
from realtime_fsm.server.reply import Refusal, consent, refuse
from realtime_fsm.server.session import Caller, Session
from realtime_fsm.server.socketio_server import NAMELESS, SocketIOServer

H = TypeVar("H", bound=Callable[..., Any])

_BOOKING: Final = "booking:"
_STOP_TIMEOUT: Final = 3.0
_MAX_CHANNEL_LENGTH: Final = 200

_logger = logging.getLogger("realtime_fsm.server")


class WebSocketService:
    """A Socket.IO server with channels, bookings, replay, and the same over HTTP (SPEC F1).

    ::

        async with WebSocketService(BackendConfig(secret=...)) as backend:
            backend.on("note", lambda caller, text: print(caller.subject, text))
            backend.publish("prices", "price", {"apple": 1.25})

    Args:
        config: The configuration.
        authorize_channel: Tells whether a subject may subscribe to a channel; by default everybody may.
    """

    def __init__(
        self, config: BackendConfig, *, authorize_channel: Callable[[str, str], bool] | None = None
    ) -> None:
        self.config = config
        self._may_subscribe = authorize_channel or (lambda _subject, _channel: True)
        self._handlers: dict[str, Callable[..., Any]] = {}
        self._sessions: dict[str, Session] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._runner: web.AppRunner | None = None
        self.verifier = TokenVerifier(config)
        self.log = ChannelLog(secrets.token_hex(8), config.log_size, config.max_channels)
        self.port = config.port
        self._sio = self._make_server()
        self.application = HttpRoutes(self).application()
        self._sio.attach(self.application)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{self.config.host}:{self.port}"

    @property
    def session_count(self) -> int:
        """Clients that are connected."""
        return len(self._sessions)

    def subscriber_count(self, channel: str) -> int:
        """Return how many of them are subscribed to a channel."""
        return sum(channel in session.channels for session in self._sessions.values())

    # For the application.

    @overload
    def on(self, event: str) -> Callable[[H], H]: ...
    @overload
    def on(self, event: str, handler: H) -> H: ...
    def on(self, event: str, handler: H | None = None) -> H | Callable[[H], H]:
        """Handle an event, from the socket and over HTTP alike.

        Args:
            event: Its name.
            handler: A function or coroutine function ``(caller, *args)``; what it returns is the answer.
        """
        check_event_name(event)
        if handler is None:
            return lambda given: self.on(event, given)
        self._handlers[event] = handler
        return handler

    def publish(self, channel: str, event: str, data: Any = None) -> Entry:
        """Publish an event to a channel: to who is subscribed, and into the log for who will ask."""
        entry = self.log.append(channel, check_event_name(event), data)
        place = self._place(channel, entry)
        for session in self._sessions.values():
            if channel in session.channels:
                session.put(event, data, place)
        return entry

    async def handle(self, caller: Caller, event: str, args: list[Any]) -> dict[str, Any]:
        """Let the application handle a message; return the answer as it goes over the wire.

        The one way in for messages, whatever they came over.
        """
        handler = self._handlers.get(event)
        if handler is None:
            return refuse(Refusal("unknown_event", f"There is no handler for {event!r}."))
        try:
            answer = handler(caller, *args)
            if inspect.isawaitable(answer):
                answer = await answer
        except Refusal as refusal:
            return refuse(refusal)
        except Exception:
            _logger.exception("the handler of %r raised", event)
            return refuse(Refusal("handler_failed", f"The handler of {event!r} failed."))
        return consent(answer=answer)

    # Life cycle.

    async def start(self) -> None:
        """Listen. ``port`` and ``url`` are known afterwards."""
        self._runner = web.AppRunner(
            self.application, handle_signals=False, shutdown_timeout=0.5, access_log=None
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.config.host, self.config.port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        self._spawn(self._end_expired_sessions())

    async def stop(self) -> None:
        """Disconnect everybody and release everything, within a few seconds."""
        engine = self._sio.eio
        engine.is_closing = True
        for session in self._sessions.values():
            await session.close()
        for sid in list(self._sessions):
            self._spawn(self._sio.disconnect(sid))
        await engine.end_requests(_STOP_TIMEOUT / 3)
        if self._runner is not None:
            await self._runner.cleanup()  # bounded by its shutdown_timeout
            self._runner = None
        await engine.end_tasks(_STOP_TIMEOUT / 3)
        tasks = self._tasks - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_STOP_TIMEOUT / 3)
        self._sessions.clear()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # The Socket.IO side.

    def _make_server(self) -> SocketIOServer:
        sio = SocketIOServer(self.config)
        sio.on("connect", self._connected)
        sio.on("disconnect", self._disconnected)
        sio.on("*", self._received)
        return sio

    async def _connected(self, sid: str, _environ: Any, auth: Any) -> None:
        token = auth.get(Dialect.REFERENCE.token_key) if isinstance(auth, dict) else None
        try:
            self._check_room()
            identity = self.verifier.verify(token)
        except Refusal as refusal:
            raise SocketIORefusal(refusal.message, refusal.as_dict()) from None

        async def send(event: str, data: Any, place: dict[str, Any]) -> None:
            await self._sio.emit(event, (data, place), to=sid)
            if self._sio.eio.backlog(self._sio.engine_sid(sid)) > self.config.max_backlog:
                _logger.warning("a session of %r is too slow and is ended; it can catch up", identity.subject)
                await self._sio.disconnect(sid)

        session = self._sessions[sid] = Session(sid, identity, send)
        session.start()

    def _check_room(self) -> None:
        if len(self._sessions) >= self.config.max_clients:
            raise Refusal("unavailable", "The server is full.", "connection", retry_after=1.0)

    async def _disconnected(self, sid: str, *_: Any) -> None:
        session = self._sessions.pop(sid, None)
        if session is not None:
            await session.close()

    async def _received(self, event: str, sid: str, *args: Any) -> dict[str, Any]:
        """Answer a client's event. Its messages wait for their turn, heartbeats do not."""
        session = self._sessions.get(sid)
        if session is None:
            return refuse(Refusal("no_session", "The session has ended.", "protocol"))
        dialect = Dialect.REFERENCE
        if event == NAMELESS:
            return refuse(Refusal("invalid_request", "An event needs a name of its own.", "protocol"))
        if event == dialect.heartbeat_event:
            return consent()
        async with session.turn:
            try:
                if event == dialect.reauthenticate_event:
                    return self._reauthenticate(session, _body(args))
                if event == dialect.subscribe_event:
                    return await self._subscribe(session, _body(args), "channels", "")
                if event == dialect.monitor_event:
                    return await self._subscribe(session, _body(args), "booking_ids", _BOOKING)
                if event == dialect.unsubscribe_event:
                    session.channels.difference_update(_names(_body(args), "channels"))
                    return consent()
            except Refusal as refusal:
                return refuse(refusal)
            message_id, rest = _take_message_id(list(args))
            caller = Caller(subject=session.identity.subject, message_id=message_id)
            return await self.handle(caller, event, rest)

    def _reauthenticate(self, session: Session, body: dict[str, Any]) -> dict[str, Any]:
        identity = self.verifier.verify(body.get(Dialect.REFERENCE.token_key))
        if identity.subject != session.identity.subject:
            raise Refusal("token_invalid", "The token is somebody else's.", "authentication")
        session.identity = identity
        return consent(expires_at=identity.expires_at)

    async def _subscribe(
        self, session: Session, body: dict[str, Any], key: str, prefix: str
    ) -> dict[str, Any]:
        """Subscribe a session; what it missed is sent before the answer, and before what comes next."""
        positions = body.get("positions")
        answers: dict[str, Any] = {}
        for name in _names(body, key):
            channel = f"{prefix}{name}"
            position = positions.get(channel) if isinstance(positions, dict) else None
            answers[channel] = self._join(session, channel, position)
        await session.flushed()
        return consent(channels=answers)

    def _join(self, session: Session, channel: str, position: Any) -> dict[str, Any]:
        """Replay and join in one step: nothing can be published in between."""
        refusal = self.channel_refusal(session.identity.subject, channel)
        if refusal is None and len(session.channels | {channel}) > self.config.max_channels_per_client:
            refusal = Refusal(
                "too_many_channels", f"A session may have {self.config.max_channels_per_client} channels."
            )
        if refusal is not None:
            return refuse(refusal)
        session.channels.add(channel)
        recovered = True
        if isinstance(position, dict):
            replay = self.log.since(channel, position.get("epoch"), position.get("offset"))
            recovered = replay.recovered
            for entry in replay.entries:
                session.put(entry.event, entry.data, self._place(channel, entry))
        return consent(epoch=self.log.epoch, offset=self.log.offset(channel), recovered=recovered)

    def channel_refusal(self, subject: str, channel: str) -> Refusal | None:
        """Return why somebody may not have a channel, or ``None``."""
        if not channel.strip() or len(channel) > _MAX_CHANNEL_LENGTH:
            return Refusal("invalid_channel", "The name of a channel must be 1 to 200 characters.")
        if not self._may_subscribe(subject, channel):
            return Refusal("forbidden", f"The channel {channel!r} is not for you.")
        return None

    def _place(self, channel: str, entry: Entry) -> dict[str, Any]:
        return {"channel": channel, "epoch": self.log.epoch, "offset": entry.offset}

    # Inside.

    async def _end_expired_sessions(self) -> None:
        while True:
            await asyncio.sleep(self.config.expiry_check_interval)
            for sid, session in list(self._sessions.items()):
                if self.verifier.has_expired(session.identity.expires_at):
                    _logger.info("a session of %r ends: its token has expired", session.identity.subject)
                    await self._sio.disconnect(sid)

    def _spawn(self, work: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _logger.error("a task of the backend failed", exc_info=error)


def _body(args: tuple[Any, ...]) -> dict[str, Any]:
    if args and isinstance(args[0], dict):
        return args[0]
    raise Refusal("invalid_request", "The event takes one object.", "protocol")


def _names(body: dict[str, Any], key: str) -> list[str]:
    names = body.get(key)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise Refusal("invalid_request", f"{key!r} must be a list of strings.", "protocol")
    return names


def _take_message_id(args: list[Any]) -> tuple[str | None, list[Any]]:
    """Return the message's id, where its last argument holds one, and the other arguments."""
    last = args[-1] if args else None
    if isinstance(last, dict) and last.keys() == {"message_id"} and isinstance(last["message_id"], str):
        return last["message_id"], args[:-1]
    return None, args


def serve(config: BackendConfig) -> None:
    """Serve until SIGINT or SIGTERM. The first line on stdout is the address."""
    asyncio.run(_serve(config))


async def _serve(config: BackendConfig) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with WebSocketService(config) as service:
        sys.stdout.write(f"{service.url}\n")
        sys.stdout.flush()
        await stop.wait()
