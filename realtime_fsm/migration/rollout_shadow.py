"""Shadow: the new client beside the old one. It is measured and compared, and nobody hears of it."""

import asyncio
import logging
from typing import Any

from realtime_fsm.machine.errors import RealtimeError, SubscriptionRefusedError
from realtime_fsm.migration.rollout_client import Sink, Wanted
from realtime_fsm.migration.rollout_comparison import LEGACY, NEW, Comparison
from realtime_fsm.migration.rollout_running import Running

_logger = logging.getLogger("realtime_fsm.migration")


class Shadow:
    """A client whose events are compared and go nowhere, and to which no message is given.

    Args:
        running: The client, not begun yet.
        comparison: Told what both see.
        limit: How long it may take to connect before the comparison begins without it.
    """

    def __init__(self, running: Running, comparison: Comparison, limit: float) -> None:
        self._running = running
        self._comparison = comparison
        self._limit = limit
        self._task: asyncio.Task[None] | None = None

    @property
    def running(self) -> Running:
        """The client."""
        return self._running

    def start(self, wanted: Wanted) -> None:
        """Begin, in the background: the application does not wait for it."""
        self._running.client.listen(self._heard)
        self._task = asyncio.create_task(self._begin(wanted), name="realtime_fsm rollout shadow")

    async def subscribe(self, wanted: Wanted) -> None:
        """Subscribe to more channels."""
        try:
            await self._running.client.subscribe(wanted, {})
        except RealtimeError as error:
            _logger.warning("the shadow could not subscribe: %s", error)

    async def unsubscribe(self, channels: list[str]) -> None:
        """Forget channels."""
        await self._running.client.unsubscribe(channels)

    async def close(self) -> None:
        """End it."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
        await self._running.release()

    def tee(self, sink: Sink) -> Sink:
        """Return a sink that compares what the old client sees, and passes it on."""

        def heard(event: str, args: list[Any]) -> "asyncio.Future[Any]":
            self._comparison.seen(LEGACY, event, args, asyncio.get_running_loop().time())
            return sink(event, args)

        return heard

    def expire(self) -> None:
        """Count what has waited for its like for too long."""
        self._comparison.expire(asyncio.get_running_loop().time())

    async def _begin(self, wanted: Wanted) -> None:
        client = self._running.client
        try:
            if wanted:
                await client.subscribe(wanted, {})
            failure = await self._running.bring_up(self._limit)
            if failure is not None:
                _logger.warning("the shadow gave up: %s", failure)
            elif wanted and client.is_connected:
                await client.subscribe(wanted, {})  # wait until the server has confirmed them
        except SubscriptionRefusedError as error:
            _logger.warning("the shadow could not subscribe: %s", error)
        self._comparison.begin()

    def _heard(self, event: str, args: list[Any]) -> "asyncio.Future[Any]":
        loop = asyncio.get_running_loop()
        self._comparison.seen(NEW, event, args, loop.time())
        answer: asyncio.Future[Any] = loop.create_future()
        answer.set_result(None)
        return answer
