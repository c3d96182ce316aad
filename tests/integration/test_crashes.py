"""Processes are killed at random moments: what `emit` accepted takes effect once, in order (SPEC C2)."""

import asyncio
import contextlib
import json
import os
import random
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from crash_jobs import ACCEPTED, EFFECTS
from server_process import ENVIRONMENT, HERE

from realtime_fsm.testing.proxy.proxy import FaultProxy

SOON = 20.0
SOCKET_PATH = "/socket.io"


class Nursery:
    """Starts processes, hears what they say, and kills them."""

    def __init__(self, mother: asyncio.subprocess.Process, folder: Path) -> None:
        self._mother = mother
        self._folder = folder

    async def start(self, job: str, **given: Any) -> None:
        """Start a process; the first thing that it says comes next."""
        assert self._mother.stdin is not None
        order = {"job": job, "folder": str(self._folder), **given}
        self._mother.stdin.write((json.dumps(order) + "\n").encode())

    async def hear(self, key: str, pid: int | None = None) -> dict[str, Any]:
        """Wait until a process (or the one) has said something about this, and return it."""
        assert self._mother.stdout is not None
        async with asyncio.timeout(SOON):
            while line := await self._mother.stdout.readline():
                fact: dict[str, Any] = json.loads(line)
                if key in fact and pid in {None, fact["pid"]}:
                    return fact
        raise AssertionError("the mother of all processes has ended")


@asynccontextmanager
async def nursery(folder: Path) -> AsyncIterator[Nursery]:
    """Run the process that starts all others."""
    mother = await asyncio.create_subprocess_exec(
        sys.executable,
        str(HERE / "crash_jobs.py"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=dict(ENVIRONMENT),
    )
    try:
        one = Nursery(mother, folder)
        await one.hear("ready")
        yield one
    finally:
        assert mother.stdin is not None
        mother.stdin.close()
        await mother.communicate()


class Backend:
    """A backend that is killed and started again behind the proxy."""

    def __init__(self, nursery_: Nursery, proxy: FaultProxy) -> None:
        self._nursery = nursery_
        self._proxy = proxy
        self.pid = 0

    async def start(self) -> None:
        """Start it, and let the proxy lead to it."""
        await self._nursery.start("backend")
        fact = await self._nursery.hear("port")
        self.pid = fact["pid"]
        self._proxy.set_target("127.0.0.1", fact["port"])

    async def restart(self) -> None:
        """Kill it, and start another one."""
        os.kill(self.pid, signal.SIGKILL)
        await self.start()


def accepted(folder: Path) -> dict[int, int]:
    """Return how many numbers of each run were accepted for certain."""
    counts: dict[int, int] = {}
    for line in (folder / ACCEPTED).read_text(encoding="ascii").splitlines():
        run, _ = map(int, line.split())
        counts[run] = counts.get(run, 0) + 1
    return counts


def effects(folder: Path) -> list[tuple[int, int]]:
    """Return what took effect, in order."""
    with closing(sqlite3.connect(folder / EFFECTS)) as connection:
        return connection.execute("SELECT run, n FROM effect ORDER BY rowid").fetchall()


def check(folder: Path) -> None:
    """Check that all that was accepted took effect once, in order; and beside it only what was emitted."""
    applied = effects(folder)
    assert all(first < second for first, second in pairwise(applied)), "repeated, or out of order"
    by_run: dict[int, list[int]] = {}
    for run, n in applied:
        by_run.setdefault(run, []).append(n)
    for run, numbers in by_run.items():
        assert numbers == list(range(len(numbers))), f"run {run} has a gap: {numbers}"
    for run, count in accepted(folder).items():
        found = len(by_run.get(run, ()))
        assert found >= count, f"run {run}: {count} accepted, {found} applied"


@pytest.mark.parametrize("by_http", [False, True])
@pytest.mark.real_loop(timeout=120.0)
async def test_accepted_messages_survive_every_kill(tmp_path: Path, by_http: bool) -> None:
    """Client and backend are killed again and again: nothing accepted is lost, repeated or out of order."""
    kills = 30
    dice = random.Random(1 + by_http)  # noqa: S311 - the moments of the kills; processes add to them
    async with nursery(tmp_path) as processes, FaultProxy("127.0.0.1", 9) as proxy:
        backend = Backend(processes, proxy)
        await backend.start()
        if by_http:
            proxy.block(SOCKET_PATH)
        given = {"url": proxy.url, "by_http": by_http}
        for run in range(kills):
            await processes.start("application", run=run, count=100_000, **given)
            pid = (await processes.hear("ready"))["pid"]
            for seen in range(dice.choice([0, 1, 5, 20, 60])):
                await processes.hear("accepted", pid)
                if seen == 3 and run % 3 == 0:
                    await backend.restart()
            os.kill(pid, signal.SIGKILL)
            if run % 7 == 0:
                await backend.restart()
        await processes.start("application", run=kills, count=0, **given)
        await processes.hear("drained")
        with contextlib.suppress(ProcessLookupError):
            os.kill(backend.pid, signal.SIGKILL)
    assert sum(accepted(tmp_path).values()) > kills
    check(tmp_path)
