"""Loses the connection again and again on real sockets, in every way the proxy has, and looks what is left.

Client and proxy are in this process, the backend in one of its own. Prints as JSON by how much this process
has grown over all cycles but the warm-up::

    python tests/performance/soak.py --cycles 10000
"""

import argparse
import asyncio
import gc
import json
import logging
import secrets
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import psutil
from engineio import base_client

from realtime_fsm import ConnectionStatus, Delivery, Dialect, RealtimeConfig, RealtimeService
from realtime_fsm.cli.demo_backend import CHANNEL, RECEIVED, Backend, received_numbers
from realtime_fsm.server import issue_token
from realtime_fsm.testing.proxy.faults import Direction
from realtime_fsm.testing.proxy.proxy import FaultProxy

MOST_MEMORY_BYTES: Final = 5 * 1024 * 1024
SOON: Final = 30.0

_process: Final = psutil.Process()


class Soak:
    """A client, and the proxy through which it is connected.

    Attributes:
        emitted: Messages so far; each has its number.
        events: Numbers of the events that came.
        faults: Every way in which the connection is lost.
    """

    def __init__(self, proxy: FaultProxy, client: RealtimeService) -> None:
        self._proxy = proxy
        self._client = client
        self.emitted = 0
        self.events: list[int] = []
        self.faults: tuple[Callable[[], Awaitable[None]], ...] = (
            self.reset,
            self.cut,
            self.limit_up,
            self.limit_down,
            self.refusal,
            self.blocked_path,
            self.timeout,
            self.slices,
        )

    async def cycle(self, number: int) -> None:
        """Lose the connection with a message in flight, and have it back with the message delivered once."""
        losses = self._client.metrics.losses
        self.emitted += 1
        receipt = await self._client.emit("number", {"n": self.emitted}, delivery=Delivery.EXACTLY_ONCE)
        await self.faults[number % len(self.faults)]()
        await self._client.wait_for(ConnectionStatus.CONNECTED, timeout=SOON)
        answer = await asyncio.wait_for(receipt, SOON)
        if answer != self.emitted:
            raise AssertionError(f"message {self.emitted} was answered with {answer}")
        if self._client.metrics.losses == losses:
            raise AssertionError(f"cycle {number} lost no connection")

    async def lost(self) -> None:
        """Wait until the client has noticed."""
        await self._client.wait_for(ConnectionStatus.RECONNECTING, timeout=SOON)

    async def reset(self) -> None:
        """Reset the connection."""
        self._proxy.reset_peer()
        await self.lost()

    async def cut(self) -> None:
        """End the connection in an orderly way."""
        self._proxy.cut()
        await self.lost()

    async def limit_up(self) -> None:
        """End the connection inside what the client says."""
        await self._limit(Direction.UP)

    async def limit_down(self) -> None:
        """End the connection inside what the server says."""
        await self._limit(Direction.DOWN)

    async def _limit(self, direction: Direction) -> None:
        self._proxy.limit_data(20, direction=direction)
        await self._client.emit("nothing", delivery=Delivery.VOLATILE)
        await self.lost()
        self._proxy.limit_data(None)

    async def refusal(self) -> None:
        """Reset the connection, and refuse a dial."""
        self._proxy.refuse(True)
        await self._failed_dial()
        self._proxy.refuse(False)
        self._client.retry_now()

    async def blocked_path(self) -> None:
        """Reset the connection, and every one that is for the socket."""
        self._proxy.block("/socket.io")
        await self._failed_dial()
        self._proxy.block(None)
        self._client.retry_now()

    async def _failed_dial(self) -> None:
        failed = self._client.metrics.failed_connections
        self._proxy.reset_peer()
        async with asyncio.timeout(SOON):
            while self._client.metrics.failed_connections == failed:
                await self.lost()
                await self._client.wait_for(ConnectionStatus.CONNECTING, timeout=SOON)

    async def timeout(self) -> None:
        """Forward nothing, and then end the connection."""
        self._proxy.timeout(0.005)
        await self.lost()
        self._proxy.timeout(None)

    async def slices(self) -> None:
        """Reset the connection, and have the next one in small segments."""
        self._proxy.slicer(20, size_variation=10)
        self._proxy.reset_peer()
        await self.lost()
        await self._client.wait_for(ConnectionStatus.CONNECTED, timeout=SOON)
        self._proxy.slicer(None)

    async def snapshot(self) -> dict[str, int]:
        """Return what the process holds once what is ending has ended."""
        async with asyncio.timeout(SOON):
            unchanged, tasks = 0, -1
            while unchanged < 10 or self._proxy.connection_count != 1:
                await asyncio.sleep(0.005)
                now = len(asyncio.all_tasks())
                unchanged, tasks = (unchanged + 1 if now == tasks else 0), now
        gc.collect()
        return {
            "tasks": tasks,
            "descriptors": _process.num_fds(),
            "threads": _process.num_threads(),
            "clients": len(base_client.connected_clients),
            "memory_bytes": _process.memory_info().rss,
        }


async def soak(folder: Path, warm_up: int, cycles: int) -> dict[str, Any]:
    """Go through the cycles.

    Args:
        folder: For the backend's files.
        warm_up: Cycles that are not counted: until all that is bounded is full.
        cycles: Cycles that are.

    Returns:
        The growth, and what was done.

    Raises:
        AssertionError: If a message or an event is missing, or there twice.
    """
    secret = secrets.token_hex(32)
    async with Backend(folder, secret) as backend, FaultProxy("127.0.0.1", backend.port) as proxy:
        config = RealtimeConfig(
            server_url=proxy.url,
            dialect=Dialect.REFERENCE,
            transports=("websocket",),
            max_reconnect_attempts=1000,
            stable_after=0.0,
            first_retry_within=0.0,
            backoff_base=0.005,
            backoff_maximum=0.01,
            backoff_jitter=False,
            log_level="error",
        )
        client = RealtimeService(config, token=issue_token(secret, "soak", 24 * 3600.0))
        run = Soak(proxy, client)
        client.on("tick", lambda data: run.events.append(data["n"]))
        async with client:
            await client.subscribe([CHANNEL])
            for number in range(warm_up):
                await run.cycle(number)
            before, began = await run.snapshot(), time.monotonic()
            for number in range(warm_up, warm_up + cycles):
                await run.cycle(number)
                del run.events[:-100]  # what the test itself keeps is no growth of what it tests
            seconds = time.monotonic() - began
            after = await run.snapshot()
            metrics = client.metrics
    received = received_numbers(folder / RECEIVED)
    if received != list(range(1, run.emitted + 1)):
        raise AssertionError(f"{run.emitted} messages took effect {len(received)} times, or out of order")
    if run.events != list(range(run.events[0], run.events[0] + len(run.events))):
        raise AssertionError(f"events are missing, or there twice: {run.events}")
    return {
        "cycles": cycles,
        "seconds": seconds,
        "growth": {name: after[name] - before[name] for name in after},
        "losses": metrics.losses,
        "failed_dials": metrics.failed_connections,
        "resets": proxy.counters.reset,
        "connections": proxy.counters.accepted,
    }


def problems(report: dict[str, Any]) -> list[str]:
    """Return where the growth is more than is allowed."""
    growth = report["growth"]
    found = [name for name in ("tasks", "descriptors", "threads", "clients") if growth[name] > 0]
    return found + (["memory_bytes"] if growth["memory_bytes"] > MOST_MEMORY_BYTES else [])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=10_000)
    parser.add_argument("--warm-up", type=int, default=250)  # more than a client's histories hold
    options = parser.parse_args()
    logging.disable(logging.ERROR)  # each failure is on purpose
    with tempfile.TemporaryDirectory() as folder:
        result = asyncio.run(soak(Path(folder), options.warm_up, options.cycles))
    sys.stdout.write(json.dumps(result, indent=2) + "\n")
    sys.exit(f"grown: {problems(result)}" if problems(result) else 0)
