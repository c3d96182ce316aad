"""The stage of a rollout: which client runs now, which one beside it, and the change to another."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from attrs import evolve

from realtime_fsm.engine.dispatcher import Dispatcher
from realtime_fsm.engine.port import TokenSource
from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.machine.errors import RealtimeError
from realtime_fsm.migration.engine_client import EngineClient
from realtime_fsm.migration.plain_client import PlainClient
from realtime_fsm.migration.rollout_client import RolloutClient, Sink, post_to
from realtime_fsm.migration.rollout_comparison import Comparison, Differences
from realtime_fsm.migration.rollout_control import RolloutControl
from realtime_fsm.migration.rollout_decision import DecisionKind
from realtime_fsm.migration.rollout_evidence import Guard
from realtime_fsm.migration.rollout_outflow import RolloutOutflow
from realtime_fsm.migration.rollout_running import Handover, Running
from realtime_fsm.migration.rollout_setting import Chosen, Implementation, RolloutConfig, Source
from realtime_fsm.migration.rollout_shadow import Shadow
from realtime_fsm.monitoring.metrics_database import MetricsDatabase

Factories = Mapping[str, Callable[[], RolloutClient]]
"""What makes the clients: ``legacy``, ``new``, and ``shadow``, which is a new one that keeps no messages."""


class RolloutStage:
    """Who runs.

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
        guard: Guard,
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
        """What runs beside it, unseen."""
        return self._shadow

    @property
    def role(self) -> str:
        """What runs, as a role; empty before the start."""
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
            places = await asyncio.shield(moving)
        except asyncio.CancelledError:
            await asyncio.wait({moving})
            raise
        finally:
            self.running = coming
        await self._handover.subscribe(coming, wanted, places)

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
            comparison = Comparison(self._rollout.compare_within, self.differences)
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
