"""Keeps a Socket.IO connection alive, and the data flowing by HTTP polling when it cannot.

::

    from realtime_fsm import RealtimeConfig, RealtimeService

    async with RealtimeService(RealtimeConfig.from_env(), token=fetch_token) as realtime:
        realtime.on("booking_updated", print)
        await realtime.subscribe(["bookings"])

Every name can be imported from here; its module is imported when it is asked for, and not before.
"""

import logging
import sys
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from realtime_fsm.engine.dispatcher import Event
    from realtime_fsm.engine.fallback import FallbackPollingService
    from realtime_fsm.engine.manager import ConnectionManager
    from realtime_fsm.engine.message import DeadLetter, Receipt
    from realtime_fsm.engine.observers import Stream
    from realtime_fsm.engine.outbox import Outbox
    from realtime_fsm.engine.outbox_control import OutboxControl
    from realtime_fsm.engine.port import Token, TokenSource
    from realtime_fsm.engine.recovery import ErrorRecoveryStrategy
    from realtime_fsm.engine.status import ConnectionStatusManager
    from realtime_fsm.engine.subscriptions import Missed, Position, Subscription, SubscriptionState
    from realtime_fsm.machine.backoff import ExponentialBackoff, Jitter
    from realtime_fsm.machine.config import Endpoint, RealtimeConfig
    from realtime_fsm.machine.connection_machine import ConnectionMachine
    from realtime_fsm.machine.delivery import Delivery, Durability, InboundOverflow, Outcome, Overflow
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
        MetricsStorageError,
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
        WrongLoopError,
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

_HOME: Final = {
    "ACTIVITIES": "machine.table",
    "Activity": "machine.table",
    "ApplicationError": "machine.errors",
    "AttemptRecord": "machine.record",
    "AuthenticationError": "machine.errors",
    "CallTimeoutError": "machine.errors",
    "ClosedError": "machine.errors",
    "ConfigurationError": "machine.errors",
    "ConnectTimeoutError": "machine.errors",
    "ConnectionIssue": "machine.recovery",
    "ConnectionLostError": "machine.errors",
    "ConnectionMachine": "machine.connection_machine",
    "ConnectionManager": "engine.manager",
    "ConnectionMetrics": "monitoring.metrics",
    "ConnectionStatus": "machine.table",
    "ConnectionStatusManager": "engine.status",
    "DeadLetter": "engine.message",
    "Delivery": "machine.delivery",
    "DeliveryError": "machine.errors",
    "Dialect": "machine.dialect",
    "Durability": "machine.delivery",
    "Endpoint": "machine.config",
    "ErrorCategory": "machine.errors",
    "ErrorRecoveryStrategy": "engine.recovery",
    "Event": "engine.dispatcher",
    "EventsMissedError": "machine.errors",
    "ExponentialBackoff": "machine.backoff",
    "FallbackPollingService": "engine.fallback",
    "Health": "monitoring.health",
    "HeartbeatTimeoutError": "machine.errors",
    "IGNORED": "machine.table",
    "IllegalTransitionError": "machine.errors",
    "InboundOverflow": "machine.delivery",
    "InternalError": "machine.errors",
    "InvalidArgumentError": "machine.errors",
    "Jitter": "machine.backoff",
    "LaggedError": "machine.errors",
    "MalformedFrameError": "machine.errors",
    "Missed": "engine.subscriptions",
    "MetricsStorageError": "machine.errors",
    "MissingExtraError": "machine.errors",
    "NamespaceRefusedError": "machine.errors",
    "NotSocketIOError": "machine.errors",
    "Outbox": "engine.outbox",
    "OutboxControl": "engine.outbox_control",
    "OutboxFullError": "machine.errors",
    "OutboxStorageError": "machine.errors",
    "Outcome": "machine.delivery",
    "Overflow": "machine.delivery",
    "PayloadTooLargeError": "machine.errors",
    "Position": "engine.subscriptions",
    "ProtocolError": "machine.errors",
    "RealtimeConfig": "machine.config",
    "RealtimeError": "machine.errors",
    "RealtimeService": "service",
    "Receipt": "engine.message",
    "Recovery": "machine.recovery",
    "RedirectRefusedError": "machine.errors",
    "ServerDisconnectError": "machine.errors",
    "ServerUnavailableError": "machine.errors",
    "ServerUnreachableError": "machine.errors",
    "Severity": "machine.table",
    "StatusChange": "machine.record",
    "Stream": "engine.observers",
    "Subscription": "engine.subscriptions",
    "SubscriptionRefusedError": "machine.errors",
    "SubscriptionState": "engine.subscriptions",
    "TRAITS": "machine.table",
    "TRANSITIONS": "machine.table",
    "Token": "engine.port",
    "TokenSource": "engine.port",
    "TokenSourceError": "machine.errors",
    "TransportError": "machine.errors",
    "Trigger": "machine.table",
    "UnsupportedDeliveryError": "machine.errors",
    "WrongLoopError": "machine.errors",
}

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
    "InboundOverflow",
    "InternalError",
    "InvalidArgumentError",
    "Jitter",
    "LaggedError",
    "MalformedFrameError",
    "MetricsStorageError",
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
    "WrongLoopError",
]


def lazily(package: str, home: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the ``__getattr__`` and the ``__dir__`` of a package whose names are imported when asked for.

    ::

        if not TYPE_CHECKING:  # type checkers see the imports, and what is not among them is an error
            __getattr__, __dir__ = lazily(__name__, _HOME)

    Args:
        package: The ``__name__`` of the package.
        home: The module below it that each name is in.
    """

    def get(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found = getattr(import_module(f"{package}.{home[name]}"), name)
        setattr(sys.modules[package], name, found)
        return found

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *home})

    return get, names


_MOVED: Final = {
    "realtime_fsm.adapters.health_application": "realtime_fsm.web",
    "realtime_fsm.adapters.webhook": "realtime_fsm.export",
    "realtime_fsm.export.prometheus": "realtime_fsm.export",
    "realtime_fsm.monitoring.alerts": "realtime_fsm.monitoring",
    "realtime_fsm.monitoring.metrics_database": "realtime_fsm.monitoring",
}
"""The modules that the README once told its readers to import, and which package offers their names now."""


class _MovedModules:
    """Stands in for the modules that have moved: each of their names can be had, with a warning.

    It comes last of the importer's finders, and so is asked for nothing that is there.
    """

    @classmethod
    def find_spec(cls, name: str, *_: object) -> ModuleSpec | None:
        return ModuleSpec(name, cls) if name in _MOVED else None  # type: ignore[arg-type]  # it has no base

    @staticmethod
    def create_module(_: ModuleSpec) -> None:
        return None

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        old, new = module.__name__, _MOVED[module.__name__]

        def get(name: str) -> Any:
            package = import_module(new)
            if name not in package.__all__:
                raise AttributeError(f"module {old!r} has no attribute {name!r}")
            told = f"{old} has moved: write `from {new} import {name}`"
            warnings.warn(told, DeprecationWarning, stacklevel=2)
            return getattr(package, name)

        module.__getattr__ = get  # type: ignore[method-assign]


if not TYPE_CHECKING:  # type checkers see the imports above, and what is not among them is an error
    __getattr__, __dir__ = lazily(__name__, _HOME)

sys.meta_path.append(_MovedModules)
