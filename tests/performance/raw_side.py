"""One side of the comparison: ``socketio.AsyncClient`` as its documentation shows it."""

import asyncio
from typing import Any, Final

import socketio

FLUSH_EVERY: Final = 500


class RawSide:
    """A plain python-socketio client, with its own reconnecting.

    Args:
        url: The server's.
        payload: What each message carries.
    """

    def __init__(self, url: str, payload: Any) -> None:
        self._url = url
        self._payload = payload
        self._client = socketio.AsyncClient(handle_sigint=False)

    async def connect(self) -> None:
        """Connect."""
        await self._client.connect(self._url, transports=["websocket"])

    async def close(self) -> None:
        """Disconnect, and take a new client, as for a new connection."""
        await self._client.shutdown()
        self._client = socketio.AsyncClient(handle_sigint=False)

    async def emit(self, count: int) -> None:
        """Emit messages, and wait now and then until the server has had them."""
        client, payload = self._client, self._payload
        for number in range(1, count + 1):
            await client.emit("note", payload)
            if number % FLUSH_EVERY == 0:
                await client.call("flush")
        await client.call("flush")

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

        self._client.on("price", price)
        await self._client.emit("flood", (count, bulk))
        await all_here.wait()

    async def acknowledged(self, count: int) -> None:
        """Emit messages, and wait for the acknowledgement of each."""
        for _ in range(count):
            await self._client.call("ask", self._payload)

    async def acknowledged_window(self, count: int) -> None:
        """Emit messages at once, and wait for all acknowledgements."""
        await asyncio.gather(*(self._client.call("ask", self._payload) for _ in range(count)))

    async def through_outbox(self, count: int) -> None:
        """Emit messages so that none is lost: there is no outbox, so one call after the other."""
        await self.acknowledged(count)

    async def reconnected(self) -> None:
        """Wait until it is connected anew."""
        back = asyncio.Event()
        self._client.on("connect", back.set)
        await back.wait()
