"""The life cycle of a client: connecting, waiting, disconnecting, and what an operator does to it."""

import asyncio
import logging
import time
from copy import copy
from types import TracebackType
from typing import Self

from realtime_fsm.assembly import Assembly, loop_time
from realtime_fsm.engine.component import Components
from realtime_fsm.engine.manager import ConnectionManager
from realtime_fsm.engine.message import Receipt
from realtime_fsm.engine.outbox import Outbox
from realtime_fsm.engine.port import HttpClient, RandomSource, TokenSource, TransportFactory, WallClock
from realtime_fsm.engine.recovery import ErrorRecoveryStrategy
from realtime_fsm.engine.status import ConnectionStatusManager
from realtime_fsm.engine.stream import Stream
from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.machine.connection_machine import ConnectionMachine
from realtime_fsm.machine.errors import ClosedError, ConfigurationError, OutboxStorageError, RealtimeError
from realtime_fsm.machine.record import StatusChange
from realtime_fsm.machine.table import TRAITS, ConnectionStatus, Trigger

_logger = logging.getLogger("realtime_fsm")


class Lifecycle:
    """What ``RealtimeService`` is made on: a connection that can be begun and ended, again and again.

    Its arguments are those of ``RealtimeService``, which says what they are.
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
        self._dispatcher = self._assembly.dispatcher
        self._sender = self._assembly.sender
        self._intake = self._assembly.intake
        self._wall = wall
        self.connection_status: ConnectionStatusManager = self._assembly.status
        self.recovery: ErrorRecoveryStrategy = self._assembly.recovery
        self._manager: ConnectionManager | None = None
        self._parts: Components | None = None
        self._ended = asyncio.Event()
        self._ended.set()

    async def __aenter__(self) -> Self:
        try:
            await self.connect()
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

    # Beginning and ending.

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
        """
        await self._ended.wait()  # a disconnect that is under way takes what is left of the old connection
        begun_here = self._manager is None
        manager = self._manager or self._start()
        changes = self.connection_status.changes()
        try:
            await self._intake.open()
            if self._manager is manager:  # unless it was disconnected meanwhile
                manager.fire(Trigger.CONNECT)
            if not manager.is_settled:
                async for _ in changes:
                    if manager.is_settled:
                        break
        except (asyncio.CancelledError, OutboxStorageError):
            if begun_here:
                await self.disconnect(drain=False)
            raise
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
        wanted = statuses or (ConnectionStatus.CONNECTED,)
        changes = self.connection_status.changes()
        async with asyncio.timeout(timeout):
            while self.status not in wanted:
                if await anext(changes, None) is None:
                    raise ClosedError(f"It was disconnected while {', '.join(wanted)} was waited for.")
        return self.status

    async def disconnect(self, *, drain: bool = True) -> tuple[Receipt, ...]:
        """Close everything within ``close_timeout``; safe to call twice, and from a handler.

        From now on no message is accepted until it has ended.

        Args:
            drain: While messages can be delivered (connected, or in FALLBACK where they are published over
                HTTP), first send what waits, and wait for the acknowledgements, in half of that time.

        Returns:
            Receipts of the messages that could not be delivered; awaiting one raises ``DeliveryError``. What
            a durable outbox holds of them is sent at the next start.
        """
        manager, parts = self._manager, self._parts
        if manager is None or parts is None:
            await self._intake.close()
            return self._abandon()
        limit = self.config.close_timeout
        deadline = loop_time() + limit
        self._intake.stop_accepting()
        if drain and self._can_deliver():
            await self._drain(limit / 2)
        self._manager = self._parts = None
        self._ended.clear()
        ending = {manager.stop()} | {
            asyncio.ensure_future(closing)
            for closing in (parts.tokens.close(), parts.http.close(), self._intake.close())
        }
        try:
            async with asyncio.timeout_at(deadline):
                await self._dispatcher.close()  # in this task: it may be a handler's
                await asyncio.wait(ending)
        except TimeoutError:
            for task in ending:
                task.cancel()
            _logger.error("not everything ended within close_timeout=%s s", limit)  # noqa: TRY400 - said
        finally:
            left = self._abandon()
            self.connection_status.end_streams()
            self._ended.set()
        return left

    def changes(self) -> Stream[StatusChange]:
        """Return a stream of every ``StatusChange`` from now on, none skipped. Ends with the disconnect."""
        return self.connection_status.changes()

    # What an operator asks and does.

    @property
    def status(self) -> ConnectionStatus:
        """The state of the connection."""
        return ConnectionStatus.DISCONNECTED if self._manager is None else self._manager.status

    @property
    def is_connected(self) -> bool:
        """Whether the socket is live."""
        return TRAITS[self.status].sends

    @property
    def gave_up(self) -> RealtimeError | None:
        """Why nothing is tried any more by itself; ``None`` while something is."""
        return None if self._manager is None else self._manager.resting_error

    @property
    def next_attempt_in(self) -> float | None:
        """Seconds until the socket is tried for by itself, probing included; ``None`` while no wait is."""
        return None if self._manager is None else self._manager.next_attempt_in

    def pause(self) -> bool:
        """Let the connection go, and keep everything else, until ``connect()``.

        Other than after ``disconnect()``, messages are accepted and wait, whatever the outbox; streams of
        events and of changes stay open; nothing is settled but what was in flight and is never sent twice.

        Returns:
            Whether there was anything to be paused.
        """
        return self._manager is not None and self._manager.fire(Trigger.DISCONNECT)

    def retry_now(self) -> bool:
        """Try to connect now instead of later; return whether there was a wait to be ended (SPEC C4)."""
        return self._manager is not None and self._manager.retry_now()

    def force_fallback(self) -> bool:
        """Give the socket up and poll, until ``release_fallback`` (SPEC C3).

        Raises:
            ConfigurationError: If there is nothing to poll.
            IllegalTransitionError: If it is not connected at all.
        """
        if not self.config.can_poll:
            raise ConfigurationError(
                "fallback_endpoints=() gives nothing to poll: set it, or a dialect with a poll_path"
            )
        return self._fire(Trigger.FORCE_FALLBACK)

    def release_fallback(self) -> bool:
        """Let a forced fallback look for the socket again; return whether there was one."""
        return self._fire(Trigger.RELEASE_FALLBACK)

    # Inside.

    def _start(self) -> ConnectionManager:
        self._manager, self._parts = self._assembly.start()
        return self._manager

    def _fire(self, trigger: Trigger) -> bool:
        """Fire a trigger of the user; while nothing runs, a fresh machine says what it thinks of it."""
        return ConnectionMachine().fire(trigger) if self._manager is None else self._manager.fire(trigger)

    def _abandon(self) -> tuple[Receipt, ...]:
        left = self._sender.abandon(reason="the client was disconnected")
        return tuple(message.receipt for message in left)

    async def _drain(self, limit: float) -> None:
        """Wait until the outbox is empty, the connection is lost, or the time is up."""
        try:
            async with asyncio.timeout(limit):
                await self._sender.drained(self._can_deliver)
        except TimeoutError:
            _logger.warning("%d messages were not delivered in time", len(self._sender.queue))

    def _can_deliver(self) -> bool:
        """Tell whether messages can leave in the present state."""
        traits = TRAITS[self.status]
        return traits.sends or (traits.publishes and self.config.dialect.publish_path is not None)
