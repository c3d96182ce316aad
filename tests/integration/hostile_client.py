"""Clients for hostile peers: they hardly wait, and keep what they report."""

import random
from typing import Any, Final

import canary
from attrs import evolve

from realtime_fsm import Delivery, Dialect, RealtimeConfig, RealtimeService
from realtime_fsm.engine.recovery import ConnectionIssue

BOTH: Final = ("websocket", "polling")
WEBSOCKET: Final = ("websocket",)
POLLING: Final = ("polling",)
LIMIT: Final = 200_000
"""The ``max_inbound_bytes`` of the clients."""

_SILENT: Final = evolve(Dialect.PLAIN, heartbeat_event=None)
"""Without heartbeats among the events: what the servers get is what the test emits."""


class Impatient(random.Random):
    """Jitter that is next to nothing: so short are all pauses of the client."""

    def uniform(self, a: float, b: float) -> float:
        """Return almost nothing."""
        return 0.01


def fresh_token() -> str:
    """Return a token."""
    return canary.token("hostile")


class Client(RealtimeService):
    """A client that waits as shortly as it may, and keeps what it reports."""

    def __init__(self, url: str, token: Any = fresh_token, **config: Any) -> None:
        settings: dict[str, Any] = {
            "server_url": url,
            "dialect": _SILENT,
            "backoff_base": 0.01,
            "backoff_maximum": 0.02,
            "stable_after": 0.0,
            "max_inbound_bytes": LIMIT,
            "default_delivery": Delivery.AT_LEAST_ONCE,
        }
        super().__init__(RealtimeConfig(**settings | config), token=token, random=Impatient())
        self.issues: list[ConnectionIssue] = []
        self.recovery.on_connection_issue(self.issues.append)


def fallback_client(url: str, **config: Any) -> Client:
    """Return a client that falls back at once, and stays there."""
    settings: dict[str, Any] = {
        "dialect": Dialect.REFERENCE,
        "transports": WEBSOCKET,
        "max_reconnect_attempts": 0,
        "fallback_polling_interval": 0.05,
        "reconnect_interval": 1000.0 * 100,  # times next to nothing: see `Impatient`
    }
    return Client(url, **settings | config)
