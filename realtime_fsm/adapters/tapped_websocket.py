"""The websocket as python-socketio sees it: without the messages."""

import asyncio
from typing import Any, Final

import aiohttp
from aiohttp import WSMsgType

from realtime_fsm.adapters import error_translation
from realtime_fsm.adapters.tap import FrameTap
from realtime_fsm.machine.errors import InternalError, NotSocketIOError, RealtimeError

_TURN: Final = 64
"""Frames read before the loop gets a turn: a buffer that is full gives one after the other without a wait."""

_CLOSED: Final = aiohttp.WSMessage(WSMsgType.CLOSED, None, None)


class CorkedTransport:
    """Holds writes together: a batch of frames costs one system call, and one packet.

    Wraps a transport of asyncio; everything but ``write`` is the wrapped one's.

    Args:
        inner: The transport.
    """

    def __init__(self, inner: asyncio.Transport) -> None:
        self._inner = inner
        self._parts: list[bytes | bytearray | memoryview] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write, or keep for later while corked."""
        if self._parts is None:
            self._inner.write(data)
        else:
            self._parts.append(data)

    def cork(self) -> None:
        """Keep what is written from now on."""
        if self._parts is None:
            self._parts = []

    def uncork(self) -> None:
        """Write what was kept, at once.

        Raises:
            ConnectionResetError: If the transport was closed meanwhile.
        """
        parts, self._parts = self._parts, None
        if not parts:
            return
        if self._inner.is_closing():
            raise ConnectionResetError("The transport is closed.")
        self._inner.write(parts[0] if len(parts) == 1 else b"".join(parts))


class TappedWebSocket:
    """Stands between python-socketio and the websocket of aiohttp.

    Offers what python-socketio uses of a websocket: ``receive``, ``send_str``, ``send_bytes``, ``close``.

    Args:
        inner: The websocket; it must not answer pings by itself.
        tap: Sees every frame first.
        transport: What carries the websocket, where it could be found out.
        max_inbound_bytes: The limit that ``inner`` was given, for the error.
    """

    def __init__(
        self,
        inner: aiohttp.ClientWebSocketResponse,
        tap: FrameTap,
        transport: CorkedTransport | None,
        max_inbound_bytes: int,
    ) -> None:
        self._transport = transport
        self._inner = inner
        self._tap = tap
        self._max_inbound_bytes = max_inbound_bytes

    async def receive(self) -> aiohttp.WSMessage:
        """Return the next frame that is none of a message; those are delivered on the way.

        Once the connection has ended it says so, which ends the read loop of python-socketio.
        """
        try:
            return await self._receive()
        except Exception as error:  # noqa: BLE001 - python-socketio would only log it: it must be told
            self._tap.lose(_unforeseen(error))
            return _CLOSED

    async def _receive(self) -> aiohttp.WSMessage:
        tap, inner = self._tap, self._inner
        time = asyncio.get_running_loop().time
        turn = 0
        while not tap.has_ended:
            while tap.must_wait:
                await tap.wait()
            turn += 1
            if turn % _TURN == 0:
                await asyncio.sleep(0)
            message = await inner.receive()
            tap.last_received = time()
            kind = message.type
            if kind is WSMsgType.TEXT:
                if not tap.take_text(message.data):
                    return message
            elif kind is WSMsgType.BINARY:
                tap.take_binary(message.data)
            elif kind is WSMsgType.PING:
                await inner.pong(message.data)
            elif kind is WSMsgType.PONG:
                tap.take_pong(message.data)
            else:
                self._take_end(message)
        return _CLOSED

    def _take_end(self, message: aiohttp.WSMessage) -> None:
        if message.type is WSMsgType.ERROR:
            error = error_translation.from_websocket_error(message.data, self._max_inbound_bytes)
        elif message.type is WSMsgType.CLOSE:
            error = error_translation.from_close_code(message.data, message.extra)
        else:
            error = error_translation.from_close_code(None, None)
        if not self._tap.opened.done():
            self._tap.lose(_ended_at_once(error), specific=True)
        self._tap.lose(error)

    def cork(self) -> None:
        """Hold the frames that are sent from now on together."""
        if self._transport is not None:
            self._transport.cork()

    def uncork(self) -> None:
        """Let them go; raises as ``send_str`` does."""
        if self._transport is not None:
            try:
                self._transport.uncork()
            except OSError as error:
                raise self._broken(error) from error

    async def send_str(self, data: str) -> None:
        """Send a text frame."""
        try:
            await self._inner.send_str(data)
        except Exception as error:
            raise self._broken(error) from error

    async def send_bytes(self, data: bytes) -> None:
        """Send a binary frame."""
        try:
            await self._inner.send_bytes(data)
        except Exception as error:
            raise self._broken(error) from error

    def _broken(self, error: Exception) -> ConnectionResetError:
        """Note that nothing can be sent any more, and return what python-socketio can handle."""
        self._tap.lose(error_translation.from_websocket_error(error, self._max_inbound_bytes))
        return ConnectionResetError("The websocket is closed.")

    async def ping(self, number: int) -> None:
        """Ask the peer for a sign of life, which repeats the number."""
        try:
            await self._inner.ping(b"%d" % number)
        except Exception as error:  # noqa: BLE001 - nobody awaits a ping: whatever it is must be told
            self._broken(error)

    async def close(self) -> None:
        """Do the closing handshake."""
        await self._inner.close()


def _ended_at_once(error: RealtimeError) -> RealtimeError:
    translated = NotSocketIOError(f"The server opens no session: {error.message}")
    translated.__cause__ = error
    return translated


def _unforeseen(error: Exception) -> InternalError:
    translated = InternalError(f"{type(error).__name__} while a frame was read.")
    translated.__cause__ = error
    return translated
