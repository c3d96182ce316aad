"""The reference backend: a Socket.IO server with channels that can be replayed, and the same over HTTP.

::

    from realtime_fsm.server import BackendConfig, WebSocketService

    async with WebSocketService(BackendConfig.from_env()) as service:
        service.on("note", save_note)
        service.publish("bookings", "booking_updated", {"id": "42"})

Needs the extra ``[server]``.
"""

from realtime_fsm.engine.subscriptions import Position
from realtime_fsm.server.config import BackendConfig
from realtime_fsm.server.ledger import Ledger, LedgerUnavailableError, MemoryLedger, Stamp
from realtime_fsm.server.router import Client, Handler
from realtime_fsm.server.service import WebSocketService, serve
from realtime_fsm.server.sqlite_ledger import SqliteLedger
from realtime_fsm.server.token import Identity, TokenRefusedError, TokenVerifier, Verifier, issue_token

__all__ = [
    "BackendConfig",
    "Client",
    "Handler",
    "Identity",
    "Ledger",
    "LedgerUnavailableError",
    "MemoryLedger",
    "Position",
    "SqliteLedger",
    "Stamp",
    "TokenRefusedError",
    "TokenVerifier",
    "Verifier",
    "WebSocketService",
    "issue_token",
    "serve",
]
