"""The state of a client for the systems that watch many programs: Prometheus, OpenTelemetry, webhooks.

``RealtimeCollector`` and ``metrics_application`` need the extra ``[prometheus]``, ``Instrumentation`` needs
``[otel]``.
"""

from typing import TYPE_CHECKING, Final

from realtime_fsm import lazily

if TYPE_CHECKING:
    from realtime_fsm.export.collector import RealtimeCollector, metrics_application
    from realtime_fsm.export.opentelemetry import Instrumentation
    from realtime_fsm.export.webhook import WebhookLimits, WebhookSink

_HOME: Final = {
    "Instrumentation": "opentelemetry",
    "RealtimeCollector": "collector",
    "WebhookLimits": "webhook",
    "WebhookSink": "webhook",
    "metrics_application": "collector",
}

__all__ = [
    "Instrumentation",
    "RealtimeCollector",
    "WebhookLimits",
    "WebhookSink",
    "metrics_application",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazily(__name__, _HOME)
