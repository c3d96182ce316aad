"""Plays a schedule on the whole engine, in virtual time, and finds out whether a promise was broken."""

import asyncio
import hashlib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from random import Random
from types import MappingProxyType
from typing import Final

from attrs import define, field

from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.machine.delivery import Delivery
from realtime_fsm.machine.table import TRAITS
from realtime_fsm.testing.application import CALL_TIMEOUT, Application
from realtime_fsm.testing.coverage import of_fault
from realtime_fsm.testing.environment import Environment, SimulatedEnvironment
from realtime_fsm.testing.oracle import (
    Violation,
    violations_now,
    violations_of_books,
    violations_of_changes,
    violations_of_rest,
    violations_of_silence,
)
from realtime_fsm.testing.schedule import LASTING, Action, Schedule, Setting, Step
from realtime_fsm.testing.virtual_loop import VirtualLoop, described, run

HEALED_WITHIN: Final = 120.0
"""Virtual seconds in which everything is connected and delivered, once all is mended."""

LEFT_FOR: Final = 120.0
"""Virtual seconds in which a fault that nobody mends leads where it must."""

_STEP: Final = 0.5
_LATE: Final = 5.0
"""Seconds after a disconnect in which what is still on its way must reach nobody."""

_DIALS_EVERY: Final = 10.0
_ADDRESS: Final = re.compile(r" at 0x[0-9a-f]+")
EnvironmentFactory = Callable[[Setting, Random], Environment]


@define
class Story:
    """How a schedule went.

    Attributes:
        schedule: Which.
        lines: What happened, in order, each with its time: the same, byte for byte, every time.
        seen: What was seen of the rows, outcomes and faults that there are.
        virtual_seconds: How long it took.
        violations: The promises that were broken.
    """

    schedule: Schedule
    lines: list[str] = field(factory=list)
    seen: set[str] = field(factory=set)
    virtual_seconds: float = 0.0
    violations: list[str] = field(factory=list)

    @property
    def digest(self) -> str:
        """The SHA-256 of all of it: the same for the same schedule, in every process."""
        told = [
            str(self.schedule),
            *self.lines,
            repr(self.virtual_seconds),
            *sorted(self.seen),
            *self.violations,
        ]
        return hashlib.sha256("\n".join(told).encode()).hexdigest()

    def __str__(self) -> str:
        return "\n".join([*self.lines, *(f"BROKEN: {violation}" for violation in self.violations)])


class Simulation:
    """One run. Make it, and use it, on a ``VirtualLoop``.

    Args:
        schedule: What happens.
        environment: Makes the server and its network; by default simulated ones.
        config: Of the client; by default one with short times.
    """

    def __init__(
        self,
        schedule: Schedule,
        environment: EnvironmentFactory = SimulatedEnvironment,
        *,
        config: RealtimeConfig | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._begun = self._loop.time()
        self._dead_since: float | None = None
        self.story = Story(schedule)
        self.environment = environment(schedule.setting, Random(f"network:{schedule.seed}"))  # noqa: S311
        self.application = Application(self.environment, schedule.seed, self.tell, config=config)

    async def play(self) -> Story:
        """Play the schedule to its end.

        Raises:
            Violation: If a promise was broken.
        """
        schedule = self.story.schedule
        await self.environment.open()
        await self.do(Step(Action.CONNECT))
        for step in schedule.steps:
            await self.do(step)
        ending = schedule.ending
        if ending.lasts and ending in self.environment.supports:
            await self.leave(ending)
        elif ending is not Action.DISCONNECT:
            await self.heal()
        await self.close()
        return self.story

    def tell(self, what: str) -> None:
        """Note that something happened."""
        self.story.lines.append(f"{self._loop.time() - self._begun:10.3f} {what}")

    async def do(self, step: Step) -> None:
        """Do one step, wait, and look whether all holds.

        Raises:
            Violation: If a promise was broken.
        """
        action = step.action
        if action not in self.environment.supports:
            self.tell(f"{action}: not here")
        else:
            self.tell(str(step))
            self.story.seen.add(of_fault(action))
            if action in _OF_THE_APPLICATION:
                doing = _OF_THE_APPLICATION[action](self.application)
                if inspect.isawaitable(doing):
                    await doing
            elif action is Action.HEAL:
                self._mend()
            else:
                await self._break(action)
        await asyncio.sleep(step.pause)
        self.check()

    def check(self) -> None:
        """Look whether all holds.

        Raises:
            Violation: If it does not.
        """
        self._demand(violations_now(self.application, self.environment))
        if self._dead_since is not None and self.application.changes:
            since = max(self._dead_since, self.application.changed_at)
            self._demand(violations_of_silence(self.application, self.environment, since))

    async def heal(self) -> None:
        """Mend everything; within ``HEALED_WITHIN`` it must be connected, and all delivered.

        Raises:
            Violation: If it is not.
        """
        application = self.application
        await self._recover()
        async with asyncio.timeout(HEALED_WITHIN):
            application.emit()
            application.publish()
            await self._until(self._is_quiet)
            await application.settled()
        self.check()
        self._demand(violations_of_rest(application, self.environment))

    async def leave(self, fault: Action) -> None:
        """Leave one fault for ever: within ``LEFT_FOR`` it leads where it must, and no promise breaks.

        Raises:
            Violation: If it does not.
        """
        await self._recover()
        await self._break(fault)
        self.tell(f"{fault} is left for ever")
        self.story.seen.add(of_fault(fault))
        wanted = LASTING[fault]
        end = self._loop.time() + LEFT_FOR
        dials_at = self._loop.time()
        while self.application.client.status not in wanted:
            if self._loop.time() > end:
                status = self.application.client.status
                self._demand([f"{fault} has not led to {' or '.join(wanted)} but to {status}"])
            if fault in _SHOWS_AT_A_DIAL and self._loop.time() >= dials_at:
                dials_at += _DIALS_EVERY
                await self._break(Action.RESET_PEER)
            await asyncio.sleep(_STEP)
            self.check()
        self.application.emit()
        self.application.emit(Delivery.VOLATILE)
        await asyncio.sleep(_STEP)
        self.check()

    async def close(self) -> None:
        """Disconnect, and look whether anything is left, or missing.

        Raises:
            Violation: If so.
        """
        application = self.application
        await application.disconnect()
        self._demand(self._left_behind())
        async with asyncio.timeout(CALL_TIMEOUT + 1.0):
            await application.settled()
        await asyncio.sleep(_LATE)
        self.check()
        application.end()
        self.story.seen |= application.seen
        for changes in application.stories:
            self._demand(violations_of_changes(changes))
        self._demand(violations_of_books(application, self.environment))
        await self.environment.close()
        if isinstance(self._loop, VirtualLoop):
            self._demand(f"a timer is left: {timer}" for timer in self._loop.timers())
        self._note()

    # Inside.

    async def _recover(self) -> None:
        self._mend()
        self.tell("all is mended")
        async with asyncio.timeout(HEALED_WITHIN):
            await self.application.connect()
            self.application.client.release_fallback()
            await self._until(self._is_back)

    def _demand(self, violations: Iterable[str]) -> None:
        found = list(dict.fromkeys(violations))
        if found:
            self._note()
            self.story.violations = found
            raise Violation("; ".join(found))

    def _note(self) -> None:
        self.story.virtual_seconds = self._loop.time() - self._begun

    async def _break(self, fault: Action) -> None:
        if fault is Action.DISK_FULL:
            self.application.set_disk_full(full=True)
        elif fault is Action.TOKEN_DOWN:
            self.application.identity.is_down = True
        elif fault is Action.REVOKE:
            self.application.identity.valid.clear()
        else:
            doing = self.environment.do(fault)
            if doing is not None:
                await doing
        if self._dead_since is None and self.environment.is_dead:
            self._dead_since = self._loop.time()

    def _mend(self) -> None:
        self.environment.heal()
        self.application.set_disk_full(full=False)
        self.application.identity.is_down = False
        self._dead_since = None

    def _is_back(self) -> bool:
        client = self.application.client
        if client.gave_up is not None:
            client.retry_now()
        return TRAITS[client.status].sends

    def _is_quiet(self) -> bool:
        application = self.application
        behind = application.last is not None and application.last < application.published
        return not (application.client.metrics.messages_waiting or behind or application.is_busy)

    def _left_behind(self) -> Iterable[str]:
        mine = {asyncio.current_task(), *self.application.tasks}
        left = () if self.environment.has_tasks else asyncio.all_tasks() - mine
        # Without its name, in which asyncio counts all tasks of the process: a replay tells the same.
        return sorted(f"a task is left in {described(task).partition(' in ')[2]}" for task in left)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await asyncio.sleep(_STEP)
            self.check()


_SHOWS_AT_A_DIAL: Final = frozenset(
    {Action.DENY, Action.BANISH, Action.OVERLOAD, Action.SILENCE, Action.REFUSE, Action.TOKEN_DOWN}
)
"""Faults that a live connection does not notice."""


# fmt: off
_OF_THE_APPLICATION: Final[Mapping[Action, Callable[[Application], object]]] = MappingProxyType({
    Action.EMIT:              lambda app: app.emit(),
    Action.EMIT_VOLATILE:     lambda app: app.emit(Delivery.VOLATILE),
    Action.EMIT_AT_MOST_ONCE: lambda app: app.emit(Delivery.AT_MOST_ONCE),
    Action.CALL:              lambda app: app.call(),
    Action.CONNECT:           lambda app: app.connect(),
    Action.DISCONNECT:        lambda app: app.disconnect(),
    Action.RETRY_NOW:         lambda app: app.retry_now(),
    Action.FORCE_FALLBACK:    lambda app: app.force_fallback(),
    Action.RELEASE_FALLBACK:  lambda app: app.client.release_fallback(),
    Action.CRASH:             lambda app: app.crash(),
    Action.PUBLISH:           lambda app: app.publish(),
})
# fmt: on


def play(schedule: Schedule, environment: EnvironmentFactory = SimulatedEnvironment) -> Story:
    """Play a schedule in virtual time; return how it went, with the promises that were broken.

    Args:
        schedule: What happens.
        environment: Makes the server and its network.
    """
    story = Story(schedule)

    async def main() -> None:
        nonlocal story
        simulation = Simulation(schedule, environment)
        story = simulation.story
        await simulation.play()

    try:
        run(main(), seed=schedule.seed)
    except Exception as error:  # noqa: BLE001 - whatever it is, the schedule has found it
        notes = getattr(error, "__notes__", ())
        told = story.violations or [f"{type(error).__name__}: {error}"]
        story.violations = [_ADDRESS.sub("", line) for line in (*told, *notes)]  # another one in every run
    return story
