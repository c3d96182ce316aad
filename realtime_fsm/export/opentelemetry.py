"""Metrics and spans for OpenTelemetry, by the names of its semantic conventions where there are any."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, Self
from urllib.parse import urlsplit

from realtime_fsm.engine.message import Message
from realtime_fsm.machine.errors import MissingExtraError
from realtime_fsm.machine.record import AttemptRecord, StatusChange
from realtime_fsm.service import RealtimeService

try:
    from opentelemetry import metrics as api_metrics
    from opentelemetry import trace as api_trace
    from opentelemetry.metrics import CallbackOptions, MeterProvider
    from opentelemetry.metrics import Observation as Measurement
    from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider
except ImportError as error:
    raise MissingExtraError(extra="otel", what="The export to OpenTelemetry") from error

_SCOPE: Final = "realtime_fsm"
_SYSTEM: Final = "socketio"
_NANO: Final = 1_000_000_000

_COUNTERS: Final[Mapping[str, tuple[str, str, str]]] = {
    "connections": ("total_connections", "{connection}", "Times the connection became live"),
    "attempts": ("attempts", "{attempt}", "Attempts to connect"),
    "attempts.failed": ("failed_connections", "{attempt}", "Attempts that failed"),
    "losses": ("losses", "{loss}", "Times a live connection ended by itself"),
    "messages.accepted": ("messages_accepted", "{message}", "Messages taken by emit and call"),
    "messages.resent": ("messages_resent", "{message}", "Repeats after a loss"),
    "events.received": ("events_received", "{event}", "Events that arrived"),
    "handler.errors": ("handler_errors", "{error}", "Errors of handlers and callbacks"),
    "token.refreshes": ("token_refreshes", "{token}", "Tokens fetched"),
    "polls": ("polls", "{poll}", "HTTP polls"),
}
_GAUGES: Final[Mapping[str, tuple[str, str, str]]] = {
    "outbox.messages": ("messages_waiting", "{message}", "Messages in the outbox"),
    "outbox.size": ("outbox_bytes", "By", "Bytes in the outbox"),
    "outbox.oldest_age": ("outbox_oldest_age", "s", "Age of the oldest message in the outbox"),
    "connection.uptime": ("uptime", "s", "How long the present connection has lasted"),
}
_BY: Final[Mapping[str, tuple[str, str, str, str]]] = {
    "messages.settled": ("messages_by_outcome", "outcome", "{message}", "Messages by what became of them"),
    "failures": ("failures_by_cause", "error.type", "{failure}", "Failed attempts and losses by their error"),
    "dropped": ("dropped", "reason", "{item}", "What was dropped, by reason"),
}


class Instrumentation:
    """Gives the metrics of a client to OpenTelemetry, and makes a span of each attempt, outage and message.

    Metrics are read when they are collected: on the thread of the reader, from plain counters. Spans are
    made on the client's loop when a thing is over, with the times at which it began and ended.

    Args:
        realtime: The client.
        meter_provider: By default the global one.
        tracer_provider: By default the global one.
    """

    def __init__(
        self,
        realtime: RealtimeService,
        *,
        meter_provider: MeterProvider | None = None,
        tracer_provider: TracerProvider | None = None,
    ) -> None:
        self._realtime = realtime
        address = urlsplit(realtime.config.server_url)
        self._server: dict[str, str | int] = {"server.address": address.hostname or ""}
        if address.port is not None:
            self._server["server.port"] = address.port
        self._tracer = api_trace.get_tracer(_SCOPE, tracer_provider=tracer_provider)
        self._lost_at: float | None = None
        self._lost_by = ""
        self._is_running = True
        self._make_instruments(api_metrics.get_meter(_SCOPE, meter_provider=meter_provider))
        status = realtime.connection_status
        self._removers: list[Callable[[], None]] = [
            status.subscribe(self._changed),
            status.subscribe_attempts(self._attempted),
            realtime.on_settled(self._settled),
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Make no more spans, and report nothing."""
        self._is_running = False
        for remove in self._removers:
            remove()

    def _make_instruments(self, meter: api_metrics.Meter) -> None:
        for name, (source, unit, what) in _COUNTERS.items():
            meter.create_observable_counter(f"{_SCOPE}.{name}", [self._reader(source)], unit, what)
        for name, (source, unit, what) in _GAUGES.items():
            meter.create_observable_gauge(f"{_SCOPE}.{name}", [self._reader(source)], unit, what)
        for name, (source, label, unit, what) in _BY.items():
            meter.create_observable_counter(f"{_SCOPE}.{name}", [self._reader(source, label)], unit, what)

    def _reader(
        self, source: str, label: str | None = None
    ) -> Callable[[CallbackOptions], Iterable[Measurement]]:
        def read(_: CallbackOptions) -> Iterator[Measurement]:
            if not self._is_running:
                return
            value = getattr(self._realtime.metrics, source)
            if label is None:
                yield Measurement(value, self._server)
                return
            for key, count in value.items():
                yield Measurement(count, {**self._server, label: key})

        return read

    def _span(self, name: str, began_at: float, kind: SpanKind = SpanKind.CLIENT) -> Span:
        return self._tracer.start_span(
            name, kind=kind, start_time=int(began_at * _NANO), attributes={**self._server}
        )

    def _attempted(self, attempt: AttemptRecord) -> None:
        span = self._span("connect", attempt.at - attempt.duration)
        span.set_attribute("realtime_fsm.attempt", attempt.number)
        if attempt.error is not None:
            span.set_attribute("error.type", type(attempt.error).__name__)
            span.set_status(Status(StatusCode.ERROR, attempt.error.message))
        span.end(int(attempt.at * _NANO))

    def _changed(self, change: StatusChange) -> None:
        if change.is_lost and change.error is not None:
            self._lost_at, self._lost_by = change.at, type(change.error).__name__
        elif self._lost_at is not None and (change.is_connected or change.is_goodbye):
            span = self._span("outage", self._lost_at, SpanKind.INTERNAL)
            span.set_attribute("error.type", self._lost_by)
            if not change.is_connected:
                span.set_status(Status(StatusCode.ERROR, "the client was disconnected meanwhile"))
            span.end(int(change.at * _NANO))
            self._lost_at = None

    def _settled(self, message: Message, settled_at: float) -> None:
        span = self._span(f"send {message.event}", message.accepted_at, SpanKind.PRODUCER)
        span.set_attributes(
            {
                "messaging.system": _SYSTEM,
                "messaging.operation.type": "send",
                "messaging.operation.name": "call" if message.is_call else "emit",
                "messaging.destination.name": message.event,
                "messaging.message.id": message.receipt.message_id,
                "messaging.message.body.size": message.size_bytes,
                "realtime_fsm.delivery": message.delivery.value,
                "realtime_fsm.outcome": message.receipt.outcome.value,
            }
        )
        if not message.receipt.outcome.is_delivered:
            span.set_status(Status(StatusCode.ERROR, message.receipt.outcome.value))
        span.end(int(settled_at * _NANO))
