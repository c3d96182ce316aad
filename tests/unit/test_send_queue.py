"""The queue to the network: first in, first out, and bounded by count and by bytes."""

from realtime_fsm.engine.message import Message, Receipt
from realtime_fsm.engine.outbound_queue import SendQueue
from realtime_fsm.engine.payload import Payload
from realtime_fsm.machine.delivery import Delivery


def message(size_bytes: int = 10) -> Message:
    """Return a message of a size."""
    return Message(
        event="n",
        payload=Payload("x" * size_bytes),
        delivery=Delivery.AT_LEAST_ONCE,
        receipt=Receipt("n", "c-1"),
        wants_ack=True,
    )


def queue(*, max_messages: int = 3, max_bytes: int = 100) -> SendQueue:
    """Return a small queue."""
    return SendQueue(max_messages=max_messages, max_bytes=max_bytes)


def test_send_queue_hands_out_in_the_order_of_putting() -> None:
    """What was put first is taken first, and peeking takes nothing."""
    line, messages = queue(), [message() for _ in range(3)]
    for one in messages:
        line.put(one)
    assert line.peek() is messages[0]
    assert list(line) == messages
    assert [line.take() for _ in range(3)] == messages
    assert line.peek() is None
    assert not line.has_waiting


def test_send_queue_keeps_a_taken_message_on_the_books() -> None:
    """A taken message counts against the bounds until it is struck off: it may have to come back."""
    line = queue(max_messages=1)
    line.put(message())
    taken = line.take()
    assert (len(line), line.size_bytes, line.has_waiting) == (1, 10, False)
    assert line.lacks_room(message()) is not None
    line.strike(taken)
    assert (len(line), line.size_bytes) == (0, 0)
    assert line.lacks_room(message()) is None


def test_send_queue_has_room_for_as_many_messages_as_it_may_and_no_more() -> None:
    """The bound on the count is exact, and named."""
    line = queue(max_messages=2)
    line.put(message())
    assert line.lacks_room(message()) is None
    line.put(message())
    assert "outbox_max_messages" in (line.lacks_room(message()) or "")


def test_send_queue_has_room_for_as_many_bytes_as_it_may_and_no_more() -> None:
    """The bound on the bytes is exact, and named."""
    line = queue(max_bytes=25)
    line.put(message(10))
    assert line.lacks_room(message(15)) is None
    assert "outbox_max_bytes=25" in (line.lacks_room(message(16)) or "")


def test_send_queue_could_fit_what_only_waiting_messages_keep_out() -> None:
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


def test_send_queue_puts_messages_back_in_front_in_their_order() -> None:
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


def test_send_queue_hands_out_nothing_while_its_first_message_is_held() -> None:
    """A held message keeps itself and all behind it; released, the order is the same."""
    line, messages = queue(), [message() for _ in range(3)]
    for one in messages:
        line.put(one)
    line.hold(messages[:2])
    assert line.peek() is None
    assert line.has_waiting
    line.release(messages[:1])
    assert line.take() is messages[0]
    assert line.peek() is None
    line.release(messages[1:2])
    assert [line.take(), line.take()] == messages[1:]


def test_send_queue_strikes_off_what_waits_and_what_was_taken() -> None:
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
    assert (len(line), line.size_bytes, line.held_count, list(line)) == (0, 0, 0, [])
    assert line.could_fit(message(100))
    assert not line.could_fit(message(101))


def test_send_queue_tells_equal_messages_apart() -> None:
    """Two messages with the same content are two messages: striking one off leaves the other."""
    line, first, second = queue(), message(), message()
    line.put(first)
    line.put(second)
    line.strike(second)
    assert line.take() is first
