"""What python-socketio and aiohttp themselves do under faults, pinned: an upgrade that changes it is seen.

Ours does otherwise, which other tests hold: see ``tests/known_faults.py``. Where one of these fails after an
upgrade, the guard in our engine may have become superfluous; nothing of ours is broken by it.
"""

import asyncio
import inspect
import logging
import signal
from collections.abc import Callable
from typing import Any

import engineio
import pytest
import socketio
from aiohttp import web
from upstream_world import (
    OPEN,
    URL,
    connect,
    fake_server,
    for_ever,
    http_session,
    join,
    raw_client,
    real_server,
    watched,
)


def test_p1_no_disconnect_is_reported_behind_a_stalled_writer() -> None:
    """P1: once writes have backed up against a stalled peer, the client stays connected for ever."""

    async def main() -> tuple[bool, list[Any]]:
        network, _ = await real_server(ping_interval=5, ping_timeout=5)
        client, told = raw_client(network), []
        client.on("disconnect", told.append)
        await connect(client)
        network.black_hole(enabled=True)
        for _ in range(100):
            await client.emit("x", "x" * 65_536)
        await asyncio.sleep(3000)
        return client.connected, told

    assert watched(main()) == (True, [])


def test_p2_connect_never_returns_without_an_open_packet() -> None:
    """P2: ``wait_timeout`` does not bound a server that accepts the websocket and says nothing."""

    async def main() -> bool:
        network = await fake_server(for_ever)
        dial = asyncio.ensure_future(connect(raw_client(network)))
        await asyncio.sleep(4000)
        return dial.done()

    assert watched(main()) is False


def test_p3_close_after_the_upgrade_is_a_type_error() -> None:
    """P3: a server that closes right after the upgrade gives a ``TypeError``, not a ``ConnectionError``."""

    async def main() -> type[BaseException]:
        async def close(socket: web.WebSocketResponse) -> None:
            await socket.close(code=1011)

        network = await fake_server(close)
        with pytest.raises(Exception, match=r".") as failure:
            await connect(raw_client(network))
        return failure.type

    assert watched(main()) is TypeError


def test_p4_late_refusal_makes_a_zombie() -> None:
    """P4: a late CONNECT_ERROR disconnects without an event, and events are still delivered."""

    async def main() -> tuple[bool, str, list[Any], list[Any]]:
        async def refuse_late(socket: web.WebSocketResponse) -> None:
            await join(socket)
            await asyncio.sleep(1)
            await socket.send_str('44{"message":"late"}')
            await asyncio.sleep(1)
            await socket.send_str('42["news",1]')
            await for_ever()

        network = await fake_server(refuse_late)
        client, told, news = raw_client(network), [], []
        client.on("disconnect", told.append)
        client.on("news", news.append)
        await connect(client)
        await asyncio.sleep(5)
        return client.connected, client.eio.state, told, news

    assert watched(main()) == (False, "connected", [], [1])


def test_p5_connect_during_the_closing_handshake_is_a_value_error() -> None:
    """P5: after a CLOSE packet the client disconnects for a while, in which ``connect`` is a plain error."""

    async def main() -> tuple[str, type[BaseException]]:
        async def say_close(socket: web.WebSocketResponse) -> None:
            await join(socket)
            await socket.send_str("1")
            await for_ever()  # and never answers the closing handshake

        network = await fake_server(say_close)
        client = raw_client(network)
        await connect(client)
        network.black_hole(enabled=True)
        network.black_hole(enabled=False)
        for _ in range(2000):
            await asyncio.sleep(0.001)
            if client.eio.state == "disconnecting":
                break
        state = client.eio.state
        with pytest.raises(Exception, match=r".") as failure:
            await client.eio.connect(URL, transports=["websocket"])
        return state, failure.type

    assert watched(main()) == ("disconnecting", ValueError)


def test_p6_failed_dial_leaves_its_session_open() -> None:
    """P6: a websocket dial that fails leaves the HTTP session open."""

    async def main() -> bool:
        network = await fake_server(for_ever)
        network.refuse(enabled=True)
        client = raw_client(network)
        with pytest.raises(socketio.exceptions.ConnectionError):
            await connect(client)
        is_closed = bool(client.eio.http.closed)
        await client.eio.http.close()
        return is_closed

    assert watched(main()) is False


def test_p7_and_p8_calls_and_callbacks_are_forgotten_at_a_loss() -> None:
    """P7, P8: a call waits for its whole timeout after the connection is gone, and a callback for ever."""

    async def main() -> tuple[float, list[Any]]:
        network, _ = await real_server()
        client, told = raw_client(network), []
        await connect(client)
        await client.emit("nobody", 1, callback=lambda *answer: told.append(answer))
        call = asyncio.ensure_future(client.call("nobody", 1, timeout=600))
        begun = asyncio.get_running_loop().time()
        await asyncio.sleep(1)
        network.reset_peer()
        with pytest.raises(socketio.exceptions.TimeoutError):
            await call
        return asyncio.get_running_loop().time() - begun, told

    seconds, told = watched(main())
    assert seconds >= 600
    assert told == []


def test_p9_emit_from_the_disconnect_handler_is_lost() -> None:
    """P9: an emit from the disconnect handler returns as if all were well, and nothing is sent."""

    async def main() -> tuple[list[str], list[Any]]:
        network, server = await real_server()
        client, done, arrived = raw_client(network), [], []
        server.on("last words", lambda sid, words: arrived.append(words))

        async def say(_: Any) -> None:
            try:
                await client.emit("last words", 1)
            except socketio.exceptions.SocketIOError as error:
                done.append(type(error).__name__)
            else:
                done.append("returned")

        client.on("disconnect", say)
        await connect(client)
        await client.disconnect()
        await asyncio.sleep(5)
        return done, arrived

    assert watched(main()) == (["returned"], [])


def test_p10_the_queue_of_the_client_has_no_bound() -> None:
    """P10: what is emitted faster than the wire takes it is kept in memory without limit."""

    async def main() -> int:
        network, _ = await real_server()
        client = raw_client(network)
        await connect(client)
        network.black_hole(enabled=True)
        for number in range(5000):
            await client.emit("x", number)
        return int(client.eio.queue.maxsize)

    assert watched(main()) == 0


@pytest.mark.parametrize("frame", ["42{", "42{}", "42[]", "42", "4" + "2" + "[" * 2000])
def test_p11_malformed_frames_raise_where_nobody_looks(frame: str) -> None:
    """P11: a frame that cannot be read is an exception of a background task, and the connection stays up."""

    async def main() -> tuple[int, bool]:
        async def babble(socket: web.WebSocketResponse) -> None:
            await join(socket)
            await socket.send_str(frame)
            await for_ever()

        loop = asyncio.get_running_loop()
        network = await fake_server(babble)
        client = raw_client(network)
        await connect(client)
        await asyncio.sleep(5)
        loop.collect_unretrieved()  # type: ignore[attr-defined]
        return len(loop.unhandled), client.connected  # type: ignore[attr-defined]

    unhandled, is_connected = watched(main())
    assert unhandled > 0
    assert is_connected


def test_p12_binary_header_without_attachments_wedges_the_client() -> None:
    """P12: after a binary header without its attachments no event is delivered any more."""

    async def main() -> tuple[list[Any], bool]:
        async def wedge(socket: web.WebSocketResponse) -> None:
            await join(socket)
            await socket.send_str('451-["x",{"_placeholder":true,"num":0}]')
            for number in range(5):
                await socket.send_str(f'42["news",{number}]')
            await for_ever()

        network = await fake_server(wedge)
        client, news = raw_client(network), []
        client.on("news", news.append)
        await connect(client)
        await asyncio.sleep(5)
        return news, client.connected

    news, is_connected = watched(main())
    assert 0 not in news
    assert len(news) < 5
    assert is_connected


def test_p13_polling_reads_a_body_whole() -> None:
    """P13: the polling client takes a response of any size."""
    size = 8 * 1024 * 1024

    async def main() -> int:
        asked = 0

        async def flood(_: web.Request) -> web.Response:
            nonlocal asked
            asked += 1
            return web.Response(text=OPEN if asked == 1 else "4" + "x" * size)

        network = await fake_server(for_ever)
        application = web.Application()
        application.router.add_get("/socket.io/", flood)
        await network.serve(application, "server")
        got: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        async def take(text: str) -> None:
            if not got.done():
                got.set_result(text)

        client = engineio.AsyncClient(handle_sigint=False, http_session=http_session(network))
        client.on("message", take)
        await client.connect(URL, transports=["polling"], engineio_path="socket.io")
        return len(await got)

    assert watched(main()) == size


def test_p14_server_announces_whole_seconds() -> None:
    """P14: a server with a ping interval of 1.5 s announces 1 s, and one of 0.3 s announces none."""

    async def announced(interval: float) -> int:
        network, _ = await real_server(ping_interval=interval, ping_timeout=5)
        async with http_session(network).get(f"{URL}/socket.io/?EIO=4&transport=polling") as answer:
            text = await answer.text()
        return int(text.split('"pingInterval":')[1].split(",")[0])

    assert watched(announced(1.5)) == 1000
    assert watched(announced(0.3)) == 0


def test_p15_headers_of_extra_options_are_sent_once() -> None:
    """P15: headers in ``websocket_extra_options`` are sent with the first connect only."""

    async def main() -> list[str | None]:
        seen: list[str | None] = []

        async def serve(request: web.Request) -> web.WebSocketResponse:
            seen.append(request.headers.get("X-Mine"))
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            await join(socket)
            return socket

        network = await fake_server(for_ever)
        application = web.Application()
        application.router.add_get("/socket.io/", serve)
        await network.serve(application, "server")
        client = raw_client(network, websocket_extra_options={"headers": {"X-Mine": "1"}})
        for _ in range(2):
            await connect(client)
            await client.disconnect()
            await asyncio.sleep(1)
        return seen

    assert watched(main()) == ["1", None]


def test_p15_cookie_is_taken_out_of_the_callers_headers() -> None:
    """P15: a cookie among the headers is deleted from the caller's own dict: the next dial has none."""

    async def main() -> dict[str, str]:
        network, _ = await real_server()
        client, headers = raw_client(network), {"X-Mine": "1", "Cookie": "sticky=1"}
        await client.connect(URL, headers=headers, transports=["websocket"], wait_timeout=10)
        return headers

    assert watched(main()) == {"X-Mine": "1"}


def test_p16_handlers_of_events_overtake_each_other() -> None:
    """P16: async handlers run as tasks of their own, so a slow one is overtaken by the next event's."""

    async def main() -> list[int]:
        network, server = await real_server()
        client, done = raw_client(network), []

        async def handle(number: int) -> None:
            await asyncio.sleep(5 if number == 1 else 0)
            done.append(number)

        client.on("news", handle)
        await connect(client)
        for number in range(4):
            await server.emit("news", number)
        await asyncio.sleep(10)
        await client.disconnect()
        return done

    assert watched(main()) == [0, 2, 3, 1]


def test_p17_constructing_a_client_takes_the_interrupt() -> None:
    """P17: a client replaces the process's SIGINT handler, unless it is told not to."""
    parameters = inspect.signature(socketio.base_client.BaseClient.__init__).parameters
    assert parameters["handle_sigint"].default is True
    before = signal.getsignal(signal.SIGINT)
    socketio.AsyncClient(handle_sigint=False)
    assert signal.getsignal(signal.SIGINT) is before


def test_p18_info_logs_hold_payloads_and_tokens() -> None:
    """P18: at INFO the library logs the auth payload and every body."""
    records: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record.getMessage())

    async def main() -> None:
        logger = logging.Logger("upstream", logging.INFO)  # noqa: LOG001 - nobody else shall hear it
        logger.addHandler(Listener())
        network, _ = await real_server()
        client = raw_client(network, logger=logger, engineio_logger=logger)
        await client.connect(URL, transports=["websocket"], auth={"token": "not-so-secret"}, wait_timeout=10)
        await client.emit("x", "a-private-body")
        await asyncio.sleep(1)
        await client.disconnect()

    watched(main())
    text = "\n".join(records)
    assert "not-so-secret" in text
    assert "a-private-body" in text


def test_p19_redirects_carry_custom_headers_elsewhere() -> None:
    """P19: aiohttp follows a websocket's redirect to another origin, with the query and custom headers."""

    async def main() -> list[tuple[str | None, str]]:
        seen: list[tuple[str | None, str]] = []
        network = await fake_server(for_ever)

        async def away(request: web.Request) -> web.Response:
            raise web.HTTPTemporaryRedirect(f"http://elsewhere/?{request.query_string}")

        async def steal(request: web.Request) -> web.Response:
            seen.append((request.headers.get("X-Api-Key"), request.query.get("token", "")))
            return web.Response(status=403)

        here, there = web.Application(), web.Application()
        here.router.add_get("/socket.io/", away)
        there.router.add_get("/", steal)
        await network.serve(here, "server")
        await network.serve(there, "elsewhere", 80)
        client = raw_client(network)
        with pytest.raises(socketio.exceptions.ConnectionError):
            await client.connect(
                f"{URL}?token=t", headers={"X-Api-Key": "k"}, transports=["websocket"], wait_timeout=10
            )
        await client.eio.http.close()
        return seen

    assert watched(main()) == [("k", "t")]


def test_p20_wait_timeout_is_one_second() -> None:
    """P20: by default the library waits for a namespace for one second only."""
    method: Callable[..., Any] = socketio.AsyncClient.connect
    assert inspect.signature(method).parameters["wait_timeout"].default == 1


def test_p21_poll_is_repeated_after_a_reset() -> None:
    """P21: aiohttp repeats a GET whose kept connection was reset, though it has emptied the queue."""

    async def main() -> int:
        asked = 0
        network = await fake_server(for_ever)

        async def answer(_: web.Request) -> web.Response:
            nonlocal asked
            asked += 1
            if asked == 2:
                network.reset_peer()
                await asyncio.sleep(1)
            return web.Response(text="x")

        application = web.Application()
        application.router.add_get("/", answer)
        await network.serve(application, "server")
        session = http_session(network)
        for _ in range(2):
            async with session.get(URL) as response:
                await response.read()
        return asked

    assert watched(main()) == 3


def test_upstream_handshake_is_what_the_scripts_speak() -> None:
    """The scripted server is one that the raw client connects to: the pinned tests test what they say."""

    async def main() -> bool:
        async def serve(socket: web.WebSocketResponse) -> None:
            await join(socket)
            await for_ever()

        network = await fake_server(serve)
        client = raw_client(network)
        await connect(client)
        return bool(client.connected)

    assert watched(main()) is True
    assert OPEN.startswith("0{")
