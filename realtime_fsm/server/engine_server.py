"""python-engineio's server, fenced in: what it leaves open, and what it loses.

Four things that it does not do by itself, each found by a test:

- A poll that is open while its client says goodbye in another request goes on for a minute.
- A POST that arrives in several pieces is cut after the first one.
- Connections that never present a token, or whose peer has stalled, are kept. ``cut`` ends any of them.
- Its background tasks outlive it. They are counted, so that they can be ended.
"""

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import engineio
from aiohttp import web
from attrs import frozen
from engineio.packet import Packet as EnginePacket
from multidict import CIMultiDict

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
                content = await read_body(request, self.max_http_buffer_size)
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


async def read_body(request: web.Request, max_bytes: int) -> bytes:
    """Return the body of a request.

    Raises:
        HTTPRequestEntityTooLarge: If it is larger than ``max_bytes``.
    """
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.content.iter_any():
        size += len(chunk)
        if size > max_bytes:
            raise web.HTTPRequestEntityTooLarge(max_size=max_bytes, actual_size=size)
        chunks.append(chunk)
    return b"".join(chunks)
