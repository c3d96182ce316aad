"""The backend's configuration."""

import os
from collections.abc import Iterable, Mapping
from typing import Any, Final, Self
from urllib.parse import urlsplit

from attrs import field, frozen

from realtime_fsm.machine.errors import ConfigurationError

MIN_SECRET: Final = 32
_MAX_LEEWAY: Final = 30
_MAX_PORT: Final = 65535
_WHOLE_NUMBERS: Final = (
    "ping_interval",
    "ping_timeout",
    "log_size",
    "max_channels",
    "max_channels_per_client",
    "max_clients",
    "max_message_bytes",
    "max_backlog",
)


@frozen(kw_only=True)
class BackendConfig:
    """Everything that can be configured. Durations are seconds.

    Attributes:
        secret: Signs the tokens; at least 32 characters. Never shown.
        host: Address to listen at.
        port: Port to listen at; 0 picks a free one.
        issuer: Whom tokens must come from, if anybody.
        audience: Whom tokens must be for, if anybody.
        algorithms: Which signatures are accepted; explicit, so that a token cannot choose.
        leeway: By how much clocks may differ, at most 30.
        frontend_url: The origins that browsers may come from; several are separated by commas.
        transports: ``websocket`` and ``polling``.
        ping_interval: Pause between two pings of the server; whole seconds, as the wire wants them.
        ping_timeout: Silence after one that ends a session; whole seconds.
        log_size: Events that are kept per channel, for replay and polling.
        max_channels: Channels that are kept a log of; the one unused for longest makes room.
        max_channels_per_client: Subscriptions of one session.
        max_clients: Sessions at the same time.
        max_message_bytes: Size of one message.
        max_backlog: Packets waiting for one session, before it is dropped as too slow.
        expiry_check_interval: Pause between two looks for expired sessions.
    """

    secret: str = field(repr=False)
    host: str = "127.0.0.1"
    port: int = 3001
    issuer: str | None = None
    audience: str | None = None
    algorithms: tuple[str, ...] = ("HS256",)
    leeway: float = 0.0
    frontend_url: str = "http://localhost:3000"
    transports: tuple[str, ...] = ("websocket", "polling")
    ping_interval: int = 25
    ping_timeout: int = 20
    log_size: int = 1000
    max_channels: int = 10_000
    max_channels_per_client: int = 100
    max_clients: int = 10_000
    max_message_bytes: int = 1_000_000
    max_backlog: int = 10_000
    expiry_check_interval: float = 0.25

    def __attrs_post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise ConfigurationError(*problems)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **overrides: Any) -> Self:
        """Read ``FRONTEND_URL`` and ``REALTIME_SERVER_SECRET``; ``overrides`` win.

        Raises:
            ConfigurationError: If there is no secret, or a value is wrong.
        """
        environ = os.environ if environ is None else environ
        given: dict[str, Any] = {}
        if environ.get("FRONTEND_URL"):
            given["frontend_url"] = environ["FRONTEND_URL"]
        if environ.get("REALTIME_SERVER_SECRET"):
            given["secret"] = environ["REALTIME_SERVER_SECRET"]
        given |= overrides
        if "secret" not in given:
            raise ConfigurationError(
                "REALTIME_SERVER_SECRET is not set: make one with `openssl rand -hex 32` and export it"
            )
        return cls(**given)

    @property
    def origins(self) -> list[str]:
        """The origins that browsers may come from."""
        return [part.strip().rstrip("/") for part in self.frontend_url.split(",")]

    def _problems(self) -> Iterable[str]:
        if not isinstance(self.secret, str) or len(self.secret) < MIN_SECRET:
            yield f"secret must have {MIN_SECRET} characters or more: make one with `openssl rand -hex 32`"
        if not 0 <= self.port <= _MAX_PORT:
            yield f"port={self.port!r} must be between 0 and {_MAX_PORT}"
        if not 0 <= self.leeway <= _MAX_LEEWAY:
            yield f"leeway={self.leeway!r} must be between 0 and {_MAX_LEEWAY} seconds"
        if not self.algorithms or "none" in {name.lower() for name in self.algorithms}:
            yield f"algorithms={self.algorithms!r} must name signatures, and not 'none'"
        for origin in self.origins:
            yield from _origin_problems(origin)
        if not self.transports or not set(self.transports) <= {"websocket", "polling"}:
            yield f"transports={self.transports!r} must be websocket, polling, or both"
        for name in _WHOLE_NUMBERS:
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                yield f"{name}={value!r} must be a whole number, 1 or more"
        if not self.expiry_check_interval > 0:
            yield f"expiry_check_interval={self.expiry_check_interval!r} must be more than 0 seconds"


def _origin_problems(origin: str) -> Iterable[str]:
    if "*" in origin:
        yield (
            f"frontend_url={origin!r} must not hold *: with credentials every site could act as its "
            "visitors; list the origins"
        )
        return
    parts = urlsplit(origin)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path or parts.query:
        yield f"frontend_url={origin!r} must be an origin such as https://app.example.org"
