"""``ConnectionRules``: the engine as a state machine of Hypothesis, for users to subclass."""

import asyncio
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import invariant, rule, run_state_machine_as_test

from realtime_fsm import ConnectionStatus
from realtime_fsm.engine.sender import Sender
from realtime_fsm.testing.fuzz.schedule import Action, Setting
from realtime_fsm.testing.machine_rules import ConnectionRules

FEW = settings(max_examples=30, stateful_step_count=15, deadline=None)

NO_SHRINK = settings(FEW, phases=[Phase.generate])


class ReferenceRules(ConnectionRules):
    """The reference dialect."""


class PlainRules(ConnectionRules):
    """A plain server."""

    setting = Setting.PLAIN


class NodeRules(ConnectionRules):
    """A server with sessions."""

    setting = Setting.NODE


TestReference = ReferenceRules.TestCase
TestPlain = PlainRules.TestCase
TestNode = NodeRules.TestCase
for case in (TestReference, TestPlain, TestNode):
    case.settings = FEW


class OwnRules(ConnectionRules):
    """Rules of a user's own."""

    actions = (Action.CONNECT, Action.PUBLISH, Action.RESET_PEER)
    used: int = 0

    def begin(self) -> None:
        """Listen too."""
        self.heard: list[int] = []
        self.client.on("tick", lambda number, *_: self.heard.append(number))

    @rule()
    def ask(self) -> None:
        """Do something of one's own."""
        type(self).used += 1
        self.run(self.client.emit("ask", 1))
        self.run(asyncio.sleep(1))

    @invariant()
    def hears_in_order(self) -> None:
        """Hold something of one's own."""
        assert self.heard == sorted(set(self.heard))


def test_rules_of_a_subclass_are_used() -> None:
    """Rules and invariants of a subclass run with those of the kit, on its own choice of steps."""
    OwnRules.used = 0
    run_state_machine_as_test(OwnRules, settings=FEW)
    assert OwnRules.used > 0


def test_rules_find_a_broken_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that forgets what it has in flight is found out."""

    def forget(sender: Sender, *, broken: bool) -> None:
        sender._link = None
        sender._in_flight.clear()

    class Emitting(ConnectionRules):
        actions = (Action.CONNECT, Action.EMIT, Action.LOSE_ACK, Action.RESET_PEER)

    monkeypatch.setattr(Sender, "detach", forget)
    with pytest.raises(BaseException, match=r".") as found:
        run_state_machine_as_test(Emitting, settings=settings(NO_SHRINK, max_examples=300))
    assert found.type is not AttributeError


def test_rules_find_a_broken_invariant() -> None:
    """An invariant of the user's that does not hold is reported as it is."""

    class Wrong(ConnectionRules):
        actions = (Action.CONNECT,)

        @invariant()
        def is_never_connected(self) -> None:
            assert self.client.status is not ConnectionStatus.CONNECTED

    def test(case: Any = Wrong) -> None:
        run_state_machine_as_test(case, settings=NO_SHRINK)

    with pytest.raises(AssertionError):
        test()
