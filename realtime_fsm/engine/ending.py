"""The end of a client: one for all who ask for it, in a task of its own, so that nobody can tear it.

1. *Flush*: what was accepted is delivered, and the server is seen to have read it. Whoever asks for an end
   without a drain, and whoever is cancelled while he waits alone, ends this step and no other.
2. *Part*: the machine is disconnected. From here on the status is DISCONNECTED.
3. *Close*: the connection, the tokens, HTTP and the outbox; the handler that is running may end by itself.
4. *Settle*: what is left is given up, in batches, so that the loop gets its turns.

A handler that waits for the end (directly, or through whatever it has started) is let go: it is neither
waited for nor cancelled.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine
from typing import Any, Final

from realtime_fsm.engine.component import Components
from realtime_fsm.engine.dispatcher import Dispatcher, UserCode
from realtime_fsm.engine.manager import ConnectionManager
from realtime_fsm.engine.message import Receipt
from realtime_fsm.engine.sender import Sender
from realtime_fsm.engine.status import ConnectionStatusManager
from realtime_fsm.machine.errors import RealtimeError

_FLUSHED_BY: Final = 7 / 8
"""Fraction of ``close_timeout`` in which all is delivered; the goodbye gets half of what is left."""

_HANDLERS_BY: Final = 15 / 16
"""Fraction of it after which a handler that is still running is cancelled."""

_DRAIN: Final = 1 / 2
"""Fraction of it after which the proof is asked for, though something is still not acknowledged."""

_BATCH: Final = 200
"""Messages that are given up in one turn of the loop."""

_logger = logging.getLogger("realtime_fsm")


class Ending:
    """One end of a client, begun when it is made, by a task of the client's loop.

    Args:
        sender: What is to be delivered, and the queue behind it.
        dispatcher: Ended with its handlers.
        status: Its streams end.
        manager: What runs; ``None`` where nothing does.
        parts: Of the manager.
        close_timeout: Bound of all of it, seconds.
        report: Told of what goes wrong in it.
        on_end: Called when it has ended, before anybody who waits for it is told.

    Attributes:
        task: Ends with the receipts of what could not be delivered, or may be lost. It takes no notice of
            being cancelled but to hurry.
    """

    def __init__(
        self,
        *,
        sender: Sender,
        dispatcher: Dispatcher,
        status: ConnectionStatusManager,
        manager: ConnectionManager | None,
        parts: Components | None,
        close_timeout: float,
        report: Callable[[RealtimeError], object],
        on_end: Callable[[], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._sender = sender
        self._dispatcher = dispatcher
        self._status = status
        self._manager = manager
        self._parts = parts
        self._limit = close_timeout
        self._began = self._loop.time()
        self._report = report
        self._on_end = on_end
        self._is_hurried = False
        self._spared: set[asyncio.Task[Any]] = set()
        self._flushing: asyncio.Task[None] | None = None
        self._handling: asyncio.Task[None] | None = None  # the handlers' task, while it is waited for
        self._letting_go = self._loop.create_future()  # resolved when it is not waited for any more
        self._closing: list[asyncio.Task[Any]] = []
        self._has_parted = False
        self._waiting = 0
        sender.queue.stop_accepting()
        self.task = self._loop.create_task(self._run(), name="realtime_fsm ending")

    async def wait(self, *, drain: bool) -> tuple[Receipt, ...]:
        """Wait for the end; return what could not be delivered, or may be lost.

        Args:
            drain: Whether to deliver first. One who does not want that decides for all.
        """
        self.spare(UserCode.tasks_above())
        if not drain:
            self.hurry()
        self._waiting += 1
        try:
            return await asyncio.shield(self.task)
        except asyncio.CancelledError:
            if self._waiting == 1:
                self.hurry()
            raise
        finally:
            self._waiting -= 1

    def spare(self, tasks: Collection[asyncio.Task[Any]]) -> None:
        """Neither wait for these nor cancel them: they wait for the end."""
        self._spared |= set(tasks)
        if self._handling in self._spared and not self._letting_go.done():
            self._letting_go.set_result(None)

    def hurry(self) -> None:
        """Deliver nothing more, and disconnect at once; the rest follows, within ``close_timeout``."""
        if self._is_hurried or self.task.done():
            return
        self._is_hurried = True
        if self._flushing is not None:
            self._flushing.cancel()
        self._part()
        if self._handling is not None and self._handling not in self._spared:
            self._handling.cancel()

    @property
    def _deadline(self) -> float:
        return self._began + self._limit

    async def _run(self) -> tuple[Receipt, ...]:
        try:
            if self._can_deliver() and not self._is_hurried:
                self._flushing = self._start(self._flush())
                await self._wait([self._flushing], self._began + self._limit * _FLUSHED_BY)
                self._flushing.cancel()
                await self._wait([self._flushing], self._deadline)
            self._part()
            await self._close()
            return await self._settle()
        finally:
            self._on_end()

    def _start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        return self._loop.create_task(work, name="realtime_fsm ending: a step")

    async def _wait(
        self, tasks: Collection[asyncio.Future[Any]], until: float, *, any_of: bool = False
    ) -> None:
        """Wait for tasks, or for a moment. To be cancelled is to be hurried: no step is left out."""
        when = asyncio.FIRST_COMPLETED if any_of else asyncio.ALL_COMPLETED
        while left := [task for task in tasks if not task.done()]:
            if any_of and len(left) < len(tasks):
                return
            try:
                await asyncio.wait(left, timeout=max(0.0, until - self._loop.time()), return_when=when)
            except asyncio.CancelledError:
                self.hurry()
            else:
                return

    # Flush.

    def _can_deliver(self) -> bool:
        """Tell whether messages can leave in the present state."""
        if self._manager is None or self._parts is None or self._has_parted:
            return False
        traits = self._manager.traits
        return traits.sends or (traits.publishes and self._parts.config.dialect.publish_path is not None)

    async def _flush(self) -> None:
        """Wait until all is delivered, and the server was seen to have read it, or nothing can be done."""
        sender = self._sender
        try:
            async with asyncio.timeout(self._limit * _DRAIN):
                await sender.drained(self._can_deliver)
        except TimeoutError:
            _logger.warning("%d messages were not delivered in time", len(sender.queue))
        while self._can_deliver():
            left = len(sender.queue)
            sender.queue.progress.clear()
            is_proven = await sender.proven()
            if is_proven and left == len(sender.queue) == 0:
                return
            if left == len(sender.queue):
                await sender.queue.progress.wait()

    # Part.

    def _part(self) -> None:
        if self._has_parted:
            return
        self._has_parted = True
        self._handling = self._dispatcher.stop()
        if self._parts is not None and self._manager is not None:
            within = max(0.0, self._deadline - self._loop.time()) / 2
            self._closing = [
                self._manager.stop(within=within, spared=self._spared),
                self._start(self._parts.tokens.close()),
                self._start(self._parts.http.close()),
            ]
        self._closing.append(self._start(self._sender.queue.close()))

    # Close.

    async def _close(self) -> None:
        handling = self._handling
        if handling is not None and handling not in self._spared:
            patience = 0.0 if self._is_hurried else self._limit * _HANDLERS_BY
            await self._wait([handling, self._letting_go], self._began + patience, any_of=True)
            if handling not in self._spared:
                handling.cancel()
                self._closing.append(handling)
        await self._wait(self._closing, self._deadline)
        for task in self._closing:
            if not task.done():
                task.cancel()
                _logger.error("not everything ended within close_timeout=%s s", self._limit)
            elif not task.cancelled() and isinstance(error := task.exception(), RealtimeError):
                self._report(error)
            elif not task.cancelled() and error is not None:
                _logger.error("a step of the ending failed", exc_info=error)

    # Settle.

    async def _settle(self) -> tuple[Receipt, ...]:
        left: list[Receipt] = []
        for receipt in self._sender.abandon(reason="the client was disconnected"):
            left.append(receipt)
            if len(left) % _BATCH == 0:
                await self._turn()
        self._status.end_streams()
        self._sender.queue.accept_again()
        return tuple(left)

    async def _turn(self) -> None:
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.hurry()
