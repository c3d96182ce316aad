"""How the writer of an outbox ends: with its outbox, with its loop, or killed; what was kept is kept."""

import asyncio
import os
import random
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from realtime_fsm.adapters import outbox_writer as sqlite_backlog
from realtime_fsm.adapters.outbox_file import OutboxFile
from realtime_fsm.adapters.outbox_writer import SqliteOutbox
from realtime_fsm.machine.errors import InternalError, OutboxStorageError, RealtimeError
from realtime_fsm.testing.contracts.outbox_contract import append_all, message, sequences

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


def test_writer_ends_with_its_outbox(run_async: Run, tmp_path: Path) -> None:
    """The thread is there while the outbox is open, and gone when it is closed."""

    async def main() -> None:
        outbox = SqliteOutbox(tmp_path / "o.db", report=print)
        await outbox.open()
        assert len(writer_threads()) == 1
        await outbox.close()
        assert writer_threads() == []

    run_async(main())


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


def test_failing_writer_leaves_nobody_waiting(
    run_async: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the writer itself has a bug, it is reported, everybody who waits is told, and the file is free."""
    reported: list[RealtimeError] = []

    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    async def main() -> None:
        outbox = SqliteOutbox(tmp_path / "o.db", report=reported.append)
        await outbox.open()
        await append_all(outbox, [message(1)])
        with monkeypatch.context() as patched:
            patched.setattr(sqlite_backlog.Backlog, "resume", fail)
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

    run_async(main())
