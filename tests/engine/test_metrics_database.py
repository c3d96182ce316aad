"""The metrics database: what is recorded, what is kept, and that nothing of it reaches the connection."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from world import World

from realtime_fsm import ConnectionStatus, MetricsStorageError, RealtimeError
from realtime_fsm.adapters import metrics_file, sqlite_thread
from realtime_fsm.adapters.metrics_file import MetricsRows, read
from realtime_fsm.machine.errors import (
    ClosedError,
    ConnectionLostError,
    InvalidArgumentError,
    ServerUnreachableError,
)
from realtime_fsm.monitoring.database import MetricsDatabase
from realtime_fsm.monitoring.records import Level, Measurements
from realtime_fsm.testing.virtual_loop import wall_clock

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the writer neither linger nor rest for long."""
    monkeypatch.setattr(metrics_file.SqliteMetrics, "LINGER", 0.005)
    monkeypatch.setattr(metrics_file.SqliteMetrics, "LONGEST_PAUSE", 0.1)
    monkeypatch.setattr(sqlite_thread, "_FIRST_PAUSE", 0.02)
    monkeypatch.setattr(metrics_file, "_BUSY_TIMEOUT", 0.02)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the file is to be."""
    return tmp_path / "metrics.db"


def rows_of(path: Path) -> MetricsRows:
    """Return everything that a file holds."""
    return read(path, since=0.0)


def early() -> float:
    """Return a time near to those that the tests record, so that the retention spares them."""
    return 1000.0


def overwrite_pages(path: Path) -> None:
    """Overwrite all of a file but its first page."""
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xee" * (path.stat().st_size - 4096))


async def until(condition: Callable[[], bool]) -> None:
    """Wait until the writer's thread has got there; bounded."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - it is another thread's, that knows no event of ours
            await asyncio.sleep(0.005)


@pytest.mark.real_loop
async def test_records_of_any_client_are_kept_with_their_labels(path: Path) -> None:
    """What is not a ``RealtimeService`` records every kind, and each row carries the run's labels."""
    async with MetricsDatabase(path, "legacy", version="1.0", instance="a", wall=lambda: 50.0) as database:
        assert database.record_change(Level.LIVE, current="open", at=10.0)
        assert database.record_change("down", current="closed", cause="timeout", at=20.0)
        assert database.record_attempt(0.5, cause=ConnectionLostError("x"), number=2, at=21.0)
        assert database.record_attempt(0.25)
        assert database.record_outage(20.0, ended_at=30.0, cause="timeout")
        assert database.record_latency(0.125, at=40.0)
    rows = rows_of(path)
    assert rows.runs == [(1, "legacy", "1.0", "a", 50.0, 50.0)]
    assert rows.changes == [(1, 10.0, "live", None), (1, 20.0, "down", "timeout")]
    assert rows.attempts == [(1, 21.0, 0.5, "ConnectionLostError"), (1, 50.0, 0.25, None)]
    assert rows.outages == [(1, 20.0, 30.0, "timeout", 1)]
    assert rows.latencies == [(1, 40.0, 0.125)]


async def test_attached_client_is_recorded(path: Path) -> None:
    """An outage of a client becomes its changes, its attempts, and one row that begins and ends with it."""
    expected: list[Any] = []
    attempts: list[Any] = []
    changes: list[Any] = []
    world = World()
    wall = wall_clock(asyncio.get_running_loop())  # the writer's thread asks it too
    async with MetricsDatabase(path, wall=wall) as database, world:
        database.attach(world.client)
        await world.client.connect()
        await asyncio.sleep(100)
        world.server.refusal = ServerUnreachableError("nobody")
        world.server.reset()
        await world.until(ConnectionStatus.RECONNECTING)
        await asyncio.sleep(5)
        world.server.refusal = None
        await world.until(ConnectionStatus.CONNECTED)
        await asyncio.sleep(100)
        await world.client.disconnect()
        await asyncio.sleep(1)
        lost = next(change for change in world.changes if change.is_lost)
        live = [change for change in world.changes if change.is_connected]
        expected.append((1, lost.at, live[1].at, type(lost.error).__name__, 1))
        attempts.extend(world.client.connection_status.attempts)
        changes.extend(world.changes)
    rows = rows_of(path)
    assert rows.outages == expected
    assert [(at, duration) for _, at, duration, _ in rows.attempts] == [(a.at, a.duration) for a in attempts]
    assert sum(cause is not None for *_, cause in rows.attempts) >= 1
    assert [at for _, at, *_ in rows.changes[1:]] == [change.at for change in changes]
    levels = [level for _, _, level, _ in rows.changes]
    assert (levels[0], levels[-1]) == ("off", "off")
    assert {"live", "down"} <= set(levels)
    assert rows.latencies


@pytest.mark.real_loop
async def test_disk_that_is_full_is_told_once_and_gets_over_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is one event; what was queued is written when there is room, and nothing was raised."""
    problems: list[MetricsStorageError] = []
    room = {"pages": 24}

    def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = real(*arguments, **options)
        connection.execute(f"PRAGMA max_page_count = {room['pages']}")
        return connection

    real = metrics_file.connect
    monkeypatch.setattr(metrics_file, "connect", connect)
    async with MetricsDatabase(path, on_problem=problems.append, wall=early) as database:
        for number in range(400):
            assert database.record_change(Level.LIVE, current="x", reason="y" * 400, at=float(number))
        await until(lambda: database.counters.failures >= 3)
        assert database.counters.is_interrupted
        assert len(problems) == 1
        assert "the disk is full" in str(problems[0])
        room["pages"] = 100_000
        await until(lambda: database.counters.written == 400)
        assert not database.counters.is_interrupted
        assert database.counters.dropped == 0
    assert len(problems) == 1
    assert len(rows_of(path).changes) == 400


@pytest.mark.real_loop
async def test_lock_of_another_program_is_waited_out(path: Path) -> None:
    """While another program holds the file records queue up, the loop goes on, and then they are written."""
    problems: list[MetricsStorageError] = []
    async with MetricsDatabase(path, on_problem=problems.append) as database:
        database.record_latency(1.0)
        await until(lambda: database.counters.written == 1)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            began = time.perf_counter()
            assert all(database.record_latency(float(number)) for number in range(100))
            assert time.perf_counter() - began < 20  # to wait for the file would take 100 s
            await until(lambda: bool(problems))
            assert "another program has locked it" in str(problems[0])
        await until(lambda: database.counters.written == 101)


CORRUPT = b"SQLite format 3\0" + b"\xff" * 52 + b"RFMD" + b"\xff" * 8000


@pytest.mark.parametrize("content", [CORRUPT])
def test_corrupt_file_is_set_aside_and_a_fresh_one_begun(run_async: Run, path: Path, content: bytes) -> None:
    """A corrupt metrics database is renamed, told, and what is recorded lands in a fresh one."""
    path.write_bytes(content)

    async def main() -> None:
        problems: list[MetricsStorageError] = []
        async with MetricsDatabase(path, on_problem=problems.append) as database:
            database.record_latency(0.5)
            await until(lambda: database.counters.written == 1)
            assert database.counters.set_aside == 1
        assert len(problems) == 1
        assert "set aside as" in str(problems[0])

    run_async(main())
    assert len(rows_of(path).latencies) == 1
    (aside,) = path.parent.glob("metrics.db.corrupt-*")
    assert aside.read_bytes() == content


@pytest.mark.real_loop
async def test_file_that_becomes_corrupt_in_use_is_replaced(path: Path) -> None:
    """Pages overwritten under the writer's feet end in a fresh file, not in an error or a standstill."""
    async with MetricsDatabase(path) as database:
        for number in range(3000):
            database.record_latency(float(number))
        await until(lambda: database.counters.written == 3000)
        with closing(sqlite3.connect(path)) as other:
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        overwrite_pages(path)
        await until(lambda: database.record_latency(1.0) and database.counters.set_aside == 1)
        written = database.counters.written
        await until(lambda: database.counters.written > written)
    assert rows_of(path).latencies


@pytest.mark.parametrize(
    "content", [None, b"a letter to my aunt" * 500, b"SQLite format 3\0" + b"\xff" * 8000]
)
def test_file_of_somebody_else_is_left_alone(run_async: Run, path: Path, content: bytes | None) -> None:
    """A file of somebody else is told as a problem, and neither changed nor renamed, nor its mode."""
    if content is None:
        with closing(sqlite3.connect(path)) as other:
            other.execute("CREATE TABLE aunt (letter TEXT)")
    else:
        path.write_bytes(content)
    path.chmod(0o644)
    before = path.read_bytes()

    async def main() -> None:
        problems: list[MetricsStorageError] = []
        async with MetricsDatabase(path, on_problem=problems.append) as database:
            database.record_latency(0.5)
            await until(lambda: bool(problems))
        assert " a metrics database" in str(problems[0])
        assert database.counters.dropped == 1

    run_async(main())
    assert path.read_bytes() == before
    assert path.stat().st_mode & 0o777 == 0o644
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.real_loop
async def test_file_that_is_deleted_in_use_is_begun_anew(path: Path) -> None:
    """After its file was deleted the writer makes a new one, instead of writing into nothing."""
    async with MetricsDatabase(path) as database:
        database.record_latency(1.0)
        await until(lambda: database.counters.written == 1)
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink()
        database.record_latency(2.0)
        await until(lambda: database.counters.written == 2)
    assert [seconds for *_, seconds in rows_of(path).latencies] == [2.0]


@pytest.mark.real_loop
async def test_folder_that_comes_later_is_enough(path: Path) -> None:
    """A missing folder is a problem that ends by itself once the folder is there."""
    problems: list[MetricsStorageError] = []
    late = path.parent / "later" / "metrics.db"
    async with MetricsDatabase(late, on_problem=problems.append) as database:
        database.record_latency(1.0)
        await until(lambda: bool(problems))
        late.parent.mkdir()
        await until(lambda: database.counters.written == 1)


@pytest.mark.real_loop
async def test_queue_is_bounded_and_says_what_it_refused(path: Path) -> None:
    """Beyond the bound a record is refused at once, and counted; those that fitted are kept."""
    database = MetricsDatabase(path, max_queued=10)
    assert [database.record_latency(1.0) for _ in range(12)] == [True] * 10 + [False] * 2
    async with database:
        pass
    assert (database.counters.written, database.counters.dropped) == (10, 2)
    assert not database.record_latency(1.0)
    with pytest.raises(ClosedError):
        database.open()


@pytest.mark.real_loop
async def test_record_that_no_table_takes_harms_no_other(path: Path) -> None:
    """One record that cannot be stored is rejected alone; the ones beside it are written."""
    async with MetricsDatabase(path) as database:
        database.record_latency(1.0)
        database.record_latency(float("nan"))
        database.record_attempt(1.0, number=2**70)
        database.record_change(Level.LIVE, current="half a pair \ud800")
        database.record_latency(0.5, at=float("inf"))
        database.record_attempt(-1.0)
        database.record_outage(1_777_593_600_000.0, cause="milliseconds")
        database.record_latency(2.0)
    assert (database.counters.written, database.counters.rejected) == (2, 6)
    assert [seconds for *_, seconds in rows_of(path).latencies] == [1.0, 2.0]


@pytest.mark.real_loop
async def test_label_that_is_no_text_is_kept_as_far_as_it_is(path: Path) -> None:
    """Bytes of the environment that are no text become question marks in a label, and stop nothing."""
    async with MetricsDatabase(path, instance="host-\udcff") as database:
        database.record_latency(1.0)
    assert rows_of(path).runs[0][3] == "host-?"


@pytest.mark.real_loop
async def test_closed_database_leaves_its_file_and_nothing_else(path: Path) -> None:
    """After ``close`` there is no thread of it, and one file; reading it leaves nothing either."""
    async with MetricsDatabase(path) as database:
        database.record_latency(1.0)
    assert len(rows_of(path).latencies) == 1
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert "realtime-metrics" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.real_loop
async def test_retention_bounds_age_and_rows(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too old goes, and so does what is too much, the oldest first; the last change stays."""
    monkeypatch.setattr(metrics_file, "_TRIM_INTERVAL", 0.0)
    async with MetricsDatabase(path, wall=lambda: 1000.0, max_age=100.0, max_rows=5) as database:
        database.record_change(Level.LIVE, current="x", at=1.0)
        for at in (10.0, 899.0, 900.0, *range(990, 998)):
            database.record_latency(at, at=at)
        await until(lambda: database.counters.trimmed >= 6)
    rows = rows_of(path)
    assert [at for _, at, _ in rows.latencies] == [993.0, 994.0, 995.0, 996.0, 997.0]
    assert [at for _, at, *_ in rows.changes] == [1.0]


@pytest.mark.real_loop
async def test_runs_that_ended_long_ago_are_forgotten(path: Path) -> None:
    """Of a run that was last seen before the retention nothing stays, not even its labels."""
    async with MetricsDatabase(path, wall=lambda: 1000.0, instance="old") as database:
        database.record_change(Level.LIVE, current="x")
        database.record_outage(1000.0, cause="y")
    async with MetricsDatabase(path, wall=lambda: 5000.0, instance="new", max_age=100.0) as database:
        database.record_latency(1.0)
        await until(lambda: database.counters.trimmed == 2)
    rows = rows_of(path)
    assert [run[3] for run in rows.runs] == ["new"]
    assert (rows.changes, rows.outages) == ([], [])


@pytest.mark.real_loop
async def test_threads_may_record_at_the_same_time(path: Path) -> None:
    """Records of several threads are all kept: a legacy client need not be on the loop."""
    async with MetricsDatabase(path) as database:
        jobs = [
            asyncio.to_thread(lambda: [database.record_latency(0.1) for _ in range(500)]) for _ in range(4)
        ]
        assert all(all(kept) for kept in await asyncio.gather(*jobs))
    assert database.counters.written == 2000
    assert len(rows_of(path).latencies) == 2000


@pytest.mark.real_loop
async def test_two_databases_may_share_a_file(path: Path) -> None:
    """The legacy and the new client write one file at once, and each row keeps its own label."""
    async with (
        MetricsDatabase(path, "legacy", wall=early) as one,
        MetricsDatabase(path, wall=early) as two,
    ):
        for number in range(200):
            one.record_latency(1.0, at=float(number))
            two.record_latency(2.0, at=float(number))
            await asyncio.sleep(0)
        await until(lambda: one.counters.written == two.counters.written == 200)
    found = Measurements.from_rows(rows_of(path), since=0.0)
    assert found.implementations == ("legacy", "new")
    assert {sample.seconds for sample in found.of("legacy").latencies} == {1.0}
    assert len(found.of("new").latencies) == 200


@pytest.mark.real_loop
async def test_close_is_bounded_while_the_file_cannot_be_written(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing gives up after its time-out, counts what is lost, and leaves no thread."""
    monkeypatch.setattr(sqlite_thread, "FLUSH_TIMEOUT", 0.2)
    database = MetricsDatabase(path.parent / "never" / "metrics.db")
    async with asyncio.timeout(20), database:
        database.record_latency(1.0)
    assert database.counters.dropped == 1
    assert "realtime-metrics" not in {thread.name for thread in threading.enumerate()}


def test_loop_that_ends_without_close_ends_the_writer(path: Path) -> None:
    """Nobody who forgets to close leaves a thread behind: it writes what it has, and ends."""

    async def main() -> None:
        database = MetricsDatabase(path)
        database.open()
        database.record_latency(1.0)
        databases.append(database)

    databases: list[MetricsDatabase] = []
    asyncio.run(main())
    assert databases[0]._writer.join(10.0)
    assert len(rows_of(path).latencies) == 1


@pytest.mark.real_loop
async def test_problem_reaches_the_issues_of_the_client(path: Path) -> None:
    """The people who are told of connection issues hear of the file too; the client stays as it is."""
    world = World()
    issues: list[Any] = []
    world.client.recovery.on_connection_issue(issues.append)
    async with MetricsDatabase(path.parent / "none" / "metrics.db") as database:
        database.attach(world.client)
        await until(lambda: bool(issues))
        with pytest.raises(InvalidArgumentError, match="attached already"):
            database.attach(world.client)
        database._writer._backlog._deadline = 0.0  # it would wait for the folder
    assert "metrics.db" in issues[0].message


async def test_detached_client_is_no_longer_recorded(path: Path) -> None:
    """After ``detach`` nothing of the client is recorded, and it holds no reference to the database."""
    async with MetricsDatabase(path) as database, World() as world:
        database.attach(world.client)
        database.detach()
        await world.client.connect()
        await asyncio.sleep(100)
    assert database.counters.written == 1


@pytest.mark.parametrize(
    "options", [{"implementation": ""}, {"max_age": 0}, {"max_rows": 0}, {"max_queued": 0}]
)
def test_senseless_options_are_refused(path: Path, options: dict[str, Any]) -> None:
    """What cannot mean anything is an error at once, and makes no file."""
    with pytest.raises(InvalidArgumentError):
        MetricsDatabase(path, **options)
    assert not path.exists()


def test_file_is_private(run_async: Run, path: Path) -> None:
    """The file can be read by its owner alone."""

    async def main() -> None:
        async with MetricsDatabase(path) as database:
            database.record_latency(1.0)

    run_async(main())
    assert path.stat().st_mode & 0o077 == 0


@pytest.fixture
def newer(path: Path) -> Path:
    """Give a file that a newer version wrote."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        metrics_file.set_up(connection)
        connection.execute("PRAGMA user_version = 99")
    return path


def test_file_of_a_newer_version_is_not_read(newer: Path) -> None:
    """A file whose tables this version cannot know is refused with both versions named."""
    with pytest.raises(RealtimeError, match="version 99, and this library knows 1"):
        rows_of(newer)


def test_level_of_a_run_that_crashed_ends_when_it_was_last_seen() -> None:
    """What is not known is not counted: a span ends with the next change or the last sign of life."""
    rows = MetricsRows(
        runs=[(1, "new", "", "", 0.0, 50.0)],
        changes=[(1, 10.0, "live", None), (1, 30.0, "down", "x")],
        attempts=[],
        outages=[],
        latencies=[],
    )
    spans = Measurements.from_rows(rows, since=20.0).spans
    assert [(span.begin, span.end, span.level.value) for span in spans] == [
        (20.0, 30.0, "live"),
        (30.0, 50.0, "down"),
    ]
