"""``WebSocketService``: the reference backend, in a program or as a process of its own."""

import asyncio
import logging
import signal
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self, TypeVar, overload

from aiohttp import web

from realtime_fsm.adapters.serving import Listener
from realtime_fsm.engine.subscriptions import Position
from realtime_fsm.machine.errors import ClosedError, ConfigurationError
from realtime_fsm.server.channels import AuthorizeChannel, Channels
from realtime_fsm.server.config import BackendConfig
from realtime_fsm.server.http_routes import HttpRoutes
from realtime_fsm.server.ledger import Ledger, MemoryLedger
from realtime_fsm.server.router import Handler, MessageRouter
from realtime_fsm.server.session import Sessions
from realtime_fsm.server.socket_events import SessionWatch, SocketEvents
from realtime_fsm.server.socketio_server import SocketIOServer
from realtime_fsm.server.sqlite_ledger import SqliteLedger
from realtime_fsm.server.token import TokenVerifier, Verifier

_H = TypeVar("_H", bound=Handler)

_MAX_LINE: Final = 65_536
"""Longest request line: a poll names all channels of a client, and where it is in each."""

_logger = logging.getLogger("realtime_fsm.server")


class WebSocketService:
    """A Socket.IO server with channels, and the same over HTTP for those who cannot connect.

    ::

        async with WebSocketService(config) as service:
            service.on("note", save_note)
            service.publish("bookings", "booking_updated", {"id": "42"})

    It lives once: started, stopped, and thrown away. All its methods are called on its loop's thread.

    Args:
        config: Everything that can be configured.
        authorize_channel: ``authorize_channel(client, channel) -> bool``, plain or a coroutine function. By
            default every client may have every channel.
        verifier: Says whose a token is, or why it is refused. By default JSON Web Tokens signed with
            ``config.secret``.
        ledger: Knows which messages have taken effect already. It is opened and closed by the service. By
            default a ``SqliteLedger`` at ``config.ledger_path``, or one in memory where that is not set.

    Raises:
        ConfigurationError: If both a ``ledger`` and a ``ledger_path`` are given.
    """

    def __init__(
        self,
        config: BackendConfig,
        *,
        authorize_channel: AuthorizeChannel | None = None,
        verifier: Verifier | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        self._config = config
        self._ledger = _ledger_of(config) if ledger is None else ledger
        if ledger is not None and config.ledger_path is not None:
            raise ConfigurationError("ledger_path must not be set beside a ledger of your own")
        self._verifier: Verifier = TokenVerifier(config) if verifier is None else verifier
        self._server = SocketIOServer(config)
        self._sessions = Sessions()
        self._watch = SessionWatch(config, self._sessions, self._server)
        self._channels = Channels(
            config,
            self._sessions,
            self._server.eio,
            condemn=self._watch.condemn,
            authorize=authorize_channel,
        )
        self._router = MessageRouter(config, self._ledger)
        self._watching: asyncio.Task[None] | None = None
        self._listener: Listener | None = None
        SocketEvents(
            config,
            self._server,
            self._sessions,
            self._watch,
            verifier=self._verifier,
            channels=self._channels,
            router=self._router,
        )
        self._application = self._make_application()

    @property
    def application(self) -> web.Application:
        """The aiohttp application, to be mounted into another one: ``app.add_subapp("/", ...)``.

        Its start and its end belong to that one then; ``start()`` and ``stop()`` are not called.
        """
        return self._application

    @property
    def port(self) -> int:
        """The port that it listens at.

        Raises:
            ClosedError: If it does not.
        """
        return self._bound().port

    @property
    def url(self) -> str:
        """The address at which it can be reached: the ``server_url`` of its clients.

        Raises:
            ClosedError: If it does not listen.
        """
        return self._bound().url

    @overload
    def on(self, event: str) -> Callable[[_H], _H]: ...

    @overload
    def on(self, event: str, handler: _H) -> _H: ...

    def on(self, event: str, handler: Handler | None = None) -> Any:
        """Register the handler of an event, for the socket and for HTTP; also a decorator.

        It is called as ``handler(client, *args)``, and what it returns is the answer; it must be JSON.
        Messages of one client are handled in order, one at a time: a client is the ``sub`` of the token,
        however many connections it has. An exception is logged, and the client is told that it failed.
        A message that its client numbers (exactly-once) is handled once, however often it comes.

        Raises:
            InvalidArgumentError: If the name is not one, is the backend's own, or has a handler already.
        """

        def register(given: _H) -> _H:
            self._router.on(event, given)
            return given

        return register if handler is None else register(handler)

    def publish(self, channel: str, event: str, data: Any = None) -> Position:
        """Send an event to all who are subscribed to a channel, and keep it for those who come back.

        Args:
            channel: Its name.
            event: What happened.
            data: What goes with it: JSON. It is encoded at once, and may be changed afterwards.

        Returns:
            Its position in the channel.

        Raises:
            InvalidArgumentError: If it cannot be sent. Nothing was.
        """
        return self._channels.publish(channel, event, data)

    def position(self, channel: str) -> Position:
        """Return where a channel stands: the position of its last event.

        For a handler that answers with a snapshot: a client that subscribes from there gets all that comes
        after it. Ask before the data is read, so that nothing can fall between the two.

        Raises:
            InvalidArgumentError: If this is not the name of a channel.
        """
        return self._channels.position(channel)

    @property
    def duplicate_count(self) -> int:
        """The number of messages that came again, and were answered without being handled again."""
        return self._router.duplicates

    def subscriber_count(self, channel: str) -> int:
        """Return how many connections are subscribed to a channel."""
        return len(self._sessions.members(channel))

    async def start(self) -> None:
        """Begin to listen at the configured address.

        Raises:
            ConfigurationError: If nothing can listen at this address, or if the ledger cannot be used.
            ClosedError: If it was started before.
        """
        if self._listener is not None:
            raise ClosedError("A WebSocketService starts once.", remedy="Make a new one.")
        config = self._config
        # Its parts share `close_timeout`: see `_say_goodbye`.
        self._listener = Listener(
            self._application,
            config.host,
            config.port,
            shutdown_timeout=config.close_timeout * 0.1,
            max_line_size=_MAX_LINE,
        )
        await self._listener.start()
        _logger.info("listening at %s", self.url)

    async def stop(self) -> None:
        """Stop listening, and end all connections. Takes ``close_timeout`` at most; safe to call twice."""
        if self._listener is not None:
            await self._listener.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def serve_forever(self) -> None:
        """Listen until cancelled, then stop."""
        async with self:
            await asyncio.Event().wait()

    def _bound(self) -> Listener:
        if self._listener is None or not self._listener.is_listening:
            raise ClosedError("The service does not listen.", remedy="Call `start()` first.")
        return self._listener

    def _make_application(self) -> web.Application:
        app = web.Application()
        self._server.attach(app)
        HttpRoutes(self._config, self._verifier, self._channels, self._router, unready=self._unready).add_to(
            app
        )
        app.on_startup.append(self._begin)
        app.on_shutdown.append(self._say_goodbye)
        app.on_cleanup.append(self._clean_up)
        return app

    def _unready(self) -> tuple[str, ...]:
        """Return why no more clients should be sent here: why the next one would be refused."""
        if self._watching is None:
            return ("The server starts.",)
        if self._server.eio.is_closing:
            return ("The server stops.",)
        if len(self._sessions) >= self._config.max_clients:
            return (f"There are as many clients as max_clients={self._config.max_clients} allows.",)
        return ()

    async def _begin(self, _: web.Application) -> None:
        await self._ledger.open()
        self._watching = asyncio.create_task(self._watch.run(), name="realtime_fsm.server.watch")

    async def _say_goodbye(self, _: web.Application) -> None:
        """Let handlers end, tell the clients, and end their connections. Takes 0.7 of ``close_timeout``."""
        self._server.eio.is_closing = True
        await self._router.close(self._config.close_timeout * 0.4)
        for session in self._sessions:
            await self._server.disconnect(session.sid)
        for engine_sid in list(self._server.eio.sockets):
            await self._server.eio.say_goodbye(engine_sid)
        await self._server.eio.end_requests(self._config.close_timeout * 0.15)

    async def _clean_up(self, _: web.Application) -> None:
        """End what runs in the background. Takes 0.1 of ``close_timeout``."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait({self._watching})
        await self._server.eio.end_tasks(self._config.close_timeout * 0.1)
        await self._ledger.close()


def _ledger_of(config: BackendConfig) -> Ledger:
    if config.ledger_path is None:
        return MemoryLedger(config.max_ledger_clients)
    return SqliteLedger(config.ledger_path, max_clients=config.max_ledger_clients)


def serve(config: BackendConfig) -> None:
    """Serve until SIGINT or SIGTERM, then stop cleanly. The first line on stdout is the address.

    Args:
        config: Everything that can be configured.

    Raises:
        ConfigurationError: If nothing can listen at the address.
    """
    asyncio.run(_serve(config))


async def _serve(config: BackendConfig) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    signals = (signal.SIGINT, signal.SIGTERM) if sys.platform != "win32" else ()
    async with WebSocketService(config) as service:
        for number in signals:  # on Windows Ctrl-C cancels this coroutine, which stops the service as well
            loop.add_signal_handler(number, stop.set)
        try:
            sys.stdout.write(f"{service.url}\n")
            sys.stdout.flush()
            await stop.wait()
        finally:
            for number in signals:
                loop.remove_signal_handler(number)
