"""The health of a client: live, ready, degraded, and why; connected but deaf is not ready."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import canary
import pytest
from world import World

from realtime_fsm import ConnectionStatus, Delivery, Health
from realtime_fsm.testing.simulated_http import SimulatedHttp

Run = Callable[[Coroutine[Any, Any, None]], None]
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


def test_health_follows_the_connection(run_virtual: Run) -> None:
    """Connected is perfect; without a connection it is not ready, with the state and its cause."""

    async def main() -> None:
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

    run_virtual(main())


def test_health_in_fallback_is_ready_and_degraded_while_polls_succeed(run_virtual: Run) -> None:
    """Data that comes by polling makes ready; when every poll fails, it is deaf until one succeeds."""

    async def main() -> None:
        async with World(fallback_endpoints=["/api/a"], fallback_polling_interval=10.0) as world:
            await world.client.connect()
            assert world.client.force_fallback()
            await asyncio.sleep(30)
            health = world.client.health()
            assert (health.ready, health.degraded, health.deaf) == (True, True, False)
            assert health.summary == "degraded"
            world.http.is_down = True
            await asyncio.sleep(30)
            health = world.client.health()
            assert (health.live, health.ready, health.deaf) == (True, False, True)
            assert "poll" in said(health)
            world.http.is_down = False
            await asyncio.sleep(400)
            assert world.client.health().ready

    run_virtual(main())


def test_connected_but_unanswered_is_not_ready(run_virtual: Run) -> None:
    """A server that stops answering heartbeats, while something still comes from it, is deaf."""

    async def main() -> None:
        async with World(heartbeat_interval=20.0, heartbeat_timeout=5.0) as world:
            await world.client.connect()
            await asyncio.sleep(21)
            assert world.client.health().ready
            world.server.acks_heartbeat = False
            deaf_at = None
            for second in range(40):
                await asyncio.sleep(1)
                if world.client.metrics.last_latency is not None and second % 5 == 4:
                    world.server.emit("noise")
                if world.client.health().deaf:
                    deaf_at = world.now
                    break
            assert deaf_at is not None
            health = world.client.health()
            assert (health.status, health.live, health.ready) == (S.CONNECTED, True, False)
            assert "has not answered a heartbeat" in said(health)

    run_virtual(main())


def test_connected_to_a_server_without_heartbeats_is_ready(run_virtual: Run) -> None:
    """A server that never acknowledges heartbeats, over a transport without pings, is not called deaf."""

    async def main() -> None:
        async with World() as world:
            world.server.acks_heartbeat = False
            world.server.can_ping = False
            await world.client.connect()
            for _ in range(20):
                await asyncio.sleep(10)
                assert world.client.health().ready

    run_virtual(main())


def test_events_that_wait_behind_a_stuck_handler_are_deafness(run_virtual: Run) -> None:
    """A handler that takes long is degraded; once events wait behind it, the client is not ready."""

    async def main() -> None:
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

    run_virtual(main())


def test_reading_that_is_held_back_for_long_is_deafness(run_virtual: Run) -> None:
    """Handlers that go on, but never catch up, are deafness after the patience; before, degradation."""

    async def main() -> None:
        async with World(max_pending_events=4) as world:

            @world.client.on("n")
            async def slow(_: int) -> None:
                await asyncio.sleep(20)

            await world.client.connect()
            for n in range(12):
                world.server.emit("n", n)
            await asyncio.sleep(10)
            dispatcher = world.client._dispatcher
            assert dispatcher.is_congested
            waiting = asyncio.create_task(dispatcher.relieved())
            await asyncio.sleep(1)
            health = world.client.health()
            assert (health.ready, health.degraded) == (True, True)
            await asyncio.sleep(35)
            health = world.client.health()
            assert (health.live, health.ready, health.deaf) == (True, False, True)
            assert "held back" in said(health)
            await asyncio.sleep(300)
            assert waiting.done()
            assert world.client.health().summary == "ok"

    run_virtual(main())


def test_handler_that_holds_everything_up_for_ever_is_not_live(run_virtual: Run) -> None:
    """Only when nothing has moved for ten times the patience is a restart asked for."""

    async def main() -> None:
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

    run_virtual(main())


def test_dispatcher_that_has_ended_is_not_live(run_virtual: Run) -> None:
    """Where nobody hands events on any more, only a restart helps."""

    async def main() -> None:
        async with World() as world:
            await world.client.connect()
            task = world.client._dispatcher._task
            assert task is not None
            task.cancel()
            await asyncio.wait({task})
            health = world.client.health()
            assert (health.live, health.ready) == (False, False)

    run_virtual(main())


def test_message_without_acknowledgement_is_degraded(run_virtual: Run) -> None:
    """A message that stays unacknowledged is a reason, but data still flows."""

    async def main() -> None:
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

    run_virtual(main())


@pytest.mark.parametrize("http", [SimulatedHttp])
def test_health_as_json_holds_everything_and_no_secret(run_virtual: Run, http: object) -> None:
    """`to_json()` can be encoded, says the same as the record, and shows no token."""

    async def main() -> None:
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

    run_virtual(main())
