"""Rules over any table: ours, and those of users, whole and broken."""

import subprocess
import sys
from collections.abc import Callable
from enum import Enum, auto
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, find, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, run_state_machine_as_test
from transitions import Machine

from realtime_fsm import IGNORED, TRANSITIONS, ConnectionStatus, Trigger
from realtime_fsm.machine.guard import Facts
from realtime_fsm.testing import MachineRules

QUIET = settings(
    database=None,
    derandomize=True,
    print_blob=False,
    suppress_health_check=list(HealthCheck),
    deadline=None,
    phases=[Phase.generate, Phase.shrink],  # which parts could be otherwise is explained to nobody
)

SOUND = settings(QUIET, max_examples=20, stateful_step_count=20)  # a door has few pairs: all are played


# Ten lines: the shipped table, and a state of the user's own.
class PauseRules(MachineRules):
    """What a user writes who adds a state to the shipped table."""

    table = (
        *TRANSITIONS,
        ("connected", "pause", "paused"),
        ("paused", "resume", "connected"),
        ("paused", "disconnect", "disconnected"),
    )
    ignored = IGNORED
    goals = ("connected",)


TestPause = PauseRules.TestCase
TestPause.settings = settings(max_examples=30, stateful_step_count=15)


class ShippedRules(MachineRules):
    """The shipped machine under the shipped table."""

    table = TRANSITIONS
    ignored = IGNORED
    states = ConnectionStatus
    goals = (ConnectionStatus.CONNECTED,)


TestShipped = ShippedRules.TestCase
TestShipped.settings = settings(max_examples=30, stateful_step_count=15)


class Door(Enum):
    """The states of a user's own machine."""

    OPEN = auto()
    CLOSED = auto()
    LOCKED = auto()


DOOR: list[dict[str, Any]] = [
    {"trigger": "close", "source": Door.OPEN, "dest": Door.CLOSED},
    {"trigger": "open", "source": Door.CLOSED, "dest": Door.OPEN},
    {"trigger": "lock", "source": Door.CLOSED, "dest": Door.LOCKED},
    {"trigger": "unlock", "source": Door.LOCKED, "dest": Door.CLOSED},
    {"trigger": "knock", "source": "*", "dest": "="},
]


def door(rows: list[dict[str, Any]] | None = None, **options: Any) -> Machine:
    """Return a machine of the library over an enumeration of the user's."""
    return Machine(
        states=Door, transitions=rows or DOOR, initial=Door.OPEN, auto_transitions=False, **options
    )


class DoorRules(MachineRules):
    """A machine of the library, played against its rows."""

    table = DOOR
    initial = Door.OPEN
    states = Door

    def make_machine(self) -> Any:
        """Return a new one."""
        return door()


TestDoor = DoorRules.TestCase
TestDoor.settings = settings(max_examples=30, stateful_step_count=15)


def rules(**attributes: Any) -> type[MachineRules]:
    """Return rules with other attributes than those of the door."""
    return type("BrokenRules", (DoorRules,), attributes)


def making(make: Callable[[], Any]) -> dict[str, Any]:
    """Return the attribute that makes the rules play against another machine."""
    return {"make_machine": lambda _: make()}


def failure(broken: type[MachineRules]) -> tuple[str, list[str]]:
    """Play, and return what is said of the failure, and the steps that are left of it."""
    with pytest.raises(AssertionError) as failed:
        run_state_machine_as_test(broken, settings=QUIET)  # type: ignore[no-untyped-call]
    notes = "\n".join(getattr(failed.value, "__notes__", ()))
    steps = [line for line in notes.splitlines() if line.startswith("state.fire")]
    return str(failed.value), steps


def test_machine_rules_find_a_row_that_leads_to_a_wrong_state() -> None:
    """A machine that goes elsewhere than its table says is caught at that step, by the shortest way."""
    wrong = [*DOOR[:2], {**DOOR[2], "dest": Door.OPEN}, *DOOR[3:]]
    message, steps = failure(rules(**making(lambda: door(wrong))))
    assert "wrong move: Door.CLOSED --lock--> Door.OPEN, and the table says Door.LOCKED" in message
    assert [step.partition("trigger=")[2] for step in steps] == ["'close')", "'lock')"]


def test_machine_rules_find_an_illegal_move() -> None:
    """A machine that moves by a pair that its table does not have is caught."""
    extra = [*DOOR, {"trigger": "unlock", "source": Door.CLOSED, "dest": Door.OPEN}]
    message, steps = failure(rules(**making(lambda: door(extra))))
    assert "illegal move: Door.CLOSED --unlock--> Door.OPEN is not in the table" in message
    assert len(steps) == 2


def test_machine_rules_find_a_move_that_a_callback_makes_on_the_sly() -> None:
    """A callback that moves the machine on is a move that the table does not have."""

    class Slamming:
        """A machine that locks itself when it is closed for the second time."""

        def __init__(self) -> None:
            self.door = door()
            self.closed = 0

        @property
        def state(self) -> Any:
            """Where it is."""
            return self.door.state

        def fire(self, trigger: str, _: Any) -> None:
            """Fire."""
            self.door.events[trigger].trigger(self.door)
            self.closed += trigger == "close"
            if self.closed == 2:
                self.door.set_state(Door.LOCKED)

    message, steps = failure(rules(**making(Slamming)))
    assert message.startswith("wrong move: Door.OPEN --close--> Door.LOCKED, and the table says Door.CLOSED")
    assert [step.partition("trigger=")[2] for step in steps] == ["'close')", "'open')", "'close')"]


def test_machine_rules_find_what_is_refused_though_it_is_in_the_table() -> None:
    """A machine that lacks a row of its table is caught, with the refusal as the cause."""
    message, steps = failure(rules(**making(lambda: door(DOOR[:2] + DOOR[3:]))))
    assert message.startswith("Door.CLOSED --lock--> was refused, and is in the table")
    assert len(steps) == 2
    message, steps = failure(rules(**making(lambda: door(DOOR[:-1]))))
    assert message.startswith("Door.OPEN --knock--> was refused, and is in the table")
    assert len(steps) == 1


def test_machine_rules_find_an_illegal_trigger_that_is_swallowed() -> None:
    """An illegal trigger must be refused aloud, unless it is said that it does nothing in silence."""
    silent = making(lambda: door(ignore_invalid_triggers=True))
    message, steps = failure(rules(**silent))
    assert message.startswith("not refused: Door.OPEN --open--> is not in the table, and raised nothing")
    assert len(steps) == 1
    run_state_machine_as_test(rules(**silent, refusals=()), settings=SOUND)  # type: ignore[no-untyped-call]


def test_machine_rules_find_a_machine_that_begins_elsewhere() -> None:
    """Machine and table must begin in the same state."""
    message, steps = failure(rules(initial=Door.CLOSED))
    assert message.startswith("the machine begins in Door.OPEN, and the table in Door.CLOSED")
    assert steps == []


def test_machine_rules_find_a_state_that_the_table_does_not_know() -> None:
    """A machine that drifts, between two steps, to where its table never goes is caught by the invariant."""
    drifting = rules()()
    drifting.machine.set_state(Door.LOCKED)
    drifting.state_is_in_the_table()
    drifting.machine.add_state("broken")
    drifting.machine.set_state("broken")
    with pytest.raises(AssertionError, match="illegal state: 'broken' is not in the table"):
        drifting.state_is_in_the_table()


TABLES: list[tuple[dict[str, Any], str]] = [
    ({"table": [*DOOR, ("ajar", "push", Door.OPEN)]}, "unreachable state: ajar"),
    ({"table": [*DOOR, ("ajar", "push", Door.OPEN)]}, "unreachable row: ajar --push--> Door.OPEN"),
    ({"states": [*Door, "ajar"]}, "unreachable state: ajar, which is in no row"),
    (
        {"table": [*DOOR, (Door.CLOSED, "break", "broken")]},
        "dead end: broken, reached by Door.OPEN --close--> Door.CLOSED --break--> broken",
    ),
    (
        {"table": [*DOOR, (Door.OPEN, "close", Door.LOCKED)]},
        "row that is never taken: Door.OPEN --close--> Door.LOCKED",
    ),
    (
        {"ignored": {(Door.OPEN, "close"): "why"}},
        "contradiction: Door.OPEN --close--> is a row, and is ignored",
    ),
    (
        {"table": [*DOOR, (Door.OPEN, "sell", 1), (1, "sell", 2), (2, "sell", 1)], "goals": [Door.OPEN]},
        "no way to Door.OPEN from 1, reached by Door.OPEN --sell--> 1",
    ),
    ({"is_complete": True}, "neither a row nor ignored: Door.LOCKED --open-->"),
]


@pytest.mark.parametrize(("attributes", "finding"), TABLES, ids=[finding for _, finding in TABLES])
def test_machine_rules_find_what_is_wrong_with_a_table(attributes: dict[str, Any], finding: str) -> None:
    """Each defect of a table is told in words, by `check_table` and by the test case, before any step."""
    broken = rules(**attributes)
    with pytest.raises(AssertionError) as failed:
        broken.check_table()
    lines = str(failed.value).splitlines()
    assert lines[0] == "the table of BrokenRules is wrong:"
    assert finding in lines
    message, steps = failure(broken)
    assert finding in message
    assert steps == []


def test_machine_rules_find_nothing_where_the_defect_is_allowed() -> None:
    """A dead end may be allowed, and counts for no goal; what is ignored completes a table."""
    table = [*DOOR, {"trigger": "break", "source": Door.CLOSED, "dest": "broken"}]
    ended = rules(table=table, allowed_dead_ends={"broken"}, goals=[Door.OPEN], states=[*Door, "broken"])
    assert ended.check_table().paths.keys() == {*Door, "broken"}
    missing = rules(ignored=DoorRules.check_table().missing, is_complete=True)
    assert missing.check_table().is_sound


def test_machine_rules_read_the_table_of_a_machine() -> None:
    """A machine of the library is a table too; then it must be said how a new one is made."""
    assert rules(table=door()).check_table().paths.keys() == set(Door)
    run_state_machine_as_test(rules(table=door()), settings=SOUND)  # type: ignore[no-untyped-call]
    with pytest.raises(TypeError, match=r"OfMachine\.make_machine must return a new machine"):
        type("OfMachine", (MachineRules,), {"table": door()})()
    lonely = Machine(
        states=["a", "b", "c"],
        transitions=[["t", "a", "b"], ["t", "b", "a"]],
        initial="a",
        auto_transitions=False,
    )
    with pytest.raises(AssertionError, match="unreachable state: c, which is in no row"):
        type("Lonely", (MachineRules,), {"table": lonely}).check_table()


def test_machine_rules_need_a_table() -> None:
    """Without a table there is nothing to test."""
    with pytest.raises(TypeError, match=r"MachineRules\.table must say which table"):
        MachineRules.check_table()


def test_machine_rules_build_a_machine_from_rows_of_the_library() -> None:
    """Without a machine, the dictionaries of the library are run by the library itself."""
    built = type("Built", (MachineRules,), {"table": DOOR, "initial": Door.OPEN})
    assert isinstance(built().machine, Machine)
    run_state_machine_as_test(built, settings=SOUND)  # type: ignore[no-untyped-call]


SAFE = [("shut", "dial", "open", "is_right"), ("shut", "dial", "shut"), ("open", "slam", "shut", bool)]


def test_machine_rules_ask_the_guards() -> None:
    """Guards are functions, or names of functions; a machine that does not heed them is caught."""

    class SafeRules(MachineRules):
        table = SAFE
        ignored = (("open", "dial"), ("shut", "slam"))
        guards = {"is_right": lambda number: number == 7}  # noqa: RUF012
        facts = st.integers(0, 9)

    run_state_machine_as_test(SafeRules, settings=SOUND)  # type: ignore[no-untyped-call]
    safe = SafeRules()
    assert safe.allowed("dial", 7) == ["open"]
    assert safe.allowed("dial", 6) == ["shut"]
    safe.check_fire("dial", 7)
    assert safe.state == "open"
    assert safe.allowed("slam", 0) == ["open"]
    assert safe.allowed("slam", 1) == ["shut"]
    assert safe.legal == ["slam"]

    class CrackedRules(SafeRules):
        def make_machine(self) -> Any:
            return Cracked(super().make_machine())

    message, steps = failure(CrackedRules)
    assert message.startswith("wrong move: shut --dial--> open, and the table says shut")
    assert steps == ["state.fire_guarded(facts=0, trigger='dial')"]


class Cracked:
    """A safe that opens whatever is dialled."""

    def __init__(self, safe: Any) -> None:
        self.safe = safe

    @property
    def state(self) -> Any:
        """Where it is."""
        return self.safe.state

    def fire(self, trigger: str, _: int) -> object:
        """Take any number for the right one."""
        return self.safe.fire(trigger, 7)


def test_machine_rules_allow_both_where_a_guard_cannot_be_asked() -> None:
    """A guard that is only a name may decide either way; what runs the table itself has to know it."""
    unknown = type("Unknown", (MachineRules,), {"table": [*SAFE[:2], ("open", "slam", "shut", "luck")]})()
    assert unknown.allowed("dial", None) == ["open", "shut"]
    unknown.machine.state = "open"
    assert unknown.allowed("slam", None) == ["shut", "open"]
    with pytest.raises(LookupError, match="does not say what the guard 'luck' of open --slam--> shut"):
        unknown.machine.fire("slam", None)


def test_machine_rules_draw_our_facts_for_our_guards() -> None:
    """The guards of the shipped table are asked with facts of every kind; others get none unasked."""
    assert isinstance(find(ShippedRules().drawn_facts(), lambda _: True), Facts)
    assert isinstance(find(PauseRules().drawn_facts(), lambda facts: facts.forced), Facts)
    assert find(DoorRules().drawn_facts(), lambda _: True) is None


def test_machine_rules_ask_invariants_of_the_user() -> None:
    """An `@invariant` of the user's is asked after every step, and its failure is shrunk."""

    class Strict(ShippedRules):
        @invariant()
        def never_connects(self) -> None:
            """The user's law."""
            assert self.state is not ConnectionStatus.CONNECTED, "it connected"

    message, steps = failure(Strict)
    assert "it connected" in message
    assert steps == [f"state.fire(trigger={one!r})" for one in (Trigger.CONNECT, Trigger.ESTABLISHED)]


def test_machine_rules_are_run_by_pytest(tmp_path: Path) -> None:
    """In a user's suite the test case fails with the step that is wrong, and with the shortest way there."""
    (tmp_path / "test_users.py").write_text(USERS_SUITE)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_users.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert "dead end: paused, reached by disconnected --connect--> connecting" in done.stdout


USERS_SUITE = """
from hypothesis import settings
from realtime_fsm import IGNORED, TRANSITIONS
from realtime_fsm.testing import MachineRules

class Sound(MachineRules):
    table = TRANSITIONS
    ignored = IGNORED

class Stuck(MachineRules):
    table = (*TRANSITIONS, ("connected", "pause", "paused"))
    ignored = IGNORED

TestSound = Sound.TestCase
TestSound.settings = settings(max_examples=20, stateful_step_count=15)
TestStuck = Stuck.TestCase
"""
