"""A thread that owns a SQLite file: what is put is written in batches, and the loop never waits for the disk.

What all such threads do alike stands here, and only here:

- A batch is written at once where somebody waits for a part of it; else it may linger, for more of its kind.
- If a batch is impossible it is written one by one, so that one bad item harms no other.
- If the file cannot be written that is told once, what nobody waits for is kept, and the file is tried again
  at pauses that double. What somebody waits for is tried at once, and fails.
- At the end a file that cannot be written gets ``FLUSH_TIMEOUT`` to come back; what is left then is given up.
- Where the loop is gone nobody will ask for the end: it begins by itself.

``Backlog`` knows when something is to be written, ``SqliteThread`` writes it. What is written, and whereto,
is up to the classes derived from that.
"""

import asyncio
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, ClassVar, Final, Generic, Protocol, TypeVar

from realtime_fsm.adapters.sqlite_file import is_outage
from realtime_fsm.machine.errors import RealtimeError

MAX_BATCH: Final = 500
"""Items of one transaction."""

FLUSH_TIMEOUT: Final = 2.0
"""Seconds at the end in which a file that cannot be written may come back."""

_IDLE: Final = 1.0
"""Seconds after which an idle thread looks whether its loop is still there."""

_FIRST_PAUSE: Final = 0.1


class Item(Protocol):
    """Something to be written."""

    @property
    def is_urgent(self) -> bool:
        """True if somebody waits for it."""


_I = TypeVar("_I", bound=Item)


class Backlog(Generic[_I]):
    """A queue from any thread to the writer's, and the writer's own list of what it took from it.

    Args:
        linger: See ``SqliteThread``.
        longest_pause: See ``SqliteThread``.

    Attributes:
        loop: Whose end is the end of the thread too, if nobody calls ``stop``.
    """

    def __init__(self, *, linger: float, longest_pause: float) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self._linger = linger
        self._longest_pause = longest_pause
        # Not a deque with a condition: the writer, holding its lock, may lose the interpreter to a busy
        # thread for milliseconds, and the loop would wait for it. A `SimpleQueue` is put to without waiting.
        self._queue: SimpleQueue[_I | None] = SimpleQueue()
        self._taken: deque[_I] = deque()
        self._deadline: float | None = None
        self._pause = 0.0
        self._retry_at: float | None = None

    # For any thread.

    def put(self, item: _I) -> None:
        """Queue an item. Never waits."""
        self._queue.put(item)

    def stop(self) -> None:
        """Ask for the end, after everything that was put before."""
        self._queue.put(None)

    @property
    def is_interrupted(self) -> bool:
        """True from when the file could not be written until it could again."""
        return self._retry_at is not None

    # For the writer's thread.

    @property
    def is_ending(self) -> bool:
        """True once the end was asked for, or the loop is gone: nothing more comes."""
        return self._deadline is not None

    @property
    def is_at_end(self) -> bool:
        """True at the end, once there is nothing more to do, or no more time to do it."""
        if self._deadline is None:
            return False
        return not (self._taken or not self._queue.empty()) or time.monotonic() > self._deadline

    @property
    def is_idle(self) -> bool:
        """True while there is nothing to write, outside of a pause and of the end."""
        return not (self._taken or self.is_ending or self.is_in_pause) and self._queue.empty()

    @property
    def is_in_pause(self) -> bool:
        """True while a file that could not be written is not yet to be tried again."""
        return self._retry_at is not None and time.monotonic() < self._retry_at

    def next_batch(self) -> deque[_I]:
        """Wait until there is something to write, or for a while; return it, or nothing."""
        if not self._is_due():
            self._take(self._patience())
        self._drain(MAX_BATCH)
        if self._may_linger():
            until = time.monotonic() + self._linger
            while len(self._taken) < MAX_BATCH and self._take(until - time.monotonic()):
                if self._taken[-1].is_urgent or self.is_ending:
                    break
            self._drain(MAX_BATCH)
        count = min(MAX_BATCH, len(self._taken)) if self._is_due() else 0
        return deque(self._taken.popleft() for _ in range(count))

    def put_back(self, batch: Sequence[_I]) -> None:
        """Take back what was not written, before all that was put later."""
        self._taken.extendleft(reversed(batch))

    def suspend(self, batch: Sequence[_I]) -> tuple[list[_I], int]:
        """Take a batch back that could not be written: what nobody waits for is kept for later.

        Returns:
            What somebody waits for, and how many others are kept.
        """
        self.put_back(batch)
        self._drain(None)
        urgent = [item for item in self._taken if item.is_urgent]
        self._taken = deque(item for item in self._taken if not item.is_urgent)
        doubled = min(max(self._pause * 2, _FIRST_PAUSE), self._longest_pause)
        self._pause = (
            _FIRST_PAUSE if self.is_ending else doubled
        )  # at the end there is no time for a long one
        self._retry_at = time.monotonic() + self._pause
        return urgent, len(self._taken)

    def resume(self) -> None:
        """Note that the file can be written."""
        self._pause = 0.0
        self._retry_at = None

    def clear(self) -> list[_I]:
        """Remove and return everything. At the end it is for any thread."""
        self._drain(None)
        left = list(self._taken)
        self._taken.clear()
        return left

    def _is_due(self) -> bool:
        """Tell whether to write now; in a pause only what somebody waits for is tried."""
        if not self._taken:
            return False
        return not self.is_in_pause or any(item.is_urgent for item in self._taken)

    def _patience(self) -> float:
        """Return how long to wait for an item, where nothing is due."""
        if not self._taken:
            return 0.0 if self.is_ending else _IDLE
        moments = [moment for moment in (self._retry_at, self._deadline) if moment is not None]
        return min(min(moments, default=0.0) - time.monotonic(), _IDLE)

    def _may_linger(self) -> bool:
        if not self._taken or self.is_ending or self.is_interrupted:
            return False
        return not any(item.is_urgent for item in self._taken)

    def _drain(self, up_to: int | None) -> None:
        while (up_to is None or len(self._taken) < up_to) and self._take(0.0):
            pass

    def _take(self, timeout: float) -> bool:
        """Take one item, or a request to stop; ``False`` if there is none in time."""
        try:
            item = self._queue.get(timeout=timeout) if timeout > 0 else self._queue.get_nowait()
        except Empty:
            if self._is_orphan():
                self._begin_end()
            return False
        if item is None:
            self._begin_end()
        else:
            self._taken.append(item)
        return True

    def _is_orphan(self) -> bool:
        """Tell whether nobody will ever ask for the end."""
        if self.loop is not None and self.loop.is_closed():
            return True
        # The interpreter waits for every thread that is no daemon before it lets the process end.
        return not (threading.current_thread().daemon or threading.main_thread().is_alive())

    def _begin_end(self) -> None:
        if self._deadline is not None:
            return
        now = time.monotonic()
        self._deadline = now + FLUSH_TIMEOUT
        if self._retry_at is not None:
            self._retry_at = min(self._retry_at, now + _FIRST_PAUSE)


class SqliteThread(ABC, Generic[_I]):
    """Owns a file from ``start`` to its end.

    Args:
        what: The file, as messages call it: ``the outbox /var/o.db``.
        report: Called on the loop with errors that nobody waits for.
    """

    NAME: ClassVar[str]
    LINGER: ClassVar[float]
    """Seconds that items nobody waits for may wait for more of their kind."""
    LONGEST_PAUSE: ClassVar[float]
    """Seconds to which the pauses grow while the file cannot be written."""
    IS_DAEMON: ClassVar[bool]
    """Whether a disk that hangs must not keep the process from ending, whatever is lost by that."""
    LOGGER: ClassVar[logging.Logger]
    SEVERITY: ClassVar[int]
    """As what it is logged that the file cannot be written."""

    def __init__(self, what: str, report: Callable[[Any], object]) -> None:
        self._what = what
        self._report = report
        self._backlog: Backlog[_I] = Backlog(linger=self.LINGER, longest_pause=self.LONGEST_PAUSE)
        self._has_reported = False
        self._thread = threading.Thread(target=self._run, name=self.NAME, daemon=self.IS_DAEMON)

    # For any thread.

    def start(self) -> None:
        """Begin, on behalf of the running loop."""
        self._backlog.loop = asyncio.get_running_loop()
        self._thread.start()

    def stop(self) -> None:
        """Let it write what is queued, release the file, and end. Safe to call twice."""
        self._backlog.stop()

    def join(self, timeout: float) -> bool:
        """Wait for the end; ``False`` if it has not come: then the disk hangs."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    # What derived classes say; all of it is called on the thread.

    def _begin(self) -> bool:
        """Prepare for the first batch; return whether there is anything to be done."""
        return True

    def _is_upkeep_due(self) -> bool:
        """Tell whether to commit an empty batch, rather than to wait for a full one."""
        return False

    @abstractmethod
    def _commit(self, items: Sequence[_I]) -> None:
        """Write items, all of them or none. Whatever it raises, nothing was written."""

    @abstractmethod
    def _committed(self, items: Sequence[_I]) -> None:
        """Take note of what is written."""

    @abstractmethod
    def _rejected(self, item: _I, error: Exception) -> None:
        """Give up an item that can never be written."""

    def _failed(self, items: Sequence[_I], error: RealtimeError) -> None:
        """Tell who waits for these items that they were not written."""

    def _mended(self, error: Exception) -> bool:
        """Do what can be done about a file that cannot be written; return whether to try again at once."""
        del error
        return False

    @abstractmethod
    def _as_storage_error(self, error: Exception) -> RealtimeError:
        """Return why the file cannot be written, in words for people."""

    def _broke(self, error: Exception) -> None:
        """Tell people of a bug that ends the thread; it was logged."""

    @abstractmethod
    def _end(self, left: Sequence[_I]) -> None:
        """Release the file, and give up what is left."""

    # Called on the thread.

    def _tell(self, callback: Callable[..., object], *args: Any) -> None:
        """Call something on the loop."""
        if self._backlog.loop is None:
            return
        try:
            self._backlog.loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:  # the loop was closed: nobody is left to be told
            self.LOGGER.debug("the loop of %s is closed", self._what)

    def _run(self) -> None:
        try:
            if self._begin():
                self._serve()
        except Exception as error:
            self.LOGGER.exception("the writer of %s failed", self._what)
            self._broke(error)
        finally:
            self._end(self._backlog.clear())

    def _serve(self) -> None:
        backlog = self._backlog
        while not backlog.is_at_end:
            has_upkeep = backlog.is_idle and self._is_upkeep_due()
            batch = deque() if has_upkeep else backlog.next_batch()
            if not (batch or has_upkeep):
                continue
            try:
                self._write(batch)
            except Exception as error:
                if not is_outage(error):
                    backlog.put_back(batch)  # so that whoever waits hears of the end
                    raise
                self._suspend(batch, error)
            else:
                if backlog.is_interrupted:
                    self.LOGGER.info("%s can be written again", self._what)
                backlog.resume()
                self._has_reported = False

    def _write(self, batch: deque[_I]) -> None:
        """Write a batch; what was written, or can never be, is taken off it.

        Raises:
            Exception: If the file cannot be written now.
        """
        try:
            self._commit(batch)
        except Exception as error:
            if is_outage(error) or not batch:
                raise
        else:
            items = list(batch)
            batch.clear()
            self._committed(items)
        while batch:
            try:
                self._commit([batch[0]])
            except Exception as error:
                if is_outage(error):
                    raise
                self._rejected(batch.popleft(), error)
            else:
                self._committed([batch.popleft()])

    def _suspend(self, batch: deque[_I], error: Exception) -> None:
        """Fail everything that somebody waits for; the rest is tried again after a pause."""
        if self._mended(error):
            self._backlog.put_back(batch)
            return
        translated = self._as_storage_error(error)
        if not self._backlog.is_interrupted:
            self.LOGGER.log(self.SEVERITY, "%s", translated)
        urgent, kept = self._backlog.suspend(batch)
        if (kept or not urgent) and not self._has_reported:
            self._has_reported = True
            self._tell(self._report, translated)
        self._failed(urgent, translated)
