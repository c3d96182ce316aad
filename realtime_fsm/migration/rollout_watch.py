"""Looks again and again at what is said, and at how the client that runs fares."""

import asyncio
import logging

from realtime_fsm.machine.errors import MetricsStorageError
from realtime_fsm.migration.rollout_control import RolloutControl
from realtime_fsm.migration.rollout_decision import DecisionKind
from realtime_fsm.migration.rollout_evidence import Guard
from realtime_fsm.migration.rollout_stage import RolloutStage

_logger = logging.getLogger("realtime_fsm.migration")


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
        guard: Guard,
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
        self._task: asyncio.Task[None] | None = None

    @property
    def is_running(self) -> bool:
        """Whether it looks."""
        return self._task is not None

    def start(self) -> None:
        """Begin to look."""
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
        while self._task is not None and (
            self._kicked.is_set() or self._control.chosen.role.value != self._stage.role
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
            try:
                await self._look()
            except Exception:
                _logger.exception("the rollout failed to look after itself; it tries again")
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
