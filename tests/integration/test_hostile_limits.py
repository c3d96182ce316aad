"""What a table of hostile peers does not tell: limits on the way out, late acknowledgements, known faults."""

import asyncio
import contextlib

import pytest
from hostile_client import BOTH, WEBSOCKET, Client, fallback_client
from hostile_peer import EVENTS, FallbackPeer, Peer, Session, silent, stream_of
from hostile_server import BOUND, eventually
from hostility import hangs_up, says

from realtime_fsm import ConnectionStatus, Delivery, DeliveryError, InvalidArgumentError, RealtimeError

S = ConnectionStatus


@pytest.mark.parametrize("over", BOTH)
async def test_message_larger_than_the_limit_is_refused_before_it_is_accepted(over: str) -> None:
    """A message above ``max_message_bytes`` is an error of ``emit``; nothing is accepted, sent or lost."""
    peer = Peer()
    with peer.serving() as server:
        async with Client(server.url, transports=(over,), max_message_bytes=1000) as client:
            for data in ("x" * 1000, b"x" * 1000, "\N{SNOWMAN}" * 350):
                with pytest.raises(InvalidArgumentError, match="max_message_bytes=1000") as caught:
                    await client.emit("large", data)
                assert caught.value.remedy
            await (await client.emit("small", "x"))
            assert peer.received == [(1, "small")]
            assert client.metrics.messages_accepted == 1
            assert client.issues == []


@pytest.mark.parametrize("over", BOTH)
async def test_late_ack_of_an_earlier_connection_settles_no_other_message(over: str) -> None:
    """The number of an acknowledgement is never given twice, so a late one is dropped and counted."""

    async def act(session: Session) -> None:
        if session.number == 1:
            await session.send("1")
            await asyncio.sleep(BOUND)  # cancelled, or too late: the first session never acknowledges
        for ack_id in range(int(peer.ack_ids[0]), int(peer.ack_ids[-1])):
            await session.send(f'43{ack_id}["late"]')

    peer = Peer(act=act, times=2)
    with peer.serving() as server:
        async with Client(server.url, transports=(over,)) as client:
            with pytest.raises(DeliveryError):
                await client.call("old", delivery=Delivery.AT_MOST_ONCE)
            await client.wait_for(timeout=20)
            assert await client.call("new") is None
            assert client.metrics.dropped == {"unknown acknowledgement": 1}
            assert [name for _, name in peer.received] == ["old", "new"]


async def test_same_ack_twice_settles_one_message() -> None:
    """A second acknowledgement of the same message is dropped and counted."""

    async def act(session: Session) -> None:
        await session.send(*[f'43{peer.ack_ids[0]}["twice"]'] * 3)

    peer = Peer(act=act)
    with peer.serving() as server:
        async with Client(server.url, transports=WEBSOCKET) as client:
            assert [await client.call("first"), await client.call("second")] == ["twice", None]
            assert client.metrics.dropped == {"unknown acknowledgement": 3}  # the right one is the fourth


async def test_message_that_the_server_never_takes_does_not_hold_up_the_others() -> None:
    """A message for which the server breaks the connection every time is given up in the end."""
    peer = Peer(act=hangs_up(1009), times=1000, only_at="poison")
    with peer.serving() as server:
        client = Client(server.url, transports=WEBSOCKET, max_in_flight=1, max_reconnect_attempts=1000)
        await client.connect()
        await client.emit("poison", 1)
        behind = await client.emit("behind", 2)
        try:
            async with asyncio.timeout(15.0):
                await behind
        finally:
            await client.disconnect(drain=False)


async def test_server_that_always_has_more_is_not_asked_without_a_pause() -> None:
    """A server that answers ``more`` with what was there before is not asked in a tight loop."""
    peer = FallbackPeer(EVENTS, says(stream_of(3, more=True)), times=1_000_000)
    with peer.serving() as server:
        client = fallback_client(server.url, fallback_polling_interval=1000.0)
        await client.subscribe(["ticks"])
        await client.connect()
        await client.wait_for(S.FALLBACK, timeout=20)
        await asyncio.sleep(0.3)
        await client.disconnect(drain=False)
        assert peer.requests.count(EVENTS) < 10


async def test_channel_that_may_not_be_polled_is_reported() -> None:
    """A channel that the server refuses to let be polled is an issue, with its reason."""
    refusal = {"ok": False, "error": {"code": "forbidden", "message": "not yours"}}
    peer = FallbackPeer(EVENTS, says({"channels": {"ticks": refusal}}), times=1_000_000)
    with peer.serving() as server:
        client = fallback_client(server.url)
        await client.subscribe(["ticks"])
        await client.connect()
        await client.wait_for(S.FALLBACK, timeout=20)
        await eventually(lambda: peer.requests.count(EVENTS) > 1)
        await client.disconnect(drain=False)
        assert any("not yours" in issue.message for issue in client.issues)


@pytest.mark.parametrize("over", BOTH)
async def test_disconnect_in_the_middle_of_a_dial_leaves_nothing(over: str) -> None:
    """When ``disconnect()`` returns, no task of the client is left, though the server never answered."""
    peer = Peer(at_dial=silent, times=1000)
    with peer.serving() as server:
        client = Client(server.url, transports=(over,), connection_timeout=60.0)
        connecting = asyncio.create_task(client.connect())
        await eventually(lambda: peer.dials)
        await client.disconnect()
        left = [task.get_name() for task in asyncio.all_tasks() - {asyncio.current_task(), connecting}]
        with contextlib.suppress(RealtimeError):
            await connecting
        assert left == []
