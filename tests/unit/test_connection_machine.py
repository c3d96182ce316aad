import itertools

import pytest
from transitions import Machine

from realtime_fsm.machine.connection_machine import ConnectionMachine
from realtime_fsm.machine.errors import AuthenticationError, IllegalTransitionError, TransportError
from realtime_fsm.machine.guard import GUARDS, Facts
from realtime_fsm.machine.table import (
    ACTIVITIES,
    IGNORED,
    TRAITS,
    TRANSITIONS,
    Activity,
    ConnectionStatus,
    Trigger,
    legal_triggers,
    rows_of,
)

S, T = ConnectionStatus, Trigger
PAIRS = list(itertools.product(ConnectionStatus, Trigger))
FACTS = [
    Facts(reconnects=reconnects, fallback_available=available, forced=forced, error=error)
    for reconnects, available, forced, error in itertools.product(
        (0, 10),
        (False, True),
        (False, True),
        (None, TransportError("It broke."), AuthenticationError("Who?")),
    )
]
PATHS: dict[ConnectionStatus, list[tuple[Trigger, Facts]]] = {
    S.DISCONNECTED: [],
    S.CONNECTING: [(T.CONNECT, Facts())],
    S.CONNECTED: [(T.CONNECT, Facts()), (T.ESTABLISHED, Facts())],
    S.RECONNECTING: [(T.CONNECT, Facts()), (T.ATTEMPT_FAILED, Facts())],
    S.FAILED: [(T.CONNECT, Facts()), (T.ATTEMPT_FAILED, Facts(max_reconnect_attempts=0))],
    S.FALLBACK: [(T.CONNECT, Facts()), (T.FORCE_FALLBACK, Facts())],
}

Entry = tuple[ConnectionStatus, Trigger, Facts]


def machine_in(state: ConnectionStatus, entries: list[Entry] | None = None) -> ConnectionMachine:
    """Return a machine led to a state by triggers alone; later entries are recorded."""
    log: list[Entry] = [] if entries is None else entries
    machine = ConnectionMachine(on_enter=lambda *entry: log.append(entry))
    for trigger, facts in PATHS[state]:
        machine.fire(trigger, facts)
    assert machine.status is state
    log.clear()
    return machine


def test_machine_begins_disconnected_and_enters_nothing() -> None:
    """A new machine is DISCONNECTED, and that is no entry."""
    entries: list[Entry] = []
    machine = ConnectionMachine(on_enter=lambda *entry: entries.append(entry))
    assert machine.status is S.DISCONNECTED
    assert entries == []


def test_machine_built_agrees_with_the_table() -> None:
    """What was built is the table: the same rows, those of a pair in the same order, and no more."""
    rows = ConnectionMachine().rows()
    assert sorted(rows, key=repr) == sorted(TRANSITIONS, key=repr)
    for state, trigger in PAIRS:
        assert tuple(r for r in rows if (r.source, r.trigger) == (state, trigger)) == rows_of(state, trigger)


def test_machine_has_no_auto_transitions() -> None:
    """Only the triggers of the table exist: there is no `to_<state>` behind them."""
    machine = ConnectionMachine()
    assert set(machine._machine.events) == {trigger.value for trigger in Trigger}
    assert not [name for name in dir(machine._model) if name.startswith("to_")]


def test_machine_is_synchronous() -> None:
    """The machine is the synchronous one, so that a transition is atomic."""
    assert type(ConnectionMachine()._machine) is Machine


@pytest.mark.parametrize(("state", "trigger"), PAIRS)
def test_machine_takes_the_first_row_whose_guard_holds(state: ConnectionStatus, trigger: Trigger) -> None:
    """Each pair moves by its first open row, or is ignored, or is illegal; and observers hear of a move."""
    for facts in FACTS:
        entries: list[Entry] = []
        machine = machine_in(state, entries)
        rows = rows_of(state, trigger)
        if not rows and (state, trigger) not in IGNORED:
            with pytest.raises(IllegalTransitionError):
                machine.fire(trigger, facts)
            expected = None
        else:
            open_rows = (row.dest for row in rows if row.guard is None or GUARDS[row.guard](facts))
            expected = next(open_rows, None)
            assert machine.fire(trigger, facts) is (expected is not None)
        assert machine.status is (expected or state)
        assert entries == ([] if expected is None else [(expected, trigger, facts)])


@pytest.mark.parametrize(
    ("state", "trigger"), [pair for pair in PAIRS if not rows_of(*pair) and pair not in IGNORED]
)
def test_machine_refuses_an_illegal_trigger_and_lists_what_is_legal(
    state: ConnectionStatus, trigger: Trigger
) -> None:
    """The refusal names the state, the trigger, and exactly what is legal; nothing moves."""
    machine = machine_in(state)
    with pytest.raises(IllegalTransitionError) as refused:
        machine.fire(trigger)
    assert refused.value.state == state.value
    assert refused.value.trigger == trigger.value
    assert refused.value.legal == tuple(t.value for t in legal_triggers(state))
    assert set(refused.value.legal) == {row.trigger.value for row in TRANSITIONS if row.source is state}
    assert machine.status is state


@pytest.mark.parametrize(("state", "trigger"), PAIRS)
def test_machine_destination_and_may_agree_with_fire(state: ConnectionStatus, trigger: Trigger) -> None:
    """`destination` and `may` tell beforehand what `fire` does, and move nothing."""
    for facts in FACTS:
        machine = machine_in(state)
        may = machine.may(trigger, facts)
        try:
            foretold = machine.destination(trigger, facts)
        except IllegalTransitionError:
            assert not may
            with pytest.raises(IllegalTransitionError):
                machine.fire(trigger, facts)
            continue
        assert machine.status is state
        moved = machine.fire(trigger, facts)
        assert may is moved is (foretold is not None)
        assert machine.status is (foretold or state)


def test_machine_tells_of_fallback_entered_anew() -> None:
    """FALLBACK entered anew is an entry like any other."""
    entries: list[Entry] = []
    machine = machine_in(S.FALLBACK, entries)
    forced, released = Facts(forced=True), Facts()
    assert machine.fire(T.FORCE_FALLBACK, forced)
    assert machine.fire(T.RELEASE_FALLBACK, released)
    assert entries == [(S.FALLBACK, T.FORCE_FALLBACK, forced), (S.FALLBACK, T.RELEASE_FALLBACK, released)]


def test_machine_callback_sees_the_new_state() -> None:
    """When the callback runs, the machine is in the state that was entered."""
    seen: list[bool] = []
    machine = ConnectionMachine(on_enter=lambda state, *_: seen.append(machine.status is state))
    machine.fire(T.CONNECT)
    machine.fire(T.DISCONNECT)
    assert seen == [True, True]


def test_machine_without_a_callback_moves_as_well() -> None:
    """The callback is optional, and so are the facts."""
    machine = ConnectionMachine()
    assert machine.fire(T.CONNECT)
    assert machine.status is S.CONNECTING


def test_machine_passes_on_what_the_callback_raises() -> None:
    """An error of the callback reaches who fired: it is not swallowed."""

    def fail(*entry: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ConnectionMachine(on_enter=fail).fire(T.CONNECT)


@pytest.mark.parametrize("state", ConnectionStatus)
def test_machine_activities_are_the_rows_whose_guard_holds(state: ConnectionStatus) -> None:
    """What runs in a state is what the table says, in its order."""
    for facts in FACTS:
        expected = [
            row.activity
            for row in ACTIVITIES
            if row.state is state and (row.guard is None or GUARDS[row.guard](facts))
        ]
        running = machine_in(state).activities(facts)
        assert list(running) == expected
        assert bool(running) or not TRAITS[state].online


def test_machine_forced_fallback_does_not_probe() -> None:
    """Probing, which would end a forced fallback, runs only where it is not forced."""
    machine = machine_in(S.FALLBACK)
    assert Activity.PROBING in machine.activities(Facts())
    assert Activity.PROBING not in machine.activities(Facts(forced=True))


def test_machine_status_cannot_be_assigned() -> None:
    """Nobody moves the machine but `fire`."""
    with pytest.raises(AttributeError):
        ConnectionMachine().status = S.CONNECTED  # type: ignore[misc]


def test_machine_ends_one_entry_before_it_makes_the_next() -> None:
    """What the callback fires is queued: the entry that is being told of is told of to its end first."""
    log: list[tuple[str, ConnectionStatus]] = []

    def entered(status: ConnectionStatus, *_: object) -> None:
        log.append(("begins", status))
        if status is S.CONNECTING:
            machine.fire(T.ESTABLISHED)
        log.append(("ends", status))

    machine = ConnectionMachine(on_enter=entered)
    machine.fire(T.CONNECT)
    assert log == [
        ("begins", S.CONNECTING),
        ("ends", S.CONNECTING),
        ("begins", S.CONNECTED),
        ("ends", S.CONNECTED),
    ]
    assert machine.status is S.CONNECTED
