"""What a person does with the file of an outbox: look into it, and decide about its dead letters."""

import os
import sqlite3
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Final

from attrs import frozen

from realtime_fsm.adapters import sqlite_schema as schema
from realtime_fsm.adapters.sqlite_error import storage_error
from realtime_fsm.adapters.sqlite_file import OutboxFile
from realtime_fsm.adapters.sqlite_schema import Row

_ENTRY: Final = "sequence, message_id, event, delivery, accepted_at, expires_at, attempts, size_bytes"


@frozen(kw_only=True)
class Entry:
    """What there is to say of a message, without its body.

    Attributes:
        sequence: Its number among the client's messages.
        message_id: Its identity.
        event: Name of the event.
        delivery: What was promised.
        accepted_at: Seconds since the Unix epoch.
        expires_at: When it is no longer to be sent, in the same; ``None`` for never.
        attempts: How often a connection ended while it was the first to be acknowledged.
        size_bytes: Of the payload.
    """

    sequence: int
    message_id: str
    event: str
    delivery: str
    accepted_at: float
    expires_at: float | None
    attempts: int
    size_bytes: int


@frozen(kw_only=True)
class DeadEntry(Entry):
    """A dead letter, without its body.

    Attributes:
        reason: Why it was given up.
        died_at: Seconds since the Unix epoch.
    """

    reason: str
    died_at: float


@frozen(kw_only=True)
class Inventory:
    """What a file holds.

    Attributes:
        client_id: Identity of the client.
        last_sequence: The highest number that any message ever had.
        count: Messages that wait.
        size_bytes: Of their payloads.
        oldest_accepted_at: When the oldest of them was accepted; ``None`` where none waits.
        waiting: The first of them, in order.
        dead: The dead letters, the oldest first.
    """

    client_id: str
    last_sequence: int
    count: int
    size_bytes: int
    oldest_accepted_at: float | None
    waiting: Sequence[Entry]
    dead: Sequence[DeadEntry]


@frozen(kw_only=True)
class Change:
    """What became of a wish.

    Attributes:
        done: Ids of the messages it was done to.
        unknown: Ids that belong to no dead letter. If there is one, nothing was done.
    """

    done: Sequence[str] = ()
    unknown: Sequence[str] = ()


def look(path: str | os.PathLike[str], *, limit: int) -> Inventory:
    """Return what a file holds. It may be in use.

    Args:
        path: The file.
        limit: Waiting messages to be listed one by one.

    Raises:
        OutboxStorageError: If it is missing, or no outbox that can be read.
    """

    def read(connection: sqlite3.Connection) -> Inventory:
        count, size_bytes, oldest = connection.execute(
            "SELECT count(*), total(size_bytes), min(accepted_at) FROM message"
        ).fetchone()
        waiting = connection.execute(
            f"SELECT {_ENTRY} FROM message ORDER BY sequence LIMIT ?",  # noqa: S608 - of constants
            (limit,),
        )
        dead = connection.execute(
            f"SELECT {_ENTRY}, reason, died_at FROM dead_letter ORDER BY number"  # noqa: S608 - of constants
        )
        return Inventory(
            client_id=str(schema.meta(connection, "client_id", "")),
            last_sequence=schema.last_sequence(connection),
            count=count,
            size_bytes=int(size_bytes),
            oldest_accepted_at=oldest,
            waiting=[Entry(**_named(waiting, row)) for row in waiting],
            dead=[DeadEntry(**_named(dead, row)) for row in dead],
        )

    return _file(path).read_only(read)


def retry(path: str | os.PathLike[str], message_ids: Collection[str] | None) -> Change:
    """Let dead letters wait again: behind all others, with a new number, no attempts and no expiry.

    Args:
        path: The file. Nobody may be using it.
        message_ids: Of the dead letters; ``None`` for all.

    Raises:
        OutboxStorageError: If it is missing, in use, or cannot be written.
    """

    def revive(connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
        for number, row in enumerate(rows, start=schema.last_sequence(connection) + 1):
            connection.execute(schema.insert_messages(1), schema.revived(row, number))
            connection.execute(schema.RAISE_LAST_SEQUENCE, (number,))

    return _change(path, message_ids, revive)


def drop(path: str | os.PathLike[str], message_ids: Collection[str] | None) -> Change:
    """Delete dead letters for good. Arguments and errors as for ``retry``."""
    return _change(path, message_ids, lambda _, __: None)


def _change(
    path: str | os.PathLike[str],
    message_ids: Collection[str] | None,
    keep: Callable[[sqlite3.Connection, Sequence[Row]], None],
) -> Change:
    """Take dead letters out of a file, after what is to be kept of them was kept; all or nothing."""
    file = _file(path)
    owned = file.open_existing()
    try:
        connection = owned.connection
        connection.execute("BEGIN IMMEDIATE")  # what is not committed ends with the connection
        rows = connection.execute(schema.SELECT_DEAD).fetchall()
        known = {row[1] for row in rows}
        if message_ids is not None:
            unknown = [message_id for message_id in dict.fromkeys(message_ids) if message_id not in known]
            if unknown:
                return Change(unknown=unknown)
            rows = [row for row in rows if row[1] in message_ids]
        keep(connection, rows)
        done = [str(row[1]) for row in rows]
        connection.executemany("DELETE FROM dead_letter WHERE message_id = ?", [(one,) for one in done])
        connection.execute("COMMIT")
        return Change(done=done)
    except sqlite3.Error as error:
        raise storage_error(file.path, "written", error) from error
    finally:
        owned.close()


def _file(path: str | os.PathLike[str]) -> OutboxFile:
    return OutboxFile(Path(os.path.realpath(path)))


def _named(cursor: sqlite3.Cursor, row: Row) -> dict[str, Any]:
    return {column[0]: value for column, value in zip(cursor.description, row, strict=True)}
