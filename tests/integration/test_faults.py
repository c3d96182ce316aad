"""Real faults on real sockets: each is overcome, and nothing that was promised is lost (SPEC H2, H4)."""

import asyncio
import signal
from pathlib import Path

import pytest
from scene import SOON, scene

from realtime_fsm import ConnectionStatus, Delivery, HeartbeatTimeoutError, ServerDisconnectError

S = ConnectionStatus
BUSY = 5.0
"""Seconds by which a busy machine may be late; exact times are asserted in virtual time."""


def without_gap(events: list[int]) -> bool:
    """Tell whether numbers follow one another, each once."""
    return events == list(range(events[0], events[0] + len(events)))


async def test_fault_reset_is_overcome_without_loss(tmp_path: Path) -> None:
    """After a TCP reset the client is back; messages arrive in order, events without gap or repeat."""
    async with scene(tmp_path) as stage:
        first = await stage.emit(50)
        stage.proxy.reset_peer()
        await stage.until(S.RECONNECTING)
        await stage.until(S.CONNECTED)
        await asyncio.gather(*first, *await stage.emit(50))
        await stage.hush()
        assert list(dict.fromkeys(stage.received())) == list(range(1, 101))
        assert without_gap(stage.events)


async def test_fault_black_hole_is_noticed_in_time_and_overcome(tmp_path: Path) -> None:
    """A link on which nothing is closed and nothing forwarded is lost in time, and nothing with it."""
    async with scene(tmp_path) as stage:
        loop = asyncio.get_running_loop()
        stage.proxy.black_hole(True)
        began = loop.time()
        held = await stage.emit(10)
        await stage.until(S.RECONNECTING)
        config = stage.client.config
        assert loop.time() - began <= config.heartbeat_interval + config.heartbeat_timeout + BUSY
        assert isinstance(stage.changes[-1].error, HeartbeatTimeoutError)
        stage.proxy.black_hole(False)
        await stage.until(S.CONNECTED)
        await asyncio.gather(*held)
        await stage.hush()
        assert list(dict.fromkeys(stage.received())) == list(range(1, 11))
        assert without_gap(stage.events)


async def test_fault_killed_server_is_found_again_when_it_is_back(tmp_path: Path) -> None:
    """A server that is killed and started anew gets every message, and its events flow again."""
    async with scene(tmp_path, max_reconnect_attempts=100) as stage:
        receipts = await stage.emit(20)
        await stage.backend.end(signal.SIGKILL)
        await stage.until(S.RECONNECTING)
        receipts += await stage.emit(20)
        await stage.backend.start()
        stage.proxy.set_target("127.0.0.1", stage.backend.port)
        await stage.until(S.CONNECTED)
        await asyncio.gather(*receipts)
        await stage.until_flowing()
        assert set(stage.received()) == set(range(1, 41))
        assert stage.events == sorted(set(stage.events))


async def test_fault_stopped_server_with_a_stalled_writer_is_noticed(tmp_path: Path) -> None:
    """A server that hangs (SIGSTOP) while much is being written to it is lost in time all the same."""
    async with scene(tmp_path, max_reconnect_attempts=100) as stage:
        loop = asyncio.get_running_loop()
        stage.backend.send(signal.SIGSTOP)
        try:
            began = loop.time()
            for _ in range(40):
                await stage.client.emit("bulk", "x" * 500_000)
            await stage.until(S.RECONNECTING)
            assert loop.time() - began <= 2.0 + BUSY
            assert isinstance(stage.changes[-1].error, HeartbeatTimeoutError)
        finally:
            stage.backend.send(signal.SIGCONT)
        await stage.until(S.CONNECTED)
        await stage.until_flowing()


async def test_fault_stopped_server_takes_exactly_once_messages_once(tmp_path: Path) -> None:
    """Over a server that hangs, messages take effect once and in order; events have no gap and no repeat."""
    async with scene(tmp_path, max_reconnect_attempts=100) as stage:
        receipts = await stage.emit(20, Delivery.EXACTLY_ONCE)
        stage.backend.send(signal.SIGSTOP)
        try:
            # The kernel takes these for the server, which reads them when it goes on, with the repeats.
            receipts += await stage.emit(20, Delivery.EXACTLY_ONCE)
            await stage.until(S.RECONNECTING)
            assert isinstance(stage.changes[-1].error, HeartbeatTimeoutError)
            receipts += await stage.emit(20, Delivery.EXACTLY_ONCE)
        finally:
            stage.backend.send(signal.SIGCONT)
        await stage.until(S.CONNECTED)
        assert await asyncio.wait_for(asyncio.gather(*receipts), SOON) == list(range(1, 61))
        await stage.until_flowing()
        await stage.hush()
        assert stage.received() == list(range(1, 61))
        assert without_gap(stage.events)


async def test_fault_stopped_for_less_than_the_heartbeat_is_no_loss(tmp_path: Path) -> None:
    """A server that hangs for less than the heartbeat allows is waited for: no loss, and all arrives."""
    async with scene(tmp_path, heartbeat_interval=10.0, heartbeat_timeout=10.0) as stage:
        stage.backend.send(signal.SIGSTOP)
        try:
            receipts = await stage.emit(20, Delivery.EXACTLY_ONCE)
        finally:
            stage.backend.send(signal.SIGCONT)
        assert await asyncio.wait_for(asyncio.gather(*receipts), SOON) == list(range(1, 21))
        await stage.hush()
        assert stage.received() == list(range(1, 21))
        assert without_gap(stage.events)
        assert stage.client.metrics.losses == 0


@pytest.mark.parametrize("kills", [1, 3])
async def test_fault_killed_server_takes_exactly_once_messages_once(tmp_path: Path, kills: int) -> None:
    """However often the server is killed, messages take effect once and in order; no event is repeated."""
    async with scene(tmp_path, max_reconnect_attempts=100) as stage:
        receipts = []
        for _ in range(kills):
            receipts += await stage.emit(20, Delivery.EXACTLY_ONCE)
            await stage.backend.end(signal.SIGKILL)  # some have been handled, and not acknowledged
            await stage.until(S.RECONNECTING)
            receipts += await stage.emit(20, Delivery.EXACTLY_ONCE)
            await stage.backend.start()
            stage.proxy.set_target("127.0.0.1", stage.backend.port)
            await stage.until(S.CONNECTED)
        count = 40 * kills
        assert await asyncio.wait_for(asyncio.gather(*receipts), SOON) == list(range(1, count + 1))
        await stage.until_flowing()
        await stage.hush()
        assert stage.received() == list(range(1, count + 1))
        assert stage.events == sorted(set(stage.events))
        assert set(stage.events) <= set(stage.published())


async def test_fault_expired_token_is_replaced_without_loss(tmp_path: Path) -> None:
    """A session that the server ends with its token comes back with a fresh one, and misses nothing."""
    async with scene(tmp_path) as stage:
        stage.token_life = 2.0
        stage.proxy.reset_peer()  # so that the next token is a short one
        stage.client._parts.tokens.forget()
        await stage.until(S.RECONNECTING)
        await stage.until(S.CONNECTED)
        stage.is_source_down = True
        await stage.until(S.RECONNECTING)
        assert isinstance(stage.changes[-1].error, ServerDisconnectError)
        stage.is_source_down = False
        stage.token_life = 60.0
        receipts = await stage.emit(5)
        await stage.until(S.CONNECTED)
        await asyncio.gather(*receipts)
        await stage.hush()
        assert without_gap(stage.events)


async def test_fault_token_is_renewed_on_the_live_connection(tmp_path: Path) -> None:
    """Short-lived tokens are renewed in time, so that the connection outlives many of them."""
    async with scene(tmp_path, heartbeat_interval=10.0, heartbeat_timeout=10.0) as stage:
        stage.token_life = 2.0
        stage.client._parts.tokens.forget()
        stage.proxy.reset_peer()
        await stage.until(S.RECONNECTING)
        await stage.until(S.CONNECTED)
        fetched = stage.client.metrics.token_refreshes
        connections = stage.client.metrics.total_connections
        await stage.until_true(lambda: stage.client.metrics.token_refreshes >= fetched + 3)
        assert stage.client.metrics.total_connections == connections


async def test_fault_blocked_socket_leads_to_fallback_and_back_without_loss(tmp_path: Path) -> None:
    """With the socket blocked, messages and events go over HTTP; back on the socket nothing is missing."""
    async with scene(tmp_path) as stage:
        receipts = await stage.emit(20)
        stage.proxy.block("/socket.io")
        await stage.until(S.FALLBACK)
        await stage.until_flowing()
        receipts += await stage.emit(20)
        await asyncio.wait_for(asyncio.gather(*receipts), SOON)
        assert stage.client.status is S.FALLBACK
        assert stage.client.metrics.messages_published >= 20
        stage.proxy.block(None)
        await stage.until(S.CONNECTED)
        await stage.until_flowing()
        await stage.hush()
        assert list(dict.fromkeys(stage.received())) == list(range(1, 41))
        assert without_gap(stage.events)
        path = [str(change.current) for change in stage.changes]
        assert path.index("failed") + 1 == path.index("fallback")


async def test_fault_clean_disconnect_delivers_what_was_accepted(tmp_path: Path) -> None:
    """``emit`` directly followed by ``disconnect`` loses nothing, in hundreds of messages."""
    async with scene(tmp_path) as stage:
        await stage.emit(300)
        assert await stage.client.disconnect() == ()
        await stage.until_true(lambda: len(stage.received()) >= 300)
        assert stage.received() == list(range(1, 301))


async def test_fault_black_hole_does_not_hold_a_disconnect(tmp_path: Path) -> None:
    """``disconnect()`` on a dead link ends within ``close_timeout``, and returns what was not delivered."""
    async with scene(tmp_path, close_timeout=1.0, heartbeat_interval=30.0) as stage:
        stage.proxy.black_hole(True)
        receipts = await stage.emit(10)
        loop = asyncio.get_running_loop()
        began = loop.time()
        left = await stage.client.disconnect()
        assert loop.time() - began <= 1.0 + BUSY
        assert list(left) == receipts
