"""The file of an outbox: who owns it, whether it is sound, and what becomes of one that is not."""

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final, TypeVar

from attrs import define, frozen

from realtime_fsm.adapters import sqlite_schema as schema
from realtime_fsm.adapters.sqlite_error import BROKEN, code_of, storage_error
from realtime_fsm.adapters.sqlite_owner import OWNER_PID, connect, keep_private, lock
from realtime_fsm.machine.errors import OutboxStorageError

T = TypeVar("T")

_logger = logging.getLogger("realtime_fsm.outbox")

BUSY_TIMEOUT: Final = 2.0
"""Seconds that a write waits for another program that holds the lock."""

SYNCHRONOUS: Final = {"power": "FULL", "process": "NORMAL"}
"""What a commit survives, and SQLite's word for it."""

_SIDE_FILES: Final = ("-wal", "-shm")
_MAGIC: Final = b"SQLite format 3\0"
_SETTINGS: Final = (
    "PRAGMA trusted_schema = OFF",
    "PRAGMA fullfsync = ON",  # of macOS alone, whose fsync leaves data in the drive's cache
    "PRAGMA checkpoint_fullfsync = ON",
    "PRAGMA wal_autocheckpoint = 1000",  # pages: 4 MB
    "PRAGMA journal_size_limit = 16777216",
)


class _UnusableError(Exception):
    """The file is no outbox: corrupt, or something else altogether."""


@define(eq=False)
class OwnedFile:
    """An open file that no other client can open until it is closed, or the process ends.

    Attributes:
        path: The file.
        connection: To it; for the thread that opened it alone.
    """

    path: Path
    connection: sqlite3.Connection
    _owner: sqlite3.Connection

    def close(self) -> None:
        """Release it. Whether the last page was tidied up makes no difference to what it holds."""
        with closing(self._owner), closing(self.connection), contextlib.suppress(sqlite3.Error):
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            schema.set_meta(self.connection, OWNER_PID, None)


@frozen
class OutboxFile:
    """Where an outbox is, and how it is to be opened.

    Attributes:
        path: The file, symbolic links resolved: a file has one owner, by whatever name it is called.
        durability: ``power`` or ``process``.
    """

    path: Path
    durability: str = "power"

    def open_or_renew(
        self, read: Callable[[sqlite3.Connection], T], on_set_aside: Callable[[OutboxStorageError], None]
    ) -> tuple[OwnedFile, T]:
        """Own and open it; create it if it is missing, and set it aside if it is unusable.

        Args:
            read: Reads what is needed first; a ``ValueError`` of it means that the file is unusable.
            on_set_aside: Told where an unusable file went.

        Raises:
            OutboxStorageError: If it cannot be opened, is in use, or was written by a newer version.
        """
        try:
            return self._open(read, lambda why: on_set_aside(self._set_aside(why)))
        except (sqlite3.Error, OSError) as error:
            raise storage_error(self.path, "opened", error) from error

    def open_existing(self) -> OwnedFile:
        """Own and open it as it is.

        Raises:
            OutboxStorageError: As above, and if it is missing or unusable: it is left alone then.
        """
        self.read_only(lambda _: None)
        try:
            return self._open(lambda _: None, self._refuse)[0]
        except (sqlite3.Error, OSError) as error:
            raise storage_error(self.path, "opened", error) from error

    def read_only(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """Read it, without owning it: it may be in use.

        Raises:
            OutboxStorageError: If it is missing, unusable, or was written by a newer version.
        """
        self._check_exists()
        # Where no client has it open there is no WAL, and nothing is to be left behind by looking at it.
        is_open = self.path.with_name(self.path.name + "-wal").exists()
        address = f"{self.path.as_uri()}?mode=ro{'' if is_open else '&immutable=1'}"
        try:
            with closing(connect(address, timeout=BUSY_TIMEOUT)) as connection:
                connection.execute("BEGIN")
                self._version_of(connection)
                _checked(connection, schema.check_shape)
                return _checked(connection, read)
        except _UnusableError as error:
            raise self._unusable(error) from error
        except sqlite3.Error as error:
            raise storage_error(self.path, "read", error) from error

    def _open(
        self, read: Callable[[sqlite3.Connection], T], on_unusable: Callable[[str], None]
    ) -> tuple[OwnedFile, T]:
        self._check_place()
        owner = lock(self.path)
        try:
            try:
                connection, contents = self._open_sound(read)
            except _UnusableError as error:
                on_unusable(str(error))
                connection, contents = self._open_sound(read)
        except BaseException:
            owner.close()
            raise
        return OwnedFile(self.path, connection, owner), contents

    def _check_exists(self) -> None:
        if not self.path.is_file():
            raise OutboxStorageError(
                f"There is no outbox {self.path}.", remedy="Give the path of an outbox: `outbox_path`."
            )

    def _check_place(self) -> None:
        folder = self.path.parent
        if self.path.exists() and not self.path.is_file():
            what = "a folder" if self.path.is_dir() else "a device or a pipe"
            raise OutboxStorageError(
                f"The outbox {self.path} is {what}.", remedy="Give the path of an ordinary file."
            )
        if not folder.is_dir():
            raise OutboxStorageError(
                f"The outbox {self.path} cannot be opened: there is no folder {folder}.",
                remedy="Create the folder, or give another `outbox_path`.",
            )

    def _open_sound(self, read: Callable[[sqlite3.Connection], T]) -> tuple[sqlite3.Connection, T]:
        for suffix in ("", *_SIDE_FILES):
            if not suffix or self.path.with_name(self.path.name + suffix).exists():
                keep_private(self.path.with_name(self.path.name + suffix))
        self._check_head()
        connection = connect(self.path, timeout=BUSY_TIMEOUT)
        try:
            version = self._version_of(connection)
            self._set_up(connection)
            _checked(connection, lambda _: schema.migrate(connection, version))
            schema.client_id(connection)
            schema.set_meta(connection, OWNER_PID, os.getpid())
            _checked(connection, schema.check_shape)
            return connection, _checked(connection, read)
        except sqlite3.Error as error:
            connection.close()
            if code_of(error) in BROKEN:
                raise _UnusableError(str(error)) from error
            raise
        except BaseException:
            connection.close()
            raise

    def _check_head(self) -> None:
        """Look at the file before SQLite does, which deletes the WAL of one without a first page."""
        wal = self.path.with_name(self.path.name + "-wal")
        with self.path.open("rb") as file:
            head = file.read(len(_MAGIC))
        if head != _MAGIC and (head or (wal.exists() and wal.stat().st_size)):
            raise _UnusableError("it is not a database")

    def _version_of(self, connection: sqlite3.Connection) -> int:
        """Return the version of a sound file; 0 for one without any table: it is new."""
        try:
            tables, application, version = connection.execute(
                "SELECT (SELECT count(*) FROM sqlite_master), a.application_id, v.user_version "
                "FROM pragma_application_id AS a, pragma_user_version AS v"
            ).fetchone()
            if not tables:
                return 0
            if application != schema.APPLICATION_ID:
                raise _UnusableError("it is the database of another program")
            if version > schema.VERSION:
                raise OutboxStorageError(
                    f"The outbox {self.path} has version {version}, and this library knows {schema.VERSION}.",
                    remedy="Use the library that wrote it, or a newer one; or give another `outbox_path`.",
                    retryable=False,
                )
            for (finding,) in connection.execute("PRAGMA quick_check(1)"):
                if finding != "ok":
                    raise _UnusableError(f"it is corrupt: {finding}")
        except sqlite3.DatabaseError as error:
            if code_of(error) in BROKEN:
                raise _UnusableError(str(error)) from error
            raise
        return int(version)

    def _set_up(self, connection: sqlite3.Connection) -> None:
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise OutboxStorageError(
                f"The outbox {self.path} cannot be opened: there is no shared memory in its folder.",
                remedy="Keep it on a local disk, not on a network share.",
            )
        connection.execute(f"PRAGMA synchronous = {SYNCHRONOUS[self.durability]}")
        for setting in _SETTINGS:
            connection.execute(setting)

    def _set_aside(self, why: str) -> OutboxStorageError:
        """Rename the file, what it had not yet taken over from its WAL first."""
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        target = self.path.with_name(f"{self.path.name}.corrupt-{stamp}")
        number = 0
        while target.exists():
            number += 1
            target = self.path.with_name(f"{self.path.name}.corrupt-{stamp}-{number}")
        for suffix in (*_SIDE_FILES, ""):
            source = self.path.with_name(self.path.name + suffix)
            if source.exists():
                source.rename(target.with_name(target.name + suffix))
        error = OutboxStorageError(
            f"The outbox {self.path} could not be used ({why}). It was set aside as {target}.",
            remedy="A fresh one was begun. What the other held is not sent: see what can be saved.",
            retryable=False,
        )
        _logger.error("%s", error)
        return error

    def _refuse(self, why: str) -> None:
        raise self._unusable(why)

    def _unusable(self, why: object) -> OutboxStorageError:
        return OutboxStorageError(
            f"{self.path} cannot be used as an outbox: {why}.",
            remedy="Give the path of an outbox.",
            retryable=False,
        )


def _checked(connection: sqlite3.Connection, read: Callable[[sqlite3.Connection], T]) -> T:
    """Read, and take what cannot be read for a file that is unusable."""
    try:
        return read(connection)
    except sqlite3.OperationalError as error:
        if code_of(error) in {0, sqlite3.SQLITE_ERROR}:  # text that is not UTF-8; no such table or column
            raise _UnusableError(str(error)) from error
        raise
    except (ValueError, TypeError) as error:
        raise _UnusableError(str(error)) from error
