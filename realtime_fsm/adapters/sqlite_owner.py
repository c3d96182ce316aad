"""One owner for the file of an outbox, and nobody else's eyes on it."""

import contextlib
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from realtime_fsm.adapters import sqlite_schema as schema
from realtime_fsm.adapters.sqlite_error import code_of, storage_error
from realtime_fsm.machine.errors import OutboxStorageError

OWNER_PID: Final = "owner_pid"
"""Where the file names its owner; for a message only, the lock is what counts."""

_MODE: Final = 0o600


def connect(path: Path | str, *, timeout: float) -> sqlite3.Connection:
    """Open a database, transactions being up to the caller.

    Args:
        path: A path, or a ``file:`` address.
        timeout: Seconds to wait for another program's lock.
    """
    return sqlite3.connect(path, timeout=timeout, isolation_level=None, uri=isinstance(path, str))


def keep_private(path: Path) -> None:
    """Create a file that only its owner may read, or make an existing one so.

    An existing one is not opened: closing it would release the locks that this process has on it.
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, _MODE))
    if path.stat().st_mode & 0o077:
        path.chmod(_MODE)


def lock(path: Path) -> sqlite3.Connection:
    """Become the owner of a file, by a lock on a side file.

    The system releases the lock when the process ends, however it ends; the side file itself stays.

    Returns:
        What holds the lock, until it is closed.

    Raises:
        OutboxStorageError: If the file has an owner, or the side file cannot be used.
    """
    side = path.with_name(path.name + "-owner")
    keep_private(side)
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
