"""The messages that wait for the network: first in, first out, bounded by count and by bytes."""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator

from realtime_fsm.engine.message import Message


class SendQueue:
    """What waits, and the books of all that has not come to its end.

    A message that was taken stays on the books (it counts against the bounds) until it is struck off,
    because until then it may have to come back.

    Args:
        max_messages: Most messages on the books.
        max_bytes: Most bytes of payload on the books.
    """

    def __init__(self, *, max_messages: int, max_bytes: int) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._waiting: OrderedDict[Message, None] = OrderedDict()
        self._held: set[Message] = set()
        self._count = 0
        self._bytes = 0
        self._taken_bytes = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Message]:
        """Iterate over what waits, in order."""
        return iter(self._waiting)

    @property
    def size_bytes(self) -> int:
        """Bytes of payload on the books."""
        return self._bytes

    @property
    def has_waiting(self) -> bool:
        """Whether anything waits, held or not."""
        return bool(self._waiting)

    @property
    def held_count(self) -> int:
        """How many messages are held."""
        return len(self._held)

    def lacks_room(self, message: Message) -> str | None:
        """Return why a message does not fit now, with the name of the bound; ``None`` if it fits."""
        if self._count >= self._max_messages:
            return f"holds {self._count} messages, its outbox_max_messages"
        if self._bytes + message.size_bytes > self._max_bytes:
            return (
                f"holds {self._bytes} bytes, and {message.size_bytes} more would pass "
                f"its outbox_max_bytes={self._max_bytes}"
            )
        return None

    def could_fit(self, message: Message) -> bool:
        """Tell whether a message would fit if nothing waited."""
        taken = self._count - len(self._waiting)
        return taken < self._max_messages and self._taken_bytes + message.size_bytes <= self._max_bytes

    def put(self, message: Message) -> None:
        """Queue a message behind all others. The bounds are the caller's: see ``lacks_room``."""
        self._count += 1
        self._bytes += message.size_bytes
        self._waiting[message] = None

    def hold(self, messages: Collection[Message]) -> None:
        """Keep waiting messages, and all behind them, from being taken."""
        self._held.update(messages)

    def release(self, messages: Collection[Message]) -> None:
        """Undo ``hold``."""
        self._held.difference_update(messages)

    def peek(self) -> Message | None:
        """Return the message that is next, without taking it; ``None`` while it is held."""
        if not self._waiting:
            return None
        message = next(iter(self._waiting))
        return None if message in self._held else message

    def take(self) -> Message:
        """Take the message that is next. It stays on the books."""
        message = self._waiting.popitem(last=False)[0]
        self._taken_bytes += message.size_bytes
        return message

    def give_back(self, messages: Iterable[Message]) -> None:
        """Put taken messages back in front of all others, in the order given."""
        for message in reversed(list(messages)):
            self._waiting[message] = None
            self._waiting.move_to_end(message, last=False)
            self._taken_bytes -= message.size_bytes

    def is_waiting(self, message: Message) -> bool:
        """Tell whether a message waits."""
        return message in self._waiting

    def strike(self, message: Message) -> None:
        """Strike a message off the books, waiting or taken: it has come to its end."""
        if message in self._waiting:
            del self._waiting[message]
            self._held.discard(message)
        else:
            self._taken_bytes -= message.size_bytes
        self._count -= 1
        self._bytes -= message.size_bytes
