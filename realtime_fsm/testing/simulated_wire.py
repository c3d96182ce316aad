"""One direction of a simulated connection."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

MAX_FRAMES: Final = 100_000
"""Frames under way at most: a program that goes on sending into a dead connection is told so."""


class Wire:
    """Carries frames one way: each comes out after its delay, never before the one in front of it.

    A frame is a callable, and its arrival is the call. While nothing may pass, all wait.

    Args:
        may_pass: Whether frames come out now; ask for another look by ``resume``.
    """

    def __init__(self, may_pass: Callable[[], bool]) -> None:
        self._loop = asyncio.get_running_loop()
        self._may_pass = may_pass
        self._frames: deque[tuple[float, Callable[[], None]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def put(self, frame: Callable[[], None], delay: float) -> None:
        """Send a frame, to arrive in ``delay`` seconds.

        Raises:
            RuntimeError: If too many are under way already.
        """
        if len(self._frames) >= MAX_FRAMES:
            raise RuntimeError(f"{MAX_FRAMES} frames are under way on a connection that does not move.")
        self._frames.append((self._loop.time() + delay, frame))
        self.resume()

    def resume(self) -> None:
        """Go on, if frames may pass again: the ones that are overdue come out at once."""
        if self._timer is None and self._frames and self._may_pass():
            self._timer = self._loop.call_at(self._frames[0][0], self._run)

    def cut(self) -> None:
        """Lose everything that is under way."""
        self._frames.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _run(self) -> None:
        self._timer = None
        now = self._loop.time()
        try:
            while self._frames and self._frames[0][0] <= now and self._may_pass():
                self._frames.popleft()[1]()
        finally:
            self.resume()
