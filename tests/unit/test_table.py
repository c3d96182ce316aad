import itertools

import attrs
import pytest

from realtime_fsm.machine.table import (
    ACTIVITIES,
    IGNORED,
    TRAITS,
    TRANSITIONS,
    Activity,
    ConnectionStatus,
    Guard,
    Row,
    Severity,
    Traits,
    Trigger,
    legal_triggers,
    rows_of,
)

PAIRS = list(itertools.product(ConnectionStatus, Trigger))


def test_table_states_are_the_six_of_the_specification() -> None:
    """The states are exactly the six asked for, under exactly those names."""
    assert [status.value for status in ConnectionStatus] == [
        "disconnected",
        "connecting",
        "connected",
        "reconnecting",
        "failed",
        "fallback",
    ]


@pytest.mark.parametrize(("state", "trigger"), PAIRS)
def test_table_pair_never_has_rows_and_is_ignored_too(state: ConnectionStatus, trigger: Trigger) -> None:
    """A pair has rows, or is ignored, or is illegal: never two of these."""
    assert not (rows_of(state, trigger) and (state, trigger) in IGNORED)


@pytest.mark.parametrize(("state", "trigger"), PAIRS)
def test_table_rows_of_a_pair_are_ordered_and_total(state: ConnectionStatus, trigger: Trigger) -> None:
    """Every row but the last is guarded, no guard repeats, and only `fall_back` may find no row at all."""
    guards = [row.guard for row in rows_of(state, trigger)]
    assert len(set(guards)) == len(guards)
    assert None not in guards[:-1]
    if guards and trigger is not Trigger.FALL_BACK:
        assert guards[-1] is None


def test_table_has_no_row_twice() -> None:
    """No row is written twice, and none is shadowed by an unguarded one before it."""
    keys = [(row.source, row.trigger, row.guard) for row in TRANSITIONS]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("pair", IGNORED)
def test_table_ignored_pair_says_why(pair: tuple[ConnectionStatus, Trigger]) -> None:
    """An ignored pair has a reason that is a whole sentence."""
    assert len(IGNORED[pair].split()) > 3
    assert IGNORED[pair].endswith(".")


def test_table_every_state_is_reachable_from_every_state() -> None:
    """No state is a trap, and none is out of reach."""
    for start in ConnectionStatus:
        reached, frontier = {start}, [start]
        while frontier:
            state = frontier.pop()
            new = {row.dest for row in TRANSITIONS if row.source is state} - reached
            reached |= new
            frontier += new
        assert reached == set(ConnectionStatus), start


@pytest.mark.parametrize("state", [s for s in ConnectionStatus if s is not ConnectionStatus.DISCONNECTED])
def test_table_disconnect_ends_every_state(state: ConnectionStatus) -> None:
    """`disconnect` leads from everywhere to DISCONNECTED, whatever the guards say."""
    assert rows_of(state, Trigger.DISCONNECT) == (
        Row(state, Trigger.DISCONNECT, ConnectionStatus.DISCONNECTED),
    )


def test_table_every_online_state_has_an_unguarded_activity() -> None:
    """Where something is being done about the connection, something runs, whatever the guards say."""
    busy = {row.state for row in ACTIVITIES if row.guard is None}
    for state, traits in TRAITS.items():
        if traits.online:
            assert state in busy, state


def test_table_every_activity_trigger_and_guard_is_used() -> None:
    """There is no activity, trigger or guard that stands in no row."""
    assert {row.activity for row in ACTIVITIES} == set(Activity)
    assert {row.trigger for row in TRANSITIONS} == set(Trigger)
    assert {row.guard for row in TRANSITIONS} | {row.guard for row in ACTIVITIES} == {None, *Guard}


def test_table_no_activity_runs_twice_in_a_state() -> None:
    """A state has an activity once at most."""
    keys = [(row.state, row.activity) for row in ACTIVITIES]
    assert len(set(keys)) == len(keys)


def test_table_traits_cover_every_state_and_say_what_it_means() -> None:
    """Every state has traits, and a meaning that people can read."""
    assert set(TRAITS) == set(ConnectionStatus)
    assert all(traits.meaning.endswith(".") for traits in TRAITS.values())
    assert len({traits.meaning for traits in TRAITS.values()}) == len(TRAITS)


def test_table_only_connected_sends_and_only_it_and_fallback_carry_data() -> None:
    """Messages leave in CONNECTED alone; events arrive there and in FALLBACK."""
    assert [state for state, traits in TRAITS.items() if traits.sends] == [ConnectionStatus.CONNECTED]
    assert {state for state, traits in TRAITS.items() if traits.carries_data} == {
        ConnectionStatus.CONNECTED,
        ConnectionStatus.FALLBACK,
    }


@pytest.mark.parametrize("state", ConnectionStatus)
def test_table_crash_trigger_is_legal_and_leaves_the_state(state: ConnectionStatus) -> None:
    """What a crash becomes is legal in its state, always finds a row, and leads out of the state."""
    crash = TRAITS[state].on_crash
    if crash is None:
        assert not TRAITS[state].online
    else:
        rows = rows_of(state, crash)
        assert rows[-1].guard is None
        assert all(row.dest is not state for row in rows)


def test_table_severity_rises_from_live_to_failed() -> None:
    """A live connection is no news, a trouble is a warning, giving up is an error."""
    assert TRAITS[ConnectionStatus.CONNECTED].severity is Severity.INFO
    assert TRAITS[ConnectionStatus.RECONNECTING].severity is Severity.WARNING
    assert TRAITS[ConnectionStatus.FALLBACK].severity is Severity.WARNING
    assert TRAITS[ConnectionStatus.FAILED].severity is Severity.ERROR


@pytest.mark.parametrize("state", ConnectionStatus)
def test_table_legal_triggers_are_those_with_a_row_each_once(state: ConnectionStatus) -> None:
    """`legal_triggers` names each trigger that has a row, once, and no other."""
    legal = legal_triggers(state)
    assert len(set(legal)) == len(legal)
    assert set(legal) == {trigger for trigger in Trigger if rows_of(state, trigger)}


def test_table_traits_are_exactly_these() -> None:
    """What each state means for the rest of the engine."""
    names = [trait.name for trait in attrs.fields(Traits) if trait.type is bool]
    traits = {
        state.value: {name for name in names if getattr(TRAITS[state], name)} for state in ConnectionStatus
    }
    assert traits == {
        "disconnected": {"settles"},
        "connecting": {"wanted", "online"},
        "connected": {"sends", "carries_data", "wanted", "online", "settles"},
        "reconnecting": {"wanted", "online", "settles", "waits", "wakes"},
        "failed": {"wanted", "gives_up", "settles", "wakes"},
        "fallback": {"publishes", "carries_data", "wanted", "online", "settles", "wakes"},
    }


def test_table_rows_and_traits_cannot_change() -> None:
    """The tables are the whole truth, so nobody can edit them; traits are given by their names."""
    for record in (*TRANSITIONS, *ACTIVITIES, *TRAITS.values()):
        name = attrs.fields(type(record))[0].name
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(record, name, None)
    with pytest.raises(TypeError):
        Traits(True, meaning="Sends.")  # type: ignore[misc]
    for table in (IGNORED, TRAITS):
        with pytest.raises(TypeError):
            table["new"] = "row"  # type: ignore[index]
