"""Alerts (SPEC D4) on a whole client, in virtual time: each default rule fires and resolves."""

import asyncio
import json
import logging
from collections.abc import Callable, Iterable
from typing import Any

import canary
import pytest
from attrs import evolve
from world import World

from realtime_fsm import (
    ClosedError,
    ConfigurationError,
    ConnectionStatus,
    Delivery,
    InvalidArgumentError,
    ServerUnreachableError,
)
from realtime_fsm.machine.table import Severity
from realtime_fsm.monitoring.alert_engine import Alert, AlertState
from realtime_fsm.monitoring.alert_rules import DEFAULT_RULES, AlertRule
from realtime_fsm.monitoring.alerting import CLOSED, QUEUE_FULL, Alerts, AlertSink, CallbackSink, LogSink
from realtime_fsm.testing.simulated.server import silence
from realtime_fsm.testing.virtual_loop import wall_clock

S = ConnectionStatus
DOWN = ServerUnreachableError("refused.")
RULE = {rule.name: rule for rule in DEFAULT_RULES}


class Pager:
    """Notes every alert, and when it came."""

    def __init__(self) -> None:
        self.alerts: list[tuple[float, Alert]] = []

    def __call__(self, alert: Alert) -> None:
        """Note it."""
        self.alerts.append((asyncio.get_running_loop().time(), alert))

    @property
    def story(self) -> list[str]:
        """What came, in order."""
        return [f"{alert.rule} {alert.state.value}" for _, alert in self.alerts]

    def of(self, rule: str) -> list[str]:
        """What came of one rule."""
        return [alert.state.value for _, alert in self.alerts if alert.rule == rule]


def alerts_of(
    world: World,
    pager: Callable[[Alert], object],
    rules: Iterable[AlertRule] = DEFAULT_RULES,
    sinks: Iterable[AlertSink] = (),
    **options: Any,
) -> Alerts:
    """Return alerts on a client, that go to a pager."""
    given = [CallbackSink(pager), *sinks]
    return Alerts(world.client, rules, given, source="test", wall=wall_clock(), **options)


def at_once(*names: str) -> list[AlertRule]:
    """Return default rules without their cool-downs and holds."""
    return [evolve(RULE[name], cool_down=0.0, hold=0.0) for name in names]


async def test_a_day_without_faults_is_silent() -> None:
    """A healthy client, one deployment of half a minute included, alerts nobody."""
    async with World() as world:
        pager = Pager()
        async with alerts_of(world, pager) as alerts:
            await world.client.connect()
            await asyncio.sleep(3600)
            world.server.refusal = DOWN
            world.server.reset()
            await asyncio.sleep(30)
            world.server.refusal = None
            await world.until(S.CONNECTED)
            await asyncio.sleep(3600)
            assert pager.story == []
            assert alerts.counters.samples > 1400
        assert alerts.counters.errors == 0


async def test_server_that_stays_away_fires_failure_rate_and_time_to_recover() -> None:
    """Both fire once while the server is away, and resolve when it is back: one at once, one as it fades."""
    async with World(max_reconnect_attempts=100) as world:
        pager = Pager()
        async with alerts_of(world, pager) as alerts:
            await world.client.connect()
            began = world.now
            world.server.refusal = DOWN
            world.server.reset()
            await asyncio.sleep(500)
            assert sorted(pager.story) == ["failure_rate fired", "time_to_recover fired"]
            times = {alert.rule: when - began for when, alert in pager.alerts}
            assert 115 <= times["time_to_recover"] <= 126
            assert 80 <= times["failure_rate"] <= 102
            assert {alert.rule for alert in alerts.active} == {"failure_rate", "time_to_recover"}
            world.server.refusal = None
            await world.until(S.CONNECTED)
            await asyncio.sleep(1)
            assert pager.of("time_to_recover") == ["fired", "resolved"]
            await asyncio.sleep(700)
            assert pager.of("failure_rate") == ["fired", "resolved"]
            assert alerts.active == ()
            assert len(pager.alerts) == 4


async def test_first_connection_that_never_comes_is_time_to_recover_too() -> None:
    """What was never there is missed like what was lost; where nobody wants it any more it is not."""
    async with World(max_reconnect_attempts=3, enable_fallback=False) as world:
        pager = Pager()
        async with alerts_of(world, pager, at_once("time_to_recover")):
            await asyncio.sleep(300)
            assert pager.story == []
            world.server.refusal = DOWN
            await asyncio.gather(world.client.connect(), return_exceptions=True)
            await asyncio.sleep(300)
            assert world.client.status is S.FAILED
            assert pager.of("time_to_recover") == ["fired"]
            await world.client.disconnect()
            await asyncio.sleep(1)
            assert pager.of("time_to_recover") == ["fired", "resolved"]


async def test_fallback_that_somebody_forced_is_no_outage() -> None:
    """The manual override is silent for as long as it lasts; released, the missing socket counts."""
    async with World(fallback_endpoints=["news=/news"]) as world:
        world.http.resources["/news"] = lambda _: 1
        pager = Pager()
        async with alerts_of(world, pager, at_once("time_to_recover")):
            await world.client.connect()
            assert world.client.force_fallback()
            await asyncio.sleep(1000)
            assert pager.story == []
            world.server.refusal = DOWN
            world.client.release_fallback()
            await asyncio.sleep(115)
            assert pager.story == []
            await asyncio.sleep(10)
            assert pager.story == ["time_to_recover fired"]


async def test_flapping_connection_fires_outages() -> None:
    """Three short losses within a quarter of an hour fire, and it resolves when they are past."""
    async with World() as world:
        pager = Pager()
        async with alerts_of(world, pager):
            await world.client.connect()
            for _ in range(3):
                assert pager.story == []
                await asyncio.sleep(60)
                world.server.reset()
                await world.until(S.CONNECTED)
            await asyncio.sleep(1)
            assert pager.story == ["outages fired"]
            assert "lost 3 times within 15 min" in pager.alerts[0][1].sentence
            await asyncio.sleep(900)
            assert pager.story == ["outages fired", "outages resolved"]


async def test_slow_server_fires_latency() -> None:
    """Round trips above a second fire once there are enough of them, and resolve when they are quick."""
    async with World() as world:
        pager = Pager()
        async with alerts_of(world, pager):
            await world.client.connect()
            await asyncio.sleep(1200)
            world.server.latency = 0.9
            await asyncio.sleep(1200)
            assert pager.story == ["latency fired"]
            assert pager.alerts[0][1].value == pytest.approx(1.8)
            world.server.latency = 0.01
            await asyncio.sleep(1200)
            assert pager.story == ["latency fired", "latency resolved"]


async def test_server_that_does_not_acknowledge_fires_outbox_age() -> None:
    """A message that waits for five minutes fires, and its delivery resolves."""
    async with World(ack_timeout=3600.0) as world:
        pager = Pager()
        async with alerts_of(world, pager):
            await world.client.connect()
            await asyncio.sleep(1)
            world.server.acknowledge = silence
            await world.client.emit("n", 1, delivery=Delivery.AT_LEAST_ONCE)
            began = world.now
            await asyncio.sleep(400)
            assert pager.of("outbox_age") == ["fired"]
            assert 329 <= pager.alerts[0][0] - began <= 336
            world.server.acknowledge = lambda _, args: args
            world.server.reset()
            await asyncio.sleep(30)
            assert pager.of("outbox_age") == ["fired", "resolved"]
            assert len(pager.alerts) == 2


async def test_message_that_is_given_up_fires_dead_letters() -> None:
    """One dead letter is enough; after an hour without another it is over."""
    async with World(max_delivery_attempts=1) as world:
        pager = Pager()
        async with alerts_of(world, pager):
            await world.client.connect()
            await asyncio.sleep(1)
            world.server.acknowledge = silence
            receipt = await world.client.emit("n", 1, delivery=Delivery.AT_LEAST_ONCE)
            await asyncio.sleep(1)
            world.server.reset()
            await asyncio.gather(receipt, return_exceptions=True)
            await asyncio.sleep(10)
            assert world.client.metrics.messages_buried == 1
            assert pager.story == ["dead_letters fired"]
            await asyncio.sleep(3610)
            assert pager.story == ["dead_letters fired", "dead_letters resolved"]


async def test_handler_that_hangs_fires_deafness() -> None:
    """Connected but deaf fires after its hold, and resolves once the handler lets go."""
    async with World() as world:
        pager = Pager()
        release = asyncio.Event()
        world.client.on("n", lambda _: release.wait())
        async with alerts_of(world, pager):
            await world.client.connect()
            world.server.emit("n", 1)
            world.server.emit("n", 2)
            await asyncio.sleep(55)
            assert world.client.health().deaf
            assert pager.story == []
            await asyncio.sleep(15)
            assert pager.story == ["deafness fired"]
            assert pager.alerts[0][1].severity is Severity.ERROR
            release.set()
            await asyncio.sleep(10)
            assert pager.story == ["deafness fired", "deafness resolved"]


async def test_cool_down_keeps_a_flapping_rule_quiet() -> None:
    """Within ten minutes of an alert the same rule sends none; what is kept back is counted, and active."""
    async with World() as world:
        pager = Pager()
        rule = evolve(RULE["time_to_recover"], threshold=5.0)
        async with alerts_of(world, pager, [rule]) as alerts:
            await world.client.connect()
            for _ in range(4):
                world.server.refusal = DOWN
                world.server.reset()
                await asyncio.sleep(20)
                assert len(alerts.active) == 1
                world.server.refusal = None
                world.client.retry_now()
                await world.until(S.CONNECTED)
                await asyncio.sleep(20)
            assert pager.story == ["time_to_recover fired", "time_to_recover resolved"]
            assert (alerts.counters.fired, alerts.counters.suppressed) == (1, 3)


async def test_what_happened_before_the_start_fires_nothing() -> None:
    """Losses, failures, slow round trips and dead letters of before are nobody's news."""
    async with World(max_delivery_attempts=1) as world:
        world.server.latency = 1.0
        await world.client.connect()
        await asyncio.sleep(600)
        world.server.acknowledge = silence
        receipt = await world.client.emit("n", 1, delivery=Delivery.AT_LEAST_ONCE)
        await asyncio.sleep(5)
        for _ in range(5):
            world.server.reset()
            await world.until(S.CONNECTED)
            await asyncio.sleep(30)
        await asyncio.gather(receipt, return_exceptions=True)
        world.server.latency = 0.01
        metrics = world.client.metrics
        assert (metrics.losses, metrics.messages_buried) == (5, 1)
        assert metrics.latency_p95 is not None
        assert metrics.latency_p95 > 1.0
        pager = Pager()
        async with alerts_of(world, pager):
            await asyncio.sleep(4000)
        assert pager.story == []


async def test_outage_of_before_the_start_counts_from_the_start() -> None:
    """Somebody who begins to watch during an outage is told of it, two minutes after the begin."""
    async with World(max_reconnect_attempts=100) as world:
        await world.client.connect()
        world.server.refusal = DOWN
        world.server.reset()
        await asyncio.sleep(1000)
        pager = Pager()
        async with alerts_of(world, pager, at_once("time_to_recover")):
            await asyncio.sleep(110)
            assert pager.story == []
            await asyncio.sleep(20)
            assert pager.story == ["time_to_recover fired"]


async def test_stop_leaves_nothing_and_tells_nothing_more() -> None:
    """After the stop no task and no subscription is left, and a second stop and start are well-defined."""
    async with World() as world:
        pager = Pager()
        before = asyncio.all_tasks()
        alerts = alerts_of(world, pager, at_once("outages"))
        alerts.start()
        alerts.start()
        assert len(asyncio.all_tasks() - before) == 2
        await alerts.stop()
        await alerts.stop()
        assert asyncio.all_tasks() == before
        await world.client.connect()
        for _ in range(5):
            world.server.reset()
            await world.until(S.CONNECTED)
            await asyncio.sleep(20)
        assert pager.story == []
        assert alerts.counters.samples == 1
        assert list(world.client.connection_status._changes) == [world.changes.append]
        with pytest.raises(ClosedError):
            alerts.start()


def fire(alerts: Alerts, count: int) -> None:
    """Put alerts into the lanes, as if rules had fired."""
    alert = Alert(
        incident="x",
        rule="r",
        state=AlertState.FIRED,
        severity=Severity.WARNING,
        sentence="It is bad.",
        remedy="Mend it.",
        value=1.0,
        threshold=1.0,
        began_at=0.0,
        at=0.0,
    )
    for number in range(count):
        for lane in alerts._queues:
            lane.put(evolve(alert, incident=f"x-{number}"))


async def test_sink_that_fails_or_hangs_disturbs_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """Errors of a sink are counted and logged; one that hangs is given up; the others get every alert."""
    async with World() as world:
        pager, waited = Pager(), Pager()

        def broken(_: Alert) -> None:
            raise RuntimeError("the callback fails")

        async def cancelled(_: Alert) -> None:
            raise asyncio.CancelledError

        async def slow(alert: Alert) -> None:
            await asyncio.sleep(1)
            waited(alert)

        sinks = [
            CallbackSink(broken),
            CallbackSink(cancelled),
            CallbackSink(lambda _: asyncio.Event().wait(), timeout=5.0),
            CallbackSink(slow),
        ]
        async with alerts_of(world, pager, sinks=sinks) as alerts:
            fire(alerts, 3)
            await asyncio.sleep(0)
            assert len(pager.alerts) == 3
            await asyncio.sleep(20)
            assert len(waited.alerts) == 3
            assert (alerts.counters.sent, alerts.counters.failed) == (6, 9)
            assert alerts.counters.dropped == {}
    assert "the callback fails" in caplog.text
    assert "what it waited for was cancelled" in caplog.text


async def test_full_queue_drops_the_oldest_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """What does not fit is counted by its reason and logged; what is newest arrives."""
    async with World() as world:
        got: list[str] = []

        async def slow(alert: Alert) -> None:
            await asyncio.sleep(1)
            got.append(alert.incident)

        async with alerts_of(world, slow, max_queued=3) as alerts:
            fire(alerts, 1)
            await asyncio.sleep(0.5)
            fire(alerts, 10)
            await asyncio.sleep(10)
            assert got == ["x-0", "x-7", "x-8", "x-9"]
            assert alerts.counters.dropped == {QUEUE_FULL: 7}
    assert caplog.text.count("was dropped") == 7


async def test_stop_sends_what_waits_within_its_bound() -> None:
    """The stop waits for the sinks for as long as it may; what is not sent then is counted."""
    async with World() as world:
        got: list[str] = []

        async def slow(alert: Alert) -> None:
            await asyncio.sleep(1)
            got.append(alert.incident)

        alerts = alerts_of(world, slow, close_timeout=3.5)
        alerts.start()
        fire(alerts, 10)
        began = world.now
        await alerts.stop()
        assert world.now - began == pytest.approx(3.5)
        assert got == ["x-0", "x-1", "x-2"]
        assert alerts.counters.dropped == {CLOSED: 7}


async def test_sink_that_ignores_its_cancellation_does_not_hold_the_stop() -> None:
    """The stop ends within a second of its bound, whatever a sink does."""
    async with World() as world:

        async def stubborn(_: Alert) -> None:
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                await asyncio.sleep(20)

        alerts = alerts_of(world, lambda _: None, sinks=[CallbackSink(stubborn, timeout=500.0)])
        alerts.start()
        fire(alerts, 2)
        await asyncio.sleep(0)
        began = world.now
        await alerts.stop()
        assert world.now - began == pytest.approx(6.0)
        await asyncio.sleep(30)  # it ends by itself in the end


async def test_client_that_cannot_be_looked_at_does_not_end_the_watch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An error while looking is counted, and the next look is made."""
    async with World() as world, alerts_of(world, Pager()) as alerts:
        with monkeypatch.context() as patch:
            patch.setattr(world.client, "health", lambda: 1 / 0)
            await asyncio.sleep(11)
            assert alerts.counters.errors == 2
        samples = alerts.counters.samples
        await asyncio.sleep(10)
        assert alerts.counters.samples > samples


async def test_page_gets_everything_as_json() -> None:
    """What is active, how each rule stands, what was told and the counters; and no secret."""
    async with World(max_reconnect_attempts=100) as world, alerts_of(world, Pager()) as alerts:
        await world.client.connect()
        world.server.refusal = DOWN
        world.server.reset()
        await asyncio.sleep(90)
        told = json.loads(json.dumps(alerts.to_json()))
        rules = {rule["name"]: rule for rule in told["rules"]}
        assert set(rules) == set(RULE)
        assert rules["outages"]["value"] == 1
        assert rules["latency"]["shown"] is None
        await asyncio.sleep(300)
        text = json.dumps(alerts.to_json())
        told = json.loads(text)
        assert {alert["rule"] for alert in told["active"]} == {"failure_rate", "time_to_recover"}
        assert [alert["state"] for alert in told["recent"]] == ["fired", "fired"]
        assert told["counters"]["fired"] == 2
        states = {rule["name"]: rule["state"] for rule in told["rules"]}
        assert (states["failure_rate"], states["latency"]) == ("active", "ok")
        assert canary.found_in(text) == []


async def test_log_sink_logs_at_the_severity(caplog: pytest.LogCaptureFixture) -> None:
    """An alert is logged at its severity, its resolution at INFO, both with the alert in `extra`."""
    caplog.set_level(logging.INFO, logger="realtime_fsm")
    async with World(max_reconnect_attempts=100) as world:
        rules = at_once("time_to_recover")
        async with Alerts(world.client, rules, wall=wall_clock()):
            caplog.set_level(logging.INFO, logger="realtime_fsm")
            await world.client.connect()
            world.server.refusal = DOWN
            world.server.reset()
            await asyncio.sleep(200)
            world.server.refusal = None
            await world.until(S.CONNECTED)
            await asyncio.sleep(1)
    records = [record for record in caplog.records if hasattr(record, "alert")]
    assert [record.levelno for record in records] == [logging.ERROR, logging.INFO]
    assert "no live connection for 2" in records[0].getMessage()
    assert "doctor" in records[0].getMessage()
    assert records[1].getMessage().startswith("✔ alert time_to_recover: Over after")
    assert records[0].alert["state"] == "fired"


def test_alerts_that_make_no_sense_are_refused_with_everything() -> None:
    """All problems are reported at once: rules, sinks and numbers."""
    twice = [RULE["outages"], RULE["outages"]]
    with pytest.raises(ConfigurationError) as raised:
        Alerts(
            World().client,
            twice,
            [LogSink(), object()],  # type: ignore[list-item]
            interval=0.0,
            max_queued=1.5,  # type: ignore[arg-type]
            close_timeout=float("nan"),
        )
    assert len(raised.value.problems) == 5
    with pytest.raises(InvalidArgumentError):
        CallbackSink("no function")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="timeout="):
        CallbackSink(print, timeout=0.0)
