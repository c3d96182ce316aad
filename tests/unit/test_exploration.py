"""Looking through tables to their end: ours, and broken ones of others."""

from enum import Enum

import pytest
from transitions import Machine

from realtime_fsm import IGNORED, TRANSITIONS, ConnectionStatus, Trigger
from realtime_fsm.testing.exploration import Move, explore, moves_of

S = ConnectionStatus

DOOR = [
    ("open", "close", "closed"),
    ("closed", "open", "open"),
    ("closed", "lock", "locked", "has_key"),
    ("locked", "unlock", "closed"),
]


def test_explore_finds_nothing_wrong_with_the_shipped_table() -> None:
    """Every state and row of the shipped machine can be reached, and CONNECTED from everywhere."""
    found = explore(TRANSITIONS, initial=S.DISCONNECTED, ignored=IGNORED)
    assert found.is_sound, str(found)
    assert set(found.paths) == set(S)
    assert found.cannot_reach(S.CONNECTED) == ()
    assert found.cannot_reach(S.DISCONNECTED) == ()


def test_explore_gives_a_shortest_way_to_each_state() -> None:
    """The way to a state has as few steps as there can be, each from where the last one ended."""
    found = explore(TRANSITIONS, initial=S.DISCONNECTED)
    assert [move.trigger for move in found.paths[S.CONNECTED]] == [Trigger.CONNECT, Trigger.ESTABLISHED]
    assert len(found.paths[S.FALLBACK]) == 2
    for state, path in found.paths.items():
        places = [S.DISCONNECTED, *(move.dest for move in path)]
        assert [move.source for move in path] == places[:-1]
        assert places[-1] is state
    assert found.way_to(S.CONNECTED) == "disconnected --connect--> connecting --established--> connected"


def test_explore_knows_what_is_neither_a_row_nor_ignored() -> None:
    """Of the shipped table such pairs are exactly the illegal ones; ignoring a pair takes it off."""
    found = explore(TRANSITIONS, initial=S.DISCONNECTED, ignored=IGNORED)
    rows = {(row.source, row.trigger) for row in TRANSITIONS}
    assert set(found.missing) == {(s, t) for s in S for t in Trigger} - rows - set(IGNORED)
    assert ("open", "lock") in explore(DOOR).missing
    assert ("open", "lock") not in explore(DOOR, ignored=[("open", "lock")]).missing


def test_explore_finds_what_cannot_be_reached() -> None:
    """A state that nothing leads to is found, and the rows that begin there."""
    found = explore([*DOOR, ("ajar", "push", "open")])
    assert found.unreachable_states == ("ajar",)
    assert found.unreachable_moves == (Move("ajar", "push", "open"),)
    assert not found.is_sound
    assert "unreachable state: ajar" in str(found)
    assert explore([*DOOR, ("ajar", "push", "open")], initial="ajar").is_sound


def test_explore_finds_dead_ends_unless_they_are_final() -> None:
    """A state that is never left is found, also one that leads only to itself; a final one is none."""
    table = [*DOOR, ("closed", "break", "broken"), ("broken", "kick", "broken")]
    found = explore(table)
    assert found.dead_ends == ("broken",)
    assert "open --close--> closed --break--> broken" in str(found)
    assert found.cannot_reach("open") == ("broken",)
    assert explore(table, final=["broken"]).is_sound


def test_explore_finds_rows_that_are_never_taken() -> None:
    """A row behind one of the same pair without a guard is never taken; behind a guarded one it is."""
    table = [*DOOR, ("open", "close", "locked")]
    assert explore(table).shadowed_moves == (Move("open", "close", "locked"),)
    table = [*DOOR, ("closed", "lock", "jammed"), ("jammed", "open", "open")]
    assert explore(table).is_sound


def test_explore_does_not_go_where_only_a_row_that_is_never_taken_leads() -> None:
    """What is reached by shadowed rows alone is not reached."""
    found = explore([("a", "go", "b"), ("b", "go", "a"), ("a", "go", "c"), ("c", "go", "a")])
    assert found.unreachable_states == ("c",)


def test_explore_takes_a_machine_of_the_library() -> None:
    """A `transitions.Machine` is looked through as it is, its conditions as guards."""
    machine = Machine(
        states=["open", "closed", "locked", "lost"],
        transitions=[
            {"trigger": "close", "source": "open", "dest": "closed"},
            {"trigger": "open", "source": "closed", "dest": "open"},
            {"trigger": "lock", "source": "closed", "dest": "locked", "conditions": lambda: True},
            {"trigger": "lock", "source": "closed", "dest": None},
        ],
        initial="open",
        auto_transitions=False,
    )
    found = explore(machine)
    assert set(found.paths) == {"open", "closed", "locked"}
    assert found.dead_ends == ("locked",)


def test_explore_says_that_all_is_well_and_refuses_an_empty_table() -> None:
    """A sound table is told in one line; one without rows is an error."""
    assert str(explore(DOOR)) == "3 states can be reached from open; nothing is wrong"
    with pytest.raises(ValueError, match="no rows"):
        explore([])


def test_explore_takes_the_dictionaries_of_the_library() -> None:
    """Rows of dictionaries are spread over their sources; "*" is every state, "=" and none the same one."""
    rows = [
        {"trigger": "close", "source": ["open", "ajar"], "dest": "closed"},
        {"trigger": "open", "source": "closed", "dest": "open", "conditions": "has_key"},
        {"trigger": "knock", "source": "*", "dest": "="},
        {"trigger": "look", "source": "open", "dest": None, "unless": "is_dark"},
    ]
    assert moves_of(rows) == (
        Move("open", "close", "closed"),
        Move("ajar", "close", "closed"),
        Move("closed", "open", "open", is_guarded=True),
        *(Move(state, "knock", state) for state in ("open", "ajar", "closed")),
        Move("open", "look", "open", is_guarded=True),
    )
    assert explore(rows).unreachable_states == ("ajar",)


def test_explore_gives_states_as_the_machine_was_given_them() -> None:
    """The states of a machine over an enumeration are its members, and not their names."""

    class Light(Enum):
        RED = 1
        GREEN = 2

    machine = Machine(
        states=Light,
        transitions=[["go", Light.RED, Light.GREEN], ["stop", Light.GREEN, Light.RED]],
        initial=Light.RED,
        auto_transitions=False,
    )
    assert explore(machine).paths.keys() == {Light.RED, Light.GREEN}
    assert explore(machine).initial is Light.RED
