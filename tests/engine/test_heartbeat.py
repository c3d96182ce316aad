"""A dead link is noticed in time, on any server, and a live one is left alone (SPEC B2)."""

import asyncio
import gc
import time
import weakref
from typing import Any

import pytest
from world import World

from realtime_fsm import (
    CallTimeoutError,
    ConnectionStatus,
    Delivery,
    DeliveryError,
    Dialect,
    HeartbeatTimeoutError,
    Outcome,
)
from realtime_fsm.engine.message import Message
from realtime_fsm.testing.simulated.backend import SimulatedBackend
from realtime_fsm.testing.simulated.server import echo

S = ConnectionStatus


def beats(world: World) -> int:
    """Return how many heartbeat events reached the server."""
    return len(world.server.received_of("heartbeat"))


@pytest.mark.parametrize("acknowledges", [True, False], ids=["application", "ping"])
@pytest.mark.parametrize("idle", [0.0, 3.0, 17.0, 24.9, 26.0, 1000.0])
async def test_heartbeat_notices_a_black_hole_in_time(acknowledges: bool, idle: float) -> None:
    """A link that dies at any moment is lost within ``heartbeat_interval + heartbeat_timeout``."""
    async with World() as world:
        if acknowledges:
            world.server.acknowledge = lambda _, args: args
        await world.client.connect()
        await asyncio.sleep(idle)
        world.server.is_black_hole = True
        limit = world.config.heartbeat_interval + world.config.heartbeat_timeout
        assert await world.until(S.RECONNECTING) <= limit
        assert isinstance(world.changes[-1].error, HeartbeatTimeoutError)


async def test_heartbeat_notices_a_black_hole_behind_a_stalled_writer() -> None:
    """A writer that cannot write does not hide a dead link."""
    async with World() as world:
        await world.client.connect()
        await asyncio.sleep(60)
        world.server.is_stalled = world.server.is_black_hole = True
        for n in range(500):
            await world.client.emit("note", n)
        assert await world.until(S.RECONNECTING) <= 35.0


@pytest.mark.parametrize("answers_pings", [True, False])
async def test_heartbeat_leaves_a_quiet_live_link_alone(answers_pings: bool) -> None:
    """A link on which nothing happens for a day stays, by application heartbeats or by pings alone."""
    async with World() as world:
        world.server.answers_pings = answers_pings
        if not answers_pings:
            world.server.acknowledge = lambda _, args: args
        await world.client.connect()
        await asyncio.sleep(24 * 3600)
        assert world.path == ["connecting", "connected"]


async def test_heartbeat_is_sent_and_measured_under_traffic_too() -> None:
    """What comes down proves that way alone: a busy link is probed and measured as a quiet one is."""
    async with World() as world:
        await world.client.connect()
        for _ in range(100):
            world.server.emit("tick")
            await asyncio.sleep(10)
        await asyncio.sleep(1)
        metrics = world.client.metrics
        assert metrics.heartbeats == metrics.latency_count == pytest.approx(1000 / 25, abs=1)


@pytest.mark.parametrize("acknowledges", [True, False], ids=["application", "ping"])
@pytest.mark.parametrize("idle", [0.0, 3.0, 24.9, 1000.0])
async def test_heartbeat_notices_a_dead_way_up_under_events(acknowledges: bool, idle: float) -> None:
    """A link whose way up is dead is lost in time, although events go on coming down."""
    async with World() as world:
        if acknowledges:
            world.server.acknowledge = lambda _, args: args
        await world.client.connect()
        await asyncio.sleep(idle)
        world.server.is_deaf = True
        began = world.now
        while world.client.status is S.CONNECTED and world.now < began + 100:
            world.server.emit("tick")
            await asyncio.sleep(0.1)
        assert world.now - began <= world.config.heartbeat_interval + world.config.heartbeat_timeout + 0.1
        assert isinstance(world.changes[-1].error, HeartbeatTimeoutError)


async def test_heartbeat_leaves_a_slow_way_up_alone() -> None:
    """While what stands before a probe is seen to leave, the link is not dead, however long that takes."""
    async with World(heartbeat_interval=5.0, heartbeat_timeout=2.0) as world:
        await world.client.connect()
        await asyncio.sleep(1)
        world.server.uplink_rate = 1000.0
        receipts = [
            await world.client.emit("n", "x" * 1000, delivery=Delivery.AT_LEAST_ONCE) for _ in range(30)
        ]
        await asyncio.gather(*receipts)
        assert world.path == ["connecting", "connected"]
        assert world.now > 30


async def test_heartbeat_gives_a_slow_way_up_up_once_it_stands_still() -> None:
    """What moved before is no excuse: once nothing leaves any more, the link is lost in time."""
    async with World(heartbeat_interval=5.0, heartbeat_timeout=2.0) as world:
        await world.client.connect()
        await asyncio.sleep(1)
        world.server.uplink_rate = 1000.0
        for _ in range(30):
            await world.client.emit("n", "x" * 1000, delivery=Delivery.AT_LEAST_ONCE)
        await asyncio.sleep(10)
        world.server.is_stalled = True
        assert await world.until(S.RECONNECTING) <= 7.0


async def test_check_now_asks_at_once() -> None:
    """``check_now()`` finds a dead link within ``heartbeat_timeout``, and leaves a live one alone."""
    async with World() as world:
        assert not world.client.check_now()
        await world.client.connect()
        await asyncio.sleep(11)
        before = world.client.metrics.heartbeats
        assert world.client.check_now()
        await asyncio.sleep(1)
        assert world.client.metrics.heartbeats == before + 1
        world.server.is_deaf = True
        assert world.client.check_now()
        assert await world.until(S.RECONNECTING) <= world.config.heartbeat_timeout
        assert not world.client.check_now()


@pytest.mark.real_loop
async def test_heartbeat_asks_once_more_after_an_own_stall() -> None:
    """A program that stood still while a probe was under way does not blame the link for it."""
    async with World(heartbeat_interval=0.4, heartbeat_timeout=0.4, enable_fallback=False) as world:
        await world.client.connect()
        for _ in range(3):
            asked = world.client.metrics.heartbeats
            while world.client.metrics.heartbeats == asked:  # noqa: ASYNC110 - no event tells it
                await asyncio.sleep(0)
            time.sleep(0.5)  # noqa: ASYNC251 - which is what must not be, and is
            while world.client.metrics.latency_count < asked:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0)
        assert world.path == ["connecting", "connected"]


@pytest.mark.parametrize("delivery", [Delivery.AT_LEAST_ONCE, Delivery.EXACTLY_ONCE])
async def test_heartbeat_that_is_not_answered_settles_nothing(delivery: Delivery) -> None:
    """A message that a dead way up has swallowed is never called unacknowledged, and is sent again."""
    async with World(dialect=Dialect.REFERENCE, ack_timeout=5.0) as world:
        backend = world.server.backend = SimulatedBackend(handlers={"n": lambda n: n})
        await world.client.connect()
        await asyncio.sleep(60)
        world.server.is_deaf = True
        receipt = await world.client.emit("n", 1, delivery=delivery)
        for _ in range(200):
            world.server.emit("tick")
            await asyncio.sleep(1)
            assert receipt.outcome is Outcome.PENDING
        world.server.is_deaf = False
        assert await receipt == 1
        assert [message.args for message in backend.handled] == [[1]]


async def test_message_of_exactly_once_is_asked_about_again_before_it_is_given_up() -> None:
    """Where the server drops repeats, a missing acknowledgement is asked for again, as often as may be."""
    config = {"ack_timeout": 5.0, "max_delivery_attempts": 3}
    async with World(dialect=Dialect.REFERENCE, **config) as world:
        backend = world.server.backend = SimulatedBackend(handlers={"n": lambda n: n})
        await world.client.connect()
        await asyncio.sleep(1)
        world.server.swallow_acks = 1
        assert await (await world.client.emit("n", 1)) == 1
        world.server.ack_delay = 1e6
        unheard = await world.client.emit("n", 2)
        with pytest.raises(DeliveryError, match="unacknowledged"):
            await unheard
        assert backend.repeats == 1 + 2


async def test_retried_dead_letter_takes_no_effect_again() -> None:
    """A dead letter that the server may have had keeps its number: it takes effect once, however it died."""
    config = {"ack_timeout": 5.0, "max_delivery_attempts": 2}
    async with World(dialect=Dialect.REFERENCE, **config) as world:
        backend = world.server.backend = SimulatedBackend(handlers={"n": lambda n: n})
        await world.client.connect()
        await asyncio.sleep(1)
        world.server.ack_delay = 1e6
        unheard = await world.client.emit("n", 1)
        with pytest.raises(DeliveryError, match="unacknowledged"):
            await unheard
        killed = await world.client.emit("n", 2)
        for _ in range(2):
            await asyncio.sleep(1)
            world.server.reset()
            await world.until(S.CONNECTED)
        with pytest.raises(DeliveryError, match="dead"):
            await killed
        world.server.ack_delay = 0.0
        again = await world.client.outbox.retry()
        assert [await receipt for receipt in again] == [1, 2]
        assert [message.args for message in backend.handled] == [[1], [2]]
        assert await world.client.outbox.dead_letters() == []


async def test_retried_dead_letter_that_was_passed_over_is_not_called_delivered() -> None:
    """What the server takes for a repeat, and knows nothing of, is not called delivered."""
    async with World(dialect=Dialect.REFERENCE, max_delivery_attempts=1) as world:
        backend = world.server.backend = SimulatedBackend(handlers={"n": lambda n: n})
        await world.client.connect()
        await asyncio.sleep(1)
        world.server.is_deaf = True
        passed_over = await world.client.emit("n", 1)
        await asyncio.sleep(0)
        world.server.reset()
        with pytest.raises(DeliveryError, match="dead"):
            await passed_over
        world.server.is_deaf = False
        assert await (await world.client.emit("n", 2)) == 2
        (again,) = await world.client.outbox.retry()
        with pytest.raises(DeliveryError, match="does not know any more"):
            await again
        assert [message.args for message in backend.handled] == [[2]]
        (as_new,) = await world.client.outbox.retry(as_new=True)
        assert await as_new == 1
        assert await world.client.outbox.dead_letters() == []


@pytest.mark.parametrize("delivery", [None, Delivery.AT_MOST_ONCE])
async def test_call_is_left_to_its_own_time(delivery: Delivery | None) -> None:
    """``ack_timeout`` never shortens a call: it waits for as long as it was asked to."""
    async with World(ack_timeout=1.0) as world:
        await world.client.connect()
        world.server.ack_delay = 58.0
        assert await world.client.call("n", 1, timeout=60.0, delivery=delivery) == 1
        began = world.now
        with pytest.raises(CallTimeoutError):
            await world.client.call("n", 1, timeout=50.0, delivery=delivery)
        assert world.now - began == pytest.approx(50.0)


@pytest.mark.parametrize("ttl", [None, 3600.0])
async def test_calls_that_timed_out_leave_nothing_behind(ttl: float | None) -> None:
    """What a call held is let go when its caller gives it up, not when the connection ends."""
    async with World(message_ttl=ttl) as world:
        await world.client.connect()
        world.server.ack_delay = 1e6
        compose = world.client._queue.compose
        held: list[weakref.ref[Message]] = []

        def watched(*args: Any, **named: Any) -> Message:
            message = compose(*args, **named)
            held.append(weakref.ref(message))
            return message

        object.__setattr__(world.client._queue, "compose", watched)
        for n in range(300):
            with pytest.raises(CallTimeoutError):
                await world.client.call("n", n, timeout=1.0)
        gc.collect()
        assert sum(reference() is not None for reference in held) <= 1
        assert len(world.client._queue._expiring) < 300


async def test_heartbeat_finds_out_what_the_server_answers() -> None:
    """A server that does not acknowledge heartbeats is asked once; one that does, every time."""
    async with World() as world:
        await world.client.connect()
        await asyncio.sleep(1000)
        assert beats(world) == 1
        world.server.acknowledge = lambda _, args: args
        world.server.reset()
        await world.until(S.CONNECTED)
        asked = beats(world)
        await asyncio.sleep(1000)
        assert beats(world) >= asked + 25


async def test_heartbeat_over_a_transport_without_pings_uses_events() -> None:
    """Where there are no pings, a heartbeat event is sent, and any sign of life counts."""
    async with World() as world:
        world.server.can_ping = False
        world.server.acknowledge = lambda _, args: args
        await world.client.connect()
        await asyncio.sleep(1000)
        assert world.client.status is S.CONNECTED
        world.server.is_black_hole = True
        assert await world.until(S.RECONNECTING) <= 35.0


async def test_heartbeat_measures_the_round_trip() -> None:
    """Latency is the time from a probe to its answer."""
    async with World() as world:
        world.server.latency = 0.125
        await world.client.connect()
        await asyncio.sleep(100)
        assert world.client.metrics.average_latency == pytest.approx(0.25)


async def test_heartbeat_reports_what_a_live_server_never_acknowledges() -> None:
    """On a live link a message that is not acknowledged is settled and reported, and never sent again."""
    async with World(ack_timeout=30.0) as world:
        world.server.acknowledge = lambda event, args: None if event == "deaf" else echo(event, args)
        issues = []
        world.client.recovery.on_connection_issue(issues.append)
        await world.client.connect()
        receipts = [await world.client.emit("deaf", n, delivery=Delivery.AT_LEAST_ONCE) for n in range(40)]
        await asyncio.sleep(200)
        assert {receipt.outcome for receipt in receipts} == {Outcome.UNACKNOWLEDGED}
        with pytest.raises(DeliveryError, match="AT_MOST_ONCE"):
            await receipts[0]
        assert world.server.received_of("deaf") == list(range(40))
        assert len(issues) == 40
        assert world.client.status is S.CONNECTED


async def test_heartbeat_sends_again_what_a_dead_link_swallowed() -> None:
    """An acknowledgement that is overdue because the link is dead: the message is sent again."""
    async with World(ack_timeout=5.0) as world:
        await world.client.connect()
        await asyncio.sleep(60)
        world.server.is_black_hole = True
        receipt = await world.client.emit("note", 1, delivery=Delivery.AT_LEAST_ONCE)
        await world.until(S.RECONNECTING)
        assert receipt.outcome is Outcome.PENDING
        world.server.is_black_hole = False
        assert await receipt == 1


async def test_heartbeat_judges_also_while_handlers_are_behind() -> None:
    """Handlers that never catch up hide no dead link: the wire is read, and its silence counts."""
    async with World(max_pending_events=4, heartbeat_interval=20.0, heartbeat_timeout=5.0) as world:

        @world.client.on("n")
        async def stuck(_: int) -> None:
            await asyncio.Event().wait()

        await world.client.connect()
        for n in range(20):
            world.server.emit("n", n)
        await asyncio.sleep(100)
        assert world.client.status is S.CONNECTED
        world.server.is_black_hole = True
        began = world.now
        await world.until(S.RECONNECTING)
        assert world.now - began <= 25.1
