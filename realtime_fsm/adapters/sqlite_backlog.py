"""What is asked of the writer of an outbox and not yet written, and when its turn is."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from typing import Final

from realtime_fsm.adapters.sqlite_batch import Kind, Operation

MAX_BATCH: Final = 500
"""Operations of one transaction."""

LINGER: Final = 0.005
"""Seconds that operations nobody waits for may wait for more of their kind."""

FLUSH_TIMEOUT: Final = 2.0
"""Seconds at the end in which a file that cannot be written may come back."""

_IDLE: Final = 1.0
"""Seconds after which an idle writer looks whether its loop is still there."""

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0


class Backlog:
    """A queue from the loop's thread to the writer's, and the writer's own list of what it took from it.

    Args:
        loop: Whose end is the end of the writer too, if nobody says ``stop``.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._queue: SimpleQueue[Operation] = SimpleQueue()
        self._taken: deque[Operation] = deque()
        self._deadline: float | None = None
        self._pause = 0.0
        self._retry_at: float | None = None

    # For any thread.

    def put(self, operation: Operation) -> None:
        """Queue an operation. Never waits."""
        self._queue.put(operation)

    def stop(self) -> None:
        """Ask for the end, after everything that was put before."""
        self._queue.put(Operation(kind=Kind.STOP))

    # For the writer's thread.

    @property
    def is_interrupted(self) -> bool:
        """Whether the file could not be written when it was last tried."""
        return self._retry_at is not None

    @property
    def is_at_end(self) -> bool:
        """Whether the writer has nothing more to do, or no more time to do it."""
        if self._deadline is None:
            return False
        return not (self._taken or not self._queue.empty()) or time.monotonic() > self._deadline

    def next_batch(self) -> deque[Operation]:
        """Wait until there is something to write, or for a while; return it, or nothing."""
        if not self._is_due():
            self._take(self._patience())
        self._drain(MAX_BATCH)
        if self._may_linger():
            until = time.monotonic() + LINGER
            while len(self._taken) < MAX_BATCH and self._take(until - time.monotonic()):
                if self._taken[-1].is_urgent:
                    break
            self._drain(MAX_BATCH)
        count = min(MAX_BATCH, len(self._taken)) if self._is_due() else 0
        return deque(self._taken.popleft() for _ in range(count))

    def suspend(self, batch: Sequence[Operation]) -> tuple[list[Operation], int]:
        """Take a batch back that could not be written: what nobody waits for is kept for later.

        Returns:
            What somebody waits for, and how many others are kept.
        """
        self._taken.extendleft(reversed(batch))
        self._drain(None)
        urgent = [operation for operation in self._taken if operation.is_urgent]
        self._taken = deque(operation for operation in self._taken if not operation.is_urgent)
        self._pause = min(max(self._pause * 2, _FIRST_PAUSE), _LONGEST_PAUSE)
        self._retry_at = time.monotonic() + self._pause
        return urgent, len(self._taken)

    def resume(self) -> None:
        """Note that the file can be written."""
        self._pause = 0.0
        self._retry_at = None

    def clear(self) -> list[Operation]:
        """Remove and return everything. At the end it is for any thread."""
        self._drain(None)
        left = list(self._taken)
        self._taken.clear()
        return left

    def _is_due(self) -> bool:
        """Whether to write now; while the file cannot be written only what somebody waits for is tried."""
        if not self._taken:
            return False
        if self._retry_at is None or time.monotonic() >= self._retry_at:
            return True
        return any(operation.is_urgent for operation in self._taken)

    def _patience(self) -> float:
        """Return how long to wait for an operation, where nothing is due."""
        if not self._taken:
            return 0.0 if self._deadline is not None else _IDLE
        moments = [moment for moment in (self._retry_at, self._deadline) if moment is not None]
        return min(min(moments, default=0.0) - time.monotonic(), _IDLE)

    def _may_linger(self) -> bool:
        if not self._taken or self._deadline is not None or self._retry_at is not None:
            return False
        return not any(operation.is_urgent for operation in self._taken)

    def _drain(self, up_to: int | None) -> None:
        while (up_to is None or len(self._taken) < up_to) and self._take(0.0):
            pass

    def _take(self, timeout: float) -> bool:
        """Take one operation, or a request to stop; ``False`` if there is none in time."""
        try:
            operation = self._queue.get(timeout=timeout) if timeout > 0 else self._queue.get_nowait()
        except Empty:
            is_orphan = self._loop.is_closed() or not threading.main_thread().is_alive()
            if is_orphan and self._deadline is None:  # nobody will ever ask for the end
                self._deadline = time.monotonic() + FLUSH_TIMEOUT
            return False
        if operation.kind is Kind.STOP:
            self._deadline = time.monotonic() + FLUSH_TIMEOUT
        else:
            self._taken.append(operation)
        return True
