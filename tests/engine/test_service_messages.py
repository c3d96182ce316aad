"""Messages through a whole client: in order, within bounds, and again after a loss (SPEC A1, C2)."""

import asyncio
import math
from typing import Any

import pytest
from world import World

from realtime_fsm import (
    CallTimeoutError,
    ConnectionStatus,
    Delivery,
    DeliveryError,
    InvalidArgumentError,
    LaggedError,
    OutboxFullError,
    Outcome,
    UnsupportedDeliveryError,
)

S = ConnectionStatus


async def test_messages_emitted_offline_are_delivered_in_order() -> None:
    """What was emitted before the connection and during an outage arrives afterwards, in order."""
    async with World() as world:
        receipts = [await world.client.emit("n", n) for n in range(5)]
        await world.client.connect()
        await asyncio.gather(*receipts)
        await asyncio.sleep(1)  # written is not received: that is all AT_MOST_ONCE promises
        world.server.reset()
        await world.until(S.RECONNECTING)
        receipts = [await world.client.emit("n", n) for n in range(5, 10)]
        await asyncio.gather(*receipts)
        await asyncio.sleep(1)
        assert world.server.received_of("n") == list(range(10))


async def test_messages_in_flight_at_a_loss_are_sent_again_in_order() -> None:
    """AT_LEAST_ONCE survives a loss with a full window: everything unacknowledged is sent again, in order."""
    async with World() as world:
        await world.client.connect()
        world.server.swallow_acks = 1000
        receipts = [await world.client.emit("n", n, delivery=Delivery.AT_LEAST_ONCE) for n in range(100)]
        await asyncio.sleep(1)
        assert world.server.received_of("n") == list(range(32))  # the window
        world.server.swallow_acks = 0
        world.server.reset()
        assert await asyncio.gather(*receipts) == list(range(100))
        assert world.server.received_of("n") == [*range(32), *range(100)]
        assert world.client.metrics.messages_resent == 32


async def test_messages_at_most_once_are_never_sent_twice() -> None:
    """AT_MOST_ONCE that was not written when the link ended is lost, and its receipt says so."""
    async with World() as world:
        await world.client.connect()
        world.server.is_stalled = True
        receipt = await world.client.emit("n", 1)
        world.server.reset()
        world.server.is_stalled = False
        with pytest.raises(DeliveryError, match="lost"):
            await receipt
        await world.until(S.CONNECTED)
        await (await world.client.emit("n", 2))
        await asyncio.sleep(1)
        assert world.server.received_of("n") == [2]


async def test_messages_volatile_are_dropped_offline() -> None:
    """VOLATILE is sent on a live link, and dropped without one; the receipt says which."""
    async with World() as world:
        dropped = await world.client.emit("n", 1, delivery=Delivery.VOLATILE)
        assert dropped.outcome is Outcome.DROPPED
        with pytest.raises(DeliveryError, match="volatile"):
            await dropped
        await world.client.connect()
        await asyncio.sleep(0.1)
        sent = await world.client.emit("n", 2, delivery=Delivery.VOLATILE)
        await sent
        await asyncio.sleep(0.1)
        assert world.server.received_of("n") == [2]


async def test_messages_of_all_kinds_are_accounted_for() -> None:
    """Accepted messages equal the settled ones plus the waiting ones, through an outage."""
    async with World() as world:
        await world.client.connect()
        for n in range(300):
            if n % 50 == 25:
                world.server.reset()
            await world.client.emit("n", n, delivery=list(Delivery)[n % 3])
            await asyncio.sleep(0.01)
        metrics = world.client.metrics
        settled = sum(metrics.messages_by_outcome.values())
        assert metrics.messages_accepted == 300 == settled + metrics.messages_waiting
        await world.client.disconnect()
        assert sum(world.client.metrics.messages_by_outcome.values()) == 300


async def test_messages_beyond_the_bounds_are_refused_whole() -> None:
    """A full outbox refuses with the bound in the message, and stores nothing of what it refused."""
    async with World(outbox_max_messages=3) as world:
        for n in range(3):
            await world.client.emit("n", n)
        with pytest.raises(OutboxFullError, match="outbox_max_messages"):
            await world.client.emit("n", 3)
        await world.client.connect()
        await asyncio.sleep(1)
        await world.client.emit("n", 4)
        await asyncio.sleep(1)
        assert world.server.received_of("n") == [0, 1, 2, 4]


@pytest.mark.parametrize(
    ("event", "data", "words"),
    [
        ("n", math.nan, "JSON"),
        ("n", {1, 2}, "set is not JSON"),
        ("", 1, "not the name"),
        ("connect", 1, "reserved"),
        ("n", "x" * 2_000_000, "max_message_bytes"),
    ],
)
async def test_messages_that_cannot_be_sent_are_refused_at_once(event: str, data: object, words: str) -> None:
    """What cannot be sent, ever, is an error of the caller at once, and counts as not accepted."""
    async with World() as world:
        with pytest.raises(InvalidArgumentError, match=words):
            await world.client.emit(event, data)
        with pytest.raises(InvalidArgumentError, match=words):
            await world.client.call(event, data)
        assert world.client.metrics.messages_accepted == 0


async def test_messages_exactly_once_is_refused_with_the_remedy() -> None:
    """A promise that cannot be kept is refused, not weakened."""
    async with World() as world:
        with pytest.raises(UnsupportedDeliveryError, match="AT_LEAST_ONCE"):
            await world.client.emit("n", 1, delivery=Delivery.EXACTLY_ONCE)


async def test_call_survives_a_reconnect() -> None:
    """A call whose connection is lost is asked again on the next one."""
    async with World() as world:
        await world.client.connect()
        world.server.swallow_acks = 1
        call = asyncio.create_task(world.client.call("sum", [1, 2], timeout=60))
        await asyncio.sleep(1)
        world.server.reset()
        assert await call == [1, 2]


async def test_call_at_most_once_ends_at_the_loss() -> None:
    """With AT_MOST_ONCE a call does not wait for a dead link, and is not asked twice."""
    async with World() as world:
        await world.client.connect()
        world.server.swallow_acks = 1
        call = asyncio.create_task(world.client.call("sum", [1], timeout=600, delivery=Delivery.AT_MOST_ONCE))
        await asyncio.sleep(1)
        began = world.now
        world.server.reset()
        with pytest.raises(DeliveryError, match="lost"):
            await call
        assert world.now == began
        await world.until(S.CONNECTED)
        await asyncio.sleep(1)
        assert len(world.server.received_of("sum")) == 1


async def test_call_gives_up_in_time_and_leaves_nothing() -> None:
    """A call that is not answered ends at its time-out, and holds no place in the window afterwards."""
    async with World() as world:
        await world.client.connect()
        world.server.swallow_acks = 2
        began = world.now
        with pytest.raises(CallTimeoutError):
            await world.client.call("sum", [1], timeout=3)
        assert world.now - began == pytest.approx(3)
        task = asyncio.create_task(world.client.call("sum", [2], timeout=600))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert world.client.metrics.messages_in_flight == world.client.metrics.messages_waiting == 0


async def test_call_offline_waits_for_the_connection() -> None:
    """A call made while offline is answered once there is a connection, or ends at its time-out."""
    async with World() as world:
        with pytest.raises(CallTimeoutError):
            await world.client.call("sum", [1], timeout=3)
        call = asyncio.create_task(world.client.call("sum", [2], timeout=30))
        await asyncio.sleep(1)
        await world.client.connect()
        assert await call == [2]
        assert world.server.received_of("sum") == [[2]]


async def test_disconnect_drains_what_waits() -> None:
    """``disconnect()`` first delivers what waits, and returns nothing then."""
    async with World() as world:
        await world.client.connect()
        for n in range(200):
            await world.client.emit("n", n, delivery=Delivery.AT_LEAST_ONCE)
        assert await world.client.disconnect() == ()
        assert world.server.received_of("n") == list(range(200))


async def test_disconnect_returns_what_could_not_be_delivered() -> None:
    """What cannot be delivered in time is returned, in order, and its receipts say so."""
    async with World() as world:
        await world.client.connect()
        world.server.swallow_acks = 1000
        receipts = [await world.client.emit("n", n, delivery=Delivery.AT_LEAST_ONCE) for n in range(50)]
        began = world.now
        left = await world.client.disconnect()
        assert world.now - began <= world.config.close_timeout
        assert list(left) == receipts
        for receipt in left:
            assert receipt.outcome is Outcome.DROPPED


async def test_handlers_see_events_in_wire_order_one_at_a_time() -> None:
    """A handler that awaits delays the next event; their order is the wire's."""
    async with World() as world:
        seen: list[Any] = []

        @world.client.on("n")
        async def slowly(n: int) -> None:
            seen.append(("begin", n))
            await asyncio.sleep(1 if n % 2 else 0)
            seen.append(("end", n))

        await world.client.connect()
        for n in range(6):
            world.server.emit("n", n)
        await asyncio.sleep(10)
        assert seen == [(what, n) for n in range(6) for what in ("begin", "end")]


async def test_handlers_cannot_break_the_engine() -> None:
    """A handler that raises, is cancelled from inside, or blocks disturbs nothing but itself."""
    async with World() as world:
        seen: list[int] = []

        @world.client.on("n")
        async def bad(n: int) -> None:
            seen.append(n)
            if n == 0:
                raise ZeroDivisionError
            if n == 1:
                raise asyncio.CancelledError
            if n == 2:
                await asyncio.sleep(10_000)

        await world.client.connect()
        for n in range(4):
            world.server.emit("n", n)
        await asyncio.sleep(1)
        assert await world.client.call("still", "alive", timeout=5) == "alive"
        await asyncio.sleep(5000)
        assert "A handler of 'n'" in " ".join(world.client.health().reasons)
        await asyncio.sleep(6000)
        assert seen == [0, 1, 2, 3]
        assert world.client.metrics.handler_errors == 2
        assert world.path == ["connecting", "connected"]


async def test_handlers_answer_the_server() -> None:
    """What a handler returns answers the server's question; with no handler the answer is empty."""
    async with World() as world:
        world.client.on("ask", lambda n: n + 1)
        world.client.on("pair", lambda: (1, 2))
        await world.client.connect()
        world.server.emit("ask", 41, ack_id=7)
        world.server.emit("pair", ack_id=8)
        world.server.emit("nobody", ack_id=9)
        await asyncio.sleep(1)
        assert world.server.answers == [(7, [42]), (8, [1, 2]), (9, [])]


async def test_handlers_answer_only_on_the_connection_that_asked() -> None:
    """An answer that comes after the connection has changed is dropped: its id means another question now."""
    async with World() as world:

        @world.client.on("ask")
        async def slow() -> str:
            await asyncio.sleep(5)
            return "late"

        await world.client.connect()
        world.server.emit("ask", ack_id=7)
        await asyncio.sleep(1)
        world.server.reset()
        await world.until(S.CONNECTED)
        await asyncio.sleep(10)
        assert world.server.answers == []
        assert world.client.metrics.stale_dropped >= 1


async def test_handlers_may_disconnect() -> None:
    """``disconnect()`` from a handler ends the client without a deadlock."""
    async with World() as world:
        done = asyncio.Event()

        @world.client.on("bye")
        async def bye() -> None:
            await world.client.disconnect()
            done.set()

        await world.client.connect()
        world.server.emit("bye")
        await asyncio.wait_for(done.wait(), 10)
        assert world.client.status is S.DISCONNECTED


async def test_handlers_get_nothing_after_the_disconnect() -> None:
    """No event is delivered after ``disconnect()``; what was waiting is counted as dropped."""
    async with World() as world:
        seen: list[int] = []

        @world.client.on("n")
        async def slow(n: int) -> None:
            seen.append(n)
            await asyncio.sleep(100)

        await world.client.connect()
        for n in range(5):
            world.server.emit("n", n)
        await asyncio.sleep(1)
        await world.client.disconnect()
        await asyncio.sleep(1000)
        assert seen == [0]
        assert world.client.metrics.dropped["event after disconnect"] == 4


async def test_events_stream_yields_and_tells_of_a_gap() -> None:
    """``events()`` yields what arrives, and tells a reader that did not keep up."""
    async with World(max_pending_events=10) as world:
        stream = world.client.events("n")
        lagging = world.client.events("n")
        await world.client.connect()
        for n in range(15):
            world.server.emit("n", n)
            assert (await anext(stream)).data == n
        assert [(await anext(lagging)).data for _ in range(10)] == list(range(10))
        with pytest.raises(LaggedError):
            await anext(lagging)
