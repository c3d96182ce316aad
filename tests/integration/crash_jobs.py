"""What runs in the processes that a test kills: a backend with a ledger, and an application with an outbox.

Everything that must outlive a kill is in files of one folder; what the test must know is a line of JSON on
the standard output.
"""

import asyncio
import json
import logging
import os
import signal
import sqlite3
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

from realtime_fsm import Dialect, RealtimeConfig, RealtimeService
from realtime_fsm.server import BackendConfig, Client, SqliteLedger, WebSocketService, issue_token

SECRET: Final = "0123456789abcdef0123456789abcdef"
EFFECTS: Final = "effects.db"
OUTBOX: Final = "outbox.db"
ACCEPTED: Final = "accepted.txt"
_AT_ONCE: Final = 8


def say(**fact: Any) -> None:
    """Tell the test something."""
    os.write(1, (json.dumps({"pid": os.getpid(), **fact}) + "\n").encode())


async def backend(folder: Path, _: Mapping[str, Any]) -> None:
    """Serve until killed: each number is written down in the same transaction as the client's mark."""
    ledger = SqliteLedger(
        folder / EFFECTS,
        on_connect=lambda c: c.execute("CREATE TABLE IF NOT EXISTS effect (run INTEGER, n INTEGER)"),
    )

    async def apply(client: Client, data: dict[str, int]) -> int:
        transaction: sqlite3.Connection = client.transaction
        transaction.execute("INSERT INTO effect VALUES (?, ?)", (data["run"], data["n"]))
        return data["n"]

    async with WebSocketService(BackendConfig(port=0, secret=SECRET), ledger=ledger) as service:
        service.on("number", apply)
        say(port=service.port)
        await asyncio.Event().wait()


async def application(folder: Path, given: Mapping[str, Any]) -> None:
    """Emit numbers until killed, or (``count`` = 0) deliver what is left and end."""
    config = RealtimeConfig(
        server_url=given["url"],
        dialect=Dialect.REFERENCE,
        outbox_path=str(folder / OUTBOX),
        outbox_overflow="block",
        outbox_max_messages=100_000,
        max_reconnect_attempts=0 if given["by_http"] else 10_000,
        backoff_base=0.02,
        backoff_maximum=0.1,
        backoff_jitter=False,
        first_retry_within=0.02,
        fallback_polling_interval=0.1,
        reconnect_interval=0.1,
        heartbeat_interval=5.0,
        heartbeat_timeout=2.0,
        max_delivery_attempts=10_000,
        log_level="error",
    )
    run, count = given["run"], given["count"]
    async with RealtimeService(config, token=issue_token(SECRET, "crash", 3600.0)) as realtime:
        say(ready=True)
        if not count:
            while realtime.metrics.messages_waiting:  # noqa: ASYNC110 - a counter
                await asyncio.sleep(0.01)
            say(drained=True)
            return
        journal = os.open(folder / ACCEPTED, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        for first in range(0, count, _AT_ONCE):
            await asyncio.gather(*(_emit(realtime, journal, run, n) for n in range(first, first + _AT_ONCE)))


async def _emit(realtime: RealtimeService, journal: int, run: int, n: int) -> None:
    await realtime.emit("number", {"run": run, "n": n})
    os.write(journal, f"{run} {n}\n".encode())
    say(accepted=n)


_JOBS: Final[Mapping[str, Callable[[Path, Mapping[str, Any]], Awaitable[None]]]] = {
    "application": application,
    "backend": backend,
}


def main() -> None:
    """Start a process for each line on the standard input; they end with this one at the latest.

    The libraries are loaded once, here: a process that is forked from this one begins within milliseconds.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them: the kernel forgets them at once
    say(ready=True)
    children = set()
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _run_and_exit(order)
        children.add(pid)
    for pid in children:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _run_and_exit(order: dict[str, Any]) -> None:
    """Run a job in this process, which is one of its own, and end it."""
    code = 1
    try:
        os.close(0)
        logging.basicConfig(level=logging.ERROR)
        asyncio.run(_JOBS[order["job"]](Path(order["folder"]), order))
        code = 0
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
