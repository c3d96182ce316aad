"""What is asked of the file of an outbox, and how many such things become one transaction."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from functools import cache
from typing import Any, Final

from attrs import define, field

from realtime_fsm.adapters import sqlite_schema as schema
from realtime_fsm.adapters.sqlite_schema import Row
from realtime_fsm.engine.message import Message

_CHUNKS: Final = (64, 8, 1)
"""Rows of one statement. Many at once, because each statement gives the interpreter's lock away once, and
beside a busy loop it is slow to come back."""


class Kind(Enum):
    """What is to be done."""

    APPEND = "append"
    CHARGE = "charge"
    BURY = "bury"
    REMOVE = "remove"
    CALL = "call"
    STOP = "stop"


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

    kind: Kind
    rows: Sequence[Row] = ()
    call: Callable[[sqlite3.Connection], Any] | None = None
    future: asyncio.Future[Any] | None = None
    messages: Sequence[Message] = ()
    is_stored: bool = True
    on_abandoned: Callable[[Any], None] | None = None
    result: Any = None

    @property
    def is_urgent(self) -> bool:
        """Whether somebody waits for it."""
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
        if operation.kind is Kind.APPEND:
            if any(row[0] in self.gone for row in rows):  # claimed, and kept again
                return False
            self.appended.extend(rows)
        elif operation.kind is Kind.CHARGE:
            self.charged.extend(rows)
        elif operation.kind is Kind.BURY:
            self.buried.extend(rows)
            self.gone.update((row[0], None) for row in rows)
        elif operation.kind is Kind.REMOVE:
            self.gone.update((row[0], None) for row in rows)
        else:
            return False
        return True

    def write(self, connection: sqlite3.Connection) -> None:
        """Write everything."""
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
    if connection.in_transaction:  # the last one could not even be rolled back
        connection.execute("ROLLBACK")
    connection.execute("BEGIN IMMEDIATE")
    try:
        dropped = _write_all(connection, operations, max_dead_letters)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return dropped


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
