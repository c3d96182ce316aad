"""The whole stack in virtual time: the real client and the real backend, on a network in memory."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from random import Random
from types import MappingProxyType
from typing import Final

from realtime_fsm.adapters.aiohttp_client import AiohttpClient
from realtime_fsm.adapters.socketio_transport import SocketIOTransportFactory
from realtime_fsm.engine.outbox import Outbox
from realtime_fsm.engine.port import TokenSource
from realtime_fsm.engine.subscription import Position
from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.server import BackendConfig, WebSocketService, issue_token
from realtime_fsm.server.ledger import MemoryLedger
from realtime_fsm.service import RealtimeService
from realtime_fsm.testing.environment import ASK, CHANNEL, NUMBER, SLOW, SLOW_ACKS, TICK
from realtime_fsm.testing.lane_faults import Direction
from realtime_fsm.testing.memory_network import MemoryNetwork
from realtime_fsm.testing.schedule import Action, Setting
from realtime_fsm.testing.virtual_loop import wall_clock

HOST: Final = "backend"
_SECRET: Final = "a secret for simulations, and for nothing else"  # noqa: S105 - as it says
_DAY: Final = 86_400.0
_MAX_LINE: Final = 65_536
_LOG_SIZE: Final = 6
_GOODBYE: Final = 0.2


class FullStackEnvironment:
    """The true one: python-socketio and aiohttp, unmodified, on both sides. Of the reference dialect.

    The socket and HTTP have a network each, so that one can fail without the other.

    Args:
        setting: ``Setting.REFERENCE``; others are played on it too.
        random: Of the networks' jitter.

    Attributes:
        socket_network: Between the client's socket and the backend.
        http_network: Between its fallback and the backend.
    """

    def __init__(self, setting: Setting, random: Random) -> None:
        del setting
        self.socket_network = MemoryNetwork(random)
        self.http_network = MemoryNetwork(random)
        self._ledger = MemoryLedger()
        self._applied: list[tuple[str, int]] = []
        self._hurry = asyncio.Event()
        self._is_slow = False
        self._tokens = 0
        self._service: WebSocketService

    @property
    def supports(self) -> frozenset[Action]:
        """What happens on networks and in the backend; what its clients may do is not switched at run time."""
        return frozenset(Action) - _NOT_HERE

    @property
    def applied(self) -> Sequence[tuple[str, int]]:
        """See ``Environment``."""
        return self._applied

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

    async def open(self) -> None:
        """Start the backend."""
        self._service = WebSocketService(
            BackendConfig(
                secret=_SECRET,
                ping_interval=10,
                ping_timeout=5,
                expiry_check_interval=1.0,
                log_size=_LOG_SIZE,
                close_timeout=_GOODBYE,
            ),
            ledger=self._ledger,
        )
        for event in (NUMBER, ASK):
            self._service.on(event, partial(self._take, event))
        for network in (self.socket_network, self.http_network):
            await network.serve(
                self._service.application, HOST, max_line_size=_MAX_LINE, shutdown_timeout=_GOODBYE
            )

    async def close(self) -> None:
        """Stop the backend."""
        self.heal()
        for network in (self.socket_network, self.http_network):
            await network.close()

    def token(self) -> str:
        """Return a token that the backend accepts."""
        self._tokens += 1
        return issue_token(_SECRET, "simulation", _DAY, claims={"jti": str(self._tokens)})

    def client(
        self, config: RealtimeConfig, *, token: TokenSource, outbox: Outbox | None, random: Random
    ) -> RealtimeService:
        """See ``Environment``."""
        return RealtimeService(
            config,
            token=token,
            transport_factory=SocketIOTransportFactory(config, self.socket_network.connector),
            http=AiohttpClient(config, self.http_network.connector),
            outbox=outbox,
            random=random,
            wall=wall_clock(),
        )

    def do(self, action: Action) -> Awaitable[None] | None:
        """See ``Environment``."""
        return _DEEDS[action](self)

    def heal(self) -> None:
        """See ``Environment``."""
        self.socket_network.heal()
        self.http_network.heal()
        self._is_slow = False
        self._hurry.set()

    def publish(self, number: int) -> None:
        """See ``Environment``."""
        self._service.publish(CHANNEL, TICK, number)

    def place(self) -> Position | None:
        """See ``Environment``."""
        return self._service.position(CHANNEL)

    def admit(self, tokens: set[str] | None) -> None:
        """Every token that it has issued is good."""

    async def restart(self) -> None:
        """Stop the backend, and start another one; only what had taken effect is known to it."""
        self.socket_network.reset_peer()
        self.http_network.reset_peer()
        for network in (self.socket_network, self.http_network):
            await network.close()
        await self.open()

    async def kick(self) -> None:
        """Disconnect every client on purpose."""
        await self._service.disconnect_all()

    def slow_acks(self) -> None:
        """Think long before each answer, until it is healed."""
        self._is_slow = True
        self._hurry.clear()

    def overload(self) -> None:
        """Answer new clients that there is no room."""

    def slow(self) -> None:
        """Let everything on the socket's network be late."""
        self.socket_network.latency, self.socket_network.jitter = SLOW

    async def _take(self, event: str, _: object, number: int) -> int:
        self._applied.append((event, number))
        if self._is_slow:
            try:
                async with asyncio.timeout(SLOW_ACKS):
                    await self._hurry.wait()
            except TimeoutError:
                pass  # it has thought for long enough
        return number
