"""Plays a schedule on the whole engine, in virtual time, and finds out whether a promise was broken."""

import asyncio
import hashlib
import inspect
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from random import Random
from types import MappingProxyType
from typing import Final

from attrs import define, field

from realtime_fsm.engine.message import RESENT
from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.machine.delivery import Delivery, Outcome
from realtime_fsm.machine.record import StatusChange
from realtime_fsm.machine.table import TRAITS, TRANSITIONS
from realtime_fsm.service import RealtimeService
from realtime_fsm.testing.fuzz.application import CALL_TIMEOUT, Application, Emitted, Witness, of_fault
from realtime_fsm.testing.fuzz.schedule import LASTING, Action, Schedule, Setting, Step
from realtime_fsm.testing.fuzz.world import NUMBER, SLOW_ACKS, Environment, SimulatedEnvironment
from realtime_fsm.testing.virtual_loop import VirtualLoop, described, run

# What must hold: always, whatever happens; and in the end, when all is mended or one fault stays.

_ROWS: Final = {(row.source, row.trigger, row.dest) for row in TRANSITIONS}
_TOLD: Final = frozenset(Outcome) - {Outcome.PENDING, Outcome.SENT, Outcome.ACKNOWLEDGED, Outcome.STORED}
"""Outcomes by which the application knows that a message may not have arrived."""


FIRST_WORDS: Final = 1
"""Messages of the application's hook at a time: they are accepted however full the outbox is."""


class Violation(AssertionError):  # noqa: N818 - it is what was found
    """A promise was broken."""


def violations_now(application: Application, environment: Environment) -> Iterator[str]:
    """Yield what must not be at any moment, and is."""
    client, config = application.client, application.config
    metrics = client.metrics
    yield from application.violations
    yield from environment.complaints
    settled = sum(metrics.messages_by_outcome.values())
    taken = metrics.messages_accepted + metrics.messages_restored
    if taken != settled + metrics.messages_waiting:
        yield f"{taken} messages were taken, but {settled} are settled and {metrics.messages_waiting} wait"
    if metrics.messages_in_flight > config.max_in_flight:
        yield f"{metrics.messages_in_flight} messages are in flight"
    if metrics.messages_waiting > config.outbox_max_messages + FIRST_WORDS:
        yield f"{metrics.messages_waiting} messages wait"
    if metrics.activity_crashes:
        yield f"{metrics.activity_crashes} activities crashed"
    if metrics.handler_errors:
        yield f"{metrics.handler_errors} handlers failed"
    if application.identity.most > 1:
        yield f"{application.identity.most} tokens were fetched at the same time"
    yield from _idle(client, application)
    yield from _dark(application)


def violations_of_changes(changes: Iterable[StatusChange]) -> Iterator[str]:
    """Yield what is wrong with the story of one client."""
    story = list(changes)
    for change in story:
        row = (change.previous, change.trigger, change.current)
        if row not in _ROWS:
            yield f"{' '.join(map(str, row))} is no row of the table"
    for before, after in pairwise(story):
        if after.previous is not before.current:
            yield f"{after.previous} followed {before.current}"
        if after.epoch <= before.epoch:
            yield f"epoch {after.epoch} followed epoch {before.epoch}"
    turns = [change.is_connected for change in story if change.is_connected or change.is_lost]
    if turns and (not turns[0] or any(first is second for first, second in pairwise(turns))):
        yield "connected and lost did not take turns"


def violations_of_books(application: Application, environment: Environment) -> Iterator[str]:
    """Yield what is wrong with the messages, once the client is disconnected."""
    applied = [number for event, number in environment.applied if event == NUMBER]
    times = Counter(applied)
    disk = application.disk
    kept = application.expired  # whoever found it on the disk has told of it
    kept |= {
        message.args[0] for message in (*disk.waiting.values(), *(d.message for d in disk.dead.values()))
    }
    for message in application.emitted:
        if message.event == NUMBER:
            yield from _of_message(message, times[message.number], kept=message.number in kept)
    lines: dict[tuple[Delivery, int], set[int]] = {}
    for message in application.emitted:
        if message.is_undone:  # only the network may have it still, and nothing waits for that
            continue
        # What a process that crashed has sent may arrive late; only the outbox numbers across processes.
        process = 0 if message.delivery is Delivery.EXACTLY_ONCE else message.process
        lines.setdefault((message.delivery, process), set()).add(message.number)
    for (delivery, _), line in lines.items():
        seen = [number for number in dict.fromkeys(applied) if number in line]
        if seen != sorted(seen):
            yield f"messages {delivery.value} took effect in the order {seen}"


def violations_of_rest(application: Application, environment: Environment) -> Iterator[str]:
    """Yield what is missing after everything was mended, and before the client is disconnected."""
    applied = {number for event, number in environment.applied if event == NUMBER}
    applied |= {letter.message.args[0] for letter in application.disk.dead.values()}  # given up, and told
    applied |= application.expired
    for message in application.emitted:
        if message.event == NUMBER and _is_due(message) and message.number not in applied:
            yield f"message {message.number} ({message.delivery.value}) was accepted, and never arrived"
    if application.last is not None and application.last != application.published:
        yield f"the last tick is {application.last}, of {application.published}"
    if application.side is not None and application.side != application.published:
        yield f"the last number of the second channel is {application.side}, of {application.published}"
    if application.is_owed:
        yield "ticks were dropped because the handlers were behind, and nobody was told"
    if application.client.metrics.messages_waiting:
        yield f"{application.client.metrics.messages_waiting} messages still wait"


def violations_of_silence(application: Application, environment: Environment, since: float) -> Iterator[str]:
    """Yield it when a connection passes for live on which nothing has come for longer than may be.

    Args:
        application: Its client.
        environment: Its server.
        since: When the connection became dead, or live if that was later, on the loop's clock.
    """
    config = application.config
    limit = config.heartbeat_interval + config.heartbeat_timeout + 0.1
    silent = asyncio.get_running_loop().time() - since
    if environment.is_dead and TRAITS[application.client.status].sends and silent > limit:
        yield f"nothing comes for {silent:.1f} s, and the status is {application.client.status}"


def _idle(client: RealtimeService, application: Application) -> Iterator[str]:
    """Yield it when nothing runs that could end the state, where something must."""
    manager = client._manager  # noqa: SLF001 - how many tasks it runs is nobody else's business
    if manager is not None and TRAITS[client.status].online and not manager.task_count:
        yield f"nothing runs in {client.status}, which {len(application.changes)} changes led to"


def _dark(application: Application) -> Iterator[str]:
    """Yield it when data has not come for longer than the fallback is to be waited for."""
    config = application.config
    if application.dark_since is None or config.fallback_after is None or not config.fallback_available:
        return
    # An attempt that began in time ends in its own: twice, where its token is renewed in between.
    limit = config.fallback_after * 1.2 + 2 * config.connection_timeout + config.close_timeout
    dark = asyncio.get_running_loop().time() - application.dark_since
    if dark > limit:
        yield f"nothing has come for {dark:.1f} s, and the status is {application.client.status}"


def _of_message(message: Emitted, times: int, *, kept: bool) -> Iterator[str]:
    what = f"message {message.number} ({message.delivery.value})"
    may_come_again = message.delivery is Delivery.AT_LEAST_ONCE or (
        message.is_undone and message.delivery is Delivery.AT_MOST_ONCE
    )
    if times > 1 and not may_come_again:
        yield f"{what} took effect {times} times"
    receipt = message.receipt
    if receipt is None:
        return
    if not receipt.is_settled and not message.is_forgotten:
        yield f"{what} was never settled"
    if receipt.outcome is Outcome.ACKNOWLEDGED and not times:
        yield f"{what} is acknowledged, and never arrived"
    if receipt.outcome is Outcome.SENT and not times:
        yield f"{what} is called sent, and never arrived"
    # One AT_MOST_ONCE may be lost by the process that found it on the disk.
    is_resent = message.delivery in RESENT
    is_lost = is_resent and not (times or kept or message.is_undone)
    if receipt.outcome is Outcome.STORED and is_lost:
        yield f"{what} is stored, and is not on the disk"


def _is_due(message: Emitted) -> bool:
    """Tell whether a message must have arrived once all is well: nobody was told otherwise."""
    if message.receipt is None or message.is_forgotten or message.delivery not in RESENT:
        return False
    return message.receipt.outcome not in _TOLD


def violations_of_ends(witness: Witness) -> Iterator[str]:
    """Yield the messages that have expired before their time to live was over."""
    for message, outcome, at in witness.settled:
        if outcome is not Outcome.EXPIRED or message.is_call:
            continue  # a call is over when its caller has waited for long enough
        due = message.expires_at
        if due is None or at < due:
            early = "with no time to live" if due is None else f"{due - at:.3f} s early"
            yield f"message {message.args[0]} ({message.delivery.value}) expired {early}"


def violations_of_witness(witness: Witness) -> Iterator[str]:
    """Yield what the observers of a client were told otherwise than it says itself."""
    status = witness.client.connection_status
    kept: tuple[tuple[str, list[object], deque[object]], ...] = (
        ("changes", [*witness.changes], deque(status.history, status.history.maxlen)),
        ("attempts", [*witness.attempts], deque(status.attempts, status.attempts.maxlen)),
    )
    for what, told, history in kept:
        if told[-(history.maxlen or 0) :] != list(history):
            yield f"observers were told of {len(told)} {what}, and the history holds other {len(history)}"
    told_ends = Counter(outcome.value for _, outcome, _ in witness.settled)
    counted = witness.client.metrics.messages_by_outcome
    if told_ends != counted:
        yield f"observers were told of the ends {dict(told_ends)}, and the metrics count {dict(counted)}"


def violations_of_epochs(application: Application, environment: Environment) -> Iterator[str]:
    """Yield the ticks that were handled although they came over a connection that had been given up."""
    delivered = environment.delivered
    if delivered is None:
        return
    for number, times in application.ticks.items():
        if times > delivered[number]:
            yield f"tick {number} was heard {times} times, and came {delivered[number]} times in its epoch"


HEALED_WITHIN: Final = 120.0
"""Virtual seconds in which everything is connected and delivered, once all is mended."""

LEFT_FOR: Final = 120.0
"""Virtual seconds in which a fault that nobody mends leads where it must."""

_STEP: Final = 0.5
_LATE: Final = 5.0
"""Seconds after a disconnect in which what is still on its way must reach nobody."""

_DIALS_EVERY: Final = 10.0
INTERLEAVED: Final = 0.2
"""How likely a turn of the loop takes time where schedules are interleaved; see ``VirtualLoop``."""

_ADDRESS: Final = re.compile(r" at 0x[0-9a-f]+")
EnvironmentFactory = Callable[[Setting, Random], Environment]


@define
class Story:
    """The course of a schedule that was played.

    Attributes:
        schedule: Which.
        lines: What happened, in order, each with its time: the same, byte for byte, every time.
        seen: What was seen of the rows, outcomes and faults that there are.
        virtual_seconds: How long it took.
        violations: The promises that were broken.
        preempt: How likely a turn of its loop took time.
    """

    schedule: Schedule
    lines: list[str] = field(factory=list)
    seen: set[str] = field(factory=set)
    virtual_seconds: float = 0.0
    violations: list[str] = field(factory=list)
    preempt: float = 0.0

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
            if action in _IN_THE_WAY:
                self.application.sound_since = None
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
        if fault is Action.HTTP_OVERLOAD:  # it shows to who polls
            self.application.force_fallback()
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
        if fault in _SHOWS_IN_TIME:
            await asyncio.sleep(_LINGER)
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
        for witness in application.witnesses:
            self._demand(violations_of_ends(witness))
            self._demand(violations_of_witness(witness))
        self._demand(violations_of_epochs(application, self.environment))
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
        self.application.sound_since = None
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
        self.application.sound_since = self._loop.time() + _AFTERMATH

    def _is_back(self) -> bool:
        client = self.application.client
        if client.gave_up is not None:
            client.retry_now()
        return TRAITS[client.status].sends

    def _is_quiet(self) -> bool:
        application = self.application
        behind = any(
            last is not None and last < application.published for last in (application.last, application.side)
        )
        metrics = application.client.metrics
        waits = metrics.messages_waiting or metrics.events_pending
        return not (waits or behind or application.is_busy)

    def _left_behind(self) -> Iterable[str]:
        mine = {asyncio.current_task(), *self.application.tasks}
        left = () if self.environment.has_tasks else asyncio.all_tasks() - mine
        # Without its name, in which asyncio counts all tasks of the process: a replay tells the same.
        return sorted(f"a task is left in {described(task).partition(' in ')[2]}" for task in left)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await asyncio.sleep(_STEP)
            self.check()


_AFTERMATH: Final = SLOW_ACKS + 10.0
"""Seconds after which nothing of a fault that was mended is left: the slowest answer has come, and a dial."""

_IN_THE_WAY: Final = frozenset({Action.DISCONNECT, Action.FORCE_FALLBACK, Action.CRASH, Action.RESTORE})
"""Steps of the application after which a call may rightly stay without an answer."""

_SHOWS_AT_A_DIAL: Final = frozenset(
    {Action.DENY, Action.BANISH, Action.OVERLOAD, Action.SILENCE, Action.REFUSE, Action.TOKEN_DOWN}
)
"""Faults that a live connection does not notice."""


_SHOWS_IN_TIME: Final = frozenset({Action.OVERLOAD, Action.HTTP_OVERLOAD, Action.CLOCK_AHEAD})
"""Faults of which only who is watched for some time can be seen to make too much."""

_LINGER: Final = 40.0
"""Seconds of it: a token is renewed in them, and a ``Retry-After`` ends several times."""


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
    Action.RESTORE:           lambda app: app.restore(),
    Action.SUBSCRIBE:         lambda app: app.subscribe(),
    Action.UNSUBSCRIBE:       lambda app: app.unsubscribe(),
    Action.FLICKER:           lambda app: app.flicker(),
    Action.BEGIN_DISCONNECT:  lambda app: app.begin_disconnect(),
    Action.CANCEL:            lambda app: app.cancel(),
    Action.EMIT_EXPIRING:     lambda app: app.emit_expiring(),
    Action.FLOOD:             lambda app: app.flood(),
    Action.ASK_BACK:          lambda app: app.ask_back(),
})
# fmt: on


def play(
    schedule: Schedule, environment: EnvironmentFactory = SimulatedEnvironment, preempt: float = 0.0
) -> Story:
    """Play a schedule in virtual time; return how it went, with the promises that were broken.

    Args:
        schedule: What happens.
        environment: Makes the server and its network.
        preempt: How likely a turn of the loop takes time, see ``VirtualLoop``: ``INTERLEAVED``, or 0.
    """
    story = Story(schedule, preempt=preempt)

    async def main() -> None:
        nonlocal story
        simulation = Simulation(schedule, environment)
        story = simulation.story
        story.preempt = preempt
        await simulation.play()

    try:
        run(main(), seed=schedule.seed, preempt=preempt)
    except Exception as error:  # noqa: BLE001 - whatever it is, the schedule has found it
        notes = getattr(error, "__notes__", ())
        told = story.violations or [f"{type(error).__name__}: {error}"]
        story.violations = [_ADDRESS.sub("", line) for line in (*told, *notes)]  # another one in every run
    return story
