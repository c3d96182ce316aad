"""``RealtimeService``: the single point of entry."""

import asyncio
import time
from collections.abc import Callable, Iterable
from copy import copy
from typing import Any, TypeVar, overload

from realtime_fsm.engine.composer import Composer
from realtime_fsm.engine.dispatcher import Event, Handler
from realtime_fsm.engine.message import Receipt
from realtime_fsm.engine.outbox import Outbox
from realtime_fsm.engine.outbox_control import OutboxControl
from realtime_fsm.engine.payload import check_event_name
from realtime_fsm.engine.port import HttpClient, RandomSource, TokenSource, TransportFactory, WallClock
from realtime_fsm.engine.resync import ResyncHook
from realtime_fsm.engine.stream import Stream
from realtime_fsm.engine.subscription import BOOKING_PREFIX, Subscription, check_names
from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.machine.delivery import Delivery
from realtime_fsm.machine.errors import (
    CallTimeoutError,
    SubscriptionRefusedError,
)
from realtime_fsm.observation import Observation

H = TypeVar("H", bound=Handler)


class RealtimeService(Observation):
    """A Socket.IO connection that stays alive, with polling as its fallback.

    ::

        async with RealtimeService(config, token=fetch_token) as realtime:
            @realtime.on("booking_updated")
            async def updated(data): ...

            await realtime.subscribe(["bookings"])
            receipt = await realtime.emit("note", {"text": "hi"})
            await receipt

    It belongs to the event loop on which it is used, and is not thread-safe.

    Args:
        config: By default ``RealtimeConfig.from_env()``.
        token: A string, a ``Token``, or a callable or coroutine function that gives one.
        transport_factory: Makes the transports; by default over python-socketio.
        http: The HTTP side of the fallback; by default over aiohttp.
        outbox: Where accepted messages are kept; by default in ``config.outbox_path``, or in memory.
        random: Source of all jitter; by default the system's.
        wall: The wall clock; by default ``time.time``.
    """

    def __init__(
        self,
        config: RealtimeConfig | None = None,
        *,
        token: TokenSource | None = None,
        transport_factory: TransportFactory | None = None,
        http: HttpClient | None = None,
        outbox: Outbox | None = None,
        random: RandomSource | None = None,
        wall: WallClock = time.time,
    ) -> None:
        super().__init__(
            config,
            token=token,
            transport_factory=transport_factory,
            http=http,
            outbox=outbox,
            random=random,
            wall=wall,
        )
        self._composer = Composer(self.config, wall)
        self._subscriptions = self._assembly.subscriptions
        self.debug_mode(self.config.debug_mode)

    # Events.

    @overload
    def on(self, event: str) -> Callable[[H], H]: ...
    @overload
    def on(self, event: str, handler: H) -> H: ...
    def on(self, event: str, handler: H | None = None) -> H | Callable[[H], H]:
        """Handle an event; as a decorator, or with the handler given.

        Handlers run one at a time, in the order of the events on the wire. What one returns answers the
        server, where it asked. What one raises is logged and counted, and disturbs nothing.

        Args:
            event: Its name.
            handler: A function or coroutine function of the event's arguments.

        Raises:
            InvalidArgumentError: If the name is empty or reserved.
        """
        check_event_name(event)
        if handler is None:
            return lambda given: self.on(event, given)
        self._dispatcher.on(event, handler)
        return handler

    def off(self, event: str, handler: Handler | None = None) -> int:
        """Stop handling an event, with one handler or all; return how many were removed."""
        return self._dispatcher.off(check_event_name(event), handler)

    def events(self, event: str) -> Stream[Event]:
        """Return a stream of the events of one name from now on: ``async for event in ...: event.data``.

        It ends when the client disconnects. A reader that falls more than ``max_pending_events`` behind gets
        ``LaggedError``; it never holds the other handlers up.
        """
        return self._dispatcher.events(check_event_name(event))

    # Messages.

    async def emit(
        self,
        event: str,
        data: Any = None,
        *,
        delivery: Delivery | None = None,
        ttl: float | None = None,
    ) -> Receipt:
        """Accept a message for the server. With a durable outbox it is on the disk when this returns.

        Args:
            event: Its name.
            data: JSON, or bytes within it; a tuple is several arguments, ``None`` is none.
            delivery: What is promised; by default ``config.default_delivery``.
            ttl: Seconds after which it is no longer sent; by default ``config.message_ttl``.

        Returns:
            Its receipt. Accepted is not delivered: await the receipt for that.

        Raises:
            InvalidArgumentError: If it cannot be sent, ever. Nothing was accepted.
            OutboxFullError: If there is no room, and ``config.outbox_overflow`` is not to wait for it.
                Nothing was accepted.
            OutboxStorageError: If it cannot be kept: a full disk. Nothing was accepted.
            UnsupportedDeliveryError: If the delivery is not offered. Nothing was accepted.
            ClosedError: If the client is being disconnected. Nothing was accepted.
        """
        message = self._composer.compose(event, data, delivery, ttl=ttl)
        if (waiting := self._intake.submit(message)) is not None:
            await waiting
        elif message.sent_at is None:
            await asyncio.sleep(0)  # a loop of emits must not starve the writer that makes room
        return message.receipt

    async def call(
        self,
        event: str,
        data: Any = None,
        *,
        timeout: float = 60.0,  # noqa: ASYNC109 - it also decides what becomes of the message
        delivery: Delivery | None = None,
    ) -> Any:
        """Send a message and return the server's answer; a reconnect in between does not matter.

        Args:
            event: Its name.
            data: As for ``emit``.
            timeout: Seconds, reconnecting included.
            delivery: ``EXACTLY_ONCE`` and ``AT_LEAST_ONCE`` ask again after a loss; by default the stronger
                one that the dialect offers. With ``AT_MOST_ONCE`` a loss ends the call at once. A call is
                never kept for the next process.

        Raises:
            CallTimeoutError: If no answer came in time.
            DeliveryError: If the message was lost or refused.
            RealtimeError: As for ``emit``, if it was not accepted.
        """
        if delivery is None:
            exactly_once = self.config.dialect.deduplicates
            delivery = Delivery.EXACTLY_ONCE if exactly_once else Delivery.AT_LEAST_ONCE
        message = self._composer.compose(event, data, delivery, is_call=True)
        try:
            async with asyncio.timeout(timeout):
                if (waiting := self._intake.submit(message)) is not None:
                    await waiting
                return await message.receipt
        except TimeoutError:
            reason = f"its call gave up after {timeout} s"
            raise CallTimeoutError(f"No answer to {event!r} within {timeout} s.") from None
        except BaseException:
            reason = "its call was cancelled"
            raise
        finally:
            if not message.receipt.is_settled:
                self._sender.withdraw(message, reason=reason)

    # Subscriptions.

    async def subscribe(self, channels: Iterable[str]) -> None:
        """Subscribe to channels. Remembered, and repeated on every connection.

        On a live connection it returns when the server has confirmed them, where the dialect confirms;
        offline it returns at once: see ``subscriptions`` for how far each has come.

        Raises:
            InvalidArgumentError: If a name is blank.
            SubscriptionRefusedError: If the server refused one (the others are subscribed), or did not answer
                within ``ack_timeout`` (they stay wanted, and are asked for again).
        """
        names = check_names(channels, what="channels")
        self._subscriptions.want(names)
        await self._ask(names)

    async def unsubscribe(self, channels: Iterable[str]) -> None:
        """Forget channels, and tell the server where it is there."""
        forgotten = self._subscriptions.forget(check_names(channels, what="channels"))
        link = None if self._manager is None else self._manager.link
        if forgotten and link is not None:
            await self._assembly.subscriber.drop(link, forgotten)

    async def monitor_bookings(self, booking_ids: Iterable[str]) -> None:
        """Subscribe to what happens to bookings. As ``subscribe``; their channels are ``booking:<id>``."""
        names = check_names(booking_ids, what="booking_ids")
        self._subscriptions.want(names, bookings=True)
        await self._ask([BOOKING_PREFIX + name for name in names])

    def on_resync(self, hook: ResyncHook) -> ResyncHook:
        """Have a hook load the present state when events were missed that cannot be replayed; a decorator.

        It is called among the handlers, in its turn: after the events before the gap, before those after it.
        With the reference backend it is told the channel, and returns the ``Position`` that its snapshot
        stands for, from which the channel goes on (``None``: from where the stream stood). Elsewhere it is
        called for everything after each reconnect that the server did not recover. A second hook replaces the
        first.

        Args:
            hook: ``hook(missed) -> Position | None``, plain or a coroutine function.
        """
        self._assembly.resync.hook = hook
        return hook

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        """What is wanted, and how far each has come: copies."""
        return tuple(copy(subscription) for subscription in self._subscriptions)

    # What an operator asks and does.

    @property
    def outbox(self) -> OutboxControl:
        """The outbox: its size, its dead letters, and what can be done to them."""
        return self._assembly.outbox

    # Inside.

    async def _ask(self, channels: list[str]) -> None:
        link = None if self._manager is None else self._manager.link
        if link is None:
            return
        try:
            async with asyncio.timeout(self.config.ack_timeout):
                await self._subscriptions.decided(channels, lambda: not link.has_ended)
        except TimeoutError:
            raise SubscriptionRefusedError(
                f"The server did not answer for {', '.join(channels)} within {self.config.ack_timeout} s.",
                remedy="They stay wanted, and are asked for again.",
            ) from None
        if (refused := self._subscriptions.refusals(channels)) is not None:
            raise refused
