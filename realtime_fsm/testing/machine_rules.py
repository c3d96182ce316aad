"""``MachineRules``: a Hypothesis state machine that plays any table of transitions against what runs it.

For a table of your own, in your own test suite::

    class DoorRules(MachineRules):
        table = [*TRANSITIONS, ("connected", "pause", "paused"), ("paused", "resume", "connected")]
        ignored = IGNORED
        initial = "disconnected"
        goals = ("connected",)

    TestDoor = DoorRules.TestCase

That finds states and rows that cannot be reached, rows that are never taken, dead ends, and states from
which no goal can be reached. With ``make_machine`` it also finds every move that your machine makes otherwise
than the table says, and shrinks the way there to the fewest steps. What else must hold is an ``@invariant``.

``ConnectionRules`` does the same to the whole engine in virtual time, with a server and an application.
"""

from collections.abc import Callable, Collection, Coroutine, Hashable, Iterable, Mapping
from functools import partial
from typing import Any, ClassVar, Final, TypeVar

from attrs import define, field, frozen
from transitions import Machine, MachineError

from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.machine.connection_machine import ConnectionMachine
from realtime_fsm.machine.errors import IllegalTransitionError, MissingExtraError
from realtime_fsm.machine.guard import GUARDS
from realtime_fsm.machine.table import TRANSITIONS, Guard
from realtime_fsm.service import RealtimeService
from realtime_fsm.testing.exploration import Exploration, Move, explore, moves_of
from realtime_fsm.testing.fuzz.schedule import PAUSES, Action, Schedule, Setting, Step
from realtime_fsm.testing.fuzz.simulation import EnvironmentFactory, Simulation
from realtime_fsm.testing.fuzz.world import SimulatedEnvironment
from realtime_fsm.testing.strategies import facts
from realtime_fsm.testing.virtual_loop import VirtualSession

try:
    from hypothesis import strategies as st
    from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
except ImportError as error:
    raise MissingExtraError(extra="testing", what="MachineRules and ConnectionRules") from error

T = TypeVar("T")

_REFUSALS: Final = (IllegalTransitionError, MachineError)

Pair = tuple[Any, Any]
"""A state and a trigger."""

GuardFunctions = Mapping[Any, Callable[[Any], object]]
"""The functions of guards that a table only names."""


@frozen
class TableLaw:
    """The contents of a table of transitions, worked out once.

    Attributes:
        moves: The rows.
        exploration: What was found in them.
        states: All states: those of the rows, and those that were declared.
        triggers: All triggers.
        findings: What is wrong, in words for people.
    """

    moves: tuple[Move, ...]
    exploration: Exploration
    states: tuple[Any, ...]
    triggers: tuple[Any, ...]
    findings: tuple[str, ...]


@define
class TableMachine:
    """Runs a table as it stands: the first row whose guard holds. Where there is no machine but the table.

    Attributes:
        state: The state it is in.
    """

    state: Any
    _moves: tuple[Move, ...]
    _ignored: Collection[Pair] = ()
    _guards: GuardFunctions = field(factory=dict)

    def fire(self, trigger: Any, facts: Any) -> bool:
        """Take the first row of the pair whose guard holds.

        Returns:
            Whether a transition happened.

        Raises:
            IllegalTransitionError: If the pair is neither in the table nor ignored.
        """
        rows = [move for move in self._moves if (move.source, move.trigger) == (self.state, trigger)]
        if not rows and (self.state, trigger) not in self._ignored:
            legal = tuple(str(move.trigger) for move in self._moves if move.source == self.state)
            raise IllegalTransitionError(state=str(self.state), trigger=str(trigger), legal=legal)
        for row in rows:
            if not row.is_guarded or self._guard(row)(facts):
                self.state = row.dest
                return True
        return False

    def _guard(self, row: Move) -> Callable[[Any], object]:
        guard = guard_function(row.guard, self._guards)
        if guard is None:
            raise LookupError(f"`guards` does not say what the guard {row.guard!r} of {row} is")
        return guard


def read_table(
    table: Any,
    *,
    initial: Any = None,
    states: Iterable[Any] = (),
    ignored: Collection[Pair] = (),
    final: Collection[Any] = (),
    goals: Collection[Any] = (),
    is_complete: bool = False,
) -> TableLaw:
    """Work out what a table says, and all that is wrong with it.

    Args:
        table: As ``explore`` takes it.
        initial: As there.
        states: States that it must know.
        ignored: Pairs that do nothing, on purpose.
        final: States that need not be left.
        goals: States of which one must be reachable from every state that is not final.
        is_complete: Whether every pair must be a row or ignored.
    """
    moves = moves_of(table)
    found = explore(table, initial=initial, ignored=ignored, final=final)
    declared = [*states]
    if isinstance(table, Machine):
        declared += [state.value for state in table.states.values()]
    of_rows = dict.fromkeys([found.initial, *(state for move in moves for state in (move.source, move.dest))])
    lonely = [state for state in dict.fromkeys(declared) if state not in of_rows]
    return TableLaw(
        moves=moves,
        exploration=found,
        states=(*of_rows, *lonely),
        triggers=tuple(dict.fromkeys(move.trigger for move in moves)),
        findings=(
            *found.findings,
            *(f"unreachable state: {state}, which is in no row" for state in lonely),
            *_contradictions(moves, ignored),
            *_without_goal(found, goals, final),
            *(f"neither a row nor ignored: {s} --{t}-->" for s, t in found.missing if is_complete),
        ),
    )


def _contradictions(moves: Iterable[Move], ignored: Collection[Pair]) -> Iterable[str]:
    pairs = {(move.source, move.trigger) for move in moves}
    for state, trigger in ignored:
        if (state, trigger) in pairs:
            yield f"contradiction: {state} --{trigger}--> is a row, and is ignored"


def _without_goal(found: Exploration, goals: Collection[Any], final: Collection[Any]) -> Iterable[str]:
    """Tell from where no goal can be reached; dead ends are told of elsewhere."""
    for state in found.cannot_reach(*goals, *final) if goals else ():
        if state not in found.dead_ends:
            yield f"no way to {' or '.join(map(str, goals))} from {state}, reached by {found.way_to(state)}"


def guard_function(guard: Any, guards: GuardFunctions) -> Callable[[Any], object] | None:
    """Return the function of a guard; ``None`` where it is not known."""
    if isinstance(guard, Hashable) and guard in guards:
        return guards[guard]
    return guard if callable(guard) else None


def _drawn(is_wanted: Callable[["MachineRules", Any], bool]) -> st.SearchStrategy[Any]:
    """Draw a trigger out of all, so that a step means the same when others are shrunk away."""
    return st.runner().flatmap(
        lambda self: st.sampled_from(self.law.triggers).filter(partial(is_wanted, self))
    )


class MachineRules(RuleBasedStateMachine):
    """Fires whatever it likes, illegal triggers included, and checks after each step what must hold.

    Subclass it, say which table, and give its ``TestCase`` to pytest or unittest. Before the first step the
    table is looked through to its end, as by ``check_table``.

    Attributes:
        table: The rows, as ``explore`` takes them, or a ``transitions.Machine`` that holds them.
        initial: Where it begins; by default where that machine does, or at the source of the first row.
        states: States that the table must know, such as your ``Enum``; one that no row leads to is found.
        ignored: Pairs ``(state, trigger)`` that do nothing, on purpose.
        allowed_dead_ends: States that need not be left.
        goals: States of which one must be reachable from every state that is not an allowed dead end.
        is_complete: Whether every pair must be a row or ignored, so that none is illegal.
        facts: Draws what the guards look at; by default our ``facts()`` where a guard is one of ours.
        guards: The functions of the guards that the table only names. One that is not known, and that the
            table does not hold itself, may decide either way.
        refusals: What an illegal trigger raises; empty where it does nothing, silently.
    """

    table: ClassVar[Any] = None
    initial: ClassVar[Any] = None
    states: ClassVar[Iterable[Any]] = ()
    ignored: ClassVar[Collection[Pair]] = ()
    allowed_dead_ends: ClassVar[Collection[Any]] = ()
    goals: ClassVar[Collection[Any]] = ()
    is_complete: ClassVar[bool] = False
    facts: ClassVar[st.SearchStrategy[Any] | None] = None
    guards: ClassVar[GuardFunctions] = GUARDS
    refusals: ClassVar[tuple[type[Exception], ...]] = _REFUSALS

    _laws: ClassVar[dict[type, TableLaw]] = {}

    def __init__(self) -> None:
        super().__init__()
        self.check_table()
        self.law = self._read()
        self.machine = self.make_machine()
        assert self.state == self.law.exploration.initial, (  # noqa: S101 - this is a test
            f"the machine begins in {self.state}, and the table in {self.law.exploration.initial}"
        )

    def make_machine(self) -> Any:
        """Return a new machine: what the table is played against.

        Override it to test a machine of your own: a ``transitions.Machine`` with one model, or anything that
        has a ``state`` (or ``status``) and a ``fire(trigger, facts)``. By default it is ours for our table,
        and for another one what runs the table as it stands.
        """
        if self.table is TRANSITIONS:
            return ConnectionMachine()
        if isinstance(self.table, Machine):
            raise TypeError(f"{type(self).__name__}.make_machine must return a new machine each time")
        initial = self.law.exploration.initial
        if any(isinstance(row, Mapping) for row in self.table):
            rows = list(self.table)
            return Machine(
                states=list(self.law.states), transitions=rows, initial=initial, auto_transitions=False
            )
        return TableMachine(initial, self.law.moves, self.ignored, self.guards)

    @property
    def state(self) -> Any:
        """The state that the machine is in."""
        held = self.machine.models[0] if isinstance(self.machine, Machine) else self.machine
        return held.status if hasattr(held, "status") else held.state

    @property
    def legal(self) -> list[Any]:
        """The triggers that have a row in this state."""
        return list(dict.fromkeys(move.trigger for move in self.law.moves if move.source == self.state))

    def is_plain(self, trigger: Any) -> bool:
        """Tell whether no row of a trigger asks for facts."""
        return self.facts is None and not any(
            move.is_guarded for move in self.law.moves if move.trigger == trigger
        )

    @classmethod
    def check_table(cls) -> Exploration:
        """Look through the table to its end, once per class.

        Returns:
            What was found.

        Raises:
            AssertionError: If anything is wrong with the table; it says what, and the way there.
        """
        law = cls._read()
        if law.findings:
            raise AssertionError("\n".join([f"the table of {cls.__name__} is wrong:", *law.findings]))
        return law.exploration

    @precondition(lambda self: any(map(self.is_plain, self.legal)))
    @rule(trigger=_drawn(lambda self, trigger: trigger in self.legal and self.is_plain(trigger)))
    def fire(self, trigger: Any) -> None:
        """Fire a trigger that has a row here, and depends on nothing else."""
        self.check_fire(trigger, None)

    @precondition(lambda self: not all(map(self.is_plain, self.legal)))
    @rule(
        trigger=_drawn(lambda self, trigger: trigger in self.legal and not self.is_plain(trigger)),
        facts=st.runner().flatmap(lambda self: self.drawn_facts()),
    )
    def fire_guarded(self, trigger: Any, facts: Any) -> None:
        """Fire a trigger that has a row here, which may depend on facts."""
        self.check_fire(trigger, facts)

    @precondition(lambda self: len(self.legal) < len(self.law.triggers))
    @rule(
        trigger=_drawn(lambda self, trigger: trigger not in self.legal),
        facts=st.runner().flatmap(lambda self: st.none() if self.facts is None else self.facts),
    )
    def fire_other(self, trigger: Any, facts: Any) -> None:
        """Fire a trigger that has no row here: it is ignored, or refused; it moves nothing."""
        self.check_fire(trigger, facts)

    @invariant()
    def state_is_in_the_table(self) -> None:
        """Check that the machine never is in a state that the table does not know."""
        assert self.state in self.law.states, (  # noqa: S101 - this is a test
            f"illegal state: {self.state!r} is not in the table"
        )

    def drawn_facts(self) -> st.SearchStrategy[Any]:
        """Return the strategy of the facts for the guards."""
        if self.facts is not None:
            return self.facts
        if any(isinstance(move.guard, Guard) for move in self.law.moves):
            return facts()
        return st.none()

    def allowed(self, trigger: Any, facts: Any) -> list[Any]:
        """Return the states in which the machine may be after a trigger; empty where it is illegal."""
        rows = [move for move in self.law.moves if (move.source, move.trigger) == (self.state, trigger)]
        possible: list[Any] = []
        for row in rows:
            verdict = self._verdict(row, facts)
            if verdict is not False:
                possible.append(row.dest)
            if verdict is True:
                return possible
        if rows or (self.state, trigger) in self.ignored:
            possible.append(self.state)
        return possible

    def check_fire(self, trigger: Any, facts: Any) -> None:
        """Fire, and check that the machine does what the table says."""
        before, allowed = self.state, self.allowed(trigger, facts)
        refusal = self._refusal(trigger, facts)
        after = self.state
        step = f"{before} --{trigger}--> {after}"
        if allowed:
            if refusal is not None:
                raise AssertionError(f"{before} --{trigger}--> was refused, and is in the table") from refusal
            wanted = " or ".join(map(str, dict.fromkeys(allowed)))
            assert after in allowed, f"wrong move: {step}, and the table says {wanted}"  # noqa: S101
        else:
            assert after == before, f"illegal move: {step} is not in the table"  # noqa: S101
            assert refusal is not None or not self.refusals, (  # noqa: S101
                f"not refused: {before} --{trigger}--> is not in the table, and raised nothing"
            )

    def _refusal(self, trigger: Any, facts: Any) -> Exception | None:
        """Fire, and return the refusal where there was one."""
        try:
            if not isinstance(self.machine, Machine):
                self.machine.fire(trigger, facts)
            elif trigger in self.machine.events:
                given = {} if facts is None else {"facts": facts}
                self.machine.events[trigger].trigger(self.machine.models[0], **given)
            else:
                raise MachineError(f"the machine does not know the trigger {trigger}")
        except self.refusals as refusal:
            return refusal
        return None

    def _verdict(self, row: Move, facts: Any) -> bool | None:
        """Tell whether a row is taken; ``None`` where its guard cannot be asked."""
        if not row.is_guarded:
            return True
        guard = guard_function(row.guard, self.guards)
        return None if guard is None else bool(guard(facts))

    @classmethod
    def _read(cls) -> TableLaw:
        """Return what the table says; worked out at the first call."""
        if cls.table is None:
            raise TypeError(f"{cls.__name__}.table must say which table is to be tested")
        if cls not in cls._laws:
            cls._laws[cls] = read_table(
                cls.table,
                initial=cls.initial,
                states=cls.states,
                ignored=cls.ignored,
                final=cls.allowed_dead_ends,
                goals=cls.goals,
                is_complete=cls.is_complete,
            )
        return cls._laws[cls]


class ConnectionRules(RuleBasedStateMachine):
    """The engine, a server and an application in virtual time; anything may happen, and every promise holds.

    ::

        class BookingRules(ConnectionRules):
            def begin(self):
                self.seen = []
                self.client.on("tick", self.seen.append)

            @rule()
            def ask(self):
                self.run(self.client.emit("ask", 1))

            @invariant()
            def remembers_little(self):
                assert len(self.seen) < 1000


        TestBooking = BookingRules.TestCase

    Rules and invariants of a subclass come to those that are here. After each step everything that must
    always hold is checked, and in the end all is mended, and everything must be delivered.

    Attributes:
        setting: What kind of server it is.
        environment: Makes the server and its network.
        actions: What may happen.
        simulation: The application, its client, and its server.
    """

    setting: ClassVar[Setting] = Setting.REFERENCE
    environment: ClassVar[EnvironmentFactory] = SimulatedEnvironment
    actions: ClassVar[tuple[Action, ...]] = tuple(Action)

    def __init__(self) -> None:
        super().__init__()
        self._session = VirtualSession()
        self.simulation: Simulation = self.run(self._made())
        self.begin()

    @property
    def client(self) -> RealtimeService:
        """The client of the present process: a crash makes another one."""
        return self.simulation.application.client

    def config(self) -> RealtimeConfig | None:
        """Return the configuration of the clients; ``None`` for one with short times. To be overridden."""
        return None

    def begin(self) -> None:
        """Do what is to be done first, with the client not yet connected. To be overridden."""

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in virtual time."""
        return self._session.run(main)

    @rule(data=st.data(), pause=st.sampled_from(PAUSES))
    def happens(self, data: st.DataObject, pause: float) -> None:
        """Let one of ``actions`` happen."""
        action = data.draw(st.sampled_from(self.actions), label="action")
        self.run(self.simulation.do(Step(action, pause)))

    @invariant()
    def every_promise_holds(self) -> None:
        """Check what must always hold."""
        self.run(self._checked())

    def teardown(self) -> None:
        """Mend everything, and see it delivered; then close, and see nothing left."""
        with self._session:
            self.run(self._ended())

    async def _made(self) -> Simulation:
        simulation = Simulation(Schedule((), 0, self.setting), type(self).environment, config=self.config())
        await simulation.environment.open()
        return simulation

    async def _checked(self) -> None:
        self.simulation.check()

    async def _ended(self) -> None:
        await self.simulation.heal()
        await self.simulation.close()
