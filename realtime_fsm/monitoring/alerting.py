"""Alerts: watches a client, and tells people when it does not fare as it should, and when it does again."""

import asyncio
import inspect
import logging
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, Protocol, Self
from uuid import uuid4

from attrs import asdict

from realtime_fsm.engine.recovery import LEVELS
from realtime_fsm.engine.status import ConnectionStatusManager
from realtime_fsm.machine.checks import counting, finite
from realtime_fsm.machine.errors import ClosedError, ConfigurationError, InvalidArgumentError, RealtimeError
from realtime_fsm.machine.record import AttemptRecord, StatusChange
from realtime_fsm.machine.table import TRAITS, Trigger
from realtime_fsm.monitoring.alert_engine import (
    Alert,
    AlertCounters,
    AlertState,
    Progress,
    Sample,
    begin,
    evaluate,
)
from realtime_fsm.monitoring.alert_rules import (
    DEFAULT_RULES,
    MAX_ROUND_TRIPS,
    AlertRule,
    Measure,
    check_rules,
    read_rules,
)
from realtime_fsm.monitoring.health import Health
from realtime_fsm.monitoring.metrics import ConnectionMetrics

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
    "read_rules",
]

_RECENT: Final = 100
"""Alerts that are kept for pages."""

QUEUE_FULL: Final = "queue full"
CLOSED: Final = "closed before it was sent"

_CANCEL_TIMEOUT: Final = 1.0
"""Seconds that a sink gets to end once it is cancelled."""

_logger = logging.getLogger("realtime_fsm.alerts")


class Watched(Protocol):
    """The part of a ``RealtimeService`` that is watched."""

    @property
    def metrics(self) -> ConnectionMetrics:
        """The metrics of the connection."""

    @property
    def connection_status(self) -> ConnectionStatusManager:
        """The source of changes, attempts and round trips."""

    def health(self) -> Health:
        """Return the health of the client."""


class AlertSink(Protocol):
    """A place that alerts are sent to, one at a time."""

    async def send(self, alert: Alert) -> None:
        """Send one; called with the next one only when this has returned. May be cancelled.

        Raises:
            Exception: If it cannot be sent. It is counted and logged, and not tried again.
        """


class Alerts:
    """Watches a client by rules, and tells sinks of what it finds.

    ::

        async with Alerts(realtime, sinks=[LogSink(), WebhookSink(url, secret=secret)]) as alerts:
            ...

    It looks at metrics and health every ``interval``, and whenever the state changes or an attempt ends. What
    happened before it was started fires nothing. What holds when it is stopped is not resolved: nobody
    looks any more. Nothing that happens to it or to its sinks reaches the connection.

    Args:
        realtime: The client.
        rules: What is watched for.
        sinks: Where alerts go; by default into the log. Each has a queue and a task of its own.
        interval: Seconds between two looks.
        max_queued: Alerts that may wait for one sink; beyond it the oldest is dropped, and counted.
        close_timeout: Seconds that the sinks get for what waits when it is stopped.
        source: Begins the names of incidents; by default one that nobody else has.
        wall: The wall clock.

    Raises:
        ConfigurationError: With everything that is wrong with these.
    """

    def __init__(
        self,
        realtime: Watched,
        rules: Iterable[AlertRule] = DEFAULT_RULES,
        sinks: Iterable[AlertSink] | None = None,
        *,
        interval: float = 5.0,
        max_queued: int = 100,
        close_timeout: float = 5.0,
        source: str | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        given, wanted = tuple(rules), tuple([LogSink()] if sinks is None else sinks)
        _check(given, wanted, interval=interval, max_queued=max_queued, close_timeout=close_timeout)
        self._realtime = realtime
        self._sinks = wanted
        self._interval = interval
        self._max_queued = max_queued
        self._close_timeout = close_timeout
        self._wall = wall
        self._watch = begin(given, uuid4().hex[:12] if source is None else source)
        self._queues: list[SinkQueue] = []
        self._ends: list[Callable[[], None]] = []
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False
        self._wake = asyncio.Event()
        self._down_since: float | None = None
        self._round_trips: deque[float] = deque(maxlen=MAX_ROUND_TRIPS)
        self._counts: Counter[str] = Counter()
        self.recent: deque[Alert] = deque(maxlen=_RECENT)

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def active(self) -> tuple[Alert, ...]:
        """The alerts of the rules that hold now, those included that a cool-down kept back."""
        return self._watch.active

    @property
    def counters(self) -> AlertCounters:
        """Counts of alerts so far, by their fate."""
        dropped: Counter[str] = Counter()
        for queue in self._queues:
            dropped.update(queue.dropped)
        return AlertCounters(
            samples=self._counts["samples"],
            fired=self._counts[AlertState.FIRED],
            resolved=self._counts[AlertState.RESOLVED],
            suppressed=sum(progress.suppressed for progress in self._watch.progress),
            sent=sum(queue.sent for queue in self._queues),
            failed=sum(queue.failed for queue in self._queues),
            dropped=dict(dropped),
            errors=self._counts["errors"],
        )

    def to_json(self) -> dict[str, Any]:
        """Return everything that a page shows, as what ``json.dumps`` takes."""
        rules = zip(self._watch.rules, self._watch.progress, strict=True)
        return {
            "active": [alert.to_json() for alert in self.active],
            "rules": [_rule_to_json(rule, progress) for rule, progress in rules],
            "recent": [alert.to_json() for alert in self.recent],
            "counters": asdict(self.counters),
        }

    def start(self) -> None:
        """Begin to watch, on the running loop. Does nothing where it watches already.

        Raises:
            ClosedError: If it was stopped. Make another one.
        """
        if self._is_closed:
            raise ClosedError("These alerts were stopped.", remedy="Make others.")
        if self._task is not None:
            return
        status = self._realtime.connection_status
        if status.last is not None and _is_missing(status.last):
            self._down_since = asyncio.get_running_loop().time()
        self._queues = [SinkQueue(sink, self._max_queued) for sink in self._sinks]
        self._ends = [
            status.subscribe(self._changed),
            status.subscribe_attempts(self._attempted),
            status.subscribe_latency(self._round_trips.append),
        ]
        self._look()
        self._task = asyncio.create_task(self._run(), name="alerts")

    async def stop(self) -> None:
        """Watch no more, give the sinks what waits, and leave nothing behind. Safe to call twice.

        It takes ``close_timeout`` and a second at most.
        """
        self._is_closed = True
        for end in self._ends:
            end()
        self._ends = []
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        await asyncio.gather(
            task, *(queue.close(self._close_timeout) for queue in self._queues), return_exceptions=True
        )

    # Inside.

    def _changed(self, change: StatusChange) -> None:
        if not _is_missing(change):
            self._down_since = None
        elif self._down_since is None:
            self._down_since = asyncio.get_running_loop().time()
        self._wake.set()

    def _attempted(self, _: AttemptRecord) -> None:
        self._wake.set()

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._interval):
                    await self._wake.wait()
            except TimeoutError:
                pass  # nothing happened: that too is looked at
            self._wake.clear()
            self._look()

    def _look(self) -> None:
        """Look at the client once, and tell what follows."""
        now = asyncio.get_running_loop().time()
        try:
            self._watch, told = evaluate(self._watch, self._sample(now), now)
        except Exception:
            self._counts["errors"] += 1
            _logger.exception("the client could not be looked at")
            return
        self._counts["samples"] += 1
        for alert in told:
            self._counts[alert.state] += 1
            self.recent.append(alert)
            for queue in self._queues:
                queue.put(alert)

    def _sample(self, now: float) -> Sample:
        metrics, health = self._realtime.metrics, self._realtime.health()
        round_trips = tuple(self._round_trips)
        self._round_trips.clear()
        return Sample(
            at=self._wall(),
            attempts=metrics.total_connections + metrics.failed_connections,
            failed_attempts=metrics.failed_connections,
            losses=metrics.losses,
            dead_letters=metrics.messages_buried,
            round_trips=round_trips,
            down_for=None if self._down_since is None else now - self._down_since,
            outbox_age=metrics.outbox_oldest_age,
            deaf=health.deaf,
        )


def _is_missing(change: StatusChange) -> bool:
    """Tell whether a live connection is wanted and not there; one that somebody put away is not wanted."""
    traits = TRAITS[change.current]
    return traits.wanted and not traits.sends and change.trigger is not Trigger.FORCE_FALLBACK


def _check(rules: tuple[AlertRule, ...], sinks: tuple[AlertSink, ...], **numbers: float) -> None:
    """Refuse what is wrong, all at once."""
    problems: list[str] = []
    try:
        check_rules(rules)
    except ConfigurationError as error:
        problems += error.problems
    problems += [f"sinks: {sink!r} has no send()" for sink in sinks if not hasattr(sink, "send")]
    for name, value in numbers.items():
        rule = (counting() if name == "max_queued" else finite())(value)
        if rule is not None:
            problems.append(f"{name}={value!r} {rule}")
    if problems:
        raise ConfigurationError(*problems)


def _rule_to_json(rule: AlertRule, progress: Progress) -> dict[str, Any]:
    return {
        "name": rule.name,
        "measure": rule.measure.value,
        "severity": rule.severity.value,
        "value": progress.value,
        "shown": None if progress.value is None else rule.shown(progress.value),
        "threshold": rule.threshold,
        "clear_threshold": rule.clear_threshold,
        "window": rule.window,
        "state": "active" if progress.alert else "ok" if progress.since is None else "pending",
        "incidents": progress.incidents,
    }


# Where alerts go: a sink sends one alert, and a queue with a task brings it the alerts in turn, so that a
# sink that fails, hangs or is slow delays nothing but itself.


class LogSink:
    """Logs alerts: at the level of their severity, resolutions at INFO; the alert is in ``extra``.

    Args:
        logger: By default ``realtime_fsm.alerts``.
    """

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._logger = _logger if logger is None else logger

    async def send(self, alert: Alert) -> None:
        """Log an alert at the level of its severity."""
        is_over = alert.state is AlertState.RESOLVED
        self._logger.log(
            logging.INFO if is_over else LEVELS[alert.severity],
            "%s alert %s: %s",
            "✔" if is_over else "▲",
            alert.rule,
            f"{alert.sentence} {alert.remedy}".strip(),
            extra={"alert": alert.to_json()},
        )


class CallbackSink:
    """Calls a function, or a coroutine function, with every alert.

    Args:
        callback: What it returns is awaited, if it can be.
        timeout: Seconds that a coroutine function may take.
    """

    def __init__(self, callback: Callable[[Alert], object], *, timeout: float = 30.0) -> None:
        if not callable(callback):
            raise InvalidArgumentError(f"{callback!r} cannot be called.", remedy="Give a function.")
        if not 0.0 < timeout < float("inf"):
            raise InvalidArgumentError(f"timeout={timeout!r} must be finite, and more than 0 s.")
        self._callback = callback
        self._timeout = timeout

    async def send(self, alert: Alert) -> None:
        """Call it, and wait for it; for no longer than the timeout."""
        returned = self._callback(alert)
        if inspect.isawaitable(returned):
            async with asyncio.timeout(self._timeout):
                await _awaited(returned)


async def _awaited(returned: Awaitable[object]) -> None:
    await returned


class SinkQueue:
    """Brings alerts to one sink, in their order; must be made on a running loop.

    Args:
        sink: Where they go.
        limit: Alerts that may wait; beyond it the oldest makes room, and is counted.
    """

    def __init__(self, sink: AlertSink, limit: int) -> None:
        self._sink = sink
        self._limit = limit
        self._waiting: deque[Alert] = deque()
        self._wake = asyncio.Event()
        self._is_closing = False
        self._sending = False
        self.sent = 0
        self.failed = 0
        self.dropped: Counter[str] = Counter()
        self._task = asyncio.create_task(self._run(), name=f"alerts to {type(sink).__name__}")

    def __len__(self) -> int:
        return len(self._waiting) + self._sending

    def put(self, alert: Alert) -> None:
        """Queue an alert. Never waits."""
        if len(self._waiting) >= self._limit:
            lost = self._waiting.popleft()
            self.dropped[QUEUE_FULL] += 1
            _logger.warning("%s falls behind: the alert %s was dropped", self._name, lost.id)
        self._waiting.append(alert)
        self._wake.set()

    async def close(self, within: float) -> None:
        """Send what waits, for as long as is allowed; then drop the rest, and count it. Never raises.

        Args:
            within: Seconds. Ending a sink that hangs takes up to a second more.
        """
        self._is_closing = True
        self._wake.set()
        try:
            await asyncio.wait({self._task}, timeout=within)
        finally:
            self._task.cancel()
            left = len(self)
            if left:
                self.dropped[CLOSED] += left
                _logger.warning("%s: %d alerts were dropped, %s", self._name, left, CLOSED)
            self._waiting.clear()
        _, hanging = await asyncio.wait({self._task}, timeout=_CANCEL_TIMEOUT)
        if hanging:
            _logger.error("%s does not end although it was cancelled", self._name)

    @property
    def _name(self) -> str:
        return type(self._sink).__name__

    async def _run(self) -> None:
        while self._waiting or not self._is_closing:
            self._wake.clear()
            while self._waiting:
                alert = self._waiting.popleft()
                self._sending = True
                await self._send(alert)
                self._sending = False
            if not self._is_closing:
                await self._wake.wait()

    async def _send(self, alert: Alert) -> None:
        try:
            await self._sink.send(alert)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Something that the sink waited for was cancelled; the task was not.
            self._failed(alert, "what it waited for was cancelled")
        except RealtimeError as error:
            self._failed(alert, str(error))  # without its cause, which may hold an address
        except Exception:
            self.failed += 1
            _logger.exception("%s failed to send the alert %s", self._name, alert.id)
        else:
            self.sent += 1

    def _failed(self, alert: Alert, why: str) -> None:
        self.failed += 1
        _logger.error("%s failed to send the alert %s: %s", self._name, alert.id, why)
