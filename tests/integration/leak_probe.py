"""Goes through many cycles of a connection's life, and prints as JSON by how much the process has grown.

A process of its own, so that nothing else adds to what it counts. Run by ``test_leaks.py``.
"""

import argparse
import asyncio
import contextlib
import gc
import json
import logging
import sys
from collections import Counter
from collections.abc import Awaitable, Callable

import psutil
from engineio import base_client

from realtime_fsm import ConnectionStatus, Delivery, RealtimeConfig, RealtimeService, ServerUnreachableError

_process = psutil.Process()
SOON = 20.0


Counts = dict[str, int]


async def snapshot() -> tuple[Counts, Counter[str]]:
    """Return what the process holds once the tasks that are ending have ended, and its objects by type."""
    async with asyncio.timeout(SOON):
        unchanged, tasks = 0, -1
        while unchanged < 5:
            await asyncio.sleep(0.005)
            now = len(asyncio.all_tasks())
            unchanged, tasks = (unchanged + 1 if now == tasks else 0), now
    gc.collect()
    types = Counter(f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.get_objects())
    counts = {
        "tasks": tasks,
        "descriptors": _process.num_fds(),
        "clients": len(base_client.connected_clients),
        "objects": types.total(),
        "memory_bytes": _process.memory_info().rss,
    }
    return counts, types


async def measured(cycle: Callable[[int], Awaitable[None]], warm_up: int, cycles: int) -> dict[str, Counts]:
    """Go through the cycles; return the growth over all but the warm-up, and what is held at the end."""
    for number in range(warm_up):
        await cycle(number)
    before, types_before = await snapshot()
    for number in range(cycles):
        await cycle(warm_up + number)
    after, types = await snapshot()
    sessions = types["aiohttp.client.ClientSession"]
    types.subtract(types_before)
    growth = {name: after[name] - before[name] for name in after}
    return {"growth": growth, "held": {"sessions": sessions}, "types": dict(types.most_common(10))}


async def reconnects(port: int, warm_up: int, cycles: int) -> dict[str, Counts]:
    """Have the server reset the connection in every cycle, with a message in flight."""
    config = RealtimeConfig(
        server_url=f"http://127.0.0.1:{port}",
        transports=("websocket",),
        stable_after=0.0,
        first_retry_within=0.0,
        log_level="error",
    )
    async with RealtimeService(config) as realtime:
        await realtime.subscribe(["bookings"])
        changes = realtime.changes()

        async def cycle(number: int) -> None:
            if await realtime.call("ask", number, timeout=SOON) != number:
                raise AssertionError("the answer belongs to another question")
            await realtime.emit("drop", delivery=Delivery.VOLATILE)
            in_flight = await realtime.emit("ask", number, delivery=Delivery.AT_LEAST_ONCE)
            async with asyncio.timeout(SOON):
                while not (await anext(changes)).is_connected:
                    pass
                await in_flight

        report = await measured(cycle, warm_up, cycles)
        if (losses := realtime.metrics.losses) != warm_up + cycles:
            raise AssertionError(f"{losses} losses in {warm_up + cycles} cycles")
    return report


async def failed_dials(port: int, warm_up: int, cycles: int) -> dict[str, Counts]:
    """Dial in vain: nobody listens at the port."""
    config = RealtimeConfig(
        server_url=f"http://127.0.0.1:{port}", max_reconnect_attempts=0, log_level="error"
    )
    realtime = RealtimeService(config)
    with contextlib.suppress(ServerUnreachableError):
        await realtime.connect()

    async def cycle(_: int) -> None:
        changes = realtime.changes()
        realtime.retry_now()
        async with asyncio.timeout(SOON):
            while (await anext(changes)).current is not ConnectionStatus.FAILED:
                pass

    report = await measured(cycle, warm_up, cycles)
    if (failed := realtime.metrics.failed_connections) != 1 + warm_up + cycles:
        raise AssertionError(f"{failed} failed dials, not one in each of {1 + warm_up + cycles} cycles")
    await realtime.disconnect()
    return report


async def stays(port: int, warm_up: int, cycles: int) -> dict[str, Counts]:
    """Connect and disconnect, with a new client every time."""
    config = RealtimeConfig(
        server_url=f"http://127.0.0.1:{port}", transports=("websocket",), log_level="error"
    )

    async def cycle(number: int) -> None:
        async with RealtimeService(config) as realtime:
            await realtime.call("ask", number, timeout=SOON)

    return await measured(cycle, warm_up, cycles)


SCENARIOS = {scenario.__name__: scenario for scenario in (reconnects, failed_dials, stays)}

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("scenario", choices=SCENARIOS)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--warm-up", type=int, required=True)
    parser.add_argument("--cycles", type=int, required=True)
    options = parser.parse_args()
    logging.disable(logging.ERROR)  # each failure is on purpose
    work = SCENARIOS[options.scenario](options.port, options.warm_up, options.cycles)
    sys.stdout.write(json.dumps(asyncio.run(work)))
