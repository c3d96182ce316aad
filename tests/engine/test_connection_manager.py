"""The life of a connection, in virtual time against a simulated server (SPEC A3, B1, B3, C3, C4, I1)."""

import asyncio

import canary
import pytest
from world import World

from realtime_fsm import (
    Activity,
    AuthenticationError,
    ConfigurationError,
    ConnectionLostError,
    ConnectionStatus,
    ConnectTimeoutError,
    IllegalTransitionError,
    InternalError,
    NamespaceRefusedError,
    RealtimeError,
    ServerDisconnectError,
    ServerUnavailableError,
    ServerUnreachableError,
    Trigger,
)
from realtime_fsm.engine.component import Components, Stay

S = ConnectionStatus


async def test_connection_passes_through_connecting_to_connected_and_back() -> None:
    """A plain life is disconnected, connecting, connected, disconnected, each change chained to the last."""
    async with World() as world:
        assert await world.client.connect() is S.CONNECTED
        assert world.client.is_connected
        await world.client.disconnect()
        await asyncio.sleep(0)
        assert world.path == ["connecting", "connected", "disconnected"]
        for before, after in zip(world.changes, world.changes[1:], strict=False):
            assert after.previous is before.current
            assert after.epoch > before.epoch
        assert world.changes[0].attempt == world.changes[1].attempt == 1


async def test_connection_attempt_is_bounded_by_connection_timeout() -> None:
    """A server that accepts and stays silent costs exactly ``connection_timeout``."""
    async with World(connection_timeout=4.0) as world:
        world.server.is_silent = True
        began = world.now
        assert await world.client.connect() is S.RECONNECTING
        assert world.now - began == pytest.approx(4.0)
        assert isinstance(world.client.connection_status.last.error, ConnectTimeoutError)


async def test_connection_backs_off_as_specified_and_says_so() -> None:
    """The pauses are ``min(base * 2 ** n, maximum)``, announced as ``retry_in`` and kept."""
    async with World(backoff_jitter=False, max_reconnect_attempts=7, backoff_maximum=10.0) as world:
        world.server.refusal = ServerUnreachableError("refused.")
        await world.client.connect()
        await world.until(S.FAILED)
        waits = [c for c in world.changes if c.current is S.RECONNECTING]
        assert [c.retry_in for c in waits] == [1, 2, 4, 8, 10, 10, 10]
        assert [c.attempt for c in waits] == [2, 3, 4, 5, 6, 7, 8]
        dials = [c for c in world.changes if c.current is S.CONNECTING][1:]
        for wait, dial in zip(waits, dials, strict=True):
            assert dial.at - wait.at == pytest.approx(wait.retry_in)
        assert len(world.server.dials) == 8


async def test_connection_gives_up_without_a_fallback_and_tells_why() -> None:
    """When the attempts have run out and nothing can be polled, it rests in FAILED with the cause."""
    async with World(max_reconnect_attempts=2) as world:
        world.server.refusal = ServerUnreachableError("refused.")
        await world.client.connect()
        await world.until(S.FAILED)
        assert isinstance(world.client.gave_up, ServerUnreachableError)
        assert world.client.gave_up.message == "refused."
        await asyncio.sleep(100_000)
        assert world.client.status is S.FAILED
        assert len(world.server.dials) == 3


async def test_connection_retry_now_revives_it_from_failed_with_fresh_attempts() -> None:
    """``retry_now()`` in FAILED dials at once, and the attempts are counted anew."""
    async with World(max_reconnect_attempts=1) as world:
        world.server.refusal = ServerUnreachableError("refused.")
        await world.client.connect()
        await world.until(S.FAILED)
        assert world.client.retry_now()
        await world.until(S.RECONNECTING)
        await world.until(S.FAILED)
        world.server.refusal = None
        assert world.client.retry_now()
        assert await world.until(S.CONNECTED) < 1
        assert world.client.gave_up is None


async def test_connection_retry_now_ends_the_backoff() -> None:
    """``retry_now()`` while it backs off dials at once; where nothing waits it says so."""
    async with World(backoff_base=25.0) as world:
        assert not world.client.retry_now()
        world.server.refusal = ServerUnreachableError("refused.")
        await world.client.connect()
        world.server.refusal = None
        assert world.client.retry_now()
        assert await world.until(S.CONNECTED) < 1
        assert not world.client.retry_now()


async def test_connection_first_connect_is_not_retried_when_told_so() -> None:
    """With ``retry_initial=False`` a failed first connect is FAILED, and ``connect`` raises the cause."""
    async with World(retry_initial=False) as world:
        world.server.refusal = ServerUnreachableError("refused.")
        with pytest.raises(ServerUnreachableError):
            await world.client.connect()
        assert world.client.status is S.FAILED
        world.server.refusal = None
        world.client.retry_now()
        await world.until(S.CONNECTED)
        world.server.reset()
        await world.until(S.RECONNECTING)
        await world.until(S.CONNECTED)


@pytest.mark.parametrize("error", [NamespaceRefusedError("no such namespace.")])
async def test_connection_does_not_retry_what_cannot_help(error: RealtimeError) -> None:
    """An error that is not retryable leads to FAILED after one dial."""
    async with World() as world:
        world.server.refusal = error
        with pytest.raises(type(error)):
            await world.client.connect()
        assert world.path == ["connecting", "failed"]
        assert len(world.server.dials) == 1


@pytest.mark.parametrize(
    "error", [ConnectionLostError("reset."), ServerDisconnectError("kicked.")], ids=["reset", "kicked"]
)
async def test_connection_comes_back_quickly_after_a_stable_one(error: RealtimeError) -> None:
    """After the loss of a stable connection the first attempt follows within ``first_retry_within``."""
    async with World(first_retry_within=1.0) as world:
        await world.client.connect()
        await asyncio.sleep(60)
        world.server.reset(error)
        assert await world.until(S.RECONNECTING) == 0
        change = world.changes[-1]
        assert (change.error, change.attempt) == (error, 1)
        assert 0.1 <= (change.retry_in or 0) <= 1.0
        await world.until(S.CONNECTED)


async def test_connection_that_flaps_is_dialled_ever_more_slowly() -> None:
    """Attempts are counted anew only after ``stable_after``, so a server that flaps is not hammered."""
    async with World(stable_after=10.0, backoff_jitter=False, max_reconnect_attempts=5) as world:
        await world.client.connect()
        for _ in range(5):
            await asyncio.sleep(1)
            world.server.reset()
            await world.until(S.CONNECTED)
        assert [c.retry_in for c in world.changes if c.current is S.RECONNECTING] == [1, 2, 4, 8, 16]
        await asyncio.sleep(11)
        world.server.reset()
        await world.until(S.RECONNECTING)
        assert (world.changes[-1].retry_in or 99) <= 1.0


async def test_connection_obeys_retry_after_and_spreads_it() -> None:
    """A server's ``Retry-After`` is waited for, and up to a fifth more."""
    async with World() as world:
        world.server.refusal = ServerUnavailableError("503.", retry_after=50.0)
        await world.client.connect()
        assert 50.0 <= (world.changes[-1].retry_in or 0) <= 60.0


async def test_connection_falls_back_when_the_attempts_have_run_out() -> None:
    """With something to poll, FAILED leads to FALLBACK by itself, and the socket's return ends that."""
    async with World(max_reconnect_attempts=2, fallback_endpoints=["news=/news"]) as world:
        world.http.resources["/news"] = lambda _: {"n": 1}
        world.server.refusal = ServerUnreachableError("refused.")
        await world.client.connect()
        await world.until(S.FALLBACK)
        assert world.path[-2:] == ["failed", "fallback"]
        await asyncio.sleep(60)
        assert world.client.status is S.FALLBACK
        world.server.refusal = None
        assert await world.until(S.CONNECTED) <= 1.2 * world.config.reconnect_interval + 1
        polls = len(world.http.requests)
        await asyncio.sleep(300)
        assert len(world.http.requests) == polls


async def test_connection_retry_now_hurries_the_probe() -> None:
    """In FALLBACK ``retry_now()`` probes for the socket at once."""
    async with World(
        max_reconnect_attempts=0, fallback_endpoints=["news=/news"], reconnect_interval=1000.0
    ) as world:
        world.http.resources["/news"] = lambda _: 1
        world.server.refusal = ServerUnreachableError("refused.")
        await world.client.connect()
        await world.until(S.FALLBACK)
        world.server.refusal = None
        assert world.client.retry_now()
        assert await world.until(S.CONNECTED) < 1


async def test_connection_forced_fallback_does_not_probe_until_released() -> None:
    """A forced fallback stays, whatever the socket does; released, it ends by itself."""
    async with World(fallback_endpoints=["news=/news"]) as world:
        world.http.resources["/news"] = lambda _: 1
        await world.client.connect()
        assert world.client.force_fallback()
        dials = len(world.server.dials)
        await asyncio.sleep(1000)
        assert (world.client.status, len(world.server.dials)) == (S.FALLBACK, dials)
        assert world.http.requests
        assert world.client.release_fallback()
        await world.until(S.CONNECTED)
        assert not world.client.release_fallback()


async def test_connection_forcing_a_running_fallback_stops_its_probing() -> None:
    """``force_fallback`` in FALLBACK enters it anew, without probing."""
    async with World(fallback_endpoints=["news=/news"], max_reconnect_attempts=0) as world:
        world.http.resources["/news"] = lambda _: 1
        world.server.refusal = ServerUnreachableError("refused.")
        await world.client.connect()
        await world.until(S.FALLBACK)
        assert world.client.force_fallback()
        dials = len(world.server.dials)
        world.server.refusal = None
        await asyncio.sleep(1000)
        assert (world.client.status, len(world.server.dials)) == (S.FALLBACK, dials)


async def test_connection_force_fallback_is_refused_where_it_makes_no_sense() -> None:
    """Without anything to poll it is a configuration error; while disconnected it is illegal."""
    async with World() as world:
        with pytest.raises(ConfigurationError, match="fallback_endpoints"):
            world.client.force_fallback()
    async with World(fallback_endpoints=["/news"]) as world:
        with pytest.raises(IllegalTransitionError):
            world.client.force_fallback()
        assert not world.client.release_fallback()


async def test_connection_connecting_twice_shares_one_attempt() -> None:
    """A second ``connect`` waits for the same attempt."""
    async with World() as world:
        statuses = await asyncio.gather(world.client.connect(), world.client.connect())
        assert statuses == [S.CONNECTED, S.CONNECTED]
        assert len(world.server.dials) == 1


async def test_connection_cancelled_connect_leaves_nothing() -> None:
    """Cancelling the ``connect`` that began it ends the attempt."""
    async with World() as world:
        world.server.is_silent = True
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(world.client.connect(), 1.0)
        assert world.client.status is S.DISCONNECTED
        assert world.http.is_closed


async def test_connection_never_has_two_links() -> None:
    """However it flaps, there is one live link at the most, and none after the end."""
    async with World(stable_after=0.0) as world:
        await world.client.connect()
        for _ in range(50):
            world.server.reset()
            await world.until(S.CONNECTED)
        assert world.server.most_links == 1
        await world.client.disconnect()
        assert not world.server.links


async def test_connection_late_results_are_dropped_and_counted() -> None:
    """What a link says after its end changes nothing, and is counted as stale."""
    async with World() as world:
        await world.client.connect()
        old = world.server.links[0].listener
        world.server.reset()
        await world.until(S.CONNECTED)
        changes, stale = len(world.changes), world.client.metrics.stale_dropped
        got: list[int] = []
        world.client.on("late", got.append)
        old.on_event("late", [1], None)
        old.on_ack(1, [])
        old.on_lost(ConnectionLostError("again."))
        await asyncio.sleep(1)
        assert (len(world.changes), got) == (changes, [])
        assert world.client.metrics.stale_dropped == stale + 3


@pytest.mark.parametrize("status", list(S))
async def test_connection_disconnect_ends_everything_in_every_state(status: S) -> None:
    """``disconnect()`` in any state leaves no task, link or HTTP client, and is over in ``close_timeout``."""
    async with World(
        max_reconnect_attempts=1,
        enable_fallback=status is not S.FAILED,
        fallback_endpoints=["news=/news"],
    ) as world:
        world.http.resources["/news"] = lambda _: 1
        await _bring_to(world, status)
        assert world.client.status is status
        began = world.now
        await world.client.disconnect()
        assert world.now - began <= world.config.close_timeout
        assert world.client.status is S.DISCONNECTED
        assert not world.server.links


@pytest.mark.parametrize("status", list(S))
async def test_connection_cancelling_its_user_ends_everything_in_every_state(status: S) -> None:
    """A user that is cancelled inside ``async with`` leaves nothing behind, whatever the state."""
    world = World(
        max_reconnect_attempts=1,
        enable_fallback=status is not S.FAILED,
        fallback_endpoints=["news=/news"],
    )
    world.http.resources["/news"] = lambda _: 1

    async def use() -> None:
        async with world:
            await _bring_to(world, status)
            await asyncio.sleep(3600)

    task = asyncio.create_task(use())
    if status is not S.DISCONNECTED:
        await world.until(status)
    await asyncio.sleep(0.1)
    began = world.now
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.now - began <= world.config.close_timeout
    assert not world.server.links


async def _bring_to(world: World, status: ConnectionStatus) -> None:
    """Bring a client to a state, and leave it there."""
    if status is S.DISCONNECTED:
        return
    if status is S.CONNECTING:
        world.server.is_silent = True
        world.connecting = asyncio.ensure_future(world.client.connect())  # type: ignore[attr-defined]
        world.connecting.add_done_callback(lambda task: task.cancelled() or task.exception())  # type: ignore[attr-defined]
        await asyncio.sleep(1)
        return
    if status is not S.CONNECTED:
        world.server.refusal = ServerUnreachableError("refused.")
    await world.client.connect()
    await world.until(status)


async def test_connection_crashed_activity_becomes_a_trigger(monkeypatch: pytest.MonkeyPatch) -> None:
    """An activity that raises what nobody foresaw is a loss with an ``InternalError``, logged and counted."""
    async with World() as world:
        await world.client.connect()
        manager = world.client._manager
        assert manager is not None

        async def crash(parts: Components, stay: Stay) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(manager, "_activities", {**manager._activities, Activity.HEARTBEAT: crash})
        world.server.reset()
        await world.until(S.FAILED)  # it crashes on every connection, and attempts are bounded
        crash_changes = [c for c in world.changes if isinstance(c.error, InternalError)]
        assert crash_changes[0].previous is S.CONNECTED
        assert isinstance(crash_changes[0].error.__cause__, ZeroDivisionError)
        assert len(crash_changes) == world.client.metrics.activity_crashes == 10


async def test_connection_metrics_tell_its_story() -> None:
    """Connections, failures, uptime and transitions are counted as they happen (SPEC D1)."""
    async with World() as world:
        await world.client.connect()
        await asyncio.sleep(100)
        assert world.client.metrics.uptime == pytest.approx(100, abs=0.1)
        world.server.refusal = ServerUnreachableError("no luck.")
        world.server.reset()
        await world.until(S.CONNECTING)
        await world.until(S.RECONNECTING)
        world.server.refusal = None
        await world.until(S.CONNECTED)
        metrics = world.client.metrics
        assert (metrics.total_connections, metrics.failed_connections, metrics.losses) == (2, 1, 1)
        assert "no luck." in (metrics.last_failure_reason or "")
        assert metrics.transitions["connected connection_lost reconnecting"] == 1
        assert metrics.average_latency == pytest.approx(2 * world.server.latency)
        assert sum(metrics.transitions.values()) == len(world.changes)


async def test_connection_changes_are_streamed_from_the_call_to_the_disconnect() -> None:
    """``changes()`` yields every change from its call on, and ends with the disconnect."""
    async with World() as world:
        stream = world.client.changes()
        await world.client.connect()
        world.server.reset()
        await world.until(S.CONNECTED)
        await world.client.disconnect()
        seen = [change async for change in stream]
        await asyncio.sleep(0)
        assert seen == world.changes
        assert seen[-1].trigger is Trigger.DISCONNECT


async def test_connection_refused_identity_is_failed_without_fallback() -> None:
    """A refused identity is neither retried nor polled with."""
    async with World(token=canary.token("stale"), fallback_endpoints=["/news"]) as world:
        world.server.accept_tokens = {"fresh"}
        with pytest.raises(AuthenticationError):
            await world.client.connect()
        await asyncio.sleep(1000)
        assert world.path == ["connecting", "failed"]
        assert len(world.server.dials) == 1  # a fixed token cannot be renewed
        assert not world.http.requests
