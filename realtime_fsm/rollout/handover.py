"""A client that a rollout runs, from its start to its end, and how one takes the place of another."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from attrs import define, field, frozen

from realtime_fsm.engine.dispatcher import Delivered, Dispatcher
from realtime_fsm.machine.delivery import Outcome
from realtime_fsm.machine.errors import OutboxFullError, RealtimeError, SubscriptionRefusedError
from realtime_fsm.monitoring.database import MetricsDatabase
from realtime_fsm.rollout.client import (
    Letter,
    Places,
    RolloutClient,
    Signal,
    SignalKind,
    Sink,
    Wanted,
    Watcher,
)

# What a rollout sends: one queue, to whichever client runs, in order, and held during a switch.

_logger = logging.getLogger("realtime_fsm.migration")


class RolloutOutflow:
    """The gate between the application and the client that runs.

    Args:
        limit: Messages that may be on their way, at most.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: deque[Letter] = deque()
        self._open: set[Letter] = set()
        self._client: RolloutClient | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def accept(self, letter: Letter) -> None:
        """Take a message.

        Raises:
            OutboxFullError: If there is no room. Nothing was accepted.
        """
        self._open = (
            {one for one in self._open if not one.receipt.is_settled} if self._is_full else self._open
        )
        if self._is_full:
            raise OutboxFullError(f"The rollout holds {self._limit} messages that are on their way.")
        self._open.add(letter)
        self._waiting.append(letter)
        self._woken.set()

    def start(self) -> None:
        """Begin to hand messages on."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="realtime_fsm rollout outflow")

    def resume(self, client: RolloutClient, left: list[Letter]) -> None:
        """Hand messages to a client from now on, first those that another one has left.

        Args:
            client: Who sends them.
            left: What the one before it had taken and not brought to its end, in order. What the server may
                have had already, and could not tell from a new one, is given up: it must not happen twice.
        """
        again = []
        for letter in left:
            if letter.was_sent and (letter.identity is None or not client.accepts_identity):
                reason = "whether it arrived was not known when another client took over"
                letter.receipt.settle(Outcome.LOST, reason=reason)
            else:
                again.append(letter)
        self._waiting.extendleft(reversed(again))
        self._client = client
        self._woken.set()

    async def hold(self, limit: float) -> None:
        """Hand nothing on from now on.

        Args:
            limit: Seconds that a client has to take the message that is being handed to it. What it has not
                taken by then is among what it leaves when it is released.
        """
        self._client = None
        try:
            async with asyncio.timeout(limit):
                await self._idle.wait()
        except TimeoutError:
            await self._stop()
            self.start()

    async def handed_on(self) -> None:
        """Wait until the client has taken everything that was accepted. The caller bounds it."""
        while self._waiting or not self._idle.is_set():
            self._idle.clear()
            self._woken.set()
            await self._idle.wait()

    async def close(self) -> None:
        """End, and give up what waits."""
        self._client = None
        await self._stop()
        self.abandon(list(self._waiting))
        self._waiting.clear()
        self._open.clear()

    def abandon(self, left: list[Letter]) -> None:
        """Settle messages that nobody will send."""
        for letter in left:
            outcome = Outcome.LOST if letter.was_sent else Outcome.DROPPED
            letter.receipt.settle(outcome, reason="the client was disconnected")

    @property
    def _is_full(self) -> bool:
        return len(self._open) >= self._limit

    async def _stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
        self._idle.set()

    async def _run(self) -> None:
        while True:
            client = self._client
            if client is None or not self._waiting:
                self._idle.set()
                self._woken.clear()
                await self._woken.wait()
                continue
            self._idle.clear()
            letter = self._waiting.popleft()
            try:
                await client.post(letter)
            except RealtimeError as error:
                _logger.warning("%r could not be sent: %s", letter.event, error)
                letter.receipt.settle(Outcome.DROPPED, reason=error.message.removesuffix("."))


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
