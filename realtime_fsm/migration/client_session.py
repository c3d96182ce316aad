"""What one ``connect()`` of the adapter begins: an engine, and the old client's events on top of it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from socketio import AsyncClient as RealClient
from socketio import exceptions

from realtime_fsm.machine.delivery import Delivery
from realtime_fsm.machine.errors import CallTimeoutError, ClosedError, DeliveryError, RealtimeError
from realtime_fsm.machine.record import AttemptRecord, StatusChange
from realtime_fsm.machine.table import ConnectionStatus
from realtime_fsm.migration.client_handlers import invoke
from realtime_fsm.migration.client_options import ACK_TIMEOUT, Spread
from realtime_fsm.migration.client_transport import Dialler, Question
from realtime_fsm.service import RealtimeService

_FOREVER: Final = 10 * ACK_TIMEOUT

_logger = logging.getLogger("realtime_fsm.migration")

Trigger = Callable[..., Awaitable[Any]]


class ClientSession:
    """A connection of the adapter, through all its outages, from ``connect()`` to its end.

    Args:
        dialler: Makes the transports.
        namespace: The one namespace.
        trigger: Calls the handler of ``(event, namespace, *args)``.
        spread: Draws the jitter.

    Attributes:
        realtime: The engine.
        namespace: The one namespace.
        is_live: Whether the connection is open.
        ended: Set when it is closed for good.
    """

    def __init__(self, dialler: Dialler, namespace: str, trigger: Trigger, spread: Spread) -> None:
        self._dialler = dialler
        self._trigger = trigger
        self.namespace = namespace
        self.realtime = RealtimeService(dialler.config, transport_factory=dialler, random=spread)
        self.is_live = False
        self.ended = asyncio.Event()
        self._was_open = False
        self._running: set[asyncio.Task[Any]] = set()
        self._told: asyncio.Task[Any] | None = None  # the last `connect` or `connect_error`
        self._farewell: asyncio.Task[Any] | None = None  # the last `disconnect`
        self._closing: asyncio.Task[None] | None = None
        self.realtime.on("*", self._event)
        self.realtime.connection_status.subscribe(self._changed)
        self.realtime.connection_status.subscribe_attempts(self._attempted)

    @property
    def sid(self) -> str | None:
        """The namespace's session id, while it is open."""
        made = self._dialler.made
        return made.welcome.get("sid", made.session_id) if self.is_live and made is not None else None

    @property
    def engine_sid(self) -> str | None:
        """The Engine.IO session's id, while it is open."""
        made = self._dialler.made
        return made.session_id if self.is_live and made is not None else None

    @property
    def transport_name(self) -> str | None:
        """What carries it."""
        made = self._dialler.made
        return made.name if self.is_live and made is not None else None

    # Beginning and ending.

    async def open(self, *, wait: bool, patience: float) -> None:
        """Connect, and give the ``connect`` handler some time.

        Args:
            wait: Whether a refusal of the namespace is an error.
            patience: Seconds for the handler.

        Raises:
            socketio.exceptions.ConnectionError: If it cannot; everything is released then.
        """
        try:
            await self._connect()
        except RealtimeError as error:
            refused = self._refusal is not None
            await self._close_after(self._told)
            if refused and not wait:
                return
            head = f"One or more namespaces failed to connect: {self.namespace} - " if refused else ""
            raise exceptions.ConnectionError(f"{head}{error}") from error
        except BaseException:
            await self.close()
            raise
        await asyncio.sleep(0)  # the change is told in the loop's next turn
        if self._told is not None:
            await asyncio.wait({self._told}, timeout=patience)

    async def close(self) -> None:
        """End everything, after the ``disconnect`` handler; safe to call twice, and from a handler."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name="realtime_fsm migration: close")
        if asyncio.current_task() is not self._farewell:
            await asyncio.shield(self._closing)

    async def _connect(self) -> None:
        status = await self.realtime.connect()
        if status is not ConnectionStatus.CONNECTED:  # `retry=True`
            settled = (ConnectionStatus.CONNECTED, ConnectionStatus.FAILED)
            await self.realtime.wait_for(*settled)
            if self.realtime.gave_up is not None:
                raise self.realtime.gave_up

    async def _close_after(self, task: asyncio.Task[Any] | None) -> None:
        if task is not None and task is not asyncio.current_task():
            await asyncio.wait({task})
        await self.close()

    async def _close(self) -> None:
        was_trying = self._was_open and not self.is_live
        await self.realtime.disconnect(drain=self.is_live)
        await asyncio.sleep(0)  # the change is told in the loop's next turn
        if self._farewell is not None:
            await asyncio.wait({self._farewell})
        elif was_trying:
            await self._tell("__disconnect_final")
        self.ended.set()

    # Messages.

    async def emit(self, event: str, data: Any, callback: Callable[..., Any] | None) -> None:
        """Send an event; call back with the arguments of its acknowledgement.

        Raises:
            RealtimeError: If it cannot be sent.
        """
        if callback is None:
            await self.realtime.emit(event, data, delivery=Delivery.AT_MOST_ONCE)
            return
        asking = self._spawn(self._ask(event, data, _FOREVER), f"ack of {event}")
        await asyncio.sleep(0)  # it has been accepted, or refused, when this returns
        if asking.done() and (error := asking.exception()) is not None:
            raise error
        self._spawn(self._call_back(event, asking, callback), f"callback of {event}")

    async def call(self, event: str, data: Any, seconds: float | None) -> tuple[Any, ...]:
        """Send an event, and return the arguments of its acknowledgement.

        Raises:
            socketio.exceptions.TimeoutError: If there is none in time, or the connection ended before.
            RealtimeError: If it cannot be sent.
        """
        try:
            return await self._ask(event, data, _FOREVER if seconds is None else seconds)
        except (CallTimeoutError, DeliveryError) as error:
            raise exceptions.TimeoutError(str(error)) from None

    async def _ask(self, event: str, data: Any, seconds: float) -> tuple[Any, ...]:
        args: tuple[Any, ...] = await self.realtime.call(
            event, data, timeout=seconds, delivery=Delivery.AT_MOST_ONCE
        )
        return args

    async def _call_back(
        self, event: str, asking: "asyncio.Task[tuple[Any, ...]]", callback: Callable[..., Any]
    ) -> None:
        try:
            args = await asking
        except (CallTimeoutError, ClosedError, DeliveryError) as error:
            _logger.info("no acknowledgement of %r: %s", event, error.message)
            return
        await self._guarded(f"the callback of {event!r}", invoke(callback, *args))

    # What the engine tells.

    def _event(self, name: str, *args: Any) -> Awaitable[Any] | None:
        """Handle an event in a task of its own, as the old client does; wait where there are very many."""
        question = args[-1] if args and isinstance(args[-1], Question) else None
        given = args if question is None else args[:-1]
        self._spawn(self._handle(name, given, question), f"handler of {name}")
        if len(self._running) < self.realtime.config.max_pending_events:
            return None
        return self._relieved()

    async def _relieved(self) -> None:
        await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)

    async def _handle(self, name: str, args: tuple[Any, ...], question: Question | None) -> None:
        what = f"the handler of {name!r}"
        answered = invoke(self._trigger, name, self.namespace, *args)
        if question is None:
            await self._guarded(what, answered)
        else:
            await self._guarded(what, _answer(question, answered))

    def _changed(self, change: StatusChange) -> None:
        if change.is_connected:
            self.is_live = self._was_open = True
            self._farewell = None
            self._told = self._spawn(self._tell("connect"), "connect")
            return
        gave_up = change.current is ConnectionStatus.FAILED
        if change.is_lost:
            self.is_live = False
            made = self._dialler.made
            dismissed = made is not None and made.is_dismissed
            reason = RealClient.reason.TRANSPORT_ERROR
            if change.is_goodbye or dismissed:
                reason = RealClient.reason.CLIENT_DISCONNECT if change.is_goodbye else _DISMISSED
            is_final = change.is_goodbye or dismissed or gave_up
            self._farewell = self._spawn(self._leave(reason, is_final=is_final), "disconnect")
            if is_final and not change.is_goodbye:
                self._spawn(self.close(), "close")
        elif gave_up and self._was_open:
            self._spawn(self.close(), "close")

    def _attempted(self, attempt: AttemptRecord) -> None:
        if attempt.error is None:
            return
        refusal = self._refusal
        args: tuple[Any, ...] = (attempt.error.message,)
        if refusal is not None:
            (data,) = refusal
            args = () if data is None else tuple(data) if isinstance(data, (tuple, list)) else (data,)
        self._told = self._spawn(self._tell("connect_error", *args), "connect_error")

    @property
    def _refusal(self) -> tuple[Any] | None:
        made = self._dialler.made
        return None if made is None else made.refusal

    # Running the user's code.

    async def _leave(self, reason: str, *, is_final: bool) -> None:
        await self._tell("disconnect", reason)
        if is_final:
            await self._tell("__disconnect_final")

    async def _tell(self, event: str, *args: Any) -> None:
        await self._guarded(f"the handler of {event!r}", invoke(self._trigger, event, self.namespace, *args))

    async def _guarded(self, what: str, work: Awaitable[Any]) -> None:
        """Await the user's code; what it raises is logged, and disturbs nothing."""
        try:
            await work
        except Exception:
            _logger.exception("%s failed", what)

    def _spawn(self, work: Coroutine[Any, Any, Any], what: str) -> "asyncio.Task[Any]":
        task = asyncio.get_running_loop().create_task(work, name=f"realtime_fsm migration: {what}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task


_DISMISSED: Final = RealClient.reason.SERVER_DISCONNECT


async def _answer(question: Question, handled: Awaitable[Any]) -> None:
    question.answer(await handled)
