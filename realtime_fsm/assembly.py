"""The wiring: which parts a client is made of, and how they are joined."""

import asyncio
import random as random_module
from collections.abc import Callable
from typing import Final

from realtime_fsm.engine.component import Components
from realtime_fsm.engine.dispatcher import Dispatcher
from realtime_fsm.engine.manager import ConnectionManager
from realtime_fsm.engine.payload import encode
from realtime_fsm.engine.port import HttpClient, RandomSource, TokenSource, TransportFactory, WallClock
from realtime_fsm.engine.recovery import ErrorRecoveryStrategy
from realtime_fsm.engine.sender import Sender
from realtime_fsm.engine.statistics import Statistics
from realtime_fsm.engine.status import ConnectionStatusManager
from realtime_fsm.engine.subscription import Subscriptions
from realtime_fsm.engine.token import TokenProvider
from realtime_fsm.machine.backoff import ExponentialBackoff
from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.machine.errors import ApplicationError

_SYSTEM_RANDOM: Final = random_module.SystemRandom()


def loop_time() -> float:
    """Return the clock of the running loop."""
    return asyncio.get_running_loop().time()


class Assembly:
    """The parts that outlive a connection, and the ones that are made when it begins.

    Args:
        config: The configuration.
        token: Where tokens come from.
        transport_factory: Makes the transports; by default over python-socketio.
        http: The HTTP side of the fallback; by default over aiohttp.
        random: Source of all jitter; by default the system's.
        wall: The wall clock.
        force_fallback: Switches the fallback on.
        release_fallback: Lets the socket come back.
    """

    def __init__(
        self,
        config: RealtimeConfig,
        *,
        token: TokenSource | None,
        transport_factory: TransportFactory | None,
        http: HttpClient | None,
        random: RandomSource | None,
        wall: WallClock,
        force_fallback: Callable[[], bool],
        release_fallback: Callable[[], bool],
    ) -> None:
        self._config = config
        self._token = token
        self._transport_factory = transport_factory
        self._http = http
        self._random = _SYSTEM_RANDOM if random is None else random
        self._wall = wall
        self.statistics = Statistics()
        self.status = ConnectionStatusManager(self.statistics)
        self.recovery = ErrorRecoveryStrategy(
            self.statistics, force_fallback=force_fallback, release_fallback=release_fallback
        )
        self.dispatcher = Dispatcher(
            statistics=self.statistics, limit=config.max_pending_events, on_error=self._handler_failed
        )
        self.subscriptions = Subscriptions(config, self.statistics, self.recovery)
        self.sender = Sender(config=config, statistics=self.statistics, time=loop_time)

    def start(self) -> tuple[ConnectionManager, Components]:
        """Make what belongs to one stay on the running loop, and start the dispatcher."""
        config = self._config
        beat = config.dialect.heartbeat_event
        parts = Components(
            config=config,
            transport_factory=self._transport_factory or _socketio(config),
            http=self._http or _aiohttp(config),
            random=self._random,
            wall=self._wall,
            statistics=self.statistics,
            tokens=TokenProvider(
                self._token,
                statistics=self.statistics,
                wall=self._wall,
                random=self._random,
                timeout=config.connection_timeout,
            ),
            sender=self.sender,
            subscriptions=self.subscriptions,
            dispatcher=self.dispatcher,
            status=self.status,
            backoff=ExponentialBackoff(
                random=self._random, limits=config.backoff_limits, strategy=config.backoff
            ),
            recovery=self.recovery,
            heartbeat=None
            if beat is None
            else encode([beat], what="The heartbeat", max_bytes=config.max_message_bytes),
        )
        self.dispatcher.start()
        return ConnectionManager(parts), parts

    def _handler_failed(self, event: str, error: BaseException) -> None:
        self.recovery.handle(
            ApplicationError(
                f"A handler of {event!r} raised {type(error).__name__}.", remedy="See the log for where."
            ),
            log=False,  # the dispatcher has logged it with its traceback
        )


# The network libraries are loaded when a connection begins, not when the package is imported.


def _socketio(config: RealtimeConfig) -> TransportFactory:
    from realtime_fsm.adapters.socketio_transport import SocketIOTransportFactory  # noqa: PLC0415

    return SocketIOTransportFactory(config)


def _aiohttp(config: RealtimeConfig) -> HttpClient:
    from realtime_fsm.adapters.aiohttp_client import AiohttpClient  # noqa: PLC0415

    return AiohttpClient(config)
