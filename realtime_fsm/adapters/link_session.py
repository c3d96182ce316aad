"""The HTTP session as python-socketio sees it: every frame and every failure passes by here first."""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any, Final, cast

import aiohttp
from attrs import frozen

from realtime_fsm.adapters import error_translation
from realtime_fsm.adapters.bounded_http import SocketRegistry, body_to_send, read_body
from realtime_fsm.adapters.outflow import Outflow
from realtime_fsm.adapters.tap import FrameTap
from realtime_fsm.adapters.tapped_websocket import CorkedTransport, TappedWebSocket
from realtime_fsm.machine.errors import (
    HeartbeatTimeoutError,
    MalformedFrameError,
    NotSocketIOError,
    RealtimeError,
)

ConnectorFactory = Callable[[], aiohttp.BaseConnector]
"""Makes what opens the connections, so that another network can be put under it."""

_SAME_FOR_ALL: Final = frozenset(
    {
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.SERVICE_UNAVAILABLE,
    }
)
"""Answers that another transport would get just the same."""


def _is_specific(status: int) -> bool:
    """Tell whether a refusal may concern one transport only; a redirect does not."""
    return status >= HTTPStatus.BAD_REQUEST and status not in _SAME_FOR_ALL


class NotedError(aiohttp.ClientConnectionError):
    """Tells python-socketio that it failed, in its own language. The reason has gone to the tap already."""


@frozen
class Answer:
    """An HTTP answer that has been read; what python-socketio uses of one."""

    status: int
    body: bytes = b""

    async def read(self) -> bytes:
        """Return the body."""
        return self.body

    async def text(self) -> str:
        """Return the body as text."""
        return self.body.decode(errors="replace")

    async def json(self) -> Any:
        """Say that there is no JSON: only that of a failure is asked for, which was noted before."""
        raise NotedError("The failure has been noted.")


class LinkSession:
    """Wraps a session of its own; refuses redirects, bounds what it reads, and remembers what went wrong.

    Offers what python-socketio uses of a session: ``closed``, ``close``, ``cookie_jar``, ``get``, ``post``
    and ``ws_connect``.

    Args:
        tap: Sees everything that comes, and is told every failure.
        outflow: Told when a request with messages was answered.
        max_inbound_bytes: Most bytes of one frame or body.
        connector_factory: Makes the connector; by default one for TCP.
        identified: Whether the client says who it is, so that it can be refused for that.
    """

    def __init__(
        self,
        tap: FrameTap,
        outflow: Outflow,
        max_inbound_bytes: int,
        connector_factory: ConnectorFactory | None,
        *,
        identified: bool = True,
    ) -> None:
        self._tap = tap
        self._outflow = outflow
        self._max_inbound_bytes = max_inbound_bytes
        self._identified = identified
        self._loop = asyncio.get_running_loop()
        self._sockets = SocketRegistry()
        self._transports: list[asyncio.Transport] = []
        self._corked: CorkedTransport | None = None
        self.websocket: TappedWebSocket | None = None
        self._session = aiohttp.ClientSession(
            connector=self._sockets.connector() if connector_factory is None else connector_factory(),
            trace_configs=[self._trace()],
        )
        # A poll empties the server's queue. Were it repeated after a reset, as aiohttp does by itself, the
        # events of the first answer would be lost, and nobody would know.
        self._session._retry_connection = False  # noqa: SLF001 - see `check_libraries`

    def _trace(self) -> aiohttp.TraceConfig:
        """Return what aiohttp asks us on the way: here alone can a handshake be seen and be stopped."""

        async def refuse_redirect(
            _: aiohttp.ClientSession, __: SimpleNamespace, params: aiohttp.TraceRequestRedirectParams
        ) -> None:
            response = params.response
            response.close()
            raise error_translation.from_status(response.status, response.headers, url=str(params.url))

        async def note_transport(
            _: aiohttp.ClientSession, __: SimpleNamespace, params: aiohttp.TraceRequestEndParams
        ) -> None:
            connection = params.response.connection
            if connection is None or connection.protocol is None or connection.transport is None:
                return
            known = [one for one in self._transports if not one.is_closing()]
            self._transports = [*known, connection.transport]
            if params.response.status == HTTPStatus.SWITCHING_PROTOCOLS:  # before aiohttp's writer takes it
                self._corked = CorkedTransport(connection.transport)
                connection.protocol.transport = cast("asyncio.Transport", self._corked)

        trace = aiohttp.TraceConfig()
        trace.on_request_redirect.append(refuse_redirect)  # a websocket handshake follows them otherwise
        trace.on_request_end.append(note_transport)
        return trace

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._session.closed

    @property
    def cookie_jar(self) -> aiohttp.abc.AbstractCookieJar:
        """The cookies of this connection."""
        return self._session.cookie_jar

    async def ws_connect(self, url: str, **options: Any) -> TappedWebSocket:
        """Open a websocket."""
        options |= {"autoping": False, "max_msg_size": self._max_inbound_bytes}
        try:
            inner = await self._session.ws_connect(url, **options)
        except Exception as error:
            translated = error_translation.from_exception(error, url=url, identified=self._identified)
            specific = isinstance(translated, NotSocketIOError) or (
                isinstance(error, aiohttp.WSServerHandshakeError) and _is_specific(error.status)
            )
            raise self._noted(translated, specific=specific) from error
        self._tap.last_received = self._loop.time()
        self.websocket = TappedWebSocket(inner, self._tap, self._corked, self._max_inbound_bytes)
        return self.websocket

    async def get(self, url: str, **options: Any) -> Answer:
        """Fetch a payload: messages are delivered, and the rest is returned."""
        while self._tap.must_wait:
            await self._tap.wait()
        answer = await self._request("GET", url, options)
        if not answer.body:
            if not self._tap.opened.done():
                raise self._noted(NotSocketIOError("The server answers with nothing."), specific=True)
            return answer  # a Python server that closes a session answers its pending request like this
        try:
            rest = self._tap.take_payload(answer.body.decode())
        except UnicodeDecodeError as error:
            raise self._noted(self._garbage(), specific=not self._tap.opened.done()) from error
        if self._tap.has_ended:
            raise NotedError("The connection has ended.")
        return Answer(answer.status, rest.encode())

    async def post(self, url: str, *, data: str, **options: Any) -> Answer:
        """Send a payload."""
        answer = await self._request("POST", url, options | {"data": body_to_send(data.encode())})
        self._outflow.acknowledge()
        return answer

    async def _request(self, method: str, url: str, options: dict[str, Any]) -> Answer:
        """Return a successful answer; whatever else happens is noted."""
        try:
            return await self._fetch(method, url, options)
        except NotedError:
            raise
        except Exception as error:
            if isinstance(error, TimeoutError) and self._tap.opened.done():
                silent = HeartbeatTimeoutError("The server does not answer a request in time.")
                raise self._noted(silent) from error
            translated = error_translation.from_exception(error, url=url)
            raise self._noted(translated, specific=isinstance(translated, NotSocketIOError)) from error

    async def _fetch(self, method: str, url: str, options: dict[str, Any]) -> Answer:
        async with self._session.request(method, url, allow_redirects=False, **options) as response:
            self._received()
            status = response.status
            if not HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
                error = error_translation.from_status(
                    status, response.headers, url=url, identified=self._identified
                )
                raise self._noted(error, specific=_is_specific(status))
            body = await read_body(response.content, self._max_inbound_bytes, self._received)
            if body is None:
                response.close()  # rather than to read the rest
                raise error_translation.too_large(self._max_inbound_bytes)
            return Answer(status, body)

    def _received(self) -> None:
        self._tap.last_received = self._loop.time()

    def _noted(self, error: RealtimeError, *, specific: bool = False) -> "NotedError":
        self._tap.lose(error, specific=specific)
        return NotedError("The failure has been noted.")

    def _garbage(self) -> RealtimeError:
        if self._tap.opened.done():
            return MalformedFrameError("A payload is not UTF-8.")
        return NotSocketIOError("The server answers with something that is not text.")

    def cut(self) -> None:
        """Break all connections at once, so that nothing can wait for a peer that does not read."""
        self._sockets.cut()
        for transport in self._transports:
            transport.abort()

    async def close(self) -> None:
        """Do nothing: python-socketio would close the session in the middle of a goodbye. See ``dispose``."""

    async def dispose(self) -> None:
        """Release everything."""
        if self.websocket is not None:
            await self.websocket.close()
        await self._session.close()
