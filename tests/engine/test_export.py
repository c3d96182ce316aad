"""What monitoring systems are given: read back by their own parsers."""

import asyncio
import subprocess
import sys
from typing import Any

import canary
import pytest
from aiohttp.test_utils import TestClient, TestServer
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import StatusCode
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from world import World

from realtime_fsm import ConnectionStatus, Delivery, ServerUnreachableError
from realtime_fsm.engine.message import Message
from realtime_fsm.export.collector import RealtimeCollector, metrics_application
from realtime_fsm.export.opentelemetry import Instrumentation

S = ConnectionStatus


class Kept(SpanExporter):
    """Keeps spans."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def export(self, spans: Any) -> SpanExportResult:
        """Keep them."""
        self.spans.extend(spans)
        return SpanExportResult.SUCCESS

    def named(self, name: str) -> list[ReadableSpan]:
        """Return the spans of a name."""
        return [span for span in self.spans if span.name == name]


async def through_an_outage(world: World) -> None:
    """Connect, emit, lose the connection, and come back."""
    await world.client.connect()
    await (await world.client.emit("note", {"n": 1}, delivery=Delivery.AT_LEAST_ONCE))
    world.server.refusal = ServerUnreachableError("down.")
    world.server.reset()
    await asyncio.sleep(3)
    world.server.refusal = None
    await world.until(S.CONNECTED)
    await asyncio.sleep(60)


def families(client: Any, labels: dict[str, str] | None = None) -> dict[str, dict[tuple[Any, ...], float]]:
    """Return what Prometheus would read: metric, labels, value."""
    registry = CollectorRegistry()
    registry.register(RealtimeCollector(client, labels))
    text = generate_latest(registry).decode()
    return {
        family.name: {tuple(sorted(sample.labels.items())): sample.value for sample in family.samples}
        for family in text_string_to_metric_families(text)
    }


async def test_prometheus_reads_what_the_metrics_say() -> None:
    """Every counter and gauge is what the snapshot says, with base units and bounded labels."""
    async with World() as world:
        await through_an_outage(world)
        metrics = world.client.metrics
        read = families(world.client)
        assert read["realtime_fsm_connections"][()] == metrics.total_connections == 2
        assert read["realtime_fsm_losses"][()] == 1
        assert read["realtime_fsm_uptime_seconds"][()] == pytest.approx(metrics.uptime)
        assert read["realtime_fsm_messages_settled"][(("outcome", "acknowledged"),)] == 1
        assert read["realtime_fsm_failures"][(("cause", "ServerUnreachableError"),)] >= 1
        assert read["realtime_fsm_status"][(("status", "connected"),)] == 1
        assert sum(read["realtime_fsm_status"].values()) == 1
        row = (("destination", "reconnecting"), ("source", "connected"), ("trigger", "connection_lost"))
        assert read["realtime_fsm_transitions"][row] == 1
        assert read["realtime_fsm_status_seconds"][(("status", "connected"),)] > 60
        assert read["realtime_fsm_heartbeat_latency_recent_seconds"][(("quantile", "0.5"),)] > 0
        assert read["realtime_fsm_heartbeat_latency_seconds"]


async def test_prometheus_has_no_secret_id_or_address_in_its_labels() -> None:
    """Labels are states, outcomes, causes and reasons, and what the program adds: no token, address or id."""
    async with World(token=canary.token) as world:
        await through_an_outage(world)
        read = families(world.client, {"client": "gateway"})
        labels = {key for samples in read.values() for sample in samples for key, _ in sample}
        known = {"client", "outcome", "cause", "reason", "status", "source", "trigger", "destination"}
        assert labels <= known | {"quantile"}
        values = {v for samples in read.values() for sample in samples for _, v in sample}
        assert not any("/" in value or "-" in value for value in values)


@pytest.mark.real_loop
async def test_prometheus_page_is_served() -> None:
    """``GET /metrics`` answers in the text format, and reads the client anew each time."""
    async with World() as world, TestClient(TestServer(metrics_application(world.client))) as http:
        for connections in (0, 1):
            answer = await http.get("/metrics")
            assert answer.status == 200
            assert answer.headers["Content-Type"].startswith("text/plain")
            read = {f.name: f for f in text_string_to_metric_families(await answer.text())}
            assert read["realtime_fsm_connections"].samples[0].value == connections
            if not connections:
                await world.client.connect()


async def test_opentelemetry_gets_spans_of_attempts_outages_and_messages() -> None:
    """Each attempt, outage and message is a span, with the times at which it began and ended."""
    kept = Kept()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    async with World() as world:
        with Instrumentation(world.client, tracer_provider=provider):
            await through_an_outage(world)
            attempts, outages, sent = kept.named("connect"), kept.named("outage"), kept.named("send note")
            assert attempts[0].status.status_code is StatusCode.UNSET
            failed = [span for span in attempts if span.status.status_code is StatusCode.ERROR]
            assert failed
            assert {(span.attributes or {})["error.type"] for span in failed} == {"ServerUnreachableError"}
            assert len(outages) == 1
            lasted = (outages[0].end_time or 0) - (outages[0].start_time or 0)
            assert lasted > 3e9
            attributes = dict(sent[0].attributes or {})
            assert attributes["messaging.system"] == "socketio"
            assert attributes["messaging.destination.name"] == "note"
            assert attributes["realtime_fsm.outcome"] == "acknowledged"
            assert attributes["server.address"] == "localhost"
            assert attributes["server.port"] == 3001
        before = len(kept.spans)
        await world.client.emit("note", 2)
        await asyncio.sleep(1)
        assert len(kept.spans) == before


async def test_opentelemetry_reads_the_metrics() -> None:
    """Counters and gauges are read when they are collected, and no more once it is stopped."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    async with World() as world:
        with Instrumentation(world.client, meter_provider=provider):
            await through_an_outage(world)
            data = reader.get_metrics_data()
            found = {
                metric.name: metric
                for resource in data.resource_metrics
                for scope in resource.scope_metrics
                for metric in scope.metrics
            }
            assert next(iter(found["realtime_fsm.connections"].data.data_points)).value == 2
            assert found["realtime_fsm.connection.uptime"].unit == "s"
            causes = {
                dict(p.attributes)["error.type"] for p in found["realtime_fsm.failures"].data.data_points
            }
            assert "ServerUnreachableError" in causes
    assert reader.get_metrics_data() is None
    provider.shutdown()


async def test_observer_of_messages_that_raises_disturbs_nobody() -> None:
    """What an observer raises is counted; it is told each message once, and nothing after its removal."""
    async with World() as world:
        seen: list[str] = []

        def broken(_: Message, __: float) -> None:
            raise RuntimeError("an observer fails")

        world.client.on_settled(broken)
        remove = world.client.on_settled(lambda message, _: seen.append(message.event))
        await world.client.connect()
        await (await world.client.emit("one", 1, delivery=Delivery.AT_LEAST_ONCE))
        await asyncio.sleep(0)
        assert seen == ["one"]
        assert world.client.metrics.handler_errors == 1
        remove()
        remove()
        await (await world.client.emit("two", 2, delivery=Delivery.AT_LEAST_ONCE))
        await asyncio.sleep(0)
        assert seen == ["one"]


@pytest.mark.parametrize(
    ("module", "hidden", "extra"),
    [
        ("realtime_fsm.export.collector", "prometheus_client", "prometheus"),
        ("realtime_fsm.export.opentelemetry", "opentelemetry", "otel"),
    ],
)
def test_export_without_its_library_names_the_extra(module: str, hidden: str, extra: str) -> None:
    """Without the library the import says which extra brings it."""
    program = f"import sys; sys.modules[{hidden!r}] = None; import {module}"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1
    assert f"pip install 'realtime-fsm[{extra}]'" in done.stderr
