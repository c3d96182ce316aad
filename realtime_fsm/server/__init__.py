"""The reference backend: a Socket.IO server that keeps every promise the client can make use of.

Needs the extra ``[server]``. The wire contract is the one of ``Dialect.REFERENCE``.
"""

from realtime_fsm.machine.errors import MissingExtraError

try:
    import jwt as _jwt  # noqa: F401 - looked for here, so that the error names the extra
except ImportError as error:  # pragma: no cover - the tests run with the extra
    raise MissingExtraError(extra="server", what="The reference backend") from error

from realtime_fsm.server.config import BackendConfig
from realtime_fsm.server.identity import TokenVerifier, issue_token
from realtime_fsm.server.session import Caller
from realtime_fsm.server.websocket_service import WebSocketService, serve

__all__ = ["BackendConfig", "Caller", "TokenVerifier", "WebSocketService", "issue_token", "serve"]
