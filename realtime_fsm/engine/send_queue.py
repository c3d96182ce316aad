"""The messages that wait for the network: first in, first out, bounded by count and by bytes."""

from collections import deque
from collections.abc import Iterable

from realtime_fsm.engine.message import Message
from realtime_fsm.machine.errors import OutboxFullError


class SendQueue:
    """What waits, and the books of what has not come to its end.

    A message that was taken stays on the books (it counts against the bounds) until it is removed, because
    until then it may have to come back.

    Args:
        max_messages: Most messages on the books.
        max_bytes: Most bytes of payload on the books.
    """

    def __init__(self, *, max_messages: int, max_bytes: int) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._waiting: deque[Message] = deque()
        self._count = 0
        self._bytes = 0

    def __len__(self) -> int:
        return self._count

    @property
    def size_bytes(self) -> int:
        """Bytes of payload on the books."""
        return self._bytes

    @property
    def has_waiting(self) -> bool:
        """Whether there is a message to take."""
        return bool(self._waiting)

    def put(self, message: Message) -> None:
        """Store a message behind all others.

        Raises:
            OutboxFullError: If it does not fit. Nothing was stored.
        """
        if self._count >= self._max_messages:
            raise OutboxFullError(f"The outbox holds {self._count} messages, its outbox_max_messages.")
        if self._bytes + message.size_bytes > self._max_bytes:
            raise OutboxFullError(
                f"The outbox holds {self._bytes} bytes, and {message.size_bytes} more would pass "
                f"its outbox_max_bytes={self._max_bytes}."
            )
        self._count += 1
        self._bytes += message.size_bytes
        self._waiting.append(message)

    def peek(self) -> Message | None:
        """Return the message that is next, without taking it."""
        return self._waiting[0] if self._waiting else None

    def take(self) -> Message:
        """Take the message that is next. It stays on the books."""
        return self._waiting.popleft()

    def give_back(self, messages: Iterable[Message]) -> None:
        """Put taken messages back in front of all others, in the order given."""
        self._waiting.extendleft(reversed(list(messages)))

    def remove(self, message: Message) -> None:
        """Strike a taken message off the books: it has come to its end."""
        self._count -= 1
        self._bytes -= message.size_bytes

    def withdraw(self, message: Message) -> bool:
        """Remove a message that still waits; ``False`` when it does not."""
        try:
            self._waiting.remove(message)
        except ValueError:
            return False
        self.remove(message)
        return True

    def clear(self) -> list[Message]:
        """Remove and return everything that waits, in order."""
        messages = list(self._waiting)
        self._waiting.clear()
        for message in messages:
            self.remove(message)
        return messages
