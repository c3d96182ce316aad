"""How one client takes the place of another: messages held and handed over, events in their order."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from realtime_fsm.engine.dispatcher import Dispatcher
from realtime_fsm.engine.message import Receipt
from realtime_fsm.engine.statistics import Statistics
from realtime_fsm.engine.subscriptions import Position
from realtime_fsm.machine.delivery import Outcome
from realtime_fsm.machine.errors import OutboxFullError, OutboxStorageError
from realtime_fsm.rollout.client import (
    Letter,
    Positions,
    Running,
    Signal,
    SignalKind,
    Sink,
    Wanted,
    post_to,
)
from realtime_fsm.rollout.stage import Handover, RolloutOutflow


class FakeClient:
    """A client that notes what it is asked, in a log that it may share with another."""

    implementation = "fake"
    gave_up = None

    def __init__(self, name: str, log: list[str], *, accepts_identity: bool = True) -> None:
        self.name, self.log, self.accepts_identity = name, log, accepts_identity
        self.is_connected = True
        self.sink: Sink | None = None
        self.left: list[Letter] = []
        self.sent: list[str] = []
        self.failure: Exception | None = None
        self.is_stuck = False
        self.at_cut: Callable[[], None] = lambda: None

    async def connect(self) -> None:
        """Note it."""
        self.log.append(f"{self.name} connect")

    def watch(self, _: Callable[[Signal], object]) -> Callable[[], None]:
        """Tell nothing."""
        return lambda: None

    def listen(self, sink: Sink | None) -> None:
        """Keep the sink."""
        self.sink = sink

    async def subscribe(self, wanted: Wanted, positions: Positions) -> None:
        """Note it."""
        self.log.append(f"{self.name} subscribe {sorted(positions)}")

    async def post(self, letter: Letter) -> None:
        """Take a message, or fail, or never come back."""
        if self.failure is not None:
            raise self.failure
        self.sent.append(letter.event)
        if self.is_stuck:
            self.left.append(letter)
            await asyncio.Event().wait()

    async def drain(self) -> None:
        """Note it, and never come back where it is stuck."""
        self.log.append(f"{self.name} drain")
        if self.is_stuck:
            await asyncio.Event().wait()

    async def cut(self) -> Positions:
        """Give the last event after a turn of the loop."""
        self.log.append(f"{self.name} cut")
        sink, self.sink = self.sink, None
        await asyncio.sleep(0)
        self.at_cut()
        if sink is not None:
            sink("tick", [self.name])  # what had arrived before the cut
        return {"ticks": Position(epoch="e", offset=3)}

    async def release(self) -> list[Letter]:
        """Return what was taken and not sent."""
        self.log.append(f"{self.name} release")
        return self.left


def letter(event: str, *, was_sent: bool = False, identity: dict[str, Any] | None = None) -> Letter:
    """Return a message."""
    return Letter(event, (), Receipt(event), identity, was_sent)


async def turns(count: int = 20) -> None:
    """Let the loop turn."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_left_messages_go_first_and_unsafe_ones_not_at_all() -> None:
    """What was left is sent before what waits; what may have arrived and cannot be told apart is lost."""
    for accepts, events in ((True, ["b", "c", "d"]), (False, ["b", "d"])):
        outflow = RolloutOutflow(limit=10)
        outflow.start()
        outflow.accept(letter("d"))
        unsafe = letter("a", was_sent=True)
        known = letter("c", was_sent=True, identity={"message_id": "1"})
        client = FakeClient("new", [], accepts_identity=accepts)
        outflow.resume(client, [unsafe, letter("b"), known])
        await turns()
        assert client.sent == events
        assert unsafe.receipt.outcome is Outcome.LOST
        assert known.receipt.outcome is (Outcome.PENDING if accepts else Outcome.LOST)
        await outflow.close()


async def test_outflow_is_bounded_and_settled_messages_make_room() -> None:
    """Beyond the bound a message is refused; it counts for as long as it has not come to its end."""
    outflow = RolloutOutflow(limit=2)
    first, second = letter("a"), letter("b", was_sent=True)
    outflow.accept(first)
    outflow.accept(second)
    with pytest.raises(OutboxFullError):
        outflow.accept(letter("c"))
    first.receipt.settle(Outcome.SENT)
    outflow.accept(letter("c"))
    await outflow.close()
    assert second.receipt.outcome is Outcome.LOST


async def test_message_that_a_client_refuses_is_dropped_and_says_why() -> None:
    """A message that cannot be kept does not stop the ones behind it."""
    outflow = RolloutOutflow(limit=10)
    outflow.start()
    client = FakeClient("new", [])
    client.failure = OutboxStorageError("The disk is full.")
    refused = letter("a")
    outflow.accept(refused)
    outflow.resume(client, [])
    await turns()
    client.failure = None
    outflow.accept(letter("b"))
    await outflow.handed_on()
    assert (refused.receipt.outcome, client.sent) == (Outcome.DROPPED, ["b"])
    await outflow.close()


async def test_stuck_client_does_not_hold_a_switch_up() -> None:
    """A client that does not take a message, or does not drain, is left after the bound; nothing is lost."""
    log: list[str] = []
    outflow, dispatcher = RolloutOutflow(limit=10), make_dispatcher()
    outflow.start()
    old, new = FakeClient("old", log), FakeClient("new", log)
    old.is_stuck = True
    outflow.accept(letter("a"))
    outflow.accept(letter("b"))
    outflow.resume(old, [])
    await turns()
    handover = Handover(outflow=outflow, dispatcher=dispatcher, numbered=True, drain_timeout=2.0)
    before = asyncio.get_running_loop().time()
    await handover.move(running(old), running(new), {}, post_to(dispatcher))
    assert asyncio.get_running_loop().time() - before == pytest.approx(4.0)
    await turns()
    assert (old.sent, new.sent) == (["a"], ["a", "b"])
    await outflow.close()
    await dispatcher.close()


@pytest.mark.parametrize("numbered", [True, False])
async def test_old_client_is_cut_and_closed_before_the_new_one_is_heard(numbered: bool) -> None:
    """Drain, cut, release, then the other one: from the place of the cut where there are positions."""
    log: list[str] = []
    heard: list[str] = []
    outflow, dispatcher = RolloutOutflow(limit=10), make_dispatcher()
    dispatcher.on("tick", heard.append)
    dispatcher.start()
    old, new = FakeClient("old", log), FakeClient("new", log)
    sink = post_to(dispatcher)
    answers: list[asyncio.Future[Any]] = []
    if not numbered:
        old.at_cut = lambda: answers.append(new.sink("tick", ["new"]))  # type: ignore[misc]
    old.listen(sink)
    wanted = {"ticks": None}
    handover = Handover(outflow=outflow, dispatcher=dispatcher, numbered=numbered, drain_timeout=2.0)
    coming = running(new)
    positions = await handover.move(running(old), coming, wanted, sink)
    if numbered:
        await handover.subscribe(coming, wanted, positions)
    await turns()
    early, late = ([], ["new subscribe ['ticks']"]) if numbered else (["new subscribe []"], [])
    assert log == [*early, "old drain", "old cut", "old release", *late]
    assert heard == (["old"] if numbered else ["old", "new"])
    assert all(answer.done() for answer in answers)
    assert (old.sink, new.sink) == (None, sink)
    await dispatcher.close()


async def test_client_that_is_brought_up_is_waited_for_and_bounded() -> None:
    """It is waited for until it is live, or until the bound; where it fails by a bug, that is raised."""
    client = FakeClient("new", [])
    client.is_connected = False
    one = running(client)
    assert await one.bring_up(1.0) is None
    assert asyncio.get_running_loop().time() >= 1.0
    one._signal(Signal(kind=SignalKind.LIVE))
    assert one.lost_at is None
    one._signal(Signal(kind=SignalKind.LOST))
    assert one.lost_at is not None

    async def fail() -> None:
        raise ZeroDivisionError

    client.connect = fail  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        await one.bring_up(1.0, until_live=False)
    await one.release()


def make_dispatcher() -> Dispatcher:
    """Return a dispatcher."""
    return Dispatcher(statistics=Statistics(), limit=10, on_error=lambda *_: None)


def running(client: FakeClient) -> Running:
    """Return a client that runs."""
    return Running(client, None, lambda _: None)  # type: ignore[arg-type]
