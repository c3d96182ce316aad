"""``RealtimeService``: all that a program asks of the client, in one class.

It is a facade. The parts are made and joined in ``assembly.py``; the connection is run by the
``ConnectionManager``, which exists from ``connect()`` to ``disconnect()``. Messages, handlers, subscriptions
and statistics outlive it, so that all of them work before the first connection and between two.
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Iterable
from copy import copy
from functools import partial
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar, overload

from attrs import asdict, evolve

from realtime_fsm.assembly import Assembly
from realtime_fsm.engine.component import Components
from realtime_fsm.engine.dispatcher import Event, Handler, UserCode
from realtime_fsm.engine.ending import Ending
from realtime_fsm.engine.first_words import ConnectHook
from realtime_fsm.engine.link import Link
from realtime_fsm.engine.manager import ConnectionManager
from realtime_fsm.engine.message import Message, Receipt
from realtime_fsm.engine.observers import Stream
from realtime_fsm.engine.outbound_queue import LOOP_CLOSED
from realtime_fsm.engine.outbox import Outbox
from realtime_fsm.engine.outbox_control import OutboxControl
from realtime_fsm.engine.payload import check_event_name
from realtime_fsm.engine.port import HttpClient, RandomSource, TokenSource, TransportFactory, WallClock
from realtime_fsm.engine.recovery import ErrorRecoveryStrategy
from realtime_fsm.engine.status import ConnectionStatusManager, OutageHook
from realtime_fsm.engine.subscriptions import (
    BOOKING_PREFIX,
    ResyncHook,
    Subscription,
    SubscriptionState,
    check_names,
)
from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.machine.connection_machine import ConnectionMachine
from realtime_fsm.machine.delivery import Delivery
from realtime_fsm.machine.errors import (
    CallTimeoutError,
    ClosedError,
    ConfigurationError,
    OutboxStorageError,
    RealtimeError,
    SubscriptionRefusedError,
    WrongLoopError,
)
from realtime_fsm.machine.record import StatusChange
from realtime_fsm.machine.table import TRAITS, ConnectionStatus, Trigger
from realtime_fsm.monitoring.health import Health, Signs, examine
from realtime_fsm.monitoring.metrics import ConnectionMetrics, measure

H = TypeVar("H", bound=Handler)

_logger = logging.getLogger("realtime_fsm")

_LOG_LEVELS: Final = {
    "error": logging.ERROR,
    "warn": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
}
_STUCK_AFTER: Final = 30.0
"""Seconds that a handler may take, or all may be behind, before the health tells of it."""


class RealtimeService:
    """A Socket.IO connection that stays alive, with polling as its fallback.

    ::

        async with RealtimeService(config, token=fetch_token) as realtime:
            @realtime.on("booking_updated")
            async def updated(data): ...

            await realtime.subscribe(["bookings"])
            receipt = await realtime.emit("note", {"text": "hi"})
            await receipt

    From its first use to the end of ``disconnect()`` it belongs to one event loop: any other loop or thread
    gets a ``WrongLoopError``, and only the status, ``metrics`` and ``health()`` may be asked for anywhere.
    Where that loop was closed without ``disconnect()``, it may be connected on another one.

    Args:
        config: By default ``RealtimeConfig.from_env()``.
        token: A string, a ``Token``, or a callable or coroutine function that gives one.
        transport_factory: Makes the transports; by default over python-socketio.
        http: The HTTP side of the fallback; by default over aiohttp.
        outbox: Where accepted messages are kept; by default in ``config.outbox_path``, or in memory.
        random: Source of all jitter; by default the system's.
        wall: The wall clock; by default ``time.time``.

    Attributes:
        config: The configuration.
        connection_status: The status with its history, and who is told of it.
        recovery: What is done about errors, and who is told of them.

    Raises:
        ConfigurationError: If the configuration of the environment is wrong.
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
        self.config = RealtimeConfig.from_env() if config is None else config
        self._assembly = Assembly(
            self.config,
            token=token,
            transport_factory=transport_factory,
            http=http,
            outbox=outbox,
            random=random,
            wall=wall,
            force_fallback=self.force_fallback,
            release_fallback=self.release_fallback,
        )
        self.connection_status: ConnectionStatusManager = self._assembly.status
        self.recovery: ErrorRecoveryStrategy = self._assembly.recovery
        self._wall = wall
        self._queue = self._assembly.queue
        self._sender = self._assembly.sender
        self._dispatcher = self._assembly.dispatcher
        self._subscriptions = self._assembly.subscriptions
        # What runs from `connect()` to `disconnect()`, and belongs to the loop on which it was begun.
        self._manager: ConnectionManager | None = None
        self._parts: Components | None = None
        self._ending: Ending | None = None  # while a disconnect is under way; all who want one share it
        self._ends_asked_for = 0
        self._loop: asyncio.AbstractEventLoop | None = None  # whose it is, from its first use to its end
        # Who waits for the first attempt to be decided, and whether nobody has been told of it yet: the last
        # one who is cancelled then takes the client down again.
        self._connecting = 0
        self._is_undecided = False
        self.debug_mode(self.config.debug_mode)

    # Life cycle.

    async def __aenter__(self) -> Self:
        try:
            await self.connect()
        except ClosedError:
            raise  # somebody has disconnected it, and may have begun anew
        except RealtimeError:
            await self.disconnect(drain=False)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # An exception is on its way out: it must not wait for a slow server.
        await self.disconnect(drain=kind is None)

    async def connect(self) -> ConnectionStatus:
        """Begin to connect, and wait until the first attempt is decided.

        An attempt that fails for a reason that may pass leaves the client retrying in the background:
        ``emit`` and ``subscribe`` work all the while. Calling it again while it is active changes nothing.

        Returns:
            The status: CONNECTED, RECONNECTING or FALLBACK.

        Raises:
            RealtimeError: Why it gave up: the server refused the identity, or retrying is switched off. The
                status is FAILED then, and ``retry_now()`` tries again.
            OutboxStorageError: If the file of the outbox cannot be opened. The status is DISCONNECTED then.
            ClosedError: If it was disconnected, or paused, before that was decided.
            WrongLoopError: If it is in use on another event loop.
        """
        self._enter(begins=True)
        asked = self._ends_asked_for
        while self._ending is not None:  # it begins after the end of what was before
            self._ending.spare(UserCode.tasks_above())
            await asyncio.wait({self._ending.task})
            if self._ends_asked_for > asked:
                raise ClosedError("It was disconnected again before it could connect.")
        manager = self._manager or self._start()
        self._connecting += 1
        try:
            await self._decided(manager)
        except (asyncio.CancelledError, OutboxStorageError) as error:
            is_last = self._is_undecided and self._connecting == 1
            if self._is_running(manager) and (is_last or isinstance(error, OutboxStorageError)):
                await self.disconnect(drain=False)
            raise
        finally:
            self._connecting -= 1
        if not self._is_running(manager) or not manager.traits.wanted:
            raise ClosedError("It was disconnected while it connected.")
        self._is_undecided = False
        if self.gave_up is not None:
            raise copy(self.gave_up)  # the history keeps the original, and must not keep the caller's frames
        return manager.status

    async def wait_for(
        self,
        *statuses: ConnectionStatus,
        timeout: float | None = None,  # noqa: ASYNC109 - a bound is what callers want
    ) -> ConnectionStatus:
        """Wait until the status is one of these; return it.

        Args:
            statuses: By default CONNECTED.
            timeout: Seconds; ``None`` waits for as long as it takes, or until the client disconnects.

        Raises:
            TimeoutError: If it has not come to that in time.
            ClosedError: If the client was disconnected meanwhile.
        """
        self._enter()
        wanted = statuses or (ConnectionStatus.CONNECTED,)
        changes = self.connection_status.changes()
        async with asyncio.timeout(timeout):
            while self.status not in wanted:
                if await anext(changes, None) is None:
                    raise ClosedError(f"It was disconnected while {', '.join(wanted)} was waited for.")
        return self.status

    async def disconnect(self, *, drain: bool = True) -> tuple[Receipt, ...]:
        """Close everything within ``close_timeout``; safe to call twice, and from a handler.

        From now on no message is accepted until it has ended. All who call it share one ending, and
        ``connect()`` begins after it. Cancelled, it still ends, without the drain: the status is DISCONNECTED
        by then, and what is left of the connection goes in the background. A handler that waits for it, in
        whatever way, is neither cancelled nor waited for; another one that is running may end by itself
        until the time is nearly over.

        Args:
            drain: While messages can be delivered (connected, or in FALLBACK where they are published over
                HTTP), first send what waits, and wait for the acknowledgements, and for a sign that the
                server has read the rest. ``False`` decides for all who share the ending.

        Returns:
            Receipts of the messages that could not be delivered, or may be lost, because nobody has seen that
            the server has read them; awaiting one raises ``DeliveryError``. What a durable outbox holds of
            them is sent at the next start.
        """
        self._enter(begins=True)
        self._ends_asked_for += 1
        if self._ending is None:
            self._ending = Ending(
                sender=self._sender,
                dispatcher=self._dispatcher,
                status=self.connection_status,
                manager=self._manager,
                parts=self._parts,
                close_timeout=self.config.close_timeout,
                report=self.recovery.handle,
                on_end=self._ended,
            )
        return await self._ending.wait(drain=drain)

    def pause(self) -> bool:
        """Let the connection go, and keep everything else, until ``connect()``.

        Other than after ``disconnect()``, messages are accepted and wait, whatever the outbox; streams of
        events and of changes stay open; nothing is settled but what was in flight and is never sent twice.

        Returns:
            Whether there was anything to be paused.
        """
        self._enter()
        return self._manager is not None and self._manager.fire(Trigger.DISCONNECT)

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
        self._enter()
        message = self._queue.compose(event, data, delivery, ttl=ttl)
        if (waiting := self._queue.submit(message)) is not None:
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
        self._enter()
        if delivery is None:
            exactly_once = self.config.dialect.deduplicates
            delivery = Delivery.EXACTLY_ONCE if exactly_once else Delivery.AT_LEAST_ONCE
        message = self._queue.compose(event, data, delivery, is_call=True)
        try:
            async with asyncio.timeout(timeout):
                if (waiting := self._queue.submit(message)) is not None:
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

    @property
    def outbox(self) -> OutboxControl:
        """The outbox: its size, its dead letters, and what can be done to them."""
        self._enter()
        return self._assembly.outbox

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
        self._enter()
        check_event_name(event)
        if handler is None:
            return lambda given: self.on(event, given)
        self._dispatcher.on(event, handler)
        return handler

    def off(self, event: str, handler: Handler | None = None) -> int:
        """Stop handling an event, with one handler or all; return how many were removed."""
        self._enter()
        return self._dispatcher.off(check_event_name(event), handler)

    def events(self, event: str) -> Stream[Event]:
        """Return a stream of the events of one name from now on: ``async for event in ...: event.data``.

        It ends when the client disconnects; one that is opened after that waits for the next connection. A
        reader that falls more than ``max_pending_events`` behind gets ``LaggedError``; it never holds the
        other handlers up.
        """
        self._enter()
        return self._dispatcher.events(check_event_name(event))

    # Channels.

    async def subscribe(self, channels: Iterable[str]) -> None:
        """Subscribe to channels. Remembered, and repeated on every connection.

        On a live connection it returns when the server has confirmed them, where the dialect confirms; in
        FALLBACK, where channels are polled, when polling has told where each stands: from then on no event
        of theirs is missed in silence. Offline, and within an ``on_connect`` hook, it returns at once: see
        ``subscriptions`` for how far each has come.

        Raises:
            InvalidArgumentError: If a name is blank, or cannot be asked for within ``max_message_bytes``.
                Nothing is remembered then.
            SubscriptionRefusedError: If the server refused one (the others are subscribed), or did not answer
                within ``ack_timeout`` (they stay wanted, and are asked for again).
        """
        self._enter()
        names = check_names(channels, what="channels")
        self._subscriptions.check(names)
        self._subscriptions.want(names)
        await self._ask(names)

    async def unsubscribe(self, channels: Iterable[str]) -> None:
        """Forget channels, and tell the server, where it knows them: in the first step, so never too early.

        From then on no event of theirs that is still under way reaches a handler, where the dialect tells
        whose an event is. What a server that recovers sessions cannot be told now, it is told by the next
        connection.
        """
        self._enter()
        asked = self._subscriptions.forget(check_names(channels, what="channels"))
        if (link := self._live_link) is not None:
            await self._subscriptions.drop(link, asked)

    async def monitor_bookings(self, booking_ids: Iterable[str]) -> None:
        """Subscribe to what happens to bookings. As ``subscribe``; their channels are ``booking:<id>``."""
        self._enter()
        names = check_names(booking_ids, what="booking_ids")
        self._subscriptions.check(names, bookings=True)
        self._subscriptions.want(names, bookings=True)
        await self._ask([BOOKING_PREFIX + name for name in names])

    def on_resync(self, hook: ResyncHook) -> ResyncHook:
        """Have a hook load the present state when events were missed that cannot be replayed; a decorator.

        It is called among the handlers, in its turn: after the events before the gap, before those after it.
        With the reference backend it is told the channel, and returns the ``Position`` that its snapshot
        stands for, from which the channel goes on (``None``: from where the stream stood). Elsewhere it is
        called for everything after each reconnect that the server did not recover, and when events were
        dropped because the handlers were behind. A second hook replaces the first.

        Args:
            hook: ``hook(missed) -> Position | None``, plain or a coroutine function.
        """
        self._enter()
        self._subscriptions.resync.hook = hook
        return hook

    def on_connect(self, hook: ConnectHook) -> ConnectHook:
        """Have a hook say the first word on every connection: a login, a join; a decorator.

        It is awaited in CONNECTED, before channels are subscribed again and before anything that waits in
        the outbox is sent. What it emits and calls (tasks that it starts included, while it runs) overtakes
        all that; nothing else of the program's is sent before it has ended. Such messages are of their
        connection: they are not kept in a durable outbox, because the next connection has the hook again.

        It may take ``connection_timeout``. If it raises, the connection is given up with that error: a
        ``RealtimeError`` says itself whether trying again can help (``AuthenticationError`` leads to FAILED);
        after any other, and when it takes too long, the connection is tried again with backoff. A second hook
        replaces the first.

        Args:
            hook: ``hook()``, plain or a coroutine function.
        """
        self._enter()
        self._assembly.first_words.hook = hook
        return hook

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        """All that is wanted, and how far each has come: copies."""
        return tuple(copy(subscription) for subscription in self._subscriptions)

    # Status and observation.

    @property
    def status(self) -> ConnectionStatus:
        """The state of the connection; DISCONNECTED before ``connect()`` and after ``disconnect()``."""
        if self._manager is None or self._manager.is_orphaned:
            return ConnectionStatus.DISCONNECTED
        return self._manager.status

    @property
    def is_connected(self) -> bool:
        """True while the socket is live."""
        return TRAITS[self.status].sends

    @property
    def gave_up(self) -> RealtimeError | None:
        """The error for which nothing is tried any more by itself; ``None`` while something is."""
        return None if self._manager is None else self._manager.resting_error

    @property
    def next_attempt_in(self) -> float | None:
        """Seconds until the socket is tried for by itself, probing included; ``None`` while no wait is."""
        return None if self._manager is None else self._manager.next_attempt_in

    @property
    def metrics(self) -> ConnectionMetrics:
        """A frozen picture of how the connection fares."""
        return measure(
            self._assembly.statistics,
            status=self.status,
            retry_in=None if self._manager is None else self._manager.retry_in,
            sender=self._sender,
            pending=len(self._dispatcher),
            time=self._time,
            wall=self._wall,
        )

    @property
    def latency_samples(self) -> tuple[float, ...]:
        """The last round trips of the heartbeats, 512 at most, the oldest first; seconds."""
        return tuple(self._assembly.statistics.latency.recent)

    def health(self) -> Health:
        """Examine the client, as a health check would."""
        manager, config, link = self._manager, self.config, self._live_link
        return examine(
            self.status,
            self.connection_status.last,
            Signs(
                unanswered_since=None if link is None else link.unanswered_since,
                answer_within=config.heartbeat_timeout,
                unacknowledged_since=None if link is None else self._sender.oldest_in_flight_at,
                acknowledge_within=config.ack_timeout,
                polls_fail=manager is not None and manager.polling.is_failing,
                is_ending=self._ending is not None,
                refused_channels=sum(
                    subscription.state is SubscriptionState.REFUSED for subscription in self._subscriptions
                ),
                storage_error=self._queue.storage_error,
            ),
            self._dispatcher,
            now=self._time(),
            patience=_STUCK_AFTER,
        )

    def dump(self, path: str | PathLike[str] | None = None) -> dict[str, Any]:
        """Return what the client did last: its last 500 records, metrics and health, as JSON.

        Messages and events are among the records in debug mode only. No body, and no secret.

        Args:
            path: File into which it is written as well.
        """
        health, metrics = self.health(), self.metrics
        told: dict[str, Any] = {
            "at": self._wall(),
            "status": self.status.value,
            "health": health.to_json(),
            "metrics": {**asdict(metrics), "status": metrics.status.value},
            "records": self._assembly.recorder.as_json(),
        }
        if path is not None:
            Path(path).write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return told

    def changes(self) -> Stream[StatusChange]:
        """Return a stream of every ``StatusChange`` from now on, none skipped. Ends with the disconnect."""
        self._enter()
        return self.connection_status.changes()

    def on_outage(self, lost: OutageHook, restored: OutageHook, *, after: float = 2.0) -> Callable[[], None]:
        """Call hooks for the outages that people notice; blips shorter than ``after`` are hidden.

        Args:
            lost: Called with the ``Outage`` once it has lasted ``after``.
            restored: Called with it when it ends; strictly in turn with ``lost``.
            after: Seconds.

        Returns:
            A function that ends it.
        """
        self._enter()
        return self.connection_status.on_outage(lost, restored, after=after)

    def on_settled(self, observer: Callable[[Message, float], object]) -> Callable[[], None]:
        """Call ``observer`` with every message that comes to its end, and when that was (Unix time).

        Returns:
            A function that ends it.
        """
        self._enter()
        return self._queue.observers.add(observer)

    # What an operator does.

    def retry_now(self) -> bool:
        """Try to connect now instead of later; return whether there was a wait to be ended."""
        self._enter()
        return self._manager is not None and self._manager.retry_now()

    def check_now(self) -> bool:
        """Ask the server for an answer now; return whether there is a connection that can be asked.

        For a program that knows of a wake-up, or of a change of the network: a connection that did not
        survive it is noticed within ``heartbeat_timeout``, and not at the next heartbeat.
        """
        self._enter()
        return self._manager is not None and self._manager.check_now()

    def force_fallback(self) -> bool:
        """Give the socket up and poll, until ``release_fallback``.

        Raises:
            ConfigurationError: If there is nothing to poll.
            IllegalTransitionError: If it is not connected at all.
        """
        self._enter()
        if not self.config.can_poll:
            raise ConfigurationError(
                "fallback_endpoints=() gives nothing to poll: set it, or a dialect with a poll_path"
            )
        return self._fire(Trigger.FORCE_FALLBACK)

    def release_fallback(self) -> bool:
        """Let a forced fallback look for the socket again; return whether there was one."""
        self._enter()
        return self._fire(Trigger.RELEASE_FALLBACK)

    def debug_mode(self, enabled: bool) -> None:
        """Log everything, or go back to ``log_level``; at run time, for the whole process.

        Every change, decision, attempt, event and message is a record of the logger ``realtime_fsm.trace``:
        one glyph per kind, and ``kind``, ``epoch`` and ``attempt`` in ``extra``. No body, and no secret.
        """
        _logger.setLevel(logging.DEBUG if enabled else _LOG_LEVELS[self.config.log_level])

    # Inside.

    @property
    def _live_link(self) -> Link | None:
        return None if self._manager is None else self._manager.link

    def _start(self) -> ConnectionManager:
        self._manager, self._parts = self._assembly.start()
        self._is_undecided = True
        return self._manager

    def _fire(self, trigger: Trigger) -> bool:
        """Fire a trigger of the user; while nothing runs, a fresh machine says what it thinks of it."""
        return ConnectionMachine().fire(trigger) if self._manager is None else self._manager.fire(trigger)

    def _is_running(self, manager: ConnectionManager) -> bool:
        return self._manager is manager and self._ending is None

    async def _decided(self, manager: ConnectionManager) -> None:
        """Connect, and wait until that is decided, or until it was disconnected."""
        changes = self.connection_status.changes()
        await self._queue.open()
        if self._is_running(manager):
            manager.fire(Trigger.CONNECT)
        while self._is_running(manager) and not manager.is_settled:
            if await anext(changes, None) is None:
                return

    def _ended(self) -> None:
        """Take note that the ending is over: the client is nobody's any more."""
        self._manager = self._parts = self._ending = None

    def _time(self) -> float:
        """Return the clock of the client's loop, from wherever it is asked for."""
        return 0.0 if self._loop is None else self._loop.time()

    def _enter(self, *, begins: bool = False) -> None:
        """Take note of where the client is used; it belongs to one event loop from its first use to its end.

        Args:
            begins: Whether it may leave a loop that was closed, and begin on this one.

        Raises:
            WrongLoopError: If it belongs to another one.
        """
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        owner = self._loop
        if running is owner:
            return
        is_used = self._manager is not None or self._ending is not None or self._queue.is_in_use
        if owner is not None and not owner.is_closed() and is_used:
            if running is None and not owner.is_running():
                return  # between two `run_until_complete` of its own loop
            raise WrongLoopError(
                "This client is in use on another event loop"
                f"{'' if owner.is_running() else ', which does not run now'}."
            )
        if is_used and not begins:
            raise WrongLoopError(
                "The event loop of this client was closed without `disconnect()`.",
                remedy="Call `connect()` on the loop that it shall belong to now.",
            )
        if running is not None:
            self._leave_loop()
            self._loop = running

    def _leave_loop(self) -> None:
        """Throw away what belongs to the loop of before; after a clean end that is next to nothing."""
        was = self.connection_status.last
        is_dead = self._manager is not None
        self._manager = self._parts = self._ending = None
        self._connecting = 0
        self._dispatcher.leave_loop()
        self._sender.leave_loop()
        self._subscriptions.leave_loop()
        self.connection_status.leave_loop()
        if is_dead and was is not None and TRAITS[was.current].online:
            self._assembly.statistics.connected_at = None
            self.connection_status.set(
                evolve(
                    was,
                    previous=was.current,
                    current=ConnectionStatus.DISCONNECTED,
                    trigger=Trigger.DISCONNECT,
                    reason=LOOP_CLOSED,
                    error=None,
                    retry_in=None,
                    at=self._wall(),
                    epoch=was.epoch + 1,
                )
            )

    def _polls_channels(self) -> bool:
        """Tell whether polling is about to tell where channels stand."""
        return TRAITS[self.status].publishes and self.config.dialect.poll_path is not None

    async def _ask(self, channels: list[str]) -> None:
        """Wait until it is decided about channels, where anybody is there to decide it."""
        try:
            async with asyncio.timeout(self.config.ack_timeout):
                while not self._queue.is_first_word:  # they are asked for after it
                    if (link := self._live_link) is not None:
                        await self._subscriptions.decided(channels, partial(_lives, link))
                        if _lives(link):
                            break
                    elif self._polls_channels():
                        await self._subscriptions.placed(channels, self._polls_channels)
                        if self._polls_channels():
                            break
                    else:
                        break  # nobody is there who could decide it now
                    await asyncio.sleep(0)  # the state is being left
        except TimeoutError:
            raise SubscriptionRefusedError(
                f"The server did not answer for {', '.join(channels)} within {self.config.ack_timeout} s.",
                remedy="They stay wanted, and are asked for again.",
            ) from None
        if (refused := self._subscriptions.refusals(channels)) is not None:
            raise refused


def _lives(link: Link) -> bool:
    return not link.has_ended
