"""An operator's view: metrics, health and alerts, derived from what the engine counts, and kept."""

from typing import TYPE_CHECKING, Final

from realtime_fsm import lazily

if TYPE_CHECKING:
    from realtime_fsm.monitoring.alert_engine import Alert, AlertCounters, AlertState
    from realtime_fsm.monitoring.alert_rules import DEFAULT_RULES, AlertRule, Measure, read_rules
    from realtime_fsm.monitoring.alerting import Alerts, AlertSink, CallbackSink, LogSink
    from realtime_fsm.monitoring.database import MetricsDatabase

_HOME: Final = {
    "Alert": "alert_engine",
    "AlertCounters": "alert_engine",
    "AlertRule": "alert_rules",
    "AlertSink": "alerting",
    "AlertState": "alert_engine",
    "Alerts": "alerting",
    "CallbackSink": "alerting",
    "DEFAULT_RULES": "alert_rules",
    "LogSink": "alerting",
    "Measure": "alert_rules",
    "MetricsDatabase": "database",
    "read_rules": "alert_rules",
}

__all__ = [
    "DEFAULT_RULES",
    "Alert",
    "AlertCounters",
    "AlertRule",
    "AlertSink",
    "AlertState",
    "Alerts",
    "CallbackSink",
    "LogSink",
    "Measure",
    "MetricsDatabase",
    "read_rules",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazily(__name__, _HOME)
