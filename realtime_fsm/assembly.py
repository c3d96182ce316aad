"""The wiring: which parts a client is made of, and how they are joined."""

import random as random_module
from collections import deque
from collections.abc import Callable
from typing import Final

from realtime_fsm.engine.component import Components
from realtime_fsm.engine.dispatcher import Dispatcher
from realtime_fsm.engine.first_words import FirstWords
from realtime_fsm.engine.flight_recorder import FlightRecorder
from realtime_fsm.engine.manager import ConnectionManager
from realtime_fsm.engine.outbound_queue import OutboundQueue
from realtime_fsm.engine.outbox import MemoryOutbox, Outbox
from realtime_fsm.engine.outbox_control import OutboxControl
from realtime_fsm.engine.payload import encode
from realtime_fsm.engine.port import HttpClient, RandomSource, TokenSource, TransportFactory, WallClock
from realtime_fsm.engine.recovery import ErrorRecoveryStrategy
from realtime_fsm.engine.sender import Sender
from realtime_fsm.engine.session_recovery import SessionRecovery
from realtime_fsm.engine.statistics import Statistics
from realtime_fsm.engine.status import ConnectionStatusManager
from realtime_fsm.engine.subscriptions import Resync, Subscriptions
from realtime_fsm.engine.token import TokenProvider
from realtime_fsm.machine.backoff import ExponentialBackoff, Pace, RetryAfter
from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.machine.errors import ApplicationError, RealtimeError

_SYSTEM_RANDOM: Final = random_module.SystemRandom()
_KNOWN_SECRETS: Final = 8
"""Tokens that are remembered so that nobody shows them: the last few, which a server may repeat."""


class Assembly:
    """The parts that outlive a connection, and the ones that are made when it begins.

    Args:
        config: The configuration.
        token: Where tokens come from.
        transport_factory: Makes the transports; by default over python-socketio.
        http: The HTTP side of the fallback; by default over aiohttp.
        outbox: Where accepted messages are kept; by default in ``config.outbox_path``, or in memory.
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
        outbox: Outbox | None,
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
        self._secrets: deque[str] = deque(maxlen=_KNOWN_SECRETS)
        self.statistics = Statistics()
        self.recorder = FlightRecorder(wall, self._secrets)
        self.status = ConnectionStatusManager(self.statistics)
        self.recovery = ErrorRecoveryStrategy(
            self.statistics,
            self.recorder,
            force_fallback=force_fallback,
            release_fallback=release_fallback,
        )
        self.dispatcher = Dispatcher(
            statistics=self.statistics,
            limit=config.max_pending_events,
            on_error=self._handler_failed,
            max_bytes=config.max_pending_bytes,
            overflow=config.inbound_overflow,
        )
        self.subscriptions = Subscriptions(
            config, self.statistics, Resync(self.dispatcher, self.statistics), self.recovery.handle
        )
        self.dispatcher.on_room = self.subscriptions.fetch_the_rest
        outbox = outbox or _outbox(config, self._report)
        self.queue = OutboundQueue(
            config=config,
            outbox=outbox,
            statistics=self.statistics,
            recovery=self.recovery,
            wall=self._wall,
        )
        self.outbox = OutboxControl(outbox, self.queue)
        self.first_words = FirstWords(self.queue, config.connection_timeout)
        self.sender = Sender(
            config=config,
            queue=self.queue,
            statistics=self.statistics,
            secrets=self._secrets,
            recorder=self.recorder,
        )

    def start(self) -> tuple[ConnectionManager, Components]:
        """Make what belongs to one stay on the running loop, and start the dispatcher."""
        config = self._config
        beat = config.dialect.heartbeat_event
        http = self._http or _aiohttp(config)
        http.open()
        parts = Components(
            config=config,
            transport_factory=self._transport_factory or _socketio(config),
            http=http,
            random=self._random,
            wall=self._wall,
            statistics=self.statistics,
            recorder=self.recorder,
            tokens=TokenProvider(
                self._token,
                statistics=self.statistics,
                recorder=self.recorder,
                wall=self._wall,
                random=self._random,
                timeout=config.connection_timeout,
                secrets=self._secrets,
            ),
            sender=self.sender,
            subscriptions=self.subscriptions,
            session=SessionRecovery(config.dialect, self.statistics, self._wall),
            dispatcher=self.dispatcher,
            status=self.status,
            pace=Pace(
                backoff=ExponentialBackoff(
                    random=self._random, limits=config.backoff_limits, strategy=config.backoff
                ),
                stable_after=config.stable_after,
                first_retry_within=config.first_retry_within,
                fallback_after=config.fallback_after if config.fallback_available else None,
                floor=RetryAfter(random=self._random, most=config.max_retry_after),
            ),
            recovery=self.recovery,
            first_words=self.first_words,
            heartbeat=None
            if beat is None
            else encode([beat], what="The heartbeat", max_bytes=config.max_message_bytes),
        )
        self.subscriptions.give_resyncs_up()
        self.dispatcher.start()
        return ConnectionManager(parts), parts

    def _report(self, error: RealtimeError) -> None:
        self.recovery.handle(error)

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
    from realtime_fsm.adapters.http import AiohttpClient  # noqa: PLC0415

    return AiohttpClient(config)


def _outbox(config: RealtimeConfig, report: Callable[[RealtimeError], None]) -> Outbox:
    if config.outbox_path is None:
        return MemoryOutbox(config.outbox_max_dead_letters)
    from realtime_fsm.adapters.outbox_writer import SqliteOutbox  # noqa: PLC0415

    return SqliteOutbox(
        config.outbox_path,
        durability=config.outbox_durability,
        max_dead_letters=config.outbox_max_dead_letters,
        report=report,
    )
