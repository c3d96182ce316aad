"""The demo's backend: the reference backend in a process of its own, so that it can be killed.

It keeps what survives ``SIGKILL`` in a folder: a database of the numbers that it was sent, each committed
together with the client's mark, and a journal of the numbers that it published. So the demo counts what
happened, and assumes nothing.
"""

import asyncio
import contextlib
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any, Final, Self

from realtime_fsm.machine.errors import InternalError
from realtime_fsm.server import BackendConfig, Client, SqliteLedger, WebSocketService

RECEIVED: Final = "received.db"
PUBLISHED: Final = "published.txt"
QUIET: Final = "quiet"
"""While a file of this name is in the folder, nothing is published."""

CHANNEL: Final = "ticks"

_PACE: Final = 0.05
_START_LIMIT: Final = 15.0
_END_LIMIT: Final = 5.0


class Backend:
    """The backend's process: started, killed, started again."""

    def __init__(self, folder: Path, secret: str) -> None:
        self._folder = folder
        self._secret = secret
        self._process: asyncio.subprocess.Process | None = None
        self.port = 0

    async def start(self) -> None:
        """Start it, and wait until it listens."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "realtime_fsm.cli.demo_backend",
            str(self._folder),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the demo, which then ends this process
        )
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:  # pragma: no cover - both were asked for
            raise InternalError("The backend has no pipes.")
        stdin.write(f"{self._secret}\n".encode())
        stdin.close()
        async with asyncio.timeout(_START_LIMIT):
            line = await stdout.readline()
        if not line:
            raise InternalError("The backend did not start.", remedy="See its messages above.")
        self.port = int(line)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        if self._process is not None:
            self._process.send_signal(number)

    async def end(self, how: signal.Signals) -> None:
        """End it by a signal, and make sure that it is gone."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(how)
        try:
            async with asyncio.timeout(_END_LIMIT):
                await process.communicate()
        except TimeoutError:
            process.kill()
            await process.communicate()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.end(signal.SIGTERM)


def numbers(path: Path) -> list[int]:
    """Return the numbers of a journal; a last line cut short by the kill does not count."""
    if not path.is_file():
        return []
    whole = path.read_text(encoding="ascii").rpartition("\n")[0]
    return [int(line) for line in whole.split()]


def received_numbers(path: Path) -> list[int]:
    """Return the numbers that took effect, in their order."""
    if not path.is_file():
        return []
    with contextlib.closing(_connected(path)) as database:
        return [n for (n,) in database.execute("SELECT n FROM number ORDER BY rowid")]


def _connected(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None, timeout=5.0)


async def _serve(folder: Path, secret: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    config = BackendConfig(port=0, secret=secret, ping_interval=25, ping_timeout=20)
    ledger = SqliteLedger(folder / RECEIVED)
    with contextlib.closing(_connected(folder / RECEIVED)) as unnumbered:
        unnumbered.execute("CREATE TABLE IF NOT EXISTS number (n INTEGER NOT NULL)")

        def receive(client: Client, data: dict[str, int]) -> int:
            """Write a number down: with the client's mark, where the message has one."""
            (client.transaction or unnumbered).execute("INSERT INTO number VALUES (?)", (data["n"],))
            return data["n"]

        async with WebSocketService(config, ledger=ledger) as service:

            def snapshot(_: Client) -> dict[str, Any]:
                """Return all that was published, and the position in the channel that it stands for."""
                position = service.position(CHANNEL)
                published = numbers(folder / PUBLISHED)
                return {"numbers": published, "epoch": position.epoch, "offset": position.offset}

            service.on("number", receive)
            service.on("snapshot", snapshot)
            sys.stdout.write(f"{service.port}\n")
            sys.stdout.flush()
            publishing = asyncio.create_task(_publish(service, folder))
            await stop.wait()
            publishing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await publishing


async def _publish(service: WebSocketService, folder: Path) -> None:
    """Publish one number after another, going on where a killed process before this one ended."""
    number = max(numbers(folder / PUBLISHED), default=0)
    with (folder / PUBLISHED).open("ab", buffering=0) as published:
        while True:
            await asyncio.sleep(_PACE)
            if (folder / QUIET).exists():
                continue
            number += 1
            published.write(f"{number}\n".encode())
            service.publish(CHANNEL, "tick", {"n": number})


def main() -> None:
    """Serve until ``SIGTERM``: ``python -m realtime_fsm.cli.demo_backend FOLDER``, the secret on stdin."""
    secret = sys.stdin.readline().strip()
    asyncio.run(_serve(Path(sys.argv[1]), secret))


if __name__ == "__main__":
    main()
