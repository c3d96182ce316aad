"""``PlainClient``: the old implementation, on a plain ``socketio.AsyncClient``."""

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Any, Final

import socketio

from realtime_fsm.engine.dispatcher import Dispatcher, Handler
from realtime_fsm.engine.message import Receipt
from realtime_fsm.engine.payload import check_event_name
from realtime_fsm.engine.port import TokenSource
from realtime_fsm.engine.statistics import Statistics
from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.machine.delivery import Outcome
from realtime_fsm.machine.errors import ConnectionLostError, RealtimeError, SubscriptionRefusedError
from realtime_fsm.migration.plain_outflow import PlainOutflow
from realtime_fsm.migration.plain_recorder import PlainRecorder
from realtime_fsm.migration.plain_socket import PlainSocket
from realtime_fsm.migration.plain_subscriptions import PlainSubscriptions
from realtime_fsm.migration.rollout_client import (
    Answers,
    Letter,
    Places,
    Signal,
    SignalKind,
    Sink,
    Wanted,
    Watcher,
    Watchers,
    letter_of,
    post_to,
)
from realtime_fsm.monitoring.metrics_database import MetricsDatabase

RECONNECT_DELAY: Final = 1.0
RECONNECT_DELAY_MAX: Final = 5.0
"""As ``socketio.AsyncClient`` has them by default."""

_SPREAD: Final = 0.5

_logger = logging.getLogger("realtime_fsm.migration")


class PlainClient:
    """What an application had before: a plain client that reconnects, without end and at a fixed pace.

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
        self._watchers = Watchers()
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
        """Whether the socket is live."""
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

    async def subscribe(self, wanted: Wanted, places: Places) -> None:
        """Subscribe to channels, each from behind its place where it has one."""
        self._subscriptions.want(wanted, places)
        socket = self._socket
        if socket is not None and socket.is_live:
            await self._subscriptions.ask(socket, wanted)

    async def unsubscribe(self, channels: list[str]) -> None:
        """Forget channels."""
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

    async def cut(self) -> Places:
        """Stop listening at this moment, and return where that was."""
        self._sink = None
        return self._subscriptions.places

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
