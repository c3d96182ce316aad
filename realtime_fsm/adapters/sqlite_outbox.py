"""The port ``Outbox`` on SQLite: what was kept survives the process, and with ``power`` a power cut."""

import asyncio
import os
import sqlite3
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Final

from realtime_fsm.adapters import sqlite_schema as schema
from realtime_fsm.adapters.sqlite_backlog import FLUSH_TIMEOUT
from realtime_fsm.adapters.sqlite_batch import Kind, Operation
from realtime_fsm.adapters.sqlite_file import BUSY_TIMEOUT, SYNCHRONOUS, OutboxFile
from realtime_fsm.adapters.sqlite_writer import SqliteWriter
from realtime_fsm.engine.message import DeadLetter, Message
from realtime_fsm.engine.outbox import OutboxContents
from realtime_fsm.machine.errors import ConfigurationError, OutboxStorageError, RealtimeError

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
        self._writer: SqliteWriter | None = None
        self._is_open = False
        self._dropped_before = 0

    def __repr__(self) -> str:
        return f"<SqliteOutbox {self._file.path} {'open' if self._is_open else 'closed'}>"

    @property
    def is_durable(self) -> bool:
        """It is."""
        return True

    @property
    def dropped_dead_letters(self) -> int:
        """How many dead letters had to make room for newer ones."""
        return self._dropped_before + (0 if self._writer is None else self._writer.dropped_dead_letters)

    async def open(self) -> OutboxContents:
        """Open the file and return what it holds; see ``Outbox.open``."""
        if self._writer is not None:
            raise OutboxStorageError(
                f"The outbox {self._file.path} is open already.", remedy="Close it first."
            )
        writer = self._writer = SqliteWriter(
            self._file, _contents, max_dead_letters=self._max_dead_letters, report=self._report
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
            Operation(kind=Kind.APPEND, rows=(schema.message_row(message),), messages=(message,))
        )

    def remove(self, message: Message) -> None:
        """Forget a kept message that has come to its end; see ``Outbox.remove``."""
        self._tell(Operation(kind=Kind.REMOVE, rows=((message.sequence,),)))

    def claim(self, messages: Collection[Message]) -> asyncio.Future[None] | None:
        """Forget kept messages for certain; see ``Outbox.claim``."""
        if not messages:
            return None
        rows = [(message.sequence,) for message in messages]
        return self._ask(Operation(kind=Kind.REMOVE, rows=rows, messages=tuple(messages), is_stored=False))

    def charge(self, message: Message) -> None:
        """Keep a kept message's attempts; see ``Outbox.charge``."""
        self._tell(Operation(kind=Kind.CHARGE, rows=((message.attempts, message.sequence),)))

    def bury(self, letter: DeadLetter) -> None:
        """Move a message to the dead letters; see ``Outbox.bury``."""
        self._tell(Operation(kind=Kind.BURY, rows=(schema.letter_row(letter),)))

    async def dead_letters(self) -> list[DeadLetter]:
        """Return the dead letters, the oldest first.

        Raises:
            OutboxStorageError: If they cannot be read.
        """
        rows = await self._ask(Operation(kind=Kind.CALL, call=_dead_rows))
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

    def _put_back(self, rows: list[schema.Row]) -> None:
        self._tell(Operation(kind=Kind.BURY, rows=rows))

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


def _contents(connection: sqlite3.Connection) -> OutboxContents:
    """In the writer's thread: build the messages; nothing of them is decoded."""
    return OutboxContents(
        client_id=schema.client_id(connection),
        last_sequence=schema.last_sequence(connection),
        waiting=[
            schema.message_from(row, is_stored=True) for row in connection.execute(schema.SELECT_WAITING)
        ],
    )


def _dead_rows(connection: sqlite3.Connection) -> list[schema.Row]:
    return connection.execute(schema.SELECT_DEAD).fetchall()


def _taking(wanted: frozenset[str] | None, put_back: Callable[[list[schema.Row]], None]) -> Operation:
    """Return the operation that takes dead letters: by their messages' ids, or all for ``None``."""

    def take(connection: sqlite3.Connection) -> list[schema.Row]:
        rows = [row for row in _dead_rows(connection) if wanted is None or row[1] in wanted]
        connection.executemany("DELETE FROM dead_letter WHERE message_id = ?", [(row[1],) for row in rows])
        return rows

    return Operation(kind=Kind.CALL, call=take, on_abandoned=put_back)
