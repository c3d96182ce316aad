import asyncio
import contextlib
import json
import socket as sockets
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import canary
import pytest
import socketio
from aiohttp import web
from engineio import base_client
from hostile_server import (
    CERTIFICATE,
    CONNECT,
    OPEN,
    PollingScript,
    Recorder,
    Server,
    application,
    event,
    eventually,
    http,
    joined,
    run,
    tcp,
    websocket,
)

from realtime_fsm.adapters import library_check
from realtime_fsm.adapters.library_check import SILENT
from realtime_fsm.adapters.socketio_transport import SocketIOTransport, SocketIOTransportFactory
from realtime_fsm.adapters.tap import FrameTap
from realtime_fsm.engine.payload import Payload, encode
from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.machine.errors import (
    AuthenticationError,
    ConnectionLostError,
    HeartbeatTimeoutError,
    InternalError,
    MalformedFrameError,
    NamespaceRefusedError,
    NotSocketIOError,
    PayloadTooLargeError,
    ProtocolError,
    RealtimeError,
    RedirectRefusedError,
    ServerDisconnectError,
    ServerUnavailableError,
    ServerUnreachableError,
)

both = pytest.mark.parametrize("name", ["websocket", "polling"])
SECRET = canary.token()


def payload(*args: Any) -> Payload:
    """Return the arguments, encoded."""
    return encode(args, what="a test message", max_bytes=10_000_000)


@contextlib.asynccontextmanager
async def started(server: Server, *names: str, **options: Any) -> AsyncIterator[tuple[Any, Recorder]]:
    """Open a connection to a scripted server, and give the word at which it begins."""
    async with opened(server, *names, **options) as (transport, recorder):
        transport.send(payload("begin"), None)
        await recorder.until(lambda: transport.written == 1)
        yield transport, recorder


@contextlib.asynccontextmanager
async def opened(
    server: Server,
    *names: str,
    auth: Any = None,
    listener: Recorder | None = None,
    connector_factory: Any = None,
    **options: Any,
) -> AsyncIterator[tuple[SocketIOTransport, Recorder]]:
    """Open a connection, and close it at the end."""
    recorder = listener or Recorder()
    config = RealtimeConfig(server_url=server.url, transports=names or ("websocket",), **options)
    transport = SocketIOTransportFactory(config, connector_factory)(recorder)
    try:
        async with asyncio.timeout(5):
            await transport.open(auth)
        yield transport, recorder
    finally:
        async with asyncio.timeout(2):
            await transport.close(goodbye=False)


async def failure(server_url: str, *names: str, auth: Any = None, **options: Any) -> RealtimeError:
    """Return the error with which opening fails, having checked that nothing is left."""
    recorder = Recorder()
    config = RealtimeConfig(server_url=server_url, transports=names or ("websocket",), **options)
    transport = SocketIOTransport(config, recorder)
    with pytest.raises(RealtimeError) as raised:
        async with asyncio.timeout(5):
            await transport.open(auth)
    await transport.close(goodbye=False)
    assert recorder.calls == []
    assert SECRET not in str(raised.value)
    return raised.value


class Backend:
    """A real Socket.IO server, and what it was told."""

    def __init__(self) -> None:
        self.sio = socketio.AsyncServer(
            async_mode="aiohttp", namespaces=["/", "/chat"], logger=SILENT, engineio_logger=SILENT
        )
        self.notes: list[Any] = []
        self.left: list[str] = []
        for namespace in ("/", "/chat"):
            self.sio.on("connect", self.connect(namespace), namespace=namespace)
            self.sio.on("disconnect", self.disconnect, namespace=namespace)
            self.sio.on("note", self.note, namespace=namespace)
            self.sio.on("echo", self.echo(namespace), namespace=namespace)
        self.sio.on("burst", self.burst)
        self.sio.on("ask", self.ask)
        self.sio.on("kick", self.kick)

    def connect(self, namespace: str) -> Any:
        """Accept a client, or refuse it as it asks."""

        async def handle(sid: str, _: Any, auth: Any) -> None:
            await self.sio.emit("welcome", {"auth": auth}, to=sid, namespace=namespace)
            if isinstance(auth, dict) and "refuse" in auth:
                raise socketio.exceptions.ConnectionRefusedError(*auth["refuse"])

        return handle

    async def disconnect(self, _: str, reason: str) -> None:
        """Keep why a client left."""
        self.left.append(reason)

    async def note(self, _: str, *args: Any) -> None:
        """Keep a message."""
        self.notes.append(args)

    def echo(self, namespace: str) -> Any:
        """Send a message back, as an event and as an answer."""

        async def handle(sid: str, *args: Any) -> Any:
            await self.sio.emit("echoed", args, to=sid, namespace=namespace)
            return args

        return handle

    async def burst(self, sid: str, count: int) -> None:
        """Emit many events."""
        for number in range(count):
            await self.sio.emit("tick", {"n": number}, to=sid)

    async def ask(self, sid: str) -> None:
        """Ask the client, and keep its answer."""
        self.notes.append(await self.sio.call("question", "why", to=sid))

    async def kick(self, sid: str) -> None:
        """Disconnect the client."""
        await self.sio.disconnect(sid)

    def app(self) -> web.Application:
        """Return the server as an application."""
        app = web.Application()
        self.sio.attach(app)
        return app


@pytest.fixture
def backend() -> Backend:
    """Return a server that is not yet running."""
    return Backend()


@pytest.fixture
def server(backend: Backend) -> Iterator[Server]:
    """Run the server."""
    with application(backend.app()) as running:
        yield running


# On a server that behaves.


@both
def test_open_delivers_what_was_sent_before_it_returned_afterwards_and_first(
    name: str, server: Server
) -> None:
    """What the server emits while it accepts reaches the listener after open() returned, in order."""

    async def main() -> None:
        async with opened(server, name, auth={"token": "t"}) as (transport, recorder):
            assert recorder.calls == []
            assert transport.name == name
            transport.send(payload("echo", 1), None)
            await recorder.until(lambda: len(recorder.events) == 2)
            assert recorder.events == [
                ("welcome", [{"auth": {"token": "t"}}], None),
                ("echoed", [1], None),
            ]

    run(main())


@both
@pytest.mark.parametrize("namespace", ["/", "/chat"])
def test_send_reaches_the_server_and_its_acknowledgement_comes_back(
    name: str, namespace: str, server: Server
) -> None:
    """Events, acknowledgements and non-ASCII text travel in both directions, in any namespace."""

    async def main() -> None:
        async with opened(server, name, namespace=namespace) as (transport, recorder):
            transport.send(payload("echo", {"text": "žluťoučký ☃"}, 2), 41)
            await recorder.until(lambda: recorder.acks)
            assert recorder.acks == [(41, [{"text": "žluťoučký ☃"}, 2])]
            assert recorder.events[1:] == [("echoed", [{"text": "žluťoučký ☃"}, 2], None)]
            assert recorder.malformed == []

    run(main())


@both
@pytest.mark.parametrize("namespace", ["/", "/chat"])
def test_send_carries_binary_parts_both_ways(name: str, namespace: str, server: Server) -> None:
    """Attachments arrive in the place of their placeholders, in events and acknowledgements."""
    first, second = bytes(range(256)), b""

    async def main() -> None:
        async with opened(server, name, namespace=namespace) as (transport, recorder):
            transport.send(payload("echo", {"a": first, "b": [second]}, 1), 7)
            await recorder.until(lambda: recorder.acks and len(recorder.events) == 2)
            assert recorder.acks == [(7, [{"a": first, "b": [second]}, 1])]
            assert recorder.events[1][1] == [{"a": first, "b": [second]}, 1]
            assert (transport.written, recorder.malformed) == (1, [])

    run(main())


@both
@pytest.mark.parametrize("answer", [{"because": 1}, b"bytes"])
def test_answer_reaches_the_server_that_asked(
    name: str, answer: Any, server: Server, backend: Backend
) -> None:
    """An event that wants an answer says so, and the answer is what the server's call returns."""

    async def main() -> None:
        async with opened(server, name) as (transport, recorder):
            transport.send(payload("ask"), None)
            await recorder.until(lambda: len(recorder.events) == 2)
            (question, args, ack_id) = recorder.events[1]
            assert (question, args) == ("question", ["why"])
            assert ack_id is not None
            transport.answer(ack_id, payload(answer))
            await eventually(lambda: backend.notes == [answer])
            assert transport.written == 1  # answers do not count

    run(main())


@both
def test_events_arrive_in_wire_order(name: str, server: Server) -> None:
    """Two thousand events arrive in the order in which the server emitted them."""

    async def main() -> None:
        async with opened(server, name) as (transport, recorder):
            transport.send(payload("burst", 2000), None)
            await recorder.until(lambda: len(recorder.events) == 2001)
            assert [args[0]["n"] for _, args, _ in recorder.events[1:]] == list(range(2000))

    run(main())


@both
def test_send_keeps_order_and_loses_nothing_beyond_the_room(
    name: str, server: Server, backend: Backend
) -> None:
    """More messages than there is room for arrive whole and in order, also at a server that takes 16."""

    async def main() -> None:
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

    run(main())


def test_room_is_none_while_too_much_waits(server: Server) -> None:
    """Few but large messages use the room up as well."""

    async def main() -> None:
        async with opened(server) as (transport, _):
            transport.send(payload("note", "x" * 1_100_000), None)
            assert transport.room == 0

    run(main())


@both
def test_close_with_goodbye_tells_the_server_after_everything_else(
    name: str, server: Server, backend: Backend
) -> None:
    """The server sees a client that leaves, and has had every message that was sent before."""

    async def main() -> None:
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

    run(main())


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
def test_close_is_silent_and_may_be_repeated(name: str, server: Server) -> None:
    """After close() began the listener hears nothing, sending is a no-op, and closing again does nothing."""

    async def main() -> None:
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
            assert transport.ping() is False
            await transport.close(goodbye=True)
            assert len(recorder.calls) == told
            assert server.client_sockets() == []

    run(main())


def test_close_before_open_does_nothing() -> None:
    """A transport that was never opened can be closed, and knows what it would try first."""

    async def main() -> None:
        transport = SocketIOTransport(RealtimeConfig(), Recorder())
        transport.send(payload("note"), None)
        assert (transport.name, transport.room, transport.written) == ("websocket", 0, 0)
        assert (transport.ping(), transport.is_paused, transport.last_received) == (False, False, 0.0)
        await transport.close(goodbye=True)

    run(main())


def test_ping_is_answered_over_a_websocket(server: Server) -> None:
    """A ping brings a pong, which is a sign of life; pings before it do not pile up."""

    async def main() -> None:
        async with opened(server) as (transport, recorder):
            before = transport.last_received
            assert transport.ping()
            assert transport.ping()
            await recorder.until(lambda: "pong" in recorder.calls)
            assert transport.last_received > before

    run(main())


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


def test_ping_is_not_offered_by_polling(server: Server) -> None:
    """Polling has no ping of its own."""

    async def main() -> None:
        async with opened(server, "polling") as (transport, _):
            assert transport.ping() is False

    run(main())


@both
def test_server_that_disconnects_the_client_is_a_loss(name: str, server: Server) -> None:
    """A disconnect by the server is told once, as such."""

    async def main() -> None:
        async with opened(server, name) as (transport, recorder):
            transport.send(payload("kick"), None)
            await recorder.until(lambda: recorder.lost)
            assert isinstance(recorder.lost[0], ServerDisconnectError)
            transport.send(payload("note"), None)
            await transport.close(goodbye=True)
            assert len(recorder.lost) == 1
            assert recorder.calls[-1] == "lost"

    run(main())


# Refusals.


@both
@pytest.mark.parametrize(
    ("refuse", "kind", "retry_after"),
    [
        (["go away"], AuthenticationError, None),
        (["x", {"category": "authentication", "code": "token_expired"}], AuthenticationError, None),
        (["busy", {"category": "connection", "retry_after": 7}], ServerUnavailableError, 7.0),
        (["odd", {"category": "protocol"}], ProtocolError, None),
        (["Invalid namespace"], NamespaceRefusedError, None),
    ],
)
def test_refusal_of_the_namespace_is_told_by_its_category(
    name: str, refuse: list[Any], kind: type, retry_after: float | None, server: Server
) -> None:
    """A refusal is translated by its category or its words, at once, and not tried over another transport."""

    async def main() -> None:
        other = "polling" if name == "websocket" else "websocket"
        error = await failure(server.url, name, other, auth={"refuse": refuse, "token": SECRET})
        assert type(error) is kind
        assert error.retry_after == retry_after
        assert refuse[0] in error.message
        assert server.client_sockets() == []

    run(main())


@both
def test_unknown_namespace_is_refused_as_such(name: str, server: Server) -> None:
    """The answer of python-socketio to a namespace that it does not have is understood."""

    async def main() -> None:
        assert isinstance(await failure(server.url, name, namespace="/none"), NamespaceRefusedError)

    run(main())


def test_refusal_is_cut_to_a_bounded_line() -> None:
    """A refusal of many lines becomes one of bounded length."""

    async def refuse(socket: web.WebSocketResponse) -> None:
        await socket.receive()
        await socket.send_str("44" + json.dumps({"message": "x\n" * 100_000}))

    async def main(server: Server) -> None:
        error = await failure(server.url)
        assert len(error.message) < 300
        assert "\n" not in error.message

    with websocket(refuse) as server:
        run(main(server))


ANSWERS = [
    (401, {}, AuthenticationError, None),
    (403, {}, AuthenticationError, None),
    (404, {}, NotSocketIOError, None),
    (400, {}, NotSocketIOError, None),
    (429, {"Retry-After": "3"}, ServerUnavailableError, 3.0),
    (500, {}, ServerUnavailableError, None),
    (503, {"Retry-After": "120"}, ServerUnavailableError, 120.0),
    (
        503,
        {"Retry-After": "Wed, 21 Oct 2015 07:28:30 GMT", "Date": "Wed, 21 Oct 2015 07:28:00 GMT"},
        ServerUnavailableError,
        30.0,
    ),
    (503, {"Retry-After": "soon"}, ServerUnavailableError, None),
]


@both
@pytest.mark.parametrize(("status", "headers", "kind", "retry_after"), ANSWERS)
def test_http_refusal_is_told_by_its_status(
    name: str, status: int, headers: dict[str, str], kind: type, retry_after: float | None
) -> None:
    """A status is translated by its meaning, with Retry-After, and without the query of the address."""

    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=status, headers=headers, text="<html>no</html>")

    async def main(server: Server) -> None:
        error = await failure(f"{server.url}/?room={SECRET}", name)
        assert type(error) is kind
        assert error.retry_after == retry_after
        assert str(status) in error.message
        assert server.client_sockets() == []

    with http(refuse) as server:
        run(main(server))


@both
@pytest.mark.parametrize(
    "body",
    ["", "<html>hello</html>", "{}", "0", "0[]", '0{"sid":1}', "4" * 40, "\x1e", OPEN[:-30], b"\xff\xfe"],
)
def test_answer_that_is_not_engine_io_is_told_as_such(name: str, body: str | bytes) -> None:
    """Whatever else a server answers with, it is not a Socket.IO server."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if name == "polling" or request.headers.get("Upgrade") is None:
            return web.Response(body=body)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await (socket.send_str(body) if isinstance(body, str) else socket.send_bytes(body))
        await socket.receive()
        return socket

    async def main(server: Server) -> None:
        assert isinstance(await failure(server.url, name), NotSocketIOError)
        assert server.client_sockets() == []

    with http(answer) as server:
        run(main(server))


@both
def test_server_that_hangs_up_at_once_is_told_as_such(name: str) -> None:
    """A server that accepts and closes without a word is not a Socket.IO server."""

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def main(server: Server) -> None:
        assert isinstance(await failure(server.url, name), (NotSocketIOError, ServerUnreachableError))

    with tcp(hang_up) as server:
        run(main(server))


def test_websocket_closed_instead_of_opened_is_told_with_its_code() -> None:
    """A close frame instead of OPEN is told with the server's code and reason."""

    async def close(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.close(code=1008, message=b"not here")
        return socket

    async def main(server: Server) -> None:
        error = await failure(server.url)
        assert isinstance(error, NotSocketIOError)
        assert "1008" in error.message
        assert "not here" in error.message

    with http(close) as server:
        run(main(server))


@both
def test_nobody_listening_is_told_in_the_words_of_the_system(name: str) -> None:
    """A refused connection is told once, without trying the other transport."""

    async def main() -> None:
        with sockets.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{unused.getsockname()[1]}"
            error = await failure(url, name, "polling" if name == "websocket" else "websocket")
        assert isinstance(error, ServerUnreachableError)
        assert "Connection refused" in error.message

    run(main())


def test_name_that_cannot_be_resolved_is_told_in_the_words_of_the_system() -> None:
    """A name that does not exist is told as the resolver says it."""

    class NoName(aiohttp.abc.AbstractResolver):
        async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[Any]:
            raise sockets.gaierror(sockets.EAI_NONAME, "Name or service not known")

        async def close(self) -> None:
            pass

    async def main() -> None:
        transport = SocketIOTransport(
            RealtimeConfig(server_url="http://nowhere.example"),
            Recorder(),
            lambda: aiohttp.TCPConnector(resolver=NoName()),
        )
        with pytest.raises(ServerUnreachableError, match="Name or service not known"):
            await transport.open(None)
        await transport.close(goodbye=False)

    run(main())


@both
def test_certificate_is_verified(name: str, backend: Backend, tmp_path: Any) -> None:
    """A certificate that nobody trusts is refused; one that is trusted carries events, and closes cleanly."""
    path = tmp_path / "certificate.pem"
    path.write_text(CERTIFICATE)
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    served.load_cert_chain(path)
    trusting = ssl.create_default_context(cafile=path)

    async def main(server: Server) -> None:
        url = f"https://127.0.0.1:{server.port}"
        error = await failure(url, name)
        assert isinstance(error, ServerUnreachableError)
        assert "certificate" in error.message
        for goodbye in (True, False):
            recorder = Recorder()
            transport = SocketIOTransport(
                RealtimeConfig(server_url=url, transports=(name,)),
                recorder,
                lambda: aiohttp.TCPConnector(ssl=trusting),
            )
            await transport.open(None)
            await recorder.until(lambda recorder=recorder: recorder.events)
            await transport.close(goodbye=goodbye)
            await eventually(lambda: not server.client_sockets())  # TLS says goodbye by itself

    with application(backend.app(), served) as server:
        run(main(server))


@both
def test_redirect_is_refused_and_nothing_reaches_its_target(name: str) -> None:
    """A redirect ends the attempt; the target hears nothing, and its query is not shown."""
    reached: list[str] = []

    async def target(request: web.Request) -> web.Response:
        reached.append(request.path)
        return web.Response()

    async def main(server: Server, other: Server) -> None:
        error = await failure(server.url, name, "polling" if name == "websocket" else "websocket")
        assert isinstance(error, RedirectRefusedError)
        assert other.url in error.message
        assert reached == []

    with http(target) as other:

        async def redirect(_: web.Request) -> web.Response:
            return web.Response(status=307, headers={"Location": f"{other.url}/steal?token={SECRET}"})

        with http(redirect) as server:
            run(main(server, other))


# The choice of the transport.


@pytest.mark.parametrize("status", [400, 404, 200, 502])
def test_polling_is_tried_where_websockets_are_not_let_through(status: int, backend: Backend) -> None:
    """A proxy that refuses the upgrade does not keep the client from polling."""

    @web.middleware
    async def no_upgrade(request: web.Request, handler: Any) -> web.StreamResponse:
        if "Upgrade" in request.headers:
            return web.Response(status=status)
        return await handler(request)

    async def main(server: Server) -> None:
        async with opened(server, "websocket", "polling") as (transport, recorder):
            assert transport.name == "polling"
            await recorder.until(lambda: recorder.events)

    app = backend.app()
    app.middlewares.append(no_upgrade)
    with application(app) as server:
        run(main(server))


def test_polling_is_tried_where_websockets_are_swallowed(backend: Backend) -> None:
    """A websocket that stays silent is given up in time for polling."""

    @web.middleware
    async def swallow(request: web.Request, handler: Any) -> web.StreamResponse:
        if "Upgrade" not in request.headers:
            return await handler(request)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.receive()
        return socket

    async def main(server: Server) -> None:
        async with opened(server, "websocket", "polling", connection_timeout=0.4) as (transport, recorder):
            assert transport.name == "polling"
            await recorder.until(lambda: recorder.events)

    app = backend.app()
    app.middlewares.append(swallow)
    with application(app) as server:
        run(main(server))


@pytest.mark.parametrize(("status", "requests"), [(401, 1), (403, 1), (429, 1), (503, 1), (404, 2)])
def test_other_transport_is_tried_only_where_it_may_help(status: int, requests: int) -> None:
    """A refusal that concerns the client or the server as a whole is not asked for twice."""
    seen: list[str] = []

    async def refuse(request: web.Request) -> web.Response:
        seen.append(request.query["transport"])
        return web.Response(status=status)

    async def main(server: Server) -> None:
        await failure(server.url, "websocket", "polling")
        assert len(seen) == requests

    with http(refuse) as server:
        run(main(server))


def test_the_clearer_of_two_failures_is_raised() -> None:
    """Where no transport works, the failure that tells more wins over the first one."""

    async def refuse(request: web.Request) -> web.Response:
        return web.Response(status=401 if request.query["transport"] == "polling" else 400)

    async def main(server: Server) -> None:
        assert isinstance(await failure(server.url, "websocket", "polling"), AuthenticationError)
        assert isinstance(await failure(server.url, "polling", "websocket"), AuthenticationError)

    with http(refuse) as server:
        run(main(server))


# Silence, and endings during the dial.


async def _nothing(_: web.WebSocketResponse) -> None:
    """Follow no script: stay silent."""


async def _silent_http(_: web.Request) -> web.Response:
    await asyncio.sleep(10)
    return web.Response()


@both
@pytest.mark.parametrize("stage", ["request", "session", "namespace"])
def test_silent_server_is_left_to_the_callers_timeout(name: str, stage: str) -> None:
    """A server that falls silent at any stage is given up when the caller gives up, and nothing is left."""

    async def open_only(request: web.Request) -> web.StreamResponse:
        if request.method == "POST" or request.query.get("sid"):
            return await _silent_http(request)
        return web.Response(text=OPEN)

    async def mute(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        if stage == "namespace":
            await socket.send_str(OPEN)
        return await _silent_http(request)

    handlers = {"request": _silent_http, "session": mute, "namespace": mute}
    handler = (
        handlers[stage] if name == "websocket" else (open_only if stage == "namespace" else _silent_http)
    )

    async def main(server: Server) -> None:
        recorder = Recorder()
        transport = SocketIOTransport(RealtimeConfig(server_url=server.url, transports=(name,)), recorder)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await transport.open(None)
        started = time.monotonic()
        await transport.close(goodbye=False)
        assert time.monotonic() - started < 1
        assert server.client_sockets() == []
        assert recorder.calls == []

    with http(handler) as server:
        run(main(server))


@both
@pytest.mark.parametrize(
    ("frames", "kind"),
    [
        (["41"], ServerDisconnectError),
        (["1"], ServerDisconnectError),
        ([CONNECT, "41"], ServerDisconnectError),
        (['44{"message":"no"}'], AuthenticationError),
        ([CONNECT, '44{"message":"no"}'], AuthenticationError),
    ],
)
def test_end_in_the_middle_of_the_dial_is_never_missed(name: str, frames: list[str], kind: type) -> None:
    """An end in one batch with the acceptance makes open() raise, or is told as a loss right after it."""
    script = PollingScript(_silent_http)

    async def poll(request: web.Request) -> web.StreamResponse:
        if request.method == "GET" and not script.opened:
            script.opened = True
            return web.Response(text="\x1e".join([OPEN, *frames]))
        return await script(request)

    async def send(socket: web.WebSocketResponse) -> None:
        await socket.receive()
        for one in frames:
            await socket.send_str(one)

    async def main(server: Server) -> None:
        recorder = Recorder()
        transport = SocketIOTransport(RealtimeConfig(server_url=server.url, transports=(name,)), recorder)
        opening = asyncio.create_task(transport.open(None))
        await asyncio.wait({opening}, timeout=2)
        if opening.exception() is None:
            await recorder.until(lambda: recorder.lost)
            assert recorder.calls == ["lost"]
        else:
            assert recorder.calls == []
        assert isinstance(opening.exception() or recorder.lost[0], kind)
        await transport.close(goodbye=False)

    with websocket(send) if name == "websocket" else http(poll) as server:
        run(main(server))


def test_flood_before_the_acceptance_is_bounded() -> None:
    """A server that sends events for ever without letting the client in is not believed for ever."""

    async def flood(socket: web.WebSocketResponse) -> None:
        for number in range(5000):
            await socket.send_str(event("tick", number))

    async def main(server: Server) -> None:
        assert isinstance(await failure(server.url), MalformedFrameError)

    with websocket(flood) as server:
        run(main(server))


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
            async with asyncio.timeout(1):
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
            async with asyncio.timeout(1):
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

    with joined(_nothing, at_once=True, opening=OPEN.replace("25000", "40").replace("20000", "40")) as server:
        run(main(server))


def test_flood_of_pings_whose_answers_are_not_read_is_a_loss() -> None:
    """A server that pings on and on without reading the pongs does not fill the memory with them."""

    async def main() -> None:
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

    run(main())


# What cannot be decoded.

MALFORMED = [
    "42",
    "42{}",
    "42[]",
    "42[1]",
    "42[null]",
    '42["connect"]',
    '42["disconnect",1]',
    '42["tick",',
    '42["tick",NaN]',
    '42["tick"]x',
    '42["tick",' + "[" * 100_000,
    '42["tick",' + "9" * 6000 + "]",
    "42" + "9" * 200 + '["tick"]',
    '42/other,["tick"]',
    "43",
    "43[]",
    "431",
    '431{"a":1}',
    '45["tick"]',
    '421-["tick"]',
    "461-[]",
    "40",
    "47",
    "4x",
    "4",
    "",
    "7",
    "x",
    "5",
    OPEN,
    "2" * 1000,
]


@both
def test_malformed_frame_is_told_and_dropped(name: str) -> None:
    """Each frame that cannot be decoded is told, and the connection goes on."""

    async def send(socket: web.WebSocketResponse) -> None:
        for number, text in enumerate(MALFORMED):
            await socket.send_str(text)
            await socket.send_str(event("tick", number))

    async def main(server: Server) -> None:
        async with started(server, name) as (_, recorder):
            await recorder.until(lambda: len(recorder.events) == len(MALFORMED))
            assert [call for call in recorder.calls if call != "written"] == ["malformed", "event"] * len(
                MALFORMED
            )
            assert all(isinstance(error, MalformedFrameError) for error in recorder.malformed)
            assert [args for _, args, _ in recorder.events] == [[n] for n in range(len(MALFORMED))]

    bodies = [f"{text}\x1e{event('tick', number)}" for number, text in enumerate(MALFORMED)]
    with joined(send) if name == "websocket" else http(PollingScript(*bodies)) as server:
        run(main(server))


@pytest.mark.parametrize(
    "frames",
    [
        [b"loose"],
        ['451-["tick",{"_placeholder":true,"num":3}]', b"x"],
        ['451-["tick",{"_placeholder":true,"num":-1}]', b"x"],
        ['451-["tick",{"_placeholder":true}]', b"x"],
    ],
)
def test_malformed_attachment_is_told_and_dropped(frames: list[str | bytes]) -> None:
    """Attachments without a place, and places without an attachment, are dropped."""

    async def send(socket: web.WebSocketResponse) -> None:
        for one in [*frames, event("tick", 1)]:
            await (socket.send_str(one) if isinstance(one, str) else socket.send_bytes(one))

    async def main(server: Server) -> None:
        async with started(server) as (_, recorder):
            await recorder.until(lambda: recorder.events)
            assert recorder.calls == ["written", "malformed", "event"]

    with joined(send) as server:
        run(main(server))


def test_attachment_of_a_payload_must_be_base64() -> None:
    """An attachment that is not base64 is dropped, and what follows it is delivered."""

    async def main(server: Server) -> None:
        async with started(server, "polling") as (_, recorder):
            await recorder.until(lambda: recorder.events)
            assert recorder.calls == ["written", "malformed", "event"]

    with http(PollingScript(f"b!!!\x1e{event('tick')}")) as server:
        run(main(server))


def test_empty_payload_is_nothing_to_speak_of() -> None:
    """An answer without a body, as of a Python server that closes a session, is not malformed."""

    async def main(server: Server) -> None:
        async with started(server, "polling") as (_, recorder):
            await recorder.until(lambda: recorder.events)
            assert recorder.calls == ["written", "event"]

    with http(PollingScript("", event("tick"))) as server:
        run(main(server))


# Back-pressure.


@both
def test_congestion_holds_reading_back(name: str) -> None:
    """While the listener is congested no more is read; once it is relieved everything comes, in order."""
    total = 3000

    async def send(socket: web.WebSocketResponse) -> None:
        for number in range(total):
            await socket.send_str(event("tick", number, "x" * 1000))

    class Slow(Recorder):
        def on_event(self, name: str, args: list[Any], ack_id: int | None) -> None:
            super().on_event(name, args, ack_id)
            self.congested = self.congested or len(self.events) == 10

    async def main(server: Server) -> None:
        async with started(server, name, listener=Slow()) as (transport, recorder):
            await eventually(lambda: transport.is_paused)
            await asyncio.sleep(0.1)  # nothing may come: there is no event to wait for
            assert len(recorder.events) <= 20
            assert "lost" not in recorder.calls
            recorder.relieve()
            await recorder.until(lambda: len(recorder.events) == total)
            assert [args[0] for _, args, _ in recorder.events] == list(range(total))
            assert not transport.is_paused

    bodies = ["\x1e".join(event("tick", n + i, "") for i in range(20)) for n in range(0, total, 20)]
    with joined(send) if name == "websocket" else http(PollingScript(*bodies)) as server:
        run(main(server))


@both
def test_close_ends_a_wait_for_the_listener(name: str) -> None:
    """A congested listener does not keep the transport from saying goodbye."""

    async def send(socket: web.WebSocketResponse) -> None:
        for number in range(5):
            await socket.send_str(event("tick", number))
        async for _ in socket:  # until the goodbye, which is answered
            pass

    async def main(server: Server) -> None:
        listener = Recorder()
        listener.congested = True
        async with started(server, name, listener=listener) as (transport, recorder):
            await eventually(lambda: transport.is_paused)
            async with asyncio.timeout(1):
                await transport.close(goodbye=True)
            assert recorder.lost == []

    with joined(send) if name == "websocket" else http(PollingScript("6")) as server:
        run(main(server))


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
            assert time.monotonic() - started < 1
            assert server.client_sockets() == []
            assert recorder.lost == []

    with stalled(name) as server:
        run(main(server))


@both
def test_open_may_be_cancelled_at_any_point(name: str, server: Server) -> None:
    """However far an attempt has come, cancelling and closing it leaves no task, socket or registration."""

    async def main() -> None:
        outcomes = set()
        for turns in range(0, 60, 2):
            transport = SocketIOTransport(
                RealtimeConfig(server_url=server.url, transports=(name,)), Recorder()
            )
            opening = asyncio.create_task(transport.open(None))
            for _ in range(turns):
                await asyncio.sleep(0.0004 if turns > 20 else 0)
            opening.cancel()
            done, _ = await asyncio.wait({opening}, timeout=2)
            assert done
            outcomes.add(opening.cancelled())
            await transport.close(goodbye=turns % 4 == 0)
            assert server.client_sockets() == []
            assert base_client.connected_clients == []
            assert asyncio.all_tasks() == {asyncio.current_task()}
        assert outcomes == {True, False}

    run(main())


@both
def test_close_may_be_cancelled(name: str) -> None:
    """A goodbye that is cancelled still releases everything before the cancellation is passed on."""

    async def main(server: Server) -> None:
        async with opened(server, name) as (transport, _):
            transport.send(payload("note", "x" * 8_000_000), None)
            closing = asyncio.create_task(transport.close(goodbye=True))
            await asyncio.sleep(0.05)
            closing.cancel()
            await asyncio.wait({closing}, timeout=1)
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
def test_close_copes_with_a_library_that_fails(
    name: str, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """Where python-socketio's own clean-up fails, close() still releases everything, and logs the failure."""

    async def fail(*, abort: bool) -> None:
        raise TypeError(f"abort={abort}")

    async def main() -> None:
        async with opened(server, name) as (transport, _):
            transport._connection._client.eio.disconnect = fail
            await transport.close(goodbye=False)
            assert server.client_sockets() == []
            assert base_client.connected_clients == []
            assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())
    assert "abort=True" in caplog.text


# The tap on its own: what a real server can hardly be brought to do at the right moment.


async def held_tap(recorder: Recorder) -> FrameTap:
    """Return a tap whose client has been let in, and whose caller has not yet learnt it."""
    tap = FrameTap(recorder, "/", asyncio.get_running_loop(), lambda: 0)
    assert not tap.take_text(OPEN)
    assert not tap.take_text(CONNECT)
    return tap


def test_tap_holds_no_more_than_it_must() -> None:
    """Before the caller knows, only so much is read; then all is delivered, and reading goes on."""

    async def main() -> None:
        recorder = Recorder()
        tap = await held_tap(recorder)
        count = 0
        while not tap.must_wait:
            assert tap.take_text(event("tick", count))
            count += 1
        assert 100 < count < 1000
        waiting = asyncio.create_task(tap.wait())
        await asyncio.sleep(0)
        assert recorder.calls == []
        tap.go_live()
        await asyncio.wait_for(waiting, 1)
        assert [args[0] for _, args, _ in recorder.events] == list(range(count))

    run(main())


def test_tap_tells_a_loss_after_what_came_before_it() -> None:
    """A loss before the caller knows of the connection is told after the messages that preceded it."""

    async def main() -> None:
        recorder = Recorder()
        tap = await held_tap(recorder)
        tap.take_text('451-["tick",{"_placeholder":true,"num":0}]')
        tap.take_binary(b"x")
        assert tap.take_text("41")
        assert tap.take_text(event("too late"))
        assert not tap.is_usable
        tap.go_live()
        assert recorder.events == [("tick", [b"x"], None)]
        assert recorder.calls == ["event", "lost"]

    run(main())


def test_tap_leaves_a_valid_payload_for_python_socketio() -> None:
    """What is left of a payload when the messages are taken out is a payload again."""

    async def main() -> None:
        recorder = Recorder()
        tap = await held_tap(recorder)
        tap.go_live()
        assert tap.take_payload(event("tick")) == "6"
        assert tap.take_payload("\x1e".join([event("tick"), "2", "beA==", "6"])) == "2\x1e6"
        assert recorder.calls == ["event", "event", "malformed"]

    run(main())


# The libraries below.


def test_missing_name_of_a_library_is_found_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that lacks what is used undocumented is named, before anything is opened."""

    async def main() -> None:
        monkeypatch.setattr(library_check, "_ENGINE_NAMES", ("queue", "gone_in_the_next_version"))
        library_check.check_libraries.cache_clear()
        with pytest.raises(InternalError, match=r"5\.\d+\.\d+ no longer offer eio\.gone_in_the_next"):
            await SocketIOTransport(RealtimeConfig(), Recorder()).open(None)

    run(main())
