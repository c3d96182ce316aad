"""What SQLite and the file system say, in the words of the library."""

import sqlite3
from pathlib import Path
from typing import Final

from realtime_fsm.machine.errors import OutboxStorageError

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
    return isinstance(error, sqlite3.OperationalError) or code_of(error) in BROKEN


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


def meaning_of(error: BaseException) -> tuple[str, str | None]:
    """Return what is wrong with a file, in words that end a sentence, and what can be done about it."""
    code = code_of(error)
    if isinstance(error, PermissionError):
        code = sqlite3.SQLITE_CANTOPEN
    return _MEANINGS.get(code, (f"{type(error).__name__}: {error}", None))
