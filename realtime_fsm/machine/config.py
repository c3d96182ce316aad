"""The configuration: one frozen record, checked as a whole, and how the environment gives it."""

import difflib
import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, Self
from urllib.parse import SplitResult, urljoin, urlsplit

from attrs import Factory, define, field, fields, frozen

from realtime_fsm.machine.backoff import JITTER, BackoffLimits, Jitter
from realtime_fsm.machine.checks import (
    Problems,
    by,
    checked,
    choice,
    flag,
    listed,
    member,
    seconds,
    string,
    subset,
    whole,
)
from realtime_fsm.machine.delivery import Delivery, Durability, InboundOverflow, Overflow
from realtime_fsm.machine.dialect import Dialect
from realtime_fsm.machine.errors import ConfigurationError

__all__ = ["LOG_LEVELS", "TRANSPORTS", "Endpoint", "RealtimeConfig"]

LOG_LEVELS: Final = ("error", "warn", "info", "debug")
TRANSPORTS: Final = ("websocket", "polling")

# Addresses: what is wrong with one, and how it may be shown.

_SECRET_QUERY_KEYS: Final = frozenset(
    {"token", "access_token", "auth", "key", "apikey", "api_key", "password"}
)


@frozen(kw_only=True)
class Endpoint:
    """Something to poll in FALLBACK.

    Attributes:
        url: Absolute, or a path on the server. The token is sent only to the server's own origin.
        event: The event as which changed data reaches the handlers; by default the path itself.
    """

    url: str
    event: str

    @classmethod
    def parse(cls, text: str) -> "Endpoint":
        """Read ``event=url`` or ``url``.

        Args:
            text: For example ``bookings=/api/bookings``, ``/api/bookings`` or ``https://host/api``.
        """
        event, sign, url = text.strip().partition("=")
        if not sign or "/" in event:  # the `=` belongs to a query
            event, url = "", text.strip()
        parts = _split(url)  # what cannot be split is left for the check to refuse
        return cls(url=url, event=event or (parts and parts.path) or url)


def check_server_url(url: object) -> str | None:
    """Return what is wrong with a server's address, and what to use instead; ``None`` if nothing is."""
    if not isinstance(url, str) or not url.strip():
        return "must be an address such as https://example.org"
    parts = _split(url)
    if parts is None:
        return "is not an address: its host or port cannot be read"
    if parts.scheme in {"ws", "wss"}:
        instead = parts._replace(scheme={"ws": "http", "wss": "https"}[parts.scheme]).geturl()
        return (
            f"is a raw WebSocket address, and a Socket.IO server is not one: use {shown_address(instead)} "
            "(Socket.IO opens the WebSocket itself)"
        )
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0:
        return "must begin with http:// or https:// and name a host"
    if parts.username is not None or parts.password is not None:
        return "must not hold credentials, which would end in logs: give them as `token=`"
    if any(pair.partition("=")[0].lower() in _SECRET_QUERY_KEYS for pair in parts.query.split("&")):
        return "must not hold a secret in its query, which would end in logs: give it as `token=`"
    return None


def _split(url: str) -> SplitResult | None:
    """Return the parts of an address, or ``None`` where it has none; ``urlsplit`` reads the port late."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts


def shown_address(url: str) -> str:
    """Return an address fit to be shown: without credentials and query."""
    parts = _split(url)
    if parts is None or not parts.netloc:  # not an address at all: what is secret in it cannot be told
        return "..." if set(url) & set("@?#") else url
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=host, query="", fragment="").geturl()


def check_endpoint(endpoint: Endpoint, server_url: str) -> str | None:
    """Return what is wrong with something to poll; ``None`` if nothing is."""
    parts = _split(urljoin(server_url, endpoint.url)) if _split(endpoint.url) else None
    if parts is None or parts.scheme not in {"http", "https"} or not endpoint.url:
        return "must be a path or an http(s) address, such as bookings=/api/bookings"
    if parts.username is not None or parts.password is not None:
        return "must not hold credentials, which would end in logs"
    return None


def _endpoints(value: Iterable["str | Endpoint"]) -> tuple[Endpoint, ...]:
    if isinstance(value, str):
        value = [part for part in value.split(",") if part.strip()]
    return tuple(Endpoint.parse(item) if isinstance(item, str) else item for item in value)


def _dialect(value: "str | Dialect") -> "str | Dialect":
    """Look a dialect up by its name; an unknown name is left for the check to refuse."""
    known = {dialect.name: dialect for dialect in (Dialect.PLAIN, Dialect.REFERENCE)}
    return known.get(value, value) if isinstance(value, str) else value


def _check_dialect(value: object) -> str | None:
    return None if isinstance(value, Dialect) else "must be plain, reference, or a Dialect of your own"


def _default_delivery(config: "RealtimeConfig") -> Delivery:
    """Return the strongest delivery that is right on a server of the dialect."""
    deduplicates = isinstance(config.dialect, Dialect) and config.dialect.deduplicates
    return Delivery.EXACTLY_ONCE if deduplicates else Delivery.AT_MOST_ONCE


def _is_namespace(value: str) -> bool:
    return value.startswith("/") and not set(value) & set(",? \n")


@frozen(kw_only=True)
class RealtimeConfig:
    """Everything that can be configured. Durations are seconds.

    ``RealtimeConfig.from_env()`` reads ``REALTIME_<FIELD>`` for every field but the ones that only code
    can give.

    Attributes:
        server_url: Where the Socket.IO server is: ``http://`` or ``https://``.
        namespace: The Socket.IO namespace.
        socketio_path: The path at which the server speaks Socket.IO.
        transports: ``websocket`` and ``polling``, in the order in which they are tried.
        dialect: The server's conventions; ``plain`` and ``reference`` by name.
        max_reconnect_attempts: Attempts before FAILED; the first connect does not count. ``None``
            (``unlimited`` in the environment) for ever, in the end at the pace of ``backoff_maximum``.
        retry_initial: Whether a failed first connect is retried like any other.
        connection_timeout: Bound of one dial.
        stable_after: How long a connection must last before the attempts are counted anew.
        first_retry_within: After the loss of a stable connection the first attempt follows within this time,
            at random, but not at once: a server needs a moment to store a session for its recovery.
        backoff: ``exponential``, ``full`` or ``decorrelated`` (better for large fleets).
        backoff_base: First delay of the backoff.
        backoff_maximum: Its cap.
        backoff_jitter: Whether ``exponential`` adds its jitter.
        backoff_spread: The most that this jitter adds.
        heartbeat_interval: Silence after which the connection is probed.
        heartbeat_timeout: Silence after a probe that means that the connection is dead.
        enable_fallback: Whether polling takes over, after ``fallback_after`` or when the attempts run out.
        fallback_polling_interval: Pause between two polls of an endpoint.
        fallback_endpoints: What to poll, beside the dialect's own: ``event=url`` or ``url``.
        reconnect_interval: Pause between two probes for the socket in FALLBACK.
        request_timeout: Bound of one HTTP request in FALLBACK.
        default_delivery: What ``emit`` promises unless told otherwise; by default ``EXACTLY_ONCE`` where the
            dialect deduplicates, and ``AT_MOST_ONCE`` where it does not.
        message_ttl: Time after which a message that still waits is no longer sent; ``None`` for never.
        max_delivery_attempts: Connections that may end while a message is the first one that waits for its
            acknowledgement; then it is put among the dead letters.
        ack_timeout: How long a live server may take to acknowledge before it is reported.
        max_in_flight: Messages sent and not yet acknowledged, at most.
        outbox_path: File in which the outbox is kept, so that accepted messages survive the process; ``None``
            keeps it in memory.
        outbox_durability: What a message in that file survives: ``power`` (its loss), or ``process``.
        outbox_overflow: What ``emit`` does when there is no room: ``reject``, ``drop_oldest`` or ``block``.
        outbox_max_dead_letters: Dead letters kept, at most; the oldest make room.
        outbox_max_messages: Messages waiting, at most.
        outbox_max_bytes: Their encoded size together, at most.
        max_message_bytes: Encoded size of one message, at most. Socket.IO servers refuse 1 MB by default.
        max_inbound_bytes: Size of one frame or response from the server, at most.
        max_pending_events: Events waiting for their handlers, at most.
        close_timeout: Bound of ``disconnect()``.
        debug_mode: Log everything.
        log_level: ``error``, ``warn``, ``info`` or ``debug``.
        max_pending_bytes: Their size on the wire together, at most; one that is larger waits alone.
        inbound_overflow: What makes room for more of them, where no server can replay them: ``drop_oldest``,
            ``latest`` (per event name) or ``close``.
        fallback_after: Seconds without data after which polling takes over, where it can, whatever attempts
            are left; ``None`` (``unlimited`` in the environment) leaves it to the attempts alone.
        max_retry_after: Longest pause that a server gets which asks for one by ``Retry-After``.
    """

    server_url: str = checked(check_server_url, default="http://localhost:3001")
    namespace: str = string(
        "must begin with / and hold no comma, question mark or space", "/", allows=_is_namespace
    )
    socketio_path: str = string("must be a path", "socket.io", allows=lambda value: value.strip("/"))
    transports: tuple[str, ...] = field(
        default=TRANSPORTS,
        converter=listed,
        metadata=by(
            subset(TRANSPORTS, "must be websocket, polling, or both, in the order in which to try them")
        ),
    )
    dialect: Dialect = field(default=Dialect.PLAIN, converter=_dialect, metadata=by(_check_dialect))

    max_reconnect_attempts: int | None = whole(10, least=0, may_be_none=True)
    retry_initial: bool = flag(default=True)
    connection_timeout: float = seconds(10.0)
    stable_after: float = seconds(10.0, zero=True)
    first_retry_within: float = seconds(1.0, zero=True)
    backoff: Jitter = member(Jitter, Jitter.EXPONENTIAL)
    backoff_base: float = seconds(1.0)
    backoff_maximum: float = seconds(30.0)
    backoff_jitter: bool = flag(default=True)
    backoff_spread: float = seconds(JITTER)

    heartbeat_interval: float = seconds(25.0)
    heartbeat_timeout: float = seconds(10.0)

    enable_fallback: bool = flag(default=True)
    fallback_polling_interval: float = seconds(30.0)
    fallback_endpoints: tuple[Endpoint, ...] = field(default=(), converter=_endpoints)
    reconnect_interval: float = seconds(5.0)
    request_timeout: float = seconds(10.0)

    default_delivery: Delivery = member(Delivery, Factory(_default_delivery, takes_self=True))
    message_ttl: float | None = seconds(None)
    max_delivery_attempts: int = whole(10)
    ack_timeout: float = seconds(30.0)
    max_in_flight: int = whole(32)
    outbox_path: str | None = string("must be the path of a file", None)
    outbox_durability: Durability = member(Durability, Durability.POWER)
    outbox_overflow: Overflow = member(Overflow, Overflow.REJECT)
    outbox_max_dead_letters: int = whole(1000)
    outbox_max_messages: int = whole(10_000)
    outbox_max_bytes: int = whole(64 * 1024 * 1024)
    max_message_bytes: int = whole(1_000_000)
    max_inbound_bytes: int = whole(4 * 1024 * 1024)
    max_pending_events: int = whole(1024)

    close_timeout: float = seconds(5.0)
    debug_mode: bool = flag(default=False)
    log_level: str = choice("warn", LOG_LEVELS)
    max_pending_bytes: int = whole(16 * 1024 * 1024)
    inbound_overflow: InboundOverflow = member(InboundOverflow, InboundOverflow.DROP_OLDEST)

    fallback_after: float | None = seconds(15.0, zero=True, may_be_none=True)
    max_retry_after: float = seconds(3600.0)

    def __attrs_post_init__(self) -> None:
        problems = Problems(self, shown=_shown)
        problems.order(
            "heartbeat_timeout", "heartbeat_interval", "a probe must be decided before the next one is due"
        )
        problems.order(
            "backoff_base", "backoff_maximum", "the cap of the backoff cannot be below its first delay"
        )
        problems.order("max_message_bytes", "outbox_max_bytes", "the outbox must hold at least one message")
        if problems.are_sound("default_delivery", "dialect"):
            exactly_once = self.default_delivery is Delivery.EXACTLY_ONCE
            if exactly_once and not self.dialect.deduplicates:
                problems.add(
                    "default_delivery='exactly_once' needs a server that drops repeats, and "
                    f"dialect={self.dialect.name!r} does not say so: use at_least_once, or another dialect"
                )
        base = self.server_url if problems.are_sound("server_url") else "http://localhost"
        for endpoint in self.fallback_endpoints:
            if (rule := check_endpoint(endpoint, base)) is not None:
                problems.add(f"fallback_endpoints: {shown_address(endpoint.url)!r} {rule}")
        problems.refuse()

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **overrides: Any) -> Self:
        """Read the configuration from the environment.

        Args:
            environ: By default the process's.
            overrides: Fields that win over the environment.

        Raises:
            ConfigurationError: For every value that cannot be read and every unknown ``REALTIME_`` name.
        """
        return cls(**{**read_environment(cls, environ), **overrides})

    @property
    def backoff_limits(self) -> BackoffLimits:
        """The numbers for the backoff formulas."""
        return BackoffLimits(
            base=self.backoff_base,
            maximum=self.backoff_maximum,
            jitter=self.backoff_jitter,
            spread=self.backoff_spread,
        )

    @property
    def fallback_available(self) -> bool:
        """True if polling may take over by itself: it is enabled, and there is something to poll."""
        return self.enable_fallback and self.can_poll

    @property
    def can_poll(self) -> bool:
        """True if there is anything to poll at all."""
        return bool(self.fallback_endpoints) or self.dialect.poll_path is not None

    def absolute(self, url: str) -> str:
        """Return ``url`` as an absolute address, relative ones against the server's root."""
        return urljoin(self.server_url, url)

    def is_own_origin(self, url: str) -> bool:
        """Tell whether an absolute address is the server's own, so that it may see the token."""
        own, other = urlsplit(self.server_url), urlsplit(url)
        return (own.scheme, own.hostname, own.port) == (other.scheme, other.hostname, other.port)


def _shown(name: str, value: object) -> object:
    return shown_address(value) if name == "server_url" and isinstance(value, str) else value


# Reading the configuration from the environment, the old front end's names included.

PREFIX: Final = "REALTIME_"

OTHER_NAMES: Final = frozenset(
    {
        "REALTIME_TOKEN",
        "REALTIME_SERVER_SECRET",
        "REALTIME_SERVER_LEDGER_PATH",
        "REALTIME_IMPLEMENTATION",
        "REALTIME_ROLLOUT_FILE",
        "REALTIME_ROLLOUT_PERCENT",
    }
)
"""Names with our prefix that are read elsewhere, by the command line and by a rollout: never into the
configuration."""

OLD_NAMES: Final[Mapping[str, tuple[str, bool]]] = MappingProxyType(
    {
        "VITE_WS_URL": ("server_url", False),
        "VITE_WS_RECONNECT_ATTEMPTS": ("max_reconnect_attempts", False),
        "VITE_WS_RECONNECT_INTERVAL": ("reconnect_interval", True),
        "VITE_WS_CONNECTION_TIMEOUT": ("connection_timeout", True),
        "VITE_ENABLE_FALLBACK": ("enable_fallback", False),
        "VITE_FALLBACK_POLLING_INTERVAL": ("fallback_polling_interval", True),
        "VITE_WS_DEBUG_MODE": ("debug_mode", False),
        "VITE_WS_LOG_LEVEL": ("log_level", False),
    }
)
"""The old front end's names: the field each stands for, and whether it is in milliseconds."""

_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})


def _boolean(text: str) -> bool:
    word = text.strip().lower()
    if word in _TRUE | _FALSE:
        return word in _TRUE
    raise ValueError("must be true or false")


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("must be a whole number") from None


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError("must be a number of seconds, such as 2.5") from None


UNLIMITED: Final = "unlimited"
"""What the environment says for ``None``, where that is no limit."""


def _or_unlimited(read: Callable[[str], object]) -> Callable[[str], object]:
    return lambda text: None if text.strip().lower() == UNLIMITED else read(text)


_READERS: Final[Mapping[Any, Callable[[str], object]]] = MappingProxyType(
    {
        bool: _boolean,
        int: _integer,
        int | None: _or_unlimited(_integer),
        float: _seconds,
        float | None: _or_unlimited(_seconds),
    }
)


def read_environment(
    config_class: type[RealtimeConfig], environ: Mapping[str, str] | None = None
) -> dict[str, object]:
    """Return the fields that the environment gives, as values ready for ``config_class``.

    An empty value counts as not given. A new name wins over the old one for the same field.

    Args:
        config_class: Whose fields are looked for, as ``REALTIME_<FIELD>``.
        environ: By default the process's.

    Raises:
        ConfigurationError: For every value that cannot be read, and every unknown ``REALTIME_`` name.
    """
    environ = os.environ if environ is None else environ
    reading = _Reading({attribute.name: attribute.type for attribute in fields(config_class)})
    names = {PREFIX + name.upper(): name for name in reading.types}
    for variable, text in sorted(environ.items()):
        if variable in names:
            reading.take(variable, text, names[variable])
        elif variable.startswith(PREFIX) and variable not in OTHER_NAMES:
            reading.problems.append(_unknown(variable, names))

    for variable, (name, milliseconds) in OLD_NAMES.items():
        text = environ.get(variable, "")
        if not text.strip():
            continue
        instead = PREFIX + name.upper() + (" in seconds" if milliseconds else "")
        warnings.warn(f"{variable} is deprecated: set {instead}", DeprecationWarning, stacklevel=3)
        if name not in reading.values:
            reading.take(variable, text, name, 0.001 if milliseconds else 1.0)

    if reading.problems:
        raise ConfigurationError(*reading.problems)
    return reading.values


@define
class _Reading:
    """The fields that have been read so far, and those that could not be.

    Attributes:
        types: The fields, and what each holds.
        values: The fields that were given.
        problems: What is wrong, in words for people.
    """

    types: Mapping[str, Any]
    values: dict[str, object] = field(factory=dict)
    problems: list[str] = field(factory=list)

    def take(self, variable: str, text: str, name: str, scale: float = 1.0) -> None:
        """Read the text of a variable into a field; nothing where it is empty."""
        if not text.strip():
            return
        try:
            value = _READERS.get(self.types[name], str.strip)(text)
        except ValueError as error:
            self.problems.append(f"{variable}={text!r} {error}")
        else:
            self.values[name] = value * scale if isinstance(value, float) else value


def _unknown(variable: str, names: Mapping[str, str]) -> str:
    # Compared without the prefix that all share: it would make any two names seem close.
    given = variable.removeprefix(PREFIX).lower()
    close = difflib.get_close_matches(given, names.values(), n=1)
    hint = f"did you mean {PREFIX}{close[0].upper()}?" if close else f"known are {', '.join(names)}"
    return f"{variable} is not a known name: {hint}"
