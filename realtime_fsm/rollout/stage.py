"""The stage of a rollout: which client runs now, which one beside it, and the change to another."""

import asyncio
import hashlib
import json
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from attrs import asdict, define, evolve, frozen

from realtime_fsm.engine.dispatcher import Dispatcher
from realtime_fsm.engine.port import TokenSource
from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.machine.errors import RealtimeError, SubscriptionRefusedError
from realtime_fsm.monitoring.database import MetricsDatabase
from realtime_fsm.rollout.client import RolloutClient, Sink, Wanted, post_to
from realtime_fsm.rollout.engine_client import EngineClient
from realtime_fsm.rollout.handover import Handover, RolloutOutflow, Running
from realtime_fsm.rollout.plain_client import PlainClient
from realtime_fsm.rollout.rule import Guard
from realtime_fsm.rollout.setting import (
    Chosen,
    DecisionKind,
    Implementation,
    RolloutConfig,
    RolloutControl,
    Source,
)

# Shadow: what the one implementation saw and the other did not. Pure.

LEGACY: Final = "legacy"
NEW: Final = "new"

_MOST: Final = 10_000
"""Events that may wait for their like, of each side; beyond it the oldest are counted as unseen."""


@define
class Differences:
    """What came of the comparison so far.

    Attributes:
        matched: Events that both saw in time.
        late: Events that the other one saw as well, but too late.
        only_legacy: Events that the new one has not seen.
        only_new: Events that the old one has not seen.
    """

    matched: int = 0
    late: int = 0
    only_legacy: int = 0
    only_new: int = 0

    def to_json(self) -> dict[str, int]:
        """Return it as JSON."""
        return asdict(self)


@frozen
class _Waiting:
    """An event that one side has seen; ``counts`` unless it may be older than the comparison."""

    key: bytes
    at: float
    counts: bool


class Comparison:
    """Compares what two clients see, whatever the order between them: equal events cancel each other out.

    Args:
        within: Seconds by which one may see an event later than the other.
        differences: What it counts into; by default new ones.
    """

    def __init__(self, within: float, differences: Differences | None = None) -> None:
        self.differences = Differences() if differences is None else differences
        self._within = within
        self._is_begun = False
        self._waiting: dict[str, deque[_Waiting]] = {LEGACY: deque(), NEW: deque()}
        self._by_key: dict[str, dict[bytes, list[_Waiting]]] = {LEGACY: {}, NEW: {}}
        self._unseen: dict[str, deque[bytes]] = {LEGACY: deque(maxlen=_MOST), NEW: deque(maxlen=_MOST)}

    def begin(self) -> None:
        """Both see events from now on; what only the old one saw before is no difference."""
        self._is_begun = True

    def seen(self, side: str, event: str, args: Sequence[Any], now: float) -> None:
        """Note an event.

        Args:
            side: ``legacy`` or ``new``: who saw it.
            event: Its name.
            args: Its arguments.
            now: Of a clock that does not jump.
        """
        self.expire(now)
        other = NEW if side == LEGACY else LEGACY
        key = digest(event, args)
        if (alike := self._by_key[other].get(key)) is not None:
            self._take(other, alike.pop(0))
            self.differences.matched += 1
        elif key in self._unseen[other]:
            self._unseen[other].remove(key)
            self.differences.late += 1
            self._count(other, -1)
        else:
            waiting = _Waiting(key, now, self._is_begun)
            self._waiting[side].append(waiting)
            self._by_key[side].setdefault(key, []).append(waiting)
            if len(self._waiting[side]) > _MOST:
                self._give_up(side, self._waiting[side][0])

    def expire(self, now: float) -> None:
        """Count what has waited for its like for too long."""
        for side, waiting in self._waiting.items():
            while waiting and waiting[0].at + self._within < now:
                self._give_up(side, waiting[0])

    def _give_up(self, side: str, waiting: _Waiting) -> None:
        self._by_key[side][waiting.key].remove(waiting)
        self._take(side, waiting)
        if waiting.counts:
            self._count(side, 1)
            self._unseen[side].append(waiting.key)

    def _take(self, side: str, waiting: _Waiting) -> None:
        self._waiting[side].remove(waiting)
        if not self._by_key[side][waiting.key]:
            del self._by_key[side][waiting.key]

    def _count(self, side: str, by: int) -> None:
        if side == LEGACY:
            self.differences.only_legacy += by
        else:
            self.differences.only_new += by


def digest(event: str, args: Sequence[Any]) -> bytes:
    """Return what two events have in common if they are equal; bytes within them count."""
    text = json.dumps([event, *args], sort_keys=True, separators=(",", ":"), default=_shown)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _shown(value: object) -> str:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"bytes {hashlib.blake2b(bytes(value), digest_size=16).hexdigest()}"
    return f"{type(value).__name__} {value}"


# Shadow: the new client beside the old one. It is measured and compared, and nobody hears of it.

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
