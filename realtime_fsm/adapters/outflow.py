"""Messages on their way to the network: their order, their number, and the room that is left."""

import asyncio
import base64
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from attrs import frozen

from realtime_fsm.adapters.frame import NOOP, SEPARATOR

WEBSOCKET_LIMIT: Final = 64
WEBSOCKET_MAX_BYTES: Final = 1024 * 1024
POLLING_LIMIT: Final = 10
POLLING_MAX_BYTES: Final = 256 * 1024
"""So that a body stays under the 1 MB that servers accept, its attachments in base64."""

_BATCH: Final = 32
_BATCH_BYTES: Final = 64 * 1024
"""How much is written at once over a websocket; so often is ``on_written`` called."""

_MAX_PACKETS: Final = 10
"""Most packets of one body: a Python server takes 16, and python-socketio may add a few of its own."""


class FrameSink(Protocol):
    """Takes frames for a websocket."""

    async def send_str(self, data: str) -> None:
        """Send a text frame."""

    async def send_bytes(self, data: bytes) -> None:
        """Send a binary frame."""

    def cork(self) -> None:
        """Hold what is sent from now on together."""

    def uncork(self) -> None:
        """Let it go."""


@frozen
class Parcel:
    """A message that is more than one plain text frame.

    Attributes:
        text: Its text frame.
        attachments: The binary frames that follow it.
        counted: Whether it counts as written: an event does, an acknowledgement or a goodbye does not.
    """

    text: str
    attachments: tuple[bytes, ...] = ()
    counted: bool = False

    def __len__(self) -> int:
        return len(self.text) + sum(map(len, self.attachments))


class Outflow:
    """The queue between ``send`` and the network.

    Args:
        limit: How many messages it holds, at most, where the sender heeds ``room``.
        max_bytes: How much it holds, at most; sizes are counted in characters and bytes alike.
        on_waiting: Called when the queue is no longer empty.
        on_written: Called when messages have left, once for a whole batch.

    Attributes:
        written: How many of the counted messages have left.
    """

    def __init__(
        self,
        *,
        limit: int,
        max_bytes: int,
        on_waiting: Callable[[], None],
        on_written: Callable[[], None],
    ) -> None:
        self._limit = limit
        self._max_bytes = max_bytes
        self._on_waiting = on_waiting
        self._on_written = on_written
        self._waiting: deque[str | Parcel] = deque()  # a plain event is its frame
        self._leaving: list[str | Parcel] = []  # being written, or in a request that is not yet answered
        self._size = 0
        self._drained: asyncio.Future[None] | None = None
        self.written = 0

    @property
    def room(self) -> int:
        """How many more messages may be put; may be negative."""
        if self._size >= self._max_bytes:
            return 0
        return self._limit - len(self._waiting) - len(self._leaving)

    @property
    def is_empty(self) -> bool:
        """Whether everything has left."""
        return not self._waiting and not self._leaving

    def put(self, message: str | Parcel) -> None:
        """Append a message."""
        self._waiting.append(message)
        self._size += len(message)
        if len(self._waiting) == 1:
            self._on_waiting()

    def clear(self) -> None:
        """Throw away what has not left."""
        self._waiting.clear()
        self._leaving.clear()
        self._size = 0
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    async def drain(self) -> None:
        """Wait until everything has left, or was thrown away."""
        if not self.is_empty:
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained

    # Over a websocket.

    async def write(self, sink: FrameSink) -> None:
        """Write all that waits, in batches.

        Raises:
            ConnectionResetError: If the connection broke; what was in the batch may have left or not.
        """
        while self._waiting:
            sink.cork()
            try:
                await self._write_batch(sink)
            finally:
                sink.uncork()
            self.acknowledge()

    async def _write_batch(self, sink: FrameSink) -> None:
        waiting, leaving = self._waiting, self._leaving
        size = 0
        while waiting and len(leaving) < _BATCH and size < _BATCH_BYTES:
            message = waiting.popleft()
            leaving.append(message)
            size += len(message)
            if isinstance(message, str):
                await sink.send_str(message)
                continue
            await sink.send_str(message.text)
            for attachment in message.attachments:
                await sink.send_bytes(attachment)

    # Over polling.

    def encode(self) -> str:
        """Take a batch for one request, and return it as a part of its body."""
        packets: list[str] = []
        size = 0
        while self._waiting:
            message = self._waiting[0]
            encoded = _payload_packets(message)
            size += len(message)
            if packets and (len(packets) + len(encoded) > _MAX_PACKETS or size > self._max_bytes):
                break
            packets += encoded
            self._leaving.append(self._waiting.popleft())
        return SEPARATOR.join(packets) or NOOP

    def acknowledge(self) -> None:
        """Note that the last batch has left: it was written, or the request with it was answered."""
        before = self.written
        for message in self._leaving:
            self._size -= len(message)
            self.written += message.counted if isinstance(message, Parcel) else 1
        self._leaving.clear()
        if self._waiting:
            self._on_waiting()
        if self.is_empty and self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        if self.written > before:
            self._on_written()


def _payload_packets(message: str | Parcel) -> list[str]:
    if isinstance(message, str):
        return [message]
    return [message.text, *("b" + base64.b64encode(part).decode() for part in message.attachments)]
