"""The backend's configuration: one frozen record, checked as a whole, all problems reported at once."""

import math
import os
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, Self
from urllib.parse import urlsplit

from attrs import field, fields, frozen

from realtime_fsm.machine.config import TRANSPORTS
from realtime_fsm.machine.errors import ConfigurationError

DEFAULT_FRONTEND_URL: Final = "http://localhost:3000"

SECRET_BYTES: Final[Mapping[str, int]] = MappingProxyType({"HS256": 32, "HS384": 48, "HS512": 64})
"""The algorithms that a shared secret can sign with, and how long it must be. Source: RFC 7518, 3.2."""

_CHECK: Final = "check"
_HIGHEST_PORT: Final = 65535
_DEFAULT_PORTS: Final[Mapping[str, int]] = MappingProxyType({"http": 80, "https": 443})


def _whole(default: int, *, least: int = 1, most: int | None = None) -> Any:
    """Declare a field that counts something, or is in whole seconds: an ``int`` within limits."""

    def check(value: object) -> str | None:
        ok = type(value) is int and value >= least and (most is None or value <= most)
        limits = f"{least} or more" if most is None else f"from {least} to {most}"
        return None if ok else f"must be a whole number, {limits}"

    return field(default=default, metadata={_CHECK: check})


def _seconds(default: float, *, most: float = math.inf, zero: bool = False) -> Any:
    """Declare a field in seconds: positive (or ``>= 0`` where ``zero``), and ``most`` at most."""

    def check(value: object) -> str | None:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        number = float(value) if is_number else math.nan  # type: ignore[arg-type]
        if math.isfinite(number) and (0 < number <= most or (zero and number == 0)):
            return None
        limit = "" if most == math.inf else f", {most:g} at most"
        return f"must be a finite number of seconds, {'0 or more' if zero else 'more than 0'}{limit}"

    return field(default=default, metadata={_CHECK: check})


def _text(value: object) -> str | None:
    return None if isinstance(value, str) and value.strip() else "must be a text that is not blank"


def _optional_text(value: object) -> str | None:
    return None if value is None else _text(value)


def _ledger_path(value: object) -> str | None:
    if value == ":memory:":
        return "must be a file: without one the ledger is kept in memory anyway"
    return _optional_text(value)


def _as_tuple(value: "str | Iterable[str]") -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else tuple(value)


def _transport_names(value: tuple[str, ...]) -> str | None:
    ok = value and set(value) <= set(TRANSPORTS) and len(set(value)) == len(value)
    return None if ok else "must be websocket, polling, or both"


def _algorithm_names(value: tuple[str, ...]) -> str | None:
    ok = value and set(value) <= set(SECRET_BYTES)
    return None if ok else f"must be among {', '.join(SECRET_BYTES)}: a shared secret signs the tokens"


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
    """Everything that can be configured of the backend (SPEC F1). Durations are seconds.

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

    host: str = field(default="127.0.0.1", metadata={_CHECK: _text})
    port: int = _whole(3001, least=0, most=_HIGHEST_PORT)
    secret: str | bytes = field(default="", repr=False)
    issuer: str | None = field(default=None, metadata={_CHECK: _optional_text})
    audience: str | None = field(default=None, metadata={_CHECK: _optional_text})
    algorithms: tuple[str, ...] = field(
        default=("HS256",), converter=_as_tuple, metadata={_CHECK: _algorithm_names}
    )
    leeway: float = _seconds(0.0, most=30.0, zero=True)
    frontend_url: str = field(default=DEFAULT_FRONTEND_URL, metadata={_CHECK: _frontend})
    transports: tuple[str, ...] = field(
        default=TRANSPORTS, converter=_as_tuple, metadata={_CHECK: _transport_names}
    )
    ping_interval: int = _whole(25)
    ping_timeout: int = _whole(20)
    connect_timeout: float = _seconds(10.0)
    expiry_check_interval: float = _seconds(0.5, most=1.0)
    handler_timeout: float = _seconds(30.0)
    close_timeout: float = _seconds(5.0)
    log_size: int = _whole(1000)
    max_channels: int = _whole(10_000)
    max_channels_per_client: int = _whole(100)
    max_clients: int = _whole(10_000)
    max_message_bytes: int = _whole(1_000_000, least=1024)
    max_pending_messages: int = _whole(1000)
    max_pending_events: int = _whole(10_000)
    ledger_path: str | None = field(default=None, metadata={_CHECK: _ledger_path})
    max_ledger_clients: int = _whole(10_000)

    def __attrs_post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise ConfigurationError(*problems)

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

    def _problems(self) -> Iterable[str]:
        sound = set()
        for attribute in fields(type(self)):
            check: Callable[[object], str | None] | None = attribute.metadata.get(_CHECK)
            value = getattr(self, attribute.name)
            rule = None if check is None else check(value)
            if rule is None:
                sound.add(attribute.name)
            else:
                yield f"{attribute.name}={value!r} {rule}"
        if "algorithms" in sound:
            yield from self._secret_problems(max(SECRET_BYTES[name] for name in self.algorithms))
        if {"log_size", "max_pending_events"} <= sound and self.log_size * 2 > self.max_pending_events:
            yield (
                f"log_size={self.log_size} must not be more than half of "
                f"max_pending_events={self.max_pending_events}: a channel is replayed as a whole"
            )

    def _secret_problems(self, least: int) -> Iterable[str]:
        """Complain about the secret without showing it."""
        secret = self.secret.encode() if isinstance(self.secret, str) else self.secret
        if not isinstance(secret, bytes) or len(secret) < least:
            yield (
                f"secret must have at least {least} bytes: give it as `secret=` or in "
                f"REALTIME_SERVER_SECRET, made by: openssl rand -hex {least}"
            )
