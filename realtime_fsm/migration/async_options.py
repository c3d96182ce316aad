"""From the arguments of ``socketio.AsyncClient`` to a configuration, or to a refusal by name."""

import logging
import random
import sys
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from attrs import frozen

from realtime_fsm.machine.backoff import JITTER
from realtime_fsm.machine.config import TRANSPORTS, RealtimeConfig
from realtime_fsm.machine.dialect import Dialect
from realtime_fsm.machine.errors import ConfigurationError

DIALECT: Final = Dialect(name="socketio.AsyncClient", heartbeat_event=None, recovers_sessions=False)
"""Nothing on the wire that the old client did not send, and events with all the arguments that they had."""

ACK_TIMEOUT: Final = 3600.0
"""Seconds after which an acknowledgement that a live server has not given is no longer waited for."""

_UNBOUNDED: Final = 64 * 1024 * 1024
_LEAST_DELAY: Final = 0.001
_SYSTEM: Final = random.SystemRandom()

_KEPT: Final[Mapping[str, tuple[Any, str]]] = {
    "serializer": ("default", "leave it out: the engine speaks Socket.IO's own JSON with binary attachments"),
    "json": (None, "leave it out, and convert your data before `emit`: the engine encodes strict JSON"),
    "http_session": (
        None,
        (
            "leave it out: the engine opens a session of its own for every attempt; for headers use "
            "`connect(headers=...)`, for a private CA the environment variable SSL_CERT_FILE"
        ),
    ),
    "ssl_verify": (
        True,
        "leave it out, and make the certificate trusted: the environment variable SSL_CERT_FILE names a CA",
    ),
    "websocket_extra_options": (None, "leave it out; for headers use `connect(headers=...)`"),
    "timestamp_requests": (True, "leave it out: requests always carry a timestamp"),
}
"""Arguments that can only have their default, and what to do instead."""

_NAMES: Final = {
    "server_url": "url",
    "backoff_base": "reconnection_delay",
    "backoff_maximum": "reconnection_delay_max",
    "max_reconnect_attempts": "reconnection_attempts",
    "connection_timeout": "request_timeout + wait_timeout",
    "first_retry_within": "reconnection_delay",
}
"""Our names of what the old client calls otherwise, for the words of an error."""


@frozen
class Spread:
    """Draws the jitter as wide as ``randomization_factor`` asked for, and everything else evenly.

    python-socketio adds ``U(-factor, factor)`` seconds to a delay. This adds ``U(0, 2 * factor)``: as wide,
    and never earlier than the delay.

    Attributes:
        factor: Seconds.
    """

    factor: float

    def uniform(self, a: float, b: float, /) -> float:
        """Return a number drawn evenly from ``[a, b]``."""
        if (a, b) == (0.0, JITTER):
            b = 2.0 * self.factor
        return _SYSTEM.uniform(a, b)


@frozen(kw_only=True)
class ClientOptions:
    """The constructor's arguments that mean something to the engine.

    Attributes:
        reconnection: Whether a lost connection is opened again.
        reconnection_attempts: How often it is tried; 0 for ever.
        reconnection_delay: Seconds before the first attempt; doubled for each that follows.
        reconnection_delay_max: Its cap.
        randomization_factor: Width of the jitter.
        request_timeout: Seconds in which a session must be open.
        log_level: Of the library's logger.
        overrides: Fields of ``RealtimeConfig`` that win over everything else.
    """

    reconnection: bool
    reconnection_attempts: int
    reconnection_delay: float
    reconnection_delay_max: float
    randomization_factor: float
    request_timeout: float
    log_level: str
    overrides: Mapping[str, Any]

    def config(
        self,
        *,
        url: str,
        namespace: str,
        socketio_path: str,
        transports: str | Collection[str] | None,
        wait_timeout: float,
        retry: bool,
    ) -> RealtimeConfig:
        """Return the configuration of one ``connect()``.

        Raises:
            ConfigurationError: For everything in it that is wrong, by the names of the old client.
        """
        attempts = (self.reconnection_attempts or sys.maxsize) if self.reconnection else 0
        maximum = max(self.reconnection_delay_max, _LEAST_DELAY)
        base = self.reconnection_delay or _LEAST_DELAY
        fields = {
            "server_url": url,
            "namespace": namespace,
            "socketio_path": socketio_path,
            "transports": wanted_transports(transports),
            "dialect": DIALECT,
            "max_reconnect_attempts": attempts,
            "retry_initial": retry,
            "connection_timeout": self.request_timeout + wait_timeout,
            "stable_after": 0.0,
            "first_retry_within": min(self.reconnection_delay, maximum),
            "backoff_base": min(base, maximum),
            "backoff_maximum": maximum,
            "backoff_jitter": self.randomization_factor > 0,
            "enable_fallback": False,
            "ack_timeout": ACK_TIMEOUT,
            "max_in_flight": 10_000,
            "max_message_bytes": _UNBOUNDED,
            "log_level": self.log_level,
        }
        try:
            return RealtimeConfig(**{**fields, **self.overrides})
        except ConfigurationError as error:
            raise ConfigurationError(*map(_in_old_words, error.problems)) from None


def refuse_what_cannot_be_kept(**given: Any) -> None:
    """Check the arguments that can only have their default.

    Raises:
        ConfigurationError: For each that has not, with the remedy.
    """
    problems = list(_problems(given))
    if problems:
        raise ConfigurationError(*problems)


def _problems(given: Mapping[str, Any]) -> Iterator[str]:
    for name, (default, remedy) in _KEPT.items():
        if given[name] != default:
            yield f"{name} cannot be kept on this engine: {remedy}"
    for name in ("logger", "engineio_logger"):
        if not isinstance(given[name], (bool, type(None))):
            yield (
                f"{name} cannot be a logger of your own: leave it out, and configure the logger "
                "'realtime_fsm' instead"
            )


def log_level(*, logger: bool, engineio_logger: bool | None) -> str:
    """Return the level that was asked for, and see to it that what is logged is seen, as it used to be."""
    if not (logger or engineio_logger):
        return "warn"
    own = logging.getLogger("realtime_fsm")
    handlers = [*own.handlers, *logging.getLogger().handlers]
    if all(isinstance(handler, logging.NullHandler) for handler in handlers):
        own.addHandler(logging.StreamHandler())
    return "info"


def only_namespace(wanted: str | Collection[str] | None, registered: Collection[str]) -> str:
    """Return the one namespace of a connection.

    Args:
        wanted: What ``connect`` was given.
        registered: The namespaces that have handlers.

    Raises:
        ConfigurationError: If there are several.
    """
    names = [wanted] if isinstance(wanted, str) else [*registered] if wanted is None else [*wanted]
    names = sorted({name or "/" for name in names if wanted is not None or name != "*"}) or ["/"]
    if len(names) > 1:
        raise ConfigurationError(
            f"namespaces={names!r} cannot share one connection of this engine: make an AsyncClient for each, "
            "and give its handlers and its `connect(namespaces=...)` just that one"
        )
    return names[0]


def wanted_transports(given: str | Collection[str] | None) -> tuple[str, ...]:
    """Return the transports in the order in which this engine tries them.

    The old client begins with polling and upgrades; this one begins with the websocket, and polls where
    that is not possible.

    Raises:
        ValueError: If none of them is one.
    """
    names = TRANSPORTS if given is None else (given,) if isinstance(given, str) else tuple(given)
    known = tuple(name for name in TRANSPORTS if name in names)
    if not known:
        raise ValueError("No valid transports provided")
    return known


def _in_old_words(problem: str) -> str:
    name, sign, rest = problem.partition("=")
    return f"{_NAMES.get(name, name)}{sign}{rest}".replace("`token=`", "`auth=` of connect()")
