"""The ledger in SQLite and ``kill -9``. Run as a program, this is the server that is killed."""

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from realtime_fsm.server import SqliteLedger, Stamp
from realtime_fsm.server.request import Answer

BOUND = 20.0
LAST = 300


def die() -> None:
    """End this process as a power cut would, as far as the process is concerned."""
    os.kill(os.getpid(), signal.SIGKILL)


async def serve(path: str, when: str, first: int) -> None:
    """Handle the messages from ``first`` on, each with an effect; print each answer; die when told to.

    Args:
        path: The database.
        when: ``handling`` (after the effect was written), ``committing`` (the mark as well), ``committed``
            (the answer was not sent yet), or ``never``.
        first: Number of the first message.
    """

    def watch(statement: str) -> None:
        if statement == "COMMIT" and when == "committing":
            die()

    async def handle(transaction: Any) -> Answer:
        transaction.execute("INSERT INTO effect VALUES (?)", (sequence,))
        if when == "handling":
            die()
        return {"ok": True, "answer": sequence}

    ledger = SqliteLedger(path, on_connect=lambda connection: connection.set_trace_callback(watch))
    await ledger.open()
    for sequence in range(first, LAST + 1):
        answer = await ledger.apply(Stamp("ann", "c", sequence), handle)
        if when == "committed":
            die()
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    await ledger.close()


def start(path: Path, when: str, first: int) -> "subprocess.Popen[str]":
    """Start this file as a program."""
    command = [sys.executable, __file__, str(path), when, str(first)]
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ)


def effects(path: Path) -> list[int]:
    """Return which messages took effect, in order."""
    with closing(sqlite3.connect(path)) as connection:
        return [number for (number,) in connection.execute("SELECT sequence FROM effect ORDER BY rowid")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a database with the table of an application."""
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE effect (sequence INTEGER)")
    return path


async def repeat(path: Path) -> Answer:
    """Send the first message again, to a server that was started anew."""

    async def handle(transaction: Any) -> Answer:
        transaction.execute("INSERT INTO effect VALUES (1)")
        return {"ok": True, "answer": "anew"}

    ledger = SqliteLedger(path)
    await ledger.open()
    try:
        return await ledger.apply(Stamp("ann", "c", 1), handle)
    finally:
        await ledger.close()


@pytest.mark.parametrize(
    ("when", "then"),
    [
        ("handling", {"ok": True, "answer": "anew"}),
        ("committing", {"ok": True, "answer": "anew"}),
        ("committed", {"ok": True, "answer": 1, "duplicate": True}),
    ],
)
def test_killed_server_leaves_all_of_a_message_or_nothing(
    path: Path, when: str, then: Answer, run_async: Callable[..., Any]
) -> None:
    """Killed before the commit, neither effect nor mark is there; killed after it, both are."""
    with start(path, when, 1) as server:
        output, _ = server.communicate(timeout=BOUND)
    assert (server.returncode, output) == (-signal.SIGKILL, "")
    assert effects(path) == ([1] if when == "committed" else [])
    assert run_async(repeat(path)) == then
    assert effects(path) == [1]


def test_server_killed_again_and_again_handles_each_message_once(path: Path) -> None:
    """Whenever it is killed, a client that sends on from its oldest open message has one effect of each."""
    acknowledged = 0
    kills = 0
    while acknowledged < LAST:
        patience = 40 + 7 * kills  # acknowledgements, then the kill at no moment in particular
        with start(path, "never", acknowledged + 1) as server:
            assert server.stdout is not None
            for line in server.stdout:
                answer = json.loads(line)
                acknowledged += 1
                patience -= 1
                assert answer["answer"] == acknowledged
                if not patience:
                    server.kill()
                    kills += 1
                    break  # what it said in its last moments is lost
    assert kills >= 3
    assert effects(path) == list(range(1, LAST + 1))


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2], int(sys.argv[3])))
