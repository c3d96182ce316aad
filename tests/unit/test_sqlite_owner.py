"""The file of an outbox: one owner, private, in a place where it can be, and easy to look at."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from realtime_fsm.adapters import outbox_file as sqlite_file
from realtime_fsm.adapters import outbox_schema as sqlite_schema
from realtime_fsm.adapters.outbox_writer import SqliteOutbox
from realtime_fsm.machine.errors import OutboxStorageError, RealtimeError
from realtime_fsm.testing.contracts.outbox_contract import append_all, fields_of, message, sequences

Run = Callable[[Coroutine[Any, Any, None]], None]

OWNER = """
import asyncio, sys
from realtime_fsm.adapters.outbox_writer import SqliteOutbox
async def main():
    await SqliteOutbox(sys.argv[1], report=print).open()
    print("open", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


def modes(folder: Path) -> dict[str, int]:
    """Return the files of a folder, and who may do what with them."""
    return {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()}


class Reports(list[RealtimeError]):
    """Takes the errors that nobody awaits."""

    def outbox(self, path: Path) -> SqliteOutbox:
        """Return an outbox that reports to here."""
        return SqliteOutbox(path, report=self.append)


@pytest.fixture
def reports() -> Reports:
    """Reports of the test's outboxes."""
    return Reports()


@pytest.fixture
def umask_of_nobody() -> Iterator[None]:
    """A umask that takes no permission away."""
    before = os.umask(0)
    yield
    os.umask(before)


def test_second_owner_is_refused_in_the_same_process(
    run_async: Run, tmp_path: Path, reports: Reports
) -> None:
    """A file is used by one client at a time, by whatever name; and by the next when it is closed."""
    path, link = tmp_path / "o.db", tmp_path / "link.db"
    link.symlink_to(path)

    async def main() -> None:
        first = reports.outbox(path)
        await first.open()
        for other in (reports.outbox(path), reports.outbox(link), first):
            with pytest.raises(OutboxStorageError, match=rf"in use by process {os.getpid()}|open already"):
                await other.open()
        await append_all(first, [message(1)])
        await first.close()
        second = reports.outbox(link)
        assert sequences((await second.open()).waiting) == [1]
        await second.close()

    run_async(main())


def test_owner_is_named_and_killed_owner_leaves_nothing(
    run_async: Run, tmp_path: Path, reports: Reports
) -> None:
    """While another process owns the file the error names it; once it is killed nothing is in the way."""
    path = tmp_path / "o.db"
    with subprocess.Popen([sys.executable, "-c", OWNER, str(path)], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        try:
            assert owner.stdout.readline() == b"open\n"

            async def refused() -> None:
                with pytest.raises(OutboxStorageError, match=rf"in use by process {owner.pid}\. Stop it"):
                    await reports.outbox(path).open()

            run_async(refused())
        finally:
            owner.kill()

    async def welcome() -> None:
        outbox = reports.outbox(path)
        await outbox.open()
        await outbox.close()

    run_async(welcome())
    assert reports == []


@pytest.mark.usefixtures("umask_of_nobody")
def test_files_are_private_whatever_they_were(run_async: Run, tmp_path: Path, reports: Reports) -> None:
    """Under any umask, and where a file was wider before, all files are for their owner only."""
    path = tmp_path / "o.db"

    async def main() -> None:
        outbox = reports.outbox(path)
        for _ in range(2):
            await outbox.open()
            await append_all(outbox, [message(1)])
            assert modes(tmp_path) == dict.fromkeys(["o.db", "o.db-owner", "o.db-wal", "o.db-shm"], 0o600)
            claimed = outbox.claim([message(1)])
            assert claimed is not None
            await claimed
            await outbox.close()
            for name in modes(tmp_path):
                (tmp_path / name).chmod(0o666)

    run_async(main())


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("missing/o.db", "there is no folder .* Create the folder"),
        ("", "is a folder.* Give the path of an ordinary file"),
        ("pipe", "is a device or a pipe.* Give the path of an ordinary file"),
        ("file/o.db", "there is no folder .* another `outbox_path`"),
        ("/proc/o.db", "cannot be opened: .* Check the disk, the permissions"),
    ],
)
def test_place_that_cannot_be_used_is_named(
    run_async: Run, tmp_path: Path, reports: Reports, place: str, says: str
) -> None:
    """Where no file can be, the error names the path, the rule and what to do."""
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe", 0o644)
    path = tmp_path / place

    async def main() -> None:
        outbox = reports.outbox(path)
        with pytest.raises(OutboxStorageError, match=says) as raised:
            await outbox.open()
        assert str(path) in str(raised.value)
        await outbox.close()

    run_async(main())
    assert modes(tmp_path)["pipe"] == 0o644


def test_locked_file_is_not_taken_for_a_broken_one(
    run_async: Run, tmp_path: Path, reports: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that another program has locked is refused at opening, not set aside; later it opens."""
    monkeypatch.setattr(sqlite_file, "BUSY_TIMEOUT", 0.02)
    path = tmp_path / "o.db"

    async def main() -> None:
        outbox = reports.outbox(path)
        await outbox.open()
        await append_all(outbox, [message(1), message(2)])
        await outbox.close()
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(OutboxStorageError, match="another program has locked it"):
                await outbox.open()
        assert sequences((await outbox.open()).waiting) == [1, 2]
        await outbox.close()

    run_async(main())
    assert reports == []


def test_looking_at_a_file_leaves_no_trace(run_async: Run, tmp_path: Path) -> None:
    """A file is read without owning it, while it is used and afterwards, and nothing is left by it."""
    path = tmp_path / "o.db"
    file = sqlite_file.OutboxFile(path)

    def read(connection: sqlite3.Connection) -> list[dict[str, Any]]:
        rows = connection.execute(sqlite_schema.SELECT_WAITING)
        return [fields_of(sqlite_schema.message_from(row, is_stored=True)) for row in rows]

    async def main() -> None:
        outbox = SqliteOutbox(path, report=print)
        await outbox.open()
        kept = message(1)
        await append_all(outbox, [kept])
        assert file.read_only(read) == [fields_of(kept)]
        await append_all(outbox, [message(2)])
        await outbox.close()
        assert modes(tmp_path).keys() == {"o.db", "o.db-owner"}
        assert len(file.read_only(read)) == 2
        assert modes(tmp_path).keys() == {"o.db", "o.db-owner"}

    run_async(main())
