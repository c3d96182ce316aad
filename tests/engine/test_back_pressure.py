"""Handlers that are slower than the server, or that wait for it: nothing waits for them but their events."""

import asyncio
from typing import Any

import pytest
from world import World

from realtime_fsm import ConnectionStatus, EventsMissedError, Missed
from realtime_fsm.testing.simulated.sessions import SimulatedSessions

S = ConnectionStatus
NO_ROOM = "event without room"


@pytest.mark.parametrize("count", [4, 80, 800])
async def test_handler_may_call_the_server_however_many_events_wait(count: int) -> None:
    """Answers never lie behind events that wait: each call of a handler is answered at once."""
    async with World(max_pending_events=8) as world:
        took: list[float] = []

        @world.client.on("order")
        async def order(n: int) -> None:
            began = world.now
            assert await world.client.call("price", n) == n
            took.append(world.now - began)

        await world.client.connect()
        await asyncio.sleep(1)
        for n in range(count):
            world.server.emit("order", n)
        await asyncio.sleep(10)
        assert len(took) >= min(count, 8)
        assert max(took) == pytest.approx(2 * world.server.latency)
        assert world.client.metrics.dropped.get(NO_ROOM, 0) == count - len(took)
        assert world.client.metrics.handler_errors == 0


async def test_handler_may_await_a_receipt_and_room_in_the_outbox() -> None:
    """Receipts settle and the outbox empties while events wait: a handler may await both."""
    async with World(max_pending_events=4, outbox_max_messages=1, outbox_overflow="block") as world:
        done: list[Any] = []

        @world.client.on("n")
        async def reply(n: int) -> None:
            receipts = [await world.client.emit("reply", (n, i), delivery="at_least_once") for i in range(3)]
            for receipt in receipts:
                await receipt
            done.append(n)

        await world.client.connect()
        for n in range(50):
            world.server.emit("n", n)
        await asyncio.sleep(10)
        assert done[-4:] == [46, 47, 48, 49]
        assert world.client.metrics.messages_waiting == 0


async def test_events_without_room_are_told_to_the_resync_hook() -> None:
    """What is dropped is counted and loaded anew: once for many, where the gap is."""
    async with World(max_pending_events=4) as world:
        heard: list[Any] = []
        world.client.on("n", heard.append)

        @world.client.on_resync
        async def load(missed: Missed) -> None:
            assert missed.channel is None
            assert "handlers were behind" in missed.reason
            heard.append("all")

        await world.client.connect()
        for n in range(20):
            world.server.emit("n", n)
        await asyncio.sleep(1)
        world.server.emit("n", 20)
        await asyncio.sleep(1)
        assert heard == ["all", 16, 17, 18, 19, 20]
        metrics = world.client.metrics
        assert metrics.dropped[NO_ROOM] == 16
        assert (metrics.resyncs, metrics.unrecovered, metrics.events_received) == (1, 1, 21)


async def test_flood_that_never_ends_does_not_starve_the_events() -> None:
    """A hook that is slower than the flood is called once per queue of events, and those are handled."""
    async with World(max_pending_events=8) as world:
        heard: list[int] = []
        loads: list[int] = []
        world.client.on("n", heard.append)

        @world.client.on_resync
        async def load(_: Missed) -> None:
            loads.append(len(heard))
            await asyncio.sleep(0.5)

        await world.client.connect()
        for n in range(2000):
            world.server.emit("n", n)
            await asyncio.sleep(0.01)
        await asyncio.sleep(5)
        assert heard == sorted(heard)
        assert heard[-1] == 1999
        assert len(heard) >= 7 * len(loads)


async def test_events_that_are_missed_without_a_hook_are_reported_once_a_spell() -> None:
    """Without a hook each spell of being behind is one error, however many events it costs."""
    async with World(max_pending_events=4) as world:
        issues: list[Any] = []
        world.client.recovery.on_connection_issue(lambda issue: issues.append(issue.error))
        world.client.on("n", lambda _: asyncio.sleep(1))
        await world.client.connect()
        for _ in range(2):
            for n in range(50):
                world.server.emit("n", n)
            await asyncio.sleep(60)
        assert [type(issue) for issue in issues] == [EventsMissedError] * 2
        assert world.client.metrics.losses == 0


async def test_large_events_are_bounded_by_their_bytes() -> None:
    """A few large events are as much as many small ones."""
    async with World(max_pending_bytes=100_000) as world:
        world.client.on("n", lambda *_: asyncio.sleep(1))
        await world.client.connect()
        for n in range(10):
            world.server.emit("n", n, "x" * 30_000)
        await asyncio.sleep(0.5)
        assert world.client.metrics.dropped[NO_ROOM] == 7
        assert world.client.metrics.events_pending == 2  # one of the three is being handled


async def test_latest_of_each_name_outlives_a_flood() -> None:
    """With ``latest`` a rare event is not pushed out by a frequent one, and the client stays ready."""
    async with World(max_pending_events=8, inbound_overflow="latest") as world:
        heard: list[Any] = []

        @world.client.on("*")
        async def slow(name: str, n: int) -> None:
            await asyncio.sleep(1)
            heard.append((name, n))

        await world.client.connect()
        world.server.emit("first", 0)
        await asyncio.sleep(0.5)
        world.server.emit("rare", 1)
        for n in range(1000):
            world.server.emit("tick", n)
        await asyncio.sleep(0.1)
        assert world.client.health().ready
        await asyncio.sleep(30)
        assert ("rare", 1) in heard
        assert heard[-1] == ("tick", 999)
        assert world.client.metrics.dropped == {"superseded event": 993}


async def test_overflow_may_close_the_connection_and_a_recovered_session_brings_the_rest() -> None:
    """With ``close`` what did not fit is not taken: a server that recovers sessions sends it again."""
    async with World(max_pending_events=8, inbound_overflow="close") as world:
        world.server.sessions = SimulatedSessions(log_size=100)
        heard: list[int] = []

        @world.client.on("n")
        async def slow(n: int) -> None:
            await asyncio.sleep(0.1)
            heard.append(n)

        await world.client.connect()
        for n in range(40):
            world.server.emit("n", n)
        await world.until(S.RECONNECTING)
        last = world.client.connection_status.last
        assert last is not None
        assert "handlers were behind" in str(last.error)
        await asyncio.sleep(60)
        assert heard == list(range(40))


async def test_handler_may_poll_itself() -> None:
    """A handler that asks for a poll gets it, although there is no room for what it brings."""
    config = {"fallback_endpoints": ["a=/a"], "max_pending_events": 1, "fallback_polling_interval": 1.0}
    async with World(**config) as world:
        world.http.resources["/a"] = lambda _: int(world.now)
        polls: list[float] = []
        heard: list[int] = []

        @world.client.on("a")
        async def poll(n: int) -> None:
            heard.append(n)
            await asyncio.sleep(5)
            manager = world.client._manager
            assert manager is not None
            await manager.polling.poll_for_updates()
            polls.append(world.now)

        await world.client.connect()
        world.client.force_fallback()
        await asyncio.sleep(60)
        assert len(polls) >= 9
        assert heard == sorted(set(heard))
