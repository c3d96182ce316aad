"""What the ledger in SQLite promises beyond the others: it commits with the application, or not at all."""

import asyncio
import resource
import sqlite3
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from realtime_fsm.machine.errors import ClosedError, ConfigurationError
from realtime_fsm.server import BackendConfig, Client, SqliteLedger, Stamp, sqlite_ledger
from realtime_fsm.server.ledger import LedgerUnavailableError
from realtime_fsm.server.request import Answer
from realtime_fsm.server.router import MessageRouter

pytestmark = pytest.mark.real_loop

RunAsync = Callable[..., Any]
BOUND = 8.0
CONFIG = BackendConfig(secret="0123456789abcdef0123456789abcdef", handler_timeout=0.2)
FAILED = "handler_failed"
FULL = 2
"""What ``PRAGMA synchronous`` says where each commit is on the disk before it ends."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a database with the table of an application."""
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE note (text TEXT)")
    return path


def notes(path: Path) -> list[str]:
    """Return what the application has written."""
    with closing(sqlite3.connect(path)) as connection:
        return [text for (text,) in connection.execute("SELECT text FROM note ORDER BY rowid")]


def size(path: str) -> int:
    """Return the size of a file."""
    return Path(path).stat().st_size


@contextmanager
def no_growth_beyond(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size: the next write fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def modes(folder: Path, name: str) -> list[int]:
    """Return the permissions of a database's files."""
    return [stat.S_IMODE(file.stat().st_mode) for file in folder.glob(f"{name}*")]


class Backend:
    """A router with a ledger in SQLite."""

    def __init__(self, ledger: SqliteLedger) -> None:
        self.ledger = ledger
        self.router = MessageRouter(CONFIG, ledger)

    async def send(self, sequence: int, event: str = "note", *args: Any, subject: str = "ann") -> Answer:
        """Send a message."""
        client = Client(subject=subject, claims={}, message_id="m", client_id="c", sequence=sequence)
        async with self.router.turn(subject):
            return await self.router.handle(client, event, args)


@asynccontextmanager
async def backend(path: Path, **options: Any) -> AsyncIterator[Backend]:
    """Open a ledger with a router."""
    ledger = SqliteLedger(path, **options)
    await ledger.open()
    try:
        one = Backend(ledger)
        one.router.on("note", note)
        yield one
    finally:
        await ledger.close()


def note(client: Client, text: str = "hi") -> str:
    """Write something, as an application does."""
    client.transaction.execute("INSERT INTO note VALUES (?)", (text,))
    return text.upper()


def code(answer: Answer) -> str:
    """Return why a message was refused."""
    return str(answer["error"]["code"])


async def test_mark_outlives_the_process(path: Path) -> None:
    """After a restart a repeat still is one, with its first answer or refusal, and what is new is new."""
    async with backend(path) as one:
        assert await one.send(1) == {"ok": True, "answer": "HI"}
        assert code(await one.send(2, "nobody")) == "unknown_event"
    async with backend(path) as one:
        assert await one.send(1) == {"ok": True, "answer": "HI", "duplicate": True}
        refused = await one.send(2, "nobody")
        assert (code(refused), refused["duplicate"]) == ("unknown_event", True)
        assert one.router.duplicates == 2
        assert await one.send(3, "note", "there") == {"ok": True, "answer": "THERE"}
    assert notes(path) == ["hi", "there"]


async def test_every_connection_waits_for_the_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No commit of the ledger can be lost with the power, whatever the default of this SQLite."""
    made: list[sqlite3.Connection] = []
    levels: dict[int, set[int]] = {}

    class Watched(sqlite3.Connection):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            super().execute("PRAGMA synchronous=NORMAL")  # as a SQLite that was built so
            made.append(self)

        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            if sql in {"BEGIN IMMEDIATE", "COMMIT"}:
                (level,) = super().execute("PRAGMA synchronous").fetchone()
                levels.setdefault(id(self), set()).add(level)
            return super().execute(sql, *parameters)

    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Watched))
    async with backend(path) as one:
        assert await one.send(1) == {"ok": True, "answer": "HI"}
        assert code(await one.send(2, "nobody")) == "unknown_event"
        assert (await one.send(1))["duplicate"]
    assert len(made) >= 4
    assert levels == {id(connection): {FULL} for connection in made}


async def test_failed_handler_leaves_nothing_but_its_refusal(path: Path) -> None:
    """What a handler wrote before it failed, or before its answer proved to be none, is undone."""

    def fail(client: Client) -> None:
        note(client, "half")
        raise RuntimeError("broken")

    def answer_nonsense(client: Client) -> object:
        note(client, "half")
        return object()

    def keep_a_cursor(client: Client) -> None:
        note(client, "half")
        cursors.append(client.transaction.execute("SELECT * FROM note UNION SELECT 'b'"))
        cursors[-1].fetchone()
        raise RuntimeError("broken")

    cursors: list[sqlite3.Cursor] = []
    async with backend(path) as one:
        for sequence, handler in enumerate((fail, answer_nonsense, keep_a_cursor), 1):
            one.router.on(handler.__name__, handler)
            refused = await one.send(sequence, handler.__name__)
            assert code(refused) == FAILED
            assert await one.send(sequence, handler.__name__) == {**refused, "duplicate": True}
        cursors.clear()  # which is what lets go of its file
        assert notes(path) == []
        assert await one.send(9) == {"ok": True, "answer": "HI"}
    assert notes(path) == ["hi"]


async def test_handler_cannot_end_the_transaction(path: Path) -> None:
    """Whatever would commit the effect apart from the mark is refused, and so are the ledger's own tables."""
    attempts: dict[str, Callable[[sqlite3.Connection], object]] = {
        "commit": lambda t: t.commit(),
        "rollback": lambda t: t.rollback(),
        "statement": lambda t: t.execute("COMMIT"),
        "end": lambda t: t.execute("END"),
        "script": lambda t: t.executescript("INSERT INTO note VALUES ('script')"),
        "with": lambda t: t.__enter__().__exit__(None, None, None),  # type: ignore[func-returns-value]
        "mark": lambda t: t.execute("UPDATE realtime_fsm_client SET mark = 99"),
        "answers": lambda t: t.execute("DELETE FROM realtime_fsm_answer"),
    }

    def try_it(client: Client, name: str) -> None:
        note(client)
        attempts[name](client.transaction)

    async with backend(path) as one:
        one.router.on("try", try_it)
        for sequence, name in enumerate(attempts, 1):
            assert code(await one.send(sequence, "try", name)) == FAILED
        assert notes(path) == []
        assert await one.send(50) == {"ok": True, "answer": "HI"}


async def test_handler_may_use_savepoints(path: Path) -> None:
    """A handler can undo a part of what it does."""

    def partly(client: Client) -> None:
        note(client, "kept")
        client.transaction.execute("SAVEPOINT part")
        note(client, "undone")
        client.transaction.execute("ROLLBACK TO part")
        client.transaction.execute("RELEASE part")
        client.transaction.row_factory = lambda *_: "rows are what the handler wants"

    async with backend(path) as one:
        one.router.on("partly", partly)
        assert (await one.send(1, "partly"))["ok"] is True
        assert (await one.send(1, "partly"))["duplicate"] is True
    assert notes(path) == ["kept"]


async def test_transaction_is_nobody_elses(path: Path) -> None:
    """No thread, no task that a handler leaves behind and none of its cursors can write through it."""
    left: list[Any] = []

    async def leave(client: Client) -> str:
        left.extend([client.transaction, client.transaction.cursor()])
        note(client, "own")
        with pytest.raises(sqlite3.DatabaseError, match="not authorized"):
            await asyncio.to_thread(note, client, "of a thread")
        return "done"

    async def commit_slowly(self: Any, work: Any, *args: Any) -> Any:
        """Let what was left behind try just before each step of the end."""
        if left:
            with pytest.raises(sqlite3.Error):
                left[1].execute("INSERT INTO note VALUES (?)", ("own",))  # prepared before, so far
            attempts.append(work)
        return await in_thread(self, work, *args)

    attempts: list[Any] = []
    in_thread = SqliteLedger._in_thread
    async with backend(path) as one:
        one.router.on("leave", leave)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(SqliteLedger, "_in_thread", commit_slowly)
            assert await one.send(1, "leave") == {"ok": True, "answer": "done"}
        assert [work.__name__ for work in attempts] == ["commit"]
        for one_left in left:
            with pytest.raises(sqlite3.ProgrammingError):
                one_left.execute("INSERT INTO note VALUES ('late')")
    assert notes(path) == ["own"]


async def test_handler_that_times_out_writes_nothing(path: Path) -> None:
    """A handler that hangs is undone and refused, and one that goes on regardless holds up nobody else."""
    late: list[Exception] = []

    async def hang(client: Client) -> None:
        note(client, "half")

        async def go_on() -> None:
            await released.wait()
            try:
                note(client, "late")
            except sqlite3.Error as error:
                late.append(error)

        tasks.append(asyncio.create_task(go_on()))
        await asyncio.Event().wait()

    released, tasks = asyncio.Event(), list[asyncio.Task[None]]()
    async with backend(path) as one:
        one.router.on("hang", hang)
        assert code(await one.send(1, "hang")) == "handler_timeout"
        assert await one.send(1, subject="bob") == {"ok": True, "answer": "HI"}
        released.set()
        await asyncio.wait(tasks, timeout=BOUND)
        assert len(late) == 1
        assert code(await one.send(1, "hang")) == "handler_timeout"
    assert notes(path) == ["hi"]


async def test_messages_of_different_clients_do_not_mix(path: Path) -> None:
    """While one handler has the transaction another one waits: a failure undoes its own writes alone."""

    async def slowly(client: Client, text: str) -> None:
        note(client, text)
        for _ in range(3):
            await asyncio.sleep(0)
        note(client, text)
        if text == "b":
            raise RuntimeError(text)

    async with backend(path) as one:
        one.router.on("slowly", slowly)
        answers = await asyncio.gather(*(one.send(1, "slowly", text, subject=text) for text in "abc"))
        assert [answer["ok"] for answer in answers] == [True, False, True]
    assert notes(path) == ["a", "a", "c", "c"]


async def test_full_disk_at_the_commit_acknowledges_nothing(path: Path) -> None:
    """If the commit fails the message is neither acknowledged nor refused, and is handled when it returns."""
    async with backend(path) as one:
        await one.send(1)
        with no_growth_beyond(size(f"{path}-wal")), pytest.raises(LedgerUnavailableError):
            await one.send(2, "note", "there")
        assert notes(path) == ["hi"]
        assert await one.send(2, "note", "there") == {"ok": True, "answer": "THERE"}
    assert notes(path) == ["hi", "there"]


@pytest.mark.parametrize("is_caught", [False, True])
async def test_full_disk_within_a_handler_is_no_refusal(path: Path, is_caught: bool) -> None:
    """If SQLite rolls back under a handler, caught or not, nothing is kept: the message can come again."""
    limit = [""]

    def write(client: Client, size: int) -> None:
        try:
            for _ in range(size):
                note(client, "x" * 3000)
        except sqlite3.OperationalError:
            if not is_caught:
                raise

    def prepare(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA cache_size = 5")
        connection.execute(f"PRAGMA max_page_count = {limit[0] or 10_000}")

    async with backend(path, on_connect=prepare) as one:
        one.router.on("write", write)
        limit[0] = "30"
        with pytest.raises(LedgerUnavailableError):
            await one.send(1, "write", 100)
        limit[0] = ""
        assert notes(path) == []
        assert (await one.send(1, "write", 100))["ok"] is True
    assert len(notes(path)) == 100


async def test_busy_database_acknowledges_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another process writes, a message waits; if that takes too long it is not handled at all."""
    monkeypatch.setattr(sqlite_ledger, "_BUSY_TIMEOUT", 0.05)
    async with backend(path) as one:
        with closing(sqlite3.connect(path)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(LedgerUnavailableError):
                await one.send(1)
        assert await one.send(1) == {"ok": True, "answer": "HI"}
    assert notes(path) == ["hi"]


async def test_two_servers_can_share_a_ledger(path: Path) -> None:
    """What took effect at one server is a repeat at another one that has the same database."""
    async with backend(path) as one, backend(path) as other:
        assert await one.send(1) == {"ok": True, "answer": "HI"}
        assert await other.send(1) == {"ok": True, "answer": "HI", "duplicate": True}
        assert await other.send(2, "note", "there") == {"ok": True, "answer": "THERE"}
        assert (await one.send(2, "note", "there"))["duplicate"] is True
    assert notes(path) == ["hi", "there"]


async def test_close_undoes_what_has_not_ended(path: Path) -> None:
    """A handler that is still at work when the ledger closes leaves nothing, and is told that it is over."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(client: Client) -> None:
        note(client, "half")
        begun.set()
        await go_on.wait()

    async with backend(path) as one:
        one.router.on("slow", slow)
        sending = asyncio.create_task(one.send(1, "slow"))
        await begun.wait()
        await one.ledger.close()
        go_on.set()
        with pytest.raises(LedgerUnavailableError) as caught:
            await sending
        assert isinstance(caught.value.__cause__, ClosedError)
        await one.ledger.close()
        with pytest.raises(ClosedError):
            await one.ledger.apply(Stamp("ann", "c", 1), lambda _: sending)
    assert notes(path) == []


async def test_close_at_any_moment_leaves_all_of_a_message_or_nothing(path: Path) -> None:
    """Wherever a message is when the ledger closes, it took effect and is a repeat, or did not."""
    for turns in range(12):
        async with backend(path) as one:
            sending = asyncio.create_task(one.send(turns + 1, "note", str(turns)))
            for _ in range(turns):
                await asyncio.sleep(0)
            async with asyncio.timeout(BOUND):
                await one.ledger.close()
            (outcome,) = await asyncio.gather(sending, return_exceptions=True)
            assert isinstance(outcome, LedgerUnavailableError) or outcome["ok"] is True
        async with backend(path) as one:
            assert (await one.send(turns + 1, "note", str(turns)))["answer"] == str(turns)
    assert notes(path) == [str(turns) for turns in range(12)]


async def test_cancelled_message_leaves_nothing(path: Path) -> None:
    """Wherever it is cancelled, a message took effect and is a repeat, or did not and is handled."""
    async with backend(path) as one:
        for sequence in range(1, 40):
            sending = asyncio.create_task(one.send(sequence, "note", str(sequence)))
            for _ in range(sequence):
                await asyncio.sleep(0)
            sending.cancel()
            await asyncio.wait({sending}, timeout=BOUND)
            assert (await one.send(sequence, "note", str(sequence)))["answer"] == str(sequence)
    assert notes(path) == [str(sequence) for sequence in range(1, 40)]


def test_files_are_the_owners_alone(path: Path, tmp_path: Path, run_async: RunAsync) -> None:
    """No other user may read the database or its log, whether it was there before or not."""
    path.chmod(0o644)

    async def main() -> None:
        for one_path in (path, tmp_path / "new.db"):
            async with backend(one_path) as one:
                await one.send(1, "nobody")
                assert modes(tmp_path, one_path.name) == [0o600] * 3

    run_async(main())


async def test_ledger_of_the_first_version_is_taken_over(path: Path) -> None:
    """A ledger that an older release wrote knows what took effect, and its answers."""
    async with backend(path) as one:
        await one.send(1)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("ALTER TABLE realtime_fsm_answer DROP COLUMN digest")
        connection.execute("UPDATE realtime_fsm_ledger SET version = 1")
    for number in (2, 3):
        async with backend(path) as one:
            assert await one.send(1, "note", "what it said is not known") == {
                "ok": True,
                "answer": "HI",
                "duplicate": True,
            }
            assert await one.send(number) == {"ok": True, "answer": "HI"}
            assert code(await one.send(number, "note", "other")) == "number_reused"
    assert notes(path) == ["hi", "hi", "hi"]


def test_database_that_cannot_be_used_is_a_configuration_error(tmp_path: Path, run_async: RunAsync) -> None:
    """What is no database, or that of another release, is refused by name, and left as it is."""
    (tmp_path / "text").write_text("This is no database, and long enough to be told from an empty one. " * 20)
    with closing(sqlite3.connect(tmp_path / "newer")) as connection:
        connection.execute("CREATE TABLE realtime_fsm_ledger (version INTEGER NOT NULL)")
        connection.execute("INSERT INTO realtime_fsm_ledger VALUES (3)")
        connection.commit()
    (tmp_path / "text").chmod(0o644)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.name == "text"}

    async def main() -> None:
        for name in ("text", "newer", "missing/ledger.db", ""):
            ledger = SqliteLedger(tmp_path / name)
            with pytest.raises(ConfigurationError, match=name or tmp_path.name):
                await ledger.open()
        assert {"text": (tmp_path / "text").read_bytes()} == before
        assert (tmp_path / "text").stat().st_mode & 0o777 == 0o644

    run_async(main())
