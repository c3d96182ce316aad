"""A real client, a real backend in a process of its own, and a proxy that makes faults between them."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import canary

from realtime_fsm import ConnectionStatus, Delivery, Dialect, RealtimeConfig, RealtimeService, StatusChange
from realtime_fsm.cli.demo_backend import (
    CHANNEL,
    PUBLISHED,
    QUIET,
    RECEIVED,
    Backend,
    numbers,
    received_numbers,
)
from realtime_fsm.testing.proxy.proxy import FaultProxy

SOON = 20.0
"""Seconds after which a wait is given up; none should come near it."""


class Scene:
    """What a test of a fault needs."""

    def __init__(self, folder: Path, backend: Backend, proxy: FaultProxy, secret: str) -> None:
        self.folder = folder
        self.backend = backend
        self.proxy = proxy
        self.token_life = 60.0
        self.is_source_down = False
        self.events: list[int] = []
        self.emitted = 0
        self.changes: list[StatusChange] = []
        self._secret = secret
        self.client: RealtimeService

    async def token(self) -> str:
        """Return a fresh token, as a token source would."""
        if self.is_source_down:
            raise OSError(f"the token source is down: {canary.token()}")
        return canary.jwt("scene", self.token_life, signing=self._secret)

    async def emit(self, count: int, delivery: Delivery = Delivery.AT_LEAST_ONCE) -> list[Any]:
        """Emit numbered messages and return their receipts."""
        receipts = []
        for _ in range(count):
            self.emitted += 1
            receipts.append(await self.client.emit("number", {"n": self.emitted}, delivery=delivery))
        return receipts

    async def until(self, status: ConnectionStatus) -> None:
        """Wait for a status, bounded."""
        await self.client.wait_for(status, timeout=SOON)

    async def until_true(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition, bounded: each status change and event is a reason to look again."""
        async with asyncio.timeout(SOON):
            while not condition():  # noqa: ASYNC110 - of files of another process as well
                await asyncio.sleep(0.01)

    async def until_flowing(self) -> None:
        """Wait until events arrive again."""
        before = len(self.events)
        await self.until_true(lambda: len(self.events) >= before + 3)

    def received(self) -> list[int]:
        """Return the numbers that the backend wrote down, in the order in which it got them."""
        return received_numbers(self.folder / RECEIVED)

    def published(self) -> list[int]:
        """Return the numbers that the backend published."""
        return numbers(self.folder / PUBLISHED)

    async def hush(self) -> None:
        """Let the backend stop publishing, and wait until everything published has arrived."""
        (self.folder / QUIET).touch()
        await self.until_true(lambda: bool(self.events) and self.events[-1] == self.published()[-1])


@asynccontextmanager
async def scene(folder: Path, **config: Any) -> AsyncIterator[Scene]:
    """Set everything up: connected, subscribed, and events flowing."""
    secret = canary.secret(secrets.token_hex(32))
    async with Backend(folder, secret) as backend, FaultProxy("127.0.0.1", backend.port) as proxy:
        stage = Scene(folder, backend, proxy, secret)
        settings: dict[str, Any] = {
            "dialect": Dialect.REFERENCE,
            "max_reconnect_attempts": 3,
            "connection_timeout": 2.0,
            "stable_after": 0.0,
            "first_retry_within": 0.2,
            "backoff_base": 0.1,
            "backoff_maximum": 0.5,
            "heartbeat_interval": 1.0,
            "heartbeat_timeout": 1.0,
            "fallback_polling_interval": 0.2,
            "reconnect_interval": 0.3,
        }
        stage.client = RealtimeService(
            RealtimeConfig(server_url=proxy.url, **{**settings, **config}), token=stage.token
        )
        stage.client.on("tick", lambda data: stage.events.append(data["n"]))
        stage.client.connection_status.subscribe(stage.changes.append)
        async with stage.client:
            await stage.client.subscribe([CHANNEL])
            await stage.until_flowing()
            yield stage
