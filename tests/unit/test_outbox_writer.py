"""The outbox in a file: what becomes a transaction, what survives it, and how its thread ends."""

import asyncio
import logging
import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field

from realtime_fsm.adapters import outbox_file, sqlite_thread
from realtime_fsm.adapters import outbox_schema as schema
from realtime_fsm.adapters.outbox_file import OutboxFile
from realtime_fsm.adapters.outbox_writer import Operation, OperationKind, SqliteOutbox, write
from realtime_fsm.machine.errors import ConfigurationError, InternalError, OutboxStorageError, RealtimeError
from realtime_fsm.testing.contracts.outbox_contract import append_all, letter, message, sequences

pytestmark = pytest.mark.real_loop

Run = Callable[[Coroutine[Any, Any, None]], None]

COUNT = "SELECT count(*) FROM message"
PRODUCERS = """
import asyncio, sys
from realtime_fsm.testing.contracts.outbox_contract import message
from realtime_fsm.adapters.outbox_writer import SqliteOutbox

async def main():
    outbox = SqliteOutbox(sys.argv[1], durability=sys.argv[2], report=print)
    number = (await outbox.open()).last_sequence

    async def produce():
        nonlocal number
        while True:
            number += 1
            mine = number
            await outbox.append(message(mine, event="e" * 300))
            print(mine, flush=True)

    await asyncio.gather(*(produce() for _ in range(20)))

asyncio.run(main())
"""


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    """Return a new outbox in memory."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        schema.migrate(connection, 0)
        yield connection


def append(number: int) -> Operation:
    """Return an append."""
    return Operation(kind=OperationKind.APPEND, rows=(schema.message_row(message(number)),))


def remove(number: int) -> Operation:
    """Return a removal."""
    return Operation(kind=OperationKind.REMOVE, rows=((number,),))


def bury(number: int) -> Operation:
    """Return a burial."""
    return Operation(kind=OperationKind.BURY, rows=(schema.letter_row(letter(number)),))


@define
class Disk:
    """What the file's connection meets.

    Attributes:
        is_full: No page can be added.
        levels: What ``PRAGMA synchronous`` was at each transaction.
    """

    is_full: bool = False
    levels: list[int] = field(factory=list)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """A disk that can be full."""
    disk = Disk()

    class Connection(sqlite3.Connection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            if sql == "BEGIN IMMEDIATE":
                super().execute(f"PRAGMA max_page_count = {1 if disk.is_full else 1_000_000}")
                disk.levels.append(super().execute("PRAGMA synchronous").fetchone()[0])
            return super().execute(sql, *parameters)

    def connect(path: Path, *, timeout: float) -> sqlite3.Connection:
        timeout = min(timeout, 0.02)
        return sqlite3.connect(path, timeout=timeout, isolation_level=None, factory=Connection)

    monkeypatch.setattr(outbox_file, "connect", connect)
    return disk


@pytest.fixture
def words(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[str], Coroutine[Any, Any, None]]]:
    """Wait until the outbox logs something that holds a word."""
    heard: list[tuple[asyncio.AbstractEventLoop, str, asyncio.Event]] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            for loop, word, event in heard:
                if word in record.getMessage():
                    loop.call_soon_threadsafe(event.set)

    async def hear(word: str) -> None:
        event = asyncio.Event()
        heard.append((asyncio.get_running_loop(), word, event))
        await event.wait()
        heard.clear()

    caplog.set_level(logging.DEBUG, "realtime_fsm.outbox")
    handler = Handler()
    logging.getLogger("realtime_fsm.outbox").addHandler(handler)
    yield hear
    logging.getLogger("realtime_fsm.outbox").removeHandler(handler)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the file's lock for writing, as another program does."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


def ignore(error: RealtimeError) -> None:
    """Take an error that nobody awaits."""


def stored(path: Path) -> list[int]:
    """Return the numbers of the messages in a file."""
    with closing(sqlite3.connect(path)) as connection:
        return [row[0] for row in connection.execute("SELECT sequence FROM message ORDER BY sequence")]


@pytest.mark.parametrize("wrong", [{"durability": "no"}, {"max_dead_letters": -1}])
def test_wrong_arguments_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    """A wrong argument is refused when it is given, by its name."""
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        SqliteOutbox(tmp_path / "o.db", report=ignore, **wrong)


async def test_full_disk_fails_the_append_and_keeps_nothing_of_it(tmp_path: Path, disk: Disk) -> None:
    """On a full disk every append fails with the reason and a remedy; with room it works by itself."""
    outbox = SqliteOutbox(tmp_path / "o.db", report=ignore)
    await outbox.open()
    kept, refused = message(1), [message(2, event="x" * 9000), message(3, event="x" * 9000)]
    await append_all(outbox, [kept])
    disk.is_full = True
    failures = await asyncio.gather(*map(outbox.append, refused), return_exceptions=True)
    assert all(isinstance(failure, OutboxStorageError) for failure in failures)
    assert "disk is full" in str(failures[0])
    assert "Free space" in str(failures[0])
    assert failures[0] is not failures[1]
    assert (tmp_path / "o.db-wal").stat().st_size == 0, "it gave no room back"
    assert [one.is_stored for one in (kept, *refused)] == [True, False, False]
    disk.is_full = False
    await append_all(outbox, [message(4)])
    await outbox.close()
    assert stored(tmp_path / "o.db") == [1, 4]


async def test_outage_keeps_what_nobody_waits_for_and_reports_it_once(
    tmp_path: Path, words: Callable[[str], Coroutine[Any, Any, None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """During an outage appends fail, removals are kept, told once, and done by themselves afterwards."""
    monkeypatch.setattr(outbox_file, "BUSY_TIMEOUT", 0.02)
    reported: list[RealtimeError] = []
    outbox = SqliteOutbox(tmp_path / "o.db", report=reported.append)
    await outbox.open()
    kept = [message(number) for number in (1, 2, 3, 4)]
    await append_all(outbox, kept)
    for round_of_two in (kept[:2], kept[2:]):
        reported.clear()
        with locked(tmp_path / "o.db"):
            for number, one in enumerate(round_of_two, start=10):
                outbox.remove(one)
                with pytest.raises(OutboxStorageError, match="another program has locked it"):
                    await outbox.append(message(number))
            assert stored(tmp_path / "o.db")[: len(round_of_two)] == sequences(round_of_two)
            heard = asyncio.create_task(words("can be written again"))
            await asyncio.sleep(0)
        await heard
        assert [type(error) for error in reported] == [OutboxStorageError]
    await outbox.close()
    assert stored(tmp_path / "o.db") == []


async def test_close_in_an_outage_is_bounded_and_says_what_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing gives up on a file that stays locked, and reports how much was not written."""
    monkeypatch.setattr(outbox_file, "BUSY_TIMEOUT", 0.02)
    monkeypatch.setattr(sqlite_thread, "FLUSH_TIMEOUT", 0.2)
    reported: list[str] = []
    outbox = SqliteOutbox(tmp_path / "o.db", report=lambda error: reported.append(str(error)))
    await outbox.open()
    one = message(1)
    await append_all(outbox, [one])
    with locked(tmp_path / "o.db"):
        outbox.charge(one)
        outbox.remove(one)
        began = time.monotonic()
        await outbox.close()
        assert time.monotonic() - began < 20
    assert "before 2 changes could be written" in reported[-1]
    assert sequences((await outbox.open()).waiting) == [1]
    await outbox.close()


async def test_impossible_operation_harms_no_other(tmp_path: Path) -> None:
    """What can never be written is given up, with an error for it alone; its neighbours are written."""
    reported: list[RealtimeError] = []
    outbox = SqliteOutbox(tmp_path / "o.db", report=reported.append)
    await outbox.open()
    first, poison = message(1), message(2, attempts=2**70)
    futures = [outbox.append(one) for one in (first, poison, message(1), message(3))]
    outbox.charge(poison)
    outbox.remove(first)
    results = await asyncio.gather(*futures, return_exceptions=True)
    assert [type(result) for result in results] == [
        type(None),
        OutboxStorageError,
        OutboxStorageError,
        type(None),
    ]
    await outbox.close()
    assert stored(tmp_path / "o.db") == [3]
    assert [type(error) for error in reported] == [OutboxStorageError]


async def test_taken_letters_that_nobody_received_are_put_back(tmp_path: Path) -> None:
    """Cancelling whoever takes dead letters loses none of them."""
    outbox = SqliteOutbox(tmp_path / "o.db", report=ignore)
    await outbox.open()
    outbox.bury(letter(1))
    outbox.bury(letter(2))
    taking = asyncio.create_task(outbox.take_dead())
    await asyncio.sleep(0)
    taking.cancel()
    await asyncio.wait({taking})
    await append_all(outbox, [message(3)])  # by now it was taken, and is on its way back
    assert sequences(await outbox.dead_letters()) == [1, 2]
    await outbox.close()


async def test_dropped_dead_letters_are_counted_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Dead letters that make room are counted over the outbox's whole life, and a warning tells of them."""
    outbox = SqliteOutbox(tmp_path / "o.db", max_dead_letters=2, report=ignore)
    for start in (10, 20):
        await outbox.open()
        for number in range(start, start + 3):
            outbox.bury(letter(number))
        await outbox.close()
    assert outbox.dropped_dead_letters == 4
    assert "dead letters were dropped" in caplog.text


async def test_only_what_somebody_waits_for_waits_for_the_disk(
    tmp_path: Path, disk: Disk, words: Callable[[str], Coroutine[Any, Any, None]]
) -> None:
    """With ``power`` an append and a claim are synced (FULL), a removal is not (NORMAL)."""
    outbox = SqliteOutbox(tmp_path / "o.db", report=ignore)
    await outbox.open()
    disk.levels.clear()
    one, other = message(1), message(2)
    await append_all(outbox, [one, other])
    claimed = outbox.claim([one])
    assert claimed is not None
    await claimed
    assert set(disk.levels) == {2}
    with locked(tmp_path / "o.db"):  # written by itself when the lock is gone, so that nothing joins it
        outbox.remove(other)
        await words("cannot be written")
    await words("can be written again")
    assert disk.levels[-1] == 1
    disk.levels.clear()
    await append_all(outbox, [message(3)])
    assert disk.levels == [2], "it stayed at what nobody waits for"
    await outbox.close()


async def test_many_appends_are_few_transactions(tmp_path: Path, disk: Disk) -> None:
    """A thousand appends at once share their transactions, and the calls into the loop."""
    outbox = SqliteOutbox(tmp_path / "o.db", report=ignore)
    await outbox.open()
    disk.levels.clear()
    await append_all(outbox, map(message, range(1, 1001)))
    assert 2 <= len(disk.levels) <= 200
    await outbox.close()


def numbers(connection: sqlite3.Connection, table: str = "message") -> list[int]:
    """Return the numbers in a table."""
    return [row[0] for row in connection.execute(f"SELECT sequence FROM {table} ORDER BY rowid")]  # noqa: S608


def test_message_that_was_claimed_may_be_kept_again_at_once(connection: sqlite3.Connection) -> None:
    """Within one transaction the last word on a message counts: claimed and kept again, it is there."""
    write(connection, [append(1), append(2), remove(1), append(1), append(3), remove(3)], 10)
    assert numbers(connection) == [1, 2]
    write(connection, [remove(2), append(2), remove(2)], 10)
    assert numbers(connection) == [1]


def test_question_sees_what_was_asked_before_it_alone(connection: sqlite3.Connection) -> None:
    """A question between other operations of a transaction sees those before it, and none after it."""
    question = Operation(
        kind=OperationKind.CALL, call=lambda inner: (numbers(inner), numbers(inner, "dead_letter"))
    )
    write(connection, [append(1), append(2), bury(2), question, bury(1), append(4)], 10)
    assert question.result == ([1], [2])
    assert numbers(connection) == [4]


@pytest.mark.parametrize("count", [1, 7, 8, 63, 64, 65, 137, 500])
def test_any_number_of_rows_is_written(connection: sqlite3.Connection, count: int) -> None:
    """However many rows there are to insert and delete, each is, once."""
    write(connection, map(append, range(1, count + 1)), 10)
    assert numbers(connection) == list(range(1, count + 1))
    write(connection, map(remove, range(2, count + 1)), 10)
    assert numbers(connection) == [1]
    assert schema.last_sequence(connection) == count


def test_transaction_is_written_whole_or_not_at_all(connection: sqlite3.Connection) -> None:
    """If one operation is impossible nothing of its transaction is there, and the next one works."""
    write(connection, [append(1)], 10)
    with pytest.raises(sqlite3.IntegrityError):
        write(connection, [append(2), bury(3), remove(1), append(2)], 10)
    assert (numbers(connection), numbers(connection, "dead_letter")) == ([1], [])
    assert schema.last_sequence(connection) == 1
    assert not connection.in_transaction
    write(connection, [append(4)], 10)
    assert numbers(connection) == [1, 4]


def test_dead_letters_beyond_the_bound_are_counted(connection: sqlite3.Connection) -> None:
    """The oldest dead letters go, and the transaction says how many; a bound of zero keeps none."""
    assert write(connection, map(bury, (3, 1, 2)), 2) == 1
    assert numbers(connection, "dead_letter") == [1, 2]
    assert write(connection, [bury(9)], 0) == 3
    assert numbers(connection, "dead_letter") == []


@pytest.mark.parametrize("durability", ["power", "process"])
def test_what_was_kept_survives_kill_9(run_async: Run, tmp_path: Path, durability: str) -> None:
    """Killed at any moment, five times over: every message that was said to be kept is there, in order."""
    path = tmp_path / "o.db"
    promised: list[int] = []
    chance = random.Random(durability)  # noqa: S311 - only where it is killed

    async def look() -> None:
        outbox = SqliteOutbox(path, report=print)
        contents = await outbox.open()
        kept = sequences(contents.waiting)
        assert kept == sorted(set(kept))
        assert set(promised) <= set(kept)
        assert contents.last_sequence == kept[-1]
        await outbox.close()

    for _ in range(5):
        promised.extend(promises_before_kill(path, durability, chance.randrange(1, 1500)))
        left = OutboxFile(path).read_only(lambda connection: connection.execute(COUNT).fetchone()[0])
        assert left >= len(promised)
        run_async(look())
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert list(tmp_path.glob("*.corrupt-*")) == []


def promises_before_kill(path: Path, durability: str, count: int) -> list[int]:
    """Let a process append, kill it after so many lines, and return what it said was kept."""
    tests = Path(__file__).parent.parent
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tests), *sys.path])}
    command = [sys.executable, "-c", PRODUCERS, str(path), durability]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        try:
            lines = [process.stdout.readline() for _ in range(count)]
        finally:
            process.kill()
        lines += process.stdout.readlines()
    return [int(line) for line in lines if line.endswith(b"\n")]


def test_outbox_serves_another_loop_after_its_own(tmp_path: Path) -> None:
    """One outbox serves one client after the other, each on a loop of its own."""
    outbox = SqliteOutbox(tmp_path / "o.db", report=print)

    async def use() -> int:
        contents = await outbox.open()
        await outbox.close()
        return contents.last_sequence

    assert [asyncio.run(use()) for _ in range(2)] == [0, 0]


def writer_threads() -> list[threading.Thread]:
    """Return the writers that run."""
    return [thread for thread in threading.enumerate() if thread.name == "realtime-outbox"]


async def append_without_end(outbox: SqliteOutbox) -> None:
    """Append one message after the other, until one fails."""
    for number in count(1000):
        await outbox.append(message(number))


async def test_writer_ends_with_its_outbox(tmp_path: Path) -> None:
    """The thread is there while the outbox is open, and gone when it is closed."""
    outbox = SqliteOutbox(tmp_path / "o.db", report=print)
    await outbox.open()
    assert len(writer_threads()) == 1
    await outbox.close()
    assert writer_threads() == []


def test_writer_ends_with_its_loop(tmp_path: Path) -> None:
    """If the loop ends and nobody closed the outbox, the writer writes what it has, and ends by itself."""

    async def main() -> None:
        outbox = SqliteOutbox(tmp_path / "o.db", report=print)
        await outbox.open()
        outbox.append(message(1))

    asyncio.run(main())
    for thread in writer_threads():
        thread.join(10)
    assert writer_threads() == []
    with closing(sqlite3.connect(tmp_path / "o.db")) as connection:
        assert connection.execute("SELECT sequence FROM message").fetchall() == [(1,)]


async def test_failing_writer_leaves_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the writer itself has a bug, it is reported, everybody who waits is told, and the file is free."""
    reported: list[RealtimeError] = []

    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    outbox = SqliteOutbox(tmp_path / "o.db", report=reported.append)
    await outbox.open()
    await append_all(outbox, [message(1)])
    with monkeypatch.context() as patched:
        patched.setattr(sqlite_thread.Backlog, "resume", fail)
        outbox.remove(message(2))
        with pytest.raises(OutboxStorageError, match="closed"):
            await append_without_end(outbox)
        with pytest.raises(OutboxStorageError, match="closed"):
            await outbox.append(message(1))
        await outbox.close()
    assert type(reported[0]) is InternalError
    assert "a bug" in str(reported[0])
    await outbox.open()
    await outbox.close()
