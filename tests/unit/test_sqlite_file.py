"""The file of an outbox: one owner, private, and never trusted blindly."""

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from realtime_fsm.adapters import outbox_schema as sqlite_schema
from realtime_fsm.adapters.outbox_writer import SqliteOutbox
from realtime_fsm.machine.errors import OutboxStorageError, RealtimeError
from realtime_fsm.testing.contracts.outbox_contract import append_all, message, sequences

Run = Callable[[Coroutine[Any, Any, None]], None]


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
        write_database(path, f"PRAGMA user_version = {sqlite_schema.VERSION + 1}")
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
        monkeypatch.setattr(sqlite_schema, "MIGRATIONS", sqlite_schema.MIGRATIONS[:1] + steps)
        monkeypatch.setattr(sqlite_schema, "VERSION", 1 + len(steps))

    async def main() -> None:
        await make_outbox(path, 3)
        release(good)
        outbox = reports.outbox(path)
        assert sequences((await outbox.open()).waiting) == [1, 2, 3]
        await outbox.close()
        release(good, bad)
        with pytest.raises(sqlite3.OperationalError), closing(sqlite3.connect(path)) as connection:
            sqlite_schema.migrate(connection, 2)
        release(good)
        assert sequences((await outbox.open()).waiting) == [1, 2, 3]
        await outbox.close()

    run_async(main())
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
    assert reports == []
