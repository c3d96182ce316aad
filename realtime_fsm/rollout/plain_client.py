"""``PlainClient``: the old implementation, on a plain ``socketio.AsyncClient``."""

import asyncio
import logging
import random
import time
import uuid
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import socketio
from attrs import define

from realtime_fsm.engine.dispatcher import Dispatcher, Handler
from realtime_fsm.engine.message import Receipt, refusal_text, unwrap
from realtime_fsm.engine.observers import Observers
from realtime_fsm.engine.payload import check_event_name
from realtime_fsm.engine.port import TokenSource
from realtime_fsm.engine.statistics import Statistics
from realtime_fsm.engine.subscriptions import Position, arguments_of, read_position
from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.machine.delivery import Outcome
from realtime_fsm.machine.errors import (
    ConnectionLostError,
    DeliveryError,
    RealtimeError,
    SubscriptionRefusedError,
)
from realtime_fsm.monitoring.database import MetricsDatabase
from realtime_fsm.monitoring.records import Level
from realtime_fsm.rollout.client import (
    Answers,
    Letter,
    Positions,
    Signal,
    SignalKind,
    Sink,
    Wanted,
    Watcher,
    letter_of,
    post_to,
)
from realtime_fsm.rollout.plain_socket import PlainSocket

RECONNECT_DELAY: Final = 1.0
RECONNECT_DELAY_MAX: Final = 5.0
"""As ``socketio.AsyncClient`` has them by default."""

_SPREAD: Final = 0.5

_CONNECTING: Final = "connecting"
_CONNECTED: Final = "connected"
_OFF: Final = "disconnected"

_logger = logging.getLogger("realtime_fsm.migration")


class PlainClient:
    """The client that an application had before: it reconnects without end, at a pace of its own.

    Args:
        config: Where to connect, and the server's dialect; what only the engine does is not looked at.
        token: Where tokens come from.
        reconnect_delay: Seconds before the first reconnect; doubled before each further one.
        reconnect_delay_max: Its bound.
    """

    implementation = "legacy"
    accepts_identity = True

    def __init__(
        self,
        config: RealtimeConfig | None = None,
        *,
        token: TokenSource | None = None,
        reconnect_delay: float = RECONNECT_DELAY,
        reconnect_delay_max: float = RECONNECT_DELAY_MAX,
    ) -> None:
        self.config = RealtimeConfig.from_env() if config is None else config
        self._token = token
        self._delays = (reconnect_delay, reconnect_delay_max)
        self._watchers: Observers[[Signal]] = Observers("a watcher of the connection", _logger)
        self._answers = Answers()
        self._outflow = PlainOutflow(self.config)
        self._subscriptions = PlainSubscriptions(self.config)
        self._dispatcher: Dispatcher | None = None
        self._sink: Sink | None = None
        self._recorder: PlainRecorder | None = None
        self._socket: PlainSocket | None = None
        self._task: asyncio.Task[None] | None = None
        self._decided = asyncio.Event()

    @property
    def is_connected(self) -> bool:
        """True while the socket is live."""
        return self._socket is not None and self._socket.is_live

    @property
    def gave_up(self) -> RealtimeError | None:
        """Nothing: it never gives up."""
        return None

    async def connect(self) -> None:
        """Begin to connect, and wait until the first attempt is decided. It is tried without end."""
        if self._task is None:
            self._decided.clear()
            self._answers.open()
            if self._recorder is not None:
                self._recorder.connecting()
            self._task = asyncio.create_task(self._run(), name="realtime_fsm plain client")
        await self._decided.wait()

    async def disconnect(self) -> None:
        """Send what waits, where that is possible within ``close_timeout``, and close everything."""
        try:
            async with asyncio.timeout(self.config.close_timeout / 2):
                await self.drain()
        except TimeoutError:
            _logger.warning("the old client could not send everything in time")
        for letter in await self.release():
            outcome = Outcome.LOST if letter.was_sent else Outcome.DROPPED
            letter.receipt.settle(outcome, reason="the client was disconnected")
        if self._dispatcher is not None:
            await self._dispatcher.close()

    async def emit(self, event: str, data: Any = None) -> Receipt:
        """Accept a message for the server; offline it waits, in memory.

        Raises:
            InvalidArgumentError: If it cannot be sent, ever.
        """
        letter = letter_of(event, data, max_bytes=self.config.max_message_bytes)
        await self.post(letter)
        return letter.receipt

    def on(self, event: str, handler: Handler) -> Handler:
        """Handle an event. Handlers run one at a time, in the order of the events."""
        check_event_name(event)
        if self._dispatcher is None:
            self._dispatcher = Dispatcher(
                statistics=Statistics(), limit=self.config.max_pending_events, on_error=lambda *_: None
            )
            self._dispatcher.start()
            self._sink = post_to(self._dispatcher)
        self._dispatcher.on(event, handler)
        return handler

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """Tell what happens to the connection; return what ends it."""
        return self._watchers.add(watcher)

    def measured_by(self, database: MetricsDatabase) -> Callable[[], None]:
        """Have what happens recorded; return what ends it."""
        recorder = self._recorder = PlainRecorder(database)
        recorder.begin(is_connected=self.is_connected, is_wanted=self._task is not None)

        def end() -> None:
            if self._recorder is recorder:
                self._recorder = None

        return end

    # For a rollout.

    def listen(self, sink: Sink | None) -> None:
        """Give every event to ``sink`` from now on; ``None`` drops them."""
        self._sink = sink

    async def subscribe(self, wanted: Wanted, positions: Positions) -> None:
        """Subscribe to channels, each from behind its position where it has one."""
        self._subscriptions.want(wanted, positions)
        socket = self._socket
        if socket is not None and socket.is_live:
            await self._subscriptions.ask(socket, wanted)

    async def unsubscribe(self, channels: list[str]) -> None:
        """Unsubscribe from channels, and forget them."""
        self._subscriptions.forget(channels)
        socket = self._socket
        if socket is not None and socket.is_live:
            await self._subscriptions.drop(socket, channels)

    async def post(self, letter: Letter) -> None:
        """Take a message; it leaves in its order."""
        self._outflow.post(letter)

    async def drain(self) -> None:
        """Wait until what was posted has come to its end, or the connection has. The caller bounds it."""
        await self._outflow.drain()

    async def cut(self) -> Positions:
        """Stop listening at this moment, and return where that was."""
        self._sink = None
        return self._subscriptions.positions

    async def release(self) -> list[Letter]:
        """Disconnect, and return what was posted and has not come to its end, in its order."""
        self._answers.release()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
            if self._recorder is not None:
                self._recorder.disconnected()
        self._subscriptions.forget(list(self._subscriptions.wanted))
        return self._outflow.take()

    # Inside.

    async def _run(self) -> None:
        number = 1
        try:
            while True:
                try:
                    has_lived = await self._connection(number)
                except Exception:
                    _logger.exception("the old client failed; it is tried again")
                    has_lived = False
                number = 1 if has_lived else number + 1
                self._decided.set()
                await asyncio.sleep(self._delay(number))
        finally:
            self._decided.set()

    async def _connection(self, number: int) -> bool:
        """Make one connection, and live it to its end; return whether there was one."""
        loop = asyncio.get_running_loop()
        lost: asyncio.Future[str] = loop.create_future()
        socket = PlainSocket(
            self.config,
            on_event=self._arrived,
            on_lost=lambda reason: None if lost.done() else lost.set_result(reason),
        )
        began = loop.time()
        try:
            await socket.open(self._token)
        except RealtimeError as error:
            self._tell(SignalKind.FAILED, error, loop.time() - began, number)
            return False
        self._socket = socket
        self._tell(SignalKind.LIVE, None, loop.time() - began, number)
        try:
            await self._subscribe_again(socket)
            self._outflow.attach(socket)
            self._decided.set()
            reason = await self._alive(socket, lost)
        finally:
            self._socket = None
            await self._outflow.detach()
            await socket.close()
        self._tell(SignalKind.LOST, ConnectionLostError(f"The connection ended: {reason}."), 0.0, 1)
        return True

    async def _subscribe_again(self, socket: PlainSocket) -> None:
        try:
            await self._subscriptions.ask(socket, self._subscriptions.wanted)
        except (SubscriptionRefusedError, socketio.exceptions.SocketIOError) as error:
            _logger.warning("the old client could not subscribe: %s", error)

    async def _alive(self, socket: PlainSocket, lost: "asyncio.Future[str]") -> str:
        """Ask for a sign of life from time to time, for the latency alone; return why it ended."""
        event, config = self.config.dialect.heartbeat_event, self.config
        loop = asyncio.get_running_loop()
        while not lost.done():
            if not socket.is_live:  # the library does not tell of a session that the server refuses later
                return "the server refuses the session"
            began = loop.time()
            try:
                if event is not None:
                    await socket.ask(event, timeout=config.heartbeat_timeout)
                    if self._recorder is not None:
                        self._recorder.latency(loop.time() - began)
            except (TimeoutError, socketio.exceptions.SocketIOError):
                _logger.debug("the server did not answer %r", event)
            self._outflow.expire()
            await asyncio.wait({lost}, timeout=config.heartbeat_interval)
        return lost.result()

    async def _arrived(self, event: str, args: list[Any]) -> Any:
        taken = self._subscriptions.take(args)
        sink = self._sink
        if taken is None or sink is None:
            return None
        return await self._answers.of(sink(event, taken))

    def _tell(self, kind: SignalKind, error: RealtimeError | None, duration: float, number: int) -> None:
        signal = Signal(kind=kind, error=error, duration=duration, number=number)
        if self._recorder is not None:
            self._recorder.signal(signal)
        self._watchers.tell(signal)

    def _delay(self, number: int) -> float:
        first, most = self._delays
        delay = min(first * 2.0 ** min(number - 1, 30), most)
        return delay * random.uniform(1 - _SPREAD, 1 + _SPREAD)  # noqa: S311 - no secret


# What the old client sends: in order, within a window, and after a loss again where that is safe.


@define(eq=False)
class _Flight:
    """A message that was sent, and when."""

    letter: Letter
    sent_at: float


class PlainOutflow:
    """Sends over whichever connection there is, and keeps what waits for one.

    Where the server drops repeats, what a loss left unacknowledged is sent again under the same identity;
    elsewhere it is lost, and its receipt says so: as it always was with the old client.

    Args:
        config: The dialect, the window, the time-out of an acknowledgement.
    """

    def __init__(self, config: RealtimeConfig) -> None:
        self._config = config
        self._client_id = f"legacy-{uuid.uuid4().hex[:12]}"
        self._sequence = 0
        self._flights = 0
        self._waiting: deque[Letter] = deque()
        self._in_flight: dict[int, _Flight] = {}
        self._woken = asyncio.Event()
        self._progress = asyncio.Event()
        self._socket: PlainSocket | None = None
        self._task: asyncio.Task[None] | None = None

    def post(self, letter: Letter) -> None:
        """Take a message; it is sent in its order."""
        self._waiting.append(letter)
        self._woken.set()

    def attach(self, socket: PlainSocket) -> None:
        """Begin to send over a connection."""
        self._socket = socket
        self._task = asyncio.create_task(self._send_all(socket), name="realtime_fsm plain outflow")

    async def detach(self) -> None:
        """Stop sending, because the connection has ended. What may be sent again goes back in order."""
        self._socket = None
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
        flights, self._in_flight = list(self._in_flight.values()), {}
        if self._config.dialect.deduplicates:
            self._waiting.extendleft(flight.letter for flight in reversed(flights))
        else:
            for flight in flights:
                reason = "the connection ended while it was under way"
                flight.letter.receipt.settle(Outcome.LOST, reason=reason)
        self._progress.set()

    async def drain(self) -> None:
        """Wait until everything has been acknowledged, or written; or the connection has ended.

        For what was sent and may be sent again it waits over a reconnect: nobody else can tell whether the
        server has had it.
        """
        while self._is_unsure or (self._socket is not None and (self._waiting or self._in_flight)):
            self._progress.clear()
            await self._progress.wait()
        if self._socket is not None:
            await self._socket.written()

    def expire(self) -> None:
        """Give up waiting for acknowledgements that a live server does not send."""
        limit = asyncio.get_running_loop().time() - self._config.ack_timeout
        for number, flight in list(self._in_flight.items()):
            if flight.sent_at <= limit:
                del self._in_flight[number]
                reason = f"the server did not acknowledge it within {self._config.ack_timeout} s"
                flight.letter.receipt.settle(Outcome.UNACKNOWLEDGED, reason=reason)
        self._moved()

    def take(self) -> list[Letter]:
        """Give up what is left, and return it."""
        left = [*(flight.letter for flight in self._in_flight.values()), *self._waiting]
        self._in_flight.clear()
        self._waiting.clear()
        return left

    # Inside.

    @property
    def _is_unsure(self) -> bool:
        return bool(self._in_flight) or any(letter.was_sent for letter in self._waiting)

    async def _send_all(self, socket: PlainSocket) -> None:
        window = self._config.max_in_flight
        while True:
            while not self._waiting or len(self._in_flight) >= window:
                self._woken.clear()
                await self._woken.wait()
            letter = self._waiting.popleft()
            try:
                await self._send(socket, letter)
            except socketio.exceptions.SocketIOError:
                self._waiting.appendleft(letter)  # it was not sent; the loss is told elsewhere
                return

    async def _send(self, socket: PlainSocket, letter: Letter) -> None:
        dialect = self._config.dialect
        self._flights += 1
        number = self._flights
        args = letter.args
        if dialect.message_ids:
            letter.identity = self._identity() if letter.identity is None else letter.identity
            args = (*args, letter.identity)
        had_been_sent, letter.was_sent = letter.was_sent, True
        self._in_flight[number] = _Flight(letter, asyncio.get_running_loop().time())
        try:
            on_ack = partial(self._acknowledged, number) if dialect.wraps_answers else None
            await socket.emit(letter.event, args, on_ack)
        except socketio.exceptions.SocketIOError:
            del self._in_flight[number]
            letter.was_sent = had_been_sent
            raise
        if not dialect.wraps_answers:
            self._in_flight.pop(number, None)
            letter.receipt.settle(Outcome.SENT)
            self._moved()

    def _identity(self) -> dict[str, Any]:
        self._sequence += 1
        identity: dict[str, Any] = {"message_id": f"{self._client_id}-{self._sequence}"}
        if self._config.dialect.deduplicates:
            identity |= {"client_id": self._client_id, "sequence": self._sequence}
        return identity

    def _acknowledged(self, number: int, *args: Any) -> None:
        flight = self._in_flight.pop(number, None)
        if flight is None:
            return
        try:
            answer = unwrap(args[0] if args else None)
        except DeliveryError as error:
            flight.letter.receipt.settle(Outcome.REFUSED, reason=error.message)
        else:
            flight.letter.receipt.settle(Outcome.ACKNOWLEDGED, answer=answer)
        self._moved()

    def _moved(self) -> None:
        self._woken.set()
        self._progress.set()


# What the old client is subscribed to, and how far it has come in each channel.


class PlainSubscriptions:
    """Asked for again on each connection, from behind the last event where the server numbers them.

    Args:
        config: The dialect, and how long an answer may take.
    """

    def __init__(self, config: RealtimeConfig) -> None:
        self._config = config
        self._wanted: dict[str, str | None] = {}
        self._positions: dict[str, Position] = {}

    @property
    def wanted(self) -> Wanted:
        """The channels that are wanted; a copy."""
        return dict(self._wanted)

    @property
    def positions(self) -> Positions:
        """The position of the last event of each channel; a copy."""
        return dict(self._positions)

    def want(self, wanted: Wanted, positions: Positions) -> None:
        """Want channels, from behind their positions."""
        self._wanted.update(wanted)
        self._positions.update({channel: here for channel, here in positions.items() if channel in wanted})

    def forget(self, channels: list[str]) -> None:
        """Want channels no longer."""
        for channel in channels:
            self._wanted.pop(channel, None)
            self._positions.pop(channel, None)

    def take(self, args: list[Any]) -> list[Any] | None:
        """Return the arguments of an event without its position; ``None`` if it has been here before."""
        if not (self._config.dialect.positions and args and isinstance(args[-1], dict)):
            return args
        here, channel = read_position(args[-1]), args[-1].get("channel")
        if here is None or not isinstance(channel, str):
            return args
        last = self._positions.get(channel)
        if last is not None and last.epoch == here.epoch and here.offset <= last.offset:
            return None
        if channel in self._wanted:
            self._positions[channel] = here
        return args[:-1]

    async def ask(self, socket: PlainSocket, wanted: Wanted) -> None:
        """Ask the server for channels, and wait for its answer where it gives one.

        Raises:
            SubscriptionRefusedError: If it refused some, or did not answer in time.
        """
        dialect = self._config.dialect
        channels = [channel for channel, booking_id in wanted.items() if booking_id is None]
        bookings = {channel: one for channel, one in wanted.items() if one is not None}
        refused = []
        if channels and dialect.subscribe_payload is not None:
            for channel in channels:
                here = self._positions.get(channel)
                place = None if here is None else {"epoch": here.epoch, "offset": here.offset}
                args = arguments_of(dialect.subscribe_payload, channel, place)
                refused += await self._request(socket, dialect.subscribe_event, args, [channel])
        elif channels:
            args = (self._body("channels", channels, channels),)
            refused += await self._request(socket, dialect.subscribe_event, args, channels)
        if bookings:
            args = (self._body("booking_ids", list(bookings.values()), list(bookings)),)
            refused += await self._request(socket, dialect.monitor_event, args, list(bookings))
        if refused:
            raise SubscriptionRefusedError(f"The server refused {', '.join(refused)}.")

    async def drop(self, socket: PlainSocket, channels: list[str]) -> None:
        """Tell the server that channels are no longer wanted; it need not answer."""
        dialect = self._config.dialect
        if dialect.unsubscribe_payload is None:
            await socket.emit(dialect.unsubscribe_event, ({"channels": channels},))
            return
        for channel in channels:
            args = arguments_of(dialect.unsubscribe_payload, channel)
            await socket.emit(dialect.unsubscribe_event, args)

    def _body(self, key: str, names: list[str], channels: list[str]) -> dict[str, Any]:
        body: dict[str, Any] = {key: names}
        if self._config.dialect.positions:
            known = {channel: self._positions[channel] for channel in channels if channel in self._positions}
            body["positions"] = {
                channel: {"epoch": here.epoch, "offset": here.offset} for channel, here in known.items()
            }
        return body

    async def _request(
        self, socket: PlainSocket, event: str, given: tuple[Any, ...], channels: list[str]
    ) -> list[str]:
        """Ask; return which channels were refused, and why."""
        config = self._config
        if not config.dialect.confirms_subscriptions:
            await socket.emit(event, given)
            return []
        try:
            args = await socket.ask(event, *given, timeout=config.ack_timeout)
        except TimeoutError:
            told = f"The server did not answer for {', '.join(channels)} within {config.ack_timeout} s."
            raise SubscriptionRefusedError(told, remedy="They are asked for again on reconnecting.") from None
        except socketio.exceptions.SocketIOError:
            return []  # the connection is lost: asked again on the next one
        return self._confirm(args[0] if args else None, channels)

    def _confirm(self, answer: Any, channels: list[str]) -> list[str]:
        told = answer.get("channels") if isinstance(answer, dict) else None
        refused = []
        for channel in channels:
            verdict = told.get(channel) if isinstance(told, dict) else answer
            if not isinstance(verdict, dict) or verdict.get("ok") is not True:
                error = verdict.get("error") if isinstance(verdict, dict) else None
                refused.append(f"{channel!r} ({refusal_text(error)})")
                continue
            here = read_position(verdict)
            if verdict.get("recovered") is False:
                _logger.warning("events of channel %r were missed: its log does not reach back", channel)
                self._positions.pop(channel, None)
            if here is not None:
                self._positions.setdefault(channel, here)
        return refused


# What happens to the old client, in the terms of the metrics database.


class PlainRecorder:
    """Records as the new client is recorded, so that the two can be compared.

    Args:
        database: Where; its implementation is ``legacy``.
        wall: The wall clock.
    """

    def __init__(self, database: MetricsDatabase, wall: Callable[[], float] = time.time) -> None:
        self._database = database
        self._wall = wall
        self._state = _OFF
        self._outage: tuple[float, str] | None = None

    def begin(self, *, is_connected: bool, is_wanted: bool) -> None:
        """Record the state that it is in."""
        state = _CONNECTED if is_connected else _CONNECTING if is_wanted else _OFF
        self._enter(state, trigger="", reason="recording begins")

    def connecting(self) -> None:
        """Record that a connection is wanted."""
        self._enter(_CONNECTING, trigger="connect")

    def disconnected(self) -> None:
        """Record that none is wanted any more."""
        self._end_outage(recovered=False)
        self._enter(_OFF, trigger="disconnect")

    def latency(self, seconds: float) -> None:
        """Record a round trip."""
        self._database.record_latency(seconds)

    def signal(self, signal: Signal) -> None:
        """Record what the client tells."""
        if signal.kind is SignalKind.LIVE:
            self._database.record_attempt(signal.duration, number=signal.number)
            self._end_outage(recovered=True)
            self._enter(_CONNECTED, trigger="connected")
        elif signal.kind is SignalKind.FAILED:
            self._database.record_attempt(signal.duration, number=signal.number, cause=signal.error)
            self._begin_outage(signal)
        elif signal.kind is SignalKind.LOST:
            self._begin_outage(signal)
            self._enter(_CONNECTING, trigger="connection_lost", cause=signal.error)

    def _enter(
        self, state: str, *, trigger: str, cause: BaseException | None = None, reason: str = ""
    ) -> None:
        level = {_CONNECTED: Level.LIVE, _CONNECTING: Level.DOWN, _OFF: Level.OFF}[state]
        self._database.record_change(
            level, current=state, previous=self._state, trigger=trigger, cause=cause, reason=reason
        )
        self._state = state

    def _begin_outage(self, signal: Signal) -> None:
        if self._outage is None:
            cause = "unknown" if signal.error is None else type(signal.error).__name__
            self._outage = (self._wall(), cause)
            self._database.record_outage(self._outage[0], cause=cause)

    def _end_outage(self, *, recovered: bool) -> None:
        if self._outage is not None:
            (began_at, cause), self._outage = self._outage, None
            self._database.record_outage(began_at, cause=cause, ended_at=self._wall(), recovered=recovered)
