import asyncio
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from hostile_server import (
    PollingScript,
    Recorder,
    Server,
    event,
    eventually,
    http,
    joined,
    run,
)
from transport_scene import Backend, both, opened, payload, started

from realtime_fsm.adapters import library_check
from realtime_fsm.adapters.socketio_transport import SocketIOTransport
from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.machine.errors import (
    InternalError,
    ServerDisconnectError,
)

# On a server that behaves.


@both
async def test_open_delivers_what_was_sent_before_it_returned_afterwards_and_first(
    name: str, server: Server
) -> None:
    """What the server emits while it accepts reaches the listener after open() returned, in order."""
    async with opened(server, name, auth={"token": "t"}) as (transport, recorder):
        assert recorder.calls == []
        assert transport.name == name
        transport.send(payload("echo", 1), None)
        await recorder.until(lambda: len(recorder.events) == 2)
        assert recorder.events == [
            ("welcome", [{"auth": {"token": "t"}}], None),
            ("echoed", [1], None),
        ]


@both
@pytest.mark.parametrize("namespace", ["/", "/chat"])
async def test_send_reaches_the_server_and_its_acknowledgement_comes_back(
    name: str, namespace: str, server: Server
) -> None:
    """Events, acknowledgements and non-ASCII text travel in both directions, in any namespace."""
    async with opened(server, name, namespace=namespace) as (transport, recorder):
        transport.send(payload("echo", {"text": "žluťoučký ☃"}, 2), 41)
        await recorder.until(lambda: recorder.acks)
        assert recorder.acks == [(41, [{"text": "žluťoučký ☃"}, 2])]
        assert recorder.events[1:] == [("echoed", [{"text": "žluťoučký ☃"}, 2], None)]
        assert recorder.malformed == []


@both
@pytest.mark.parametrize("namespace", ["/", "/chat"])
async def test_send_carries_binary_parts_both_ways(name: str, namespace: str, server: Server) -> None:
    """Attachments arrive in the place of their placeholders, in events and acknowledgements."""
    first, second = bytes(range(256)), b""
    async with opened(server, name, namespace=namespace) as (transport, recorder):
        transport.send(payload("echo", {"a": first, "b": [second]}, 1), 7)
        await recorder.until(lambda: recorder.acks and len(recorder.events) == 2)
        assert recorder.acks == [(7, [{"a": first, "b": [second]}, 1])]
        assert recorder.events[1][1] == [{"a": first, "b": [second]}, 1]
        assert (transport.written, recorder.malformed) == (1, [])


@both
@pytest.mark.parametrize("answer", [{"because": 1}, b"bytes"])
async def test_answer_reaches_the_server_that_asked(
    name: str, answer: Any, server: Server, backend: Backend
) -> None:
    """An event that wants an answer says so, and the answer is what the server's call returns."""
    async with opened(server, name) as (transport, recorder):
        transport.send(payload("ask"), None)
        await recorder.until(lambda: len(recorder.events) == 2)
        (question, args, ack_id) = recorder.events[1]
        assert (question, args) == ("question", ["why"])
        assert ack_id is not None
        transport.answer(ack_id, payload(answer))
        await eventually(lambda: backend.notes == [answer])
        assert transport.written == 1  # answers do not count


@both
async def test_events_arrive_in_wire_order(name: str, server: Server) -> None:
    """Two thousand events arrive in the order in which the server emitted them."""
    async with opened(server, name) as (transport, recorder):
        transport.send(payload("burst", 2000), None)
        await recorder.until(lambda: len(recorder.events) == 2001)
        assert [args[0]["n"] for _, args, _ in recorder.events[1:]] == list(range(2000))


@both
async def test_send_keeps_order_and_loses_nothing_beyond_the_room(
    name: str, server: Server, backend: Backend
) -> None:
    """More messages than there is room for arrive whole and in order, also at a server that takes 16."""
    async with opened(server, name) as (transport, recorder):
        limit = transport.room
        for number in range(100):
            transport.send(payload("note", number, b"x" if number % 7 == 0 else "y"), None)
        assert transport.room == limit - 100
        assert transport.written == 0
        await recorder.until(lambda: transport.written == 100)
        assert transport.room == limit
        await eventually(lambda: len(backend.notes) == 100)
        assert [number for number, _ in backend.notes] == list(range(100))
        assert 0 < recorder.calls.count("written") < 30


async def test_room_is_none_while_too_much_waits(server: Server) -> None:
    """Few but large messages use the room up as well."""
    async with opened(server) as (transport, _):
        transport.send(payload("note", "x" * 1_100_000), None)
        assert transport.room == 0


@both
async def test_close_with_goodbye_tells_the_server_after_everything_else(
    name: str, server: Server, backend: Backend
) -> None:
    """The server sees a client that leaves, and has had every message that was sent before."""
    recorder = Recorder()
    async with opened(server, name, listener=recorder) as (transport, _):
        for number in range(50):
            transport.send(payload("note", number), None)
        async with asyncio.timeout(2):
            await transport.close(goodbye=True)
        assert server.client_sockets() == []
        await eventually(lambda: backend.left)
    assert backend.left == ["client disconnect"]
    assert [number for (number,) in backend.notes] == list(range(50))
    assert recorder.lost == []


@pytest.mark.parametrize(("namespace", "goodbye"), [("/", "41"), ("/chat", "41/chat,")])
def test_goodbye_is_said_to_a_server_that_goes_on_sending(namespace: str, goodbye: str) -> None:
    """Events that come while the goodbye is said do not disturb it, nor do they reach the listener."""
    heard: list[Any] = []

    async def chatter(socket: web.WebSocketResponse) -> None:
        for number in range(1000):
            await socket.send_str(event("tick", number))
            await socket.send_bytes(b"loose")
        heard.extend([(await socket.receive()).data[-3:] for _ in range(30)])
        heard.extend([(await socket.receive()).data for _ in range(2)])
        heard.append((await socket.receive()).type)

    async def main(server: Server) -> None:
        async with started(server, namespace=namespace) as (transport, recorder):
            for number in range(30):
                transport.send(payload("note", "x" * 300_000, number + 10), None)
            told = len(recorder.calls)
            async with asyncio.timeout(2):
                await transport.close(goodbye=True)
            await eventually(lambda: len(heard) == 33)
            assert heard == [
                *(f"{number + 10}]" for number in range(30)),
                goodbye,
                "1",
                aiohttp.WSMsgType.CLOSE,
            ]
            assert (len(recorder.calls), recorder.lost) == (told, [])

    with joined(chatter) as server:
        run(main(server))


@both
async def test_close_is_silent_and_may_be_repeated(name: str, server: Server) -> None:
    """After close() began the listener hears nothing, sending is a no-op, and closing again does nothing."""
    async with opened(server, name) as (transport, recorder):
        transport.send(payload("burst", 500), None)
        await recorder.until(lambda: len(recorder.events) > 1)
        closing = asyncio.create_task(transport.close(goodbye=False))
        again = asyncio.create_task(transport.close(goodbye=True))
        await asyncio.sleep(0)
        told = len(recorder.calls)
        await asyncio.gather(closing, again)
        transport.send(payload("note"), 1)
        transport.answer(1, payload())
        assert transport.ping(1) is False
        await transport.close(goodbye=True)
        assert len(recorder.calls) == told
        assert server.client_sockets() == []


async def test_close_before_open_does_nothing() -> None:
    """A transport that was never opened can be closed, and knows what it would try first."""
    transport = SocketIOTransport(RealtimeConfig(), Recorder())
    transport.send(payload("note"), None)
    assert (transport.name, transport.room, transport.written) == ("websocket", 0, 0)
    assert (transport.ping(1), transport.last_received) == (False, 0.0)
    await transport.close(goodbye=True)


async def test_ping_is_answered_over_a_websocket(server: Server) -> None:
    """A ping brings a pong, which is a sign of life; pings before it do not pile up."""
    async with opened(server) as (transport, recorder):
        before = transport.last_received
        assert transport.ping(1)
        assert transport.ping(1)
        await recorder.until(lambda: "pong" in recorder.calls)
        assert transport.last_received > before


def test_ping_of_the_server_is_answered() -> None:
    """A ping of the websocket by the server is answered, and is a sign of life."""
    heard: list[Any] = []

    async def ping(socket: web.WebSocketResponse) -> None:
        await socket.ping(b"are you there")
        heard.append(await socket._reader.read())
        await socket.send_str(event("done"))

    async def main(server: Server) -> None:
        async with started(server) as (_, recorder):
            await recorder.until(lambda: recorder.events)
            assert heard[0].type is aiohttp.WSMsgType.PONG
            assert heard[0].data == b"are you there"

    with joined(ping) as server:
        run(main(server))


async def test_ping_is_not_offered_by_polling(server: Server) -> None:
    """Polling has no ping of its own."""
    async with opened(server, "polling") as (transport, _):
        assert transport.ping(1) is False


@both
async def test_server_that_disconnects_the_client_is_a_loss(name: str, server: Server) -> None:
    """A disconnect by the server is told once, as such."""
    async with opened(server, name) as (transport, recorder):
        transport.send(payload("kick"), None)
        await recorder.until(lambda: recorder.lost)
        assert isinstance(recorder.lost[0], ServerDisconnectError)
        transport.send(payload("note"), None)
        await transport.close(goodbye=True)
        assert len(recorder.lost) == 1
        assert recorder.calls[-1] == "lost"


# Back-pressure.


@both
def test_everything_is_read_and_the_loop_goes_round(name: str) -> None:
    """However much comes, all of it is told in order, and others get their turns in between."""
    total = 3000

    async def send(socket: web.WebSocketResponse) -> None:
        for number in range(total):
            await socket.send_str(event("tick", number, "x" * 10))

    class Watchful(Recorder):
        """Notes how many events are told within one turn of the loop."""

        in_this_turn = most = 0

        def on_event(self, name: str, args: list[Any], ack_id: int | None, size: int = 0) -> None:
            super().on_event(name, args, ack_id, size)
            if not self.in_this_turn:
                asyncio.get_running_loop().call_soon(self.end_turn)
            self.in_this_turn += 1
            self.most = max(self.most, self.in_this_turn)

        def end_turn(self) -> None:
            self.in_this_turn = 0

    async def main(server: Server) -> None:
        listener = Watchful()
        async with started(server, name, listener=listener) as (_, recorder):
            await recorder.until(lambda: len(recorder.events) == total)
            assert [args[0] for _, args, _ in recorder.events] == list(range(total))
            assert "lost" not in recorder.calls
            assert listener.most <= 2 * 256, "what was held while it was opened, and a turn"

    bodies = ["\x1e".join(event("tick", n + i, "") for i in range(20)) for n in range(0, total, 20)]
    with joined(send) if name == "websocket" else http(PollingScript(*bodies)) as server:
        run(main(server))


# The libraries below.


async def test_missing_name_of_a_library_is_found_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that lacks what is used undocumented is named, before anything is opened."""
    monkeypatch.setattr(library_check, "_ENGINE_NAMES", ("queue", "gone_in_the_next_version"))
    library_check.check_libraries.cache_clear()
    with pytest.raises(InternalError, match=r"5\.\d+\.\d+ no longer offer eio\.gone_in_the_next"):
        await SocketIOTransport(RealtimeConfig(), Recorder()).open(None)
