"""Opening the file of a metrics database: to write it, to read it, and what becomes of a corrupt one."""

import logging
import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Final
from uuid import uuid4

from attrs import frozen

from realtime_fsm.adapters import sqlite_metrics_schema as schema
from realtime_fsm.adapters.sqlite_error import code_of, meaning_of
from realtime_fsm.adapters.sqlite_metrics_schema import ForeignFileError, Row
from realtime_fsm.adapters.sqlite_owner import connect, keep_private
from realtime_fsm.machine.errors import MetricsStorageError

_BUSY_TIMEOUT: Final = 1.0
_SIDE_FILES: Final = ("-wal", "-shm", "")

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
        if self._connection is not None and self._identity != _identity_of(self._path):
            self.close()
        if self._connection is None:
            keep_private(self._path)
            connection = connect(self._path, timeout=_BUSY_TIMEOUT)
            try:
                schema.set_up(connection)
                _check_pages(connection)
                labels = (self._labels[name] for name in ("implementation", "version", "instance"))
                run = (self._key, *labels, self._began_at, self._wall())
                ((self.run_id,),) = connection.execute(schema.BEGIN_RUN, run).fetchall()
            except BaseException:
                connection.close()
                raise
            self._connection, self._identity = connection, _identity_of(self._path)
        return self._connection

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
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._wall()))
        target = self._path.with_name(f"{self._path.name}.corrupt-{stamp}-{uuid4().hex[:6]}")
        try:
            for suffix in _SIDE_FILES:
                source = self._path.with_name(self._path.name + suffix)
                if source.exists():
                    source.rename(target.with_name(target.name + suffix))
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
    """What a file holds, as it was at one moment.

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
    # Where nobody has it open there is no WAL, and nothing is to be left behind by looking at it.
    is_open = path.with_name(path.name + "-wal").exists()
    address = f"{path.resolve().as_uri()}?mode=ro{'' if is_open else '&immutable=1'}"
    try:
        with closing(connect(address, timeout=_BUSY_TIMEOUT)) as connection:
            connection.execute("BEGIN")  # one moment for all tables
            schema.check(connection)
            found = {name: connection.execute(query, (since,)) for name, query in _SELECT.items()}
            return MetricsRows(**{name: rows.fetchall() for name, rows in found.items()})
    except ForeignFileError as error:
        raise _unreadable(path, str(error)) from error
    except sqlite3.Error as error:
        raise _unreadable(path, meaning_of(error)[0] if code_of(error) else str(error)) from error


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


def _identity_of(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from another of the same name; ``None`` where there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
