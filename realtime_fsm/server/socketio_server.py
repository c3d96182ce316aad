"""python-socketio's server and python-engineio's below it, fenced in.

Of python-socketio, each found by a test:

- A client may emit an event called ``connect`` or ``disconnect``, and its handlers run with what the client
  made up. ``CheckedPacket`` turns such an event into one without a name.
- What cannot be read is passed over. A message that came after it would take effect, and if the client
  sent the other one again, it would be taken for a repeat of what took effect before. So the connection ends.
- A polling client that sends more than 16 packets at once loses all of them, and is told that all is well.
- Its log records hold whole packets, tokens included. Only its errors are passed on.

Of python-engineio:

- A poll that is open while its client says goodbye in another request goes on for a minute.
- A POST that arrives in several pieces is cut after the first one.
- Connections that never present a token, or whose peer has stalled, are kept. ``cut`` ends any of them.
- Its background tasks outlive it. They are counted, so that they can be ended.
"""

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

import engineio
import socketio
from aiohttp import web
from attrs import frozen
from engineio.packet import MESSAGE
from engineio.packet import Packet as EnginePacket
from engineio.payload import Payload
from multidict import CIMultiDict
from socketio.packet import BINARY_EVENT, EVENT
from socketio.packet import Packet as SocketPacket

from realtime_fsm.adapters.bounded_http import read_body
from realtime_fsm.engine.payload import MAX_ATTACHMENTS
from realtime_fsm.machine.dialect import RESERVED_EVENTS
from realtime_fsm.server.config import BackendConfig

NAMELESS: Final = ""
"""The name of an event that came without a proper one."""

_MAX_PACKETS: Final = 1000
"""Most packets of one polling request; its size is limited all the same."""

_HEADROOM: Final = 100
"""Connections beyond ``max_clients``, so that those can be told why they are refused."""

_logger = logging.getLogger("realtime_fsm.server")


@frozen
class _Body:
    """A body that was read as a whole; engineio takes whatever the first ``read`` gives."""

    content: bytes

    async def read(self, size: int) -> bytes:
        return self.content[:size]


class _BufferedRequest:
    """A POST request whose body has arrived."""

    def __init__(self, request: web.Request, content: bytes) -> None:
        self._request = request
        self.content = _Body(content)
        self.headers = CIMultiDict(request.headers)
        self.headers["Content-Length"] = str(len(content))  # a body sent in chunks has none

    def __getattr__(self, name: str) -> Any:
        return getattr(self._request, name)


@frozen
class _OpenRequest:
    """A request that is being served.

    Attributes:
        request: It.
        socket: The connection that it belongs to; ``None`` where it opens one.
    """

    request: web.Request
    socket: Any

    def end(self) -> None:
        """End it at once, whatever its peer does."""
        _abort(self.request)
        self.end_poll()

    def end_poll(self) -> None:
        """Have the poll return that waits, here or in another request of the same connection."""
        if self.socket is not None:
            self.socket.queue.put_nowait(None)


class EngineServer(engineio.AsyncServer):  # type: ignore[misc]
    """The Engine.IO server: it knows its open requests and its background tasks, and ends them.

    Args:
        max_sessions: Connections at the same time.
        options: What ``engineio.AsyncServer`` takes.
    """

    def __init__(self, *, max_sessions: int, **options: Any) -> None:
        super().__init__(**options)
        self._max_sessions = max_sessions
        self._open: dict[int, _OpenRequest] = {}  # by identity: requests cannot be hashed
        self._tasks: dict[asyncio.Future[Any], None] = {}  # in order: who is cancelled first ends first
        self._all_ended = asyncio.Event()
        self.is_closing = False

    def start_background_task(self, target: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Start a task, and remember it for as long as it runs."""
        task: asyncio.Future[Any] = super().start_background_task(target, *args, **kwargs)
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)
        return task

    async def handle_request(self, request: web.Request) -> Any:
        """Serve one request; a websocket is one that lasts."""
        is_new = "sid" not in request.query
        if is_new and (self.is_closing or len(self.sockets) >= self._max_sessions):
            return web.Response(status=HTTPStatus.SERVICE_UNAVAILABLE, headers={"Retry-After": "1"})
        open_ = self._open[id(request)] = _OpenRequest(request, self.sockets.get(request.query.get("sid")))
        try:
            if request.method == "POST":
                content = await read_request(request, self.max_http_buffer_size)
                response = await super().handle_request(_BufferedRequest(request, content))
                if open_.socket is not None and open_.socket.closed:
                    open_.end_poll()
                return response
            return await super().handle_request(request)
        finally:
            del self._open[id(request)]
            if not self._open:
                self._all_ended.set()

    def enqueue(self, engine_sid: str, packet: EnginePacket) -> int:
        """Queue a packet for the network, at once and in order; return how many wait there now."""
        socket = self.sockets.get(engine_sid)
        if socket is None or socket.closed:
            return 0  # its disconnect event has come, or is about to
        socket.queue.put_nowait(packet)
        return int(socket.queue.qsize())

    def pending(self, engine_sid: str) -> int:
        """Return how many packets wait for the network."""
        socket = self.sockets.get(engine_sid)
        return 0 if socket is None else int(socket.queue.qsize())

    async def drained(self, engine_sid: str) -> None:
        """Wait until all that was queued has been taken by the network. The caller bounds it."""
        socket = self.sockets.get(engine_sid)
        if socket is not None and not socket.closed:
            await socket.queue.join()

    async def say_goodbye(self, engine_sid: str) -> None:
        """End a connection once all that is queued has been sent."""
        socket = self.sockets.get(engine_sid)
        if socket is not None:
            await socket.close(wait=False, reason=self.reason.SERVER_DISCONNECT)
            socket.queue.put_nowait(None)  # ends the writer, or the pending poll

    async def cut(self, engine_sid: str, request: web.Request | None) -> None:
        """End a connection at once, whatever its peer does.

        Args:
            engine_sid: Which one.
            request: The one that opened it, where it is known.
        """
        requests = [open_.request for open_ in self._open.values()]
        for other in [r for r in requests if r is request or r.query.get("sid") == engine_sid]:
            _abort(other)
        socket = self.sockets.pop(engine_sid, None)
        if socket is not None:
            await socket.close(wait=False, abort=True, reason=self.reason.SERVER_DISCONNECT)
            socket.queue.put_nowait(None)

    async def end_requests(self, patience: float) -> None:
        """Wait for all open requests to end; abort those that do not within ``patience``."""
        for abort in (True, False):
            self._all_ended.clear()
            if not self._open:
                return
            try:
                async with asyncio.timeout(patience):
                    await self._all_ended.wait()
            except TimeoutError:
                for open_ in list(self._open.values()) if abort else ():
                    open_.end()

    async def end_tasks(self, patience: float) -> None:
        """Cancel all background tasks, and wait for them."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            _, left = await asyncio.wait(tasks, timeout=patience)
            for task in left:
                _logger.warning("a task does not end: %s", task)


def _abort(request: web.Request) -> None:
    transport = request.transport
    if isinstance(transport, asyncio.WriteTransport):
        transport.abort()


async def read_request(request: web.Request, max_bytes: int) -> bytes:
    """Return the body of a request.

    Raises:
        HTTPRequestEntityTooLarge: If it is larger than ``max_bytes``.
    """
    content = await read_body(request.content, max_bytes)
    if content is None:
        raise web.HTTPRequestEntityTooLarge(max_size=max_bytes, actual_size=max_bytes + 1)
    return content


class _ErrorsOnly(logging.Handler):
    """Passes on that something went wrong inside the library, without what it was about."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log the message of an error, and the kind of its exception."""
        kind = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else "no exception"
        _logger.warning("the Socket.IO library reports: %s (%s)", record.getMessage(), kind)


def _quiet_logger() -> logging.Logger:
    """Return a logger that no configuration reaches, because the library logs tokens at its lower levels."""
    logger = logging.Logger("realtime_fsm.server.library", logging.ERROR)  # noqa: LOG001 - that is how
    logger.propagate = False
    logger.addHandler(_ErrorsOnly())
    return logger


class CheckedPacket(SocketPacket):  # type: ignore[misc]
    """A packet whose event, where it is one, has a name that a client may use."""

    data: Any

    def decode(self, encoded_packet: Any) -> int:
        """Decode a packet that came in; return how many binary parts follow it."""
        attachments: int = super().decode(encoded_packet)
        if (self.packet_type == BINARY_EVENT) != (0 < attachments <= MAX_ATTACHMENTS):
            raise ValueError("wrong number of attachments")
        if self.packet_type in {EVENT, BINARY_EVENT} and not _is_event(self.data):
            self.data = [NAMELESS]
        return attachments


def _is_event(data: object) -> bool:
    return (
        isinstance(data, list) and bool(data) and isinstance(data[0], str) and data[0] not in RESERVED_EVENTS
    )


class SocketIOServer(socketio.AsyncServer):  # type: ignore[misc]
    """The Socket.IO server, as the backend's configuration wants it."""

    eio: EngineServer

    def __init__(self, config: BackendConfig) -> None:
        logger = _quiet_logger()
        # Process-wide, as python-engineio offers nothing else; never lowered.
        Payload.max_decode_packets = max(Payload.max_decode_packets, _MAX_PACKETS)
        super().__init__(
            async_mode="aiohttp",
            serializer=CheckedPacket,
            # Each event in a task of its own, begun in wire order: a slow handler must not keep its client's
            # pongs and heartbeats from being read. `MessageRouter` puts the messages back in line.
            async_handlers=True,
            cors_allowed_origins=list(config.origins),
            cors_credentials=True,
            transports=list(config.transports),
            ping_interval=config.ping_interval,
            ping_timeout=config.ping_timeout,
            max_http_buffer_size=config.max_message_bytes,
            max_sessions=config.max_clients + _HEADROOM,
            logger=logger,
            engineio_logger=logger,
        )

    def _engineio_server_class(self) -> type[EngineServer]:
        return EngineServer

    async def _handle_eio_message(self, eio_sid: str, data: Any) -> None:
        """Handle a frame; end a connection that sends one which cannot be read."""
        try:
            if eio_sid in self._binary_packet and not isinstance(data, bytes):
                raise TypeError("an attachment is due")  # noqa: TRY301 - treated as what the library raises
            await super()._handle_eio_message(eio_sid, data)
        except Exception as error:  # noqa: BLE001 - of any kind: the library raises what its parts do
            _logger.warning("a connection ends: what it sent cannot be read (%s)", type(error).__name__)
            self._binary_packet.pop(eio_sid, None)
            await self.eio.say_goodbye(eio_sid)

    def engine_sid(self, sid: str) -> str:
        """Return the Engine.IO id of a session that is connected or about to be."""
        return str(self.manager.eio_sid_from_sid(sid, "/"))


def message(text: str) -> EnginePacket:
    """Return a packet for ``enqueue``, which any number of connections can share.

    Args:
        text: An encoded Socket.IO packet.
    """
    return EnginePacket(MESSAGE, text)
