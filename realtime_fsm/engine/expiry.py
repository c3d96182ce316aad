"""The time to live: one timer for all messages that have one."""

import asyncio
import heapq
from collections.abc import Callable

from realtime_fsm.engine.message import Message
from realtime_fsm.engine.port import WallClock


class Expiry:
    """Tells when messages are no longer to be sent.

    Args:
        wall: The wall clock, because messages may be older than the process.
        on_expired: Called with each message when its time has come, wherever it is by then.
    """

    def __init__(self, wall: WallClock, on_expired: Callable[[Message], None]) -> None:
        self._wall = wall
        self._on_expired = on_expired
        self._heap: list[tuple[float, int, Message]] = []
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, message: Message) -> None:
        """Watch a message, if it expires at all."""
        if message.expires_at is not None:
            heapq.heappush(self._heap, (message.expires_at, message.sequence, message))
            self._set_timer()

    def has_expired(self, message: Message) -> bool:
        """Tell whether it is too late to send a message."""
        return message.expires_at is not None and message.expires_at <= self._wall()

    def stop(self) -> None:
        """Forget all messages."""
        self._heap.clear()
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._heap:
            delay = max(0.0, self._heap[0][0] - self._wall())
            self._timer = asyncio.get_running_loop().call_later(delay, self._expire)

    def _expire(self) -> None:
        self._timer = None
        while self._heap and self._heap[0][0] <= self._wall():
            _, _, message = heapq.heappop(self._heap)
            if not message.receipt.is_settled:
                self._on_expired(message)
        self._set_timer()
