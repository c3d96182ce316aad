"""The file of an outbox: who owns it, whether it is sound, and what becomes of one that is not."""

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final, TypeVar

from attrs import define, frozen

from realtime_fsm.adapters import outbox_schema as schema
from realtime_fsm.adapters.outbox_schema import Row
from realtime_fsm.adapters.sqlite_file import (
    BROKEN,
    ForeignFileError,
    LostFileError,
    application_of,
    check_side_files,
    code_of,
    connect,
    connect_to_read,
    create_private,
    has_first_page,
    identity_of,
    make_private,
    meaning_of,
    set_aside,
    transaction,
)
from realtime_fsm.machine.errors import OutboxStorageError

T = TypeVar("T")

OWNER_PID: Final = "owner_pid"
"""Where the file names its owner; for a message only, the lock is what counts."""

BUSY_TIMEOUT: Final = 2.0
"""Seconds that a write waits for another program that holds the lock."""

SYNCHRONOUS: Final = {"power": "FULL", "process": "NORMAL"}
"""What a commit survives, and SQLite's word for it."""

_OWNER: Final = "-owner"
"""What the name of the side file ends with that the owner locks; it is always empty."""

_SETTINGS: Final = (
    "PRAGMA trusted_schema = OFF",
    "PRAGMA fullfsync = ON",  # of macOS alone, whose fsync leaves data in the drive's cache
    "PRAGMA checkpoint_fullfsync = ON",
    "PRAGMA wal_autocheckpoint = 1000",  # pages: 4 MB
    "PRAGMA journal_size_limit = 16777216",
)

_logger = logging.getLogger("realtime_fsm.outbox")


class _UnusableError(Exception):
    """The file is an outbox, and corrupt."""


def storage_error(path: Path, doing: str, error: BaseException) -> OutboxStorageError:
    """Return an error as the caller is to see it, with the original as its cause.

    Args:
        path: The file.
        doing: What was tried: ``opened``, ``written``.
        error: What came of it.
    """
    why, remedy = meaning_of(error)
    translated = OutboxStorageError(f"The outbox {path} cannot be {doing}: {why}.", remedy=remedy)
    translated.__cause__ = error
    return translated


def lock(path: Path) -> sqlite3.Connection:
    """Become the owner of a file, by a lock on a side file.

    The system releases the lock when the process ends, however it ends; the side file itself stays.

    Returns:
        What holds the lock, until it is closed.

    Raises:
        OutboxStorageError: If the file has an owner, or the side file cannot be used.
        ForeignFileError: If there is some other file where the side file belongs.
    """
    side = path.with_name(path.name + _OWNER)
    create_private(side)
    if side.stat().st_size:
        raise ForeignFileError(f"{side} is not empty, so it is none of its side files")
    make_private(side)
    owner = connect(side, timeout=0.0)
    try:
        owner.execute("PRAGMA journal_mode = MEMORY")  # or an empty journal would lie beside it
        owner.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        owner.close()
        if code_of(error) != sqlite3.SQLITE_BUSY:
            raise storage_error(side, "opened", error) from error
        pid = _pid_of_owner(path)
        raise OutboxStorageError(
            f"The outbox {path} is in use by {'another process' if pid is None else f'process {pid}'}.",
            remedy="Stop it first, or give this client an `outbox_path` of its own.",
        ) from error
    return owner


def _pid_of_owner(path: Path) -> int | None:
    try:
        with closing(connect(f"{path.as_uri()}?mode=ro", timeout=0.0)) as connection:
            pid: int | None = schema.meta(connection, OWNER_PID, None)
    except sqlite3.Error:  # it is being created, or set aside, at this moment
        return None
    return pid


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
    _identity: tuple[int, int] | None

    @property
    def is_lost(self) -> bool:
        """True if by its name there is another file now, or none: what is written would go nowhere."""
        return identity_of(self.path) != self._identity

    def check(self) -> None:
        """Refuse to write into a file that nobody will find again.

        Raises:
            LostFileError: If it is lost.
        """
        if self.is_lost:
            raise LostFileError("it was deleted, moved or replaced while it was in use")

    def close(self) -> None:
        """Release it. Whether the last page was tidied up makes no difference to what it holds."""
        with closing(self._owner), closing(self.connection), contextlib.suppress(sqlite3.Error):
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            schema.set_meta(self.connection, OWNER_PID, None)
            if self.is_lost:  # SQLite leaves its WAL by the old name, where another file may be by now
                self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@frozen
class OutboxFile:
    """The place of an outbox, and the way to open it.

    Attributes:
        path: The file, symbolic links resolved: a file has one owner, by whatever name it is called.
        durability: ``power`` or ``process``.
    """

    path: Path
    durability: str = "power"

    def open_or_renew(
        self, read: Callable[[sqlite3.Connection], T], on_set_aside: Callable[[OutboxStorageError], None]
    ) -> tuple[OwnedFile, T]:
        """Own and open it; create it if it is missing. A corrupt one is set aside, and saved what can be.

        Args:
            read: Reads what is needed first; a ``ValueError`` of it means that the file is corrupt.
            on_set_aside: Told where a corrupt file went.

        Raises:
            OutboxStorageError: If it cannot be opened, is in use, was written by a newer version, or does not
                say that it is an outbox: it is left alone then.
        """
        return self._open(read, on_set_aside)

    def open_existing(self) -> OwnedFile:
        """Own and open it as it is.

        Raises:
            OutboxStorageError: As above, and if it is missing or corrupt: it is left alone then.
        """
        self.read_only(lambda _: None)
        return self._open(lambda _: None, None)[0]

    def read_only(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """Read it, without owning it: it may be in use.

        Raises:
            OutboxStorageError: If it is missing, unusable, or was written by another version.
        """
        self._check_exists()
        try:
            with closing(connect_to_read(self.path, timeout=BUSY_TIMEOUT)) as connection:
                connection.execute("BEGIN")
                version = self._version_of(connection)
                if 0 < version < schema.VERSION:
                    raise OutboxStorageError(
                        f"The outbox {self.path} has version {version}, and {schema.VERSION} is read here.",
                        remedy="Start the client on it once, which brings it up to date.",
                        retryable=False,
                    )
                _checked(connection, schema.check_shape)
                return _checked(connection, read)
        except (_UnusableError, ForeignFileError) as error:
            raise self._unusable(error) from error
        except sqlite3.Error as error:
            raise storage_error(self.path, "read", error) from error

    def _open(
        self,
        read: Callable[[sqlite3.Connection], T],
        on_set_aside: Callable[[OutboxStorageError], None] | None,
    ) -> tuple[OwnedFile, T]:
        self._check_place()
        side = self.path.with_name(self.path.name + _OWNER)
        is_new = not side.exists()
        try:
            check_side_files(self.path, _OWNER)
            owner = lock(self.path)
            try:
                connection, contents = self._open_owned(read, on_set_aside)
            except BaseException:
                owner.close()
                raise
        except ForeignFileError as error:
            if is_new:  # nothing is left beside a file that is not ours
                side.unlink(missing_ok=True)
            raise self._unusable(error) from error
        except (sqlite3.Error, OSError) as error:
            raise storage_error(self.path, "opened", error) from error
        return OwnedFile(self.path, connection, owner, identity_of(self.path)), contents

    def _open_owned(
        self,
        read: Callable[[sqlite3.Connection], T],
        on_set_aside: Callable[[OutboxStorageError], None] | None,
    ) -> tuple[sqlite3.Connection, T]:
        try:
            return self._open_sound(read)
        except _UnusableError as error:
            if on_set_aside is None:
                raise self._unusable(error) from error
            aside = set_aside(self.path, time.time())
            saved = "nothing"

            def read_saved(connection: sqlite3.Connection) -> T:
                nonlocal saved
                saved = salvage(aside, connection)
                return read(connection)

            try:
                return self._open_sound(read_saved)
            finally:
                on_set_aside(self._set_aside(str(error), aside, saved))

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
        if self.path.exists() and (links := self.path.stat().st_nlink) > 1:
            raise OutboxStorageError(
                f"The outbox {self.path} has {links} names (hard links), and each would have an owner.",
                remedy=f"Find the others with `find -samefile {self.path}`, and remove them or make copies.",
                retryable=False,
            )

    def _open_sound(self, read: Callable[[sqlite3.Connection], T]) -> tuple[sqlite3.Connection, T]:
        is_ours = self._check_ours()
        create_private(self.path)
        make_private(self.path)
        connection = connect(self.path, timeout=BUSY_TIMEOUT)
        try:
            version = self._version_of(connection)
            self._set_up(connection)
            _checked(connection, lambda _: schema.migrate(connection, version))
            if not is_ours:  # from now on the file itself says whose it is, whatever becomes of the rest
                connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            schema.renew_client_id(connection)
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

    def _check_ours(self) -> bool:
        """Look whose file it is, before it is touched; return whether its head says that it is an outbox.

        Raises:
            ForeignFileError: If it is somebody else's, or does not tell.
        """
        if not (self.path.exists() and self.path.stat().st_size):
            wal = self.path.with_name(self.path.name + "-wal")
            if wal.exists() and wal.stat().st_size:  # SQLite would delete it
                raise ForeignFileError("it holds nothing, and the WAL beside it belongs to some other file")
            return False
        application = application_of(self.path)
        if application == schema.APPLICATION_ID:
            if not has_first_page(self.path):
                raise _UnusableError("it is cut short")
            return True
        if application is None:
            raise ForeignFileError("it is not a database")
        try:
            with closing(connect_to_read(self.path, timeout=BUSY_TIMEOUT)) as connection:
                self._version_of(connection)
        except (_UnusableError, sqlite3.DatabaseError) as error:
            if isinstance(error, sqlite3.DatabaseError) and code_of(error) not in BROKEN:
                raise
            raise ForeignFileError(f"it does not say that it is an outbox, and {error}") from error
        return False

    def _version_of(self, connection: sqlite3.Connection) -> int:
        """Return the version of a sound file; 0 for one without any table: it is new."""
        try:
            tables, application, version = connection.execute(
                "SELECT (SELECT count(*) FROM sqlite_master), a.application_id, v.user_version "
                "FROM pragma_application_id AS a, pragma_user_version AS v"
            ).fetchone()
            if not tables and not version and application in {0, schema.APPLICATION_ID}:
                return 0
            if application != schema.APPLICATION_ID and not (application == 0 and schema.is_ours(connection)):
                raise ForeignFileError("it is the database of another program")
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

    def _set_aside(self, why: str, aside: Path, saved: str) -> OutboxStorageError:
        """Log and return what became of a corrupt file."""
        error = OutboxStorageError(
            f"The outbox {self.path} could not be used ({why}). It was set aside as {aside}; "
            f"{saved} could be saved of it.",
            remedy="What was saved is sent as before. What else it held is not: see the other file.",
            retryable=False,
        )
        _logger.error("%s", error)
        return error

    def _unusable(self, why: object) -> OutboxStorageError:
        return OutboxStorageError(
            f"{self.path} cannot be used as an outbox: {why}. It was left as it is.",
            remedy="Give `outbox_path` a file of its own; if this one was an outbox, move it away first.",
            retryable=False,
        )


def _checked(connection: sqlite3.Connection, read: Callable[[sqlite3.Connection], T]) -> T:
    """Read, and take what cannot be read for a file that is corrupt."""
    try:
        return read(connection)
    except sqlite3.OperationalError as error:
        if code_of(error) in {0, sqlite3.SQLITE_ERROR}:  # text that is not UTF-8; no such table or column
            raise _UnusableError(str(error)) from error
        raise
    except (ValueError, TypeError) as error:
        raise _UnusableError(str(error)) from error


# What can be saved of a corrupt file.

_MOST_FAILURES: Final = 10_000
"""Failed reads after which the rest of a table is given up, so that this is over in seconds."""

_HIGHEST: Final = 2**62


def salvage(aside: Path, connection: sqlite3.Connection) -> str:
    """Write all that can be read of a corrupt file into a fresh one; return how much it was, in words.

    A row that is not as it was written goes to the dead letters, if it can be shown at all.

    Args:
        aside: The corrupt file.
        connection: To the fresh one.
    """
    if not has_first_page(aside):
        return "nothing"
    try:
        with closing(connect_to_read(aside, timeout=BUSY_TIMEOUT)) as source:
            source.execute("PRAGMA writable_schema = ON")  # or one that is cut would not be read at all
            source.text_factory = lambda text: text.decode(errors="surrogateescape")
            columns = schema.salvage_columns(source)
            waiting = list(_readable(source, "message", "sequence", columns))
            dead = list(_readable(source, "dead_letter", "number", f"{columns}, reason, died_at"))
    except sqlite3.Error as error:  # not even its tables can be found
        _logger.debug("nothing can be read of %s: %s", aside, error)
        return "nothing"
    with transaction(connection):
        saved = sum(schema.save_waiting(connection, row[1:], time.time()) for row in waiting)
        buried = sum(schema.save_dead(connection, row[1:]) for row in dead)
    return f"{saved} of {len(waiting)} rows of waiting messages and {buried} of {len(dead)} dead letters"


def _readable(source: sqlite3.Connection, table: str, key: str, columns: str) -> Iterator[Row]:
    """Yield the rows of a table that can be read; the first column is its key.

    From below and from above up to what cannot be read, and then by halves into that.
    """
    select = f"SELECT {key}, {columns} FROM {table} WHERE {key} BETWEEN ? AND ? ORDER BY {key} "  # noqa: S608 - of constants
    low, high = 0, _HIGHEST
    try:
        for row in source.execute(select, (low, high)):
            yield row
            low = row[0] + 1
    except sqlite3.Error as error:
        _logger.debug("the rows of %s from %d on cannot all be read: %s", table, low, error)
    else:
        return
    try:
        for row in source.execute(f"{select} DESC", (low, high)):
            yield row
            high = row[0] - 1
    except sqlite3.Error as error:
        _logger.debug("the rows of %s up to %d cannot all be read: %s", table, high, error)
    spans, failures = [(low, high)], 0
    while spans and failures < _MOST_FAILURES:
        low, high = spans.pop()
        try:
            for row in source.execute(select, (low, high)):
                yield row
                low = row[0] + 1
        except sqlite3.Error:
            failures += 1
            if low < high:
                middle = (low + high) // 2
                spans += [(middle + 1, high), (low, middle)]


# What a person does with the file of an outbox: look into it, and decide about its dead letters.

_ENTRY: Final = "sequence, message_id, event, delivery, accepted_at, expires_at, attempts, size_bytes"


@frozen(kw_only=True)
class Entry:
    """Everything about a message but its body.

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
    """The content of a file.

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
    """The outcome of a wish about dead letters.

    Attributes:
        done: Ids of the messages it was done to.
        unknown: Ids that belong to no dead letter. If there is one, nothing was done.
        damaged: Ids of those that cannot be sent again, because their bytes have changed on the disk.
    """

    done: Sequence[str] = ()
    unknown: Sequence[str] = ()
    damaged: Sequence[str] = ()


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
    """Let dead letters wait again, with no attempts and no expiry; see ``OutboxControl.retry``.

    A number that the server has refused is used up: such a letter gets a new one, behind all others.

    One whose bytes have changed on the disk stays where it is: nobody knows any more what was to be sent.

    Args:
        path: The file. Nobody may be using it.
        message_ids: Of the dead letters; ``None`` for all.

    Raises:
        OutboxStorageError: If it is missing, in use, or cannot be written.
    """

    def revive(connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
        client_id = schema.renew_client_id(connection)
        for fresh, row in enumerate(rows, start=schema.last_sequence(connection) + 1):
            waiting = schema.revived(row, fresh, client_id)
            connection.execute(schema.insert_messages(1), waiting)
            connection.execute(schema.RAISE_LAST_SEQUENCE, (waiting[0],))

    return _change(path, message_ids, revive, only_sound=True)


def drop(path: str | os.PathLike[str], message_ids: Collection[str] | None) -> Change:
    """Delete dead letters for good. Arguments and errors as for ``retry``."""
    return _change(path, message_ids, lambda _, __: None)


def _change(
    path: str | os.PathLike[str],
    message_ids: Collection[str] | None,
    keep: Callable[[sqlite3.Connection, Sequence[Row]], None],
    *,
    only_sound: bool = False,
) -> Change:
    """Take dead letters out of a file, after what is to be kept of them was kept; all or nothing."""
    file = _file(path)
    owned = file.open_existing()
    try:
        with transaction(owned.connection):
            rows = owned.connection.execute(schema.SELECT_DEAD).fetchall()
            if message_ids is not None:
                known = {row[1] for row in rows}
                unknown = [one for one in dict.fromkeys(message_ids) if one not in known]
                if unknown:
                    return Change(unknown=unknown)
                rows = [row for row in rows if row[1] in message_ids]
            damaged = [str(row[1]) for row in rows if only_sound and not schema.is_sound(row)]
            rows = [row for row in rows if row[1] not in damaged]
            keep(owned.connection, rows)
            done = [str(row[1]) for row in rows]
            owned.connection.executemany(
                "DELETE FROM dead_letter WHERE message_id = ?", [(one,) for one in done]
            )
        return Change(done=done, damaged=damaged)
    except sqlite3.Error as error:
        raise storage_error(file.path, "written", error) from error
    finally:
        owned.close()


def _file(path: str | os.PathLike[str]) -> OutboxFile:
    return OutboxFile(Path(os.path.realpath(path)))


def _named(cursor: sqlite3.Cursor, row: Row) -> dict[str, Any]:
    return {column[0]: value for column, value in zip(cursor.description, row, strict=True)}
