"""Rules over any table: ours, and those of users, whole and broken."""

from collections.abc import Callable
from enum import Enum, auto
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from transitions import Machine

from realtime_fsm import IGNORED, TRANSITIONS, ConnectionStatus
from realtime_fsm.testing import MachineRules

QUIET = settings(
    database=None, derandomize=True, print_blob=False, suppress_health_check=list(HealthCheck), deadline=None
)


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
