"""The configuration: one frozen record, checked as a whole, all problems reported at once."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Self
from urllib.parse import urljoin, urlsplit

from attrs import Attribute, Factory, field, fields, frozen

from realtime_fsm.machine.address import Endpoint, check_endpoint, check_server_url, shown_address
from realtime_fsm.machine.backoff import BackoffLimits, Jitter
from realtime_fsm.machine.delivery import Delivery, Durability, Overflow
from realtime_fsm.machine.dialect import Dialect
from realtime_fsm.machine.errors import ConfigurationError

__all__ = ["LOG_LEVELS", "TRANSPORTS", "Endpoint", "RealtimeConfig"]

LOG_LEVELS: Final = ("error", "warn", "info", "debug")
TRANSPORTS: Final = ("websocket", "polling")


def _endpoints(value: Iterable["str | Endpoint"]) -> tuple[Endpoint, ...]:
    if isinstance(value, str):
        value = [part for part in value.split(",") if part.strip()]
    return tuple(Endpoint.parse(item) if isinstance(item, str) else item for item in value)


def _transports(value: "str | Iterable[str]") -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else tuple(value)


def _dialect(value: "str | Dialect") -> "str | Dialect":
    """Look a dialect up by its name; an unknown name is left for the check to refuse."""
    known = {dialect.name: dialect for dialect in (Dialect.PLAIN, Dialect.REFERENCE)}
    return known.get(value, value) if isinstance(value, str) else value


_Check = Callable[[Any], str | None]
_CHECK: Final = "check"


def _duration(default: float | None, *, zero: bool = False) -> Any:
    """Declare a field in seconds: finite, and positive (or ``>= 0`` where ``zero``).

    One whose default is ``None`` may be ``None``.
    """

    def check(value: object) -> str | None:
        if value is None and default is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return "must be a number of seconds, such as 2.5"
        if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
            return f"must be a finite number of seconds, {'0 or more' if zero else 'more than 0'}"
        return None

    return field(default=default, metadata={_CHECK: check})


def _count(default: int, *, least: int = 1) -> Any:
    """Declare a field that counts something: an ``int`` of at least ``least``."""

    def check(value: object) -> str | None:
        ok = isinstance(value, int) and not isinstance(value, bool) and value >= least
        return None if ok else f"must be a whole number, {least} or more"

    return field(default=default, metadata={_CHECK: check})


def _flag(*, default: bool) -> Any:
    return field(
        default=default,
        metadata={_CHECK: lambda value: None if isinstance(value, bool) else "must be true or false"},
    )


def _one_of(default: Any, choices: Iterable[str], *, converter: Callable[[Any], Any] | None = None) -> Any:
    allowed = tuple(choices)
    return field(
        default=default,
        converter=converter,
        metadata={_CHECK: lambda value: None if value in allowed else f"must be one of {', '.join(allowed)}"},
    )


def _namespace(value: object) -> str | None:
    ok = isinstance(value, str) and value.startswith("/") and not set(value) & set(",? \n")
    return None if ok else "must begin with / and hold no comma, question mark or space"


def _transport_names(value: tuple[str, ...]) -> str | None:
    ok = value and set(value) <= set(TRANSPORTS) and len(set(value)) == len(value)
    return None if ok else "must be websocket, polling, or both, in the order in which to try them"


def _path(value: object) -> str | None:
    ok = value is None or (isinstance(value, str) and value.strip())
    return None if ok else "must be the path of a file"


def _default_delivery(config: "RealtimeConfig") -> Delivery:
    """Return the strongest delivery that is right on a server of the dialect."""
    deduplicates = isinstance(config.dialect, Dialect) and config.dialect.deduplicates
    return Delivery.EXACTLY_ONCE if deduplicates else Delivery.AT_MOST_ONCE


def _dialect_known(value: object) -> str | None:
    return None if isinstance(value, Dialect) else "must be plain, reference, or a Dialect of your own"


@frozen(kw_only=True)
class RealtimeConfig:
    """Everything that can be configured (SPEC E). Durations are seconds.

    ``RealtimeConfig.from_env()`` reads ``REALTIME_<FIELD>`` for every field but the ones that only code
    can give.

    Attributes:
        server_url: Where the Socket.IO server is: ``http://`` or ``https://``.
        namespace: The Socket.IO namespace.
        socketio_path: The path at which the server speaks Socket.IO.
        transports: ``websocket`` and ``polling``, in the order in which they are tried.
        dialect: The server's conventions; ``plain`` and ``reference`` by name.
        max_reconnect_attempts: Attempts before FAILED; the first connect does not count.
        retry_initial: Whether a failed first connect is retried like any other.
        connection_timeout: Bound of one dial.
        stable_after: How long a connection must last before the attempts are counted anew.
        first_retry_within: After the loss of a stable connection the first attempt follows within this time,
            at random, but not at once: a server needs a moment to store a session for its recovery.
        backoff: ``exponential`` (SPEC B1), ``full`` or ``decorrelated`` (better for large fleets).
        backoff_base: First delay of the backoff.
        backoff_maximum: Its cap.
        backoff_jitter: Whether ``exponential`` adds its jitter.
        heartbeat_interval: Silence after which the connection is probed.
        heartbeat_timeout: Silence after a probe that means that the connection is dead.
        enable_fallback: Whether polling takes over when the attempts run out.
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
        max_pending_events: Events waiting for their handlers; beyond it no more is read from the network.
        close_timeout: Bound of ``disconnect()``.
        debug_mode: Log everything.
        log_level: ``error``, ``warn``, ``info`` or ``debug``.
    """

    server_url: str = field(default="http://localhost:3001", metadata={_CHECK: check_server_url})
    namespace: str = field(default="/", metadata={_CHECK: _namespace})
    socketio_path: str = field(
        default="socket.io",
        metadata={
            _CHECK: lambda value: None if isinstance(value, str) and value.strip("/") else "must be a path"
        },
    )
    transports: tuple[str, ...] = field(
        default=TRANSPORTS, converter=_transports, metadata={_CHECK: _transport_names}
    )
    dialect: Dialect = field(default=Dialect.PLAIN, converter=_dialect, metadata={_CHECK: _dialect_known})

    max_reconnect_attempts: int = _count(10, least=0)
    retry_initial: bool = _flag(default=True)
    connection_timeout: float = _duration(10.0)
    stable_after: float = _duration(10.0, zero=True)
    first_retry_within: float = _duration(1.0, zero=True)
    backoff: Jitter = _one_of(Jitter.EXPONENTIAL, [str(j) for j in Jitter])
    backoff_base: float = _duration(1.0)
    backoff_maximum: float = _duration(30.0)
    backoff_jitter: bool = _flag(default=True)

    heartbeat_interval: float = _duration(25.0)
    heartbeat_timeout: float = _duration(10.0)

    enable_fallback: bool = _flag(default=True)
    fallback_polling_interval: float = _duration(30.0)
    fallback_endpoints: tuple[Endpoint, ...] = field(default=(), converter=_endpoints)
    reconnect_interval: float = _duration(5.0)
    request_timeout: float = _duration(10.0)

    default_delivery: Delivery = _one_of(
        Factory(_default_delivery, takes_self=True), [str(d) for d in Delivery]
    )
    message_ttl: float | None = _duration(None)
    max_delivery_attempts: int = _count(10)
    ack_timeout: float = _duration(30.0)
    max_in_flight: int = _count(32)
    outbox_path: str | None = field(default=None, metadata={_CHECK: _path})
    outbox_durability: Durability = _one_of(Durability.POWER, [str(d) for d in Durability])
    outbox_overflow: Overflow = _one_of(Overflow.REJECT, [str(o) for o in Overflow])
    outbox_max_dead_letters: int = _count(1000)
    outbox_max_messages: int = _count(10_000)
    outbox_max_bytes: int = _count(64 * 1024 * 1024)
    max_message_bytes: int = _count(1_000_000)
    max_inbound_bytes: int = _count(4 * 1024 * 1024)
    max_pending_events: int = _count(1024)

    close_timeout: float = _duration(5.0)
    debug_mode: bool = _flag(default=False)
    log_level: str = _one_of("warn", LOG_LEVELS)

    def __attrs_post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise ConfigurationError(*problems)
        # Accepted as plain strings, kept as what they mean.
        object.__setattr__(self, "backoff", Jitter(self.backoff))
        object.__setattr__(self, "default_delivery", Delivery(self.default_delivery))
        object.__setattr__(self, "outbox_durability", Durability(self.outbox_durability))
        object.__setattr__(self, "outbox_overflow", Overflow(self.outbox_overflow))

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **overrides: Any) -> Self:
        """Read the configuration from the environment (SPEC E).

        Args:
            environ: By default the process's.
            overrides: Fields that win over the environment.

        Raises:
            ConfigurationError: For every value that cannot be read and every unknown ``REALTIME_`` name.
        """
        from realtime_fsm.machine.environment import read_environment  # noqa: PLC0415 - it needs this class

        return cls(**{**read_environment(cls, environ), **overrides})

    @property
    def backoff_limits(self) -> BackoffLimits:
        """What the backoff formulas need."""
        return BackoffLimits(base=self.backoff_base, maximum=self.backoff_maximum, jitter=self.backoff_jitter)

    @property
    def fallback_available(self) -> bool:
        """Whether polling may take over by itself: it is enabled, and there is something to poll."""
        return self.enable_fallback and self.can_poll

    @property
    def can_poll(self) -> bool:
        """Whether there is anything to poll at all."""
        return bool(self.fallback_endpoints) or self.dialect.poll_path is not None

    def absolute(self, url: str) -> str:
        """Return ``url`` as an absolute address, relative ones against the server's root."""
        return urljoin(self.server_url, url)

    def is_own_origin(self, url: str) -> bool:
        """Tell whether an absolute address is the server's own, so that it may see the token."""
        own, other = urlsplit(self.server_url), urlsplit(url)
        return (own.scheme, own.hostname, own.port) == (other.scheme, other.hostname, other.port)

    def _problems(self) -> Iterable[str]:
        sound = set()
        for attribute in fields(type(self)):
            complaint = _complaint(attribute, getattr(self, attribute.name))
            if complaint is None:
                sound.add(attribute.name)
            else:
                yield complaint
        for shorter, longer, why in _ORDERED:
            if {shorter, longer} <= sound and getattr(self, shorter) > getattr(self, longer):
                yield (
                    f"{shorter}={getattr(self, shorter)!r} must not be more than "
                    f"{longer}={getattr(self, longer)!r}: {why}"
                )
        if {"default_delivery", "dialect"} <= sound:
            exactly_once = self.default_delivery == Delivery.EXACTLY_ONCE
            if exactly_once and not self.dialect.deduplicates:
                yield (
                    "default_delivery='exactly_once' needs a server that drops repeats, and "
                    f"dialect={self.dialect.name!r} does not say so: use at_least_once, or another dialect"
                )
        base = self.server_url if "server_url" in sound else "http://localhost"
        for endpoint in self.fallback_endpoints:
            rule = check_endpoint(endpoint, base)
            if rule is not None:
                yield f"fallback_endpoints: {shown_address(endpoint.url)!r} {rule}"


_ORDERED: Final = (
    (
        "heartbeat_timeout",
        "heartbeat_interval",
        "a probe must be decided before the next one is due",
    ),
    ("backoff_base", "backoff_maximum", "the cap of the backoff cannot be below its first delay"),
    ("max_message_bytes", "outbox_max_bytes", "the outbox must hold at least one message"),
)


def _complaint(attribute: "Attribute[Any]", value: object) -> str | None:
    check: _Check | None = attribute.metadata.get(_CHECK)
    rule = None if check is None else check(value)
    if rule is None:
        return None
    shown = shown_address(value) if attribute.name == "server_url" and isinstance(value, str) else value
    return f"{attribute.name}={shown!r} {rule}"
