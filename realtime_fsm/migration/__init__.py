"""From an old client to this one: side by side, step by step, and back.

``from realtime_fsm import migration as socketio`` offers what asyncio clients use of python-socketio.
"""

from typing import NoReturn

from socketio import AsyncClientNamespace, exceptions

from realtime_fsm.migration.async_client import AsyncClient
from realtime_fsm.migration.legacy_websocket import LegacyWebSocket, ReadyState
from realtime_fsm.rollout import (
    Decision,
    DecisionKind,
    EngineClient,
    PlainClient,
    RealtimeClient,
    RollbackLimits,
    RollbackRule,
    Rollout,
    RolloutConfig,
    database_evidence,
)

__all__ = [
    "AsyncClient",
    "AsyncClientNamespace",
    "Decision",
    "DecisionKind",
    "EngineClient",
    "LegacyWebSocket",
    "PlainClient",
    "ReadyState",
    "RealtimeClient",
    "RollbackLimits",
    "RollbackRule",
    "Rollout",
    "RolloutConfig",
    "database_evidence",
    "exceptions",
]


def __getattr__(name: str) -> NoReturn:
    raise AttributeError(
        f"realtime_fsm.migration has no {name!r}. Of python-socketio it stands in for the asyncio client "
        "alone: import everything else from socketio."
    )
