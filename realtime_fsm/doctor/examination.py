"""The target of an examination, and what its checks have learnt of it so far."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, Final
from urllib.parse import SplitResult, urlencode, urlsplit, urlunsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from attrs import define, evolve, field, frozen

from realtime_fsm.adapters import error_translation
from realtime_fsm.adapters.frame import Handshake
from realtime_fsm.adapters.socketio_transport import SocketIOTransport
from realtime_fsm.engine.payload import encode
from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.machine.errors import ConnectTimeoutError, InternalError, RealtimeError

_PORTS: Final = {"http": 80, "https": 443}
_LOCAL_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_GOODBYE_TIMEOUT: Final = 1.0


@frozen
class FirstAnswer:
    """The server's answer to the first request.

    Attributes:
        status: The status code.
        headers: Of the answer.
        body: The beginning of it.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


@frozen(kw_only=True)
class Target:
    """A server that is to be examined, and how.

    Attributes:
        config: Where the server is, and its conventions.
        token: Shown to the server when the namespace is joined, or ``None``. Never shown to anybody else.
        timeout: Seconds that each step may wait.
        idle: Seconds for which the open connection is kept silent; 0 leaves that check out.
        trust: The certificates that are trusted; by default the system's.
        token_name: Where the token came from, in words.
    """

    config: RealtimeConfig
    token: str | None = field(default=None, repr=False)
    timeout: float = 5.0
    idle: float = 5.0
    trust: ssl.SSLContext | None = None
    token_name: str = "the token"  # noqa: S105 - words

    @property
    def parts(self) -> SplitResult:
        """The parts of the server's address."""
        return urlsplit(self.config.server_url)

    @property
    def host(self) -> str:
        """The name, or the address, of the server."""
        return self.parts.hostname or ""

    @property
    def port(self) -> int:
        """The port of the server."""
        return self.parts.port or _PORTS[self.parts.scheme]

    @property
    def authority(self) -> str:
        """The host and the port, as they are written in an address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_secure(self) -> bool:
        """True if the address asks for TLS."""
        return self.parts.scheme == "https"

    @property
    def is_local(self) -> bool:
        """True if the address is on this very machine."""
        return self.host in _LOCAL_HOSTS

    @property
    def secrets(self) -> tuple[str, ...]:
        """The texts that must never be seen."""
        return () if self.token is None else (self.token,)

    def endpoint(self, transport: str, **query: str) -> str:
        """Return the address at which the server speaks Engine.IO, as the client asks for it."""
        parts = self.parts
        scheme = parts.scheme
        if transport == "websocket":
            scheme = "wss" if self.is_secure else "ws"
        asked = urlencode({"transport": transport, "EIO": "4", **query})
        joined = f"{parts.query}&{asked}" if parts.query else asked
        return urlunsplit((scheme, parts.netloc, f"/{self.config.socketio_path.strip('/')}/", joined, ""))

    def trusted(self) -> ssl.SSLContext:
        """Return the certificates that are trusted."""
        return ssl.create_default_context() if self.trust is None else self.trust


@define
class Examination:
    """One examination of a target; the checks fill it in, each with what the later ones need.

    Attributes:
        target: The server that is examined.
        addresses: What the name of the host stands for; the one that answers comes first.
        answer: What the server answered over HTTP.
        handshake: What the server announced.
        transports: What has been seen to work, in the order in which the client would try it.
        connection: The connection to the namespace, once that was dialled.
    """

    target: Target
    addresses: list[ResolveResult] = field(factory=list)
    answer: FirstAnswer | None = None
    handshake: Handshake | None = None
    transports: list[str] = field(factory=list)
    connection: "NamespaceConnection | None" = None

    @property
    def joined(self) -> "NamespaceConnection":
        """The connection to the namespace, for the checks that come after the one that dials it."""
        if self.connection is None:  # pragma: no cover - a failed `namespace` stops the examination
            raise AssertionError("nobody is connected")
        return self.connection

    def connector(self) -> aiohttp.BaseConnector:
        """Return a connector to the addresses that were found, and to no others."""
        trusted = self.target.trusted() if self.target.is_secure else True
        return aiohttp.TCPConnector(resolver=_KnownAddresses(self.addresses), ssl=trusted)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[aiohttp.ClientSession]:
        """Give a session of HTTP, every request of which is bounded by the target's ``timeout``."""
        trace = aiohttp.TraceConfig()
        trace.on_request_redirect.append(_refuse_redirect)  # a websocket handshake follows them otherwise
        async with aiohttp.ClientSession(
            connector=self.connector(),
            timeout=aiohttp.ClientTimeout(total=self.target.timeout),
            trace_configs=[trace],
        ) as session:
            yield session


async def _refuse_redirect(
    _: aiohttp.ClientSession, __: SimpleNamespace, params: aiohttp.TraceRequestRedirectParams
) -> None:
    response = params.response
    response.close()
    raise error_translation.from_status(response.status, response.headers, url=str(params.url))


class _KnownAddresses(AbstractResolver):
    """Gives the addresses that are known already: all checks look at the same server, and none resolves."""

    def __init__(self, addresses: list[ResolveResult]) -> None:
        self._addresses = addresses

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:  # noqa: ARG002
        """Return the addresses, whatever is asked for."""
        return self._addresses

    async def close(self) -> None:
        """Do nothing: there is nothing to release."""


class NamespaceConnection:
    """A connection to the namespace by the client's own transport, whose listener it is.

    Args:
        examination: Of whom, and over which transports: those that were seen to work.

    Attributes:
        error: Why the namespace could not be joined; ``None`` where it was.
        lost: Resolved with the reason when the open connection ends.
        malformed: The last frame that could not be decoded, in words.
        acknowledges: Whether the server has acknowledged the heartbeat.
        pongs: Whether the peer has answered a ping of the websocket.
    """

    def __init__(self, examination: Examination) -> None:
        self._target = examination.target
        self._loop = asyncio.get_running_loop()
        self._ack_id = 0
        self._acks: dict[int, asyncio.Future[list[Any]]] = {}
        self._pong: asyncio.Future[None] | None = None
        self.error: RealtimeError | None = None
        self.lost: asyncio.Future[RealtimeError] = self._loop.create_future()
        self.malformed: str | None = None
        self.acknowledges = False
        self.pongs = False
        config = evolve(
            self._target.config,
            transports=tuple(examination.transports),
            connection_timeout=self._target.timeout,
        )
        self._transport = SocketIOTransport(config, self, examination.connector)

    # What the transport tells.

    def on_event(self, name: str, args: list[Any], ack_id: int | None, size: int = 0) -> None:
        """Take no notice: events are no part of the examination."""

    def on_ack(self, ack_id: int, args: list[Any]) -> None:
        """Give an acknowledgement to who waits for it."""
        waiting = self._acks.pop(ack_id, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(args)

    def on_pong(self, number: int) -> None:  # noqa: ARG002 - one at a time is asked for
        """Note that the peer is there."""
        self.pongs = True
        if self._pong is not None and not self._pong.done():
            self._pong.set_result(None)

    def on_written(self) -> None:
        """Take no notice: what is sent here always has room."""

    def on_malformed(self, error: RealtimeError) -> None:
        """Remember which frame could not be decoded."""
        self.malformed = error.message

    def on_lost(self, error: RealtimeError) -> None:
        """Remember why the connection ended."""
        if not self.lost.done():
            self.lost.set_result(error)

    # What is asked of it.

    @property
    def welcome(self) -> Mapping[str, Any]:
        """The data of the CONNECT packet that let the client in."""
        return self._transport.welcome

    @property
    def transport(self) -> str:
        """The name of what carries it: ``websocket`` or ``polling``."""
        return self._transport.name

    @property
    def is_open(self) -> bool:
        """True if the namespace was joined, and has not been lost."""
        return self.error is None and not self.lost.done()

    async def begin(self) -> None:
        """Join the namespace; ``error`` says how that went."""
        target = self._target
        auth = None if target.token is None else {target.config.dialect.token_key: target.token}
        try:
            async with asyncio.timeout(target.timeout):
                await self._transport.open(auth)
        except TimeoutError:
            self.error = ConnectTimeoutError(
                f"The session opens, but nothing answers for the namespace {target.config.namespace} within "
                f"{target.timeout:g} s.",
                remedy="Its connection handler hangs: look at what it waits for, and at the server's log.",
            )
        except RealtimeError as error:
            self.error = error
        except Exception as error:  # noqa: BLE001 - of the libraries below; it is told, whatever it is
            self.error = InternalError(f"Opening the connection raised {type(error).__name__}.")

    async def ask(self, event: str, *args: Any) -> list[Any] | None:
        """Emit an event, and return the arguments of its acknowledgement; ``None`` where none comes."""
        self._ack_id += 1
        answer = self._acks[self._ack_id] = self._loop.create_future()
        payload = encode(
            [event, *args], what=f"The event {event!r}", max_bytes=self._target.config.max_message_bytes
        )
        self._transport.send(payload, self._ack_id)
        await self._first(answer)
        return answer.result() if answer.done() else None

    async def ping(self) -> bool:
        """Tell whether the peer answers a ping of the websocket; never over polling."""
        self._pong = self._loop.create_future()
        if not self._transport.ping(1):
            return False
        await self._first(self._pong)
        return self._pong.done()

    async def _first(self, answer: asyncio.Future[Any]) -> None:
        await asyncio.wait(
            {answer, self.lost}, timeout=self._target.timeout, return_when=asyncio.FIRST_COMPLETED
        )

    async def stay_silent(self, seconds: float) -> None:
        """Send nothing for a time, or until the connection is lost. Pings of the server are answered."""
        await asyncio.wait({self.lost}, timeout=seconds)

    async def end(self) -> None:
        """Say goodbye, and release everything. Bounded."""
        try:
            async with asyncio.timeout(_GOODBYE_TIMEOUT):
                await self._transport.close(goodbye=self.is_open)
        except TimeoutError:  # it has been released all the same
            return
