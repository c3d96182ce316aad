"""The one thread that touches the file of an outbox: it commits what was queued, many at a time."""

import asyncio
import contextlib
import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

from realtime_fsm.adapters.sqlite_backlog import Backlog
from realtime_fsm.adapters.sqlite_batch import Operation, write
from realtime_fsm.adapters.sqlite_error import code_of, is_outage, storage_error
from realtime_fsm.adapters.sqlite_file import SYNCHRONOUS, OutboxFile, OwnedFile
from realtime_fsm.engine.outbox import OutboxContents
from realtime_fsm.machine.errors import InternalError, OutboxStorageError, RealtimeError

_logger = logging.getLogger("realtime_fsm.outbox")

Reader = Callable[[sqlite3.Connection], OutboxContents]


class SqliteWriter:
    """Owns the file from ``start`` to its end.

    Args:
        file: The file.
        read: Reads what it holds.
        max_dead_letters: Dead letters kept.
        report: Called on the loop with errors that nobody waits for.

    Attributes:
        opened: What the file held, or why it could not be opened.
        ended: Resolved when the file is released.
        dropped_dead_letters: Dead letters that had to make room.
    """

    def __init__(
        self,
        file: OutboxFile,
        read: Reader,
        *,
        max_dead_letters: int,
        report: Callable[[RealtimeError], None],
    ) -> None:
        self._file = file
        self._read = read
        self._max_dead_letters = max_dead_letters
        self._report = report
        self._loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[OutboxContents] = self._loop.create_future()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self.dropped_dead_letters = 0
        self._backlog = Backlog(self._loop)
        self._has_reported = False
        self._syncs = True
        self._thread = threading.Thread(target=self._run, name="realtime-outbox", daemon=False)

    # Called on the loop's thread.

    def start(self) -> None:
        """Begin to open the file."""
        self._thread.start()

    def put(self, operation: Operation) -> None:
        """Queue an operation. Never waits."""
        self._backlog.put(operation)
        if self.ended.done():
            self._refuse_rest()

    def stop(self) -> None:
        """Let it write what is queued, release the file, and end."""
        self._backlog.stop()

    def join(self, timeout: float) -> bool:
        """Wait for the thread; ``False`` if it is still there."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _finish(self) -> None:
        """Note the end: the last thing that the thread tells."""
        if not self.ended.done():
            self.ended.set_result(None)
        self._refuse_rest()

    def _refuse_rest(self) -> None:
        _finish_all(self._backlog.clear(), OutboxStorageError(f"The outbox {self._file.path} is closed."))

    # Called on its own thread.

    def _run(self) -> None:
        try:
            file, contents = self._file.open_or_renew(self._read, self._tell_report)
        except Exception as error:  # noqa: BLE001 - whatever it is, whoever waits must hear of it
            self._tell(_fail, self.opened, self._as_realtime_error(error))
        else:
            self._tell(_resolve, self.opened, contents)
            del contents
            self._serve_until_end(file)
        finally:
            self._tell(self._finish)

    def _serve_until_end(self, file: OwnedFile) -> None:
        try:
            while not self._backlog.is_at_end:
                batch = self._backlog.next_batch()
                if batch:
                    self._write_batch(file.connection, batch)
        except Exception as error:
            _logger.exception("the writer of the outbox %s failed", self._file.path)
            self._tell_report(self._as_realtime_error(error))
        finally:
            file.close()
            self._give_up()

    def _write_batch(self, connection: sqlite3.Connection, batch: deque[Operation]) -> None:
        try:
            self._write(connection, batch)
        except sqlite3.Error as error:
            if code_of(error) == sqlite3.SQLITE_FULL:
                _make_room(connection)
            self._suspend(batch, error)
        else:
            if self._backlog.is_interrupted:
                _logger.info("the outbox %s can be written again", self._file.path)
            self._backlog.resume()
            self._has_reported = False

    def _write(self, connection: sqlite3.Connection, batch: deque[Operation]) -> None:
        """Write a batch. If something in it is impossible, one by one, so that the others do not suffer.

        Args:
            connection: To the file.
            batch: What was written, or can never be, is taken off it.

        Raises:
            sqlite3.Error: If the file cannot be written now.
        """
        try:
            self._commit(connection, batch)
        except Exception as error:
            if is_outage(error):
                raise
        else:
            self._tell(_finish_all, list(batch), None)
            batch.clear()
        while batch:
            try:
                self._commit(connection, [batch[0]])
            except Exception as error:
                if is_outage(error):
                    raise
                self._reject(batch.popleft(), error)
            else:
                self._tell(_finish_all, [batch.popleft()], None)

    def _commit(self, connection: sqlite3.Connection, operations: Sequence[Operation]) -> None:
        syncs = any(operation.is_urgent for operation in operations)
        if syncs is not self._syncs:  # where nobody waits, nothing has to wait for the disk
            level = SYNCHRONOUS[self._file.durability if syncs else "process"]
            connection.execute(f"PRAGMA synchronous = {level}")
            self._syncs = syncs
        dropped = write(connection, operations, self._max_dead_letters)
        if dropped:
            self.dropped_dead_letters += dropped
            _logger.warning(
                "%d dead letters were dropped from the outbox %s: it keeps %d",
                dropped,
                self._file.path,
                self._max_dead_letters,
            )

    def _suspend(self, batch: Sequence[Operation], error: BaseException) -> None:
        """Fail everything that somebody waits for; the rest is tried again after a pause."""
        translated = storage_error(self._file.path, "written", error)
        if not self._backlog.is_interrupted:
            _logger.error("%s", translated)
        urgent, kept = self._backlog.suspend(batch)
        if kept and not self._has_reported:
            self._has_reported = True
            self._tell_report(translated)
        self._tell(_finish_all, urgent, translated)

    def _reject(self, operation: Operation, error: BaseException) -> None:
        """Give up an operation that can never be done."""
        translated = storage_error(self._file.path, "written", error)
        if operation.is_urgent:
            self._tell(_finish_all, [operation], translated)
        else:
            self._tell_report(translated)

    def _give_up(self) -> None:
        """Fail what is left, and say what is lost by it."""
        path = self._file.path
        left = self._backlog.clear()
        error = OutboxStorageError(f"The outbox {path} was closed before it could be written.")
        self._tell(_finish_all, left, error)
        lost = sum(not operation.is_urgent for operation in left)
        if lost:
            self._tell_report(
                OutboxStorageError(
                    f"The outbox {path} was closed before {lost} changes could be written.",
                    remedy="Messages that came to their end may be sent again by the next start.",
                )
            )

    def _tell_report(self, error: RealtimeError) -> None:
        self._tell(self._report, error)

    def _tell(self, callback: Callable[..., object], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:  # the loop was closed: nobody is left to be told
            _logger.debug("the loop of the outbox %s is closed", self._file.path)

    def _as_realtime_error(self, error: BaseException) -> RealtimeError:
        if isinstance(error, RealtimeError):
            return error
        internal = InternalError(f"The outbox {self._file.path} failed: {type(error).__name__}: {error}.")
        internal.__cause__ = error
        return internal


def _make_room(connection: sqlite3.Connection) -> None:
    """Give the WAL's room back, which may be all that is missing."""
    with contextlib.suppress(sqlite3.Error):  # or not even for that there is room
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _resolve(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


def _finish_all(operations: Sequence[Operation], error: RealtimeError | None) -> None:
    """On the loop's thread: tell everybody who waits, in order; to each an error of its own."""
    for operation in operations:
        own = None
        if error is not None:
            own = copy(error)
            own.__cause__ = error.__cause__
        operation.finish(own)
