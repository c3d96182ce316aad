"""The stage of a rollout: which client runs now, and how another one takes its place."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from attrs import define, evolve, field, frozen

from realtime_fsm.engine.dispatcher import Delivered, Dispatcher
from realtime_fsm.engine.port import TokenSource
from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.machine.delivery import Outcome
from realtime_fsm.machine.errors import OutboxFullError, RealtimeError, SubscriptionRefusedError
from realtime_fsm.monitoring.database import MetricsDatabase
from realtime_fsm.rollout.client import (
    Letter,
    Positions,
    RolloutClient,
    Running,
    Sink,
    Wanted,
    post_to,
    resolve,
)
from realtime_fsm.rollout.engine_client import EngineClient
from realtime_fsm.rollout.plain_client import PlainClient
from realtime_fsm.rollout.rule import RollbackGuard
from realtime_fsm.rollout.setting import (
    Chosen,
    DecisionKind,
    Implementation,
    RolloutConfig,
    RolloutControl,
    Source,
)
from realtime_fsm.rollout.shadow import Differences, EventComparison, Shadow

_logger = logging.getLogger("realtime_fsm.migration")

Factories = Mapping[str, Callable[[], RolloutClient]]
"""What makes the clients: ``legacy``, ``new``, and ``shadow``, which is a new one that keeps no messages."""


class RolloutStage:
    """Has the client run that is to run, and another one beside it as a shadow.

    Args:
        config: The dialect and the limits.
        rollout: The time-outs.
        control: Says what is to run.
        guard: Counts what the clients tell.
        factories: Make the clients.
        dispatcher: Hands events to the application.
        on_signal: Told that something happened to a client.

    Attributes:
        running: What runs; ``None`` before the start.
        moving: Held while one takes the place of another, and while ``wanted`` changes.
        wanted: The channels.
        databases: Where the clients are recorded, by their implementation.
        differences: What came of all comparisons.
    """

    def __init__(
        self,
        config: RealtimeConfig,
        rollout: RolloutConfig,
        *,
        control: RolloutControl,
        guard: RollbackGuard,
        factories: Factories,
        dispatcher: Dispatcher,
        on_signal: Callable[[], None],
    ) -> None:
        self._rollout = rollout
        self._control = control
        self._guard = guard
        self._factories = factories
        self._on_signal = on_signal
        self._sink: Sink = post_to(dispatcher)
        self._shadow: Shadow | None = None
        self._has_begun = False
        self.moving = asyncio.Lock()
        self.outflow = RolloutOutflow(config.outbox_max_messages)
        self.running: Running | None = None
        self.wanted: dict[str, str | None] = {}
        self.databases: Mapping[str, MetricsDatabase] = {}
        self.differences = Differences()
        self._handover = Handover(
            outflow=self.outflow,
            dispatcher=dispatcher,
            numbered=config.dialect.positions,
            drain_timeout=rollout.drain_timeout,
        )

    @property
    def shadow(self) -> Shadow | None:
        """The client that runs beside it, unseen."""
        return self._shadow

    @property
    def role(self) -> str:
        """The role that runs; empty before the start."""
        if self.running is None:
            return ""
        return Implementation.SHADOW.value if self._shadow is not None else self.running.client.implementation

    async def apply(self) -> None:
        """Have run what is to run, if that is something else than what does."""
        chosen = self._control.chosen
        if chosen.role.value == self.role:
            return
        target = "new" if chosen.role is Implementation.NEW else "legacy"
        is_there = self.running is not None and self.running.client.implementation == target
        if not is_there and not await self._change(target, chosen):
            return
        await self._set_shadow(is_wanted=chosen.role is Implementation.SHADOW)
        self._control.running = self.role
        why = self._control.held if chosen.source is Source.ROLLBACK else f"it says {chosen.setting}"
        kind = DecisionKind.SWITCH if self._has_begun else DecisionKind.START
        self._has_begun = True
        self._control.tell(kind, f"{self.role} runs by the {chosen.source}: {why}")

    async def begin(self) -> RealtimeError | None:
        """Have run what is to run first; return why it gave up, if it did."""
        await self.apply()
        await self.apply()  # a fallback may have taken over at once
        return None if self.running is None else self.running.client.gave_up

    def failing(self) -> str | None:
        """Return why the old client must take over from the new one; ``None`` if it need not."""
        running = self.running
        if running is None or running.client.implementation != "new" or not self._may_fall_back:
            return None
        if (gave_up := running.client.gave_up) is not None:
            return f"the new one gave up: {type(gave_up).__name__}"
        now, limit = asyncio.get_running_loop().time(), self._rollout.fallback_after
        if running.lost_at is not None and now - running.lost_at >= limit:
            return f"the new one had no connection for {limit:g} s"
        return None

    async def close(self, drain: bool) -> None:
        """End everything, and settle what was not sent."""
        await self._set_shadow(is_wanted=False)
        running, self.running = self.running, None
        if running is not None:
            if drain:
                await self._drain(running)
            await self.outflow.hold(self._rollout.drain_timeout)
            self.outflow.abandon(await running.release())
        await self.outflow.close()

    # Inside.

    @property
    def _may_fall_back(self) -> bool:
        return self._rollout.fallback is not None and not self._control.is_overridden

    def _make(self, name: str, implementation: str) -> Running:
        watch = self._guard.watch(implementation)

        def heard(signal: Any) -> None:
            watch(signal)
            self._on_signal()

        return Running(self._factories[name](), self.databases.get(implementation), heard)

    async def _change(self, target: str, chosen: Chosen) -> bool:
        """Bring another client up and hand over to it; return whether it runs now."""
        old = self.running
        await self._set_shadow(is_wanted=False)
        coming = self._make(target, target)
        is_guarded = target == "new" and self._may_fall_back
        limit, fallback_after = self._rollout.switch_timeout, self._rollout.fallback_after
        failure = await self._brought_up(
            coming,
            min(limit, fallback_after) if is_guarded else limit,
            until_live=old is not None or is_guarded,
        )
        is_forced = chosen.source in {Source.OVERRIDE, Source.ROLLBACK} or (old is None and not is_guarded)
        if not coming.client.is_connected and not is_forced:
            await coming.release()
            why = "it did not connect in time" if failure is None else type(failure).__name__
            if is_guarded:
                self._control.hold(DecisionKind.FALLBACK, f"the new one cannot take over: {why}")
            else:
                self._control.tell(DecisionKind.PUT_OFF, f"{target} cannot take over yet: {why}")
            return False
        try:
            async with self.moving:
                await self._move(old, coming)
        finally:
            if self.running is not coming:  # it was cancelled before anything was moved
                await coming.release()
        return True

    async def _move(self, old: Running | None, coming: Running) -> None:
        """Hand over; once begun it is brought to its end, or messages would be lost."""
        wanted = dict(self.wanted)
        moving = asyncio.create_task(
            self._handover.move(old, coming, wanted, self._sink), name="realtime_fsm rollout move"
        )
        try:
            positions = await asyncio.shield(moving)
        except asyncio.CancelledError:
            await asyncio.wait({moving})
            raise
        finally:
            self.running = coming
        await self._handover.subscribe(coming, wanted, positions)

    async def _brought_up(self, coming: Running, limit: float, *, until_live: bool) -> RealtimeError | None:
        try:
            return await coming.bring_up(limit, until_live=until_live)
        except BaseException:
            await coming.release()
            raise

    async def _set_shadow(self, *, is_wanted: bool) -> None:
        if not is_wanted and self._shadow is not None:
            shadow, self._shadow = self._shadow, None
            if self.running is not None:
                self.running.client.listen(self._sink)
            await shadow.close()
        elif is_wanted and self._shadow is None and self.running is not None:
            comparison = EventComparison(self._rollout.compare_within, self.differences)
            self._shadow = Shadow(self._make("shadow", "new"), comparison, self._rollout.switch_timeout)
            self.running.client.listen(self._shadow.tee(self._sink))
            self._shadow.start(dict(self.wanted))

    async def _drain(self, running: Running) -> None:
        try:
            async with asyncio.timeout(self._rollout.drain_timeout):
                await self.outflow.handed_on()
                await running.client.drain()
        except TimeoutError:
            return


def default_clients(config: RealtimeConfig, token: TokenSource | None) -> Factories:
    """Return what makes the clients that come with the library."""
    return {
        "legacy": lambda: PlainClient(config, token=token),
        "new": lambda: EngineClient(config, token=token),
        "shadow": lambda: EngineClient(evolve(config, outbox_path=None), token=token),
    }


# The change: messages are held and handed over, events stay in their order.


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
        """Take a message; it is handed on in its order.

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


@frozen(kw_only=True)
class Handover:
    """Puts one client in the place of another.

    Messages are held from the begin to the end. The one that goes is drained, cut and closed before the
    other one is listened to. Where the server numbers its events, that one is subscribed from behind the
    position of the cut, so that the server replays what came between. Elsewhere both are subscribed, and from
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

    async def move(self, old: Running | None, new: Running, wanted: Wanted, sink: Sink) -> Positions:
        """Have ``new`` run from now on. What it cannot subscribe yet it asks for when it is connected.

        Args:
            old: What ran so far, if anything did. It is ended.
            new: Begun already.
            wanted: The channels.
            sink: Takes the events.

        Returns:
            From where it is to be subscribed, with ``subscribe``.
        """
        positions: Positions = {}
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
            positions = await old.client.cut()
            held.give(self.dispatcher)
            if not self.numbered:
                new.client.listen(sink)
            left = await old.release()
        new.client.listen(sink)
        self.outflow.resume(new.client, left)
        return positions

    async def subscribe(self, new: Running, wanted: Wanted, positions: Positions) -> None:
        """Subscribe the one that comes; what the server refuses is logged."""
        if not wanted:
            return
        try:
            await new.client.subscribe(wanted, positions)
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
        """Hand the held events on, in their order."""
        for event, args, answer in self._events:
            dispatcher.post(Delivered(event, args, partial(resolve, answer)))
        self._events.clear()
