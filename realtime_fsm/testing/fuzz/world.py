"""The surroundings of a client in a simulation: its server, its network, and what can be seen of both."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from random import Random
from types import MappingProxyType
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from realtime_fsm.engine.outbox import Outbox
from realtime_fsm.engine.port import HttpAnswer, TokenSource
from realtime_fsm.engine.subscriptions import Position
from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.machine.errors import NamespaceRefusedError, ServerUnavailableError, ServerUnreachableError
from realtime_fsm.machine.record import StatusChange
from realtime_fsm.machine.table import TRAITS, ConnectionStatus
from realtime_fsm.service import RealtimeService
from realtime_fsm.testing.fuzz.schedule import Action, Setting
from realtime_fsm.testing.simulated.backend import SimulatedBackend
from realtime_fsm.testing.simulated.http import SimulatedHttp
from realtime_fsm.testing.simulated.server import SimulatedServer
from realtime_fsm.testing.simulated.sessions import SimulatedSessions
from realtime_fsm.testing.virtual_loop import wall_clock

CHANNEL: Final = "ticks"
TICK: Final = "tick"
NUMBER: Final = "number"
ASK: Final = "ask"
NEWS: Final = "news"
NEWS_PATH: Final = "/news"
_TAKEN: Final = frozenset({NUMBER, ASK})

SLOW: Final = (1.0, 0.8)
"""Latency and jitter, seconds."""

SLOW_ACKS: Final = 22.0
"""Longer than a call waits, and shorter than a live server is waited for."""

RETRY_AFTER: Final = 7
"""Seconds that an overloaded server asks for."""

_LOG_SIZE: Final = 6
_GRACE: Final = 0.001
"""Seconds after which a request that was cancelled when it began has heard of it."""


class Environment(Protocol):
    """A server and a network. What a simulation does not do itself is done here."""

    @property
    def setting(self) -> Setting:
        """The kind of server that it is."""

    @property
    def supports(self) -> frozenset[Action]:
        """The faults that can be had."""

    async def open(self) -> None:
        """Start what the client needs around it."""

    async def close(self) -> None:
        """End, and leave nothing."""

    def token(self) -> str:
        """Return a new token, good from now on."""

    def client(
        self, config: RealtimeConfig, *, token: TokenSource, outbox: Outbox | None, random: Random
    ) -> RealtimeService:
        """Make a client of it."""

    def do(self, action: Action) -> Awaitable[None] | None:
        """Let a fault happen, or begin."""

    def heal(self) -> None:
        """End every fault that lasts."""

    def publish(self, number: int) -> None:
        """Let the server send the next tick."""

    def position(self) -> Position | None:
        """Return where the channel stands now, where the server tells positions."""

    @property
    def applied(self) -> Sequence[tuple[str, int]]:
        """The messages that took effect at the server, in order: the event's name and its number."""

    def admit(self, tokens: set[str] | None) -> None:
        """Let in who has one of these tokens; ``None`` for everybody."""

    @property
    def complaints(self) -> Sequence[str]:
        """The offences of the client, as the server sees them."""

    @property
    def has_tasks(self) -> bool:
        """True if it runs tasks of its own, which nobody can tell from the client's."""

    @property
    def is_dead(self) -> bool:
        """True if nothing comes back from the server over the socket."""

    @property
    def delivered(self) -> Counter[int] | None:
        """How often each tick has reached the client over a live connection; ``None`` if others can, too."""


class SimulatedEnvironment:
    """The fast one: the simulated server, HTTP, and backend.

    Args:
        setting: What kind of server it is.
        random: Of the network's jitter.
    """

    def __init__(self, setting: Setting, random: Random) -> None:
        self.setting = setting
        self.server = SimulatedServer(random=random, lingers=True)
        self.http = SimulatedHttp()
        self._applied: list[tuple[str, int]] = []
        self._complaints: list[str] = []
        self._backend: SimulatedBackend | None = None
        self._tokens: set[str] | None = None
        self._number = 0
        self._given = 0
        if setting is Setting.REFERENCE:
            handlers: dict[str, Callable[..., Any]] = {event: self._handler(event) for event in (NUMBER, ASK)}
            self._backend = SimulatedBackend(handlers=handlers, log_size=_LOG_SIZE)
            self.server.backend = self.http.backend = self._backend
        else:
            self.server.acknowledge = self._acknowledge
            self.http.resources[NEWS_PATH] = lambda _: self._number
            if setting is Setting.NODE:
                self.server.sessions = SimulatedSessions(log_size=_LOG_SIZE)

    @property
    def supports(self) -> frozenset[Action]:
        """All; but nobody notices an event that a server without offsets loses on a live connection."""
        return frozenset(Action) if self._backend is not None else frozenset(Action) - {Action.LOSE_EVENT}

    @property
    def applied(self) -> Sequence[tuple[str, int]]:
        """See ``Environment``."""
        if self._backend is not None:
            return self._applied
        return [(event, args[0]) for event, args in self.server.received if event in _TAKEN]

    @property
    def complaints(self) -> Sequence[str]:
        """See ``Environment``."""
        many = [f"{self.server.most_links} connections at the same time"] * (self.server.most_links > 1)
        return [*self._complaints, *many]

    @property
    def has_tasks(self) -> bool:
        """See ``Environment``."""
        return False

    @property
    def is_dead(self) -> bool:
        """See ``Environment``."""
        return self.server.is_black_hole

    @property
    def delivered(self) -> Counter[int] | None:
        """See ``Environment``. With a backend they come by replays and polls as well."""
        if self._backend is not None:
            return None
        return Counter(args[0] for event, args in self.server.told if event == TICK)

    async def open(self) -> None:
        """See ``Environment``."""

    async def close(self) -> None:
        """See ``Environment``."""

    def token(self) -> str:
        """See ``Environment``."""
        self._given += 1
        token = f"token-{self._given}"
        if self._tokens is not None:
            self._tokens.add(token)
        return token

    def client(
        self, config: RealtimeConfig, *, token: TokenSource, outbox: Outbox | None, random: Random
    ) -> RealtimeService:
        """See ``Environment``."""
        watched = _WatchedHttp(self.http, self._complaints)
        client = RealtimeService(
            config,
            token=token,
            transport_factory=self.server,
            http=watched,
            outbox=outbox,
            random=random,
            wall=wall_clock(),
        )
        watched.status = lambda: client.status
        watched.stay = lambda: client.connection_status.last
        return client

    def do(self, action: Action) -> Awaitable[None] | None:
        """See ``Environment``."""
        _DEEDS[action](self)
        return None

    def heal(self) -> None:
        """See ``Environment``."""
        server, http = self.server, self.http
        server.is_black_hole = server.is_stalled = server.is_silent = False
        server.refusal = http.refusal = None
        http.is_cut = False
        server.latency, server.jitter, server.ack_delay = 0.01, 0.0, 0.0
        server.swallow_acks = 0
        if self._backend is not None:
            self._backend.lose_next(CHANNEL, 0)
        self.admit(self._tokens)

    def publish(self, number: int) -> None:
        """See ``Environment``."""
        self._number = number
        if self._backend is None:
            self.server.emit(TICK, number)
        else:
            self._backend.publish(CHANNEL, TICK, number)

    def position(self) -> Position | None:
        """See ``Environment``."""
        return None if self._backend is None else Position(**self._backend.position(CHANNEL))

    def admit(self, tokens: set[str] | None) -> None:
        """See ``Environment``."""
        self._tokens = tokens
        self.server.accept_tokens = self.http.accept_tokens = tokens

    def restart(self) -> None:
        """Lose the connections and the logs; not the data."""
        if self._backend is not None:
            self._backend.restart()
        if self.server.sessions is not None:
            self.server.sessions.forget()
        self.server.reset()

    def set_server(self, **state: Any) -> None:
        """Change attributes of the simulated server."""
        for name, value in state.items():
            setattr(self.server, name, value)

    def deny(self) -> None:
        """Let nobody in, until it is healed."""
        self.server.accept_tokens = self.http.accept_tokens = set()

    def lose_event(self) -> None:
        """Lose the next event."""
        if self._backend is not None:
            self._backend.lose_next(CHANNEL, 1)

    def _handler(self, event: str) -> Callable[[int], int]:
        def take(number: int) -> int:
            self._applied.append((event, number))
            return number

        return take

    def _acknowledge(self, event: str, args: list[Any]) -> list[Any] | None:
        return args if event in _TAKEN else None


class _WatchedHttp:
    """Passes requests on, and complains of polls that overlap, or that are made outside of FALLBACK.

    And of messages that are published before the server wants to be asked again, in the same stay.
    """

    def __init__(self, http: SimulatedHttp, complaints: list[str]) -> None:
        self._http = http
        self._complaints = complaints
        self._open: Counter[str] = Counter()
        self._spared: tuple[StatusChange | None, float] = (None, 0.0)
        self.status: Callable[[], ConnectionStatus] = lambda: ConnectionStatus.FALLBACK
        self.stay: Callable[[], StatusChange | None] = lambda: None

    def open(self) -> None:
        self._http.open()

    async def get(self, url: str, *, token: str | None, etag: str | None) -> HttpAnswer:
        await asyncio.sleep(_GRACE)
        path = urlsplit(url).path
        if self._open[path]:
            self._complaints.append(f"two polls of {path} at the same time")
        if not TRAITS[self.status()].publishes:
            self._complaints.append(f"{path} was polled in {self.status()}")
        self._open[path] += 1
        try:
            return await self._http.get(url, token=token, etag=etag)
        finally:
            self._open[path] -= 1

    async def post(self, url: str, body: object, *, token: str | None, idempotency_key: str) -> HttpAnswer:
        await asyncio.sleep(_GRACE)
        if not TRAITS[self.status()].publishes:
            self._complaints.append(f"messages were published in {self.status()}")
        time = asyncio.get_running_loop().time
        stay, until = self._spared
        if stay is self.stay() and time() < until:
            self._complaints.append(f"messages were published {until - time():.3f} s before Retry-After")
        try:
            return await self._http.post(url, body, token=token, idempotency_key=idempotency_key)
        except ServerUnavailableError as error:
            self._spared = (self.stay(), time() + (error.retry_after or 0.0))
            raise

    async def close(self) -> None:
        await self._http.close()


def _lose_ack(environment: SimulatedEnvironment) -> None:
    environment.server.swallow_acks += 1


def _http_down(environment: SimulatedEnvironment) -> None:
    environment.http.refusal = ServerUnreachableError("nobody answers.")


def _http_overload(environment: SimulatedEnvironment) -> None:
    environment.http.refusal = _OVERLOADED


def _http_cut(environment: SimulatedEnvironment) -> None:
    environment.http.is_cut = True


_OVERLOADED: Final = ServerUnavailableError("503.", retry_after=RETRY_AFTER)
_CLOSED: Final = NamespaceRefusedError("no such namespace.")
_REFUSED: Final = ServerUnreachableError("refused.")

# fmt: off
_DEEDS: Final[Mapping[Action, Callable[[SimulatedEnvironment], object]]] = MappingProxyType({
    Action.KICK:       lambda e: e.server.kick(),
    Action.RESTART:    lambda e: e.restart(),
    Action.DENY:       lambda e: e.deny(),
    Action.BANISH:     lambda e: e.set_server(refusal=_CLOSED),
    Action.OVERLOAD:   lambda e: e.set_server(refusal=_OVERLOADED),
    Action.REFUSE:     lambda e: e.set_server(refusal=_REFUSED),
    Action.SILENCE:    lambda e: e.set_server(is_silent=True),
    Action.SLOW_ACKS:  lambda e: e.set_server(ack_delay=SLOW_ACKS),
    Action.LOSE_ACK:   _lose_ack,
    Action.LOSE_EVENT: lambda e: e.lose_event(),
    Action.RESET_PEER: lambda e: e.server.reset(),
    Action.BLACK_HOLE: lambda e: e.set_server(is_black_hole=True),
    Action.STALL:      lambda e: e.set_server(is_stalled=True),
    Action.SLOW:       lambda e: e.set_server(latency=SLOW[0], jitter=SLOW[1]),
    Action.HTTP_DOWN:  _http_down,
    Action.HTTP_CUT:   _http_cut,
    Action.HTTP_OVERLOAD: _http_overload,
})
# fmt: on
