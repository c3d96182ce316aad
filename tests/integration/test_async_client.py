"""Code written for ``socketio.AsyncClient`` behaves the same on the engine: both clients hold each law."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import socketio
from aiohttp import web
from attrs import define, field
from socketio import exceptions

from realtime_fsm import migration
from realtime_fsm.machine.errors import ConfigurationError
from realtime_fsm.migration import AsyncClient as EngineClient
from realtime_fsm.testing.proxy.proxy import FaultProxy

Make = Callable[..., Any]
BOUND = 20.0

OPTIONS = {"reconnection_delay": 0.05, "reconnection_delay_max": 0.1, "randomization_factor": 0.0}


@pytest.fixture(params=["socketio.AsyncClient", "realtime_fsm.migration.AsyncClient"])
def make(request: pytest.FixtureRequest) -> Make:
    """Make a client of one of the two kinds."""
    kind = socketio.AsyncClient if request.param.startswith("socketio") else EngineClient
    return lambda **options: kind(**{"handle_sigint": False, **OPTIONS, **options})


@define
class Server:
    """A plain python-socketio server, and what reached it."""

    url: str
    sio: socketio.AsyncServer
    got: asyncio.Queue[tuple[Any, ...]] = field(factory=asyncio.Queue)
    auths: list[Any] = field(factory=list)
    headers: list[str | None] = field(factory=list)

    async def next(self) -> tuple[Any, ...]:
        """Return the next thing that reached it."""
        async with asyncio.timeout(BOUND):
            return await self.got.get()

    async def drop(self) -> None:
        """End every connection below Socket.IO, without a word of Socket.IO's own."""
        for socket in list(self.sio.eio.sockets.values()):
            await socket.close(wait=False)


@asynccontextmanager
async def serving(namespace: str = "/") -> AsyncIterator[Server]:
    """Serve on a free port of this machine."""
    sio = socketio.AsyncServer(async_mode="aiohttp", cors_allowed_origins=[])
    app = web.Application()
    sio.attach(app)
    server = Server("", sio)

    @sio.on("connect", namespace=namespace)
    async def connect(sid: str, environ: dict[str, Any], auth: Any = None) -> bool:
        server.auths.append(auth)
        server.headers.append(environ.get("HTTP_X_APP"))
        if auth == {"token": "wrong"}:
            raise exceptions.ConnectionRefusedError("go away")
        return True

    @sio.on("disconnect", namespace=namespace)
    async def disconnect(sid: str, *_: Any) -> None:
        server.got.put_nowait(("disconnect",))

    @sio.on("echo", namespace=namespace)
    async def echo(sid: str, *args: Any) -> Any:
        server.got.put_nowait(("echo", *args))
        return args if len(args) > 1 else args[0] if args else None

    @sio.on("*", namespace=namespace)
    async def anything(event: str, sid: str, *args: Any) -> None:
        server.got.put_nowait((event, *args))

    @sio.on("say", namespace=namespace)
    async def say(sid: str, event: str, *args: Any) -> None:
        await sio.emit(event, args, to=sid, namespace=namespace)

    @sio.on("ask me", namespace=namespace)
    async def ask_me(sid: str, *args: Any) -> None:
        await sio.emit("question", args, to=sid, namespace=namespace, callback=answered)

    async def answered(*args: Any) -> None:
        server.got.put_nowait(("answered", *args))

    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await sio.shutdown()
        await runner.cleanup()
        await _end_pings()


async def _end_pings() -> None:
    """End what python-engineio's server leaves running for each connection until its next ping."""
    left = [task for task in asyncio.all_tasks() if "AsyncSocket." in repr(task.get_coro())]
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left)


@asynccontextmanager
async def connected(make: Make, server: Server, **options: Any) -> AsyncIterator[Any]:
    """Connect a client, and have it disconnected."""
    client = make()
    async with asyncio.timeout(BOUND):
        await client.connect(server.url, wait_timeout=20, **options)
    try:
        yield client
    finally:
        async with asyncio.timeout(BOUND):
            await client.disconnect()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that both clients do in their own time."""
    async with asyncio.timeout(BOUND):
        while not condition():  # noqa: ASYNC110 - of two clients that have no event in common
            await asyncio.sleep(0.01)


async def test_connect_tells_its_handler_and_has_identities(make: Make) -> None:
    """The handler has run when ``connect`` returns; the client knows its ids, its namespace and carrier."""
    async with serving() as server:
        client, story = make(), []
        client.on("connect", lambda: story.append("connect"))
        client.on("disconnect", lambda reason: story.append(("disconnect", reason)))
        assert (client.connected, client.namespaces) == (False, {})
        await client.connect(server.url, auth={"token": "good"}, headers={"X-App": "mine"}, wait_timeout=5)
        assert story == ["connect"]
        assert client.connected
        assert client.namespaces == {"/": client.get_sid()}
        assert isinstance(client.sid, str)
        assert client.transport() in {"websocket", "polling"}
        assert (server.auths, server.headers[0]) == ([{"token": "good"}], "mine")
        with pytest.raises(exceptions.ConnectionError, match="Already connected"):
            await client.connect(server.url)
        await client.disconnect()
        await until(lambda: len(story) == 2)
        assert story[1] == ("disconnect", client.reason.CLIENT_DISCONNECT)
        assert (client.connected, client.namespaces) == (False, {})


async def test_emit_carries_every_kind_of_data(make: Make) -> None:
    """Nothing, one value, several in a tuple, nested data and bytes reach the server as they were."""
    async with serving() as server, connected(make, server) as client:
        for data, args in [
            (None, ()),
            ("text", ("text",)),
            ((1, "two", None), (1, "two", None)),
            ({"a": [1, {"b": True}]}, ({"a": [1, {"b": True}]},)),
            (b"\x00\x01", (b"\x00\x01",)),
            ({"file": b"bytes"}, ({"file": b"bytes"},)),
        ]:
            await client.emit("note", data)
            assert await server.next() == ("note", *args)
        await client.send("hi")
        assert await server.next() == ("message", "hi")


async def test_callback_and_call_get_the_acknowledgement(make: Make) -> None:
    """A callback gets the arguments of the acknowledgement; a call returns them, as a tuple where several."""
    async with serving() as server, connected(make, server) as client:
        answers: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()
        await client.emit("echo", ("a", 2), callback=lambda *args: answers.put_nowait(args))
        async with asyncio.timeout(BOUND):
            assert await answers.get() == ("a", 2)
        assert await client.call("echo", "one", timeout=20) == "one"
        assert await client.call("echo", (1, 2), timeout=20) in ((1, 2), [1, 2])
        assert await client.call("echo", timeout=20) is None


async def test_call_without_an_answer_times_out(make: Make) -> None:
    """A call that the server does not answer raises python-socketio's own ``TimeoutError``."""
    async with serving() as server:
        never = asyncio.Event()

        @server.sio.on("silent")
        async def silent(sid: str) -> None:
            with suppress(TimeoutError):
                async with asyncio.timeout(BOUND):
                    await never.wait()

        async with connected(make, server) as client:
            with pytest.raises(exceptions.TimeoutError):
                await client.call("silent", timeout=0.05)
            never.set()


async def test_events_reach_their_handlers_with_all_arguments(make: Make) -> None:
    """``on``, ``event``, a catch-all and coroutine functions get the events that are theirs, in full."""
    async with serving() as server, connected(make, server) as client:
        heard: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()

        @client.on("price")
        async def price(*args: Any) -> None:
            heard.put_nowait(("price", *args))

        @client.event
        def trade(*args: Any) -> None:
            heard.put_nowait(("trade", *args))

        @client.on("*")
        def anything(event: str, *args: Any) -> None:
            heard.put_nowait(("any", event, *args))

        for sent, expected in [
            (("price", 1, {"a": 2}), ("price", 1, {"a": 2})),
            (("trade",), ("trade",)),
            (("other", b"\x01"), ("any", "other", b"\x01")),
        ]:
            await client.emit("say", sent)
            async with asyncio.timeout(BOUND):
                assert await heard.get() == expected


async def test_handler_answers_the_server(make: Make) -> None:
    """What a handler returns acknowledges the event: nothing, a value, or several in a tuple."""
    async with serving() as server, connected(make, server) as client:
        answer: list[Any] = [None]
        client.on("question", lambda *_: answer[0])
        for given, args in [("yes", ("yes",)), ((1, 2), (1, 2)), ({"a": b"\x01"}, ({"a": b"\x01"},))]:
            answer[0] = given
            await client.emit("ask me", "?")
            assert await server.next() == ("answered", *args)


async def test_handler_that_raises_harms_nothing(make: Make) -> None:
    """After a bug in a handler the next event is handled, and messages leave."""
    async with serving() as server:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda *_: None)  # where the old client leaves it
        async with connected(make, server) as client:
            heard = asyncio.Event()

            @client.on("bad")
            async def bad() -> None:
                raise ValueError("a bug of the user's")

            client.on("good", heard.set)
            await client.emit("say", "bad")
            await client.emit("say", "good")
            async with asyncio.timeout(BOUND):
                await heard.wait()
            assert await client.call("echo", 1, timeout=20) == 1


async def test_namespace_of_its_own(make: Make) -> None:
    """A client of another namespace talks there, and not in the default one; a class may handle it."""

    class Chat(socketio.AsyncClientNamespace):
        heard: asyncio.Queue[Any]

        async def on_price(self, data: Any) -> None:
            self.heard.put_nowait(data)
            await self.emit("thanks", data)

    async with serving("/chat") as server:
        client, chat = make(), Chat("/chat")
        chat.heard = asyncio.Queue()
        client.register_namespace(chat)
        await client.connect(server.url, namespaces=["/chat"], wait_timeout=20)
        try:
            assert list(client.namespaces) == ["/chat"]
            await client.emit("say", ("price", 5), namespace="/chat")
            async with asyncio.timeout(BOUND):
                assert await chat.heard.get() == 5
            assert await server.next() == ("thanks", 5)
            with pytest.raises(exceptions.BadNamespaceError):
                await client.emit("say", "price")
        finally:
            await client.disconnect()


async def test_messages_need_a_connection(make: Make) -> None:
    """Before ``connect`` and after ``disconnect`` an emit raises ``BadNamespaceError``."""
    async with serving() as server:
        client = make()
        with pytest.raises(exceptions.BadNamespaceError):
            await client.emit("note")
        await client.connect(server.url, wait_timeout=20)
        await client.disconnect()
        with pytest.raises(exceptions.BadNamespaceError):
            await client.call("note")


async def test_refusal_and_absence_are_connection_errors(make: Make) -> None:
    """A refused identity and an absent server raise ``ConnectionError``, after ``connect_error``."""
    async with serving() as server:
        client, told = make(), []
        client.on("connect_error", lambda *args: told.append(args))
        with pytest.raises(exceptions.ConnectionError, match="failed to connect"):
            await client.connect(server.url, auth={"token": "wrong"}, wait_timeout=20)
        assert len(told) == 1
        assert "go away" in str(told[0])
        assert not client.connected
    with pytest.raises(exceptions.ConnectionError):
        await client.connect(server.url)
    assert len(told) == 2


async def test_lost_connection_comes_back() -> None:
    """After a loss the handlers are told, it connects again, and asks for the auth anew.

    Of the engine alone: python-socketio's client leaves a session unclosed when its connection is reset.
    """
    async with serving() as server, FaultProxy("127.0.0.1", int(server.url.rpartition(":")[2])) as proxy:
        client, story, tokens = EngineClient(**OPTIONS), [], iter("abc")
        client.on("connect", lambda: story.append("connect"))
        client.on("disconnect", lambda: story.append("disconnect"))
        await client.connect(proxy.url, auth=lambda: {"token": next(tokens)}, wait_timeout=20)
        proxy.reset_peer()
        await until(lambda: story.count("connect") == 2)
        assert story == ["connect", "disconnect", "connect"]
        assert client.connected
        assert server.auths == [{"token": "a"}, {"token": "b"}]
        assert await client.call("echo", 1, timeout=20) == 1
        await client.disconnect()


async def test_loss_without_reconnection_is_the_end(make: Make) -> None:
    """With ``reconnection=False`` a loss ends the wait."""
    async with serving() as server:
        client = make(reconnection=False)
        await client.connect(server.url, wait_timeout=20)
        waiting = asyncio.ensure_future(client.wait())
        await server.drop()
        async with asyncio.timeout(BOUND):
            await waiting
        assert not client.connected


async def test_wait_lasts_until_the_disconnect(make: Make) -> None:
    """``wait`` returns when somebody disconnects, as from a background task."""
    async with serving() as server:
        client = make()
        await client.connect(server.url, wait_timeout=20)

        async def leave() -> None:
            await client.sleep(0.01)
            await client.disconnect()

        leaving = client.start_background_task(leave)
        async with asyncio.timeout(BOUND):
            await client.wait()
            await leaving
        assert not client.connected


async def test_dismissal_by_the_server_is_the_end(make: Make) -> None:
    """A server that disconnects a client on purpose is not dialled again."""
    async with serving() as server:
        client, reasons = make(), []
        client.on("disconnect", reasons.append)
        await client.connect(server.url, wait_timeout=20)
        sid = client.get_sid()
        await server.sio.disconnect(sid)
        async with asyncio.timeout(BOUND):
            await client.wait()
        assert reasons == [client.reason.SERVER_DISCONNECT]
        assert len(server.auths) == 1


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"serializer": "msgpack"}, "serializer"),
        ({"json": object()}, "json"),
        ({"ssl_verify": False}, "ssl_verify"),
        ({"http_session": object()}, "http_session"),
        ({"websocket_extra_options": {"a": 1}}, "websocket_extra_options"),
        ({"logger": object()}, "logger"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_name(options: dict[str, Any], named: str) -> None:
    """An argument that this engine cannot honour is refused with its name and the remedy, never ignored."""
    with pytest.raises(ConfigurationError, match=named) as refused:
        EngineClient(**options)
    assert "leave it out" in str(refused.value)


def test_module_stands_in_for_python_socketio() -> None:
    """Changing the import is enough for what an asyncio client uses; anything else is refused with a hint."""
    assert migration.exceptions is socketio.exceptions
    assert migration.AsyncClientNamespace is socketio.AsyncClientNamespace
    with pytest.raises(AttributeError, match="import everything else from socketio"):
        _ = migration.AsyncServer


async def test_several_namespaces_are_refused_with_the_remedy() -> None:
    """Two namespaces on one client are refused: each wants a client of its own."""
    with pytest.raises(ConfigurationError, match="AsyncClient for each"):
        await EngineClient().connect("http://127.0.0.1:9", namespaces=["/a", "/b"])


async def test_randomization_factor_widens_the_jitter_and_nothing_else() -> None:
    """The jitter is as wide as the old client's, and the first attempt after a loss as soon as asked for."""
    async with serving() as server:
        client = EngineClient(reconnection_delay=1.0, randomization_factor=3.0)
        await client.connect(server.url)
        config = client.realtime.config
        await client.disconnect()
    assert config.backoff_limits.spread == 6.0
    assert config.first_retry_within == 1.0
    assert (config.backoff_base, config.backoff_jitter) == (1.0, True)


async def test_errors_name_the_old_arguments() -> None:
    """A senseless value is told by the name under which the old client knows it."""
    with pytest.raises(ConfigurationError, match="reconnection_delay"):
        await EngineClient(reconnection_delay=-1).connect("http://127.0.0.1:9")
