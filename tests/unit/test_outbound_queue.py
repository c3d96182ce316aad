"""The outbound queue: first in, first out, bounded, and what has expired leaves it."""

import asyncio
import time

from realtime_fsm.engine.flight_recorder import FlightRecorder
from realtime_fsm.engine.message import Message, Receipt
from realtime_fsm.engine.outbound_queue import OutboundQueue
from realtime_fsm.engine.outbox import MemoryOutbox
from realtime_fsm.engine.payload import Payload
from realtime_fsm.engine.port import WallClock
from realtime_fsm.engine.recovery import ErrorRecoveryStrategy
from realtime_fsm.engine.statistics import Statistics
from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.machine.delivery import Delivery, Outcome
from realtime_fsm.testing.virtual_loop import wall_clock


def message(size_bytes: int = 10, *, expires_at: float | None = None) -> Message:
    """Return a message of a size, which may expire."""
    return Message(
        event="n",
        payload=Payload("x" * size_bytes),
        delivery=Delivery.AT_LEAST_ONCE,
        receipt=Receipt("n", "c-1"),
        wants_ack=True,
        expires_at=expires_at,
    )


def queue(*, max_messages: int = 3, max_bytes: int = 100, wall: WallClock = time.time) -> OutboundQueue:
    """Return a small queue."""
    recorder, statistics = FlightRecorder(wall, ()), Statistics()
    return OutboundQueue(
        config=RealtimeConfig(
            outbox_max_messages=max_messages, outbox_max_bytes=max_bytes, max_message_bytes=max_bytes
        ),
        outbox=MemoryOutbox(),
        statistics=statistics,
        recovery=ErrorRecoveryStrategy(
            statistics, recorder, force_fallback=lambda: False, release_fallback=lambda: False
        ),
        wall=wall,
    )


def test_queue_hands_out_in_the_order_of_putting() -> None:
    """What was put first is taken first, and peeking takes nothing."""
    line, messages = queue(), [message() for _ in range(3)]
    for one in messages:
        line.put(one)
    assert line.peek() is messages[0]
    assert list(line.waiting) == messages
    assert [line.take() for _ in range(3)] == messages
    assert line.peek() is None
    assert not line.waiting


def test_queue_keeps_a_taken_message_on_the_books() -> None:
    """A taken message counts against the bounds until it is struck off: it may have to come back."""
    line = queue(max_messages=1)
    line.put(message())
    taken = line.take()
    assert (len(line), line.size_bytes, len(line.waiting)) == (1, 10, 0)
    assert line.lacks_room(message()) is not None
    line.strike(taken)
    assert (len(line), line.size_bytes) == (0, 0)
    assert line.lacks_room(message()) is None


def test_queue_has_room_for_as_many_messages_as_it_may_and_no_more() -> None:
    """The bound on the count is exact, and named."""
    line = queue(max_messages=2)
    line.put(message())
    assert line.lacks_room(message()) is None
    line.put(message())
    assert "outbox_max_messages" in (line.lacks_room(message()) or "")


def test_queue_has_room_for_as_many_bytes_as_it_may_and_no_more() -> None:
    """The bound on the bytes is exact, and named."""
    line = queue(max_bytes=25)
    line.put(message(10))
    assert line.lacks_room(message(15)) is None
    assert "outbox_max_bytes=25" in (line.lacks_room(message(16)) or "")


def test_queue_could_fit_what_only_waiting_messages_keep_out() -> None:
    """A message could fit unless what was taken, and cannot be dropped, leaves it no room."""
    line = queue(max_messages=2, max_bytes=100)
    line.put(message(60))
    line.put(message(10))
    assert line.could_fit(message(100))
    line.take()
    assert line.could_fit(message(40))
    assert not line.could_fit(message(41))
    line.take()
    assert not line.could_fit(message(1))


def test_queue_puts_messages_back_in_front_in_their_order() -> None:
    """Messages that come back stand in front of all that waited meanwhile, in the order given."""
    line, messages = queue(max_messages=5), [message() for _ in range(5)]
    for one in messages[:4]:
        line.put(one)
    taken = [line.take(), line.take(), line.take()]
    line.put(messages[4])
    line.give_back(iter(taken))
    assert line.could_fit(message(100))  # nothing is taken any more
    assert [line.take() for _ in range(5)] == messages
    assert len(line) == 5


def test_queue_hands_out_nothing_while_its_first_message_is_held() -> None:
    """A held message keeps itself and all behind it; released, the order is the same."""
    line, messages = queue(), [message() for _ in range(3)]
    for one in messages:
        line.put(one)
    line.hold(messages[:2])
    assert line.peek() is None
    assert line.waiting
    line.release(messages[:1])
    assert line.take() is messages[0]
    assert line.peek() is None
    line.release(messages[1:2])
    assert [line.take(), line.take()] == messages[1:]


def test_queue_strikes_off_what_waits_and_what_was_taken() -> None:
    """Striking off removes a message wherever it is, held or not, and the books are even again."""
    line, waiting, held, taken = queue(), message(), message(), message(20)
    for one in (taken, held, waiting):
        line.put(one)
    line.take()
    line.hold((held,))
    assert line.is_waiting(held)
    assert not line.is_waiting(taken)
    line.strike(held)
    assert line.peek() is waiting
    line.strike(waiting)
    line.strike(taken)
    assert (len(line), line.size_bytes, line.held_count, list(line.waiting)) == (0, 0, 0, [])
    assert line.could_fit(message(100))
    assert not line.could_fit(message(101))


def test_queue_tells_equal_messages_apart() -> None:
    """Two messages with the same content are two messages: striking one off leaves the other."""
    line, first, second = queue(), message(), message()
    line.put(first)
    line.put(second)
    line.strike(second)
    assert line.take() is first


def timers() -> int:
    """Return how many timers of the loop are set."""
    loop = asyncio.get_running_loop()
    return sum(not handle.cancelled() for handle in loop._scheduled)  # type: ignore[attr-defined]


async def test_queue_expiry_tells_each_message_when_its_time_has_come() -> None:
    """Messages are told in the order of their times, each at its time, whatever the order of the watching."""
    wall = wall_clock()
    began = wall()
    told: list[tuple[float, Message]] = []
    line = queue(wall=wall)
    line.observers.add(lambda one, at: told.append((round(at - began, 6), one)))
    late, soon, never = message(expires_at=began + 30.0), message(expires_at=began + 10.0), message()
    for one in (late, soon, never):
        line.put(one)
    assert timers() == 1
    await asyncio.sleep(100)
    assert told == [(10.0, soon), (30.0, late)]
    assert (soon.receipt.outcome, never.receipt.outcome) == (Outcome.EXPIRED, Outcome.PENDING)
    assert timers() == 0


async def test_queue_expiry_of_a_message_is_the_moment_itself() -> None:
    """A message has expired from its moment on, and not before; one without a time never does."""
    line = queue(wall=lambda: 100.0)
    assert [line.has_expired(message(expires_at=at)) for at in (99.0, 100.0, 101.0, None)] == [
        True, True, False, False,
    ]  # fmt: skip


async def test_queue_expiry_does_not_tell_what_has_come_to_its_end() -> None:
    """A message that was settled before its time is not told."""
    wall, told = wall_clock(), []
    line = queue(wall=wall)
    line.observers.add(lambda one, _: told.append(one))
    one = message(expires_at=wall() + 5.0)
    line.put(one)
    one.receipt.settle(Outcome.ACKNOWLEDGED)
    await asyncio.sleep(10)
    assert told == []


async def test_queue_expiry_that_was_stopped_leaves_no_timer_and_tells_nothing() -> None:
    """After the stop no timer is set; what is watched afterwards is told, what was before is not."""
    wall, told = wall_clock(), []
    line = queue(wall=wall)
    line.observers.add(lambda one, _: told.append(one))
    line.put(message(expires_at=wall() + 5.0))
    await line.close()
    assert timers() == 0
    after = message(expires_at=wall() + 7.0)
    line.put(after)
    assert timers() == 1
    await asyncio.sleep(10)
    assert told == [after]
