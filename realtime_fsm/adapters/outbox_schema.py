"""The content of an outbox's file: its tables, their versions, and how a message becomes a row."""

import sqlite3
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Final

from realtime_fsm.adapters.sqlite_file import code_of, transaction
from realtime_fsm.engine.message import DeadLetter, Message, Receipt
from realtime_fsm.engine.outbox import new_client_id
from realtime_fsm.engine.payload import Payload
from realtime_fsm.machine.delivery import Delivery, Outcome

Row = tuple[Any, ...]

APPLICATION_ID: Final = 0x52544F42
"""``RTOB``: tells an outbox from any other database (``PRAGMA application_id``)."""

_COLUMNS: Final = (
    "sequence, message_id, event, delivery, wants_ack, accepted_at, expires_at, attempts, size_bytes, "
    "text, attachments, client_id, checksum"
)
_LETTER_COLUMNS: Final = f"{_COLUMNS}, reason, died_at"
_WIDTH: Final = _COLUMNS.count(",") + 1
_OLDEST: Final = _COLUMNS.removesuffix(", client_id, checksum")
_SUMMED: Final = _COLUMNS.removesuffix(", checksum")

_MESSAGE: Final = """
    message_id TEXT NOT NULL,
    event TEXT NOT NULL,
    delivery TEXT NOT NULL,
    wants_ack INTEGER NOT NULL,
    accepted_at REAL NOT NULL,
    expires_at REAL,
    attempts INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    text TEXT NOT NULL,
    attachments BLOB NOT NULL
"""

_LETTER: Final = f"{_MESSAGE}, reason TEXT NOT NULL, died_at REAL NOT NULL, UNIQUE (message_id)"


def _sum_up(connection: sqlite3.Connection) -> None:
    """Give every row its checksum."""
    connection.create_function("checksum_of", _WIDTH - 1, lambda *row: checksum_of(row), deterministic=True)
    for table in ("message", "dead_letter"):
        connection.execute(f"UPDATE {table} SET checksum = checksum_of({_SUMMED})")  # noqa: S608 - of constants


Step = tuple[str | Callable[[sqlite3.Connection], None], ...]
MIGRATIONS: Final[tuple[Step, ...]] = (
    (
        "CREATE TABLE meta (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID",
        "INSERT INTO meta VALUES ('last_sequence', 0)",
        f"CREATE TABLE message (sequence INTEGER PRIMARY KEY, {_MESSAGE})",
        f"CREATE TABLE dead_letter (number INTEGER PRIMARY KEY, sequence INTEGER NOT NULL, {_LETTER})",
        f"PRAGMA application_id = {APPLICATION_ID}",
    ),
    (
        # Each message keeps the identity with which it was accepted, and says whether it is still the same.
        "ALTER TABLE message ADD COLUMN client_id TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE message ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE dead_letter ADD COLUMN client_id TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE dead_letter ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0",
        "UPDATE message SET client_id = coalesce((SELECT value FROM meta WHERE name = 'client_id'), '')",
        "UPDATE dead_letter SET client_id = coalesce((SELECT value FROM meta WHERE name = 'client_id'), '')",
        _sum_up,
    ),
)
"""The steps from nothing to the newest version. A step that was released is never changed: append one."""

VERSION: Final = len(MIGRATIONS)
"""The newest version (``PRAGMA user_version``)."""

SELECT_WAITING: Final = f"SELECT {_COLUMNS} FROM message ORDER BY sequence"  # noqa: S608 - of constants
SELECT_DEAD: Final = f"SELECT {_LETTER_COLUMNS} FROM dead_letter ORDER BY number"  # noqa: S608 - of constants
INSERT_DEAD: Final = (
    f"INSERT OR REPLACE INTO dead_letter ({_LETTER_COLUMNS}) "  # noqa: S608 - of constants
    f"VALUES ({', '.join('?' * (_WIDTH + 2))})"
)
RAISE_LAST_SEQUENCE: Final = "UPDATE meta SET value = max(value, ?) WHERE name = 'last_sequence'"
_SHAPE: Final = (
    "SELECT name, value FROM meta LIMIT 0",
    f"SELECT {_COLUMNS} FROM message LIMIT 0",  # noqa: S608 - of constants
    f"SELECT number, {_LETTER_COLUMNS} FROM dead_letter LIMIT 0",  # noqa: S608 - of constants
)

_LENGTH_BYTES: Final = 4
_NOT_A_ROW: Final = (
    ValueError,
    TypeError,
    AttributeError,
    OverflowError,
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
)
"""What comes of it when the content of a row is not what was written there."""


def insert_messages(count: int) -> str:
    """Return the statement that inserts so many messages at once."""
    values = ", ".join([f"({', '.join('?' * _WIDTH)})"] * count)
    return f"INSERT INTO message ({_COLUMNS}) VALUES {values}"  # noqa: S608 - of constants


def delete_messages(count: int) -> str:
    """Return the statement that deletes so many messages at once."""
    return f"DELETE FROM message WHERE sequence IN ({', '.join('?' * count)})"  # noqa: S608 - of constants


def migrate(connection: sqlite3.Connection, version: int) -> None:
    """Bring a file of an older version to the newest one, step by step, each whole or not at all."""
    for number, step in enumerate(MIGRATIONS[version:], start=version + 1):
        with transaction(connection):
            for statement in step:
                if isinstance(statement, str):
                    connection.execute(statement)
                else:
                    statement(connection)
            connection.execute(f"PRAGMA user_version = {number}")


def check_shape(connection: sqlite3.Connection) -> None:
    """Do nothing if all tables and columns are there.

    Raises:
        sqlite3.OperationalError: If one is missing.
    """
    for statement in _SHAPE:
        connection.execute(statement)


def is_ours(connection: sqlite3.Connection) -> bool:
    """Tell by its tables whether a file is an outbox, of whatever version, that has lost its mark."""
    try:
        for statement in (
            "SELECT value FROM meta WHERE name = 'last_sequence'",
            f"SELECT {_OLDEST} FROM message LIMIT 0",  # noqa: S608 - of constants
            f"SELECT number, {_OLDEST}, reason, died_at FROM dead_letter LIMIT 0",  # noqa: S608 - of constants
        ):
            connection.execute(statement).fetchall()
    except sqlite3.OperationalError as error:
        if code_of(error) != sqlite3.SQLITE_ERROR:
            raise
        return False
    return True


def last_sequence(connection: sqlite3.Connection) -> int:
    """Return the highest number that any message ever had."""
    return int(meta(connection, "last_sequence", 0))


def renew_client_id(connection: sqlite3.Connection) -> str:
    """Draw, keep and return an identity for what is accepted from now on.

    Whoever opens a copy of the file draws another one, so that no number is ever lent twice.
    """
    known = new_client_id()
    set_meta(connection, "client_id", known)
    return known


def meta(connection: sqlite3.Connection, name: str, default: Any) -> Any:
    """Return a value of the table ``meta``."""
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    return default if row is None else row[0]


def set_meta(connection: sqlite3.Connection, name: str, value: str | int | None) -> None:
    """Set a value of the table ``meta``; ``None`` deletes it."""
    if value is None:
        connection.execute("DELETE FROM meta WHERE name = ?", (name,))
    else:
        connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))


def message_row(message: Message) -> Row:
    """Return a message as a row."""
    payload = message.payload
    return summed(
        message.sequence,
        message.receipt.message_id,
        message.event,
        message.delivery.value,
        message.wants_ack,
        message.accepted_at,
        message.expires_at,
        message.attempts,
        message.size_bytes,
        payload.text,
        pack(payload.attachments) if payload.attachments else b"",
        message.client_id,
    )


def summed(*row: Any) -> Row:
    """Return the row of a message with its checksum."""
    return (*row, checksum_of(row))


def checksum_of(row: Sequence[Any]) -> int:
    """Return the checksum of what must never change in a row: all but the attempts.

    Raises:
        TypeError, ValueError: If it cannot be the row of a message.
    """
    (
        sequence,
        message_id,
        event,
        delivery,
        wants_ack,
        accepted_at,
        expires_at,
        _,
        size_bytes,
        text,
        blob,
        who,
    ) = row
    expiry = None if expires_at is None else float(expires_at)
    head = (
        int(sequence),
        message_id,
        event,
        delivery,
        int(wants_ack),
        float(accepted_at),
        expiry,
        size_bytes,
        who,
    )
    total = zlib.crc32(repr(head).encode("utf-8", "surrogatepass"))
    return zlib.crc32(blob, zlib.crc32(str.encode(text, "utf-8", "surrogatepass"), total))


def is_sound(row: Row) -> bool:
    """Tell whether the row of a message, or of a dead letter, is as it was written."""
    try:
        return bool(checksum_of(row[: _WIDTH - 1]) == row[_WIDTH - 1])
    except (TypeError, ValueError):
        return False


def letter_row(letter: DeadLetter) -> Row:
    """Return a dead letter as a row. A reason may hold what a server said: whatever it is, it is kept.

    Where the server has refused it, its number is used up, and 0 stands in its place.
    """
    reason = letter.reason.encode(errors="backslashreplace").decode()
    row = message_row(letter.message)
    if letter.is_refused:
        row = summed(0, *row[1:-1])
    return (*row, reason, letter.died_at)


def message_from(row: Row, *, is_stored: bool) -> Message:
    """Return the message of a row, with a fresh receipt.

    Raises:
        ValueError: If the row is none that was written here.
    """
    (
        sequence,
        message_id,
        event,
        delivery,
        wants_ack,
        accepted_at,
        expires_at,
        attempts,
        _,
        text,
        blob,
        client_id,
        _,
    ) = row
    return Message(
        event=event,
        payload=Payload(text, unpack(blob)) if blob else Payload(text),
        delivery=Delivery(delivery),
        wants_ack=bool(wants_ack),
        receipt=Receipt(event, message_id),
        client_id=client_id,
        sequence=sequence,
        accepted_at=accepted_at,
        expires_at=expires_at,
        attempts=attempts,
        is_stored=is_stored,
    )


def letter_from(row: Row) -> DeadLetter:
    """Return the dead letter of a row; its receipt is settled, so that nobody waits for it for ever.

    Raises:
        ValueError: If the row is none that was written here.
    """
    *message_columns, reason, died_at = row
    message = message_from(tuple(message_columns), is_stored=False)
    message.is_damaged = not is_sound(row)
    message.receipt.settle(Outcome.DEAD, reason=reason)
    is_refused = message.sequence == 0
    return DeadLetter(message=message, reason=reason, died_at=died_at, is_refused=is_refused)


def damaged(row: Row, died_at: float) -> Row:
    """Return the dead letter of a row that is not as it was written: so that it can be seen, but not sent."""
    return (*row, "its bytes have changed on the disk", died_at)


def salvage_columns(connection: sqlite3.Connection) -> str:
    """Return what to read of a corrupt file's messages, of whatever version it is."""
    try:
        connection.execute(f"SELECT {_COLUMNS} FROM message LIMIT 0")  # noqa: S608 - of constants
    except sqlite3.OperationalError as error:
        if code_of(error) != sqlite3.SQLITE_ERROR:
            raise
        who = str(meta(connection, "client_id", "")).replace("'", "''")
        return f"{_OLDEST}, '{who}', NULL"
    return _COLUMNS


def save_waiting(connection: sqlite3.Connection, row: Row, now: float) -> bool:
    """Write a message from a corrupt file; return whether it waits as it did."""
    try:
        row = row if row[-1] is not None else summed(*row[:-1])
        message_from(row, is_stored=False)
        if not is_sound(row):
            connection.execute(INSERT_DEAD, damaged(row, now))
            return False
        connection.execute(insert_messages(1), row)
        connection.execute(RAISE_LAST_SEQUENCE, (row[0],))
    except _NOT_A_ROW:
        return False
    return True


def save_dead(connection: sqlite3.Connection, row: Row) -> bool:
    """Write a dead letter from a corrupt file; return whether it could be."""
    try:
        *columns, reason, died_at = row
        columns = columns if columns[-1] is not None else list(summed(*columns[:-1]))
        message_from(tuple(columns), is_stored=False)
        connection.execute(INSERT_DEAD, (*columns, reason, died_at))
    except _NOT_A_ROW:
        return False
    return True


def revived(row: Row, fresh: int, client_id: str) -> Row:
    """Return the row of a message that waits again, from that of its dead letter.

    Args:
        row: Of the dead letter.
        fresh: The number that it gets where its own is used up; otherwise the server may have had it.
        client_id: Whose number that is.
    """
    own, name, event, delivery, wants_ack, accepted_at, _, _, size_bytes, text, attachments, who, *_ = row
    return summed(
        own or fresh,
        name,
        event,
        delivery,
        wants_ack,
        accepted_at,
        None,
        0,
        size_bytes,
        text,
        attachments,
        who if own else client_id,
    )


def pack(parts: tuple[bytes, ...]) -> bytes:
    """Return binary parts as one, each after its length."""
    return b"".join(len(part).to_bytes(_LENGTH_BYTES, "big") + part for part in parts)


def unpack(blob: bytes) -> tuple[bytes, ...]:
    """Return the parts that ``pack`` joined.

    Raises:
        ValueError: If it was not made by ``pack``.
    """
    parts = []
    start = 0
    while start < len(blob):
        begin = start + _LENGTH_BYTES
        start = begin + int.from_bytes(blob[start:begin], "big")
        if begin > len(blob) or start > len(blob):
            raise ValueError("the binary parts of a message are cut short")
        parts.append(blob[begin:start])
    return tuple(parts)
