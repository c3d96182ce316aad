"""Connection state recovery, as the real Node server does it."""

import asyncio
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest
from node_package import environment
from server_process import HERE

from realtime_fsm import ConnectionStatus, Missed, RealtimeConfig, RealtimeService
from realtime_fsm.testing.proxy.proxy import FaultProxy

SOCKET_IO: Final = "4.8.4"
BOUND: Final = 20.0  # of every wait; none comes near it
RECOVERY: Final = {"connectionStateRecovery": {"maxDisconnectionDuration": 60_000}}

both_transports = pytest.mark.parametrize("transport", ["websocket", "polling"])


@pytest.fixture(scope="session")
def node_environment() -> dict[str, str]:
    """Return an environment with the server's package."""
    return environment("socket.io", SOCKET_IO)


class NodeServer:
    """A Node server in a process of its own, which emits what it is told."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin = process.stdin
        self._stdout = process.stdout
        self.port = int(process.stdout.readline())

    def emit(self, *event: Any, namespace: str = "/") -> None:
        """Emit an event to all clients of a namespace."""
        self._stdin.write(json.dumps([namespace, *event]) + "\n")
        self._stdin.flush()

    async def has_lost_a_client(self) -> None:
        """Wait until it has noticed that a client is gone: only then can the session be recovered."""
        async with asyncio.timeout(BOUND):
            assert await asyncio.to_thread(self._stdout.readline)


@contextmanager
def node_server(environ: dict[str, str]) -> Iterator[NodeServer]:
    """Run a server that offers recovery."""
    command = ["node", str(HERE / "node_server.cjs"), json.dumps(RECOVERY)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ
    ) as process:
        try:
            yield NodeServer(process)
            process.communicate(timeout=BOUND)
        finally:
            process.kill()


class Listener:
    """A client that notes what it hears, and when it had to load anew."""

    def __init__(self, url: str, transport: str = "websocket", namespace: str = "/") -> None:
        config = RealtimeConfig(
            server_url=url,
            namespace=namespace,
            transports=(transport,),
            first_retry_within=0.2,
            backoff_base=0.1,
            backoff_maximum=0.3,
            stable_after=0.0,
            max_reconnect_attempts=1000,
        )
        self.client = RealtimeService(config)
        self.heard: list[tuple[Any, ...]] = []
        self.client.on("n", lambda *args: self.heard.append(args))

        @self.client.on_resync
        def load(missed: Missed) -> None:
            self.heard.append(("resync", missed.channel))

    async def has_heard(self, *story: tuple[Any, ...]) -> None:
        """Wait until it has heard so much; fail if it is anything else."""
        async with asyncio.timeout(BOUND):
            while len(self.heard) < len(story):  # noqa: ASYNC110 - of a handler
                await asyncio.sleep(0.01)
        assert self.heard == list(story)

    async def until(self, status: ConnectionStatus) -> None:
        """Wait for a status."""
        await self.client.wait_for(status, timeout=BOUND)


@both_transports
async def test_session_of_a_node_server_is_recovered(
    node_environment: dict[str, str], transport: str
) -> None:
    """What a Node server sent while the client was away is heard once, in order; nothing is loaded anew."""
    with node_server(node_environment) as server:
        async with FaultProxy("127.0.0.1", server.port) as proxy:
            listener = Listener(proxy.url, transport)
            async with listener.client:
                server.emit("n", 1)
                await listener.has_heard((1,))
                for turn in range(3):
                    proxy.refuse(True)
                    proxy.reset_peer()
                    await listener.until(ConnectionStatus.RECONNECTING)
                    await server.has_lost_a_client()
                    server.emit("n", 2 + 2 * turn)
                    server.emit("n", 3 + 2 * turn)
                    proxy.refuse(False)
                    await listener.has_heard(*((n,) for n in range(1, 4 + 2 * turn)))
                assert listener.client.metrics.unrecovered == 0


async def test_sessions_of_two_namespaces_are_not_mixed(node_environment: dict[str, str]) -> None:
    """Two clients, one per namespace, are each recovered with their own session and their own offset."""
    with node_server(node_environment) as server:
        async with FaultProxy("127.0.0.1", server.port) as proxy:
            one, other = Listener(proxy.url), Listener(proxy.url, namespace="/chat")
            async with one.client, other.client:
                server.emit("n", "one")
                server.emit("n", "other", namespace="/chat")
                await one.has_heard(("one",))
                await other.has_heard(("other",))
                proxy.refuse(True)
                proxy.reset_peer()
                await one.until(ConnectionStatus.RECONNECTING)
                await other.until(ConnectionStatus.RECONNECTING)
                server.emit("n", "missed")
                server.emit("n", "missed too", namespace="/chat")
                proxy.refuse(False)
                await one.has_heard(("one",), ("missed",))
                await other.has_heard(("other",), ("missed too",))


async def test_session_that_a_restarted_node_server_does_not_know(node_environment: dict[str, str]) -> None:
    """A restarted server is no error: the hook is called once, before the first event."""
    with node_server(node_environment) as server:
        async with FaultProxy("127.0.0.1", server.port) as proxy:
            listener = Listener(proxy.url)
            async with listener.client:
                server.emit("n", 1)
                await listener.has_heard((1,))
                with node_server(node_environment) as successor:
                    proxy.set_target("127.0.0.1", successor.port)
                    proxy.reset_peer()
                    await listener.until(ConnectionStatus.RECONNECTING)
                    await listener.until(ConnectionStatus.CONNECTED)
                    successor.emit("n", 2)
                    await listener.has_heard((1,), ("resync", None), (2,))
                    await listener.client.disconnect()


async def test_session_is_given_up_with_disconnect(node_environment: dict[str, str]) -> None:
    """After `disconnect()` and `connect()` what was sent in between is not heard, and is loaded anew."""
    with node_server(node_environment) as server:
        listener = Listener(f"http://127.0.0.1:{server.port}")
        await listener.client.connect()
        server.emit("n", 1)
        await listener.has_heard((1,))
        await listener.client.disconnect()
        server.emit("n", 2)
        await listener.client.connect()
        server.emit("n", 3)
        await listener.has_heard((1,), ("resync", None), (3,))
        await listener.client.disconnect()
