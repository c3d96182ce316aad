"""The content of an outbox's file: its tables, their versions, and how a message becomes a row."""

import sqlite3
import uuid
from typing import Any, Final

from realtime_fsm.adapters.sqlite_file import transaction
from realtime_fsm.engine.message import DeadLetter, Message, Receipt
from realtime_fsm.engine.payload import Payload
from realtime_fsm.machine.delivery import Delivery, Outcome

Row = tuple[Any, ...]

APPLICATION_ID: Final = 0x52544F42
"""``RTOB``: tells an outbox from any other database (``PRAGMA application_id``)."""

_COLUMNS: Final = (
    "sequence, message_id, event, delivery, wants_ack, accepted_at, expires_at, attempts, size_bytes, "
    "text, attachments"
)
_LETTER_COLUMNS: Final = f"{_COLUMNS}, reason, died_at"
_WIDTH: Final = _COLUMNS.count(",") + 1

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

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        "CREATE TABLE meta (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID",
        "INSERT INTO meta VALUES ('last_sequence', 0)",
        f"CREATE TABLE message (sequence INTEGER PRIMARY KEY, {_MESSAGE})",
        f"CREATE TABLE dead_letter (number INTEGER PRIMARY KEY, sequence INTEGER NOT NULL, {_LETTER})",
        f"PRAGMA application_id = {APPLICATION_ID}",
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
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number}")


def check_shape(connection: sqlite3.Connection) -> None:
    """Do nothing if all tables and columns are there.

    Raises:
        sqlite3.OperationalError: If one is missing.
    """
    for statement in _SHAPE:
        connection.execute(statement)


def last_sequence(connection: sqlite3.Connection) -> int:
    """Return the highest number that any message ever had."""
    return int(meta(connection, "last_sequence", 0))


def client_id(connection: sqlite3.Connection) -> str:
    """Return the identity of the client; made the first time that it is asked for."""
    known = meta(connection, "client_id", None)
    if known is None:
        known = uuid.uuid4().hex[:12]
        set_meta(connection, "client_id", known)
    return str(known)


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
    return (
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
    )


def letter_row(letter: DeadLetter) -> Row:
    """Return a dead letter as a row. A reason may hold what a server said: whatever it is, it is kept.

    Where the server has refused it, its number is used up, and 0 stands in its place.
    """
    reason = letter.reason.encode(errors="backslashreplace").decode()
    sequence, *columns = message_row(letter.message)
    return (0 if letter.is_refused else sequence, *columns, reason, letter.died_at)


def message_from(row: Row, *, is_stored: bool) -> Message:
    """Return the message of a row, with a fresh receipt.

    Raises:
        ValueError: If the row is none that was written here.
    """
    sequence, message_id, event, delivery, wants_ack, accepted_at, expires_at, attempts, _, text, blob = row
    return Message(
        event=event,
        payload=Payload(text, unpack(blob)) if blob else Payload(text),
        delivery=Delivery(delivery),
        wants_ack=bool(wants_ack),
        receipt=Receipt(event, message_id),
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
    message.receipt.settle(Outcome.DEAD, reason=reason)
    is_refused = message.sequence == 0
    return DeadLetter(message=message, reason=reason, died_at=died_at, is_refused=is_refused)


def revived(row: Row, fresh: int) -> Row:
    """Return the row of a message that waits again, from that of its dead letter.

    Args:
        row: Of the dead letter.
        fresh: The number that it gets where its own is used up; otherwise the server may have had it.
    """
    own, message_id, event, delivery, wants_ack, accepted_at, _, _, size_bytes, text, attachments, _, _ = row
    return (
        own or fresh,
        message_id,
        event,
        delivery,
        wants_ack,
        accepted_at,
        None,
        0,
        size_bytes,
        text,
        attachments,
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
