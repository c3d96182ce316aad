"""Metrics databases for tests, written by ``MetricsDatabase`` with a clock that stands where it is told."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from realtime_fsm.monitoring.database import MetricsDatabase

MAY: float = 1_777_593_600.0
"""2026-05-01, 00:00 UTC."""

Fill = Callable[[MetricsDatabase], object]


def record(
    path: Path,
    implementation: str,
    fill: Fill,
    *,
    seconds: float,
    version: str = "1.0",
    instance: str = "a",
    begin: float = MAY,
) -> None:
    """Write one run that was last seen so many seconds after its begin."""

    async def write() -> None:
        now = [begin]
        database = MetricsDatabase(
            path, implementation, version=version, instance=instance, wall=lambda: now[0], max_age=1e10
        )
        fill(database)
        now[0] += seconds
        async with database:
            pass
        assert (database.counters.dropped, database.counters.rejected) == (0, 0)

    asyncio.run(write())


def with_an_outage(database: MetricsDatabase) -> None:
    """Record two hours with one outage of a minute, by way of the fallback, and twenty round trips."""
    database.record_change("down", current="connecting", at=MAY)
    database.record_attempt(0.5, at=MAY + 10)
    database.record_change("live", current="connected", at=MAY + 10)
    database.record_change("down", current="reconnecting", cause="PingTimeoutError", at=MAY + 3600)
    database.record_outage(MAY + 3600, cause="PingTimeoutError")
    database.record_attempt(5.0, cause="ConnectTimeoutError", at=MAY + 3605)
    database.record_attempt(5.0, cause="ServerRefusedError", number=2, at=MAY + 3610)
    database.record_change("degraded", current="fallback", at=MAY + 3620)
    database.record_attempt(0.5, number=3, at=MAY + 3660)
    database.record_change("live", current="connected", at=MAY + 3660)
    database.record_outage(MAY + 3600, cause="PingTimeoutError", ended_at=MAY + 3660)
    database.record_change("off", current="disconnected", at=MAY + 7200)
    for number in range(20, 0, -1):
        database.record_latency(number / 100, at=MAY + 100 + number)


def with_an_open_end(database: MetricsDatabase) -> None:
    """Record a connection that is lost after 7000 s, and of which nothing is heard any more."""
    database.record_change("live", current="connected", at=MAY)
    database.record_attempt(0.5, at=MAY)
    database.record_change("down", current="reconnecting", cause="TransportClosedError", at=MAY + 7000)
    database.record_outage(MAY + 7000, cause="TransportClosedError")


def two_runs(path: Path, implementation: str = "legacy") -> None:
    """Write both, as runs of two versions on two instances."""
    record(path, implementation, with_an_outage, seconds=7300)
    record(path, implementation, with_an_open_end, seconds=7200, version="1.1", instance="b")


def many_runs(
    path: Path,
    implementation: str,
    *,
    runs: int = 10,
    failures: int = 0,
    recover: float = 10.0,
    latency: float = 0.1,
) -> None:
    """Write runs of an hour with 200 attempts each, and an outage; they differ a little from run to run.

    Args:
        path: The file.
        implementation: What they are runs of.
        runs: How many.
        failures: Failed attempts in all of them together.
        recover: Seconds of the outage of the middle run.
        latency: Seconds of a round trip of the middle run.
    """
    for number in range(runs):
        more = 1 + (number - runs // 2) / 20

        def fill(database: MetricsDatabase, number: int = number, more: float = more) -> None:
            database.record_change("live", current="connected", at=MAY)
            database.record_change("down", current="reconnecting", at=MAY + 1000)
            database.record_change("live", current="connected", at=MAY + 1000 + recover * more)
            database.record_outage(MAY + 1000, cause="PingTimeoutError", ended_at=MAY + 1000 + recover * more)
            failed = (failures + number) // runs
            for attempt in range(200):
                database.record_attempt(0.1, cause="TimeoutError" if attempt < failed else None, at=MAY + 5)
            for trip in range(5):
                database.record_latency(latency * more * (1 + trip / 50), at=MAY + trip)

        record(path, implementation, fill, seconds=3600, instance=f"host-{number}")
