"""A real backend, and a rollout before it, with numbered messages under way in both directions."""

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import canary

from realtime_fsm import Dialect, RealtimeConfig, Receipt
from realtime_fsm.migration import Rollout
from realtime_fsm.rollout.setting import RolloutConfig
from realtime_fsm.server import BackendConfig, Client, WebSocketService

SOON = 30.0
MOST_UNDERWAY = 20
QUICK: dict[str, Any] = {"poll_interval": 0.05, "switch_timeout": SOON, "drain_timeout": SOON}


class Stream:
    """Numbered events from the backend and numbered messages to it, without a pause, until told to stop."""

    def __init__(self, server: WebSocketService, rollout: Rollout) -> None:
        self.published = 0
        self.heard: list[int] = []
        self.emitted = 0
        self.received: list[int] = []
        self.receipts: list[Receipt] = []
        self._server = server
        self._rollout = rollout
        self._moved = asyncio.Event()
        self._is_ending = False
        self._tasks: list[asyncio.Task[None]] = []
        server.on("number", self._take)
        rollout.on("tick", self._hear)

    def start(self) -> None:
        """Begin."""
        self._tasks = [asyncio.create_task(self._publish()), asyncio.create_task(self._emit())]

    async def flowing(self, count: int = 5) -> None:
        """Wait until so many more have arrived at either end."""
        heard, received = len(self.heard) + count, len(self.received) + count
        await self.until(lambda: len(self.heard) >= heard and len(self.received) >= received)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition, bounded; each arrival is a reason to look again."""
        async with asyncio.timeout(SOON):
            while not condition():
                self._moved.clear()
                await self._moved.wait()

    async def end(self) -> None:
        """Stop, and wait until everything has arrived."""
        self._is_ending = True
        async with asyncio.timeout(SOON):
            await asyncio.gather(*self._tasks)
        await self.until(lambda: len(self.heard) >= self.published)
        async with asyncio.timeout(SOON):
            await asyncio.gather(*self.receipts)

    def check(self) -> None:
        """Nothing was lost, nothing doubled, and everything is in order."""
        assert self.heard == list(range(1, self.published + 1))
        assert self.received == list(range(1, self.emitted + 1))

    def _take(self, _: Client, data: dict[str, int]) -> int:
        self.received.append(data["n"])
        self._moved.set()
        return data["n"]

    def _hear(self, data: dict[str, int]) -> None:
        self.heard.append(data["n"])
        self._moved.set()

    async def _publish(self) -> None:
        while not self._is_ending:
            if self.published - len(self.heard) < MOST_UNDERWAY:
                self.published += 1
                self._server.publish("ticks", "tick", {"n": self.published})
                await asyncio.sleep(0)
            else:
                await self.until(lambda: self.published - len(self.heard) < MOST_UNDERWAY)

    async def _emit(self) -> None:
        underway: deque[Receipt] = deque()
        while not self._is_ending:
            self.emitted += 1
            receipt = await self._rollout.emit("number", {"n": self.emitted})
            self.receipts.append(receipt)
            underway.append(receipt)
            if len(underway) >= MOST_UNDERWAY:
                await underway.popleft()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, bounded."""
    async with asyncio.timeout(SOON):
        while not condition():  # noqa: ASYNC110 - of what tells nobody
            await asyncio.sleep(0)


def backend_config(**given: Any) -> BackendConfig:
    """Return a configuration for a test."""
    secret = canary.secret(secrets.token_hex(32))
    return BackendConfig(port=0, secret=secret, close_timeout=2.0, **given)


@asynccontextmanager
async def backend() -> AsyncIterator[tuple[WebSocketService, Callable[[], str]]]:
    """Run a backend; give it, and what makes tokens."""
    config = backend_config()
    server = WebSocketService(config)
    await server.start()
    try:
        yield server, lambda: canary.jwt("me", 60.0, signing=config.secret)
    finally:
        await server.stop()


def client_config(url: str, **given: Any) -> RealtimeConfig:
    """Return a client's configuration that loses no time."""
    quick: dict[str, Any] = {
        "dialect": Dialect.REFERENCE,
        "connection_timeout": 5.0,
        "first_retry_within": 0.05,
        "backoff_base": 0.05,
        "backoff_maximum": 0.2,
        "close_timeout": 2.0,
    }
    return RealtimeConfig(server_url=url, **{**quick, **given})


def settings(**given: Any) -> RolloutConfig:
    """Return a rollout's configuration that loses no time."""
    return RolloutConfig(**{**QUICK, **given})
