"""A ledger that outlives the process: in one SQLite database with what the application writes.

Each message has a transaction, and each transaction a connection of its own, so that nothing which a handler
has left behind can write into the transaction of another message. SQLite's authorizer says which thread may
do what with it: first the handler's, all but to end the transaction; then the ledger's alone.
"""

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, Final, TypeVar

from realtime_fsm.machine.errors import ClosedError, ConfigurationError
from realtime_fsm.server.ledger import (
    DEFAULT_MAX_CLIENTS,
    MAX_KEPT_ANSWERS,
    MAX_KEPT_BYTES,
    Handle,
    Stamp,
    kept_text,
    log_given_up,
    repeated,
)
from realtime_fsm.server.request import Answer

_PREFIX: Final = "realtime_fsm_"
"""What the names of the ledger's own tables begin with; the file may be the application's."""

_SCHEMA: Final = (
    """CREATE TABLE IF NOT EXISTS realtime_fsm_client (
        id INTEGER PRIMARY KEY,
        subject TEXT NOT NULL,
        client_id TEXT NOT NULL,
        mark INTEGER NOT NULL,
        active INTEGER NOT NULL,
        size INTEGER NOT NULL,
        UNIQUE (subject, client_id)
    )""",
    "CREATE INDEX IF NOT EXISTS realtime_fsm_client_active ON realtime_fsm_client (active)",
    """CREATE TABLE IF NOT EXISTS realtime_fsm_answer (
        client INTEGER NOT NULL,
        ok INTEGER NOT NULL,
        sequence INTEGER NOT NULL,
        answer TEXT NOT NULL,
        PRIMARY KEY (client, ok, sequence)
    ) WITHOUT ROWID""",
)

_WRITES: Final = frozenset({sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE})

_VERSION: Final = 1
_BUSY_TIMEOUT: Final = 2.0
"""Seconds that a message waits for another process's write."""

_OWNER_ONLY: Final = 0o600

T = TypeVar("T")

OnConnect = Callable[[sqlite3.Connection], object]
_Authorizer = Callable[[int, str | None, str | None, str | None, str | None], int]


def _connect(path: Path, timeout: float) -> sqlite3.Connection:
    """Open a connection that can be used by one thread after the other, and that loses no commit."""
    # A statement from the cache would not be authorized for the thread that runs it.
    connection = sqlite3.connect(path, timeout=timeout, check_same_thread=False, cached_statements=0)
    try:
        connection.execute("PRAGMA synchronous=FULL")
    except BaseException:
        connection.close()
        raise
    return connection


class SqliteTransaction:
    """The mark, the answer and the application's own writes of one message; made in the handler's thread.

    ``begin``, ``commit``, ``refuse`` and ``close`` block, and are called in another one.

    Args:
        path: The database.
        stamp: Which message it is for.
        timeout: Seconds to wait for another writer.
        max_clients: Clients whose mark is kept.
        on_connect: Prepares a connection for the application.
    """

    def __init__(
        self, path: Path, stamp: Stamp, *, timeout: float, max_clients: int, on_connect: OnConnect | None
    ) -> None:
        self._path = path
        self._stamp = stamp
        self._timeout = timeout
        self._max_clients = max_clients
        self._on_connect = on_connect
        self._handlers_thread = threading.get_ident()
        self._open: sqlite3.Connection | None = None
        self._is_new_client = False
        self.given_up = 0

    @property
    def is_open(self) -> bool:
        """True while there is anything left to be ended."""
        return self._open is not None

    def begin(self) -> Answer | None:
        """Begin, so that no other process can write.

        Returns:
            The answer, if the message is a repeat; nothing remains to be done then.

        Raises:
            sqlite3.Error: If it cannot, such as for another process that writes for too long.
        """
        self._open = _connect(self._path, self._timeout)
        if self._on_connect is not None:
            self._on_connect(self._open)
        self._open.execute("BEGIN IMMEDIATE")
        return self._repeat()

    def give_to_handler(self) -> sqlite3.Connection:
        """Return what the handler writes with, until it is taken from it.

        Called in the handler's thread, like its counterpart: were the connection used in one thread while
        another one sets its authorizer, the two could wait for each other.

        Raises:
            ClosedError: If it has ended.
        """
        connection = self._connection()
        connection.set_authorizer(_for_the_handler(self._handlers_thread))
        return connection

    def take_from_handler(self) -> None:
        """Let nothing but ``commit``, ``refuse`` and ``close`` use it, and no statement prepared before."""
        if self._open is not None:
            self._open.set_authorizer(_for_others_than(self._handlers_thread))

    def commit(self, answer: Answer) -> None:
        """Commit the handler's writes, the mark and the answer.

        Raises:
            sqlite3.Error: If it cannot; nothing was committed.
        """
        self._check()
        self._keep(answer)
        self._connection().execute("COMMIT")
        self.close()

    def refuse(self, answer: Answer) -> None:
        """Undo the handler's writes; commit the mark and the answer.

        Raises:
            sqlite3.Error: If it cannot; nothing was committed.
        """
        self._check()
        self.close()
        # No savepoint: the handler may have made and released any of its own, and has a cursor in use.
        self._open = _connect(self._path, self._timeout)
        self._open.execute("BEGIN IMMEDIATE")
        self._keep(answer)
        self._open.execute("COMMIT")
        self.close()

    def close(self) -> None:
        """Undo what was not committed; safe to call twice."""
        connection, self._open = self._open, None
        if connection is None:
            return
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")  # closing would not, for as long as a cursor is in use
        finally:
            connection.close()

    def _connection(self) -> sqlite3.Connection:
        if self._open is None:
            raise ClosedError("The transaction has ended.", remedy="Use it in the handler alone.")
        return self._open

    def _check(self) -> None:
        if not self._connection().in_transaction:
            raise sqlite3.OperationalError("SQLite has rolled back by itself, as it does when a disk is full")

    def _ask(self, statement: str, *parameters: Any) -> Any:
        """Return the first row of a statement, whatever rows the handler wanted to see."""
        cursor = self._connection().cursor()
        cursor.row_factory = None
        row = cursor.execute(statement, parameters).fetchone()
        cursor.close()
        return row

    def _repeat(self) -> Answer | None:
        stamp = self._stamp
        known = self._ask(
            "SELECT id, mark FROM realtime_fsm_client WHERE subject = ? AND client_id = ?",
            stamp.subject,
            stamp.client_id,
        )
        self._is_new_client = known is None
        if known is None or stamp.sequence > known[1]:
            return None
        kept = self._ask(
            "SELECT answer FROM realtime_fsm_answer WHERE client = ? AND ok IN (0, 1) AND sequence = ?",
            known[0],
            stamp.sequence,
        )
        return repeated(None if kept is None else kept[0])

    def _keep(self, answer: Answer) -> None:
        """Move the mark, and keep the answer."""
        stamp = self._stamp
        client, size = self._ask(
            "INSERT INTO realtime_fsm_client (subject, client_id, mark, active, size) "
            "VALUES (?, ?, ?, (SELECT coalesce(max(active), 0) + 1 FROM realtime_fsm_client), 0) "
            "ON CONFLICT (subject, client_id) DO UPDATE SET mark = excluded.mark, active = excluded.active "
            "RETURNING id, size",
            stamp.subject,
            stamp.client_id,
            stamp.sequence,
        )
        text = kept_text(answer)
        if text is not None:
            ok = answer["ok"] is True
            self._ask("INSERT INTO realtime_fsm_answer VALUES (?, ?, ?, ?)", client, ok, stamp.sequence, text)
            self._trim(client, size + (len(text) if ok else 0), ok=ok)
        if self._is_new_client:
            self._give_up_others()

    def _trim(self, client: int, size: int, *, ok: bool) -> None:
        """Let go of the oldest answers, or of the oldest refusals."""
        (count,) = self._ask(
            "SELECT count(*) FROM realtime_fsm_answer WHERE client = ? AND ok = ?", client, ok
        )
        while count > MAX_KEPT_ANSWERS or size > MAX_KEPT_BYTES:
            (length,) = self._ask(
                "DELETE FROM realtime_fsm_answer WHERE (client, ok, sequence) = "
                "(SELECT client, ok, min(sequence) FROM realtime_fsm_answer WHERE client = ? AND ok = ?) "
                "RETURNING length(answer)",
                client,
                ok,
            )
            count -= 1
            size -= length if ok else 0
        self._ask("UPDATE realtime_fsm_client SET size = ? WHERE id = ?", size, client)

    def _give_up_others(self) -> None:
        """Let go of the client that was active the longest ago, where there are too many."""
        (own, all_) = self._ask(
            "SELECT (SELECT count(*) FROM realtime_fsm_client WHERE subject = ?), "
            "(SELECT count(*) FROM realtime_fsm_client)",
            self._stamp.subject,
        )
        if own > (self._max_clients + 1) // 2:
            which, parameters = "WHERE subject = ?", [self._stamp.subject]
        elif all_ > self._max_clients:
            which, parameters = "", []
        else:
            return
        (client,) = self._ask(
            f"DELETE FROM realtime_fsm_client WHERE id = "  # noqa: S608 - of constants
            f"(SELECT id FROM realtime_fsm_client {which} ORDER BY active LIMIT 1) RETURNING id",
            *parameters,
        )
        self._ask("DELETE FROM realtime_fsm_answer WHERE client = ?", client)
        self.given_up += 1


def _for_the_handler(thread: int) -> _Authorizer:
    """Return what lets a handler do anything but end the transaction, or write to the ledger's tables."""

    def authorize(action: int, first: str | None, *_: str | None) -> int:
        is_ours = action in _WRITES and (first or "").startswith(_PREFIX)
        denied = action == sqlite3.SQLITE_TRANSACTION or is_ours or threading.get_ident() != thread
        return sqlite3.SQLITE_DENY if denied else sqlite3.SQLITE_OK

    return authorize


def _for_others_than(thread: int) -> _Authorizer:
    """Return what lets any thread do anything, but for one thread."""

    def authorize(*_: object) -> int:
        return sqlite3.SQLITE_DENY if threading.get_ident() == thread else sqlite3.SQLITE_OK

    return authorize


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
        """Open the database, and make it where it is missing.

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
            connection = _connect(self._path, _BUSY_TIMEOUT)
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
        for statement in _SCHEMA:
            connection.execute(statement)
        connection.execute("COMMIT")


def _closed() -> ClosedError:
    return ClosedError("The ledger is not open.", remedy="The service opens it when it starts.")
