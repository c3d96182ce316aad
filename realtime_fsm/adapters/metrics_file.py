"""The file of a metrics database: one thread that writes it, and never anybody who waits for that."""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import uuid4

from attrs import evolve, frozen

from realtime_fsm.adapters.sqlite_file import (
    BROKEN,
    ForeignFileError,
    application_of,
    check_side_files,
    code_of,
    connect,
    connect_to_read,
    create_private,
    identity_of,
    make_private,
    meaning_of,
    set_aside,
    transaction,
)
from realtime_fsm.adapters.sqlite_thread import FLUSH_TIMEOUT, SqliteThread
from realtime_fsm.machine.errors import MetricsStorageError

# The tables of a metrics database, and what reads and trims them.

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


def set_up(connection: sqlite3.Connection) -> None:
    """Create the tables where there are none.

    Raises:
        ForeignFileError: If the file belongs to somebody else. It was not changed.
        sqlite3.Error: If it cannot be read or written.
    """
    if not _has_tables(connection):
        # Heeded only before the first table; without it what the retention deletes is never given back.
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
    with transaction(connection):
        if not _has_tables(connection):
            for statement in _TABLES.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {VERSION}")


# Opening the file of a metrics database: to write it, to read it, and what becomes of a corrupt one.

_BUSY_TIMEOUT: Final = 1.0

_logger = logging.getLogger("realtime_fsm.metrics_database")


class MetricsFile:
    """The file as its writer uses it: opened when it is needed, and again when it was replaced.

    Args:
        path: The file.
        labels: ``implementation``, ``version`` and ``instance`` of this run.
        wall: The wall clock.

    Attributes:
        run_id: Number of this run in the file that is open.
    """

    def __init__(self, path: Path, labels: Mapping[str, str], wall: Callable[[], float]) -> None:
        self._path = path
        self._labels = labels
        self._wall = wall
        self._key = uuid4().hex
        self._began_at = wall()
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self.run_id = 0

    def opened(self) -> sqlite3.Connection:
        """Return a connection to the file that is there now: it may have been moved or deleted.

        Raises:
            sqlite3.Error, OSError, ForeignFileError: If it cannot be used.
        """
        if self._connection is not None and self._identity != identity_of(self._path):
            self.close()
        if self._connection is None:
            self._check_ours()
            create_private(self._path)
            make_private(self._path)
            connection = connect(self._path, timeout=_BUSY_TIMEOUT)
            try:
                set_up(connection)
                _check_pages(connection)
                labels = (self._labels[name] for name in ("implementation", "version", "instance"))
                run = (self._key, *labels, self._began_at, self._wall())
                ((self.run_id,),) = connection.execute(BEGIN_RUN, run).fetchall()
            except BaseException:
                connection.close()
                raise
            self._connection, self._identity = connection, identity_of(self._path)
        return self._connection

    def _check_ours(self) -> None:
        """Look whose file it is, before it is touched.

        Raises:
            ForeignFileError: If it is somebody else's, or does not tell.
        """
        check_side_files(self._path)
        if not (self._path.exists() and self._path.stat().st_size):
            return
        try:
            with closing(connect_to_read(self._path, timeout=_BUSY_TIMEOUT)) as connection:
                if _has_tables(connection):
                    check(connection)
        except sqlite3.DatabaseError as error:
            if code_of(error) not in BROKEN or application_of(self._path) == APPLICATION_ID:
                raise
            raise ForeignFileError(f"it does not say that it is a metrics database, and {error}") from error

    def close(self) -> None:
        """Release it. Safe to call twice."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except sqlite3.Error as error:
                _logger.debug("closing the metrics database %s: %s", self._path, error)

    def set_aside(self, why: str) -> MetricsStorageError | None:
        """Rename the file so that a fresh one is begun.

        Returns:
            What to tell people; ``None`` if even that cannot be done.
        """
        try:
            target = set_aside(self._path, self._wall(), f"-{uuid4().hex[:6]}")
        except OSError as error:
            _logger.warning("the metrics database %s cannot be set aside: %s", self._path, error)
            return None
        problem = MetricsStorageError(
            f"The metrics database {self._path} could not be used ({why}). It was set aside as {target}.",
            remedy="A fresh one was begun; see what can be saved of the other.",
        )
        _logger.warning("%s", problem)
        return problem


@frozen(kw_only=True)
class MetricsRows:
    """The content of a file at one moment.

    Attributes:
        runs: ``(id, implementation, version, instance, began_at, seen_at)`` each.
        changes: ``(run, at, level, cause)`` each, the oldest first.
        attempts: ``(run, at, duration, cause)`` each, the oldest first.
        outages: ``(run, began_at, ended_at, cause, recovered)`` each, the oldest first.
        latencies: ``(run, at, seconds)`` each, the oldest first.
    """

    runs: list[Row]
    changes: list[Row]
    attempts: list[Row]
    outages: list[Row]
    latencies: list[Row]


_SELECT: Final = {
    "runs": (
        "SELECT id, implementation, version, instance, began_at, seen_at FROM run "
        "WHERE seen_at >= ?1 ORDER BY id"
    ),
    "changes": (
        "SELECT run, at, level, cause FROM change WHERE at >= ?1 OR id IN "
        "(SELECT max(id) FROM change WHERE at < ?1 GROUP BY run) ORDER BY at, id"
    ),
    "attempts": "SELECT run, at, duration, cause FROM attempt WHERE at >= ?1 ORDER BY at, id",
    "outages": (
        "SELECT run, at, ended_at, cause, recovered FROM outage "
        "WHERE coalesce(ended_at, at) >= ?1 OR ended_at IS NULL ORDER BY at, id"
    ),
    "latencies": "SELECT run, at, seconds FROM latency WHERE at >= ?1 ORDER BY at, id",
}


def read(path: Path, *, since: float) -> MetricsRows:
    """Read a metrics database. It may be in use.

    Args:
        path: The file.
        since: Unix time from which on records matter; of the changes before it the last one of each run.

    Raises:
        MetricsStorageError: If it is missing, or no metrics database that can be read.
    """
    if not path.is_file():
        raise MetricsStorageError(
            f"There is no metrics database {path}.", remedy="Give the path that a `MetricsDatabase` writes."
        )
    try:
        with closing(connect_to_read(path, timeout=_BUSY_TIMEOUT)) as connection:
            connection.execute("BEGIN")  # one moment for all tables
            check(connection)
            found = {name: connection.execute(query, (since,)) for name, query in _SELECT.items()}
            return MetricsRows(**{name: rows.fetchall() for name, rows in found.items()})
    except (sqlite3.Error, ForeignFileError) as error:
        known = code_of(error) or isinstance(error, ForeignFileError)
        raise _unreadable(path, meaning_of(error)[0] if known else str(error)) from error


def _unreadable(path: Path, why: str) -> MetricsStorageError:
    return MetricsStorageError(
        f"{path} cannot be read as a metrics database: {why}.",
        remedy="Give the path that a `MetricsDatabase` writes.",
        retryable=False,
    )


def _check_pages(connection: sqlite3.Connection) -> None:
    (finding,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if finding != "ok":
        error = sqlite3.DatabaseError(finding)
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error


# The one thread that writes it.

CLOSE_TIMEOUT: Final = FLUSH_TIMEOUT + 1.0
"""Seconds that the end takes, at most, unless the disk hangs."""

_TOUCH_INTERVAL: Final = 10.0
_TRIM_INTERVAL: Final = 60.0


class QueuedRecord(NamedTuple):
    """A row for one of the tables."""

    table: str
    row: Row

    @property
    def is_urgent(self) -> bool:
        """Nobody waits for a record."""
        return False


@frozen(kw_only=True)
class WriterCounters:
    """The fate of the records so far.

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


class SqliteMetrics(SqliteThread[QueuedRecord]):
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

    NAME = "realtime-metrics"
    LINGER = 0.25  # few transactions, few wake-ups
    LONGEST_PAUSE = 30.0
    IS_DAEMON = True  # metrics are not worth a process that does not end
    LOGGER = _logger
    SEVERITY = logging.WARNING

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
        super().__init__(f"the metrics database {path}", report)
        self._path = path
        self._file = MetricsFile(path, labels, wall)
        self._max_age = max_age
        self._max_rows = max_rows
        self._max_queued = max_queued
        self._wall = wall
        self._lock = threading.Lock()  # over the counters, and over whether there is room
        self._counters = WriterCounters()
        self._queued = 0
        self._takes_more = True
        self._touch_at = 0.0
        self._trim_at = 0.0

    # For any thread.

    @property
    def counters(self) -> WriterCounters:
        """The fate of the records so far."""
        return evolve(self._counters, is_interrupted=self._backlog.is_interrupted)

    def put(self, table: str, row: Row) -> bool:
        """Queue a row; ``False`` if there is no room for it, or it is too late. Never waits for the disk."""
        with self._lock:
            has_room = self._takes_more and self._queued < self._max_queued
            if has_room:
                self._queued += 1
                self._backlog.put(QueuedRecord(table, row))
        if not has_room:
            self._count(dropped=1)
        return has_room

    def stop(self) -> None:
        """Write what is queued, within ``FLUSH_TIMEOUT`` if the file cannot be written, and end."""
        with self._lock:
            self._takes_more = False
        super().stop()

    # For its own thread.

    def _is_upkeep_due(self) -> bool:
        return time.monotonic() >= self._touch_at  # the file has to hear that the run still lasts

    def _commit(self, items: Sequence[QueuedRecord]) -> None:
        connection = self._file.opened()
        with transaction(connection):
            connection.execute(TOUCH_RUN, (self._wall(), self._file.run_id))
            for table, row in items:
                connection.execute(INSERT[table], (self._file.run_id, *row))
        self._touch_at = time.monotonic() + _TOUCH_INTERVAL

    def _committed(self, items: Sequence[QueuedRecord]) -> None:
        self._count(taken=len(items), written=len(items))
        if time.monotonic() < self._trim_at or self._backlog.is_ending:
            return
        connection = self._file.opened()
        with transaction(connection):
            gone = trim(connection, before=self._wall() - self._max_age, max_rows=self._max_rows)
        self._count(trimmed=gone)
        if gone < TRIM_CHUNK:
            self._trim_at = time.monotonic() + _TRIM_INTERVAL

    def _rejected(self, item: QueuedRecord, error: Exception) -> None:
        self._count(taken=1, rejected=1)
        _logger.warning("the metrics database rejects a record of %s: %s", item.table, error)

    def _mended(self, error: Exception) -> bool:
        self._file.close()  # next time whatever is there then is opened
        self._count(failures=1)
        if code_of(error) not in BROKEN:
            return False
        problem = self._file.set_aside(meaning_of(error)[0])
        if problem is None:
            return False
        self._count(set_aside=1)
        self._tell(self._report, problem)
        return True

    def _as_storage_error(self, error: Exception) -> MetricsStorageError:
        why, remedy = meaning_of(error)
        return MetricsStorageError(
            f"The metrics database {self._path} cannot be written: {why}.", remedy=remedy
        )

    def _end(self, left: Sequence[QueuedRecord]) -> None:
        with self._lock:
            self._takes_more = False
        lost = len(left) + len(self._backlog.clear())  # what was put since then
        self._file.close()
        self._count(taken=lost, dropped=lost)
        if lost:
            _logger.warning("%d records of the metrics database %s were lost at its end", lost, self._path)

    def _count(self, *, taken: int = 0, **more: int) -> None:
        """Add to the counters; ``taken`` no longer wait."""
        with self._lock:
            self._queued -= taken
            changes: dict[str, Any] = {name: getattr(self._counters, name) + n for name, n in more.items()}
            self._counters = evolve(self._counters, **changes)
