"""The backend's configuration: one frozen record, checked as a whole."""

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Self
from urllib.parse import urlsplit

from attrs import field, frozen

from realtime_fsm.machine.checks import Problems, by, checked, listed, seconds, string, subset, whole
from realtime_fsm.machine.config import TRANSPORTS

DEFAULT_FRONTEND_URL: Final = "http://localhost:3000"

SECRET_BYTES: Final[Mapping[str, int]] = MappingProxyType({"HS256": 32, "HS384": 48, "HS512": 64})
"""The algorithms that a shared secret can sign with, and how long it must be. Source: RFC 7518, 3.2."""

_HIGHEST_PORT: Final = 65535
_DEFAULT_PORTS: Final[Mapping[str, int]] = MappingProxyType({"http": 80, "https": 443})


_NOT_BLANK: Final = "must be a text that is not blank"


def _ledger_path(value: object) -> str | None:
    if value == ":memory:":
        return "must be a file: without one the ledger is kept in memory anyway"
    return None if value is None or (isinstance(value, str) and value.strip()) else _NOT_BLANK


def _origin(url: str) -> str:
    """Return the origin of a frontend's address as a browser sends it.

    Raises:
        ValueError: Why there is none.
    """
    if url == "*":
        raise ValueError(
            "would let every web site act with its visitor's credentials, so * is refused: "
            f"name the origins, such as {DEFAULT_FRONTEND_URL}"
        )
    parts = urlsplit(url)
    port = parts.port
    is_bare = parts.path in {"", "/"} and not (parts.query or parts.fragment or "@" in parts.netloc)
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or not is_bare or not url.isascii():
        raise ValueError(f"must be an origin without a path, such as {DEFAULT_FRONTEND_URL}")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    is_default = port in {None, _DEFAULT_PORTS[parts.scheme]}
    return f"{parts.scheme}://{host}" + ("" if is_default else f":{port}")


def _frontend(value: object) -> str | None:
    if not isinstance(value, str) or not value.strip(" ,"):
        return f"must be one or more origins, separated by commas, such as {DEFAULT_FRONTEND_URL}"
    for part in value.split(","):
        try:
            _origin(part.strip())
        except ValueError as error:
            return str(error)
    return None


@frozen(kw_only=True)
class BackendConfig:
    """Everything that can be configured of the backend. Durations are seconds.

    Attributes:
        host: Address to listen at.
        port: Port to listen at; 0 picks one.
        secret: Signs the tokens. At least 32 bytes (RFC 7518 wants as many as the hash has). Never shown.
        issuer: Who must have issued a token, its ``iss``.
        audience: Whom a token must be for, its ``aud``.
        algorithms: The algorithms that a token may be signed with.
        leeway: How much the clocks of the issuer and of this server may differ.
        frontend_url: The web origins that may use this server, separated by commas. No other may.
        transports: ``websocket``, ``polling``, or both.
        ping_interval: Pause between two pings of Engine.IO, in whole seconds: python-engineio announces no
            others.
        ping_timeout: How long a client may take to answer one, in whole seconds.
        connect_timeout: How long an opened connection may take to present its token.
        expiry_check_interval: Pause between two looks for sessions whose token has expired.
        handler_timeout: How long a handler, or the authorization of a channel, may take.
        close_timeout: Bound of ``stop()``.
        log_size: Events kept of each channel.
        max_channels: Channels of which events are kept.
        max_channels_per_client: Channels that one client may be subscribed to.
        max_clients: Sessions at the same time.
        max_message_bytes: Size of one message, either way.
        max_pending_messages: Messages of one client that wait for their handler. One that sends more is
            disconnected.
        max_pending_events: Events that wait for one client's network. One that falls further behind is
            disconnected, and catches up from the log when it returns.
        ledger_path: The SQLite database in which it is kept which messages have taken effect, so that a
            repeat does not take effect again, even after a restart. By default that is kept in memory.
        max_ledger_clients: Clients of which that is kept.
    """

    host: str = string(_NOT_BLANK, "127.0.0.1")
    port: int = whole(3001, least=0, most=_HIGHEST_PORT)
    secret: str | bytes = field(default="", repr=False)
    issuer: str | None = string(_NOT_BLANK, None)
    audience: str | None = string(_NOT_BLANK, None)
    algorithms: tuple[str, ...] = field(
        default=("HS256",),
        converter=listed,
        metadata=by(
            subset(SECRET_BYTES, f"must be among {', '.join(SECRET_BYTES)}: a shared secret signs the tokens")
        ),
    )
    leeway: float = seconds(0.0, most=30.0, zero=True)
    frontend_url: str = checked(_frontend, default=DEFAULT_FRONTEND_URL)
    transports: tuple[str, ...] = field(
        default=TRANSPORTS,
        converter=listed,
        metadata=by(subset(TRANSPORTS, "must be websocket, polling, or both")),
    )
    ping_interval: int = whole(25)
    ping_timeout: int = whole(20)
    connect_timeout: float = seconds(10.0)
    expiry_check_interval: float = seconds(0.5, most=1.0)
    handler_timeout: float = seconds(30.0)
    close_timeout: float = seconds(5.0)
    log_size: int = whole(1000)
    max_channels: int = whole(10_000)
    max_channels_per_client: int = whole(100)
    max_clients: int = whole(10_000)
    max_message_bytes: int = whole(1_000_000, least=1024)
    max_pending_messages: int = whole(1000)
    max_pending_events: int = whole(10_000)
    ledger_path: str | None = checked(_ledger_path, default=None)
    max_ledger_clients: int = whole(10_000)

    def __attrs_post_init__(self) -> None:
        problems = Problems(self)
        if problems.are_sound("algorithms"):
            least = max(SECRET_BYTES[name] for name in self.algorithms)
            secret = self.secret.encode() if isinstance(self.secret, str) else self.secret
            if not isinstance(secret, bytes) or len(secret) < least:  # the secret itself is never shown
                problems.add(
                    f"secret must have at least {least} bytes: give it as `secret=` or in "
                    f"REALTIME_SERVER_SECRET, made by: openssl rand -hex {least}"
                )
        if problems.are_sound("log_size", "max_pending_events") and (
            self.log_size * 2 > self.max_pending_events
        ):
            problems.add(
                f"log_size={self.log_size} must not be more than half of "
                f"max_pending_events={self.max_pending_events}: a channel is replayed as a whole"
            )
        problems.refuse()

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **overrides: Any) -> Self:
        """Read ``REALTIME_SERVER_SECRET``, ``FRONTEND_URL`` and ``REALTIME_SERVER_LEDGER_PATH``.

        An empty value counts as not given.

        Args:
            environ: By default the process's.
            overrides: Fields that win over the environment.

        Raises:
            ConfigurationError: For everything that is wrong.
        """
        environ = os.environ if environ is None else environ
        names = {
            "secret": "REALTIME_SERVER_SECRET",
            "frontend_url": "FRONTEND_URL",
            "ledger_path": "REALTIME_SERVER_LEDGER_PATH",
        }
        given = {name: environ[variable] for name, variable in names.items() if environ.get(variable)}
        return cls(**{**given, **overrides})

    @property
    def origins(self) -> tuple[str, ...]:
        """The web origins that may use this server, as browsers write them."""
        return tuple(dict.fromkeys(_origin(part.strip()) for part in self.frontend_url.split(",")))
