"""One ``connect()`` of the adapter: an engine, and the old client's events on top of it."""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from typing import Any, Final

from attrs import define, evolve, field, frozen
from socketio import AsyncClient as RealClient
from socketio import exceptions

from realtime_fsm.adapters.socketio_transport import SocketIOTransport
from realtime_fsm.engine.dispatcher import UserCode
from realtime_fsm.engine.payload import Payload, encode
from realtime_fsm.engine.port import TransportListener
from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.machine.delivery import Delivery
from realtime_fsm.machine.errors import (
    CallTimeoutError,
    ClosedError,
    ConfigurationError,
    DeliveryError,
    InternalError,
    RealtimeError,
    TokenSourceError,
)
from realtime_fsm.machine.record import AttemptRecord, StatusChange
from realtime_fsm.machine.redaction import redact
from realtime_fsm.machine.table import TRAITS, ConnectionStatus
from realtime_fsm.service import RealtimeService

CallHandler = Callable[..., Awaitable[Any]]
"""Calls the handler of ``(event, namespace, *args)``, if there is one."""

ACK_TIMEOUT: Final = 3600.0
"""Seconds after which an acknowledgement that a live server has not given is no longer waited for."""

_FOREVER: Final = 10 * ACK_TIMEOUT
_DISMISSED: Final = RealClient.reason.SERVER_DISCONNECT

_logger = logging.getLogger("realtime_fsm.migration")

# The engine's transport, and what ``socketio.AsyncClient`` knows beyond it: auth, headers, ids.


@frozen(repr=False)
class Dial:
    """The address, headers and auth that one attempt uses.

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
        """The texts that no error may show."""
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


async def invoke(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function or coroutine function."""
    result = function(*args)
    return await result if inspect.isawaitable(result) else result


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
        """The time at which anything last came from the peer, on the loop's clock."""
        return 0.0 if self._inner is None else self._inner.last_received

    @property
    def room(self) -> int:
        """The number of messages that may still be sent."""
        return 0 if self._inner is None else self._inner.room

    @property
    def written(self) -> int:
        """The number of messages that have left for the network."""
        return 0 if self._inner is None else self._inner.written

    @property
    def welcome(self) -> Mapping[str, Any]:
        """The data of the CONNECT packet that let the client in."""
        return {} if self._inner is None else self._inner.welcome

    @property
    def name(self) -> str:
        """The kind of transport that carries it: ``websocket`` or ``polling``."""
        return self._dialler.config.transports[0] if self._inner is None else self._inner.name

    @property
    def refusal(self) -> tuple[Any] | None:
        """The data of the CONNECT_ERROR packet that kept the client out, alone in a tuple."""
        return None if self._inner is None else self._inner.refusal

    @property
    def is_dismissed(self) -> bool:
        """True if the server ended the connection by a packet that says so."""
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
        """Queue an event for the network."""
        self._opened().send(payload, ack_id)

    def answer(self, ack_id: int, payload: Payload) -> None:
        """Queue an acknowledgement for the network."""
        self._opened().answer(ack_id, payload)

    def ping(self, number: int) -> bool:
        """Ask the peer for a sign of life."""
        return self._opened().ping(number)

    async def close(self, *, goodbye: bool) -> None:
        """Release the connection, and everything that it holds."""
        if self._inner is not None:
            await self._inner.close(goodbye=goodbye)

    def _opened(self) -> SocketIOTransport:
        if self._inner is None:
            raise InternalError("A transport was used before it was opened.")
        return self._inner

    # What the transport below tells.

    def on_event(self, name: str, args: list[Any], ack_id: int | None, size: int = 0) -> None:
        """Pass an event on; one that wants an answer brings the way to give it as its last argument."""
        if ack_id is not None:
            args = [*args, Question(self, ack_id, self._dialler.config.max_message_bytes)]
        self._listener.on_event(name, args, None, size)

    def on_ack(self, ack_id: int, args: list[Any]) -> None:
        """Pass an acknowledgement on."""
        self._listener.on_ack(ack_id, [tuple(args)])

    def on_pong(self, number: int) -> None:
        """Tell the engine that the peer has answered."""
        self._listener.on_pong(number)

    def on_written(self) -> None:
        """Tell the engine that there is room for more."""
        self._listener.on_written()

    def on_malformed(self, error: RealtimeError) -> None:
        """Tell the engine of a frame that could not be read."""
        self._listener.on_malformed(error)

    def on_lost(self, error: RealtimeError) -> None:
        """Tell the engine that the connection has ended."""
        self._listener.on_lost(error)


# One connection, through all its outages.


class ClientSession:
    """A connection of the adapter, through all its outages, from ``connect()`` to its end.

    Args:
        dialler: Makes the transports.
        namespace: The one namespace.
        trigger: Calls the handler of ``(event, namespace, *args)``.

    Attributes:
        realtime: The engine.
        namespace: The one namespace.
        is_live: Whether the connection is open.
        ended: Set when it is closed for good.
    """

    def __init__(self, dialler: Dialler, namespace: str, trigger: CallHandler) -> None:
        self._dialler = dialler
        self._trigger = trigger
        self.namespace = namespace
        self.realtime = RealtimeService(dialler.config, transport_factory=dialler)
        self.is_live = False
        self.ended = asyncio.Event()
        self._was_open = False
        self._running: set[asyncio.Task[Any]] = set()
        self._told: asyncio.Task[Any] | None = None  # the last `connect` or `connect_error`
        self._farewell: asyncio.Task[Any] | None = None  # the last `disconnect`
        self._closing: asyncio.Task[None] | None = None
        self._ends = asyncio.Event()
        self.realtime.on("*", self._event)
        self.realtime.connection_status.subscribe(self._changed)
        self.realtime.connection_status.subscribe_attempts(self._attempted)

    @property
    def sid(self) -> str | None:
        """The namespace's session id, while it is open."""
        made = self._dialler.made
        return made.welcome.get("sid", made.session_id) if self.is_live and made is not None else None

    @property
    def engine_sid(self) -> str | None:
        """The Engine.IO session's id, while it is open."""
        made = self._dialler.made
        return made.session_id if self.is_live and made is not None else None

    @property
    def transport_name(self) -> str | None:
        """The kind of transport that carries it: ``websocket`` or ``polling``."""
        made = self._dialler.made
        return made.name if self.is_live and made is not None else None

    # Beginning and ending.

    async def open(self, *, wait: bool, patience: float) -> None:
        """Connect, and give the ``connect`` handler some time.

        Args:
            wait: Whether a refusal of the namespace is an error.
            patience: Seconds for the handler.

        Raises:
            socketio.exceptions.ConnectionError: If it cannot; everything is released then.
        """
        try:
            await self._connect()
        except RealtimeError as error:
            refused = self._refusal is not None
            await self._close_after(self._told)
            if refused and not wait:
                return
            head = f"One or more namespaces failed to connect: {self.namespace} - " if refused else ""
            raise exceptions.ConnectionError(f"{head}{error}") from error
        except BaseException:
            await self.close()
            raise
        await asyncio.sleep(0)  # the change is told in the loop's next turn
        if self._told is not None:
            await asyncio.wait({self._told}, timeout=patience)

    async def close(self) -> None:
        """End everything, after the ``disconnect`` handler; safe to call twice, and from a handler."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name="realtime_fsm migration: close")
            self._ends.set()
        # The closing waits for the handlers of the goodbye: they must not wait for it, in whatever way.
        if not UserCode.tasks_above() & {self._farewell, self._closing}:
            await asyncio.shield(self._closing)

    async def _connect(self) -> None:
        status = await self.realtime.connect()
        if not TRAITS[status].sends:  # `retry=True`
            settled = (ConnectionStatus.CONNECTED, ConnectionStatus.FAILED)
            await self.realtime.wait_for(*settled)
            if self.realtime.gave_up is not None:
                raise self.realtime.gave_up

    async def _close_after(self, task: asyncio.Task[Any] | None) -> None:
        if task is not None and task is not asyncio.current_task():
            await asyncio.wait({task})
        await self.close()

    async def _close(self) -> None:
        was_trying = self._was_open and not self.is_live
        await self.realtime.disconnect(drain=self.is_live)
        await asyncio.sleep(0)  # the change is told in the loop's next turn
        if self._farewell is not None:
            await asyncio.wait({self._farewell})
        elif was_trying:
            await self._tell("__disconnect_final")
        self.ended.set()

    # Messages.

    async def emit(self, event: str, data: Any, callback: Callable[..., Any] | None) -> None:
        """Send an event; call back with the arguments of its acknowledgement.

        Raises:
            RealtimeError: If it cannot be sent.
        """
        if callback is None:
            await self.realtime.emit(event, data, delivery=Delivery.AT_MOST_ONCE)
            return
        asking = self._spawn(self._ask(event, data, _FOREVER), f"ack of {event}")
        await asyncio.sleep(0)  # it has been accepted, or refused, when this returns
        if asking.done() and (error := asking.exception()) is not None:
            raise error
        self._spawn(self._call_back(event, asking, callback), f"callback of {event}")

    async def call(self, event: str, data: Any, seconds: float | None) -> tuple[Any, ...]:
        """Send an event, and return the arguments of its acknowledgement.

        Raises:
            socketio.exceptions.TimeoutError: If there is none in time, or the connection ended before.
            RealtimeError: If it cannot be sent.
        """
        try:
            return await self._ask(event, data, _FOREVER if seconds is None else seconds)
        except (CallTimeoutError, DeliveryError) as error:
            raise exceptions.TimeoutError(str(error)) from None

    async def _ask(self, event: str, data: Any, seconds: float) -> tuple[Any, ...]:
        args: tuple[Any, ...] = await self.realtime.call(
            event, data, timeout=seconds, delivery=Delivery.AT_MOST_ONCE
        )
        return args

    async def _call_back(
        self, event: str, asking: "asyncio.Task[tuple[Any, ...]]", callback: Callable[..., Any]
    ) -> None:
        try:
            args = await asking
        except (CallTimeoutError, ClosedError, DeliveryError) as error:
            _logger.info("no acknowledgement of %r: %s", event, error.message)
            return
        await self._guarded(f"the callback of {event!r}", invoke(callback, *args))

    # What the engine tells.

    def _event(self, name: str, *args: Any) -> Awaitable[Any] | None:
        """Handle an event in a task of its own, as the old client does; wait where there are very many."""
        question = args[-1] if args and isinstance(args[-1], Question) else None
        given = args if question is None else args[:-1]
        self._spawn(self._handle(name, given, question), f"handler of {name}")
        if len(self._running) < self.realtime.config.max_pending_events:
            return None
        return self._relieved()

    async def _relieved(self) -> None:
        ends = asyncio.ensure_future(self._ends.wait())  # what runs may itself wait for the end
        try:
            await asyncio.wait({*self._running, ends}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ends.cancel()

    async def _handle(self, name: str, args: tuple[Any, ...], question: Question | None) -> None:
        what = f"the handler of {name!r}"
        answered = invoke(self._trigger, name, self.namespace, *args)
        if question is None:
            await self._guarded(what, answered)
        else:
            await self._guarded(what, _answer(question, answered))

    def _changed(self, change: StatusChange) -> None:
        if change.is_connected:
            self.is_live = self._was_open = True
            self._farewell = None
            self._told = self._spawn(self._tell("connect"), "connect")
            return
        gave_up = TRAITS[change.current].gives_up
        if change.is_lost:
            self.is_live = False
            made = self._dialler.made
            dismissed = made is not None and made.is_dismissed
            reason = RealClient.reason.TRANSPORT_ERROR
            if change.is_goodbye or dismissed:
                reason = RealClient.reason.CLIENT_DISCONNECT if change.is_goodbye else _DISMISSED
            is_final = change.is_goodbye or dismissed or gave_up
            self._farewell = self._spawn(self._leave(reason, is_final=is_final), "disconnect")
            if is_final and not change.is_goodbye:
                self._spawn(self.close(), "close")
        elif gave_up and self._was_open:
            self._spawn(self.close(), "close")

    def _attempted(self, attempt: AttemptRecord) -> None:
        if attempt.error is None:
            return
        refusal = self._refusal
        args: tuple[Any, ...] = (attempt.error.message,)
        if refusal is not None:
            (data,) = refusal
            args = () if data is None else tuple(data) if isinstance(data, (tuple, list)) else (data,)
        self._told = self._spawn(self._tell("connect_error", *args), "connect_error")

    @property
    def _refusal(self) -> tuple[Any] | None:
        made = self._dialler.made
        return None if made is None else made.refusal

    # Running the user's code.

    async def _leave(self, reason: str, *, is_final: bool) -> None:
        await self._tell("disconnect", reason)
        if is_final:
            await self._tell("__disconnect_final")

    async def _tell(self, event: str, *args: Any) -> None:
        await self._guarded(f"the handler of {event!r}", invoke(self._trigger, event, self.namespace, *args))

    async def _guarded(self, what: str, work: Awaitable[Any]) -> None:
        """Await the user's code; what it raises is logged, and disturbs nothing."""
        try:
            with UserCode():
                await work
        except Exception:
            _logger.exception("%s failed", what)

    def _spawn(self, work: Coroutine[Any, Any, Any], what: str) -> "asyncio.Task[Any]":
        task = asyncio.get_running_loop().create_task(work, name=f"realtime_fsm migration: {what}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task


async def _answer(question: Question, handled: Awaitable[Any]) -> None:
    question.answer(await handled)
