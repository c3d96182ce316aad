import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from realtime_fsm import (
    ConnectionStatus,
    Dialect,
    Outcome,
    RealtimeConfig,
    RealtimeService,
    WrongLoopError,
)
from realtime_fsm.testing import RealtimeBackend, SimulatedHttp, SimulatedServer

REMEDY = "asyncio.run_coroutine_threadsafe"


def client(**config: Any) -> RealtimeService:
    """Return a client of a simulated server."""
    return RealtimeService(
        RealtimeConfig(**config), transport_factory=SimulatedServer(), http=SimulatedHttp()
    )


async def bounded(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Wait for what must not hang."""
    async with asyncio.timeout(20):
        return await coroutine


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine on a loop of its own, and close that."""
    return asyncio.run(bounded(coroutine))


def abandon(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine on a loop that is then closed, with all its tasks, as a notebook does."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(bounded(coroutine))
    finally:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks))
        loop.close()


@pytest.fixture
def used() -> Iterator[tuple[RealtimeService, asyncio.AbstractEventLoop]]:
    """Give a connected client and its loop, which runs in another thread."""
    loop, mine = asyncio.new_event_loop(), client()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(mine.connect(), loop).result(20)
        yield mine, loop
        asyncio.run_coroutine_threadsafe(mine.disconnect(), loop).result(20)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()


COROUTINES: dict[str, Callable[[RealtimeService], Coroutine[Any, Any, Any]]] = {
    "connect": lambda one: one.connect(),
    "disconnect": lambda one: one.disconnect(),
    "wait_for": lambda one: one.wait_for(),
    "emit": lambda one: one.emit("n"),
    "call": lambda one: one.call("n"),
    "subscribe": lambda one: one.subscribe(["a"]),
    "unsubscribe": lambda one: one.unsubscribe(["a"]),
    "monitor_bookings": lambda one: one.monitor_bookings(["1"]),
    "aenter": lambda one: one.__aenter__(),
    "aexit": lambda one: one.__aexit__(None, None, None),
}
FUNCTIONS: dict[str, Callable[[RealtimeService], object]] = {
    "on": lambda one: one.on("n", print),
    "off": lambda one: one.off("n"),
    "events": lambda one: one.events("n"),
    "changes": lambda one: one.changes(),
    "pause": lambda one: one.pause(),
    "retry_now": lambda one: one.retry_now(),
    "force_fallback": lambda one: one.force_fallback(),
    "release_fallback": lambda one: one.release_fallback(),
    "on_resync": lambda one: one.on_resync(lambda _: None),
    "on_outage": lambda one: one.on_outage(print, print),
    "on_settled": lambda one: one.on_settled(print),
    "outbox": lambda one: one.outbox,
}


@pytest.mark.parametrize("name", COROUTINES)
def test_coroutine_on_another_loop_is_refused_at_once(
    name: str, used: tuple[RealtimeService, asyncio.AbstractEventLoop]
) -> None:
    """Every coroutine of a client that is in use elsewhere says so at once, and names the remedy."""
    with pytest.raises(WrongLoopError, match=REMEDY):
        run(COROUTINES[name](used[0]))
    assert used[0].is_connected


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("has_loop", [False, True])
def test_function_in_another_thread_is_refused_at_once(
    name: str, has_loop: bool, used: tuple[RealtimeService, asyncio.AbstractEventLoop]
) -> None:
    """Every function that touches the engine says at once that it is called in the wrong thread."""

    async def on_a_loop() -> None:
        FUNCTIONS[name](used[0])

    with pytest.raises(WrongLoopError, match=REMEDY):
        run(on_a_loop()) if has_loop else FUNCTIONS[name](used[0])
    assert used[0].is_connected


def test_health_and_metrics_may_be_asked_for_from_anywhere(
    used: tuple[RealtimeService, asyncio.AbstractEventLoop],
) -> None:
    """What only looks works in any thread, with a loop and without."""
    one = used[0]

    async def look() -> bool:
        return one.health().ready and one.metrics.uptime >= 0 and one.is_connected and bool(one.dump())

    assert one.health().ready
    assert one.metrics.total_connections == 1
    assert run(look())


def test_client_may_be_used_on_one_loop_after_the_other() -> None:
    """After ``disconnect()`` a client belongs to nobody: several ``asyncio.run`` may use it in turn."""
    one = client()

    async def use() -> Any:
        async with one:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(one.events("never")), 0.01)
            return await one.call("n", 1, timeout=5)

    assert [run(use()) for _ in range(3)] == [1, 1, 1]


def test_client_whose_loop_was_closed_says_so_and_connects_on_another_one() -> None:
    """What waited is delivered by the next connection; until that is begun, everything is refused."""
    one = client(enable_fallback=False)
    changes: list[str] = []
    one.connection_status.subscribe(lambda change: changes.append(f"{change.previous} {change.current}"))

    async def use_and_leave() -> Any:
        await one.connect()
        one.pause()
        return await one.emit("n", 1, delivery="at_least_once")  # type: ignore[arg-type] - as configured

    receipt = abandon(use_and_leave())
    assert one.status is ConnectionStatus.DISCONNECTED
    assert not one.health().ready
    with pytest.raises(WrongLoopError, match="connect"):
        run(one.emit("n", 2))

    async def use_again() -> Any:
        await one.connect()
        answer = await receipt
        await one.disconnect()
        return answer

    assert run(use_again()) == 1
    assert all(first.split()[1] == second.split()[0] for first, second in pairwise(changes))


def test_client_whose_live_connection_went_with_its_loop_connects_on_another_one() -> None:
    """A loop that was closed in CONNECTED takes its connection along, and nothing else."""
    one = client()
    abandon(one.connect())
    assert one.status is ConnectionStatus.DISCONNECTED

    async def use() -> Any:
        assert await one.connect() is ConnectionStatus.CONNECTED
        answer = await one.call("n", 1, timeout=5)
        await one.disconnect()
        return answer

    assert run(use()) == 1


def test_outbox_file_whose_loop_was_closed_is_opened_on_another_one(tmp_path: Path) -> None:
    """What a durable outbox has kept before its loop was closed is sent by the next connection."""
    with RealtimeBackend() as backend:
        backend.on("n", lambda who, n: n)
        config = RealtimeConfig(
            server_url=backend.url, dialect=Dialect.REFERENCE, outbox_path=str(tmp_path / "outbox.db")
        )
        one = RealtimeService(config, token=backend.token)
        receipt = abandon(one.emit("n", 1))

        async def use() -> Any:
            await one.connect()
            answer = await one.call("n", 2, timeout=10)
            left = await one.disconnect()
            return answer, left

        assert run(use()) == (2, ())
        assert receipt.outcome is Outcome.STORED
        assert one.metrics.messages_by_outcome["acknowledged"] == 2


def test_receipt_on_another_loop_is_refused(
    used: tuple[RealtimeService, asyncio.AbstractEventLoop],
) -> None:
    """A receipt that is waited for on its own loop cannot be waited for on another one."""
    one, loop = used

    async def emit_and_wait() -> Any:
        one.pause()
        receipt = await one.emit("n", 1)
        waiting = asyncio.ensure_future(receipt)
        await asyncio.sleep(0)
        return receipt, waiting

    receipt, waiting = asyncio.run_coroutine_threadsafe(emit_and_wait(), loop).result(20)

    async def wait() -> None:
        await receipt

    with pytest.raises(WrongLoopError, match=REMEDY):
        run(wait())
    loop.call_soon_threadsafe(waiting.cancel)
