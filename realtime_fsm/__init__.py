"""Keeps a Socket.IO connection alive, and the data flowing by HTTP polling when it cannot.

::

    from realtime_fsm import RealtimeConfig, RealtimeService

    async with RealtimeService(RealtimeConfig.from_env(), token=fetch_token) as realtime:
        realtime.on("booking_updated", print)
        await realtime.subscribe(["bookings"])
"""

import logging

from realtime_fsm.engine.dispatcher import Event
from realtime_fsm.engine.manager import ConnectionManager
from realtime_fsm.engine.message import DeadLetter, Receipt
from realtime_fsm.engine.outbox import Outbox
from realtime_fsm.engine.outbox_control import OutboxControl
from realtime_fsm.engine.polling import FallbackPollingService
from realtime_fsm.engine.port import Token, TokenSource
from realtime_fsm.engine.recovery import ErrorRecoveryStrategy
from realtime_fsm.engine.resync import Missed
from realtime_fsm.engine.status import ConnectionStatusManager
from realtime_fsm.engine.stream import Stream
from realtime_fsm.engine.subscription import Position, Subscription, SubscriptionState
from realtime_fsm.machine.backoff import ExponentialBackoff, Jitter
from realtime_fsm.machine.config import Endpoint, RealtimeConfig
from realtime_fsm.machine.connection_machine import ConnectionMachine
from realtime_fsm.machine.delivery import Delivery, Durability, Outcome, Overflow
from realtime_fsm.machine.dialect import Dialect
from realtime_fsm.machine.errors import (
    ApplicationError,
    AuthenticationError,
    CallTimeoutError,
    ClosedError,
    ConfigurationError,
    ConnectionLostError,
    ConnectTimeoutError,
    DeliveryError,
    ErrorCategory,
    EventsMissedError,
    HeartbeatTimeoutError,
    IllegalTransitionError,
    InternalError,
    InvalidArgumentError,
    LaggedError,
    MalformedFrameError,
    MissingExtraError,
    NamespaceRefusedError,
    NotSocketIOError,
    OutboxFullError,
    OutboxStorageError,
    PayloadTooLargeError,
    ProtocolError,
    RealtimeError,
    RedirectRefusedError,
    ServerDisconnectError,
    ServerUnavailableError,
    ServerUnreachableError,
    SubscriptionRefusedError,
    TokenSourceError,
    TransportError,
    UnsupportedDeliveryError,
)
from realtime_fsm.machine.record import AttemptRecord, StatusChange
from realtime_fsm.machine.recovery import ConnectionIssue, Recovery
from realtime_fsm.machine.table import (
    ACTIVITIES,
    IGNORED,
    TRAITS,
    TRANSITIONS,
    Activity,
    ConnectionStatus,
    Severity,
    Trigger,
)
from realtime_fsm.monitoring.health import Health
from realtime_fsm.monitoring.metrics import ConnectionMetrics
from realtime_fsm.service import RealtimeService

__version__ = "0.1.0"

logging.getLogger("realtime_fsm").addHandler(
    logging.NullHandler()
)  # what is logged where is the user's choice

__all__ = [
    "ACTIVITIES",
    "IGNORED",
    "TRAITS",
    "TRANSITIONS",
    "Activity",
    "ApplicationError",
    "AttemptRecord",
    "AuthenticationError",
    "CallTimeoutError",
    "ClosedError",
    "ConfigurationError",
    "ConnectTimeoutError",
    "ConnectionIssue",
    "ConnectionLostError",
    "ConnectionMachine",
    "ConnectionManager",
    "ConnectionMetrics",
    "ConnectionStatus",
    "ConnectionStatusManager",
    "DeadLetter",
    "Delivery",
    "DeliveryError",
    "Dialect",
    "Durability",
    "Endpoint",
    "ErrorCategory",
    "ErrorRecoveryStrategy",
    "Event",
    "EventsMissedError",
    "ExponentialBackoff",
    "FallbackPollingService",
    "Health",
    "HeartbeatTimeoutError",
    "IllegalTransitionError",
    "InternalError",
    "InvalidArgumentError",
    "Jitter",
    "LaggedError",
    "MalformedFrameError",
    "Missed",
    "MissingExtraError",
    "NamespaceRefusedError",
    "NotSocketIOError",
    "Outbox",
    "OutboxControl",
    "OutboxFullError",
    "OutboxStorageError",
    "Outcome",
    "Overflow",
    "PayloadTooLargeError",
    "Position",
    "ProtocolError",
    "RealtimeConfig",
    "RealtimeError",
    "RealtimeService",
    "Receipt",
    "Recovery",
    "RedirectRefusedError",
    "ServerDisconnectError",
    "ServerUnavailableError",
    "ServerUnreachableError",
    "Severity",
    "StatusChange",
    "Stream",
    "Subscription",
    "SubscriptionRefusedError",
    "SubscriptionState",
    "Token",
    "TokenSource",
    "TokenSourceError",
    "TransportError",
    "Trigger",
    "UnsupportedDeliveryError",
]
