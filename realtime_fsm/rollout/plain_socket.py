"""One connection of a plain ``socketio.AsyncClient``: opened once, closed once, and nothing of it is left."""

import asyncio
import inspect
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import aiohttp
import socketio

from realtime_fsm.adapters.error_translation import origin_of, words
from realtime_fsm.engine.port import Token, TokenSource
from realtime_fsm.machine.config import TRANSPORTS, RealtimeConfig
from realtime_fsm.machine.errors import (
    AuthenticationError,
    ConnectTimeoutError,
    RealtimeError,
    ServerUnavailableError,
    ServerUnreachableError,
    TokenSourceError,
)

_CLOSE_TIMEOUT: Final = 2.0

_logger = logging.getLogger("realtime_fsm.migration")

_silent = logging.Logger("the old client", logging.CRITICAL)  # noqa: LOG001 - nobody must be able to get at it
"""python-socketio logs every packet, and so the token; what matters is told by the errors."""


class _Session:
    """A session that closes everything that was ever opened with it.

    python-engineio 4.15 leaves the session, and what it holds, open where a websocket cannot be connected.
    """

    def __init__(self) -> None:
        self._session = aiohttp.ClientSession()
        self._opened: list[aiohttp.ClientResponse | aiohttp.ClientWebSocketResponse] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    async def get(self, *args: Any, **options: Any) -> Any:
        return self._kept(await self._session.get(*args, **options))

    async def post(self, *args: Any, **options: Any) -> Any:
        return self._kept(await self._session.post(*args, **options))

    async def ws_connect(self, *args: Any, **options: Any) -> Any:
        return self._kept(await self._session.ws_connect(*args, **options))

    async def close(self) -> None:
        for one in self._opened:
            closing = one.close()
            if closing is not None:
                await closing
        await self._session.close()

    def _kept(self, one: Any) -> Any:
        self._opened = [*(other for other in self._opened if not other.closed), one]
        return one


class PlainSocket:
    """A plain client for one connection. Made on the loop; ``open`` or ``close`` must be called.

    Args:
        config: Where to connect: the address, the path, the namespace, the transports, the time-out.
        on_event: Called with the name and the arguments of every event, in their order; what it returns
            is awaited, and answers the server.
        on_lost: Called once, when the connection has ended by itself.
    """

    def __init__(
        self,
        config: RealtimeConfig,
        *,
        on_event: Callable[[str, list[Any]], Any],
        on_lost: Callable[[str], None],
    ) -> None:
        self._config = config
        self._on_event = on_event
        self._on_lost = on_lost
        self._refusal: object = None
        self._session = _Session()
        self._client = socketio.AsyncClient(
            reconnection=False,
            handle_sigint=False,
            http_session=self._session,
            logger=_silent,
            engineio_logger=_silent,
        )
        self._is_closing = False
        self._asked: set[asyncio.Future[list[Any]]] = set()
        namespace = config.namespace
        self._client.on("*", self._event, namespace=namespace)
        self._client.on("disconnect", self._disconnected, namespace=namespace)
        self._client.on("connect_error", self._refused, namespace=namespace)

    @property
    def is_live(self) -> bool:
        """True while it is connected."""
        return bool(self._client.connected) and not self._is_closing

    async def open(self, token: TokenSource | None) -> None:
        """Connect; raise why not, with everything closed.

        Raises:
            RealtimeError: In the words of the library.
        """
        config = self._config
        try:
            async with asyncio.timeout(config.connection_timeout):
                await self._dial({} if token is None else {config.dialect.token_key: await value_of(token)})
        except TimeoutError:
            await self.close()
            told = f"{origin_of(config.server_url)} did not answer within {config.connection_timeout} s."
            raise ConnectTimeoutError(told) from None
        except RealtimeError:
            await self.close()
            raise
        # At a bad peer the library lets through whatever its parsers raise: TypeError where the server closes
        # instead of opening, IndexError at an empty body.
        except Exception as error:  # noqa: BLE001
            await self.close()
            raise self._translated(error) from None
        except BaseException:
            await self.close()
            raise

    async def emit(self, event: str, args: tuple[Any, ...], on_ack: Callable[..., Any] | None = None) -> None:
        """Send an event; ``on_ack`` is called with the arguments of its acknowledgement.

        Raises:
            socketio.exceptions.SocketIOError: If it is not connected.
        """
        await self._client.emit(event, args, namespace=self._config.namespace, callback=on_ack)

    async def ask(self, event: str, *args: Any, timeout: float) -> list[Any]:  # noqa: ASYNC109 - passed on
        """Send an event, and return the arguments of its acknowledgement.

        Raises:
            TimeoutError: If none came in time.
            socketio.exceptions.SocketIOError: If it is not connected, or not any more.
        """
        answered: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()

        def on_ack(*given: Any) -> None:
            if not answered.done():
                answered.set_result(list(given))

        self._asked.add(answered)
        try:
            async with asyncio.timeout(timeout):
                await self.emit(event, args, on_ack)
                return await answered
        finally:
            self._asked.discard(answered)

    async def written(self) -> None:
        """Wait until everything that was emitted has been written to the network. The caller bounds it."""
        await self._client.eio.queue.join()

    async def close(self) -> None:
        """Close it, and leave nothing behind. Bounded."""
        self._is_closing = True
        engine = self._client.eio
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await self._client.disconnect()
        except (TimeoutError, socketio.exceptions.SocketIOError, OSError) as error:
            _logger.debug("the old client did not close in order: %s", type(error).__name__)
        # Over polling its `disconnect()` waits for the pending GET, which Python servers do not release: 30 s
        # with the default pings. So its loops are ended, and not waited for.
        loops = {
            task for task in (engine.read_loop_task, engine.write_loop_task) if isinstance(task, asyncio.Task)
        }
        for task in loops:
            task.cancel()
        if loops:
            await asyncio.wait(loops, timeout=_CLOSE_TIMEOUT)
        # A `disconnect()` that is cancelled, as by the time-out above, leaves the client in this list.
        if engine in _connected_clients():
            _connected_clients().remove(engine)
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await self._session.close()
        except TimeoutError:
            _logger.warning("the session of the old client did not close in time")

    # Inside.

    async def _dial(self, auth: dict[str, str]) -> None:
        config = self._config
        as_it_comes = set(config.transports) == set(TRANSPORTS)
        await self._client.connect(
            config.server_url,
            auth=auth,
            transports=None if as_it_comes else list(config.transports),
            namespaces=[config.namespace],
            socketio_path=config.socketio_path,
            wait_timeout=config.connection_timeout,
        )

    async def _event(self, event: str, *args: Any) -> Any:
        if self._is_closing:
            return None
        answer = self._on_event(event, list(args))
        return await answer if inspect.isawaitable(answer) else answer

    def _disconnected(self, reason: str = "") -> None:
        if not self._is_closing:
            self._is_closing = True
            for answered in self._asked:  # nobody must wait for what cannot come any more
                if not answered.done():
                    answered.set_exception(socketio.exceptions.DisconnectedError())
            self._on_lost(str(reason))

    def _refused(self, said: object = None) -> None:
        self._refusal = said

    def _translated(self, error: Exception) -> RealtimeError:
        said: dict[str, Any] = self._refusal if isinstance(self._refusal, dict) else {}
        data = said.get("data")
        told = f"{origin_of(self._config.server_url)} refused the connection: "
        if isinstance(data, dict) and data.get("category") == "authentication":
            return AuthenticationError(told + words(said.get("message", "no reason given")))
        if said:
            return ServerUnavailableError(told + words(said.get("message", "no reason given")))
        return ServerUnreachableError(
            f"{origin_of(self._config.server_url)} could not be connected to: {words(error)}"
        )


def _connected_clients() -> list[Any]:
    """Return the list in which the library keeps every client, for its signal handler."""
    with suppress(ImportError, AttributeError):
        from engineio import base_client  # noqa: PLC0415 - a private module: it may go

        clients: list[Any] = base_client.connected_clients
        return clients
    return []


async def value_of(source: TokenSource) -> str:
    """Return a token as a source gives it.

    Raises:
        TokenSourceError: If the source fails; its own words are not repeated, for they may hold a secret.
    """
    failed = ""
    try:
        given: Any = source() if callable(source) else source
        if inspect.isawaitable(given):
            given = await given
    except RealtimeError:
        raise
    except Exception as error:  # noqa: BLE001 - it is the user's code, and becomes an error of ours
        failed = type(error).__name__
    if failed:
        raise TokenSourceError(f"The token source raised {failed}.")
    return given.value if isinstance(given, Token) else str(given)
