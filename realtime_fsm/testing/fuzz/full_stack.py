"""The whole stack in virtual time: the real client and the real backend, on a network in memory."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from random import Random
from types import MappingProxyType
from typing import Final
from unittest.mock import patch

from aiohttp import web
from aiohttp.typedefs import Handler
from socketio.packet import ACK, BINARY_ACK, Packet

from realtime_fsm.adapters.http import AiohttpClient
from realtime_fsm.adapters.socketio_transport import SocketIOTransportFactory
from realtime_fsm.engine.outbox import Outbox
from realtime_fsm.engine.port import TokenSource
from realtime_fsm.engine.subscriptions import Position
from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.machine.dialect import Dialect
from realtime_fsm.server import (
    BackendConfig,
    Identity,
    TokenRefusedError,
    TokenVerifier,
    WebSocketService,
    issue_token,
)
from realtime_fsm.server.ledger import MemoryLedger
from realtime_fsm.service import RealtimeService
from realtime_fsm.testing.fuzz.memory_network import MemoryNetwork
from realtime_fsm.testing.fuzz.schedule import Action, Setting
from realtime_fsm.testing.fuzz.world import (
    AHEAD,
    BEGIN_ANEW,
    CHANNEL,
    RETRY_AFTER,
    SIDE,
    SLOW,
    SLOW_ACKS,
    TAKEN,
    TICK,
)
from realtime_fsm.testing.proxy.faults import Direction
from realtime_fsm.testing.virtual_loop import wall_clock

_ADDRESS: Final = ("localhost", 3001)
"""The address at which a client looks by default."""
_SECRET: Final = "a secret for simulations, and for nothing else"  # noqa: S105 - as it says
_ISSUED_AT: Final = 1_700_000_000.0
_CENTURY: Final = 3_200_000_000.0
"""A token says the same whenever it is issued, and is good whatever the real clock says."""
_MAX_LINE: Final = 65_536
_LOG_SIZE: Final = 6
_GOODBYE: Final = 0.2
_SLOW_BANDWIDTH: Final = 4000.0
"""Bytes in a second: enough for a handshake within its time."""
_OVER_HTTP: Final = frozenset({Dialect.REFERENCE.poll_path, Dialect.REFERENCE.publish_path})
_CONFIG: Final = BackendConfig(
    secret=_SECRET,
    ping_interval=10,
    ping_timeout=5,
    expiry_check_interval=1.0,
    log_size=_LOG_SIZE,
    close_timeout=_GOODBYE,
)


class FullStackEnvironment:
    """The true one: python-socketio and aiohttp, unmodified, on both sides. Of the reference dialect.

    The socket and HTTP have a network each, so that one can fail without the other.

    Args:
        setting: Ignored: it is always ``Setting.REFERENCE``.
        random: Of the networks' jitter.

    Attributes:
        socket_network: Between the client's socket and the backend.
        http_network: Between its fallback and the backend.
        clock_ahead: Seconds by which the client's wall clock is ahead.
    """

    def __init__(self, setting: Setting, random: Random) -> None:
        del setting
        self.socket_network = MemoryNetwork(random)
        self.http_network = MemoryNetwork(random)
        self._ledger = MemoryLedger()
        self._applied: list[tuple[str, int]] = []
        self._hurry = asyncio.Event()
        self._is_slow = False
        self.clock_ahead = 0.0
        self._is_http_overloaded = False
        self._tokens = 0
        self._doorkeeper = _Doorkeeper()
        self._acks_to_lose = 0
        self._loses_event = False
        self._service: WebSocketService

    @property
    def setting(self) -> Setting:
        """The one that the backend speaks."""
        return Setting.REFERENCE

    @property
    def supports(self) -> frozenset[Action]:
        """All of them."""
        return frozenset(Action)

    @property
    def applied(self) -> Sequence[tuple[str, int]]:
        """See ``Environment``."""
        return self._applied

    def hurry(self) -> None:
        """Nobody waits here: the backend asks for no pause."""

    @property
    def complaints(self) -> Sequence[str]:
        """None: a real backend cannot tell a client's second connection from one that it has not yet lost."""
        return ()

    @property
    def has_tasks(self) -> bool:
        """See ``Environment``."""
        return True

    @property
    def is_dead(self) -> bool:
        """See ``Environment``."""
        return not self.socket_network.flowing.is_set()

    @property
    def prompt_since(self) -> float | None:
        """Nobody knows: its faults are those of bytes."""
        return None

    @property
    def delivered(self) -> Counter[int] | None:
        """Unknown: ticks come by replays and polls as well."""
        return None

    async def open(self) -> None:
        """Start the backend on the network in memory."""
        self._service = WebSocketService(_CONFIG, verifier=self._doorkeeper, ledger=self._ledger)
        self._service._server._send_packet = partial(  # noqa: SLF001 - as if it were lost on the way
            self._send,
            self._service._server._send_packet,  # noqa: SLF001
        )
        self._service.application.middlewares.append(self._answer_over_http)
        for event in TAKEN:
            self._service.on(event, partial(self._take, event))
        accept = await self.socket_network.serve(
            self._service.application,
            *_ADDRESS,
            max_line_size=_MAX_LINE,
            shutdown_timeout=_GOODBYE,
            logger=_quiet(),
        )
        self.http_network.listen(*_ADDRESS, accept)

    async def close(self) -> None:
        """Stop the backend, and close both networks."""
        self.heal()
        for network in (self.socket_network, self.http_network):
            await network.close()

    def token(self) -> str:
        """Return a token that the backend accepts."""
        self._tokens += 1
        claims = {"jti": str(self._tokens)}
        token = issue_token(_SECRET, "simulation", _CENTURY, claims=claims, now=_ISSUED_AT)
        if self._doorkeeper.valid is not None:
            self._doorkeeper.valid.add(token)
        return token

    def client(
        self, config: RealtimeConfig, *, token: TokenSource, outbox: Outbox | None, random: Random
    ) -> RealtimeService:
        """See ``Environment``."""
        true = wall_clock()
        return RealtimeService(
            config,
            token=token,
            transport_factory=SocketIOTransportFactory(config, self.socket_network.connector),
            http=AiohttpClient(config, self.http_network.connector),
            outbox=outbox,
            random=random,
            wall=lambda: true() + self.clock_ahead,
        )

    def do(self, action: Action) -> Awaitable[None] | None:
        """See ``Environment``."""
        return _DEEDS[action](self)

    def heal(self) -> None:
        """See ``Environment``."""
        self.socket_network.heal()
        self.http_network.heal()
        self._is_slow = self._loses_event = self._is_http_overloaded = False
        self.clock_ahead = 0.0
        self._acks_to_lose = 0
        self._hurry.set()
        self._refuse_sessions(enabled=False)
        self._doorkeeper.is_shut = False
        self.banish(enabled=False)

    def publish(self, number: int) -> None:
        """See ``Environment``."""
        engine = self._service._server.eio  # noqa: SLF001 - as if it were lost on the way
        if self._loses_event:
            self._loses_event = False
            with patch.object(engine, "enqueue", _nowhere):
                self._service.publish(CHANNEL, TICK, number)
        else:
            self._service.publish(CHANNEL, TICK, number)
        self._service.publish(SIDE, SIDE, number)

    def position(self, channel: str = CHANNEL) -> Position | None:
        """See ``Environment``."""
        return self._service.position(channel)

    def admit(self, tokens: set[str] | None) -> None:
        """See ``Environment``."""
        self._doorkeeper.valid = tokens

    async def restart(self) -> None:
        """Stop the backend, and start another one; only what had taken effect is known to it."""
        self.socket_network.reset_peer()
        self.http_network.reset_peer()
        for network in (self.socket_network, self.http_network):
            await network.close()
        await self.open()

    async def kick(self) -> None:
        """Disconnect every client on purpose."""
        for session in list(self._service._sessions):  # noqa: SLF001 - the operator's hand in the server
            await self._service._server.disconnect(session.sid)  # noqa: SLF001

    async def begin_anew(self) -> None:
        """Send every client the event whose handler disconnects."""
        for session in list(self._service._sessions):  # noqa: SLF001 - the operator's hand in the server
            await self._service._server.emit(BEGIN_ANEW, to=session.sid)  # noqa: SLF001

    def slow_acks(self) -> None:
        """Think long before each answer, until it is healed."""
        self._is_slow = True
        self._hurry.clear()

    def overload(self) -> None:
        """Answer new clients that there is no room, until it is healed."""
        self._refuse_sessions(enabled=True)

    def overload_http(self) -> None:
        """Answer polls and published messages that there is no room, until it is healed."""
        self._is_http_overloaded = True

    def deny(self) -> None:
        """Let nobody in, until it is healed."""
        self._doorkeeper.is_shut = True

    def banish(self, *, enabled: bool) -> None:
        """Know the namespace no more."""
        manager = self._service._server.manager  # noqa: SLF001 - the operator's hand in the server
        if enabled:
            manager.pre_connect = _unknown
        else:
            manager.__dict__.pop("pre_connect", None)

    def put_clock_ahead(self) -> None:
        """Let the client's wall clock be wrong, until it is healed."""
        self.clock_ahead = AHEAD

    def lose_ack(self) -> None:
        """Lose the next acknowledgement."""
        self._acks_to_lose += 1

    def lose_event(self) -> None:
        """Lose the next event on its way to whoever is subscribed; the log has it."""
        self._loses_event = True

    def slow(self) -> None:
        """Let everything on the socket's network be late."""
        self.socket_network.latency, self.socket_network.jitter = SLOW

    def slow_down(self) -> None:
        """Let the socket's network carry little in a second."""
        self.socket_network.bandwidth = _SLOW_BANDWIDTH

    async def _take(self, event: str, _: object, number: int) -> int:
        if self._is_slow:
            try:
                async with asyncio.timeout(SLOW_ACKS):
                    await self._hurry.wait()
            except TimeoutError:
                pass  # it has thought for long enough
        self._applied.append((event, number))  # in one step with its answer: nothing can end it in between
        return number

    @web.middleware
    async def _answer_over_http(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if self._is_http_overloaded and request.path in _OVER_HTTP:
            return web.Response(status=503, headers={"Retry-After": str(RETRY_AFTER)})
        return await handler(request)

    async def _send(self, send: Callable[[str, Packet], Awaitable[None]], sid: str, packet: Packet) -> None:
        if self._acks_to_lose and packet.packet_type in {ACK, BINARY_ACK}:
            self._acks_to_lose -= 1
        else:
            await send(sid, packet)

    def _refuse_sessions(self, *, enabled: bool) -> None:
        self._service._server.eio.is_closing = enabled  # noqa: SLF001 - it answers 503 then


class _Doorkeeper:
    """Lets in whom the environment wants, of those who have a good token."""

    def __init__(self) -> None:
        self._verifier = TokenVerifier(_CONFIG)
        self.valid: set[str] | None = None
        self.is_shut = False

    def verify(self, token: object) -> Identity:
        """See ``Verifier``."""
        identity = self._verifier.verify(token)
        if self.is_shut or (self.valid is not None and token not in self.valid):
            raise TokenRefusedError("token_invalid", "The token is not accepted any more.")
        return identity


async def _unknown(*_: object) -> None:
    """Let nobody in: the namespace is not one of the server's."""


def _nowhere(*_: object) -> int:
    """Send nothing; so many packets wait."""
    return 0


def _quiet() -> logging.Logger:
    """Return a logger that nobody hears: aiohttp reports connections that were cut under its hands."""
    logger = logging.Logger("realtime_fsm.testing.backend")  # noqa: LOG001 - one that is registered is heard
    logger.addHandler(logging.NullHandler())
    return logger


# fmt: off
_DEEDS: Final[Mapping[Action, Callable[[FullStackEnvironment], Awaitable[None] | None]]] = MappingProxyType({
    Action.KICK:       lambda e: e.kick(),
    Action.RESTART:    lambda e: e.restart(),
    Action.DENY:       lambda e: e.deny(),
    Action.BANISH:     lambda e: e.banish(enabled=True),
    Action.OVERLOAD:   lambda e: e.overload(),
    Action.REFUSE:     lambda e: e.socket_network.refuse(enabled=True),
    Action.SILENCE:    lambda e: e.socket_network.stall(enabled=True, direction=Direction.DOWN),
    Action.SLOW_ACKS:  lambda e: e.slow_acks(),
    Action.LOSE_ACK:   lambda e: e.lose_ack(),
    Action.LOSE_EVENT: lambda e: e.lose_event(),
    Action.RESET_PEER: lambda e: e.socket_network.reset_peer(),
    Action.BLACK_HOLE: lambda e: e.socket_network.black_hole(enabled=True),
    Action.STALL:      lambda e: e.socket_network.stall(enabled=True, direction=Direction.UP),
    Action.SLOW:       lambda e: e.slow(),
    Action.HTTP_DOWN:  lambda e: e.http_network.refuse(enabled=True),
    Action.HTTP_CUT:   lambda e: e.http_network.limit_data(0, direction=Direction.DOWN),
    Action.DEAF:       lambda e: e.socket_network.stall(enabled=True, direction=Direction.UP),
    Action.SLOW_UP:    lambda e: e.slow_down(),
    Action.CLOCK_AHEAD: lambda e: e.put_clock_ahead(),
    Action.HANDLER_RESTARTS: lambda e: e.begin_anew(),
    Action.HTTP_OVERLOAD: lambda e: e.overload_http(),
})
# fmt: on
