"""The health of a client: live, ready, degraded, and why; connected but deaf is not ready."""

import asyncio
import json
from typing import Any

import canary
import pytest
from world import World

from realtime_fsm import (
    ConnectionStatus,
    Delivery,
    Dialect,
    Health,
    OutboxStorageError,
    SubscriptionRefusedError,
)
from realtime_fsm.machine.errors import ServerUnavailableError
from realtime_fsm.testing.simulated.backend import SimulatedBackend
from realtime_fsm.testing.simulated.outbox import SimulatedOutbox

S = ConnectionStatus


def said(health: Health) -> str:
    """Return the reasons as one text."""
    return " ".join(health.reasons)


def test_health_of_a_client_that_was_never_connected_needs_no_loop() -> None:
    """Before `connect()` it is live and not ready, and can be asked for outside of a loop."""
    health = World().client.health()
    assert (health.live, health.ready, health.degraded, health.deaf) == (True, False, True, False)
    assert health.summary == "unavailable"
    assert "disconnected" in said(health)


async def test_health_follows_the_connection() -> None:
    """Connected is perfect; without a connection it is not ready, with the state and its cause."""
    async with World(enable_fallback=False) as world:
        await world.client.connect()
        assert world.client.health() == Health(
            live=True, ready=True, degraded=False, reasons=(), status=S.CONNECTED
        )
        assert world.client.health().summary == "ok"
        world.server.is_silent = True
        world.server.reset()
        await world.until(S.RECONNECTING)
        health = world.client.health()
        assert (health.live, health.ready, health.deaf) == (True, False, False)
        assert "reconnecting" in said(health)


async def test_health_in_fallback_is_ready_and_degraded_while_polls_succeed() -> None:
    """Data that comes by polling makes ready; when every poll fails, it is deaf until one succeeds."""
    async with World(fallback_endpoints=["/api/a"], fallback_polling_interval=10.0) as world:
        world.http.resources["/api/a"] = lambda _: 1
        await world.client.connect()
        assert world.client.force_fallback()
        await asyncio.sleep(30)
        health = world.client.health()
        assert (health.ready, health.degraded, health.deaf) == (True, True, False)
        assert health.summary == "degraded"
        world.http.refusal = ServerUnavailableError("503.")
        await asyncio.sleep(30)
        health = world.client.health()
        assert (health.live, health.ready, health.deaf) == (True, False, True)
        assert "poll" in said(health)
        world.http.refusal = None
        await asyncio.sleep(400)
        assert world.client.health().ready


def answer(world: World, *, enabled: bool) -> None:
    """Switch the answers of the server to probes on or off; everything else goes on."""
    if world.server.acks_heartbeat is not None:
        world.server.acks_heartbeat = enabled
    world.server.answers_pings = enabled


async def deaf_and_well_again(world: World) -> None:
    """Have events come, and no answers; the link is given up in time, and all is well with the next one."""
    await world.client.connect()
    await asyncio.sleep(30)
    assert world.client.health().summary == "ok"
    answer(world, enabled=False)
    began = world.now
    while world.client.status is S.CONNECTED and world.now < began + 25:
        world.server.emit("noise")
        await asyncio.sleep(0.1)
    health = world.client.health()
    assert (health.live, health.ready) == (True, False)
    assert "reconnecting" in said(health)
    answer(world, enabled=True)
    for _ in range(13):
        world.server.emit("noise")
        await asyncio.sleep(1)
    assert world.client.health().summary == "ok"  # although the traffic never paused
    assert world.path == ["connecting", "connected", "reconnecting", "connecting", "connected"]


async def test_connected_but_unanswered_is_not_ready() -> None:
    """A server that stops answering heartbeats, while something still comes from it, is not trusted."""
    async with World(heartbeat_interval=20.0, heartbeat_timeout=5.0) as world:
        world.server.acks_heartbeat = True
        await deaf_and_well_again(world)


async def test_websocket_whose_pings_nobody_answers_is_not_ready() -> None:
    """The same holds for a server without heartbeat events, by the pings of the websocket."""
    async with World(heartbeat_interval=20.0, heartbeat_timeout=5.0) as world:
        await deaf_and_well_again(world)


async def test_connected_to_a_server_without_heartbeats_is_ready() -> None:
    """A server that never acknowledges heartbeats, over a transport without pings, is not called deaf."""
    async with World() as world:
        world.server.acks_heartbeat = False
        world.server.can_ping = False
        await world.client.connect()
        for _ in range(20):
            await asyncio.sleep(10)
            assert world.client.health().ready


async def test_events_that_wait_behind_a_stuck_handler_are_deafness() -> None:
    """A handler that takes long is degraded; once events wait behind it, the client is not ready."""
    async with World() as world:
        release = asyncio.Event()

        @world.client.on("n")
        async def slow(_: int) -> None:
            await release.wait()

        await world.client.connect()
        world.server.emit("n", 1)
        await asyncio.sleep(29)
        assert not world.client.health().degraded
        await asyncio.sleep(2)
        health = world.client.health()
        assert (health.ready, health.degraded, health.deaf) == (True, True, False)
        world.server.emit("n", 2)
        await asyncio.sleep(1)
        health = world.client.health()
        assert (health.live, health.ready, health.deaf) == (True, False, True)
        assert "handler of 'n'" in said(health)
        assert "1 events wait" in said(health)
        release.set()
        await asyncio.sleep(1)
        assert world.client.health().summary == "ok"


async def test_handlers_that_are_behind_for_long_are_deafness() -> None:
    """Handlers that go on, but never catch up, are deafness after the patience; before, degradation."""
    async with World(max_pending_events=4) as world:

        @world.client.on("n")
        async def slow(_: int) -> None:
            await asyncio.sleep(20)

        await world.client.connect()
        began = world.now
        for n in range(12):
            world.server.emit("n", n)
        while world.now < began + 30:
            world.server.emit("n", 12)
            await asyncio.sleep(1)
            health = world.client.health()
            assert (health.ready, health.degraded) == (True, True)
            assert "The handlers are behind, one of 'n' now" in said(health)
        await asyncio.sleep(1)
        while world.now < began + 160:  # it takes one every 20 s, and more come
            health = world.client.health()
            assert (health.live, health.ready, health.deaf) == (True, False, True), world.now - began
            assert "no room for all events" in said(health)
            world.server.emit("n", 12)
            await asyncio.sleep(1)
        assert world.client.metrics.dropped["event without room"] > 100
        await asyncio.sleep(100)
        assert world.client.health().summary == "ok"
        for n in range(6):  # much later: a new story
            world.server.emit("n", n)
        await asyncio.sleep(1)
        assert (world.client.health().ready, world.client.health().degraded) == (True, True)


async def test_handler_that_holds_everything_up_for_ever_is_not_live() -> None:
    """Only when nothing has moved for ten times the patience is a restart asked for."""
    async with World(max_pending_events=4) as world:

        @world.client.on("n")
        async def stuck(_: int) -> None:
            await asyncio.Event().wait()

        await world.client.connect()
        for n in range(9):
            world.server.emit("n", n)
        await asyncio.sleep(290)
        assert world.client.health().live
        await asyncio.sleep(20)
        health = world.client.health()
        assert (health.live, health.ready) == (False, False)
        assert "held everything up" in said(health)


async def test_dispatcher_that_has_ended_is_not_live() -> None:
    """Where nobody hands events on any more, only a restart helps."""
    async with World() as world:
        await world.client.connect()
        task = world.client._dispatcher._task
        assert task is not None
        task.cancel()
        await asyncio.wait({task})
        health = world.client.health()
        assert (health.live, health.ready) == (False, False)


async def test_message_without_acknowledgement_is_degraded() -> None:
    """A message that stays unacknowledged is a reason, but data still flows."""
    async with World(ack_timeout=5.0) as world:
        await world.client.connect()
        world.server.ack_delay = 1000.0
        await world.client.emit("n", 1, delivery=Delivery.AT_LEAST_ONCE)
        await asyncio.sleep(4)
        assert world.client.health().summary == "ok"
        await asyncio.sleep(3)
        health = world.client.health()
        assert (health.ready, health.summary) == (True, "degraded")
        assert "not acknowledged a message" in said(health)


async def test_health_as_json_holds_everything_and_no_secret() -> None:
    """`to_json()` can be encoded, says the same as the record, and shows no token."""
    async with World(token=canary.token()) as world:
        await world.client.connect()
        health = world.client.health()
        told = json.loads(json.dumps(health.to_json()))
        assert told == {
            "status": "ok",
            "live": True,
            "ready": True,
            "degraded": False,
            "deaf": False,
            "connection": "connected",
            "reasons": [],
        }
        assert canary.found_in(json.dumps(told), repr(health)) == []


async def test_handlers_that_are_behind_are_not_held_against_the_server() -> None:
    """While the handlers are stuck, answers to probes are heard all the same: the server is not blamed."""
    async with World(max_pending_events=4, heartbeat_interval=5.0, heartbeat_timeout=5.0) as world:
        release = asyncio.Event()

        @world.client.on("n")
        async def slow(_: int) -> None:
            await release.wait()

        await world.client.connect()
        await asyncio.sleep(30)
        for n in range(12):
            world.server.emit("n", n)
        for _ in range(25):
            await asyncio.sleep(1)
            assert "heartbeat" not in said(world.client.health())
        release.set()
        for _ in range(100):
            await asyncio.sleep(0.1)
            assert not world.client.health().deaf
        assert world.client.health().summary == "ok"


async def test_channels_that_the_server_refuses_are_degradation() -> None:
    """A refused channel is a reason until it is given up; its name is not shown."""
    async with World(dialect="reference") as world:
        world.server.acknowledge = _refuses
        await world.client.connect()
        with pytest.raises(SubscriptionRefusedError):
            await world.client.subscribe(["patient-7"])
        health = world.client.health()
        assert (health.summary, health.ready) == ("degraded", True)
        assert "refuses 1 of the channels" in said(health)
        assert "patient-7" not in json.dumps(health.to_json())
        await world.client.unsubscribe(["patient-7"])
        assert world.client.health().summary == "ok"


def _refuses(event: str, args: list[Any]) -> list[Any]:
    if event != "subscribe":
        return [{"ok": True}]
    refused = {"ok": False, "error": {"code": "forbidden", "message": "not yours"}}
    return [{"ok": True, "channels": dict.fromkeys(args[0]["channels"], refused)}]


async def test_health_is_not_ready_while_the_outbox_keeps_nothing() -> None:
    """While the disk is full health says so, and why; it recovers by itself, though nobody emits."""
    outbox = SimulatedOutbox()
    async with World(outbox=outbox, dialect=Dialect.REFERENCE) as world:
        world.server.backend = SimulatedBackend(handlers={"n": lambda n: n})
        await world.client.connect()
        outbox.is_full = True
        with pytest.raises(OutboxStorageError):
            await world.client.emit("n", 1)
        await asyncio.sleep(60)
        health = world.client.health()
        assert (health.live, health.ready, health.deaf) == (True, False, False)
        assert "Messages are refused: The simulated disk is full" in said(health)
        outbox.is_full = False
        await asyncio.sleep(5)
        assert world.client.health() == Health(
            live=True, ready=True, degraded=False, reasons=(), status=S.CONNECTED
        )
