"""The engine's transport, and what ``socketio.AsyncClient`` knows beyond it: auth, headers, ids."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from attrs import define, evolve, field, frozen

from realtime_fsm.adapters.socketio_transport import SocketIOTransport
from realtime_fsm.engine.payload import Payload, encode
from realtime_fsm.engine.port import TransportListener
from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.machine.errors import (
    ConfigurationError,
    InternalError,
    RealtimeError,
    TokenSourceError,
)
from realtime_fsm.machine.redaction import redact


@frozen(repr=False)
class Dial:
    """What one attempt uses.

    Attributes:
        url: Of the server.
        headers: Sent with every request.
        auth: The CONNECT packet's auth object.
    """

    url: str
    headers: Mapping[str, str]
    auth: Mapping[str, Any]

    @property
    def secrets(self) -> set[str]:
        """What no error may show."""
        return {*_texts(self.auth), *_texts(self.headers)}


def _texts(value: object) -> Iterator[str]:
    """Yield every text that is, or is in, a value."""
    if isinstance(value, str):
        yield value
        yield from value.split()[1:]  # what follows "Bearer"
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _texts(part)


@frozen
class Question:
    """An event that the server wants answered, and the way to answer it.

    Attributes:
        transport: On which it came.
        ack_id: Its number.
        max_bytes: Size of an answer, at most.
    """

    transport: "ClientTransport"
    ack_id: int
    max_bytes: int

    def answer(self, result: object) -> None:
        """Send what a handler returned: a tuple is several arguments, ``None`` is none.

        Raises:
            InvalidArgumentError: If it cannot be sent.
        """
        args = [] if result is None else list(result) if isinstance(result, tuple) else [result]
        self.transport.answer(self.ack_id, encode(args, what="The answer", max_bytes=self.max_bytes))


@define(eq=False, repr=False)
class Dialler:
    """Makes the transports of one ``connect()``: the port ``TransportFactory``.

    ``url``, ``headers`` and ``auth`` are values, functions, or coroutine functions, which are then asked
    before every attempt.

    Attributes:
        config: The configuration.
        url: Of the server.
        headers: HTTP headers.
        auth: The auth object.
        made: The transport that was made last.
    """

    config: RealtimeConfig
    url: Any
    headers: Any
    auth: Any
    made: "ClientTransport | None" = field(default=None, init=False)
    _first: Dial | None = field(default=None, init=False)
    _count: int = field(default=0, init=False)

    def __call__(self, listener: TransportListener) -> "ClientTransport":
        """Return an unopened transport."""
        self.made = ClientTransport(self, listener)
        return self.made

    async def prepare(self) -> None:
        """Ask for the first attempt's values now, so that what the callables raise reaches the caller."""
        self._first = await self._ask()

    async def next_dial(self) -> tuple[Dial, bool]:
        """Return what the next attempt uses, and whether it is the first one.

        Raises:
            TokenSourceError: If one of the callables fails.
        """
        self._count += 1
        first, self._first = self._first, None
        if first is not None:
            return first, True
        try:
            return await self._ask(), False
        except Exception as error:
            raise TokenSourceError(
                f"url=, headers= or auth= of connect() raised {type(error).__name__}.",
                remedy="Mend the function; it is called again before the next attempt.",
            ) from error

    async def _ask(self) -> Dial:
        url, headers, auth = [await real_value(one) for one in (self.url, self.headers, self.auth)]
        if not isinstance(auth or {}, Mapping):
            raise ConfigurationError(
                f"auth must be a dict here, and is of the type {type(auth).__name__}: give {{'token': ...}}"
            )
        return Dial(http_url(url), dict(headers or {}), dict(auth or {}))


async def real_value(value: Any) -> Any:
    """Return a value that may be given as a function, or as a coroutine function, of no arguments."""
    if callable(value):
        value = value()
    return await value if inspect.isawaitable(value) else value


def http_url(url: Any) -> Any:
    """Return an address with the scheme that it stands for; python-socketio takes ``ws://`` as well."""
    for scheme, instead in (("ws://", "http://"), ("wss://", "https://")):
        if isinstance(url, str) and url.startswith(scheme):
            return instead + url.removeprefix(scheme)
    return url


class ClientTransport:
    """A transport of the engine, and the listener of the one that carries it.

    It hands the engine the raw arguments of an acknowledgement as one, and marks events that want an answer
    with a ``Question``: then their handlers need not run one after the other.

    Args:
        dialler: Says what to connect to.
        listener: The engine.
    """

    def __init__(self, dialler: Dialler, listener: TransportListener) -> None:
        self._dialler = dialler
        self._listener = listener
        self._inner: SocketIOTransport | None = None

    # What the engine asks.

    @property
    def last_received(self) -> float:
        """When anything last came from the peer."""
        return 0.0 if self._inner is None else self._inner.last_received

    @property
    def is_paused(self) -> bool:
        """Whether reading is held back."""
        return self._inner is not None and self._inner.is_paused

    @property
    def room(self) -> int:
        """How many more messages may be sent."""
        return 0 if self._inner is None else self._inner.room

    @property
    def written(self) -> int:
        """How many messages have left for the network."""
        return 0 if self._inner is None else self._inner.written

    @property
    def welcome(self) -> Mapping[str, Any]:
        """The data of the CONNECT packet that let the client in."""
        return {} if self._inner is None else self._inner.welcome

    @property
    def name(self) -> str:
        """What carries it."""
        return self._dialler.config.transports[0] if self._inner is None else self._inner.name

    @property
    def refusal(self) -> tuple[Any] | None:
        """The data of the CONNECT_ERROR packet that kept the client out, alone in a tuple."""
        return None if self._inner is None else self._inner.refusal

    @property
    def is_dismissed(self) -> bool:
        """Whether the server ended the connection by a packet that says so."""
        return self._inner is not None and self._inner.is_dismissed

    @property
    def session_id(self) -> str | None:
        """The identity of the Engine.IO session."""
        return None if self._inner is None else self._inner.session_id

    async def open(self, auth: Mapping[str, Any] | None) -> None:
        """Open the connection; see ``Transport.open``.

        Like ``socketio.AsyncClient``, a client that was connected goes on trying when it is refused.
        """
        dial, is_first = await self._dialler.next_dial()
        try:
            config = evolve(self._dialler.config, server_url=dial.url)
            self._inner = SocketIOTransport(config, self, headers=dial.headers)
            await self._inner.open({**(auth or {}), **dial.auth})
        except RealtimeError as error:
            redact(error, dial.secrets)
            error.retryable = error.retryable or not is_first
            raise

    def send(self, payload: Payload, ack_id: int | None) -> None:
        """Queue an event."""
        self._opened().send(payload, ack_id)

    def answer(self, ack_id: int, payload: Payload) -> None:
        """Queue an acknowledgement."""
        self._opened().answer(ack_id, payload)

    def ping(self) -> bool:
        """Ask the peer for a sign of life."""
        return self._opened().ping()

    async def close(self, *, goodbye: bool) -> None:
        """Release everything."""
        if self._inner is not None:
            await self._inner.close(goodbye=goodbye)

    def _opened(self) -> SocketIOTransport:
        if self._inner is None:
            raise InternalError("A transport was used before it was opened.")
        return self._inner

    # What the transport below tells.

    def on_event(self, name: str, args: list[Any], ack_id: int | None) -> None:
        """Pass an event on; one that wants an answer brings the way to give it as its last argument."""
        if ack_id is not None:
            args = [*args, Question(self, ack_id, self._dialler.config.max_message_bytes)]
        self._listener.on_event(name, args, None)

    def on_ack(self, ack_id: int, args: list[Any]) -> None:
        """Pass an acknowledgement on."""
        self._listener.on_ack(ack_id, [tuple(args)])

    def on_pong(self) -> None:
        """Pass it on."""
        self._listener.on_pong()

    def on_written(self) -> None:
        """Pass it on."""
        self._listener.on_written()

    def on_malformed(self, error: RealtimeError) -> None:
        """Pass it on."""
        self._listener.on_malformed(error)

    def on_lost(self, error: RealtimeError) -> None:
        """Pass it on."""
        self._listener.on_lost(error)

    @property
    def is_congested(self) -> bool:
        """Whether the handlers are behind."""
        return self._listener.is_congested

    async def relieved(self) -> None:
        """Wait for the handlers."""
        await self._listener.relieved()
