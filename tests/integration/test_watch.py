"""``realtime-fsm watch`` on a real server: an outage is seen to begin and to end, and Ctrl-C ends it."""

import asyncio
import json
import os
import pty
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import canary

from realtime_fsm.server import BackendConfig, WebSocketService
from realtime_fsm.testing.fault_proxy import FaultProxy

Run = Callable[[Coroutine[Any, Any, None]], None]
SECRET = canary.SIGNING
BOUND = 20.0


async def start(url: str, *options: str, **streams: Any) -> asyncio.subprocess.Process:
    """Start the command."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "realtime_fsm.cli", "watch", url, "--dialect", "reference"),
        *("--token-env", "A_TOKEN", *options),
        env={**os.environ, "A_TOKEN": canary.jwt("me", 60)},
        **streams,
    )


def test_watch_tells_of_an_outage_and_ends_by_an_interrupt(run_async: Run) -> None:
    """A reset is a loss and then a connection again, each a line of JSON; Ctrl-C is how it ends well."""

    async def main() -> None:
        async with (
            WebSocketService(BackendConfig(port=0, secret=SECRET)) as backend,
            FaultProxy("127.0.0.1", backend.port) as proxy,
        ):
            process = await start(
                proxy.url, "--json", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
            )
            assert process.stdout is not None
            states: list[str] = []
            try:
                async with asyncio.timeout(BOUND):
                    while states.count("connected") < 2:
                        told = json.loads(await process.stdout.readline())
                        if told["kind"] == "status":
                            states.append(told["current"])
                            if states == ["connecting", "connected"]:
                                proxy.reset_peer()
            finally:
                process.send_signal(signal.SIGINT)
                _, error = await canary.output_of(process)
            assert states == ["connecting", "connected", "reconnecting", "connecting", "connected"]
            assert (process.returncode, error) == (0, b"")

    run_async(main())


def test_watch_on_a_terminal_draws_in_place_and_gives_the_cursor_back(run_async: Run) -> None:
    """A person sees one picture that changes; after the time that was asked for, the cursor is back."""

    async def main() -> None:
        ours, theirs = pty.openpty()
        try:
            async with WebSocketService(BackendConfig(port=0, secret=SECRET)) as backend:
                process = await start(backend.url, "--for", "1.5", stdin=theirs, stdout=theirs, stderr=theirs)
                async with asyncio.timeout(BOUND):
                    code = await process.wait()
            seen = os.read(ours, 1_000_000).decode()
        finally:
            os.close(ours)
            os.close(theirs)
        assert code == 0
        assert "Connected." in seen
        assert seen.index("\033[?25l") < seen.index("\033[?25h")
        assert seen.rstrip().endswith("\033[?25h")
        assert not canary.found_in(seen)

    run_async(main())
