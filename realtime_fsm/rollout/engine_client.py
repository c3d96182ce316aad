"""``EngineClient``: the new implementation, as a rollout runs it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from realtime_fsm.engine.dispatcher import ANY_EVENT, Handler
from realtime_fsm.engine.message import Message, Receipt, identity_of
from realtime_fsm.engine.observers import Observers
from realtime_fsm.engine.port import TokenSource
from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.machine.delivery import Delivery, Outcome
from realtime_fsm.machine.errors import RealtimeError
from realtime_fsm.machine.record import AttemptRecord, StatusChange
from realtime_fsm.machine.table import TRAITS
from realtime_fsm.monitoring.database import MetricsDatabase
from realtime_fsm.rollout.client import (
    Answers,
    Letter,
    Positions,
    Signal,
    SignalKind,
    Sink,
    Wanted,
    Watcher,
)
from realtime_fsm.service import RealtimeService

_LEFT = frozenset({Outcome.PENDING, Outcome.DROPPED, Outcome.STORED})
"""Outcomes, after a release, of messages that somebody else must send."""

_logger = logging.getLogger("realtime_fsm.migration")


class _Service(RealtimeService):
    """A service that another client can take over from, and that can take over from another one."""

    def submit(self, event: str, args: tuple[Any, ...]) -> tuple[Message, Awaitable[None] | None]:
        """Accept a message, as ``emit`` does; return it, and what is still to be waited for."""
        message = self._queue.compose(event, args)
        return message, self._queue.submit(message)

    def withdraw(self, message: Message) -> None:
        """Give a message up, because another client sends it."""
        self._sender.withdraw(message, reason="another client takes it over")

    def want_from(self, wanted: Wanted, positions: Positions) -> None:
        """Want channels from behind a position; the server replays what came after it."""
        for channel, booking_id in wanted.items():
            self._subscriptions.want([booking_id or channel], bookings=booking_id is not None)
            subscription = self._subscriptions.get(channel)
            if subscription is not None and channel in positions:
                subscription.position = positions[channel]

    def forget_all(self) -> None:
        """Forget all channels, without a word to the server."""
        self._subscriptions.forget([subscription.channel for subscription in self.subscriptions])

    async def after_all(self, then: Callable[[], None]) -> None:
        """Call ``then`` after the last event that has arrived by now was handled, and before the next."""
        if self._manager is None or self._dispatcher.has_ended:
            then()
            return
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def reach() -> None:
            then()
            if not reached.done():
                reached.set_result(None)

        self._dispatcher.run("a switch", reach)
        await reached


class EngineClient:
    """The new implementation, behind the protocol that the old one has as well.

    Args:
        config: Its configuration.
        token: Where its tokens come from.
        **options: What ``RealtimeService`` takes beside them.

    Attributes:
        realtime: The ``RealtimeService`` that it runs: its status, metrics and health are there.
    """

    implementation = "new"
    accepts_identity = False

    def __init__(
        self, config: RealtimeConfig | None = None, *, token: TokenSource | None = None, **options: Any
    ) -> None:
        self._service = _Service(config, token=token, **options)
        self.realtime: RealtimeService = self._service
        self._watchers: Observers[[Signal]] = Observers("a watcher of the connection", _logger)
        self._answers = Answers()
        self._sink: Sink | None = None
        self._is_listening = False
        self._posted: dict[Message, Letter] = {}
        self._progress = asyncio.Event()
        self._is_releasing = False
        status = self._service.connection_status
        status.subscribe(self._changed)
        status.subscribe_attempts(self._attempted)
        self._service.on_settled(self._settled)

    @property
    def is_connected(self) -> bool:
        """True while the socket is live."""
        return self._service.is_connected

    @property
    def gave_up(self) -> RealtimeError | None:
        """The reason why nothing is tried any more; ``None`` while something is."""
        return self._service.gave_up

    async def connect(self) -> None:
        """Begin to connect, and wait until the first attempt is decided.

        Raises:
            RealtimeError: If it gave up.
        """
        self._is_releasing = False
        self._answers.open()
        await self._service.connect()

    async def disconnect(self) -> None:
        """Send what waits, where that is possible, and close everything."""
        await self._service.disconnect()

    async def emit(self, event: str, data: Any = None) -> Receipt:
        """Accept a message for the server."""
        return await self._service.emit(event, data)

    def on(self, event: str, handler: Handler) -> Handler:
        """Have an event handled by a function."""
        return self._service.on(event, handler)

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """Tell what happens to the connection; return what ends it."""
        return self._watchers.add(watcher)

    def measured_by(self, database: MetricsDatabase) -> Callable[[], None]:
        """Have what happens recorded; return what ends it."""
        database.attach(self._service)
        return database.detach

    # For a rollout.

    def listen(self, sink: Sink | None) -> None:
        """Give every event to ``sink`` from now on; ``None`` drops them."""
        self._sink = sink
        if not self._is_listening:
            self._is_listening = True
            self._service.on(ANY_EVENT, self._heard)

    async def subscribe(self, wanted: Wanted, positions: Positions) -> None:
        """Subscribe to channels, each from behind its position where it has one."""
        self._service.want_from(wanted, positions)
        if self.is_connected:
            channels = [name for name, booking_id in wanted.items() if booking_id is None]
            bookings = [booking_id for booking_id in wanted.values() if booking_id is not None]
            if channels:
                await self._service.subscribe(channels)
            if bookings:
                await self._service.monitor_bookings(bookings)

    async def unsubscribe(self, channels: list[str]) -> None:
        """Unsubscribe from channels, and forget them."""
        await self._service.unsubscribe(channels)

    async def post(self, letter: Letter) -> None:
        """Accept a message; with a durable outbox it is on the disk when this returns."""
        message, waiting = self._service.submit(letter.event, letter.args)
        self._posted[message] = letter  # if this is cancelled it is left to a release
        try:
            if waiting is not None:
                await waiting
        except RealtimeError:
            self._posted.pop(message, None)
            raise

    async def drain(self) -> None:
        """Wait until what was posted has come to its end, or the connection is lost."""
        while self._posted and self.is_connected:
            self._progress.clear()
            await self._progress.wait()

    async def cut(self) -> Positions:
        """Stop listening at this moment, and return where that was."""
        subscriptions = self._service.subscriptions
        positions = {one.channel: one.position for one in subscriptions if one.position is not None}
        self._answers.release()
        await self._service.after_all(partial(self.listen, None))
        return positions

    async def release(self) -> list[Letter]:
        """Disconnect, and return what was posted and has not come to its end, in its order."""
        self._is_releasing = True
        self._answers.release()
        # A repeat of these would take effect: they must not even stay in a file.
        repeatable = {message for message in self._posted if message.delivery is Delivery.EXACTLY_ONCE}
        for message in self._posted.keys() - repeatable:
            self._service.withdraw(message)
        await self._service.disconnect(drain=False)
        self._service.forget_all()
        left = []
        for message, letter in self._posted.items():
            outcome = message.receipt.outcome
            if outcome in _LEFT or (outcome is Outcome.EXPIRED and message not in repeatable):
                may_repeat = message.delivery is Delivery.AT_LEAST_ONCE
                letter.was_sent = message.sent_at is not None and not may_repeat
                is_numbered = message in repeatable and message.sequence > 0
                letter.identity = identity_of(message) if is_numbered else None
                left.append(letter)
            else:
                _settle(letter, message)
        self._posted.clear()
        return left

    # Inside.

    async def _heard(self, event: str, *args: Any) -> Any:
        sink = self._sink
        return None if sink is None else await self._answers.of(sink(event, list(args)))

    def _changed(self, change: StatusChange) -> None:
        self._progress.set()
        if change.is_lost and not change.is_goodbye:
            self._watchers.tell(Signal(kind=SignalKind.LOST, error=change.error))
        if TRAITS[change.current].gives_up:
            self._watchers.tell(Signal(kind=SignalKind.GAVE_UP, error=change.error))

    def _attempted(self, attempt: AttemptRecord) -> None:
        kind = SignalKind.LIVE if attempt.succeeded else SignalKind.FAILED
        self._watchers.tell(
            Signal(kind=kind, error=attempt.error, duration=attempt.duration, number=attempt.number)
        )

    def _settled(self, message: Message, _: float) -> None:
        if self._is_releasing or (letter := self._posted.pop(message, None)) is None:
            return
        _settle(letter, message)
        self._progress.set()


def _settle(letter: Letter, message: Message) -> None:
    """Tell the caller of a letter what became of the message that it was sent as."""
    told = message.receipt
    letter.receipt.settle(told.outcome, answer=told.answer, reason=told.reason)
