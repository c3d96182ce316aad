"""The surroundings of a client in a simulation: its server, its network, and what can be seen of both."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from random import Random
from types import MappingProxyType
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import urlsplit

from attrs import define, field

from realtime_fsm.engine.outbox import Outbox
from realtime_fsm.engine.port import HttpAnswer, TokenSource
from realtime_fsm.engine.subscriptions import Position
from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.machine.errors import (
    NamespaceRefusedError,
    RealtimeError,
    ServerUnavailableError,
    ServerUnreachableError,
)
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
SIDE: Final = "side"
"""A second channel, wanted now and then, and its events."""
NUMBER: Final = "number"
ASK: Final = "ask"
HELLO: Final = "hello"
"""The application's first word on every connection."""
NEWS: Final = "news"
NEWS_PATH: Final = "/news"
TAKEN: Final = (NUMBER, ASK, HELLO)
"""The events that the server handles and acknowledges."""
_T = TypeVar("_T")
BEGIN_ANEW: Final = "begin-anew"

SLOW: Final = (1.0, 0.8)
"""Latency and jitter, seconds."""

LONGEST_ADDRESS: Final = 4096
"""Bytes of an address that every server takes."""

SLOW_ACKS: Final = 22.0
"""Longer than a call waits, and shorter than a live server is waited for."""

_OF_CHANNELS: Final = frozenset({Action.LOSE_EVENT, Action.SUBSCRIBE, Action.UNSUBSCRIBE, Action.FLICKER})
_GREETED: Final = frozenset({f"{HELLO} came before the first word"})
SLOW_UP_RATE: Final = 60.0
"""Bytes in a second: less than one message."""

_NOISE: Final = "noise"
_CHAT_EVERY: Final = 1.0

_LATE: Final = frozenset({Action.BLACK_HOLE, Action.DEAF, Action.STALL, Action.SLOW, Action.LOSE_ACK})
"""Faults by which a probe is not answered in time; the acknowledgement that gets lost may be its own."""

AHEAD: Final = 7200.0
"""Seconds by which a clock that is wrong is ahead: longer than any token lives."""

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
        """Let the server send the next tick, and the same number on the second channel."""

    def position(self, channel: str = CHANNEL) -> Position | None:
        """Return where a channel stands now, where the server tells positions."""

    @property
    def applied(self) -> Sequence[tuple[str, int]]:
        """The messages that took effect at the server, in order: the event's name and its number."""

    def admit(self, tokens: set[str] | None) -> None:
        """Let in who has one of these tokens; ``None`` for everybody."""

    def hurry(self) -> None:
        """Note that somebody who need not wait, a user or a new process, may make requests at once."""

    @property
    def complaints(self) -> Sequence[str]:
        """The offences of the client, as the server sees them."""

    @property
    def has_tasks(self) -> bool:
        """True if it runs tasks of its own, which nobody can tell from the client's."""

    @property
    def is_dead(self) -> bool:
        """True if no answer comes back from the server over the socket, whatever else does."""

    @property
    def prompt_since(self) -> float | None:
        """Since when probes are answered in time, on the loop's clock.

        ``None`` while they may not be, and where nobody knows.
        """

    @property
    def delivered(self) -> Counter[int] | None:
        """Each tick that has reached the client over a live connection, with how often it did.

        ``None`` where ticks come by other ways as well.
        """


@define(eq=False)
class _Patience:
    """Notes what a server asked for by ``Retry-After``, and complains of who does not wait for it.

    Attributes:
        complaints: Where the complaints go.
        until: When each kind of request may be made again, on the loop's clock.
    """

    complaints: list[str]
    until: dict[str, float] = field(factory=dict)

    async def watch(self, what: str, request: Awaitable[_T]) -> _T:
        """Make a request, and note how it ends."""
        now = asyncio.get_running_loop().time()
        left = self.until.get(what, now) - now
        if left > 0.0:
            self.complaints.append(f"{what} {left:.3f} s before the Retry-After was over")
        try:
            return await request
        except RealtimeError as error:
            if error.retry_after is not None:
                self.until[what] = asyncio.get_running_loop().time() + error.retry_after
            raise

    def forget(self) -> None:
        """Let every request be made at once."""
        self.until.clear()


class _WatchedServer(SimulatedServer):
    """A simulated server that complains of dials which come too early."""

    patience: _Patience

    async def admit(self, auth: Mapping[str, Any] | None) -> None:
        """Let a client in, or refuse it; see ``SimulatedServer``."""
        await self.patience.watch("a dial", super().admit(auth))


class SimulatedEnvironment:
    """The fast one: the simulated server, HTTP, and backend.

    Args:
        setting: What kind of server it is.
        random: Of the network's jitter.
    """

    def __init__(self, setting: Setting, random: Random) -> None:
        self.setting = setting
        self._complaints: list[str] = []
        self._patience = _Patience(self._complaints)
        self.server = _WatchedServer(random=random, lingers=True)
        self.server.patience = self._patience
        self.http = SimulatedHttp()
        self.clock_ahead = 0.0
        self._applied: list[tuple[str, int]] = []
        self._backend: SimulatedBackend | None = None
        self._tokens: set[str] | None = None
        self._number = 0
        self._given = 0
        self._prompt_since: float | None = asyncio.get_running_loop().time()
        self._chatting: asyncio.TimerHandle | None = None
        if setting is Setting.REFERENCE:
            handlers: dict[str, Callable[..., Any]] = {event: self._handler(event) for event in TAKEN}
            self._backend = SimulatedBackend(handlers=handlers, log_size=_LOG_SIZE)
            self.server.backend = self.http.backend = self._backend
        else:
            self.server.acknowledge = self._acknowledge
            self.http.resources[NEWS_PATH] = lambda _: self._number
            if setting is Setting.NODE:
                self.server.sessions = SimulatedSessions(log_size=_LOG_SIZE)

    @property
    def supports(self) -> frozenset[Action]:
        """All; but a plain server has no channels, and nobody notices an event that it loses."""
        return frozenset(Action) if self._backend is not None else frozenset(Action) - _OF_CHANNELS

    @property
    def applied(self) -> Sequence[tuple[str, int]]:
        """See ``Environment``."""
        if self._backend is not None:
            return self._applied
        return [(event, args[0]) for event, args in self.server.received if event in TAKEN]

    def hurry(self) -> None:
        """See ``Environment``."""
        self._patience.forget()

    @property
    def complaints(self) -> Sequence[str]:
        """See ``Environment``."""
        many = [f"{self.server.most_links} connections at the same time"] * (self.server.most_links > 1)
        early = sorted(
            {f"{event} came before the first word" for event in self.server.first_heard} - _GREETED
        )
        return [*self._complaints, *many, *early]

    @property
    def has_tasks(self) -> bool:
        """See ``Environment``."""
        return False

    @property
    def is_dead(self) -> bool:
        """See ``Environment``."""
        return self.server.is_black_hole or self.server.is_deaf

    @property
    def prompt_since(self) -> float | None:
        """See ``Environment``."""
        return self._prompt_since

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
        self._be_quiet()

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
        watched = _WatchedHttp(self.http, self._complaints, self._patience)
        true = wall_clock()
        client = RealtimeService(
            config,
            token=token,
            transport_factory=self.server,
            http=watched,
            outbox=outbox,
            random=random,
            wall=lambda: true() + self.clock_ahead,
        )
        watched.status = lambda: client.status
        return client

    def do(self, action: Action) -> Awaitable[None] | None:
        """See ``Environment``."""
        _DEEDS[action](self)
        if action in _LATE:
            self._prompt_since = None
        return None

    def heal(self) -> None:
        """See ``Environment``."""
        server, http = self.server, self.http
        server.is_black_hole = server.is_stalled = server.is_silent = server.is_deaf = False
        server.uplink_rate = None
        self._be_quiet()
        self._prompt_since = asyncio.get_running_loop().time()
        server.refusal = http.refusal = None
        http.is_cut = False
        self.clock_ahead = 0.0
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
            self._backend.publish(SIDE, SIDE, number)

    def position(self, channel: str = CHANNEL) -> Position | None:
        """See ``Environment``."""
        return None if self._backend is None else Position(**self._backend.position(channel))

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

    def deafen(self) -> None:
        """Hear nothing any more, and go on talking: what comes down is no answer."""
        self.server.is_deaf = True
        self._be_quiet()
        self._chat()

    def _chat(self) -> None:
        self.server.emit(_NOISE, volatile=True)
        self._chatting = asyncio.get_running_loop().call_later(_CHAT_EVERY, self._chat)

    def _be_quiet(self) -> None:
        if self._chatting is not None:
            self._chatting.cancel()
            self._chatting = None

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
        return args if event in TAKEN else None


class _WatchedHttp:
    """Passes requests on, and complains of polls that overlap, or that are made outside of FALLBACK."""

    def __init__(self, http: SimulatedHttp, complaints: list[str], patience: _Patience) -> None:
        self._http = http
        self._patience = patience
        self._complaints = complaints
        self._open: Counter[str] = Counter()
        self.status: Callable[[], ConnectionStatus] = lambda: ConnectionStatus.FALLBACK

    def open(self) -> None:
        self._http.open()

    async def get(self, url: str, *, token: str | None, etag: str | None) -> HttpAnswer:
        path = urlsplit(url).path
        if not TRAITS[self.status()].publishes:
            self._complaints.append(f"{path} was polled in {self.status()}")
        if len(url) > LONGEST_ADDRESS:
            self._complaints.append(f"{path} was polled by an address of {len(url)} bytes")
        await asyncio.sleep(_GRACE)
        if self._open[path]:
            self._complaints.append(f"two polls of {path} at the same time")
        self._open[path] += 1
        try:
            return await self._patience.watch(
                f"a poll of {path}", self._http.get(url, token=token, etag=etag)
            )
        finally:
            self._open[path] -= 1

    async def post(self, url: str, body: object, *, token: str | None, idempotency_key: str) -> HttpAnswer:
        await asyncio.sleep(_GRACE)
        if not TRAITS[self.status()].publishes:
            self._complaints.append(f"messages were published in {self.status()}")
        return await self._patience.watch(
            "a publication", self._http.post(url, body, token=token, idempotency_key=idempotency_key)
        )

    async def close(self) -> None:
        await self._http.close()


def _lose_ack(environment: SimulatedEnvironment) -> None:
    environment.server.swallow_acks += 1


def _http_down(environment: SimulatedEnvironment) -> None:
    environment.http.refusal = ServerUnreachableError("nobody answers.")


def _http_overload(environment: SimulatedEnvironment) -> None:
    environment.http.refusal = _OVERLOADED


def _clock_ahead(environment: SimulatedEnvironment) -> None:
    environment.clock_ahead = AHEAD


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
    Action.DEAF:       lambda e: e.deafen(),
    Action.SLOW_UP:    lambda e: e.set_server(uplink_rate=SLOW_UP_RATE),
    Action.HTTP_OVERLOAD: _http_overload,
    Action.CLOCK_AHEAD: _clock_ahead,
    Action.HANDLER_RESTARTS: lambda e: e.server.emit(BEGIN_ANEW, volatile=True),
})
# fmt: on
