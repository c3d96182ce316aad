"""``AsyncClient``: code written for ``socketio.AsyncClient`` runs on the engine by changing the import."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from socketio import AsyncClient as RealClient
from socketio import exceptions

from realtime_fsm.machine.errors import ClosedError
from realtime_fsm.migration.async_handlers import RESERVED, ClientHandlers
from realtime_fsm.migration.async_options import (
    ClientOptions,
    Spread,
    log_level,
    only_namespace,
    refuse_what_cannot_be_kept,
)
from realtime_fsm.migration.async_session import ClientSession, Dialler, http_url, real_value
from realtime_fsm.service import RealtimeService


class AsyncClient(ClientHandlers):
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
        super().__init__()
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
        self._session: ClientSession | None = None

    # What it looks like.

    @property
    def connected(self) -> bool:
        """Whether the connection is open."""
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
        """Return ``True``."""
        return True

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
        spread = Spread(self._options.randomization_factor)
        session = self._session = ClientSession(dialler, namespace, self._trigger_event, spread)
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
        """Sleep."""
        await asyncio.sleep(seconds)

    def _connected_to(self, namespace: str | None) -> ClientSession:
        session = self._session
        if session is None or not session.is_live or session.namespace != (namespace or "/"):
            raise _not_connected(namespace)
        return session


def _not_connected(namespace: str | None) -> exceptions.BadNamespaceError:
    return exceptions.BadNamespaceError(f"{namespace or '/'} is not a connected namespace.")
