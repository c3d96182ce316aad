import asyncio
import contextlib
import socket as sockets
import time
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from engineio import base_client
from hostile_server import (
    CONNECT,
    OPEN,
    PollingScript,
    Recorder,
    Server,
    event,
    eventually,
    http,
    joined,
    run,
)
from transport_scene import both, failure, opened, payload, says_nothing, started

from realtime_fsm.adapters.socketio_transport import SocketIOTransport
from realtime_fsm.adapters.tap import FrameTap
from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.machine.errors import (
    AuthenticationError,
    ConnectionLostError,
    HeartbeatTimeoutError,
    MalformedFrameError,
    PayloadTooLargeError,
    ServerDisconnectError,
    ServerUnavailableError,
)

# Endings of an open connection.


async def _reset(socket: web.WebSocketResponse) -> None:
    raw = socket.get_extra_info("socket")
    raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    socket._req.transport.abort()


async def _vanish(socket: web.WebSocketResponse) -> None:
    socket._req.transport.close()


async def _close_engine(socket: web.WebSocketResponse) -> None:
    await socket.send_str("1")


async def _close_going_away(socket: web.WebSocketResponse) -> None:
    await socket.close(code=1001, message=b"restart")


async def _refuse_late(socket: web.WebSocketResponse) -> None:
    await socket.send_str('44{"message":"token expired"}')


async def _send_broken_websocket_frame(socket: web.WebSocketResponse) -> None:
    socket._req.transport.write(b"\xff\xff\xff\xff")


async def _send_too_much(socket: web.WebSocketResponse) -> None:
    await socket.send_str(event("tick", "x" * 2000))


async def _announce_many_attachments(socket: web.WebSocketResponse) -> None:
    await socket.send_str('459999999999-["tick"]')


async def _send_text_for_attachment(socket: web.WebSocketResponse) -> None:
    await socket.send_str('451-["tick",{"_placeholder":true,"num":0}]')
    await socket.send_str(event("tick", 1))


@pytest.mark.parametrize(
    ("script", "kind", "words"),
    [
        (_reset, ConnectionLostError, ""),
        (_vanish, ConnectionLostError, "without a goodbye"),
        (_close_engine, ServerDisconnectError, "session"),
        (_close_going_away, ServerDisconnectError, "1001: restart"),
        (_refuse_late, AuthenticationError, "token expired"),
        (_send_broken_websocket_frame, MalformedFrameError, "1002"),
        (_send_too_much, PayloadTooLargeError, "max_inbound_bytes=1000"),
        (_announce_many_attachments, MalformedFrameError, "more than 10"),
        (_send_text_for_attachment, MalformedFrameError, "attachments were due"),
    ],
)
def test_every_end_of_a_websocket_is_told_once(script: Any, kind: type, words: str) -> None:
    """Whatever ends the connection is told once, as what it is, and closing afterwards leaves nothing."""

    async def main(server: Server) -> None:
        async with started(server, max_inbound_bytes=1000) as (transport, recorder):
            await recorder.until(lambda: recorder.lost)
            assert type(recorder.lost[0]) is kind
            assert words in str(recorder.lost[0])
            transport.send(payload("note"), None)
            async with asyncio.timeout(4):
                await transport.close(goodbye=True)
            assert recorder.calls == ["written", "lost"]
            assert server.client_sockets() == []

    with joined(script) as server:
        run(main(server))


async def _cut_body(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b"42[")
    request.transport.close()
    return response


async def _endless_body(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b"x" * 65536)


async def _forgotten(_: web.Request) -> web.StreamResponse:
    return web.json_response({"code": 1, "message": "Session ID unknown"}, status=400)


async def _expired(_: web.Request) -> web.StreamResponse:
    return web.Response(status=401)


async def _overloaded(_: web.Request) -> web.StreamResponse:
    return web.Response(status=503, headers={"Retry-After": "9"})


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (_cut_body, ConnectionLostError),
        (_endless_body, PayloadTooLargeError),
        (_forgotten, ConnectionLostError),
        (_expired, AuthenticationError),
        (_overloaded, ServerUnavailableError),
        ("1", ServerDisconnectError),
        ("41", ServerDisconnectError),
        ('44{"message":"token expired"}', AuthenticationError),
        ("4511-[]", MalformedFrameError),
    ],
)
def test_every_end_of_a_polling_session_is_told_once(body: Any, kind: type) -> None:
    """Whatever ends the connection is told once, as what it is; an endless body is not read to its end."""

    async def main(server: Server) -> None:
        async with started(server, "polling") as (transport, recorder):
            await recorder.until(lambda: recorder.lost)
            assert type(recorder.lost[0]) is kind
            async with asyncio.timeout(4):
                await transport.close(goodbye=True)
            assert recorder.calls == ["written", "lost"]
            assert server.client_sockets() == []

    with http(PollingScript(body)) as server:
        run(main(server))


def test_refused_post_is_a_loss() -> None:
    """A message that the server refuses to take ends a polling session."""

    async def refuse(request: web.Request) -> web.StreamResponse:
        if request.method == "POST" and script.posted:
            return web.Response(status=413)
        return await script(request)

    async def main(server: Server) -> None:
        async with opened(server, "polling") as (transport, recorder):
            await eventually(lambda: script.posted)
            transport.send(payload("note"), None)
            await recorder.until(lambda: recorder.lost)
            assert type(recorder.lost[0]) is ConnectionLostError
            assert transport.written == 0

    script = PollingScript()
    with http(refuse) as server:
        run(main(server))


def test_server_that_stops_pinging_is_a_loss() -> None:
    """Silence beyond what the server announced is told as such."""

    async def main(server: Server) -> None:
        async with started(server) as (_, recorder):
            await recorder.until(lambda: recorder.lost)
            assert type(recorder.lost[0]) is HeartbeatTimeoutError

    with joined(
        says_nothing, at_once=True, opening=OPEN.replace("25000", "40").replace("20000", "40")
    ) as server:
        run(main(server))


async def test_flood_of_pings_whose_answers_are_not_read_is_a_loss() -> None:
    """A server that pings on and on without reading the pongs does not fill the memory with them."""
    waiting = 0
    recorder = Recorder()
    tap = FrameTap(recorder, "/", asyncio.get_running_loop(), lambda: waiting)
    for text in (OPEN, CONNECT):
        assert not tap.take_text(text)
    tap.go_live()
    while not tap.take_text("2"):
        waiting += 1
    assert waiting < 100
    assert [type(error) for error in recorder.lost] == [MalformedFrameError]


# Peers that do not read, and cancellation.


def stalled(name: str) -> contextlib.AbstractContextManager[Server]:
    """Serve a session whose peer reads nothing any more once the client is in."""

    async def stall(socket: web.WebSocketResponse) -> None:
        socket._req.transport.pause_reading()
        await asyncio.sleep(10)

    script = PollingScript()

    async def poll(request: web.Request) -> web.StreamResponse:
        if request.method == "POST" and request.content_length and request.content_length > 10_000:
            request.transport.pause_reading()
            await asyncio.sleep(10)
        return await script(request)

    return joined(stall, at_once=True) if name == "websocket" else http(poll)


@pytest.mark.parametrize(
    ("name", "goodbye", "connector_factory"),
    [
        ("websocket", True, None),
        ("websocket", False, None),
        ("websocket", False, aiohttp.TCPConnector),
        ("polling", True, None),
        ("polling", False, None),
    ],
)
def test_close_does_not_wait_for_a_peer_that_does_not_read(
    name: str, goodbye: bool, connector_factory: Any
) -> None:
    """With megabytes written against a stalled peer, close() takes no longer than its caller allows."""

    async def main(server: Server) -> None:
        async with opened(server, name, connector_factory=connector_factory) as (transport, recorder):
            for _ in range(8):
                transport.send(payload("note", "x" * 1_900_000), None)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await recorder.until(lambda: transport.written == 8)
            started = time.monotonic()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    await transport.close(goodbye=goodbye)
            assert time.monotonic() - started < 5
            assert server.client_sockets() == []
            assert recorder.lost == []

    with stalled(name) as server:
        run(main(server))


@both
async def test_open_may_be_cancelled_at_any_point(name: str, server: Server) -> None:
    """However far an attempt has come, cancelling and closing it leaves no task, socket or registration."""
    outcomes = set()
    for turns in range(0, 60, 2):
        transport = SocketIOTransport(RealtimeConfig(server_url=server.url, transports=(name,)), Recorder())
        opening = asyncio.create_task(transport.open(None))
        for _ in range(turns):
            await asyncio.sleep(0.0004 if turns > 20 else 0)
        if turns == 58:
            await asyncio.wait({opening}, timeout=20)
        opening.cancel()
        done, _ = await asyncio.wait({opening}, timeout=20)
        assert done
        outcomes.add(opening.cancelled())
        await transport.close(goodbye=turns % 4 == 0)
        assert server.client_sockets() == []
        assert base_client.connected_clients == []
        assert asyncio.all_tasks() == {asyncio.current_task()}
    assert outcomes == {True, False}


@both
def test_close_may_be_cancelled(name: str) -> None:
    """A goodbye that is cancelled still releases everything before the cancellation is passed on."""

    async def main(server: Server) -> None:
        async with opened(server, name) as (transport, _):
            transport.send(payload("note", "x" * 8_000_000), None)
            closing = asyncio.create_task(transport.close(goodbye=True))
            await asyncio.sleep(0.05)
            closing.cancel()
            await asyncio.wait({closing}, timeout=20)
            assert closing.cancelled()
            assert server.client_sockets() == []
            assert asyncio.all_tasks() == {asyncio.current_task()}

    with stalled(name) as server:
        run(main(server))


def test_attempts_leave_no_file_open(server: Server) -> None:
    """A hundred failed and successful attempts leave no socket, session or registration."""

    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=404)

    async def main(other: Server) -> None:
        for number in range(100):
            name = ("websocket", "polling")[number % 2]
            if number % 4 < 2:
                await failure(other.url, name)
            else:
                async with opened(server, name) as (transport, _):
                    await transport.close(goodbye=number % 8 < 4)
        assert other.client_sockets() == []
        assert server.client_sockets() == []

    with http(refuse) as other:
        run(main(other))


@both
async def test_close_copes_with_a_library_that_fails(
    name: str, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """Where python-socketio's own clean-up fails, close() still releases everything, and logs the failure."""

    async def fail(*, abort: bool) -> None:
        raise TypeError(f"abort={abort}")

    async with opened(server, name) as (transport, _):
        transport._connection._client.eio.disconnect = fail
        await transport.close(goodbye=False)
        assert server.client_sockets() == []
        assert base_client.connected_clients == []
        assert asyncio.all_tasks() == {asyncio.current_task()}
    assert "abort=True" in caplog.text
