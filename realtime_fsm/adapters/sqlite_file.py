"""SQLite files: opening one, writing it, renaming one that is broken, and saying what is wrong with it."""

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

SIDE_FILES: Final = ("-wal", "-shm")
"""What lies beside a file that is open, and takes over its permissions when SQLite makes it."""

_MODE: Final = 0o600
_MAGIC: Final = b"SQLite format 3\0"
_PAGE_SIZE_AT: Final = 16
_APPLICATION_AT: Final = 68
_LARGEST_PAGE: Final = 65_536


class ForeignFileError(Exception):
    """The file is not ours to write: of another program, or of a newer version."""


class LostFileError(ForeignFileError):
    """The file was ours, and there is another one by its name now, or none."""


def connect(path: Path | str, *, timeout: float) -> sqlite3.Connection:
    """Open a database, transactions being up to the caller.

    Args:
        path: A path, or a ``file:`` address.
        timeout: Seconds to wait for another program's lock.
    """
    return sqlite3.connect(path, timeout=timeout, isolation_level=None, uri=isinstance(path, str))


def connect_to_read(path: Path, *, timeout: float) -> sqlite3.Connection:
    """Open a database that may be in use, to look at it; nothing is left behind by that."""
    # To open a file in WAL mode makes the side files, even to read it. Where nobody has it open there is no
    # WAL, so nothing can change in it either, and SQLite may be told so.
    is_open = path.with_name(path.name + "-wal").exists()
    address = f"{path.resolve().as_uri()}?mode=ro{'' if is_open else '&immutable=1'}"
    return connect(address, timeout=timeout)


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Do what stands in the context whole or, if it raises, not at all."""
    if connection.in_transaction:  # the last one could not even be rolled back
        connection.execute("ROLLBACK")
    # IMMEDIATE: a transaction that begins by reading cannot wait for another writer's lock when it comes to
    # write; SQLite refuses it at once, whatever the time-out.
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full or failing disk makes SQLite roll back by itself
            connection.execute("ROLLBACK")
        raise


def create_private(path: Path) -> None:
    """Create a file that only its owner may read, where there is none."""
    # An existing one is not opened: locks of POSIX belong to the process, and closing any descriptor of the
    # file releases all that this process has on it, SQLite's as well.
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, _MODE))


def make_private(path: Path) -> None:
    """Let only its owner read a file that is known to be ours, and what lies beside it."""
    for suffix in ("", *SIDE_FILES):
        each = path.with_name(path.name + suffix)
        with contextlib.suppress(FileNotFoundError):  # SQLite may delete a side file at any moment
            if each.stat().st_mode & 0o077:
                each.chmod(_MODE)


def check_side_files(path: Path, *suffixes: str) -> None:
    """Refuse a place where the name of a side file leads to some other file.

    Raises:
        ForeignFileError: If there is such a link.
    """
    for suffix in (*SIDE_FILES, *suffixes):
        side = path.with_name(path.name + suffix)
        if side.is_symlink():
            raise ForeignFileError(f"{side} is a symbolic link, and what it leads to would be overwritten")


def application_of(path: Path) -> int | None:
    """Return whose database a file says that it is, sound or not; ``None`` if it is no database.

    Only for a file that nobody in this process has open: see ``create_private``.
    """
    with path.open("rb") as file:
        head = file.read(_APPLICATION_AT + 4)
    return int.from_bytes(head[_APPLICATION_AT:], "big") if head.startswith(_MAGIC) else None


def has_first_page(path: Path) -> bool:
    """Tell whether a database holds its first page: of one that does not, SQLite deletes the WAL.

    Only for a file that nobody in this process has open: see ``create_private``.
    """
    with path.open("rb") as file:
        head = file.read(_PAGE_SIZE_AT + 2)
    size = int.from_bytes(head[_PAGE_SIZE_AT:], "big")
    return path.stat().st_size >= (_LARGEST_PAGE if size == 1 else size)


def identity_of(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from another one by the same name; ``None`` where there is none."""
    try:
        status = path.stat()
    except OSError:  # whatever it is, the file that was there cannot be reached by its name
        return None
    return status.st_dev, status.st_ino


def set_aside(path: Path, at: float, mark: str = "") -> Path:
    """Rename a file that cannot be used, and with it what it had not yet taken over from its WAL.

    Args:
        path: The file.
        at: Unix time, for the name.
        mark: What else tells it from others; where several processes may do this at once, it has to.

    Returns:
        Where it is now.

    Raises:
        OSError: If it cannot be renamed.
    """
    stem = f"{path.name}.corrupt-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(at))}{mark}"
    target, number = path.with_name(stem), 0
    while target.exists():
        number += 1
        target = path.with_name(f"{stem}-{number}")
    for suffix in (*SIDE_FILES, ""):
        source = path.with_name(path.name + suffix)
        if source.exists():
            source.rename(target.with_name(target.name + suffix))
    return target


# What SQLite and the file system say, in the words of the library.

_PRIMARY: Final = 0xFF
"""The part of an extended result code that says the kind of error."""

_MEANINGS: Final = {
    sqlite3.SQLITE_FULL: ("the disk is full", "Free space; it works again by itself."),
    sqlite3.SQLITE_BUSY: (
        "another program has locked it",
        "Close what holds the file open for writing, such as a SQLite shell; it works again by itself.",
    ),
    sqlite3.SQLITE_READONLY: ("it may not be written", "Give the process write access to the file."),
    sqlite3.SQLITE_CANTOPEN: (
        "it cannot be opened",
        "Give the process write access to the folder, and check that the file is an ordinary one.",
    ),
    sqlite3.SQLITE_IOERR: ("the disk fails", "Check the disk, its free space and its quotas."),
    sqlite3.SQLITE_CORRUPT: (
        "it is corrupt",
        "Restart the client: the file is set aside then, and a fresh one begun.",
    ),
    sqlite3.SQLITE_NOTADB: (
        "it is not a database",
        "Restart the client: the file is set aside then, and a fresh one begun.",
    ),
}

BROKEN: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
"""Codes that say that the file itself is broken."""


def code_of(error: BaseException) -> int:
    """Return SQLite's primary result code; 0 where there is none."""
    return (getattr(error, "sqlite_errorcode", 0) or 0) & _PRIMARY


def is_outage(error: BaseException) -> bool:
    """Tell whether the file cannot be used now, rather than that something wrong was asked for."""
    return isinstance(error, (sqlite3.OperationalError, OSError, ForeignFileError)) or (
        code_of(error) in BROKEN
    )


def meaning_of(error: BaseException) -> tuple[str, str | None]:
    """Return what is wrong with a file, in words that end a sentence, and what can be done about it."""
    if isinstance(error, LostFileError):
        return str(error), "Put it back, or restart the client, which begins a fresh one."
    if isinstance(error, ForeignFileError):
        return str(error), None
    code = code_of(error)
    if isinstance(error, PermissionError):
        code = sqlite3.SQLITE_CANTOPEN
    return _MEANINGS.get(code, (f"{type(error).__name__}: {error}", None))
