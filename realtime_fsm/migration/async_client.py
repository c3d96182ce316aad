"""``AsyncClient``: code written for ``socketio.AsyncClient`` runs on the engine by changing the import."""

import asyncio
import inspect
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar, overload

from attrs import frozen
from socketio import AsyncClient as RealClient
from socketio import AsyncClientNamespace, exceptions

from realtime_fsm.machine.backoff import JITTER
from realtime_fsm.machine.config import TRANSPORTS, RealtimeConfig
from realtime_fsm.machine.dialect import Dialect
from realtime_fsm.machine.errors import ClosedError, ConfigurationError
from realtime_fsm.migration.async_session import (
    ACK_TIMEOUT,
    ClientSession,
    Dialler,
    http_url,
    invoke,
    real_value,
)
from realtime_fsm.service import RealtimeService

H = TypeVar("H", bound=Callable[..., Any])

RESERVED: Final = ("connect", "connect_error", "disconnect", "__disconnect_final")
"""Events that no catch-all handler gets."""

ANY: Final = "*"


class AsyncClient:
    """The interface of ``socketio.AsyncClient`` on ``RealtimeService``.

    ::

        from realtime_fsm import migration as socketio

        sio = socketio.AsyncClient()

    Names, arguments, events and exceptions (``socketio.exceptions``) are python-socketio's; its own
    documentation describes them. What is different:

    - One namespace for each client. Several, and the other arguments that this engine cannot keep, raise
      ``ConfigurationError``, which names the argument and the remedy.
    - A lost connection is noticed within ``heartbeat_interval + heartbeat_timeout`` on the websocket.
    - ``call`` raises its ``TimeoutError`` at once when the connection ends, and not only at the time-out.
    - ``disconnect()`` during an outage ends the reconnecting, as ``shutdown()`` does.
    - What a handler raises is logged (logger ``realtime_fsm.migration``), not handed to the loop.
    - ``handle_sigint`` changes nothing: no signal handler is installed, and none is needed.

    Args:
        reconnection: As there; so are all that follow but the last.
        reconnection_attempts: 0 for ever.
        reconnection_delay: Seconds; the first attempt after a loss comes within that time.
        reconnection_delay_max: Seconds.
        randomization_factor: Attempts come up to twice as many seconds later than their delay.
        logger: ``True`` logs what the library does at INFO.
        serializer: Only ``"default"``.
        json: Only ``None``.
        handle_sigint: See above.
        request_timeout: Seconds; with ``wait_timeout`` it bounds an attempt.
        http_session: Only ``None``.
        ssl_verify: Only ``True``.
        websocket_extra_options: Only ``None``.
        timestamp_requests: Only ``True``.
        engineio_logger: As ``logger``.
        realtime: Fields of ``RealtimeConfig`` that win over all of these: what the old client has not.

    Attributes:
        handlers: By namespace and event.
        namespace_handlers: By namespace.

    Raises:
        ConfigurationError: If an argument cannot be kept.
    """

    reason = RealClient.reason
    reserved_events: Final = RESERVED

    def __init__(  # noqa: PLR0917 - the order is python-socketio's
        self,
        reconnection: bool = True,
        reconnection_attempts: int = 0,
        reconnection_delay: float = 1,
        reconnection_delay_max: float = 5,
        randomization_factor: float = 0.5,
        logger: bool = False,
        serializer: str = "default",
        json: None = None,
        handle_sigint: bool = True,
        *,
        request_timeout: float = 5,
        http_session: None = None,
        ssl_verify: bool = True,
        websocket_extra_options: Mapping[str, Any] | None = None,
        timestamp_requests: bool = True,
        engineio_logger: bool | None = None,
        realtime: Mapping[str, Any] | None = None,
    ) -> None:
        refuse_what_cannot_be_kept(
            serializer=serializer,
            json=json,
            http_session=http_session,
            ssl_verify=ssl_verify,
            websocket_extra_options=websocket_extra_options or None,
            timestamp_requests=timestamp_requests,
            logger=logger,
            engineio_logger=engineio_logger,
        )
        self._options = ClientOptions(
            reconnection=reconnection,
            reconnection_attempts=reconnection_attempts,
            reconnection_delay=reconnection_delay,
            reconnection_delay_max=reconnection_delay_max,
            randomization_factor=randomization_factor,
            request_timeout=request_timeout,
            log_level=log_level(logger=logger, engineio_logger=engineio_logger),
            overrides=dict(realtime or {}),
        )
        self.handle_sigint = handle_sigint
        self.handlers: dict[str, dict[str, Callable[..., Any]]] = {}
        self.namespace_handlers: dict[str, Any] = {}
        self._session: ClientSession | None = None

    # What it looks like.

    @property
    def connected(self) -> bool:
        """True while the connection is open."""
        return self._session is not None and self._session.is_live

    @property
    def namespaces(self) -> dict[str, str | None]:
        """The connected namespaces, with their session ids."""
        session = self._session
        return {session.namespace: session.sid} if session is not None and session.is_live else {}

    @property
    def sid(self) -> str | None:
        """The id of the Engine.IO session."""
        return None if self._session is None else self._session.engine_sid

    @property
    def realtime(self) -> RealtimeService | None:
        """The engine, once ``connect`` was called: what new code uses, beside the old."""
        return None if self._session is None else self._session.realtime

    @property
    def eio(self) -> Any:
        """Say that there is no Engine.IO client to be had here."""
        raise AttributeError(
            "There is no `eio` on this engine: for its state use `connected`, `sid` and `transport()`, "
            "and for everything else `realtime`."
        )

    def get_sid(self, namespace: str | None = None) -> str | None:
        """Return the session id of a namespace, or ``None`` where it is not connected."""
        return self.namespaces.get(namespace or "/")

    def transport(self) -> str | None:
        """Return ``websocket`` or ``polling``."""
        return None if self._session is None else self._session.transport_name

    def is_asyncio_based(self) -> bool:
        """Return ``True``: the client runs on asyncio."""
        return True

    # Handlers: one for each event, catch-alls, and classes.

    @overload
    def on(self, event: str, handler: None = None, namespace: str | None = None) -> Callable[[H], H]: ...
    @overload
    def on(self, event: str, handler: Callable[..., Any], namespace: str | None = None) -> None: ...
    def on(
        self, event: str, handler: Callable[..., Any] | None = None, namespace: str | None = None
    ) -> Callable[[H], H] | None:
        """Register the handler of an event, or return a decorator that does. A second one replaces the first.

        Args:
            event: Its name; ``*`` for every event that has no handler of its own.
            handler: A function or coroutine function.
            namespace: Its namespace; ``*`` for every one that has no handlers of its own.
        """

        def register(given: H) -> H:
            self.handlers.setdefault(namespace or "/", {})[event] = given
            return given

        if handler is None:
            return register
        register(handler)
        return None

    def event(self, *args: Any, **kwargs: Any) -> Any:
        """Register a function as the handler of the event that it is named after; a decorator.

        ``@sio.event`` or ``@sio.event(namespace="/chat")``.
        """
        if len(args) == 1 and not kwargs and callable(args[0]):
            return self.on(args[0].__name__)(args[0])
        return lambda handler: self.on(handler.__name__, *args, **kwargs)(handler)

    def register_namespace(self, namespace_handler: AsyncClientNamespace) -> None:
        """Register an object of a class with a method ``on_<event>`` for each event.

        Raises:
            ValueError: If it is not an ``AsyncClientNamespace``.
        """
        if not isinstance(namespace_handler, AsyncClientNamespace):
            raise ValueError("Not a namespace instance")  # noqa: TRY004 - it is what python-socketio raises
        namespace_handler.client = self
        self.namespace_handlers[namespace_handler.namespace] = namespace_handler

    async def _trigger_event(self, event: str, namespace: str, *args: Any) -> Any:
        """Call the handler of an event, if there is one; return what it gives."""
        handler, with_args = self._find(event, namespace, args)
        if handler is not None:
            return await invoke(handler, *fitting(handler, event, with_args))
        owner = self.namespace_handlers.get(namespace)
        if owner is None and (owner := self.namespace_handlers.get(ANY)) is not None:
            args = (namespace, *args)
        return None if owner is None else await owner.trigger_event(event, *args)

    def _find(
        self, event: str, namespace: str, args: tuple[Any, ...]
    ) -> tuple[Callable[..., Any] | None, tuple[Any, ...]]:
        """Return the function that handles an event, and its arguments.

        The order is that of python-socketio: the event in the namespace, any event in it, and only where
        the namespace has no handlers at all, those of any namespace.
        """
        is_plain = event not in RESERVED
        if (own := self.handlers.get(namespace)) is not None:
            if event in own:
                return own[event], args
            return (own[ANY], (event, *args)) if is_plain and ANY in own else (None, args)
        common = self.handlers.get(ANY, {})
        if event in common:
            return common[event], (namespace, *args)
        return (common[ANY], (event, namespace, *args)) if is_plain and ANY in common else (None, args)

    # Beginning and ending.

    async def connect(  # noqa: PLR0917 - the order is python-socketio's
        self,
        url: Any,
        headers: Any = None,
        auth: Any = None,
        transports: str | Sequence[str] | None = None,
        namespaces: str | Sequence[str] | None = None,
        socketio_path: str = "socket.io",
        wait: bool = True,
        wait_timeout: float = 1,
        retry: bool = False,
    ) -> None:
        """Connect to a server; the arguments are those of ``socketio.AsyncClient.connect``.

        ``url``, ``headers`` and ``auth`` may be functions, which are then called before every attempt.

        Raises:
            socketio.exceptions.ConnectionError: If it cannot, or is connected already.
            ConfigurationError: If an argument cannot be kept, with the remedy.
        """
        if self.connected:
            raise exceptions.ConnectionError("Already connected")
        if self._session is not None:
            await self._session.close()  # it may still be reconnecting
        namespace = only_namespace(namespaces, {*self.handlers, *self.namespace_handlers})
        config = self._options.config(
            url=http_url(await real_value(url)),
            namespace=namespace,
            socketio_path=socketio_path,
            transports=transports,
            wait_timeout=wait_timeout,
            retry=retry,
        )
        dialler = Dialler(config, url, headers, auth)
        await dialler.prepare()
        session = self._session = ClientSession(dialler, namespace, self._trigger_event)
        await session.open(wait=wait, patience=wait_timeout)

    async def wait(self) -> None:
        """Wait until the connection has ended for good."""
        while self._session is not None and not self._session.ended.is_set():
            await self._session.ended.wait()

    async def disconnect(self) -> None:
        """Disconnect, after what was emitted has been sent."""
        if self._session is not None:
            await self._session.close()

    async def shutdown(self) -> None:
        """Disconnect, or end the reconnecting."""
        await self.disconnect()

    # Messages.

    async def emit(
        self,
        event: str,
        data: Any = None,
        namespace: str | None = None,
        callback: Callable[..., Any] | None = None,
    ) -> None:
        """Send an event; a tuple is several arguments, ``None`` is none.

        Args:
            event: Its name.
            data: JSON, or bytes within it.
            namespace: The one that is connected.
            callback: Called with the arguments of the server's acknowledgement.

        Raises:
            socketio.exceptions.BadNamespaceError: If the namespace is not connected. To have messages wait
                for the connection instead, use ``realtime.emit``.
            InvalidArgumentError: If it cannot be sent, ever.
        """
        session = self._connected_to(namespace)
        try:
            await session.emit(event, data, callback)
        except ClosedError:
            raise _not_connected(namespace) from None

    async def send(
        self, data: Any, namespace: str | None = None, callback: Callable[..., Any] | None = None
    ) -> None:
        """Send an event named ``message``; see ``emit``."""
        await self.emit("message", data, namespace, callback)

    async def call(
        self,
        event: str,
        data: Any = None,
        namespace: str | None = None,
        timeout: float | None = 60,  # noqa: ASYNC109 - the signature is python-socketio's
    ) -> Any:
        """Send an event, and return what the server acknowledges it with; a tuple where that is several.

        Raises:
            socketio.exceptions.TimeoutError: If it does not in time, or the connection ends before.
            socketio.exceptions.BadNamespaceError: As for ``emit``.
        """
        session = self._connected_to(namespace)
        try:
            args = await session.call(event, data, timeout)
        except ClosedError:
            raise _not_connected(namespace) from None
        return args if len(args) > 1 else args[0] if args else None

    # The rest.

    def start_background_task(
        self, target: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> "asyncio.Future[Any]":
        """Start a task that runs a coroutine function; return it."""
        task: asyncio.Future[Any] = asyncio.ensure_future(target(*args, **kwargs))
        return task

    async def sleep(self, seconds: float = 0) -> None:
        """Sleep without holding up the event loop."""
        await asyncio.sleep(seconds)

    def _connected_to(self, namespace: str | None) -> ClientSession:
        session = self._session
        if session is None or not session.is_live or session.namespace != (namespace or "/"):
            raise _not_connected(namespace)
        return session


def _not_connected(namespace: str | None) -> exceptions.BadNamespaceError:
    return exceptions.BadNamespaceError(f"{namespace or '/'} is not a connected namespace.")


def fitting(handler: Callable[..., Any], event: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the arguments that a handler takes: an old one of ``disconnect`` does not take the reason."""
    if event != "disconnect":
        return args
    try:
        inspect.signature(handler).bind(*args)
    except (TypeError, ValueError):
        return args[:-1]
    return args


# From the arguments to a configuration, or to a refusal by name.

DIALECT: Final = Dialect(name="socketio.AsyncClient", heartbeat_event=None, recovers_sessions=False)
"""Nothing on the wire that the old client did not send, and events with all the arguments that they had."""

_UNBOUNDED: Final = 64 * 1024 * 1024
_LEAST_DELAY: Final = 0.001

_KEPT: Final[Mapping[str, tuple[Any, str]]] = {
    "serializer": ("default", "leave it out: the engine speaks Socket.IO's own JSON with binary attachments"),
    "json": (None, "leave it out, and convert your data before `emit`: the engine encodes strict JSON"),
    "http_session": (
        None,
        (
            "leave it out: the engine opens a session of its own for every attempt; for headers use "
            "`connect(headers=...)`, for a private CA the environment variable SSL_CERT_FILE"
        ),
    ),
    "ssl_verify": (
        True,
        "leave it out, and make the certificate trusted: the environment variable SSL_CERT_FILE names a CA",
    ),
    "websocket_extra_options": (None, "leave it out; for headers use `connect(headers=...)`"),
    "timestamp_requests": (True, "leave it out: requests always carry a timestamp"),
}
"""Arguments that can only have their default, and what to do instead."""

_NAMES: Final = {
    "server_url": "url",
    "backoff_base": "reconnection_delay",
    "backoff_maximum": "reconnection_delay_max",
    "max_reconnect_attempts": "reconnection_attempts",
    "connection_timeout": "request_timeout + wait_timeout",
    "first_retry_within": "reconnection_delay",
}
"""Our names of what the old client calls otherwise, for the words of an error."""


@frozen(kw_only=True)
class ClientOptions:
    """The constructor's arguments that mean something to the engine.

    Attributes:
        reconnection: Whether a lost connection is opened again.
        reconnection_attempts: How often it is tried; 0 for ever.
        reconnection_delay: Seconds before the first attempt; doubled for each that follows.
        reconnection_delay_max: Its cap.
        randomization_factor: Half the width of the jitter, seconds. python-socketio adds
            ``U(-factor, factor)`` to a delay, this engine ``U(0, 2 * factor)``: as wide, and never earlier.
        request_timeout: Seconds in which a session must be open.
        log_level: Of the library's logger.
        overrides: Fields of ``RealtimeConfig`` that win over everything else.
    """

    reconnection: bool
    reconnection_attempts: int
    reconnection_delay: float
    reconnection_delay_max: float
    randomization_factor: float
    request_timeout: float
    log_level: str
    overrides: Mapping[str, Any]

    def config(
        self,
        *,
        url: str,
        namespace: str,
        socketio_path: str,
        transports: str | Collection[str] | None,
        wait_timeout: float,
        retry: bool,
    ) -> RealtimeConfig:
        """Return the configuration of one ``connect()``.

        Raises:
            ConfigurationError: For everything in it that is wrong, by the names of the old client.
        """
        attempts = (self.reconnection_attempts or None) if self.reconnection else 0
        maximum = max(self.reconnection_delay_max, _LEAST_DELAY)
        base = self.reconnection_delay or _LEAST_DELAY
        fields = {
            "server_url": url,
            "namespace": namespace,
            "socketio_path": socketio_path,
            "transports": wanted_transports(transports),
            "dialect": DIALECT,
            "max_reconnect_attempts": attempts,
            "retry_initial": retry,
            "connection_timeout": self.request_timeout + wait_timeout,
            "stable_after": 0.0,
            "first_retry_within": min(self.reconnection_delay, maximum),
            "backoff_base": min(base, maximum),
            "backoff_maximum": maximum,
            "backoff_jitter": self.randomization_factor > 0,
            "backoff_spread": 2.0 * self.randomization_factor if self.randomization_factor > 0 else JITTER,
            "enable_fallback": False,
            "ack_timeout": ACK_TIMEOUT,
            "max_in_flight": 10_000,
            "max_message_bytes": _UNBOUNDED,
            "log_level": self.log_level,
        }
        try:
            return RealtimeConfig(**{**fields, **self.overrides})
        except ConfigurationError as error:
            raise ConfigurationError(*map(_in_old_words, error.problems)) from None


def refuse_what_cannot_be_kept(**given: Any) -> None:
    """Check the arguments that can only have their default.

    Raises:
        ConfigurationError: For each that has not, with the remedy.
    """
    problems = list(_problems(given))
    if problems:
        raise ConfigurationError(*problems)


def _problems(given: Mapping[str, Any]) -> Iterator[str]:
    for name, (default, remedy) in _KEPT.items():
        if given[name] != default:
            yield f"{name} cannot be kept on this engine: {remedy}"
    for name in ("logger", "engineio_logger"):
        if not isinstance(given[name], (bool, type(None))):
            yield (
                f"{name} cannot be a logger of your own: leave it out, and configure the logger "
                "'realtime_fsm' instead"
            )


def log_level(*, logger: bool, engineio_logger: bool | None) -> str:
    """Return the level that was asked for, and see to it that what is logged is seen, as it used to be."""
    if not (logger or engineio_logger):
        return "warn"
    own = logging.getLogger("realtime_fsm")
    handlers = [*own.handlers, *logging.getLogger().handlers]
    if all(isinstance(handler, logging.NullHandler) for handler in handlers):
        own.addHandler(logging.StreamHandler())
    return "info"


def only_namespace(wanted: str | Collection[str] | None, registered: Collection[str]) -> str:
    """Return the one namespace of a connection.

    Args:
        wanted: What ``connect`` was given.
        registered: The namespaces that have handlers.

    Raises:
        ConfigurationError: If there are several.
    """
    names = [wanted] if isinstance(wanted, str) else [*registered] if wanted is None else [*wanted]
    names = sorted({name or "/" for name in names if wanted is not None or name != "*"}) or ["/"]
    if len(names) > 1:
        raise ConfigurationError(
            f"namespaces={names!r} cannot share one connection of this engine: make an AsyncClient for each, "
            "and give its handlers and its `connect(namespaces=...)` just that one"
        )
    return names[0]


def wanted_transports(given: str | Collection[str] | None) -> tuple[str, ...]:
    """Return the transports in the order in which this engine tries them.

    The old client begins with polling and upgrades; this one begins with the websocket, and polls where
    that is not possible.

    Raises:
        ValueError: If none of them is one.
    """
    names = TRANSPORTS if given is None else (given,) if isinstance(given, str) else tuple(given)
    known = tuple(name for name in TRANSPORTS if name in names)
    if not known:
        raise ValueError("No valid transports provided")
    return known


def _in_old_words(problem: str) -> str:
    name, sign, rest = problem.partition("=")
    return f"{_NAMES.get(name, name)}{sign}{rest}".replace("`token=`", "`auth=` of connect()")
