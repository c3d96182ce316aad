"""The outbox: first in, first out, and bounded by count and by bytes."""

import pytest

from realtime_fsm.engine.message import Message, Receipt
from realtime_fsm.engine.outbox import MemoryOutbox
from realtime_fsm.engine.payload import Payload
from realtime_fsm.machine.delivery import Delivery
from realtime_fsm.machine.errors import OutboxFullError


def message(size_bytes: int = 10) -> Message:
    """Return a message of a size."""
    return Message(
        event="n",
        payload=Payload("x" * size_bytes),
        args=(),
        delivery=Delivery.AT_LEAST_ONCE,
        receipt=Receipt("n", "c-1"),
        wants_ack=True,
    )


def outbox(*, max_messages: int = 3, max_bytes: int = 100) -> MemoryOutbox:
    """Return a small outbox."""
    return MemoryOutbox(max_messages=max_messages, max_bytes=max_bytes)


def test_outbox_hands_out_in_the_order_of_putting() -> None:
    """What was put first is taken first, and peeking takes nothing."""
    box, messages = outbox(), [message() for _ in range(3)]
    for one in messages:
        box.put(one)
    assert box.peek() is messages[0]
    assert [box.take() for _ in range(3)] == messages
    assert box.peek() is None
    assert not box.has_waiting


def test_outbox_keeps_a_taken_message_on_the_books() -> None:
    """A taken message counts against the bounds until it is removed, because it may have to come back."""
    box = outbox(max_messages=1)
    box.put(message())
    taken = box.take()
    assert (len(box), box.size_bytes, box.has_waiting) == (1, 10, False)
    with pytest.raises(OutboxFullError):
        box.put(message())
    box.remove(taken)
    assert (len(box), box.size_bytes) == (0, 0)
    box.put(message())


def test_outbox_takes_as_many_messages_as_it_may_and_no_more() -> None:
    """The bound on the count is exact, and a refused message leaves no trace."""
    box = outbox(max_messages=2)
    box.put(message())
    box.put(message())
    with pytest.raises(OutboxFullError, match="outbox_max_messages"):
        box.put(message())
    assert (len(box), box.size_bytes) == (2, 20)


def test_outbox_takes_as_many_bytes_as_it_may_and_no_more() -> None:
    """The bound on the bytes is exact, and a refused message leaves no trace."""
    box = outbox(max_bytes=25)
    box.put(message(10))
    box.put(message(15))
    with pytest.raises(OutboxFullError, match="outbox_max_bytes=25") as refused:
        box.put(message(1))
    assert refused.value.retryable
    assert (len(box), box.size_bytes) == (2, 25)


def test_outbox_puts_messages_back_in_front_in_their_order() -> None:
    """Messages that come back stand in front of all that waited meanwhile, in the order given."""
    box, messages = outbox(max_messages=5), [message() for _ in range(5)]
    for one in messages[:4]:
        box.put(one)
    taken = [box.take(), box.take(), box.take()]
    box.put(messages[4])
    box.give_back(iter(taken))
    assert [box.take() for _ in range(5)] == messages
    assert len(box) == 5


def test_outbox_withdraws_only_what_waits() -> None:
    """A waiting message can be withdrawn once; a taken or unknown one cannot, and stays on the books."""
    box, waiting, taken = outbox(), message(), message()
    box.put(taken)
    box.put(waiting)
    box.take()
    assert not box.withdraw(taken)
    assert not box.withdraw(message())
    assert box.withdraw(waiting)
    assert not box.withdraw(waiting)
    assert (len(box), box.size_bytes, box.has_waiting) == (1, 10, False)


def test_outbox_tells_equal_messages_apart() -> None:
    """Two messages with the same content are two messages: withdrawing one leaves the other."""
    box, first, second = outbox(), message(), message()
    box.put(first)
    box.put(second)
    assert box.withdraw(second)
    assert box.take() is first


def test_outbox_clears_what_waits_and_keeps_what_was_taken() -> None:
    """Clearing returns what waits, in order; a taken message is somebody's, and stays on the books."""
    box, messages = outbox(), [message() for _ in range(3)]
    for one in messages:
        box.put(one)
    taken = box.take()
    assert box.clear() == messages[1:]
    assert box.clear() == []
    assert (len(box), box.size_bytes) == (1, 10)
    box.remove(taken)
    assert (len(box), box.size_bytes) == (0, 0)
