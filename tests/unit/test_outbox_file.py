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


def make_linked(path: Path) -> None:
    """Make a link to another program's file where the outbox belongs."""
    target = path.with_name("app.conf")
    target.write_text("key=1")
    target.chmod(0o644)
    path.symlink_to(target)


def make_orphaned(path: Path) -> None:
    """Make a WAL without its database."""
    path.write_bytes(b"")
    path.with_name(path.name + "-wal").write_bytes(b"somebody's" * 100)


def make_marked(path: Path) -> None:
    """Make a database without a table, that says whose it is."""
    write_database(path, "PRAGMA application_id = 7", "VACUUM")


def make_scrambled(path: Path) -> None:
    """Make a database that cannot be read, nor told whose it is."""
    make_foreign(path)
    path.write_bytes(path.read_bytes()[:100] + b"\xa5" * 4000)


def make_bound(path: Path) -> None:
    """Make somebody's file, and a link to it where the lock belongs."""
    asyncio.run(make_outbox(path, 1))
    target = path.with_name("app.conf")
    target.write_text("key=1")
    target.chmod(0o644)
    owner = path.with_name(path.name + "-owner")
    owner.unlink()
    owner.symlink_to(target)


def make_occupied(path: Path) -> None:
    """Make somebody's file where the lock belongs."""
    path.with_name(path.name + "-owner").write_text("Ann")


def all_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return the files of a folder, with their content and mode."""
    return {file.name: (file.read_bytes(), file.lstat().st_mode) for file in folder.iterdir()}


@pytest.mark.parametrize(
    "make",
    [
        make_garbage,
        make_foreign,
        make_linked,
        make_orphaned,
        make_marked,
        make_scrambled,
        make_bound,
        make_occupied,
    ],
)
def test_file_of_somebody_else_is_left_alone(
    run_async: Run, tmp_path: Path, reports: Reports, make: Callable[[Path], None]
) -> None:
    """What does not say that it is an outbox is refused by name; nothing is changed, renamed, or added."""
    path = tmp_path / "o.db"
    make(path)
    before = all_of(tmp_path)

    async def main() -> None:
        with pytest.raises(OutboxStorageError, match="cannot be used as an outbox") as refused:
            await reports.outbox(path).open()
        assert str(tmp_path) in str(refused.value)
        assert "a file of its own" in str(refused.value)
        assert not refused.value.retryable

    run_async(main())
    assert all_of(tmp_path) == before
    assert reports == []


async def test_hard_link_is_named(tmp_path: Path, reports: Reports) -> None:
    """A file with two names would have two owners: it is refused, until one of them is gone."""
    path = tmp_path / "o.db"
    outbox = reports.outbox(path)
    await outbox.open()
    await outbox.close()
    other = tmp_path / "other.db"
    other.hardlink_to(path)
    for each in (path, other):
        with pytest.raises(OutboxStorageError, match=r"has 2 names \(hard links\)"):
            await reports.outbox(each).open()
    other.unlink()
    await outbox.open()
    await outbox.close()


@pytest.mark.parametrize("lose", [Path.unlink, lambda path: path.rename(path.with_name("away.db"))])
async def test_file_that_is_lost_in_use_is_noticed(
    tmp_path: Path, reports: Reports, lose: Callable[[Path], object]
) -> None:
    """Once its file is gone nothing is called kept any more, and people hear of it though nobody asks."""
    path = tmp_path / "o.db"
    outbox = reports.outbox(path)
    await outbox.open()
    await append_all(outbox, [message(1)])
    lose(path)
    async with asyncio.timeout(30):
        while not reports:  # noqa: ASYNC110 - it is told from another thread
            await asyncio.sleep(0.02)
    with pytest.raises(OutboxStorageError, match="deleted, moved or replaced while it was in use"):
        await append_all(outbox, [message(2)])
    await outbox.close()
    await outbox.open()
    await append_all(outbox, [message(3)])
    await outbox.close()


@pytest.mark.parametrize(
    ("make", "at_least"),
    [
        (make_cut, 50),
        (make_flipped, 270),
        (make_hidden, 300),
        (make_misshapen, 0),
        (make_tampered, 299),
        (make_undecodable, 299),
        (make_shortened, 299),
    ],
)
def test_corrupt_file_is_set_aside_and_saved_what_can_be(
    run_async: Run,
    tmp_path: Path,
    reports: Reports,
    caplog: pytest.LogCaptureFixture,
    *,
    make: Callable[[Path], None],
    at_least: int,
) -> None:
    """A corrupt outbox is renamed, whole, loudly; what can be read of it waits in a fresh one, unchanged."""
    path = tmp_path / "o.db"
    make(path)
    size = path.stat().st_size
    whole = {number: fields_of(message(number, event="e" * 100)) for number in range(1, 301)}

    async def main() -> None:
        outbox = reports.outbox(path)
        saved = (await outbox.open()).waiting
        assert at_least <= len(saved) <= 300
        assert [fields_of(one) for one in saved] == [whole[one.sequence] for one in saved]
        await append_all(outbox, [message(301)])
        await outbox.close()
        assert sequences((await outbox.open()).waiting) == [*sequences(saved), 301]
        await outbox.close()

    run_async(main())
    (aside,) = tmp_path.glob("o.db.corrupt-*Z")
    assert aside.stat().st_size == size
    assert aside.stat().st_mode & 0o777 == 0o600
    assert [type(error) for error in reports] == [OutboxStorageError]
    assert str(aside) in str(reports[0])
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert str(aside) in caplog.text


async def test_flipped_bit_is_buried_and_the_rest_is_good(tmp_path: Path, reports: Reports) -> None:
    """A message whose bytes have changed is a dead letter that cannot be retried; all others wait."""
    path = tmp_path / "o.db"
    await make_outbox(path, 3)
    write_database(path, "UPDATE message SET text = '[\"note\",9]' WHERE sequence = 2")
    outbox = reports.outbox(path)
    for known in (1, 0):
        contents = await outbox.open()
        assert sequences(contents.waiting) == [1, 3]
        assert sequences(contents.damaged) == [2] * known
        (letter,) = await outbox.dead_letters()
        assert letter.message.is_damaged
        assert "changed on the disk" in letter.reason
        await outbox.close()
        assert outbox_file.retry(path, None) == outbox_file.Change(done=[], damaged=["c-2"])
    assert outbox_file.drop(path, None).done == ["c-2"]


def test_set_aside_twice_in_a_second_overwrites_nothing(
    run_async: Run, tmp_path: Path, reports: Reports
) -> None:
    """Each file that is set aside keeps a name of its own, and takes its WAL with it."""
    path = tmp_path / "o.db"
    mark = outbox_schema.APPLICATION_ID.to_bytes(4, "big")
    contents = [
        b"SQLite format 3\0" + b"\xa5" * 52 + mark + garbage * 1000 for garbage in (b"a", b"bb", b"ccc")
    ]

    async def main() -> None:
        for content in contents:
            path.write_bytes(content)
            path.with_name("o.db-wal").write_bytes(b"wal of " + content)
            outbox = reports.outbox(path)
            await outbox.open()
            await outbox.close()

    run_async(main())
    aside = {file.read_bytes() for file in tmp_path.glob("o.db.corrupt-*") if not file.name.endswith("-shm")}
    assert aside == {*contents, *(b"wal of " + content for content in contents)}


def test_newer_file_is_refused_and_left_alone(run_async: Run, tmp_path: Path, reports: Reports) -> None:
    """A file of a newer version is not touched: the error names both versions."""
    path = tmp_path / "o.db"

    async def main() -> None:
        await make_outbox(path, 2)
        write_database(path, f"PRAGMA user_version = {outbox_schema.VERSION + 1}")
        before = path.read_bytes()
        with pytest.raises(OutboxStorageError, match=r"has version 3, and this library knows 2") as raised:
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

    steps_before = outbox_schema.MIGRATIONS

    def release(*steps: tuple[str, ...]) -> None:
        monkeypatch.setattr(outbox_schema, "MIGRATIONS", steps_before + steps)
        monkeypatch.setattr(outbox_schema, "VERSION", len(steps_before) + len(steps))

    async def main() -> None:
        await make_outbox(path, 3)
        release(good)
        outbox = reports.outbox(path)
        assert sequences((await outbox.open()).waiting) == [1, 2, 3]
        await outbox.close()
        release(good, bad)
        with pytest.raises(sqlite3.OperationalError), closing(sqlite3.connect(path)) as connection:
            outbox_schema.migrate(connection, len(steps_before) + 1)
        release(good)
        assert sequences((await outbox.open()).waiting) == [1, 2, 3]
        await outbox.close()

    run_async(main())
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(steps_before) + 1,)
    assert reports == []


@pytest.mark.parametrize("is_marked", [True, False])
async def test_file_of_the_first_version_is_taken_over(
    tmp_path: Path, reports: Reports, *, is_marked: bool
) -> None:
    """What an older library kept is sent under the identity that it had, which the server may know."""
    path = tmp_path / "o.db"
    columns = "message_id, event, delivery, wants_ack, accepted_at, expires_at, attempts, size_bytes"
    columns += ", text, attachments"
    row = "'old-{0}', 'note', 'exactly_once', 1, 1.5, NULL, 1, 10, '[\"note\",{0}]', x''"
    first = outbox_schema.MIGRATIONS[0]
    write_database(
        path,
        *(step for step in first if isinstance(step, str)),
        "INSERT INTO meta VALUES ('client_id', 'old')",
        "UPDATE meta SET value = 9 WHERE name = 'last_sequence'",
        *(f"INSERT INTO message (sequence, {columns}) VALUES ({n}, {row.format(n)})" for n in (7, 8)),  # noqa: S608 - of constants
        f"INSERT INTO dead_letter (sequence, {columns}, reason, died_at) "  # noqa: S608 - of constants
        f"VALUES (6, {row.format(6)}, 'refused', 2.5)",
        "PRAGMA user_version = 1",
        *(() if is_marked else ("PRAGMA application_id = 0",)),
    )
    outbox = reports.outbox(path)
    for _ in range(2):
        contents = await outbox.open()
        assert [(one.client_id, one.sequence, one.attempts) for one in contents.waiting] == [
            ("old", 7, 1),
            ("old", 8, 1),
        ]
        assert contents.client_id != "old"
        assert contents.last_sequence == 9
        (letter,) = await outbox.dead_letters()
        assert (letter.message.client_id, letter.message.is_damaged) == ("old", False)
        await outbox.close()
    assert path.read_bytes()[68:72] == outbox_schema.APPLICATION_ID.to_bytes(4, "big")
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
