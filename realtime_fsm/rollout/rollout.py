"""``Rollout``: the old client and the new one, side by side, with a switch between them."""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from typing import Any, Self

from realtime_fsm.engine.dispatcher import Dispatcher, Handler
from realtime_fsm.engine.message import Receipt
from realtime_fsm.engine.payload import check_event_name
from realtime_fsm.engine.port import TokenSource
from realtime_fsm.engine.statistics import Statistics
from realtime_fsm.engine.subscriptions import BOOKING_PREFIX, check_names
from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.machine.errors import ClosedError, InvalidArgumentError, MetricsStorageError
from realtime_fsm.monitoring.database import MetricsDatabase
from realtime_fsm.rollout.client import RolloutClient, letter_of
from realtime_fsm.rollout.rule import Evidence, RollbackGuard, RollbackRule
from realtime_fsm.rollout.setting import (
    Chosen,
    DecisionKind,
    Decisions,
    RolloutConfig,
    RolloutControl,
    place_of,
)
from realtime_fsm.rollout.shadow import Differences
from realtime_fsm.rollout.stage import Factories, RolloutStage, default_clients

_logger = logging.getLogger("realtime_fsm.migration")


class Rollout:
    """A client that is the old one or the new one, as is said: at the start, and again at run time.

    ::

        async with Rollout(config, RolloutConfig(path="rollout.json"), client_id=user, token=token) as client:
            client.on("booking_updated", print)
            await client.subscribe(["bookings"])
            await client.emit("note", {"text": "hi"})

    It belongs to the event loop on which it is used, and is not thread-safe.

    Args:
        config: Of both; by default ``RealtimeConfig.from_env()``.
        rollout: What runs where nothing else says; by default the old one.
        client_id: Who it is: with a percentage, it alone decides. The same person must have the same one.
        token: Where tokens come from.
        metrics: File of the metrics database in which both are recorded; ``None`` for none.
        rule: When the new one is rolled back by itself; by default a ``RollbackRule()``.
        evidence: What the rule looks at; by default what this process has seen. See ``database_evidence``.
        clients: What makes the clients, instead of the two that come with the library.
        environ: The environment; by default the process's.
        wall: The wall clock.
    """

    def __init__(
        self,
        config: RealtimeConfig | None = None,
        rollout: RolloutConfig | None = None,
        *,
        client_id: str,
        token: TokenSource | None = None,
        metrics: str | os.PathLike[str] | None = None,
        rule: RollbackRule | None = None,
        evidence: Evidence | None = None,
        clients: Factories | None = None,
        environ: Mapping[str, str] | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        if not client_id:
            raise InvalidArgumentError("A rollout needs a client_id.", remedy="Give that of the user, say.")
        self.config = RealtimeConfig.from_env() if config is None else config
        self.rollout_config = RolloutConfig() if rollout is None else rollout
        self.client_id = client_id
        self._decisions = Decisions(wall)
        self._metrics = metrics
        self._control = RolloutControl(
            self.rollout_config, client_id=client_id, environ=environ, decisions=self.decisions
        )
        self._dispatcher = Dispatcher(
            statistics=Statistics(), limit=self.config.max_pending_events, on_error=lambda *_: None
        )
        self._kicked = asyncio.Event()
        if rule is None and self.rollout_config.auto_rollback:
            rule = RollbackRule()
        self._guard = RollbackGuard(rule, evidence)
        self._stage = RolloutStage(
            self.config,
            self.rollout_config,
            control=self._control,
            guard=self._guard,
            factories=default_clients(self.config, token) if clients is None else clients,
            dispatcher=self._dispatcher,
            on_signal=self._kicked.set,
        )
        self._watch = RolloutWatch(
            self._control,
            self._stage,
            self._guard,
            interval=self.rollout_config.poll_interval,
            kicked=self._kicked,
        )
        self._databases = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        await self.disconnect(drain=kind is None)

    # As any client.

    @property
    def is_connected(self) -> bool:
        """True if the client that runs is connected."""
        running = self._stage.running
        return running is not None and running.client.is_connected

    async def connect(self) -> None:
        """Begin with what is to run, and wait until its first attempt is decided; it goes on trying.

        Raises:
            RealtimeError: If it gave up, and nothing is to take over from it.
        """
        if self._watch.is_running:
            return
        try:
            await self._begin()
        except BaseException:
            await self.disconnect(drain=False)
            raise
        self._watch.start()

    async def disconnect(self, *, drain: bool = True) -> None:
        """Close everything; safe to call twice.

        Args:
            drain: Whether to send what waits first, within ``drain_timeout``.
        """
        await self._watch.stop()
        try:
            await self._stage.close(drain)
            await self._dispatcher.close()
        finally:
            await self._databases.aclose()

    def on(self, event: str, handler: Handler | None = None) -> Any:
        """Handle an event, whichever client brings it; as a decorator, or with the handler given."""
        check_event_name(event)
        if handler is None:
            return lambda given: self.on(event, given)
        self._dispatcher.on(event, handler)
        return handler

    def off(self, event: str, handler: Handler | None = None) -> int:
        """Stop handling an event, with one handler or all; return how many were removed."""
        return self._dispatcher.off(check_event_name(event), handler)

    async def emit(self, event: str, data: Any = None) -> Receipt:
        """Accept a message; whichever client runs sends it, once, in the order of the calls.

        Returns:
            Its receipt. Accepted is not delivered: await the receipt for that.

        Raises:
            InvalidArgumentError: If it cannot be sent, ever.
            OutboxFullError: If there is no room.
            ClosedError: If it is not connected.
        """
        letter = letter_of(event, data, max_bytes=self.config.max_message_bytes)
        if not self._watch.is_running:
            raise ClosedError("The rollout is not connected.")
        self._stage.outflow.accept(letter)
        await asyncio.sleep(0)  # a loop of emits must not starve what sends them
        return letter.receipt

    async def subscribe(self, channels: Iterable[str]) -> None:
        """Subscribe to channels. Remembered, whichever client runs.

        Raises:
            SubscriptionRefusedError: If the server refused one.
        """
        await self._subscribe(dict.fromkeys(check_names(channels, what="channels")))

    async def monitor_bookings(self, booking_ids: Iterable[str]) -> None:
        """Subscribe to what happens to bookings. As ``subscribe``."""
        names = check_names(booking_ids, what="booking_ids")
        await self._subscribe({BOOKING_PREFIX + name: name for name in names})

    async def unsubscribe(self, channels: Iterable[str]) -> None:
        """Unsubscribe from channels, and forget them."""
        names = [name for name in check_names(channels, what="channels") if name in self._stage.wanted]
        async with self._stage.moving:
            for name in names:
                del self._stage.wanted[name]
            for client in self._clients():
                await client.unsubscribe(names)

    # What an operator asks and does.

    @property
    def running(self) -> str:
        """The role that runs: ``legacy``, ``shadow`` (the old one, with the new one beside it), ``new``."""
        return self._stage.role

    @property
    def chosen(self) -> Chosen:
        """The role that is to run, and the source that says so."""
        return self._control.chosen

    @property
    def held(self) -> str | None:
        """The reason why the new one does not run although it should; ``None`` if nothing holds it."""
        return self._control.held

    @property
    def decisions(self) -> Decisions:
        """The last decisions, the oldest first; ``subscribe`` tells of the next ones."""
        return self._decisions

    @property
    def differences(self) -> Differences:
        """The result of the comparison, with ``shadow``."""
        return self._stage.differences

    def override(self, implementation: str | None) -> None:
        """Say what runs, against everything else; ``None`` takes it back. See ``settled``.

        Raises:
            ConfigurationError: If it is not ``legacy``, ``shadow``, ``new`` or ``None``.
        """
        self._control.override(implementation)
        self._kicked.set()

    def release(self) -> bool:
        """Let the new one run again after a rollback or a fallback; return whether it was held."""
        was_held = self._control.release()
        if was_held:
            self._guard.forget()
            self._kicked.set()
        return was_held

    async def settled(self) -> str:
        """Look at the file and at the rule now, wait until what is to run does, and return it."""
        await self._watch.settled()
        return self.running

    def to_json(self) -> dict[str, Any]:
        """Return what a page shows. No secret, and no body."""
        chosen = self._control.chosen
        said = {source.value: str(setting) for source, setting in self._control.said.items() if setting}
        return {
            "running": self.running,
            "chosen": {"role": chosen.role.value, "source": chosen.source.value},
            "connected": self.is_connected,
            "said": said,
            "held": self.held,
            "place": round(place_of(self.client_id), 3),
            "failure_rates": self._guard.rates() if self._watch.is_running else {},
            "differences": self.differences.to_json(),
            "counts": dict(self.decisions.counts),
            "decisions": [decision.to_json() for decision in self.decisions],
        }

    # Inside.

    def _clients(self) -> list[RolloutClient]:
        both = (self._stage.running, self._stage.shadow and self._stage.shadow.running)
        return [running.client for running in both if running]

    async def _subscribe(self, wanted: dict[str, str | None]) -> None:
        async with self._stage.moving:
            self._stage.wanted |= wanted
            if self._stage.shadow is not None:
                await self._stage.shadow.subscribe(wanted)
            if self._stage.running is not None:
                await self._stage.running.client.subscribe(wanted, {})

    async def _begin(self) -> None:
        self._dispatcher.start()
        self._stage.outflow.start()
        if self._metrics is not None:
            self._databases = AsyncExitStack()
            self._stage.databases = {
                name: await self._databases.enter_async_context(MetricsDatabase(self._metrics, name))
                for name in ("legacy", "new")
            }
        await self._watch.read_file()
        failure = await self._stage.begin()
        if failure is not None:
            raise failure


class RolloutWatch:
    """The task of a rollout: it alone changes what runs.

    Args:
        control: Says what is to run.
        stage: Has it run.
        guard: Says when the new one is rolled back.
        interval: Seconds between two looks; whatever happens is a reason to look at once.
        kicked: Set when something has happened.
    """

    def __init__(
        self,
        control: RolloutControl,
        stage: RolloutStage,
        guard: RollbackGuard,
        *,
        interval: float,
        kicked: asyncio.Event,
    ) -> None:
        self._control = control
        self._stage = stage
        self._guard = guard
        self._interval = interval
        self._kicked = kicked
        self._looked = asyncio.Event()
        self._begun = self._ended = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def is_running(self) -> bool:
        """True from the start to the end."""
        return self._task is not None

    def start(self) -> None:
        """Begin to look, in a task."""
        if self._task is None:
            self._task = asyncio.create_task(self._watch(), name="realtime_fsm rollout")

    async def stop(self) -> None:
        """End; a switch that is under way comes to its end first."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
        self._looked.set()

    async def settled(self) -> None:
        """Look now, and wait until what is to run does."""
        self._kicked.set()
        begun = self._begun  # a look that is under way may have read the file already
        while self._task is not None and (
            self._ended <= begun or self._control.chosen.role.value != self._stage.role
        ):
            self._looked.clear()
            await self._looked.wait()

    async def read_file(self) -> None:
        """Look at the file."""
        if self._control.file is not None:
            self._control.take_file(*await asyncio.to_thread(self._control.file.load))

    async def _watch(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._interval):
                    await self._kicked.wait()
            except TimeoutError:
                pass  # it is time to look
            self._kicked.clear()
            self._begun += 1
            try:
                await self._look()
            except Exception:
                _logger.exception("the rollout failed to look after itself; it tries again")
            self._ended = self._begun
            self._looked.set()

    async def _look(self) -> None:
        await self.read_file()
        if (reason := self._stage.failing()) is not None:
            self._control.hold(DecisionKind.FALLBACK, reason)
        elif self._stage.role == "new" and not self._control.is_overridden:
            await self._ask_rule()
        await self._stage.apply()
        if self._stage.shadow is not None:
            self._stage.shadow.expire()

    async def _ask_rule(self) -> None:
        try:
            verdict = await self._guard.verdict()
        except MetricsStorageError as error:
            _logger.warning("the rule has no evidence: %s", error)
            return
        if verdict is not None and verdict.roll_back:
            self._control.hold(DecisionKind.ROLLBACK, verdict.reason)
