"""The demo's backend: the reference backend in a process of its own, so that it can be killed.

It keeps a journal in a folder, one number a line, which survives ``SIGKILL``: what it was sent, and what it
published. So the demo counts what happened, and assumes nothing.
"""

import asyncio
import contextlib
import signal
import sys
from pathlib import Path
from typing import Any, Final

from realtime_fsm.server import BackendConfig, WebSocketService

RECEIVED: Final = "received.txt"
PUBLISHED: Final = "published.txt"
QUIET: Final = "quiet"
"""While a file of this name is in the folder, nothing is published."""

_PACE: Final = 0.05
CHANNEL: Final = "ticks"


def numbers(path: Path) -> list[int]:
    """Return the numbers of a journal; a last line cut short by the kill does not count."""
    if not path.is_file():
        return []
    whole = path.read_text(encoding="ascii").rpartition("\n")[0]
    return [int(line) for line in whole.split()]


async def _serve(folder: Path, secret: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    config = BackendConfig(port=0, secret=secret, ping_interval=25, ping_timeout=20)
    async with WebSocketService(config) as service:
        with (folder / RECEIVED).open("ab", buffering=0) as received:

            def receive(_: Any, data: dict[str, int]) -> int:
                received.write(f"{data['n']}\n".encode())
                return data["n"]

            service.on("number", receive)
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
