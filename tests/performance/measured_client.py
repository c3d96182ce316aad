"""One side of the benchmarks, in a process of its own.

Says ``ready`` once it has started. Then each line on its standard input, with the name of a benchmark and a
count, is one round, answered by a line of JSON with its figures. Ends with its standard input. Run by
``benchmark.py``.
"""

import argparse
import asyncio
import gc
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final

import psutil
from benchmark_payload import PAYLOAD
from core_pinning import CLIENT_CORE, pin
from durable_round import durable_emit, restart
from monitored_side import MonitoredSide
from raw_side import RawSide
from realtime_side import STABLE_AFTER, RealtimeSide

from realtime_fsm.testing.proxy.proxy import FaultProxy

Side = RawSide | RealtimeSide
Figures = dict[str, float]

WINDOW: Final = 32
HEARTBEAT_INTERVAL: Final = 1.0
HEARTBEAT_TIMEOUT: Final = 0.5
_SETTLE: Final = 2 * STABLE_AFTER  # how long a connection lasts before it is broken
SIDES: Final[Mapping[str, type[Side]]] = {
    "raw": RawSide,
    "realtime": RealtimeSide,
    "monitored": MonitoredSide,
}


async def _timed(work: Callable[[int], Awaitable[None]], count: int) -> Figures:
    """Return the CPU and the wall-clock seconds that one of ``count`` takes, after a warm-up."""
    await work(max(count // 10, 1))
    cpu, wall = time.process_time(), time.perf_counter()
    await work(count)
    return {
        "cpu": (time.process_time() - cpu) / count,
        "wall": (time.perf_counter() - wall) / count,
    }


async def emit(side: Side, count: int) -> Figures:
    """Emit without acknowledgements."""
    return await _timed(side.emit, count)


async def receive(side: Side, count: int) -> Figures:
    """Receive a flood with one synchronous handler, each event as soon as the server has written it."""
    return await _timed(partial(side.receive, bulk=False), count)


async def receive_bulk(side: Side, count: int) -> Figures:
    """Receive a flood with one synchronous handler, many events in a segment."""
    return await _timed(partial(side.receive, bulk=True), count)


async def acknowledged(side: Side, count: int) -> Figures:
    """Emit with acknowledgements, one at a time; the round trip is the median of all."""
    await side.acknowledged(max(count // 10, 1))
    seconds = []
    cpu = time.process_time()
    for _ in range(count):
        begun = time.perf_counter()
        await side.acknowledged(1)
        seconds.append(time.perf_counter() - begun)
    return {"cpu": (time.process_time() - cpu) / count, "wall": statistics.median(seconds)}


async def windowed(side: Side, count: int) -> Figures:
    """Emit with acknowledgements, a window in flight."""

    async def work(messages: int) -> None:
        for _ in range(max(messages // WINDOW, 1)):
            await side.acknowledged_window(WINDOW)

    figures = await _timed(work, count // WINDOW * WINDOW)
    return {**figures, "rate": 1.0 / figures["wall"]}


async def outbox(side: Side, count: int) -> Figures:
    """Emit so that nothing is lost: through the outbox, or as the raw client must."""
    figures = await _timed(side.through_outbox, count)
    return {**figures, "rate": 1.0 / figures["wall"]}


async def memory(side: RealtimeSide, count: int) -> Figures:
    """Let messages pass through the outbox, and see what is left of them in memory."""
    process = psutil.Process()
    await side.through_outbox(count // 10)
    gc.collect()
    before = process.memory_info().rss
    begun = time.perf_counter()
    await side.through_outbox(count - count // 10)
    seconds = time.perf_counter() - begun
    gc.collect()
    return {"growth": process.memory_info().rss / before, "rate": (count - count // 10) / seconds}


async def connect(side: Side, count: int) -> Figures:
    """Connect over a websocket, from the call to its return."""
    seconds = []
    for _ in range(count):
        await side.close()
        begun = time.perf_counter()
        await side.connect()
        seconds.append(time.perf_counter() - begun)
    return {"wall": statistics.median(seconds)}


async def reset(side: Side, proxy: FaultProxy) -> Figures:
    """Break a stable connection by a TCP reset, and wait until there is one again."""
    await asyncio.sleep(_SETTLE)
    back = asyncio.ensure_future(side.reconnected())
    await asyncio.sleep(0)  # it must listen before there is anything to hear
    begun = time.perf_counter()
    proxy.reset_peer()
    await back
    return {"wall": time.perf_counter() - begun}


async def black_hole(side: RealtimeSide, proxy: FaultProxy) -> Figures:
    """Swallow all traffic of a live connection, and wait until that is noticed."""
    await asyncio.sleep(_SETTLE)
    lost = asyncio.ensure_future(side.lost())
    await asyncio.sleep(0)
    begun = time.perf_counter()
    proxy.black_hole(True)
    await lost
    return {"wall": time.perf_counter() - begun}


OVER_LINK: Final[dict[str, Callable[..., Awaitable[Figures]]]] = {
    each.__name__: each
    for each in (emit, receive, receive_bulk, acknowledged, windowed, outbox, memory, connect)
}
OVER_LINK |= {"monitored_emit": emit, "monitored_receive": receive}


async def _over_link(options: argparse.Namespace) -> Figures:
    side = SIDES[options.side](f"http://127.0.0.1:{options.port}", PAYLOAD)
    await side.connect()
    try:
        return await OVER_LINK[options.benchmark](side, options.count)
    finally:
        await side.close()


async def _reset(options: argparse.Namespace) -> Figures:
    async with FaultProxy("127.0.0.1", options.port) as proxy:
        side = SIDES[options.side](proxy.url, PAYLOAD)
        await side.connect()
        try:
            return await reset(side, proxy)
        finally:
            await side.close()


async def _black_hole(options: argparse.Namespace) -> Figures:
    async with FaultProxy("127.0.0.1", options.port) as proxy:
        side = RealtimeSide(
            proxy.url,
            PAYLOAD,
            heartbeat_interval=HEARTBEAT_INTERVAL,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
        )
        await side.connect()
        try:
            return await black_hole(side, proxy)
        finally:
            await side.close()


ROUNDS: Final[Mapping[str, Callable[[argparse.Namespace], Awaitable[Figures]]]] = {
    **dict.fromkeys(OVER_LINK, _over_link),
    "durable_emit": durable_emit,
    "restart": restart,
    "reset": _reset,
    "black_hole": _black_hole,
}


async def _answer(options: argparse.Namespace) -> None:
    """Do a round over a connection of its own for each line that comes in."""
    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        options.benchmark, count = line.split()
        options.count = int(count)
        print(json.dumps(await ROUNDS[options.benchmark](options)), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", choices=SIDES, required=True)
    parser.add_argument("--port", type=int, required=True)
    chosen = parser.parse_args()
    pin(CLIENT_CORE)
    asyncio.run(_answer(chosen))
