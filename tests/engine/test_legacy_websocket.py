"""The old client's interface on the new engine: the same names, nothing lost, and a warning for each use."""

import asyncio
import warnings
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from world import World

from realtime_fsm import ConnectionStatus, RealtimeConfig, RealtimeService
from realtime_fsm.machine.errors import ClosedError, InvalidArgumentError, OutboxFullError, RealtimeError
from realtime_fsm.migration import legacy_websocket as call_sites
from realtime_fsm.migration.legacy_websocket import LegacyWebSocket, ReadyState
from realtime_fsm.server import BackendConfig, WebSocketService, issue_token

Run = Callable[[Coroutine[Any, Any, None]], None]
SECRET = "a secret of at least 32 characters"

pytestmark = pytest.mark.filterwarnings("ignore:LegacyWebSocket:DeprecationWarning")


@pytest.fixture(autouse=True)
def no_place_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every test be the first to use a line."""
    monkeypatch.setattr(call_sites, "_seen", set())


async def settled(seconds: float = 1.0) -> None:
    """Let the (virtual) time pass in which messages travel."""
    await asyncio.sleep(seconds)


async def test_old_story_is_told_by_the_old_names() -> None:
    """Open, message, loss and close reach the old handlers in order, with the old data."""
    async with World() as world:
        socket, story = LegacyWebSocket(world.client), []
        socket.on_open(lambda: story.append("open"))
        socket.on_message(story.append)
        socket.on_error(lambda error: story.append(type(error).__name__))
        socket.on_close(lambda told: story.append(("close", told["code"], told["was_clean"])))
        assert socket.ready_state is ReadyState.CLOSED
        await socket.connect()
        await settled()
        assert (socket.ready_state, socket.is_connected) == (1, True)
        world.server.emit("price", {"n": 1})
        world.server.emit("pair", 1, 2)
        world.server.emit("nothing")
        await settled()
        assert socket.last_message == {"event": "nothing", "data": None}
        world.server.reset()
        await settled(0.01)
        assert socket.ready_state is ReadyState.CONNECTING
        await world.until(ConnectionStatus.CONNECTED)
        await settled()
        await socket.disconnect()
        await settled()
        assert socket.ready_state is ReadyState.CLOSED
        assert story == [
            "open",
            {"event": "price", "data": {"n": 1}},
            {"event": "pair", "data": [1, 2]},
            {"event": "nothing", "data": None},
            "ConnectionLostError",
            ("close", 1006, False),
            "open",
            ("close", 1000, True),
        ]


async def test_messages_before_the_connect_and_in_an_outage_are_delivered_in_order() -> None:
    """What is sent while there is no socket is delivered later, once, in order."""
    async with World() as world:
        socket = LegacyWebSocket(world.client)
        socket.emit("note", 1)
        socket.send("two")
        await socket.connect()
        await settled()
        world.server.reset()
        socket.emit("note", 3)
        await world.until(ConnectionStatus.CONNECTED)
        socket.emit("note", 4)
        await settled(5)
        assert [(name, args) for name, args in world.server.received if name in {"note", "message"}] == [
            ("note", [1]),
            ("message", ["two"]),
            ("note", [3]),
            ("note", [4]),
        ]


def test_messages_may_be_sent_before_there_is_a_loop(run_virtual: Run) -> None:
    """A message of a program that has not started its loop yet waits for the connect."""
    box: list[tuple[World, LegacyWebSocket]] = []

    async def make() -> None:
        world = World()
        box.append((world, LegacyWebSocket(world.client)))

    run_virtual(make())
    world, socket = box[0]
    socket.emit("note", 1)

    async def main() -> None:
        async with world:
            await socket.connect()
            await settled()
            assert ("note", [1]) in world.server.received

    run_virtual(main())


async def test_every_use_warns_once_per_line_with_the_replacement() -> None:
    """A line warns once however often it runs and whatever the filters are; another line warns again."""
    async with World() as world:
        socket = LegacyWebSocket(world.client)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for number in range(3):
                socket.emit("note", number)
            socket.emit("note", 3)
            await socket.connect()
            _ = socket.ready_state
            await socket.disconnect()
        told = [(str(warning.message), warning.filename) for warning in caught]
        assert told == [
            ("LegacyWebSocket.emit is deprecated; use RealtimeService.emit", __file__),
            ("LegacyWebSocket.emit is deprecated; use RealtimeService.emit", __file__),
            ("LegacyWebSocket.connect is deprecated; use RealtimeService.connect", __file__),
            ("LegacyWebSocket.ready_state is deprecated; use RealtimeService.status", __file__),
            ("LegacyWebSocket.disconnect is deprecated; use RealtimeService.disconnect", __file__),
        ]


async def test_what_cannot_be_sent_goes_to_the_error_handlers() -> None:
    """A bad name and data that are no JSON are told, and hold up nothing that follows."""
    async with World() as world:
        socket, errors = LegacyWebSocket(world.client), []
        socket.on_error(errors.append)
        await socket.connect()
        socket.emit("", 1)
        socket.emit("note", object())
        socket.emit("note", 2)
        await settled()
        assert [type(error) for error in errors] == [InvalidArgumentError, InvalidArgumentError]
        assert ("note", [2]) in world.server.received


async def test_a_refused_connect_goes_to_the_error_handlers() -> None:
    """A connect that fails for good does not raise, as it never did: the handlers are told why."""
    async with World(enable_fallback=False) as world:
        world.server.accept_tokens = set()
        socket, errors = LegacyWebSocket(world.client), []
        socket.on_error(errors.append)
        await socket.connect()
        assert socket.ready_state is ReadyState.CLOSED
        await settled(0.01)
        assert errors
        assert all(isinstance(error, RealtimeError) for error in errors)


async def test_errors_without_a_handler_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """What nobody listens to is not lost: it is in the log."""
    async with World() as world:
        socket = LegacyWebSocket(world.client)
        socket.emit("", 1)
        await settled()
    assert any(record.name == "realtime_fsm.migration" for record in caplog.records)


async def test_handlers_cannot_harm() -> None:
    """A handler that raises disturbs no other one."""
    async with World() as world:
        socket, seen = LegacyWebSocket(world.client), []

        def bad(*_: object) -> None:
            raise RuntimeError("a bug of the user's")

        async def slow(message: dict[str, Any]) -> None:
            await asyncio.sleep(0.1)
            seen.append(message["event"])

        for register in (socket.on_open, socket.on_message, socket.on_close, socket.on_error):
            register(bad)
        socket.on_open(lambda: seen.append("open"))
        socket.on_message(slow)
        socket.on_close(lambda _: seen.append("close"))
        await socket.connect()
        world.server.emit("price", 1)
        await settled()
        await socket.disconnect()
        await settled()
        assert seen == ["open", "price", "close"]


async def test_pending_messages_are_bounded() -> None:
    """Beyond ``max_pending`` a message is refused with an error, and nothing of it is kept."""
    async with World() as world:
        socket = LegacyWebSocket(world.client, max_pending=2)
        socket.emit("note", 1)
        socket.emit("note", 2)
        with pytest.raises(OutboxFullError, match="max_pending"):
            socket.emit("note", 3)
        await socket.connect()
        await settled()
        assert [args for name, args in world.server.received if name == "note"] == [[1], [2]]


async def test_message_while_disconnecting_is_refused() -> None:
    """Nothing is taken that could no longer be sent."""
    async with World() as world:
        socket = LegacyWebSocket(world.client)
        await socket.connect()
        ending = asyncio.ensure_future(socket.disconnect())
        await asyncio.sleep(0)
        assert socket.ready_state is ReadyState.CLOSING
        with pytest.raises(ClosedError):
            socket.emit("note", 1)
        await ending


def test_senseless_arguments_are_refused() -> None:
    """A bound below one, and a handler that nobody would await, are refused with the reason."""

    async def handler() -> None: ...

    realtime = RealtimeService(RealtimeConfig(enable_fallback=False))
    with pytest.raises(InvalidArgumentError, match="max_pending=0"):
        LegacyWebSocket(realtime, max_pending=0)
    with pytest.raises(InvalidArgumentError, match="plain function"):
        LegacyWebSocket(realtime).on_open(handler)


@pytest.mark.real_loop
async def test_old_names_work_on_the_real_backend() -> None:
    """Over a real socket the old names send and receive what they always did."""
    async with WebSocketService(BackendConfig(port=0, secret=SECRET)) as backend:
        heard: asyncio.Queue[object] = asyncio.Queue()
        backend.on("note", lambda client, data: heard.put_nowait(data))
        config = RealtimeConfig(server_url=backend.url, dialect="reference")
        socket = LegacyWebSocket(RealtimeService(config, token=lambda: issue_token(SECRET, "me", 60)))
        socket.emit("note", {"text": "hi"})
        await socket.connect()
        async with asyncio.timeout(10):
            assert await heard.get() == {"text": "hi"}
        await socket.disconnect()
        assert not socket.is_connected
