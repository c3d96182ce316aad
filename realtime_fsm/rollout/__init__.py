"""A gradual change from an old client to this one: side by side, by a flag and a percentage, and back."""

from realtime_fsm.rollout.client import RealtimeClient
from realtime_fsm.rollout.engine_client import EngineClient
from realtime_fsm.rollout.plain_client import PlainClient
from realtime_fsm.rollout.rollout import Rollout
from realtime_fsm.rollout.rule import RollbackLimits, RollbackRule, database_evidence
from realtime_fsm.rollout.setting import Decision, DecisionKind, RolloutConfig

__all__ = [
    "Decision",
    "DecisionKind",
    "EngineClient",
    "PlainClient",
    "RealtimeClient",
    "RollbackLimits",
    "RollbackRule",
    "Rollout",
    "RolloutConfig",
    "database_evidence",
]
