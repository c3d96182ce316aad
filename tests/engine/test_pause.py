"""Pausing lets the connection go and keeps everything else; the wait for the next attempt can be read."""

import asyncio

import pytest
from world import World

from realtime_fsm import ConnectionStatus, Delivery, IllegalTransitionError

S = ConnectionStatus


async def test_pause_keeps_what_waits_and_resume_sends_it() -> None:
    """Messages in memory survive a pause, those emitted during it wait too, and all leave after it."""
    async with World() as world:
        await world.client.connect()
        world.server.ack_delay = 1000.0
        flying = await world.client.emit("n", 1, delivery=Delivery.AT_LEAST_ONCE)
        await asyncio.sleep(1)
        assert world.client.pause()
        assert world.client.status is S.DISCONNECTED
        world.server.ack_delay = 0.0
        waiting = await world.client.emit("n", 2, delivery=Delivery.AT_LEAST_ONCE)
        await asyncio.sleep(500)
        assert world.client.status is S.DISCONNECTED
        assert world.client.metrics.messages_waiting == 2
        assert await world.client.connect() is S.CONNECTED
        await asyncio.gather(flying, waiting)
        assert world.client.metrics.messages_waiting == 0


async def test_pause_ends_no_stream_and_no_wait() -> None:
    """Who reads changes or events, or waits for a status, goes on where the client resumes."""
    async with World() as world:
        await world.client.connect()
        changes, events = world.client.changes(), world.client.events("n")
        assert world.client.pause()
        waiting = asyncio.create_task(world.client.wait_for(S.CONNECTED))
        await asyncio.sleep(10)
        assert not waiting.done()
        await world.client.connect()
        assert await waiting is S.CONNECTED
        world.server.emit("n", 7)
        assert (await anext(events)).data == 7
        seen = [(await anext(changes)).current for _ in range(3)]
        assert seen == [S.DISCONNECTED, S.CONNECTING, S.CONNECTED]


@pytest.mark.parametrize("status", [S.CONNECTING, S.RECONNECTING, S.FALLBACK, S.FAILED])
async def test_pause_ends_what_runs_in_every_state(status: ConnectionStatus) -> None:
    """From whatever state, nothing is dialled or polled any more, and `connect()` leads back."""
    async with World(
        max_reconnect_attempts=0 if status is S.FAILED else 5,
        enable_fallback=False,
        fallback_endpoints=["/api/a"],
        fallback_polling_interval=10.0,
    ) as world:
        await world.client.connect()
        if status is S.FALLBACK:
            world.client.force_fallback()
        else:
            world.server.is_silent = True
            world.server.reset()
            await world.until(status)
        assert world.client.pause()
        await asyncio.sleep(1)
        dials, polls = world.client.metrics.attempts, world.client.metrics.polls
        await asyncio.sleep(1000)
        assert (world.client.metrics.attempts, world.client.metrics.polls) == (dials, polls)
        assert world.client.next_attempt_in is None
        world.server.is_silent = False
        assert await world.client.connect() is S.CONNECTED


async def test_pause_of_what_is_not_connected_changes_nothing() -> None:
    """Before `connect()`, twice, and after `disconnect()` there is nothing to pause."""
    async with World(fallback_endpoints=["/api/a"]) as world:
        assert not world.client.pause()
        await world.client.connect()
        assert world.client.pause()
        assert not world.client.pause()
        with pytest.raises(IllegalTransitionError):
            world.client.force_fallback()
        await world.client.disconnect()
        assert not world.client.pause()


async def test_next_attempt_counts_down_to_the_attempt() -> None:
    """What is left of the backoff falls with the clock from the time that the change announced."""
    async with World(enable_fallback=False, backoff_base=20.0) as world:
        assert world.client.next_attempt_in is None
        await world.client.connect()
        assert world.client.next_attempt_in is None
        world.server.is_silent = True
        world.server.reset()
        await world.until(S.RECONNECTING)
        await world.until(S.CONNECTING)
        await world.until(S.RECONNECTING)
        announced = world.changes[-1].retry_in
        assert announced is not None
        assert world.client.next_attempt_in == pytest.approx(announced)
        await asyncio.sleep(announced / 2)
        assert world.client.next_attempt_in == pytest.approx(announced / 2)
        assert world.client.retry_now()
        await world.until(S.CONNECTING)
        assert world.client.next_attempt_in is None


async def test_next_attempt_in_fallback_is_the_next_probe() -> None:
    """While it polls, the next look for the socket is told; while the fallback is forced, there is none."""
    async with World(fallback_endpoints=["/api/a"], reconnect_interval=50.0) as world:
        await world.client.connect()
        world.client.force_fallback()
        await asyncio.sleep(1)
        assert world.client.next_attempt_in is None
        world.server.is_silent = True
        world.client.release_fallback()
        await asyncio.sleep(1)
        first = world.client.next_attempt_in
        assert first is not None
        assert 0.0 < first <= 60.0
        await asyncio.sleep(5)
        assert world.client.next_attempt_in == pytest.approx(first - 5)
