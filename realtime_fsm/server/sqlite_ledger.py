"""A ledger that outlives the process: in one SQLite database with what the application writes."""

import asyncio
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Final, TypeVar

from realtime_fsm.machine.errors import ClosedError, ConfigurationError
from realtime_fsm.server.answer import Answer
from realtime_fsm.server.ledger import DEFAULT_MAX_CLIENTS, Handle, Stamp, log_given_up
from realtime_fsm.server.sqlite_transaction import SCHEMA, OnConnect, SqliteTransaction, connect

T = TypeVar("T")

_VERSION: Final = 1
_BUSY_TIMEOUT: Final = 2.0
"""Seconds that a message waits for another process's write."""

_OWNER_ONLY: Final = 0o600


class SqliteLedger:
    """Keeps the marks in a SQLite database, and lets the application write there with them.

    ::

        ledger = SqliteLedger("bookings.db")

        async def book(client, booking):
            client.transaction.execute("INSERT INTO booking VALUES (?, ?)", (booking["id"], client.subject))

    The mark, the answer and what the handler writes through ``client.transaction`` are committed together,
    after the handler has ended and before the client is acknowledged: a crash at any moment leaves all of it
    or nothing. If the handler fails, its writes are undone, and the client is told so.

    - ``client.transaction`` is a ``sqlite3.Connection`` for the handler's own thread. It ends with the
      handler. To commit, to roll back and to call ``executescript`` is refused; savepoints may be used.
    - While a handler has it, no other message with a sequence is handled: there is one writer. Such handlers
      should be quick, and should not wait for others. One of them takes about a disk's flush.
    - A handler that writes to the same database through a connection of its own waits for itself.

    Args:
        path: The database; it may hold the application's own tables. Made where it is missing. Only its owner
            may read it, from then on.
        max_clients: Clients whose mark is kept; see ``MemoryLedger``.
        on_connect: Called with each connection before its transaction begins: for ``PRAGMA foreign_keys``,
            functions, or missing tables.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_clients: int = DEFAULT_MAX_CLIENTS,
        on_connect: OnConnect | None = None,
    ) -> None:
        self._path = Path(path)
        self._max_clients = max_clients
        self._on_connect = on_connect
        self._turn = asyncio.Lock()
        self._handled: SqliteTransaction | None = None
        self._is_closing = False
        self._thread: ThreadPoolExecutor | None = None
        # Never written with. SQLite would write back and delete its log with each last connection.
        self._keeper: sqlite3.Connection | None = None
        self._given_up = 0

    async def open(self) -> None:
        """Open the database.

        Raises:
            ConfigurationError: If it cannot be used.
        """
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="realtime_fsm.ledger")
        try:
            self._keeper = await self._in_thread(self._prepared)
        except BaseException:
            await self.close()
            raise

    async def apply(self, stamp: Stamp, handle: Handle) -> Answer:
        """Handle a message in a transaction, unless it is a repeat.

        Raises:
            sqlite3.Error: If it could not be committed; nothing happened.
            ClosedError: If the ledger is not open.
        """
        async with self._turn:
            if self._is_closing:
                raise _closed()
            transaction = SqliteTransaction(
                self._path,
                stamp,
                timeout=_BUSY_TIMEOUT,
                max_clients=self._max_clients,
                on_connect=self._on_connect,
            )
            try:
                repeat = await self._in_thread(transaction.begin)
                if repeat is not None:
                    return repeat
                answer = await self._handle(transaction, handle)
                end = transaction.commit if answer["ok"] is True else transaction.refuse
                await self._in_thread(end, answer)
            finally:
                if transaction.is_open:
                    await self._in_thread(transaction.close)
            if transaction.given_up:
                self._given_up += 1
                log_given_up(self._given_up)
            return answer

    async def close(self) -> None:
        """Undo what has not ended, and close the database; safe to call twice."""
        if self._thread is None:
            return
        self._is_closing = True
        if self._handled is not None:  # whose handler may take its time
            self._handled.take_from_handler()
            await self._in_thread(self._handled.close)
        else:
            async with self._turn:  # what begins now, or commits, ends by itself
                pass
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            await self._in_thread(keeper.close)
        thread, self._thread = self._thread, None
        thread.shutdown()

    async def _handle(self, transaction: SqliteTransaction, handle: Handle) -> Answer:
        """Have a message handled; its handler cannot use the transaction afterwards."""
        if self._is_closing:
            raise _closed()
        self._handled = transaction
        try:
            return await handle(transaction.give_to_handler())
        finally:
            self._handled = None
            transaction.take_from_handler()

    async def _in_thread(self, work: Callable[..., T], *args: object) -> T:
        """Run something that blocks, and see it end: a cancellation waits for it.

        Raises:
            ClosedError: If the ledger is not open.
        """
        if self._thread is None:
            raise _closed()
        running = asyncio.get_running_loop().run_in_executor(self._thread, work, *args)
        cancelled: asyncio.CancelledError | None = None
        while not running.done():
            try:
                await asyncio.wait({running})
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            running.exception()  # taken note of; what counts is that it has ended
            raise cancelled
        return running.result()

    def _prepared(self) -> sqlite3.Connection:
        """Make the file and the tables where they are missing; return a connection to be kept."""
        try:
            # Before SQLite does, whose other files take over the permissions of this one. One that is there
            # is not opened: to close it would release the locks of whoever in this process has it open.
            self._path.touch(_OWNER_ONLY)
            self._path.chmod(_OWNER_ONLY)
            connection = connect(self._path, _BUSY_TIMEOUT)
            try:
                self._check(connection)
            except BaseException:
                connection.close()
                raise
        except (OSError, sqlite3.Error) as error:
            raise ConfigurationError(f"the ledger {str(self._path)!r} cannot be used: {error}") from error
        return connection

    def _check(self, connection: sqlite3.Connection) -> None:
        (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
        if mode != "wal":
            raise ConfigurationError(
                f"the ledger {str(self._path)!r} cannot be used: its file system has no WAL"
            )
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("CREATE TABLE IF NOT EXISTS realtime_fsm_ledger (version INTEGER NOT NULL)")
        with closing(connection.execute("SELECT max(version) FROM realtime_fsm_ledger")) as cursor:
            (version,) = cursor.fetchone()
        if version is None:
            connection.execute("INSERT INTO realtime_fsm_ledger VALUES (?)", (_VERSION,))
        elif version != _VERSION:
            raise ConfigurationError(
                f"the ledger {str(self._path)!r} cannot be used: it is of version {version}, "
                f"and this release knows version {_VERSION}"
            )
        for statement in SCHEMA:
            connection.execute(statement)
        connection.execute("COMMIT")


def _closed() -> ClosedError:
    return ClosedError("The ledger is not open.", remedy="The service opens it when it starts.")
