"""The port ``Outbox`` on SQLite: what was kept survives the process, and with ``power`` a power cut."""

import asyncio
import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from copy import copy
from enum import Enum
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

from attrs import define, field

from realtime_fsm.adapters import outbox_schema as schema
from realtime_fsm.adapters.outbox_file import BUSY_TIMEOUT, SYNCHRONOUS, OutboxFile, OwnedFile, storage_error
from realtime_fsm.adapters.outbox_schema import Row
from realtime_fsm.adapters.sqlite_file import code_of, transaction
from realtime_fsm.adapters.sqlite_thread import FLUSH_TIMEOUT, SqliteThread
from realtime_fsm.engine.message import DeadLetter, Message
from realtime_fsm.engine.outbox import OutboxContents
from realtime_fsm.machine.errors import ConfigurationError, InternalError, OutboxStorageError, RealtimeError

# What is asked of the file of an outbox, and how many such things become one transaction.

_CHUNKS: Final = (64, 8, 1)
"""Rows of one statement. Many at once, because each statement gives the interpreter's lock away once, and
beside a busy loop it is slow to come back."""


class OperationKind(Enum):
    """Kinds of operations, each with rows of its own shape."""

    APPEND = "append"
    CHARGE = "charge"
    BURY = "bury"
    REMOVE = "remove"
    CALL = "call"


@define(eq=False, kw_only=True)
class Operation:
    """One thing that is asked of the file.

    Attributes:
        kind: What.
        rows: What is written.
        call: For ``CALL``: what runs in the transaction; its result becomes the future's.
        future: Resolved on the loop when it is committed; ``None`` where nobody waits. It is of the loop.
        messages: Whose ``is_stored`` changes then.
        is_stored: What it changes to.
        on_abandoned: Called on the loop with the result, if by then nobody wants it any more.
        result: What ``call`` returned.
    """

    kind: OperationKind
    rows: Sequence[Row] = ()
    call: Callable[[sqlite3.Connection], Any] | None = None
    future: asyncio.Future[Any] | None = None
    messages: Sequence[Message] = ()
    is_stored: bool = True
    on_abandoned: Callable[[Any], None] | None = None
    result: Any = None

    @property
    def is_urgent(self) -> bool:
        """True if somebody waits for it."""
        return self.future is not None

    def finish(self, error: BaseException | None) -> None:
        """Tell who waits for it. On the loop's thread."""
        if error is None:
            for message in self.messages:
                message.is_stored = self.is_stored
        if self.future is None:
            return
        if self.future.done():  # cancelled: what was asked for has been done all the same
            if error is None and self.on_abandoned is not None:
                self.on_abandoned(self.result)
        elif error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(error)


@define(eq=False)
class _Gathered:
    """Rows of neighbouring operations, to be written kind by kind.

    In whatever order operations on different messages are done, they come to the same; on one message it
    is append, charge, then bury or remove.
    """

    appended: list[Row] = field(factory=list)
    charged: list[Row] = field(factory=list)
    buried: list[Row] = field(factory=list)
    gone: dict[int, None] = field(factory=dict)

    def add(self, operation: Operation) -> bool:
        """Take an operation in; ``False`` if what was gathered has to be written before."""
        rows = operation.rows
        if operation.kind is OperationKind.APPEND:
            if any(row[0] in self.gone for row in rows):  # claimed, and kept again
                return False
            self.appended.extend(rows)
        elif operation.kind is OperationKind.CHARGE:
            self.charged.extend(rows)
        elif operation.kind is OperationKind.BURY:
            self.buried.extend(rows)
            self.gone.update((row[0], None) for row in rows)
        elif operation.kind is OperationKind.REMOVE:
            self.gone.update((row[0], None) for row in rows)
        else:
            return False
        return True

    def write(self, connection: sqlite3.Connection) -> None:
        """Write all that was gathered, kind by kind."""
        numbers = [row[0] for row in (*self.appended, *self.buried)]
        if numbers:
            connection.execute(schema.RAISE_LAST_SEQUENCE, (max(numbers),))
        for chunk in chunks(self.appended):
            connection.execute(_insert(len(chunk)), [value for row in chunk for value in row])
        if self.charged:
            connection.executemany("UPDATE message SET attempts = ? WHERE sequence = ?", self.charged)
        if self.buried:
            connection.executemany(schema.INSERT_DEAD, self.buried)
        for gone in chunks(list(self.gone)):
            connection.execute(_delete(len(gone)), gone)


_insert = cache(schema.insert_messages)
_delete = cache(schema.delete_messages)


def chunks(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Cut a sequence into parts of few different lengths, so that few statements do for all of them."""
    start = 0
    for size in _CHUNKS:
        while len(items) - start >= size:
            yield items[start : start + size]
            start += size


def write(connection: sqlite3.Connection, operations: Iterable[Operation], max_dead_letters: int) -> int:
    """Do operations in one transaction, all of them or none.

    Args:
        connection: To the file.
        operations: In the order in which they were asked for.
        max_dead_letters: Dead letters kept; the oldest go.

    Returns:
        How many dead letters had to go.

    Raises:
        sqlite3.Error: Nothing was written.
    """
    with transaction(connection):
        return _write_all(connection, operations, max_dead_letters)


def _write_all(connection: sqlite3.Connection, operations: Iterable[Operation], max_dead_letters: int) -> int:
    dropped = 0
    gathered = _Gathered()
    for operation in operations:
        if gathered.add(operation):
            continue
        dropped += _flush(connection, gathered, max_dead_letters)
        gathered = _Gathered()
        if operation.call is not None:
            operation.result = operation.call(connection)
        else:
            gathered.add(operation)
    return dropped + _flush(connection, gathered, max_dead_letters)


def _flush(connection: sqlite3.Connection, gathered: _Gathered, max_dead_letters: int) -> int:
    gathered.write(connection)
    return trim_dead(connection, max_dead_letters) if gathered.buried else 0


def trim_dead(connection: sqlite3.Connection, max_dead_letters: int) -> int:
    """Delete the oldest dead letters beyond the bound; return how many."""
    return connection.execute(
        "DELETE FROM dead_letter WHERE number <= "
        "(SELECT number FROM dead_letter ORDER BY number DESC LIMIT 1 OFFSET ?)",
        (max_dead_letters,),
    ).rowcount


# The one thread that touches the file of an outbox: it commits what was queued, many at a time.

_logger = logging.getLogger("realtime_fsm.outbox")


class OutboxWriter(SqliteThread[Operation]):
    """Owns the file of an outbox from ``start`` to its end, and does what is asked of it in order.

    Args:
        file: The file.
        max_dead_letters: Dead letters kept.
        report: Called on the loop with errors that nobody waits for.

    Attributes:
        opened: What the file held, or why it could not be opened.
        ended: Resolved when the file is released.
        dropped_dead_letters: Dead letters that had to make room.
    """

    NAME = "realtime-outbox"
    LINGER = 0.005
    LONGEST_PAUSE = 5.0
    IS_DAEMON = False  # what was said to be kept has to be written before the process ends
    LOGGER = _logger
    SEVERITY = logging.ERROR

    def __init__(
        self, file: OutboxFile, *, max_dead_letters: int, report: Callable[[RealtimeError], None]
    ) -> None:
        super().__init__(f"the outbox {file.path}", report)
        self._file = file
        self._max_dead_letters = max_dead_letters
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[OutboxContents] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self.dropped_dead_letters = 0
        self._owned: OwnedFile | None = None
        self._syncs = True

    # Called on the loop's thread.

    def put(self, operation: Operation) -> None:
        """Queue an operation. Never waits."""
        self._backlog.put(operation)
        if self.ended.done():
            self._refuse_rest()

    def _finish(self) -> None:
        """Note the end: the last thing that the thread tells."""
        if not self.ended.done():
            self.ended.set_result(None)
        self._refuse_rest()

    def _refuse_rest(self) -> None:
        _finish_all(self._backlog.clear(), OutboxStorageError(f"The outbox {self._file.path} is closed."))

    # Called on its own thread.

    def _begin(self) -> bool:
        try:
            self._owned, contents = self._file.open_or_renew(
                _contents, lambda error: self._tell(self._report, error)
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, whoever waits must hear of it
            self._tell(_fail, self.opened, self._as_realtime_error(error))
            return False
        self._tell(_resolve, self.opened, contents)
        return True

    def _is_upkeep_due(self) -> bool:
        return (
            self._owned is not None and self._owned.is_lost
        )  # so that people hear of it though nobody emits

    def _commit(self, items: Sequence[Operation]) -> None:
        if self._owned is None:
            raise InternalError(f"The outbox {self._file.path} is written before it was opened.")
        self._owned.check()
        connection = self._owned.connection
        syncs = any(operation.is_urgent for operation in items)
        if syncs is not self._syncs:  # where nobody waits, nothing has to wait for the disk
            level = SYNCHRONOUS[self._file.durability if syncs else "process"]
            connection.execute(f"PRAGMA synchronous = {level}")
            self._syncs = syncs
        dropped = write(connection, items, self._max_dead_letters)
        if dropped:
            self.dropped_dead_letters += dropped
            _logger.warning(
                "%d dead letters were dropped from the outbox %s: it keeps %d",
                dropped,
                self._file.path,
                self._max_dead_letters,
            )

    def _committed(self, items: Sequence[Operation]) -> None:
        self._tell(_finish_all, items, None)  # many with one call into the loop

    def _rejected(self, item: Operation, error: Exception) -> None:
        translated = self._as_storage_error(error)
        if item.is_urgent:
            self._failed([item], translated)
        else:
            self._tell(self._report, translated)

    def _failed(self, items: Sequence[Operation], error: RealtimeError) -> None:
        self._tell(_finish_all, items, error)

    def _mended(self, error: Exception) -> bool:
        if code_of(error) == sqlite3.SQLITE_FULL and self._owned is not None:
            # The WAL's room may be all that is missing.
            with contextlib.suppress(sqlite3.Error):  # or not even for that there is room
                self._owned.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return False

    def _as_storage_error(self, error: Exception) -> OutboxStorageError:
        return storage_error(self._file.path, "written", error)

    def _broke(self, error: Exception) -> None:
        self._tell(self._report, self._as_realtime_error(error))

    def _end(self, left: Sequence[Operation]) -> None:
        path = self._file.path
        if self._owned is not None:
            self._owned.close()
        self._failed(left, OutboxStorageError(f"The outbox {path} was closed before it could be written."))
        lost = sum(not operation.is_urgent for operation in left)
        if lost:
            self._tell(
                self._report,
                OutboxStorageError(
                    f"The outbox {path} was closed before {lost} changes could be written.",
                    remedy="Messages that came to their end may be sent again by the next start.",
                ),
            )
        self._tell(self._finish)

    def _as_realtime_error(self, error: Exception) -> RealtimeError:
        if isinstance(error, RealtimeError):
            return error
        internal = InternalError(f"The outbox {self._file.path} failed: {type(error).__name__}: {error}.")
        internal.__cause__ = error
        return internal


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


def _contents(connection: sqlite3.Connection) -> OutboxContents:
    """In the writer's thread: build the messages; nothing of them is decoded.

    What has changed on the disk goes to the dead letters: nobody knows any more what was to be sent.
    """
    waiting, letters = [], []
    for row in connection.execute(schema.SELECT_WAITING):
        if schema.is_sound(row):
            waiting.append(schema.message_from(row, is_stored=True))
        else:
            letters.append(schema.damaged(row, time.time()))
    damaged = [schema.letter_from(letter) for letter in letters]
    if letters:
        with transaction(connection):
            connection.executemany(schema.INSERT_DEAD, letters)
            connection.executemany(_delete(1), [letter[:1] for letter in letters])
    return OutboxContents(
        client_id=str(schema.meta(connection, "client_id", "")),
        last_sequence=schema.last_sequence(connection),
        waiting=waiting,
        damaged=damaged,
    )


# The port, as the client holds it.

CLOSE_TIMEOUT: Final = FLUSH_TIMEOUT + 2 * BUSY_TIMEOUT
"""Seconds that ``close`` takes, at most, on a file that cannot be written."""

_JOIN_TIMEOUT: Final = 1.0


class SqliteOutbox:
    """The outbox in a file, for one client at a time.

    The file is of mode 0600 and holds the messages in plain text. Beside it lie ``-wal`` and ``-shm`` while
    it is open, and ``-owner``, which stays: it is what the owner locks.

    Args:
        path: The file; created if it is missing, in a folder that exists.
        durability: ``power``: a message that was kept survives a power cut. ``process``: it survives the end
            of the process, however it ends; several times as fast.
        max_dead_letters: Dead letters kept; the oldest make room.
        report: Called on the loop with errors that nobody awaits.

    Raises:
        ConfigurationError: If an argument is wrong.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: str = "power",
        max_dead_letters: int = 1000,
        report: Callable[[RealtimeError], None],
    ) -> None:
        if durability not in SYNCHRONOUS:
            raise ConfigurationError(f"durability={durability!r} must be one of {', '.join(SYNCHRONOUS)}")
        if max_dead_letters < 0:
            raise ConfigurationError(f"max_dead_letters={max_dead_letters} must not be negative")
        self._file = OutboxFile(Path(os.path.realpath(path)), durability)
        self._max_dead_letters = max_dead_letters
        self._report = report
        self._writer: OutboxWriter | None = None
        self._is_open = False
        self._dropped_before = 0

    def __repr__(self) -> str:
        return f"<SqliteOutbox {self._file.path} {'open' if self._is_open else 'closed'}>"

    @property
    def is_durable(self) -> bool:
        """Always true: what was kept outlives the process."""
        return True

    @property
    def dropped_dead_letters(self) -> int:
        """Dead letters that had to make room for newer ones, since the outbox was made."""
        return self._dropped_before + (0 if self._writer is None else self._writer.dropped_dead_letters)

    async def open(self) -> OutboxContents:
        """Open the file and return what it holds; see ``Outbox.open``."""
        if self._writer is not None and self._writer.ended.get_loop().is_closed():
            # Whoever had it open is gone, and with its loop the thread that owned the file, by itself.
            await asyncio.to_thread(self._writer.join, CLOSE_TIMEOUT)
            self._dropped_before += self._writer.dropped_dead_letters
            self._writer, self._is_open = None, False
        if self._writer is not None:
            raise OutboxStorageError(
                f"The outbox {self._file.path} is open already.", remedy="Close it first."
            )
        writer = self._writer = OutboxWriter(
            self._file, max_dead_letters=self._max_dead_letters, report=self._report
        )
        writer.start()
        try:
            contents = await writer.opened
        except BaseException:
            await self.close()
            raise
        self._is_open = True
        return contents

    def append(self, message: Message) -> asyncio.Future[None]:
        """Keep a message; see ``Outbox.append``."""
        return self._ask(
            Operation(kind=OperationKind.APPEND, rows=(schema.message_row(message),), messages=(message,))
        )

    def remove(self, message: Message) -> None:
        """Forget a kept message that has come to its end; see ``Outbox.remove``."""
        self._tell(Operation(kind=OperationKind.REMOVE, rows=((message.sequence,),)))

    def claim(self, messages: Collection[Message]) -> asyncio.Future[None] | None:
        """Forget kept messages for certain; see ``Outbox.claim``."""
        if not messages:
            return None
        rows = [(message.sequence,) for message in messages]
        return self._ask(
            Operation(kind=OperationKind.REMOVE, rows=rows, messages=tuple(messages), is_stored=False)
        )

    def charge(self, message: Message) -> None:
        """Keep a kept message's attempts; see ``Outbox.charge``."""
        self._tell(Operation(kind=OperationKind.CHARGE, rows=((message.attempts, message.sequence),)))

    def probe(self, size_bytes: int) -> asyncio.Future[None]:
        """Try whether so many bytes could be kept; see ``Outbox.probe``."""
        probed = self._ask(Operation(kind=OperationKind.CALL, call=partial(_set_probe, "x" * size_bytes)))
        probed.add_done_callback(self._forget_probe)
        return probed

    def bury(self, letter: DeadLetter) -> None:
        """Move a message to the dead letters; see ``Outbox.bury``."""
        self._tell(Operation(kind=OperationKind.BURY, rows=(schema.letter_row(letter),)))

    async def dead_letters(self) -> list[DeadLetter]:
        """Return the dead letters, the oldest first.

        Raises:
            OutboxStorageError: If they cannot be read.
        """
        rows = await self._ask(Operation(kind=OperationKind.CALL, call=_dead_rows))
        return [schema.letter_from(row) for row in rows]

    async def take_dead(self, message_ids: Collection[str] | None = None) -> list[DeadLetter]:
        """Remove and return dead letters; see ``Outbox.take_dead``. If it is cancelled they are put back.

        Raises:
            OutboxStorageError: If they cannot be removed: they are all still there.
        """
        wanted = None if message_ids is None else frozenset(message_ids)
        return [schema.letter_from(row) for row in await self._ask(_taking(wanted, self._put_back))]

    async def close(self) -> None:
        """Write what is left to be written, and release the file; see ``Outbox.close``."""
        self._is_open = False
        writer = self._writer
        if writer is None:
            return
        writer.stop()
        await asyncio.wait({writer.ended}, timeout=CLOSE_TIMEOUT)
        if not writer.join(_JOIN_TIMEOUT if writer.ended.done() else 0.0):
            self._report(
                OutboxStorageError(
                    f"The outbox {self._file.path} did not close within {CLOSE_TIMEOUT:g} seconds.",
                    remedy="Check the disk: it does not answer.",
                )
            )
        if self._writer is writer:
            self._dropped_before += writer.dropped_dead_letters
            self._writer = None

    def _forget_probe(self, _: object) -> None:
        if self._is_open:
            self._tell(Operation(kind=OperationKind.CALL, call=partial(_set_probe, None)))

    def _put_back(self, rows: list[schema.Row]) -> None:
        self._tell(Operation(kind=OperationKind.BURY, rows=rows))

    def _ask(self, operation: Operation) -> asyncio.Future[Any]:
        future = operation.future = asyncio.get_running_loop().create_future()
        if self._is_open and self._writer is not None:
            self._writer.put(operation)
        else:
            future.set_exception(self._not_open())
        return future

    def _tell(self, operation: Operation) -> None:
        if self._is_open and self._writer is not None:
            self._writer.put(operation)
        else:
            self._report(self._not_open())

    def _not_open(self) -> OutboxStorageError:
        return OutboxStorageError(f"The outbox {self._file.path} is not open.", remedy="Open it first.")


def _set_probe(value: str | None, connection: sqlite3.Connection) -> None:
    # Gone in a transaction of its own: in the same one the pages would not be written at all.
    schema.set_meta(connection, "probe", value)


def _dead_rows(connection: sqlite3.Connection) -> list[schema.Row]:
    return connection.execute(schema.SELECT_DEAD).fetchall()


def _taking(wanted: frozenset[str] | None, put_back: Callable[[list[schema.Row]], None]) -> Operation:
    """Return the operation that takes dead letters: by their messages' ids, or all for ``None``."""

    def take(connection: sqlite3.Connection) -> list[schema.Row]:
        rows = [row for row in _dead_rows(connection) if wanted is None or row[1] in wanted]
        connection.executemany("DELETE FROM dead_letter WHERE message_id = ?", [(row[1],) for row in rows])
        return rows

    return Operation(kind=OperationKind.CALL, call=take, on_abandoned=put_back)
