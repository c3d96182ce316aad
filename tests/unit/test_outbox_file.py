"""The file of an outbox: one owner, private, easy to look at, and never trusted blindly."""

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from realtime_fsm.adapters import outbox_file, outbox_schema
from realtime_fsm.adapters.outbox_writer import SqliteOutbox
from realtime_fsm.machine.errors import OutboxStorageError, RealtimeError
from realtime_fsm.testing.contracts.outbox_contract import append_all, fields_of, message, sequences

pytestmark = pytest.mark.real_loop

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


class Reports(list[RealtimeError]):
    """Takes the errors that nobody awaits."""

    def outbox(self, path: Path) -> SqliteOutbox:
        """Return an outbox that reports to here."""
        return SqliteOutbox(path, report=self.append)


@pytest.fixture
def reports() -> Reports:
    """Reports of the test's outboxes."""
    return Reports()


def write_database(path: Path, *statements: str) -> None:
    """Run statements on a database."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


async def make_outbox(path: Path, count: int = 300) -> None:
    """Make a file with messages."""
    outbox = SqliteOutbox(path, report=print)
    await outbox.open()
    await append_all(outbox, [message(number, event="e" * 100) for number in range(1, count + 1)])
    await outbox.close()


def make_garbage(path: Path) -> None:
    """Make a file that is no database."""
    path.write_bytes(b"this is no database " * 500)


def make_cut(path: Path) -> None:
    """Make an outbox that lost its second half."""
    asyncio.run(make_outbox(path))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def make_flipped(path: Path) -> None:
    """Make an outbox with a page of rubbish in its middle."""
    asyncio.run(make_outbox(path))
    content = bytearray(path.read_bytes())
    content[5 * 4096 : 6 * 4096] = b"\xa5" * 4096
    path.write_bytes(content)


def make_hidden(path: Path) -> None:
    """Make an outbox with rubbish where nothing is read when it is opened: in an index."""
    asyncio.run(make_outbox(path))
    with closing(sqlite3.connect(path)) as connection:
        (page,) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_dead_letter_1'"
        ).fetchone()
    content = bytearray(path.read_bytes())
    content[(page - 1) * 4096 : page * 4096] = b"\xa5" * 4096
    path.write_bytes(content)


def make_foreign(path: Path) -> None:
    """Make a database of another program."""
    write_database(path, "CREATE TABLE recipe (title TEXT)", "INSERT INTO recipe VALUES ('soup')")


def make_misshapen(path: Path) -> None:
    """Make an outbox that lacks a column."""
    asyncio.run(make_outbox(path))
    write_database(path, "ALTER TABLE message RENAME COLUMN attempts TO trials")


def make_tampered(path: Path) -> None:
    """Make an outbox with a message whose delivery does not exist."""
    asyncio.run(make_outbox(path))
    write_database(path, "UPDATE message SET delivery = 'perhaps' WHERE sequence = 7")


def make_undecodable(path: Path) -> None:
    """Make an outbox with a message that is not UTF-8."""
    asyncio.run(make_outbox(path))
    write_database(path, "UPDATE message SET text = CAST(x'ff' AS TEXT) WHERE sequence = 7")


def make_shortened(path: Path) -> None:
    """Make an outbox with a message whose binary parts are cut short."""
    asyncio.run(make_outbox(path))
    write_database(path, "UPDATE message SET attachments = x'00000009ff' WHERE sequence = 7")


@pytest.mark.parametrize(
    "make",
    [
        make_garbage,
        make_cut,
        make_flipped,
        make_hidden,
        make_foreign,
        make_misshapen,
        make_tampered,
        make_undecodable,
        make_shortened,
    ],
)
def test_unusable_file_is_set_aside(
    run_async: Run,
    tmp_path: Path,
    reports: Reports,
    caplog: pytest.LogCaptureFixture,
    make: Callable[[Path], None],
) -> None:
    """A file that cannot be used is renamed, whole, loudly; and a fresh one takes its place and works."""
    path = tmp_path / "o.db"
    make(path)
    size = path.stat().st_size

    async def main() -> None:
        outbox = reports.outbox(path)
        assert not (await outbox.open()).waiting
        await append_all(outbox, [message(1)])
        await outbox.close()
        assert sequences((await outbox.open()).waiting) == [1]
        await outbox.close()

    run_async(main())
    (aside,) = tmp_path.glob("o.db.corrupt-*Z")
    assert aside.stat().st_size == size
    assert aside.stat().st_mode & 0o777 == 0o600
    assert [type(error) for error in reports] == [OutboxStorageError]
    assert str(aside) in str(reports[0])
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert str(aside) in caplog.text


def test_set_aside_twice_in_a_second_overwrites_nothing(
    run_async: Run, tmp_path: Path, reports: Reports
) -> None:
    """Each file that is set aside keeps a name of its own, and takes its WAL with it."""
    path = tmp_path / "o.db"
    contents = [b"", b"garbage", b"more garbage" * 1000]

    async def main() -> None:
        for content in contents:
            path.write_bytes(content)
            path.with_name("o.db-wal").write_bytes(b"wal of " + content)
            outbox = reports.outbox(path)
            await outbox.open()
            await outbox.close()

    run_async(main())
    aside = {file.read_bytes() for file in tmp_path.glob("o.db.corrupt-*")}
    assert aside == {*contents, *(b"wal of " + content for content in contents)}


def test_newer_file_is_refused_and_left_alone(run_async: Run, tmp_path: Path, reports: Reports) -> None:
    """A file of a newer version is not touched: the error names both versions."""
    path = tmp_path / "o.db"

    async def main() -> None:
        await make_outbox(path, 2)
        write_database(path, f"PRAGMA user_version = {outbox_schema.VERSION + 1}")
        before = path.read_bytes()
        with pytest.raises(OutboxStorageError, match=r"has version 2, and this library knows 1") as raised:
            await reports.outbox(path).open()
        assert not raised.value.retryable
        assert path.read_bytes() == before

    run_async(main())
    assert sorted(file.name for file in tmp_path.iterdir()) == ["o.db", "o.db-owner"]


def test_older_file_is_migrated_whole_or_not_at_all(
    run_async: Run, tmp_path: Path, reports: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step to a newer version keeps the messages; one that fails leaves the file as it was."""
    path = tmp_path / "o.db"
    good, bad = ("ALTER TABLE message ADD COLUMN note TEXT",), ("DROP TABLE message", "NONSENSE")

    def release(*steps: tuple[str, ...]) -> None:
        monkeypatch.setattr(outbox_schema, "MIGRATIONS", outbox_schema.MIGRATIONS[:1] + steps)
        monkeypatch.setattr(outbox_schema, "VERSION", 1 + len(steps))

    async def main() -> None:
        await make_outbox(path, 3)
        release(good)
        outbox = reports.outbox(path)
        assert sequences((await outbox.open()).waiting) == [1, 2, 3]
        await outbox.close()
        release(good, bad)
        with pytest.raises(sqlite3.OperationalError), closing(sqlite3.connect(path)) as connection:
            outbox_schema.migrate(connection, 2)
        release(good)
        assert sequences((await outbox.open()).waiting) == [1, 2, 3]
        await outbox.close()

    run_async(main())
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
    assert reports == []


def modes(folder: Path) -> dict[str, int]:
    """Return the files of a folder, and who may do what with them."""
    return {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()}


@pytest.fixture
def umask_of_nobody() -> Iterator[None]:
    """A umask that takes no permission away."""
    before = os.umask(0)
    yield
    os.umask(before)


async def test_second_owner_is_refused_in_the_same_process(tmp_path: Path, reports: Reports) -> None:
    """A file is used by one client at a time, by whatever name; and by the next when it is closed."""
    path, link = tmp_path / "o.db", tmp_path / "link.db"
    link.symlink_to(path)
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
async def test_files_are_private_whatever_they_were(tmp_path: Path, reports: Reports) -> None:
    """Under any umask, and where a file was wider before, all files are for their owner only."""
    path = tmp_path / "o.db"
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
async def test_place_that_cannot_be_used_is_named(
    tmp_path: Path, reports: Reports, place: str, says: str
) -> None:
    """Where no file can be, the error names the path, the rule and what to do."""
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe", 0o644)
    path = tmp_path / place
    outbox = reports.outbox(path)
    with pytest.raises(OutboxStorageError, match=says) as raised:
        await outbox.open()
    assert str(path) in str(raised.value)
    await outbox.close()
    assert modes(tmp_path)["pipe"] == 0o644


async def test_locked_file_is_not_taken_for_a_broken_one(
    tmp_path: Path, reports: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that another program has locked is refused at opening, not set aside; later it opens."""
    monkeypatch.setattr(outbox_file, "BUSY_TIMEOUT", 0.02)
    path = tmp_path / "o.db"
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
    assert reports == []


async def test_looking_at_a_file_leaves_no_trace(tmp_path: Path) -> None:
    """A file is read without owning it, while it is used and afterwards, and nothing is left by it."""
    path = tmp_path / "o.db"
    file = outbox_file.OutboxFile(path)

    def read(connection: sqlite3.Connection) -> list[dict[str, Any]]:
        rows = connection.execute(outbox_schema.SELECT_WAITING)
        return [fields_of(outbox_schema.message_from(row, is_stored=True)) for row in rows]

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
