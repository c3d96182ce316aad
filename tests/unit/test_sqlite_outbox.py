"""The outbox in a file, when the disk, other programs and callers are not kind to it."""

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field

from realtime_fsm.adapters import outbox_file as sqlite_file
from realtime_fsm.adapters import outbox_writer as sqlite_backlog
from realtime_fsm.adapters.outbox_writer import SqliteOutbox
from realtime_fsm.machine.errors import ConfigurationError, OutboxStorageError, RealtimeError
from realtime_fsm.testing.contracts.kept_messages import append_all, letter, message, sequences

Run = Callable[[Coroutine[Any, Any, None]], None]


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

    monkeypatch.setattr(sqlite_file, "connect", connect)
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


def test_full_disk_fails_the_append_and_keeps_nothing_of_it(
    run_async: Run, tmp_path: Path, disk: Disk
) -> None:
    """On a full disk every append fails with the reason and a remedy; with room it works by itself."""

    async def main() -> None:
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

    run_async(main())


def test_outage_keeps_what_nobody_waits_for_and_reports_it_once(
    run_async: Run,
    tmp_path: Path,
    words: Callable[[str], Coroutine[Any, Any, None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """During an outage appends fail, removals are kept, told once, and done by themselves afterwards."""
    monkeypatch.setattr(sqlite_file, "BUSY_TIMEOUT", 0.02)
    reported: list[RealtimeError] = []

    async def main() -> None:
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

    run_async(main())


def test_close_in_an_outage_is_bounded_and_says_what_is_lost(
    run_async: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing gives up on a file that stays locked, and reports how much was not written."""
    monkeypatch.setattr(sqlite_file, "BUSY_TIMEOUT", 0.02)
    monkeypatch.setattr(sqlite_backlog, "FLUSH_TIMEOUT", 0.2)
    reported: list[str] = []

    async def main() -> None:
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

    run_async(main())


def test_impossible_operation_harms_no_other(run_async: Run, tmp_path: Path) -> None:
    """What can never be written is given up, with an error for it alone; its neighbours are written."""
    reported: list[RealtimeError] = []

    async def main() -> None:
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

    run_async(main())


def test_taken_letters_that_nobody_received_are_put_back(run_async: Run, tmp_path: Path) -> None:
    """Cancelling whoever takes dead letters loses none of them."""

    async def main() -> None:
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

    run_async(main())


def test_dropped_dead_letters_are_counted_and_logged(
    run_async: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Dead letters that make room are counted over the outbox's whole life, and a warning tells of them."""

    async def main() -> None:
        outbox = SqliteOutbox(tmp_path / "o.db", max_dead_letters=2, report=ignore)
        for start in (10, 20):
            await outbox.open()
            for number in range(start, start + 3):
                outbox.bury(letter(number))
            await outbox.close()
        assert outbox.dropped_dead_letters == 4

    run_async(main())
    assert "dead letters were dropped" in caplog.text


def test_only_what_somebody_waits_for_waits_for_the_disk(
    run_async: Run, tmp_path: Path, disk: Disk, words: Callable[[str], Coroutine[Any, Any, None]]
) -> None:
    """With ``power`` an append and a claim are synced (FULL), a removal is not (NORMAL)."""

    async def main() -> None:
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

    run_async(main())


def test_many_appends_are_few_transactions(run_async: Run, tmp_path: Path, disk: Disk) -> None:
    """A thousand appends at once share their transactions, and the calls into the loop."""

    async def main() -> None:
        outbox = SqliteOutbox(tmp_path / "o.db", report=ignore)
        await outbox.open()
        disk.levels.clear()
        await append_all(outbox, map(message, range(1, 1001)))
        assert 2 <= len(disk.levels) <= 200
        await outbox.close()

    run_async(main())
