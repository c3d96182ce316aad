"""Metrics for Prometheus: base units, bounded labels, and no id, address or channel in any of them."""

from collections.abc import Iterator, Mapping
from typing import Final

from aiohttp import web

from realtime_fsm.machine.errors import MissingExtraError
from realtime_fsm.machine.table import ConnectionStatus
from realtime_fsm.monitoring.metrics import ConnectionMetrics
from realtime_fsm.service import RealtimeService

try:
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
    from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
    from prometheus_client.registry import Collector
except ImportError as error:
    raise MissingExtraError(extra="prometheus", what="The export to Prometheus") from error

_PREFIX: Final = "realtime_fsm"

_COUNTERS: Final[Mapping[str, tuple[str, str]]] = {
    "connections": ("total_connections", "Times the connection became live"),
    "attempts": ("attempts", "Attempts to connect"),
    "failed_attempts": ("failed_connections", "Attempts that failed"),
    "losses": ("losses", "Times a live connection ended by itself"),
    "connected_seconds": ("connected_seconds", "Time spent connected"),
    "heartbeats": ("heartbeats", "Probes of the connection"),
    "messages_accepted": ("messages_accepted", "Messages taken by emit and call"),
    "messages_restored": ("messages_restored", "Messages that a durable outbox gave back"),
    "messages_resent": ("messages_resent", "Repeats after a loss"),
    "messages_published": ("messages_published", "Messages published over HTTP"),
    "messages_repeated": ("messages_repeated", "Messages that the server had applied before"),
    "messages_buried": ("messages_buried", "Messages put among the dead letters"),
    "events_received": ("events_received", "Events that arrived"),
    "events_dispatched": ("events_dispatched", "Events that reached a handler"),
    "events_duplicates": ("duplicates_dropped", "Events that had arrived before"),
    "gaps": ("gaps", "Gaps that a replay closed"),
    "unrecovered": ("unrecovered", "Gaps that could not be replayed"),
    "resyncs": ("resyncs", "Calls of the resync hook"),
    "handler_errors": ("handler_errors", "Errors of handlers and callbacks"),
    "malformed_frames": ("malformed_frames", "Frames that could not be decoded"),
    "stale_dropped": ("stale_dropped", "What came of an older epoch"),
    "token_refreshes": ("token_refreshes", "Tokens fetched"),
    "polls": ("polls", "HTTP polls"),
    "failed_polls": ("failed_polls", "HTTP polls that failed"),
    "failed_publishes": ("failed_publishes", "Requests with messages that failed"),
    "activity_crashes": ("activity_crashes", "Activities that ended by a bug"),
}
"""Name without its suffix: the field, and what it counts."""

_GAUGES: Final[Mapping[str, tuple[str, str]]] = {
    "uptime_seconds": ("uptime", "How long the present connection has lasted"),
    "outbox_messages": ("messages_waiting", "Messages in the outbox"),
    "outbox_bytes": ("outbox_bytes", "Bytes in the outbox"),
    "outbox_oldest_age_seconds": ("outbox_oldest_age", "Age of the oldest message in the outbox"),
    "messages_in_flight": ("messages_in_flight", "Messages sent and not yet acknowledged"),
    "events_pending": ("events_pending", "Events that wait for their handlers"),
}

_BY: Final[Mapping[str, tuple[str, str, str]]] = {
    "messages_settled": ("messages_by_outcome", "outcome", "Messages by what became of them"),
    "failures": ("failures_by_cause", "cause", "Failed attempts and losses by the name of their error"),
    "dropped": ("dropped", "reason", "What was dropped, by reason"),
    "status_seconds": ("seconds_by_status", "status", "Time spent in each state"),
}


class RealtimeCollector(Collector):
    """Collects the metrics of one client, when Prometheus asks for them: nothing is counted twice.

    Args:
        realtime: The client. It is read on the thread that collects: serve the metrics on its loop.
        labels: Put on every metric, for programs with several clients. Keep their values few.
    """

    def __init__(self, realtime: RealtimeService, labels: Mapping[str, str] | None = None) -> None:
        self._realtime = realtime
        self._labels = dict(labels or {})

    def collect(self) -> Iterator[Metric]:
        """Yield every metric of the client."""
        metrics = self._realtime.metrics
        names, values = list(self._labels), list(self._labels.values())
        for name, (source, what) in _COUNTERS.items():
            counter = CounterMetricFamily(f"{_PREFIX}_{name}", what, labels=names)
            counter.add_metric(values, getattr(metrics, source))
            yield counter
        for name, (source, what) in _GAUGES.items():
            gauge = GaugeMetricFamily(f"{_PREFIX}_{name}", what, labels=names)
            gauge.add_metric(values, getattr(metrics, source))
            yield gauge
        for name, (source, label, what) in _BY.items():
            family = CounterMetricFamily(f"{_PREFIX}_{name}", what, labels=[*names, label])
            for key, count in getattr(metrics, source).items():
                family.add_metric([*values, key], count)
            yield family
        yield from self._of_states(metrics, names, values)

    def _of_states(self, metrics: ConnectionMetrics, names: list[str], values: list[str]) -> Iterator[Metric]:
        status = GaugeMetricFamily(
            f"{_PREFIX}_status", "1 for the present state, 0 for the others", labels=[*names, "status"]
        )
        for each in ConnectionStatus:
            status.add_metric([*values, each.value], float(each is metrics.status))
        yield status
        changes = CounterMetricFamily(
            f"{_PREFIX}_transitions",
            "Transitions taken",
            labels=[*names, "source", "trigger", "destination"],
        )
        for row, count in metrics.transitions.items():
            changes.add_metric([*values, *row.split()], count)
        yield changes
        if metrics.average_latency is not None:
            latency = SummaryMetricFamily(
                f"{_PREFIX}_heartbeat_latency_seconds", "Round trips of the heartbeats", labels=names
            )
            count = metrics.latency_count
            latency.add_metric(values, count_value=count, sum_value=metrics.average_latency * count)
            yield latency
            quantiles = GaugeMetricFamily(
                f"{_PREFIX}_heartbeat_latency_recent_seconds",
                "Percentiles of the last 512 round trips",
                labels=[*names, "quantile"],
            )
            for quantile, value in (
                ("0.5", metrics.latency_p50),
                ("0.95", metrics.latency_p95),
                ("0.99", metrics.latency_p99),
            ):
                quantiles.add_metric([*values, quantile], value or 0.0)
            yield quantiles


def metrics_application(realtime: RealtimeService) -> web.Application:
    """Return an aiohttp application that answers ``GET /metrics``; mount it with ``add_subapp``.

    Args:
        realtime: The client, on the same loop.
    """
    registry = CollectorRegistry()
    registry.register(RealtimeCollector(realtime))

    async def answer(_: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4}
        )

    application = web.Application()
    application.router.add_get("/metrics", answer)
    return application
