"""What is examined, and what the checks have learnt of it so far."""

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Final
from urllib.parse import SplitResult, urlencode, urlsplit, urlunsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from attrs import define, field, frozen

from realtime_fsm.adapters import error_translation
from realtime_fsm.adapters.handshake import Handshake
from realtime_fsm.machine.config import RealtimeConfig

if TYPE_CHECKING:
    from realtime_fsm.doctor.visit import Visit

_PORTS: Final = {"http": 80, "https": 443}
LOCAL_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@frozen
class HttpAnswer:
    """What the server answered to the first request.

    Attributes:
        status: The status code.
        headers: Of the answer.
        body: The beginning of it.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


@define(kw_only=True)
class Patient:
    """What is examined. Everything but the first four is filled in by the checks.

    Attributes:
        config: Where the server is, and its conventions.
        token: Shown to the server when the namespace is joined, or ``None``. Never shown to anybody else.
        timeout: Seconds that each step may wait.
        idle: Seconds for which the open connection is kept silent; 0 leaves that check out.
        trust: The certificates that are trusted; by default the system's.
        token_name: Where the token came from, in words.
        addresses: What the name of the host stands for.
        answer: What the server answered over HTTP.
        handshake: What the server announced.
        transports: What has been seen to work, in the order in which the client would try it.
        visit: The connection to the namespace, once that was dialled.
    """

    config: RealtimeConfig
    token: str | None = field(default=None, repr=False)
    timeout: float = 5.0
    idle: float = 5.0
    trust: ssl.SSLContext | None = None
    token_name: str = "the token"  # noqa: S105 - words
    addresses: list[ResolveResult] = field(factory=list)
    answer: HttpAnswer | None = None
    handshake: Handshake | None = None
    transports: list[str] = field(factory=list)
    visit: "Visit | None" = None

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
    def place(self) -> str:
        """The host and the port, as they are written."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_secure(self) -> bool:
        """Whether the address asks for TLS."""
        return self.parts.scheme == "https"

    @property
    def is_local(self) -> bool:
        """Whether the address is on this very machine."""
        return self.host in LOCAL_HOSTS

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must never be seen."""
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
        """Return what is trusted."""
        return ssl.create_default_context() if self.trust is None else self.trust

    def connector(self) -> aiohttp.BaseConnector:
        """Return what opens connections to the addresses that were found, and to no others."""
        return aiohttp.TCPConnector(
            resolver=_Known(self.addresses), ssl=self.trusted() if self.is_secure else True
        )

    @asynccontextmanager
    async def session(self) -> AsyncIterator[aiohttp.ClientSession]:
        """Give a session of HTTP, every request of which is bounded by ``timeout``."""
        trace = aiohttp.TraceConfig()
        trace.on_request_redirect.append(_refuse_redirect)  # a websocket handshake follows them otherwise
        async with aiohttp.ClientSession(
            connector=self.connector(),
            timeout=aiohttp.ClientTimeout(total=self.timeout),
            trace_configs=[trace],
        ) as session:
            yield session


async def _refuse_redirect(
    _: aiohttp.ClientSession, __: SimpleNamespace, params: aiohttp.TraceRequestRedirectParams
) -> None:
    response = params.response
    response.close()
    raise error_translation.from_status(response.status, response.headers, url=str(params.url))


class _Known(AbstractResolver):
    """Gives the addresses that are known already: all checks look at the same server, and none resolves."""

    def __init__(self, addresses: list[ResolveResult]) -> None:
        self._addresses = addresses

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:  # noqa: ARG002
        """Return them."""
        return self._addresses

    async def close(self) -> None:
        """Do nothing."""
