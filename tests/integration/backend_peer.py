"""The reference backend, and a plain Socket.IO client beside it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import canary

from realtime_fsm.adapters.library_check import make_client
from realtime_fsm.server import BackendConfig, WebSocketService

SECRET = canary.SIGNING
BOUND = 20.0
BUSY = 5.0
"""Seconds by which a busy machine may be late."""

RunAsync = Callable[..., Any]


def token(subject: str = "ann", lifetime: float = 60.0, **claims: Any) -> str:
    """Return a valid token."""
    return canary.jwt(subject, lifetime, **claims)


def backend(**options: Any) -> WebSocketService:
    """Return a service that is not started."""
    given = {name: options.pop(name, None) for name in ("authorize_channel", "ledger")}
    config = BackendConfig(port=0, secret=SECRET, **options)
    return WebSocketService(config, **given)


class Peer:
    """A plain Socket.IO client that notes what it gets, in order."""

    def __init__(self, service: WebSocketService) -> None:
        self.service = service
        self.sio = make_client()
        self.seen: list[tuple[Any, ...]] = []
        self.refusals: list[Any] = []
        self.changed = asyncio.Event()
        self.gone = asyncio.Event()
        self.sio.on("*", self._event)
        self.sio.on("disconnect", self._gone)
        self.sio.on("connect_error", lambda *args: self.refusals.append(args[0] if args else None))

    def _event(self, name: str, *args: Any) -> None:
        self.seen.append((name, *args))
        self.changed.set()

    def _gone(self, *_: Any) -> None:
        self.gone.set()

    async def connect(self, auth: Any, transports: tuple[str, ...] = ("websocket",)) -> None:
        """Connect, or raise."""
        await self.sio.connect(self.service.url, auth=auth, transports=list(transports), wait_timeout=5)

    async def ask(self, event: str, *args: Any) -> Any:
        """Emit an event, and return its acknowledgement."""
        return await self.sio.call(event, args, timeout=BOUND)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something holds of what was seen."""
        async with asyncio.timeout(BOUND):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    def offsets(self, channel: str) -> list[int]:
        """Return the offsets that came from a channel, in order."""
        return [seen[-1]["offset"] for seen in self.seen if seen[-1]["channel"] == channel]


@asynccontextmanager
async def peer(
    service: WebSocketService, auth: Any = ..., transports: tuple[str, ...] = ("websocket",)
) -> AsyncIterator[Peer]:
    """Connect a client, by default with a valid token; disconnect it at the end."""
    one = Peer(service)
    try:
        await one.connect({"token": token()} if auth is ... else auth, transports)
        yield one
    finally:
        await one.sio.eio.disconnect(abort=True)
        await one.sio.disconnect()
        loops = [one.sio.eio.read_loop_task, one.sio.eio.write_loop_task]
        left = {task for task in loops if task is not None}
        for task in left:  # a polling client that was told goodbye keeps them for half a minute
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=BOUND)


@asynccontextmanager
async def http(bearer: str | None = None) -> AsyncIterator[aiohttp.ClientSession]:
    """Open an HTTP client."""
    headers = {} if bearer is None else {"Authorization": f"Bearer {bearer}"}
    async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=BOUND)) as session:
        yield session


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait, bounded, for something that no event tells of."""
    async with asyncio.timeout(BOUND):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.01)


def unsigned(header: dict[str, Any], claims: dict[str, Any]) -> str:
    """Return a token without a signature."""
    import base64  # noqa: PLC0415

    parts = [base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=").decode() for p in (header, claims)]
    return ".".join([*parts, ""])
