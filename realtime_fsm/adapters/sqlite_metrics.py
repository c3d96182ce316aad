"""The file of a metrics database: one thread that writes it, and never anybody who waits for that."""

import asyncio
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Final

from attrs import evolve, frozen

from realtime_fsm.adapters import sqlite_metrics_schema as schema
from realtime_fsm.adapters.sqlite_error import BROKEN, code_of, is_outage, meaning_of
from realtime_fsm.adapters.sqlite_metrics_file import MetricsFile
from realtime_fsm.adapters.sqlite_metrics_schema import ForeignFileError, Row
from realtime_fsm.machine.errors import MetricsStorageError

MAX_BATCH: Final = 500
LINGER: Final = 0.25
"""Seconds that a record may wait for more of its kind: few transactions, few wake-ups."""
FLUSH_TIMEOUT: Final = 2.0
"""Seconds at the end in which what is queued is still written."""

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 30.0
_TOUCH_INTERVAL: Final = 10.0
_TRIM_INTERVAL: Final = 60.0
_LONGEST_WAIT: Final = 1.0
_REFUSALS: Final = (sqlite3.Error, OverflowError, UnicodeError)  # of a record that no table takes


_logger = logging.getLogger("realtime_fsm.metrics_database")


@frozen(kw_only=True)
class WriterCounters:
    """What became of records so far.

    Attributes:
        written: In the file.
        dropped: Refused because the queue was full, or left over at the end.
        rejected: That no table takes.
        trimmed: Deleted by the retention.
        failures: Times that the file could not be written.
        set_aside: Files that were corrupt, and were renamed.
        is_interrupted: Whether the file could not be written when it was last tried.
    """

    written: int = 0
    dropped: int = 0
    rejected: int = 0
    trimmed: int = 0
    failures: int = 0
    set_aside: int = 0
    is_interrupted: bool = False


class SqliteMetrics:
    """Writes records to a file, in a thread of its own. Nothing here waits, except for ``join``.

    A file that cannot be used (full disk, lock, permissions, corruption) interrupts it: records queue up to
    the bound, the file is tried again at growing pauses, and a corrupt one is set aside. Several processes
    may write the same file.

    Args:
        path: The file. Its folder must exist; until it does, the file counts as one that cannot be used.
        labels: ``implementation``, ``version`` and ``instance`` of this run.
        max_age: Seconds after which records are deleted.
        max_rows: Records of each kind that are kept.
        max_queued: Records that may wait to be written.
        wall: The wall clock.
        report: Told, on the loop, when the file stops being usable.
    """

    def __init__(
        self,
        path: Path,
        *,
        labels: Mapping[str, str],
        max_age: float,
        max_rows: int,
        max_queued: int,
        wall: Callable[[], float] = time.time,
        report: Callable[[MetricsStorageError], object],
    ) -> None:
        self._path = path
        self._file = MetricsFile(path, labels, wall)
        self._max_age = max_age
        self._max_rows = max_rows
        self._max_queued = max_queued
        self._wall = wall
        self._report = report
        self._queue: deque[tuple[str, Row]] = deque()
        self._changed = threading.Condition()
        self._counters = WriterCounters()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._deadline: float | None = None
        self._due_at = 0.0
        self._trim_at = 0.0
        self._pause = 0.0
        # A disk that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name="realtime-metrics", daemon=True)

    # For any thread.

    @property
    def counters(self) -> WriterCounters:
        """What became of records so far."""
        return self._counters

    @property
    def queued(self) -> int:
        """Records that wait to be written."""
        return len(self._queue)

    def start(self) -> None:
        """Begin to write. On the loop that is to be told of problems."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def put(self, table: str, row: Row) -> bool:
        """Queue a row; ``False`` if there is no room for it, or it is too late. Never waits for the disk."""
        with self._changed:
            if len(self._queue) >= self._max_queued or self._deadline is not None:
                self._count(dropped=1)
                return False
            self._queue.append((table, row))
            if len(self._queue) == 1 and not self._counters.is_interrupted:
                self._due_at = time.monotonic() + LINGER
                self._changed.notify()
        return True

    def stop(self) -> None:
        """Write what is queued, within ``FLUSH_TIMEOUT``, and end."""
        with self._changed:
            if self._deadline is None:
                self._deadline = time.monotonic() + FLUSH_TIMEOUT
            self._due_at = 0.0
            self._changed.notify()

    def join(self, timeout: float) -> bool:
        """Wait for the end; ``False`` if it has not come: then the disk hangs."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    # For its own thread.

    def _work(self) -> None:
        try:
            while self._wait():
                self._step()
        except Exception:
            _logger.exception("the writer of the metrics database %s failed", self._path)
        finally:
            self._file.close()
            self._give_up()

    def _wait(self) -> bool:
        """Wait until there is something to do; ``False`` at the end."""
        with self._changed:
            while self._deadline is None:
                patience = self._due_at - time.monotonic()
                if patience <= 0:
                    return True
                self._changed.wait(min(patience, _LONGEST_WAIT))
                if self._loop is not None and self._loop.is_closed():  # nobody will ever ask for the end
                    self._deadline = time.monotonic() + FLUSH_TIMEOUT
            if time.monotonic() >= self._deadline:
                return False
            if self._counters.is_interrupted and self._queue:
                self._changed.wait(_FIRST_PAUSE)
            return bool(self._queue)

    def _step(self) -> None:
        """Write a batch; without one, only that the run is still seen."""
        batch = list(islice(self._queue, MAX_BATCH))  # only this thread removes from it
        try:
            self._write(batch)
            self._trim()
        except (sqlite3.Error, OSError, ForeignFileError) as error:
            self._interrupt(error)
        else:
            self._resume()

    def _write(self, batch: list[tuple[str, Row]]) -> None:
        connection = self._file.opened()
        try:
            self._commit(connection, batch)
            rejected = 0
        except _REFUSALS as error:
            if is_outage(error):
                raise
            rejected = self._commit_each(connection, batch)
        with self._changed:
            for _ in batch:
                self._queue.popleft()
            self._count(written=len(batch) - rejected, rejected=rejected)

    def _commit_each(self, connection: sqlite3.Connection, batch: list[tuple[str, Row]]) -> int:
        """Write what can be written of a batch that holds something else; return how much cannot."""
        rejected = 0
        for table, row in batch:
            try:
                self._commit(connection, [(table, row)])
            except _REFUSALS as error:
                if is_outage(error):
                    raise
                rejected += 1
                _logger.warning("the metrics database rejects a record of %s: %s", table, error)
        return rejected

    def _commit(self, connection: sqlite3.Connection, batch: list[tuple[str, Row]]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.execute(schema.TOUCH_RUN, (self._wall(), self._file.run_id))
            for table, row in batch:
                connection.execute(schema.INSERT[table], (self._file.run_id, *row))
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _trim(self) -> None:
        if time.monotonic() < self._trim_at or self._deadline is not None:
            return
        connection = self._file.opened()
        connection.execute("BEGIN IMMEDIATE")
        try:
            gone = schema.trim(connection, before=self._wall() - self._max_age, max_rows=self._max_rows)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        self._count(trimmed=gone)
        if gone < schema.TRIM_CHUNK:
            self._trim_at = time.monotonic() + _TRIM_INTERVAL

    def _interrupt(self, error: Exception) -> None:
        """Note that the file cannot be used, tell people once, and try again later."""
        self._file.close()
        self._count(failures=1)
        why, remedy = (str(error), None) if isinstance(error, ForeignFileError) else meaning_of(error)
        if code_of(error) in BROKEN and (problem := self._file.set_aside(why)) is not None:
            self._count(set_aside=1)
            self._tell(problem)
            self._due_at = 0.0
            return
        if not self._counters.is_interrupted:
            _logger.warning("the metrics database %s cannot be written: %s", self._path, why)
            storage_error = MetricsStorageError(
                f"The metrics database {self._path} cannot be written: {why}.", remedy=remedy
            )
            self._tell(storage_error)
        with self._changed:
            self._note(is_interrupted=True)
            self._pause = min(max(self._pause * 2, _FIRST_PAUSE), _LONGEST_PAUSE)
            self._due_at = time.monotonic() + self._pause

    def _resume(self) -> None:
        with self._changed:
            if self._counters.is_interrupted:
                _logger.info("the metrics database %s can be written again", self._path)
            self._note(is_interrupted=False)
            self._pause = 0.0
            self._due_at = time.monotonic() + (0.0 if self._queue else _TOUCH_INTERVAL)

    def _give_up(self) -> None:
        """Count what could not be written before the end."""
        with self._changed:
            self._deadline = time.monotonic()
            left = len(self._queue)
            self._queue.clear()
            self._count(dropped=left)
        if left:
            _logger.warning("%d records of the metrics database %s were lost at its end", left, self._path)

    def _count(self, **more: int) -> None:
        """Add to counters. The lock is reentrant."""
        with self._changed:
            changes: dict[str, Any] = {name: getattr(self._counters, name) + n for name, n in more.items()}
            self._counters = evolve(self._counters, **changes)

    def _note(self, *, is_interrupted: bool) -> None:
        with self._changed:
            self._counters = evolve(self._counters, is_interrupted=is_interrupted)

    def _tell(self, error: MetricsStorageError) -> None:
        if self._loop is None:
            return
        try:
            self._loop.call_soon_threadsafe(self._report, error)
        except RuntimeError:  # the loop was closed: nobody is left to be told
            _logger.debug("the loop of the metrics database %s is closed", self._path)
