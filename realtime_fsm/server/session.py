"""One connected client, as the backend sees it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from attrs import define, field, frozen

from realtime_fsm.server.identity import Identity


@frozen(kw_only=True)
class Caller:
    """Who sent a message; what an application's handler gets first.

    Attributes:
        subject: Whom the token was issued to.
        message_id: Identity of the message, the same however often it is sent; ``None`` where it has none.
        over: ``socket`` or ``http``.
    """

    subject: str
    message_id: str | None = None
    over: str = "socket"


@define(eq=False)
class Session:
    """A connected client.

    What goes to it passes through one queue, so that a replay comes before what is published after it, and
    before the acknowledgement of its subscription.

    Attributes:
        sid: Its Socket.IO id.
        identity: Who it is.
        send: Emits an event to it: ``(event, data, place)``.
        channels: What it is subscribed to.
        turn: Held while one of its messages is handled: one at a time, in their order.
    """

    sid: str
    identity: Identity
    send: Callable[[str, Any, dict[str, Any]], Awaitable[None]]
    channels: set[str] = field(factory=set)
    turn: asyncio.Lock = field(factory=asyncio.Lock)
    _queue: "asyncio.Queue[tuple[str, Any, dict[str, Any]] | asyncio.Future[None]]" = field(
        factory=asyncio.Queue, init=False
    )
    _writer: "asyncio.Task[None] | None" = field(default=None, init=False)

    def start(self) -> None:
        """Begin to send."""
        self._writer = asyncio.create_task(self._write(), name=f"backend session {self.sid}")

    def put(self, event: str, data: Any, place: dict[str, Any]) -> None:
        """Queue an event for the client. Never waits."""
        self._queue.put_nowait((event, data, place))

    async def flushed(self) -> None:
        """Wait until everything that was put so far has been sent."""
        mark: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait(mark)
        await mark

    async def close(self) -> None:
        """Stop sending."""
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.wait({self._writer})

    async def _write(self) -> None:
        while True:
            item = await self._queue.get()
            if isinstance(item, asyncio.Future):
                if not item.done():
                    item.set_result(None)
            else:
                await self.send(*item)
