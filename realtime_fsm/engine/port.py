"""The ports: how time, randomness, the network and the tokens enter the engine.

All of a client runs on one event loop, and every method here is called on its thread.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from attrs import frozen

from realtime_fsm.engine.payload import Payload
from realtime_fsm.machine.backoff import RandomSource
from realtime_fsm.machine.errors import RealtimeError

WallClock = Callable[[], float]
"""Seconds since the Unix epoch; ``time.time`` is one. Durations use the loop's own clock."""

__all__ = [
    "HttpAnswer",
    "HttpClient",
    "RandomSource",
    "Token",
    "TokenSource",
    "Transport",
    "TransportFactory",
    "TransportListener",
    "WallClock",
]


@frozen(kw_only=True)
class Token:
    """A token and what is known of its life.

    Attributes:
        value: The secret. Never shown by ``repr``.
        expires_at: Seconds since the Unix epoch, or ``None`` where it is not known.
        issued_at: The same of its beginning, by the clock of who issued it: with both, its life is known
            whatever this machine's clock says.
    """

    value: str
    expires_at: float | None = None
    issued_at: float | None = None

    def __repr__(self) -> str:
        return f"Token(value='***', expires_at={self.expires_at})"


TokenSource = str | Token | Callable[[], str | Token | Awaitable[str | Token]]
"""Where tokens come from: a string, a ``Token``, or a callable or coroutine function that gives one."""


class TransportListener(Protocol):
    """The ear of a transport: told synchronously and in wire order. None of these may raise.

    After ``on_lost`` a transport calls nothing any more.
    """

    def on_event(self, name: str, args: list[Any], ack_id: int | None, size: int = 0) -> None:
        """An event arrived. ``ack_id`` is set where the server wants an answer.

        ``size`` is about what it took on the wire: the characters of its text, the bytes of what is binary.
        """

    def on_ack(self, ack_id: int, args: list[Any]) -> None:
        """The server acknowledged the message that was sent with ``ack_id``."""

    def on_pong(self, number: int) -> None:
        """The peer answered the ``ping`` of this number."""

    def on_written(self) -> None:
        """Messages left for the network: ``written`` and ``room`` have grown."""

    def on_malformed(self, error: RealtimeError) -> None:
        """A frame could not be decoded, and was dropped; the connection goes on."""

    def on_lost(self, error: RealtimeError) -> None:
        """The connection ended by itself. Told once at most, and never after ``close`` was called."""


class Transport(Protocol):
    """One connection to a server: opened once, closed once, thrown away.

    Created by a ``TransportFactory`` and used for a single attempt. Between ``open`` and its end it tells
    its listener everything; it never runs user code and never waits in ``send``. The wire is always read:
    acknowledgements and pongs lie behind events on it, and never wait for whoever is to take those.
    """

    @property
    def last_received(self) -> float:
        """The moment of the last sign of life of the peer: any frame is one. On the loop's clock."""

    @property
    def room(self) -> int:
        """Messages that may still be sent before the queue to the network is full; may be negative."""

    @property
    def written(self) -> int:
        """Number of the messages given to ``send`` that have left for the network, in their order.

        Where there is no ``ping``, over HTTP polling, a message counts once the server has answered for it.
        """

    @property
    def welcome(self) -> Mapping[str, Any]:
        """The data of the CONNECT packet that let the client in; empty before, and where there was none."""

    @property
    def name(self) -> str:
        """The carrier: ``websocket`` or ``polling``."""

    async def open(self, auth: Mapping[str, Any] | None) -> None:
        """Open the connection and join the namespace. The caller bounds it by a timeout.

        When it raises or is cancelled, everything it had opened is released by the ``close`` that the
        caller then owes.

        Args:
            auth: The CONNECT packet's auth object.

        Raises:
            TransportError: The network, or a server that is not available.
            AuthenticationError: The server refused the identity.
            ProtocolError: What answers is not a Socket.IO server, or has no such namespace.
        """

    def send(self, payload: Payload, ack_id: int | None) -> None:
        """Queue an event for the network. Never waits; dropped silently once the connection is lost."""

    def answer(self, ack_id: int, payload: Payload) -> None:
        """Queue the acknowledgement of an event that wanted one; ``payload`` holds the arguments only."""

    def ping(self, number: int) -> bool:
        """Ask the peer for a sign of life below the application, which repeats the number.

        It leaves behind all that is ``written``, and may overtake what is not. ``False`` where the transport
        cannot.
        """

    async def close(self, *, goodbye: bool) -> None:
        """Release everything, at once where the peer is dead. Never raises; safe to call twice.

        Args:
            goodbye: Say goodbye first, so that the server forgets the session; only sensible on a
                connection that is alive. The caller bounds it by a timeout and then cancels.
        """


class TransportFactory(Protocol):
    """Makes a fresh transport for every attempt."""

    def __call__(self, listener: TransportListener) -> Transport:
        """Return an unopened transport. Must not perform I/O."""


@frozen(kw_only=True)
class HttpAnswer:
    """An answer of a server over HTTP.

    Attributes:
        status: The status code; 2xx, or 304 where nothing has changed.
        body: The decoded JSON, or ``None`` where there is none.
        etag: The ``ETag`` header, to be sent with the next request for the same address.
        size_bytes: Size of the body.
    """

    status: int
    body: Any = None
    etag: str | None = None
    size_bytes: int = 0


class HttpClient(Protocol):
    """The HTTP side of FALLBACK: bounded in time and size, follows no redirect.

    Opened whenever its client begins to connect, and closed when the client disconnects.
    """

    def open(self) -> None:
        """Be ready for requests, also after a ``close``. Opens nothing by itself."""

    async def get(self, url: str, *, token: str | None, etag: str | None) -> HttpAnswer:
        """Fetch JSON from an address.

        Args:
            url: Absolute.
            token: Sent as a bearer token; only ever to the server's own origin.
            etag: Of the last answer; 304 comes back when nothing has changed.

        Raises:
            TransportError: Nobody answers, in time, or the server is not available (with ``retry_after``).
            AuthenticationError: 401 or 403.
            ProtocolError: A redirect, another refusal, too large a body, or one that is not JSON.
        """

    async def post(self, url: str, body: object, *, token: str | None, idempotency_key: str) -> HttpAnswer:
        """Send JSON and return the JSON answer.

        Errors as for ``get``, but: ``ConnectionLostError`` where the request may have been heeded although
        its answer did not arrive. With any other ``TransportError`` it certainly was not.
        """

    async def close(self) -> None:
        """Release everything; requests from now on are refused. Never raises; safe to call twice."""
