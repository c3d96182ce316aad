import pytest
from hypothesis import event, given, settings, target
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from realtime_fsm.machine.connection_machine import ConnectionMachine
from realtime_fsm.machine.errors import IllegalTransitionError
from realtime_fsm.machine.guard import GUARDS, Facts
from realtime_fsm.machine.record import StatusChange
from realtime_fsm.machine.table import (
    ACTIVITIES,
    IGNORED,
    TRAITS,
    TRANSITIONS,
    ConnectionStatus,
    Trigger,
    legal_triggers,
    rows_of,
)
from realtime_fsm.testing import MachineRules, triggers
from realtime_fsm.testing import facts as all_facts

FACTS = all_facts()
STEPS = st.lists(st.tuples(triggers(), FACTS), max_size=60)


class Observer:
    """Makes a change of each entry, as the engine does, and checks the chain as it grows."""

    def __init__(self) -> None:
        self.machine = ConnectionMachine(on_enter=self.entered)
        self.status = ConnectionStatus.DISCONNECTED
        self.facts = Facts()
        self.changes: list[StatusChange] = []

    def entered(self, status: ConnectionStatus, trigger: Trigger, facts: Facts) -> None:
        """Record an entry."""
        self.changes.append(
            StatusChange(previous=self.status, current=status, trigger=trigger, reason="A test.")
        )
        self.status, self.facts = status, facts

    def fire(self, trigger: Trigger, facts: Facts) -> bool | None:
        """Fire; ``None`` where it is refused as illegal."""
        try:
            return self.machine.fire(trigger, facts)
        except IllegalTransitionError:
            return None


@given(STEPS)
def test_machine_never_leaves_the_table(steps: list[tuple[Trigger, Facts]]) -> None:
    """Whatever fires, each move is the first open row of its pair; all else is ignored or refused."""
    observer = Observer()
    for trigger, facts in steps:
        before, count = observer.machine.status, len(observer.changes)
        moved = observer.fire(trigger, facts)
        rows = rows_of(before, trigger)
        if moved is None:
            assert not rows
            assert (before, trigger) not in IGNORED
        else:
            assert rows or (before, trigger) in IGNORED
        taken = [row.dest for row in rows if row.guard is None or GUARDS[row.guard](facts)]
        assert bool(moved) is bool(taken)
        assert observer.machine.status is (taken[0] if taken else before)
        assert len(observer.changes) - count == bool(moved)
    target(len({change.current for change in observer.changes}))
    event(f"states visited: {len({change.current for change in observer.changes})}")


@given(st.data())
def test_machine_chain_of_changes_never_breaks(data: st.DataObject) -> None:
    """Each change begins where the one before ended, is a row, and connected and lost take turns."""
    observer = Observer()
    for _ in range(data.draw(st.integers(0, 40), label="steps")):
        trigger = data.draw(st.sampled_from(legal_triggers(observer.machine.status)), label="trigger")
        assert observer.fire(trigger, data.draw(FACTS, label="facts")) is not None
    previous = ConnectionStatus.DISCONNECTED
    live = False
    moves = {(row.source, row.trigger, row.dest) for row in TRANSITIONS}
    for change in observer.changes:
        assert change.previous is previous
        assert (change.previous, change.trigger, change.current) in moves
        assert change.is_connected <= (not live)
        assert change.is_lost <= live
        live = (live or change.is_connected) and not change.is_lost
        assert live is TRAITS[change.current].sends
        previous = change.current
    assert previous is observer.machine.status


@given(STEPS)
def test_machine_same_steps_lead_to_the_same_place(steps: list[tuple[Trigger, Facts]]) -> None:
    """The machine has no memory but its state, and nothing of chance: the same steps do the same."""
    first, second = Observer(), Observer()
    assert [first.fire(*step) for step in steps] == [second.fire(*step) for step in steps]
    assert first.changes == second.changes


@given(STEPS, FACTS)
def test_machine_disconnect_always_ends_it(steps: list[tuple[Trigger, Facts]], facts: Facts) -> None:
    """However it got there, `disconnect` ends it, and a second one is harmless."""
    observer = Observer()
    for step in steps:
        observer.fire(*step)
    observer.fire(Trigger.DISCONNECT, facts)
    assert observer.machine.status is ConnectionStatus.DISCONNECTED
    assert observer.fire(Trigger.DISCONNECT, facts) is False


class ConnectionMachineRules(MachineRules):
    """The shipped machine, with an observer that follows it."""

    table = TRANSITIONS
    ignored = IGNORED
    states = ConnectionStatus
    goals = (ConnectionStatus.CONNECTED,)

    def make_machine(self) -> ConnectionMachine:
        """Return the machine that the observer follows."""
        self.observer = Observer()
        return self.observer.machine

    @rule(trigger=triggers(), facts=FACTS)
    def foretell(self, trigger: Trigger, facts: Facts) -> None:
        """`may` and `destination` tell where a trigger would lead, and move nothing."""
        before, allowed = self.state, self.allowed(trigger, facts)
        may = self.machine.may(trigger, facts)
        if allowed:
            foretold = self.machine.destination(trigger, facts)
            assert may is (foretold is not None)
            assert (foretold or before) is allowed[0]
        else:
            assert not may
            with pytest.raises(IllegalTransitionError):
                self.machine.destination(trigger, facts)
        assert self.state is before

    @invariant()
    def something_runs_or_it_rests(self) -> None:
        """Every state reached has something running, or is one that rests."""
        running = self.machine.activities(self.observer.facts)
        assert running or not TRAITS[self.state].online
        assert set(running) <= {row.activity for row in ACTIVITIES if row.state is self.state}

    @invariant()
    def observer_knows_the_state(self) -> None:
        """Who follows the entries always knows the state."""
        assert self.observer.status is self.state


test_machine_keeps_its_laws_at_every_step = ConnectionMachineRules.TestCase
test_machine_keeps_its_laws_at_every_step.settings = settings(stateful_step_count=25)
test_machine_keeps_its_laws_at_every_step.__doc__ = "After every step the laws of the machine hold."
