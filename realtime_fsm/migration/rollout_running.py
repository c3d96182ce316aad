"""A client that a rollout runs, from its start to its end, and how one takes the place of another."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from attrs import define, field, frozen

from realtime_fsm.engine.dispatcher import Delivered, Dispatcher
from realtime_fsm.machine.errors import RealtimeError, SubscriptionRefusedError
from realtime_fsm.migration.rollout_client import (
    Letter,
    Places,
    RolloutClient,
    Signal,
    SignalKind,
    Sink,
    Wanted,
    Watcher,
)
from realtime_fsm.migration.rollout_outflow import RolloutOutflow
from realtime_fsm.monitoring.metrics_database import MetricsDatabase

_logger = logging.getLogger("realtime_fsm.migration")


class Running:
    """One client, begun and measured.

    Args:
        client: The client.
        database: Where it is recorded, if anywhere.
        watcher: Told of its signals.

    Attributes:
        lost_at: Since when it has no connection, on the loop's clock; ``None`` while it has one.
    """

    def __init__(self, client: RolloutClient, database: MetricsDatabase | None, watcher: Watcher) -> None:
        self.client = client
        self.lost_at: float | None = asyncio.get_running_loop().time()
        self._signalled = asyncio.Event()
        self._stops = [client.watch(self._signal), client.watch(watcher)]
        if database is not None:
            self._stops.append(client.measured_by(database))
        self._task: asyncio.Task[None] | None = None

    async def bring_up(self, limit: float, *, until_live: bool = True) -> RealtimeError | None:
        """Begin to connect, and wait until it is live; it goes on trying after that.

        Args:
            limit: Seconds.
            until_live: Whether to wait on when the first attempt has failed.

        Returns:
            Why it gave up; ``None`` if it did not: see ``client.is_connected``.
        """
        task = self._task = asyncio.create_task(self.client.connect(), name="realtime_fsm rollout connect")
        try:
            async with asyncio.timeout(limit):
                await asyncio.wait({task})
                while until_live and not self.client.is_connected and self.client.gave_up is None:
                    self._signalled.clear()
                    await self._signalled.wait()
        except TimeoutError:
            pass  # it is told by what the client is
        failure = task.exception() if task.done() and not task.cancelled() else None
        if failure is not None and not isinstance(failure, RealtimeError):
            raise failure
        return failure

    async def release(self) -> list[Letter]:
        """End it; return what it has not sent."""
        task, self._task = self._task, None
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait({task})
        left = await self.client.release()
        await asyncio.sleep(0)  # what it tells of its end is told in the loop's next turn
        for stop in self._stops:
            stop()
        return left

    def _signal(self, signal: Signal) -> None:
        if signal.kind is SignalKind.LIVE:
            self.lost_at = None
        elif self.lost_at is None:
            self.lost_at = asyncio.get_running_loop().time()
        self._signalled.set()


@frozen(kw_only=True)
class Handover:
    """Puts one client in the place of another.

    Messages are held from the begin to the end. The one that goes is drained, cut and closed before the
    other one is listened to. Where the server numbers its events, that one is subscribed from behind the
    place of the cut, so that the server replays what came between. Elsewhere both are subscribed, and from
    one moment on the other one is listened to: exactly one at any time.

    Attributes:
        outflow: The messages.
        dispatcher: Hands events to the application.
        numbered: Whether the server numbers its events.
        drain_timeout: How long the one that goes has for what it has sent.
    """

    outflow: RolloutOutflow
    dispatcher: Dispatcher
    numbered: bool
    drain_timeout: float

    async def move(self, old: Running | None, new: Running, wanted: Wanted, sink: Sink) -> Places:
        """Have ``new`` run from now on. What it cannot subscribe yet it asks for when it is connected.

        Args:
            old: What ran so far, if anything did. It is ended.
            new: Begun already.
            wanted: The channels.
            sink: Takes the events.

        Returns:
            From where it is to be subscribed, with ``subscribe``.
        """
        places: Places = {}
        left: list[Letter] = []
        if old is None:
            new.client.listen(sink)
        if not self.numbered:
            await self.subscribe(new, wanted, {})
        await self.outflow.hold(self.drain_timeout)
        if old is not None:
            await self._drain(old)
            held = _Held()
            if not self.numbered:
                new.client.listen(held)
            places = await old.client.cut()
            held.give(self.dispatcher)
            if not self.numbered:
                new.client.listen(sink)
            left = await old.release()
        new.client.listen(sink)
        self.outflow.resume(new.client, left)
        return places

    async def subscribe(self, new: Running, wanted: Wanted, places: Places) -> None:
        """Subscribe the one that comes; what the server refuses is logged."""
        if not wanted:
            return
        try:
            await new.client.subscribe(wanted, places)
        except SubscriptionRefusedError as error:
            _logger.warning("not everything could be subscribed: %s", error)

    async def _drain(self, old: Running) -> None:
        try:
            async with asyncio.timeout(self.drain_timeout):
                await old.client.drain()
        except TimeoutError:
            _logger.warning("what was sent did not come to its end in %s s", self.drain_timeout)


@define
class _Held:
    """Events of the one that comes, while the last ones of the one that goes are handed on."""

    _events: list[tuple[str, list[Any], "asyncio.Future[Any]"]] = field(factory=list)

    def __call__(self, event: str, args: list[Any]) -> "asyncio.Future[Any]":
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._events.append((event, args, answer))
        return answer

    def give(self, dispatcher: Dispatcher) -> None:
        """Hand them on."""
        for event, args, answer in self._events:
            dispatcher.post(Delivered(event, args, _setter(answer)))
        self._events.clear()


def _setter(answer: "asyncio.Future[Any]") -> Callable[[Any], None]:
    def answered(given: Any) -> None:
        if not answer.done():
            answer.set_result(given)

    return answered
