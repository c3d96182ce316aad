"""The other side of the comparison: ``RealtimeService``, by its public surface only."""

import asyncio
from typing import Any, Final

from realtime_fsm import Delivery, RealtimeConfig, RealtimeService

FLUSH_EVERY: Final = 500
STABLE_AFTER: Final = 0.05
_IN_OUTBOX: Final = 1000


class RealtimeSide:
    """A client of this library.

    Everything is as by default, but for the websocket at once, as on the other side, and ``stable_after``, so
    that it need not be waited for until a connection counts as stable.

    Args:
        url: The server's.
        payload: What each message carries.
        settings: What else is not as by default.
    """

    def __init__(self, url: str, payload: Any, **settings: float) -> None:
        self._payload = payload
        self._config = RealtimeConfig(
            server_url=url, transports=("websocket",), stable_after=STABLE_AFTER, **settings
        )
        self._realtime = RealtimeService(self._config)

    async def connect(self) -> None:
        """Connect."""
        await self._realtime.connect()
        await self._realtime.wait_for(timeout=30.0)

    async def close(self) -> None:
        """Disconnect, and take a new client, as for a new connection."""
        await self._realtime.disconnect()
        self._realtime = RealtimeService(self._config)

    async def emit(self, count: int) -> None:
        """Emit messages, and wait now and then until the server has had them."""
        realtime, payload = self._realtime, self._payload
        for number in range(1, count + 1):
            await realtime.emit("note", payload)
            if number % FLUSH_EVERY == 0:
                await realtime.call("flush")
        await realtime.call("flush")

    async def receive(self, count: int, *, bulk: bool) -> None:
        """Have the server send events, and count them.

        Args:
            count: How many.
            bulk: Whether full segments arrive, as over a network, instead of one event at a time.
        """
        all_here = asyncio.Event()
        left = count

        def price(_: Any) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                all_here.set()

        self._realtime.off("price")
        self._realtime.on("price", price)
        await self._realtime.emit("flood", (count, bulk))
        await all_here.wait()

    async def acknowledged(self, count: int) -> None:
        """Emit messages, and wait for the receipt of each."""
        for _ in range(count):
            await (await self._realtime.emit("ask", self._payload, delivery=Delivery.AT_LEAST_ONCE))

    async def acknowledged_window(self, count: int) -> None:
        """Emit messages at once, and wait for all receipts."""
        realtime, payload = self._realtime, self._payload
        receipts = [
            await realtime.emit("ask", payload, delivery=Delivery.AT_LEAST_ONCE) for _ in range(count)
        ]
        for receipt in receipts:
            await receipt

    async def through_outbox(self, count: int) -> None:
        """Emit messages so that none is lost, a thousand on their way through the outbox at a time."""
        realtime, payload = self._realtime, self._payload
        for first in range(0, count, _IN_OUTBOX):
            receipts = [
                await realtime.emit("ask", payload, delivery=Delivery.AT_LEAST_ONCE)
                for _ in range(min(_IN_OUTBOX, count - first))
            ]
            for receipt in receipts:
                await receipt

    async def reconnected(self) -> None:
        """Wait until it is connected anew."""
        async for change in self._realtime.changes():
            if change.is_connected:
                return

    async def lost(self) -> None:
        """Wait until the loss of the connection is noticed."""
        async for change in self._realtime.changes():
            if change.is_lost:
                return
