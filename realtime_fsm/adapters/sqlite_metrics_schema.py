"""The tables of a metrics database, and what reads and trims them."""

import sqlite3
from collections.abc import Mapping
from typing import Any, Final

Row = tuple[Any, ...]

APPLICATION_ID: Final = 0x52464D44  # "RFMD"
VERSION: Final = 1

# The bounds keep out what is no time (infinity, milliseconds): one such record would spoil every report.
_TABLES: Final = """
CREATE TABLE run (
    id             INTEGER PRIMARY KEY,
    key            TEXT NOT NULL UNIQUE,
    implementation TEXT NOT NULL,
    version        TEXT NOT NULL,
    instance       TEXT NOT NULL,
    began_at       REAL NOT NULL,
    seen_at        REAL NOT NULL
);
CREATE TABLE change (
    id       INTEGER PRIMARY KEY,
    run      INTEGER NOT NULL REFERENCES run (id),
    at       REAL NOT NULL CHECK (abs(at) < 1e11),
    level    TEXT NOT NULL CHECK (level IN ('live', 'degraded', 'down', 'off')),
    previous TEXT NOT NULL,
    current  TEXT NOT NULL,
    trigger  TEXT NOT NULL,
    cause    TEXT,
    reason   TEXT NOT NULL
);
CREATE TABLE attempt (
    id       INTEGER PRIMARY KEY,
    run      INTEGER NOT NULL REFERENCES run (id),
    at       REAL NOT NULL CHECK (abs(at) < 1e11),
    duration REAL NOT NULL CHECK (duration BETWEEN 0 AND 1e11),
    number   INTEGER NOT NULL,
    cause    TEXT
);
CREATE TABLE outage (
    id        INTEGER PRIMARY KEY,
    run       INTEGER NOT NULL REFERENCES run (id),
    at        REAL NOT NULL CHECK (abs(at) < 1e11),
    ended_at  REAL CHECK (abs(ended_at) < 1e11),
    cause     TEXT NOT NULL,
    recovered INTEGER NOT NULL,
    UNIQUE (run, at)
);
CREATE TABLE latency (
    id      INTEGER PRIMARY KEY,
    run     INTEGER NOT NULL REFERENCES run (id),
    at      REAL NOT NULL CHECK (abs(at) < 1e11),
    seconds REAL NOT NULL CHECK (seconds BETWEEN 0 AND 1e11)
);
CREATE INDEX change_at ON change (at);
CREATE INDEX attempt_at ON attempt (at);
CREATE INDEX outage_at ON outage (at);
CREATE INDEX latency_at ON latency (at);
"""

INSERT: Final[Mapping[str, str]] = {
    "change": (
        "INSERT INTO change (run, at, level, previous, current, trigger, cause, reason) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
    ),
    "attempt": "INSERT INTO attempt (run, at, duration, number, cause) VALUES (?, ?, ?, ?, ?)",
    # An outage is told twice, when it begins and when it ends; either may be all that came through.
    "outage": (
        "INSERT INTO outage (run, at, ended_at, cause, recovered) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT (run, at) DO UPDATE SET ended_at = excluded.ended_at, recovered = excluded.recovered"
    ),
    "latency": "INSERT INTO latency (run, at, seconds) VALUES (?, ?, ?)",
}
"""The tables of records, and what writes a row of each; the run's number comes first."""

BEGIN_RUN: Final = (
    "INSERT INTO run (key, implementation, version, instance, began_at, seen_at) VALUES (?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (key) DO UPDATE SET seen_at = excluded.seen_at RETURNING id"
)
TOUCH_RUN: Final = "UPDATE run SET seen_at = max(seen_at, ?) WHERE id = ?"

_ANY_OF_RUN: Final = {
    table: f"SELECT EXISTS (SELECT 1 FROM {table} WHERE run = ?)"  # noqa: S608 - of constants
    for table in INSERT
}

TRIM_CHUNK: Final = 5000
"""Rows of one table that one transaction deletes, so that none takes long."""


class ForeignFileError(Exception):
    """The file is no metrics database, or one of a newer version."""


def set_up(connection: sqlite3.Connection) -> None:
    """Create the tables where there are none.

    Raises:
        ForeignFileError: If the file belongs to somebody else. It was not changed.
        sqlite3.Error: If it cannot be read or written.
    """
    if not _has_tables(connection):
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        _create(connection)
    check(connection)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")  # metrics may lose their last second with the power
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA journal_size_limit = 4194304")


def check(connection: sqlite3.Connection) -> None:
    """Check that a file is a metrics database of this version.

    Raises:
        ForeignFileError: If it is not.
    """
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if application != APPLICATION_ID:
        raise ForeignFileError("it is not a metrics database")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version != VERSION:
        raise ForeignFileError(f"it has version {version}, and this library knows {VERSION}")


def trim(connection: sqlite3.Connection, *, before: float, max_rows: int) -> int:
    """Delete what is too old or too much, a bounded number of rows at a time; return how many went.

    The last change of a run that is still seen is kept whatever its age: it says how the run is now.
    """
    old_runs = "SELECT id FROM run WHERE seen_at < ?"
    gone = connection.execute(f"DELETE FROM change WHERE run IN ({old_runs})", (before,)).rowcount  # noqa: S608 - of constants
    for table in INSERT:
        (newest,) = connection.execute(f"SELECT max(id) FROM {table}").fetchone()  # noqa: S608 - of constants
        kept = " AND id NOT IN (SELECT max(id) FROM change GROUP BY run)" if table == "change" else ""
        gone += connection.execute(
            f"DELETE FROM {table} WHERE id IN "  # noqa: S608 - of constants
            f"(SELECT id FROM {table} WHERE (at < ? OR id <= ?){kept} LIMIT {TRIM_CHUNK})",
            (before, (newest or 0) - max_rows),
        ).rowcount
    for (run,) in connection.execute("SELECT id FROM run WHERE seen_at < ?", (before,)).fetchall():
        if not any(connection.execute(_ANY_OF_RUN[table], (run,)).fetchone()[0] for table in INSERT):
            connection.execute("DELETE FROM run WHERE id = ?", (run,))
    if gone:
        connection.execute("PRAGMA incremental_vacuum(1000)").fetchall()
    return gone


def _has_tables(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])


def _create(connection: sqlite3.Connection) -> None:
    """Create everything at once; two processes may try it at the same time, and one of them does it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not _has_tables(connection):
            for statement in _TABLES.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
