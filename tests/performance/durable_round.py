"""What the durable outbox takes: there is no other side to compare with, and no server either."""

import argparse
import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from benchmark_payload import PAYLOAD

from realtime_fsm import Delivery, RealtimeConfig, RealtimeService

PRODUCERS: Final = 100


@asynccontextmanager
async def _offline(path: Path) -> AsyncIterator[RealtimeService]:
    """Run a client that never connects, with its outbox in a file that survives a power cut."""
    realtime = RealtimeService(
        RealtimeConfig(
            outbox_path=str(path), outbox_max_messages=1_000_000, outbox_max_bytes=1024 * 1024 * 1024
        )
    )
    try:
        yield realtime
    finally:
        await realtime.disconnect()


async def _produce(realtime: RealtimeService, count: int) -> None:
    for _ in range(count):
        await realtime.emit("note", PAYLOAD, delivery=Delivery.AT_LEAST_ONCE)


async def durable_emit(options: argparse.Namespace) -> dict[str, float]:
    """Emit from many producers at the same time; each waits until its message is on the disk."""
    with tempfile.TemporaryDirectory() as folder:
        async with _offline(Path(folder) / "outbox.db") as realtime:
            await _produce(realtime, 1)
            each = options.count // PRODUCERS
            begun = time.perf_counter()
            async with asyncio.TaskGroup() as group:
                for _ in range(PRODUCERS):
                    group.create_task(_produce(realtime, each))
            return {"rate": each * PRODUCERS / (time.perf_counter() - begun)}


async def restart(options: argparse.Namespace) -> dict[str, float]:
    """Start a client on an outbox with many messages, until it has accepted another one."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "outbox.db"
        async with _offline(path) as realtime, asyncio.TaskGroup() as group:
            for _ in range(PRODUCERS):
                group.create_task(_produce(realtime, options.count // PRODUCERS))
        begun = time.perf_counter()
        async with _offline(path) as realtime:
            await _produce(realtime, 1)
            seconds = time.perf_counter() - begun
            if len(realtime.outbox) != options.count + 1:
                raise RuntimeError(f"{len(realtime.outbox)} messages were found")
            return {"wall": seconds}
