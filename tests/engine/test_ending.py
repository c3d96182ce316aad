import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest
from world import World

from realtime_fsm import ClosedError, ConnectionLostError, ConnectionStatus, Delivery, Outcome, RealtimeError
from realtime_fsm.testing.simulated.server import Accept

S, D = ConnectionStatus, Delivery
TURNS = 25
"""More turns of the loop than a connect or a disconnect takes when nobody is slow."""


async def turns(count: int) -> None:
    """Let the loop turn so often."""
    for _ in range(count):
        await asyncio.sleep(0)


async def is_closed_or_usable(world: World) -> bool:
    """Tell whether a client is disconnected with nothing left, or does all that it should."""
    if world.client.status is S.DISCONNECTED:
        await asyncio.sleep(world.config.close_timeout)
        return world.server.live_links == 0
    receipt = await world.client.emit("still", 1, delivery=D.AT_LEAST_ONCE)
    return await receipt == 1 and world.client.health().ready


@pytest.mark.parametrize("is_slow", [False, True])
async def test_disconnect_that_is_cancelled_at_any_turn_ends_all_the_same(is_slow: bool) -> None:
    """Wherever a ``disconnect()`` is cancelled, the client is closed, or was not touched."""
    for turn in range(TURNS):
        async with World() as world:
            await world.client.connect()
            world.server.swallow_acks = 1 if is_slow else 0
            await world.client.emit("n", 1, delivery=D.AT_LEAST_ONCE)
            ending = asyncio.create_task(world.client.disconnect())
            await turns(turn)
            ending.cancel()
            with suppress(asyncio.CancelledError):
                await ending
            if is_slow and turn:
                assert world.client.status is S.DISCONNECTED, turn
            assert await is_closed_or_usable(world), turn


async def test_connect_that_is_cancelled_at_any_turn_leaves_nothing_or_all() -> None:
    """Wherever a ``connect()`` is cancelled, the client is closed, or fully connected."""
    for turn in range(TURNS):
        async with World() as world:
            connecting = asyncio.create_task(world.client.connect())
            await turns(turn)
            connecting.cancel()
            with suppress(asyncio.CancelledError):
                await connecting
            assert await is_closed_or_usable(world), turn
            assert await world.client.connect() is S.CONNECTED


@pytest.mark.parametrize("what", ["emit", "call", "subscribe"])
async def test_call_that_is_cancelled_at_any_turn_leaves_the_client_usable(what: str) -> None:
    """Wherever an ``emit``, a ``call`` or a ``subscribe`` is cancelled, the books balance and all goes on."""
    for turn in range(TURNS):
        async with World() as world:
            await world.client.connect()
            calls: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
                "emit": lambda: world.client.emit("n", 1, delivery=D.AT_LEAST_ONCE),
                "call": lambda: world.client.call("n", 1),
                "subscribe": lambda: world.client.subscribe(["channel"]),
            }
            task = asyncio.create_task(calls[what]())
            await turns(turn)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            assert await is_closed_or_usable(world), turn
            await asyncio.sleep(1)
            metrics = world.client.metrics
            assert metrics.messages_accepted == sum(metrics.messages_by_outcome.values())


async def test_connect_that_one_of_two_gives_up_goes_on_for_the_other() -> None:
    """The client that two wait for is taken down by the last one who is cancelled, and by no other."""
    async with World() as world:
        world.server.script.append(Accept(after=5.0))
        first, second = (asyncio.create_task(world.client.connect()) for _ in range(2))
        await asyncio.sleep(1)
        first.cancel()
        assert await second is S.CONNECTED
        await world.client.disconnect()
        world.server.script.append(Accept(after=5.0))
        first, second = (asyncio.create_task(world.client.connect()) for _ in range(2))
        await asyncio.sleep(1)
        first.cancel()
        second.cancel()
        await asyncio.wait({first, second})
        assert world.client.status is S.DISCONNECTED


async def test_disconnect_is_one_ending_for_all_who_ask_for_it() -> None:
    """All who disconnect at once share the end and its receipts; one who is cancelled leaves it."""
    async with World() as world:
        await world.client.connect()
        world.server.swallow_acks = 1
        receipt = await world.client.emit("n", 1, delivery=D.AT_LEAST_ONCE)
        given_up, *others = [asyncio.create_task(world.client.disconnect()) for _ in range(3)]
        await asyncio.sleep(1)
        given_up.cancel()
        await asyncio.sleep(0.5)
        assert world.client.status is S.CONNECTED  # the others still want the drain
        assert await asyncio.gather(*others) == [(receipt,), (receipt,)]


async def test_disconnect_without_a_drain_decides_for_all() -> None:
    """Whoever is in a hurry ends the drain that another one waits for."""
    async with World() as world:
        await world.client.connect()
        world.server.swallow_acks = 1
        await world.client.emit("n", 1, delivery=D.AT_LEAST_ONCE)
        draining = asyncio.create_task(world.client.disconnect())
        await asyncio.sleep(0.5)
        began = world.now
        await world.client.disconnect(drain=False)
        await draining
        assert world.now - began < 0.5


async def test_connect_during_a_disconnect_begins_after_it() -> None:
    """A ``connect()`` during the drain leads to a connection that lasts, and to its streams."""
    async with World() as world:
        await world.client.connect()
        world.server.swallow_acks = 1
        await world.client.emit("n", 1, delivery=D.AT_LEAST_ONCE)
        endings = [asyncio.create_task(world.client.disconnect()) for _ in range(2)]
        await asyncio.sleep(0.5)
        assert await world.client.connect() is S.CONNECTED
        stream = world.client.events("n")
        assert all(ending.done() for ending in endings)
        await asyncio.sleep(100)
        world.server.emit("n", 7)
        assert (await anext(stream)).data == 7
        assert world.server.most_links == 1


async def test_connect_that_waits_for_an_end_heeds_the_next_disconnect() -> None:
    """Whoever disconnects after a ``connect()`` was asked for has the last word, though neither has begun."""
    async with World() as world:
        await world.client.connect()
        world.server.swallow_acks = 1
        await world.client.emit("n", 1, delivery=D.AT_LEAST_ONCE)
        first = asyncio.create_task(world.client.disconnect())
        await asyncio.sleep(0.1)
        connecting = asyncio.create_task(world.client.connect())
        await asyncio.sleep(0.1)
        await world.client.disconnect()
        with pytest.raises(ClosedError):
            await connecting
        await first
        assert world.client.status is S.DISCONNECTED


async def test_body_does_not_run_on_a_client_that_was_disconnected_while_it_dialled() -> None:
    """``async with`` raises where somebody has disconnected the client before it was connected."""
    world = World()
    world.server.is_silent = True
    ran = False

    async def use() -> None:
        nonlocal ran
        async with world.client:
            ran = True

    using = asyncio.create_task(use())
    await asyncio.sleep(1)
    await world.client.disconnect()
    with pytest.raises(ClosedError):
        await using
    assert not ran


@pytest.mark.parametrize("way", ["directly", "task", "gather", "wait_for", "shield", "returned", "nested"])
async def test_handler_may_wait_for_the_disconnect_in_any_way(way: str) -> None:
    """A handler that waits for the end is not cancelled by it, nor does the end wait for it."""
    async with World() as world:
        disconnect = world.client.disconnect
        done: list[float] = []

        async def nested() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(disconnect())

        ways: dict[str, Callable[[], Any]] = {
            "directly": disconnect,
            "task": lambda: asyncio.create_task(disconnect()),
            "gather": lambda: asyncio.gather(disconnect(), asyncio.sleep(0)),
            "wait_for": lambda: asyncio.wait_for(disconnect(), 10),
            "shield": lambda: asyncio.shield(disconnect()),
            "nested": nested,
        }

        async def bye() -> None:
            await ways[way]()
            await world.client.connect()
            done.append(world.now)

        # One that only returns what is to be awaited counts as well.
        handler = (lambda: asyncio.create_task(bye())) if way == "returned" else bye
        ways["returned"] = disconnect
        world.client.on("bye", handler)
        await world.client.connect()
        began = world.now
        world.server.emit("bye")
        await asyncio.sleep(60)
        assert done
        assert done[0] - began < 1
        assert world.client.status is S.CONNECTED
        world.server.emit("bye")  # and again, from the second dispatcher
        await asyncio.sleep(60)
        assert len(done) == 2


async def test_handler_that_joins_an_end_is_let_go() -> None:
    """A handler that asks for the end while that waits for it already is let go at once."""
    async with World() as world:
        done = []

        @world.client.on("bye")
        async def bye() -> None:
            await asyncio.sleep(1)
            await asyncio.create_task(world.client.disconnect())
            done.append(world.now)

        await world.client.connect()
        world.server.emit("bye")
        await asyncio.sleep(0.5)
        began = world.now
        await world.client.disconnect()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert done
        assert world.now - began < 1


async def test_handler_that_is_running_may_end_by_itself() -> None:
    """A disconnect waits for the running handler, and cancels it when its own time is nearly over."""
    for seconds, ends in ((2.0, True), (100.0, False)):
        async with World() as world:
            ended = []

            @world.client.on("n")
            async def slow(seconds: float = seconds, ended: list[bool] = ended) -> None:
                try:
                    await asyncio.sleep(seconds)
                except asyncio.CancelledError:
                    ended.append(False)
                    raise
                ended.append(True)

            await world.client.connect()
            world.server.emit("n")
            await asyncio.sleep(0.5)
            began = world.now
            await world.client.disconnect()
            assert ended == [ends]
            assert world.now - began <= world.config.close_timeout


async def test_disconnect_waits_until_the_server_has_read_all() -> None:
    """What was written is not believed to be read before the server has answered a ping behind it."""
    async with World() as world:
        await world.client.connect()
        world.server.latency = 1.0
        receipts = [await world.client.emit("n", n) for n in range(50)]
        await asyncio.sleep(0)
        assert await world.client.disconnect() == ()
        assert world.server.received_of("n") == list(range(50))
        assert {receipt.outcome for receipt in receipts} == {Outcome.SENT}


async def test_disconnect_takes_sent_back_where_nobody_has_seen_that_it_was_read() -> None:
    """What was written into a dead connection is returned by the end, and says that it may be lost."""
    async with World() as world:
        await world.client.connect()
        known = await world.client.emit("n", 0)
        await asyncio.sleep(2 * world.config.heartbeat_interval)  # a probe behind it is answered
        world.server.is_black_hole = True
        lost = [await world.client.emit("n", n) for n in range(1, 5)]
        await asyncio.sleep(0.1)
        assert {receipt.outcome for receipt in lost} == {Outcome.SENT}
        began = world.now
        assert await world.client.disconnect() == tuple(lost)
        assert world.now - began <= world.config.close_timeout
        assert {receipt.outcome for receipt in lost} == {Outcome.LOST}
        assert "may be lost" in lost[0].reason
        assert known.outcome is Outcome.SENT
        assert world.client.metrics.dropped["message sent, and not seen to be read"] == 4


async def test_disconnect_takes_sent_back_that_an_earlier_connection_left_open() -> None:
    """A connection that breaks proves nothing any more of what was written to it."""
    async with World(enable_fallback=False) as world:
        await world.client.connect()
        world.server.latency = 5.0
        receipt = await world.client.emit("n", 1)
        await asyncio.sleep(0.1)
        world.server.reset(ConnectionLostError("reset."))
        world.server.latency = 0.01
        await world.until(S.CONNECTED)
        later = await world.client.emit("n", 2)
        assert await world.client.disconnect() == (receipt,)
        assert (receipt.outcome, later.outcome) == (Outcome.LOST, Outcome.SENT)


async def test_disconnect_believes_what_was_answered_over_polling() -> None:
    """Where there is no ping, what counts as written was answered by the server: that is proof enough."""
    async with World() as world:
        world.server.can_ping = False
        await world.client.connect()
        await world.client.emit("n", 1)
        began = world.now
        assert await world.client.disconnect() == ()
        assert world.now - began < 1


async def test_disconnect_over_many_messages_lets_the_loop_turn() -> None:
    """The end of a full outbox takes its turns beside others, and settles every receipt."""
    async with World(outbox_max_messages=10_000) as world:
        receipts = [await world.client.emit("n", n) for n in range(5000)]
        count = 0

        async def watch() -> None:
            nonlocal count
            while True:
                count += 1
                await asyncio.sleep(0)

        watching = asyncio.create_task(watch())
        left = await world.client.disconnect()
        watching.cancel()
        assert left == tuple(receipts)
        assert count >= 20


async def test_refused_message_is_never_silent_in_the_health() -> None:
    """While a client that is still connected accepts nothing, because it ends, its health says so."""
    async with World() as world:
        await world.client.connect()
        world.server.swallow_acks = 1
        await world.client.emit("n", 1, delivery=D.AT_LEAST_ONCE)
        ending = asyncio.create_task(world.client.disconnect())
        await asyncio.sleep(0.1)
        with pytest.raises(RealtimeError):
            await world.client.emit("n", 2)
        assert world.client.status is S.CONNECTED
        assert not world.client.health().ready
        assert "accepts no messages" in " ".join(world.client.health().reasons)
        await ending


async def test_stream_that_is_opened_after_the_end_waits_for_the_next_connection() -> None:
    """A stream ends with the client; one that is opened later belongs to what comes next."""
    async with World() as world:
        await world.client.connect()
        before = world.client.events("n")
        await world.client.disconnect()
        with pytest.raises(StopAsyncIteration):
            await anext(before)
        after = world.client.events("n")
        await world.client.connect()
        world.server.emit("n", 1)
        assert (await anext(after)).data == 1
