"""A dead link is noticed in time, on any server, and a live one is left alone (SPEC B2)."""

import asyncio

import pytest
from world import World

from realtime_fsm import ConnectionStatus, Delivery, DeliveryError, HeartbeatTimeoutError, Outcome
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


async def test_heartbeat_is_not_sent_while_there_is_traffic() -> None:
    """Any inbound frame is a sign of life: a busy link is not probed."""
    async with World() as world:
        await world.client.connect()
        await asyncio.sleep(30)
        before = world.client._assembly.statistics.heartbeats
        for _ in range(100):
            world.server.emit("tick")
            await asyncio.sleep(10)
        assert world.client._assembly.statistics.heartbeats == before


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
