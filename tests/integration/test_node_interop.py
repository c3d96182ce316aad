import asyncio
import sys
from collections.abc import Iterator
from typing import Any

import canary
import pytest
from node_package import environment
from server_process import HERE, running

from realtime_fsm import (
    AuthenticationError,
    ConnectionStatus,
    Delivery,
    HeartbeatTimeoutError,
    NamespaceRefusedError,
    Outcome,
    RealtimeConfig,
    RealtimeService,
    ServerDisconnectError,
)
from realtime_fsm.testing.proxy.proxy import FaultProxy

SOCKET_IO = "4.8.4"

BOUND = 20.0  # of every wait; none comes near it
HEARTBEAT_INTERVAL = 1.0
HEARTBEAT_TIMEOUT = 0.5
SCHEDULING = 5.0  # seconds by which a busy machine may run a timer late

both_transports = pytest.mark.parametrize("transport", ["websocket", "polling"])


@pytest.fixture(scope="session")
def node_port() -> Iterator[int]:
    """Run a plain Node server; skipped where there is no Node, but never in continuous integration."""
    with running(["node", str(HERE / "node_server.cjs")], environment("socket.io", SOCKET_IO)) as port:
        yield port


@pytest.fixture(scope="session")
def python_port() -> Iterator[int]:
    """Run a plain python-socketio server."""
    with running([sys.executable, str(HERE / "dropping_server.py")]) as port:
        yield port


def configured(port: int, transport: str, **settings: Any) -> RealtimeConfig:
    """Return a configuration that comes back quickly, and is else as by default."""
    return RealtimeConfig(
        **{
            "server_url": f"http://127.0.0.1:{port}",
            "transports": (transport,),
            "first_retry_within": 0.05,
            "stable_after": 0.0,
            **settings,
        }
    )


@both_transports
@pytest.mark.real_loop(timeout=BOUND)
async def test_emit_is_acknowledged_by_a_node_server(node_port: int, transport: str) -> None:
    """What a Node server's handler gives to its callback is what the receipt and the call return."""
    async with RealtimeService(configured(node_port, transport)) as realtime:
        assert realtime.status is ConnectionStatus.CONNECTED
        data = {"text": "grüß dich \N{PARTY POPPER}", "list": [1, 2.5, None, True], "nested": {"a": []}}
        receipt = await realtime.emit("ask", data, delivery=Delivery.AT_LEAST_ONCE)
        assert await receipt == data
        assert receipt.outcome is Outcome.ACKNOWLEDGED
        assert await realtime.call("add", (1, 2), timeout=BOUND) == 3


@both_transports
@pytest.mark.real_loop(timeout=BOUND)
async def test_binary_data_survives_a_node_server(node_port: int, transport: str) -> None:
    """Bytes within a message reach a Node server and come back, in an answer as well as in an event."""
    async with RealtimeService(configured(node_port, transport)) as realtime:
        data = {"blob": bytes(range(256)), "more": [b"", b"\x00"]}
        assert await realtime.call("ask", data, timeout=BOUND) == data
        events = realtime.events("bytes")
        await realtime.emit("send_bytes", 1000)
        assert (await anext(events)).args == (b"\x07" * 1000, {"size": 1000})


@both_transports
@pytest.mark.real_loop(timeout=BOUND)
async def test_events_of_a_node_server_arrive_in_order(node_port: int, transport: str) -> None:
    """Every event that a Node server sends reaches the handler, once and in the order of sending."""
    limit = 3000
    numbers: list[int] = []
    all_here = asyncio.Event()

    async with RealtimeService(configured(node_port, transport, max_pending_events=limit)) as realtime:

        @realtime.on("number")
        async def count(number: int) -> None:
            numbers.append(number)
            if number == limit:
                all_here.set()

        await realtime.emit("count_to", limit)
        await all_here.wait()
        await realtime.call("ask", "is that all?", timeout=BOUND)
        assert numbers == list(range(1, limit + 1))


@both_transports
@pytest.mark.real_loop(timeout=BOUND)
async def test_handler_answers_a_node_server(node_port: int, transport: str) -> None:
    """What a handler returns is the acknowledgement that a Node server waits for."""
    async with RealtimeService(configured(node_port, transport)) as realtime:

        @realtime.on("question")
        async def question(text: str) -> dict[str, str]:
            return {"answer": text.upper()}

        said = realtime.events("you_said")
        await realtime.emit("tell_me", "why")
        assert (await anext(said)).data == {"answer": "WHY"}


@both_transports
@pytest.mark.real_loop(timeout=BOUND)
async def test_refusal_by_a_node_middleware_is_an_authentication_error(
    node_port: int, transport: str
) -> None:
    """An identity that a Node middleware refuses fails the connect for good, with the server's own words."""
    config = configured(node_port, transport, namespace="/members")
    realtime = RealtimeService(config, token=canary.token("bad"))
    with pytest.raises(AuthenticationError, match="members only"):
        await realtime.connect()
    assert realtime.status is ConnectionStatus.FAILED
    await realtime.disconnect()
    async with RealtimeService(config, token="good") as member:
        assert await member.call("ask", "hello", timeout=BOUND) == "hello"


@both_transports
@pytest.mark.real_loop(timeout=BOUND)
async def test_token_that_a_node_middleware_refuses_is_fetched_anew(node_port: int, transport: str) -> None:
    """A token that a Node middleware refuses is fetched once more, and the new one lets the client in."""
    tokens = iter(["stale", "good"])
    config = configured(node_port, transport, namespace="/members")
    async with RealtimeService(config, token=lambda: next(tokens)) as realtime:
        assert realtime.is_connected
        assert realtime.metrics.attempts == 2


@both_transports
@pytest.mark.real_loop(timeout=BOUND)
async def test_unknown_namespace_of_a_node_server_is_refused(node_port: int, transport: str) -> None:
    """A namespace that a Node server does not have fails the connect for good, and not as an identity."""
    realtime = RealtimeService(configured(node_port, transport, namespace="/nowhere"))
    with pytest.raises(NamespaceRefusedError):
        await realtime.connect()
    await realtime.disconnect()


@both_transports
@pytest.mark.parametrize("ask_for_it", ["disconnect_me", "close_me"])
@pytest.mark.real_loop(timeout=BOUND)
async def test_disconnect_by_a_node_server_is_reconnected(
    node_port: int, transport: str, ask_for_it: str
) -> None:
    """A client that a Node server disconnects comes back by itself, and can be used as before."""
    async with RealtimeService(configured(node_port, transport)) as realtime:
        changes = realtime.changes()
        await realtime.emit(ask_for_it)
        lost = await anext(changes)
        assert lost.is_lost
        assert isinstance(lost.error, ServerDisconnectError)
        while not (await anext(changes)).is_connected:
            pass
        assert await realtime.call("ask", "still there?", timeout=BOUND) == "still there?"
        assert realtime.metrics.losses == 1


async def notice_a_black_hole(port: int, transport: str) -> None:
    """Have a link swallow everything, see how long it takes until that is noticed, then heal it."""
    time = asyncio.get_running_loop().time
    heartbeat = {"heartbeat_interval": HEARTBEAT_INTERVAL, "heartbeat_timeout": HEARTBEAT_TIMEOUT}
    async with (
        FaultProxy("127.0.0.1", port) as proxy,
        RealtimeService(configured(proxy.port, transport, **heartbeat)) as realtime,
    ):
        changes = realtime.changes()
        await realtime.call("ask", "alive", timeout=BOUND)  # the last sign of life, just before
        swallowed_at = time()
        proxy.black_hole(True)
        lost = await anext(changes)
        noticed_after = time() - swallowed_at
        assert lost.is_lost
        assert isinstance(lost.error, HeartbeatTimeoutError)
        assert noticed_after <= HEARTBEAT_INTERVAL + HEARTBEAT_TIMEOUT + SCHEDULING

        proxy.black_hole(False)
        await realtime.wait_for(timeout=BOUND)
        assert await realtime.call("ask", "again", timeout=BOUND) == "again"


@both_transports
@pytest.mark.real_loop(timeout=2 * BOUND)
async def test_black_hole_before_a_node_server_is_noticed_in_time(node_port: int, transport: str) -> None:
    """Silence is noticed within ``heartbeat_interval + heartbeat_timeout``, not the server's own 45 s."""
    await notice_a_black_hole(node_port, transport)


@both_transports
@pytest.mark.real_loop(timeout=2 * BOUND)
async def test_black_hole_before_a_python_server_is_noticed_in_time(python_port: int, transport: str) -> None:
    """Silence is noticed within ``heartbeat_interval + heartbeat_timeout``, not the server's own 45 s."""
    await notice_a_black_hole(python_port, transport)
