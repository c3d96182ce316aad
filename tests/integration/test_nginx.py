"""With nginx in front of the backend: whatever it does to the connection, nothing is lost or doubled."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import canary
import pytest
from attrs import define, field
from nginx_server import Nginx

from realtime_fsm import (
    ConnectionStatus,
    Delivery,
    Dialect,
    RealtimeConfig,
    RealtimeService,
    ServerUnavailableError,
    StatusChange,
)
from realtime_fsm.server import BackendConfig, Client, WebSocketService
from realtime_fsm.testing.proxy.faults import Direction
from realtime_fsm.testing.proxy.frames import Match
from realtime_fsm.testing.proxy.proxy import FaultProxy

SOON = 20.0
S = ConnectionStatus
SOCKET = Match(Direction.UP, re.compile(r"^GET /socket\.io/.*transport=websocket"))
POLL = Match(Direction.UP, re.compile(r"^GET /socket\.io/.*transport=polling.*sid="))
BEAT = Match(Direction.UP, '42["heartbeat"')


@define(eq=False)
class Stage:
    """Client, nginx, proxy and backend, one behind the other."""

    service: WebSocketService
    proxy: FaultProxy
    nginx: Nginx
    client: RealtimeService
    heard: list[int] = field(factory=list)
    effects: list[int] = field(factory=list)
    changes: list[StatusChange] = field(factory=list)
    published: int = 0
    emitted: int = 0

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something holds, bounded: it has no event of its own."""
        async with asyncio.timeout(SOON):
            while not condition():  # noqa: ASYNC110 - of what others append to, another process too
                await asyncio.sleep(0.005)

    async def status(self, *statuses: ConnectionStatus) -> None:
        """Wait for one status after the other."""
        for status in statuses:
            await self.client.wait_for(status, timeout=SOON)

    def publish(self, count: int = 3) -> None:
        """Publish events."""
        for _ in range(count):
            self.published += 1
            self.service.publish("ticks", "tick", {"n": self.published})

    async def emit(self, count: int = 3) -> list[Any]:
        """Emit messages, and return their receipts."""
        receipts = []
        for _ in range(count):
            self.emitted += 1
            message = {"n": self.emitted}
            receipts.append(await self.client.emit("note", message, delivery=Delivery.EXACTLY_ONCE))
        return receipts

    async def complete(self, *receipts: Any) -> None:
        """Wait until everything has arrived, in order, each once."""
        async with asyncio.timeout(SOON):
            await asyncio.gather(*receipts)
        await self.until(lambda: len(self.heard) >= self.published)
        assert self.effects == list(range(1, self.emitted + 1))
        assert self.heard == list(range(1, self.published + 1))


@asynccontextmanager
async def stage(
    folder: Path, *, idle_timeout: float = 60.0, does_upgrade: bool = True, **settings: Any
) -> AsyncIterator[Stage]:
    """Set everything up; the client is not connected yet."""
    config = BackendConfig(port=0, secret=canary.SIGNING)
    async with (
        WebSocketService(config) as service,
        FaultProxy("127.0.0.1", service.port, frames=True) as proxy,
        Nginx(folder / "nginx", proxy.port, idle_timeout=idle_timeout, does_upgrade=does_upgrade) as nginx,
    ):
        defaults: dict[str, Any] = {
            "dialect": Dialect.REFERENCE,
            "stable_after": 0.0,
            "first_retry_within": 0.05,
            "backoff_base": 0.05,
            "backoff_maximum": 0.2,
            "reconnect_interval": 0.2,
            "fallback_polling_interval": 0.1,
        }
        client = RealtimeService(
            RealtimeConfig(server_url=nginx.url, **{**defaults, **settings}), token=canary.jwt()
        )
        made = Stage(service, proxy, nginx, client)

        def note(_: Client, data: dict[str, int]) -> None:
            made.effects.append(data["n"])

        service.on("note", note)
        client.on("tick", lambda data: made.heard.append(data["n"]))
        client.connection_status.subscribe(made.changes.append)
        yield made


@asynccontextmanager
async def connected(made: Stage) -> AsyncIterator[None]:
    """Connect and subscribe."""
    async with made.client:
        await made.client.subscribe(["ticks"])
        made.publish(1)
        await made.until(lambda: made.heard == [1])
        yield


async def test_nginx_lets_websockets_and_messages_pass(tmp_path: Path) -> None:
    """Through nginx the client has its WebSocket, and messages and events in order."""
    async with stage(tmp_path) as made, connected(made):
        receipts = await made.emit(50)
        made.publish(50)
        await made.complete(*receipts)
        assert len(made.proxy.log.matching(SOCKET)) == 1
        assert made.client.metrics.losses == 0
    assert [line.split()[8] for line in made.nginx.answers()] == ["101"]


async def test_nginx_idle_timeout_shorter_than_the_heartbeat_is_overcome(tmp_path: Path) -> None:
    """Nginx ends a connection that is idle for too long; the client is back each time, and misses nothing."""
    async with stage(tmp_path, idle_timeout=0.3, heartbeat_interval=30.0) as made, connected(made):
        for losses in (1, 2, 3):
            receipts = await made.emit()
            made.publish()
            await made.status(S.RECONNECTING)
            made.publish()
            receipts += await made.emit()
            await made.status(S.CONNECTED)
            await made.complete(*receipts)
            assert made.client.metrics.losses >= losses
        assert S.FAILED not in {change.current for change in made.changes}


async def test_nginx_idle_timeout_longer_than_the_heartbeat_is_never_reached(tmp_path: Path) -> None:
    """Where the heartbeat is the faster one, an idle connection outlives many idle timeouts."""
    async with (
        stage(tmp_path, idle_timeout=1.5, heartbeat_interval=0.7, heartbeat_timeout=0.7) as made,
        connected(made),
    ):
        beats = made.proxy.log.matching
        await made.until(lambda: len(beats(BEAT)) >= 7)
        assert beats(BEAT)[-1].at - beats(BEAT)[0].at > 3.0
        assert made.client.metrics.losses == 0


async def test_nginx_502_leads_to_fallback_and_back_without_loss(tmp_path: Path) -> None:
    """Nginx answers 502 for a server that is away: FALLBACK; with it back, CONNECTED, and nothing is lost."""
    async with stage(tmp_path, max_reconnect_attempts=2) as made, connected(made):
        receipts = await made.emit()
        made.proxy.refuse(True)
        made.proxy.reset_peer()
        await made.status(S.RECONNECTING, S.FALLBACK)
        causes = [c.error for c in made.changes if c.trigger == "attempt_failed"]
        assert causes
        assert all(isinstance(cause, ServerUnavailableError) for cause in causes)
        receipts += await made.emit()
        made.publish()
        made.proxy.refuse(False)
        await made.status(S.CONNECTED)
        await made.complete(*receipts)


async def test_nginx_502_for_a_while_is_retried(tmp_path: Path) -> None:
    """A server that is away for less than the attempts last is found again without a FALLBACK."""
    async with stage(tmp_path, max_reconnect_attempts=100) as made, connected(made):
        made.proxy.refuse(True)
        made.proxy.reset_peer()
        await made.until(lambda: made.client.metrics.failed_connections >= 2)
        receipts = await made.emit()
        made.publish()
        made.proxy.refuse(False)
        await made.status(S.CONNECTED)
        await made.complete(*receipts)
        assert S.FALLBACK not in {change.current for change in made.changes}


async def test_nginx_without_upgrade_leaves_the_polling_transport(tmp_path: Path) -> None:
    """Where nginx does not let WebSockets pass, the client is connected by polling, and all arrives."""
    async with stage(tmp_path, does_upgrade=False) as made, connected(made):
        receipts = await made.emit()
        made.publish()
        await made.complete(*receipts)
        assert made.client.status is S.CONNECTED
        assert made.proxy.log.matching(SOCKET)
        assert made.proxy.log.matching(POLL)


async def test_nginx_without_upgrade_leads_to_fallback_where_only_websockets_are_allowed(
    tmp_path: Path,
) -> None:
    """Where WebSockets cannot pass and nothing else is allowed, messages and events go over plain HTTP."""
    settings = {"transports": ("websocket",), "max_reconnect_attempts": 1}
    async with stage(tmp_path, does_upgrade=False, **settings) as made:
        connecting = asyncio.ensure_future(made.client.connect())
        await made.status(S.FALLBACK)
        await asyncio.wait_for(connecting, SOON)
        await made.client.subscribe(["ticks"])
        await made.until(lambda: _polled(made) >= 1)  # so it has its place in the channel
        receipts = await made.emit()
        made.publish()
        await made.complete(*receipts)
        assert made.client.status is S.FALLBACK
        await made.client.disconnect()


def _polled(made: Stage) -> int:
    return sum("/realtime/events" in line and " 200 " in line for line in made.nginx.answers())


async def test_nginx_reload_is_overcome_without_loss(tmp_path: Path) -> None:
    """A reload ends the old worker with its connections; the client is back over the new one."""
    async with stage(tmp_path) as made, connected(made):
        for _ in range(2):
            receipts = await made.emit()
            made.nginx.reload()
            await made.status(S.RECONNECTING)
            receipts += await made.emit()
            made.publish()
            await made.status(S.CONNECTED)
            await made.complete(*receipts)


@pytest.mark.parametrize("transport", ["websocket", "polling"])
async def test_nginx_restart_is_overcome_without_loss(tmp_path: Path, transport: str) -> None:
    """While nginx is away dials are refused; when it is back, so is the client, and nothing is missing."""
    settings = {"transports": (transport,), "max_reconnect_attempts": 100}
    async with stage(tmp_path, **settings) as made, connected(made):
        receipts = await made.emit()
        await made.nginx.stop()
        await made.status(S.RECONNECTING)
        made.publish()
        receipts += await made.emit()
        await made.until(lambda: made.client.metrics.failed_connections >= 1)
        await made.nginx.start()
        await made.status(S.CONNECTED)
        await made.complete(*receipts)
