"""Decides what alerts there are: pure, and so the same in every run.

``evaluate(state, sample, now)`` returns the next state and what is to be told. Everything that it looks back
on is in the state, and bounded; counters are compared with what they were when it began, so that nothing
that happened before is told.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

from attrs import evolve, frozen

from realtime_fsm.machine.figures import duration, quantile
from realtime_fsm.machine.table import Severity
from realtime_fsm.monitoring.alert_rules import MAX_ROUND_TRIPS, AlertRule, Measure

# What is known of a client at one time, and what people are told of it: frozen records.


@frozen(kw_only=True)
class Sample:
    """The state of a client at one time. Counters only ever rise.

    Attributes:
        at: Unix time.
        attempts: Attempts to connect that have ended, altogether.
        failed_attempts: Of them, the ones that failed.
        losses: Live connections that ended by themselves, altogether.
        dead_letters: Messages put among the dead letters, altogether.
        round_trips: Seconds of each heartbeat that was answered since the last sample.
        down_for: Seconds without the live connection that is wanted; ``None`` while nothing is missing.
        outbox_age: Seconds that the oldest message has waited; 0 where none waits.
        deaf: Whether it seems to be connected, and nothing gets through.
    """

    at: float = 0.0
    attempts: int = 0
    failed_attempts: int = 0
    losses: int = 0
    dead_letters: int = 0
    round_trips: tuple[float, ...] = ()
    down_for: float | None = None
    outbox_age: float = 0.0
    deaf: bool = False


class AlertState(StrEnum):
    """The two things that an alert can say of its rule."""

    FIRED = "fired"
    RESOLVED = "resolved"


@frozen(kw_only=True)
class Alert:
    """A message to people about a rule that holds, or does not any more. Holds no secret.

    Attributes:
        incident: What a rule that fired and its resolution have in common, and no others.
        rule: Name of the rule.
        state: Whether it holds from now on, or does not any more.
        severity: How much it should worry them.
        sentence: What is the matter; for a resolution, what was, and how long.
        remedy: What they can do.
        value: What was measured; ``None`` for a resolution where it is not known any more.
        threshold: Of the rule.
        began_at: When the value reached the threshold, Unix time.
        at: When this was decided, Unix time.
    """

    incident: str
    rule: str
    state: AlertState
    severity: Severity
    sentence: str
    remedy: str
    value: float | None
    threshold: float
    began_at: float
    at: float

    @property
    def id(self) -> str:
        """The name of this very message: the incident and the state. A repeat has the same."""
        return f"{self.incident}-{self.state.value}"

    def to_json(self) -> dict[str, Any]:
        """Return it as what ``json.dumps`` takes."""
        return {
            "id": self.id,
            "incident": self.incident,
            "rule": self.rule,
            "state": self.state.value,
            "severity": self.severity.value,
            "sentence": self.sentence,
            "remedy": self.remedy,
            "value": self.value,
            "threshold": self.threshold,
            "began_at": self.began_at,
            "at": self.at,
        }


@frozen(kw_only=True)
class AlertCounters:
    """Counts of alerts, by their fate.

    Attributes:
        samples: Times that the client was looked at.
        fired: Alerts that were to be sent, without resolutions.
        resolved: Resolutions that were to be sent.
        suppressed: Times that a rule held within its cool-down.
        sent: Alerts and resolutions that a sink took; each counts once for every sink.
        failed: Of them, the ones that a sink could not send.
        dropped: Of them, the ones that were never given to a sink, by reason.
        errors: Times that the client could not be looked at.
    """

    samples: int = 0
    fired: int = 0
    resolved: int = 0
    suppressed: int = 0
    sent: int = 0
    failed: int = 0
    dropped: Mapping[str, int]
    errors: int = 0


_MAX_POINTS: Final = 512
"""Steps into which a window is divided, at most: what it begins with is known to within one of them."""


@frozen(kw_only=True)
class Progress:
    """The way that one rule has come. Instants are on the clock of ``now``.

    Attributes:
        value: What was measured last; ``None`` where it is not known.
        since: When the value reached the threshold; ``None`` while the rule neither holds nor is about to.
        began_at: The same as Unix time.
        alert: The alert while the rule holds; whether it was sent is in ``is_told``.
        is_told: Whether ``alert`` was sent, so that its end is to be sent too.
        told_at: When the last alert was sent that was no resolution.
        incidents: Times that it held.
        suppressed: Of them, the ones that began within the cool-down.
    """

    value: float | None = None
    since: float | None = None
    began_at: float = 0.0
    alert: Alert | None = None
    is_told: bool = False
    told_at: float | None = None
    incidents: int = 0
    suppressed: int = 0


@frozen(kw_only=True)
class Past:
    """The samples and round trips that the window of one rule is counted over.

    Attributes:
        points: When samples were taken, and what they were, the oldest first; bounded by thinning them out.
        round_trips: When round trips became known, and what they were.
        span: Seconds of the window.
    """

    points: tuple[tuple[float, Sample], ...] = ()
    round_trips: tuple[tuple[float, float], ...] = ()
    span: float

    def grown(self, sample: Sample, now: float) -> "Past":
        """Return it with one sample more, and without what is too old to matter."""
        # The newest may be replaced while it is near to the one before: what a window begins with is then
        # known to within one step.
        points = list(self.points)
        if len(points) > 1 and now - points[-2][0] < self.span / _MAX_POINTS:
            points.pop()
        points.append((now, evolve(sample, round_trips=())))
        while len(points) > 1 and points[1][0] <= now - self.span:
            points.pop(0)  # the last one before the window stays: it is what the window begins with
        trips = [*self.round_trips, *((now, seconds) for seconds in sample.round_trips)]
        fresh = [trip for trip in trips[-MAX_ROUND_TRIPS:] if trip[0] > now - self.span]
        return evolve(self, points=tuple(points), round_trips=tuple(fresh))

    def at(self, instant: float) -> Sample:
        """Return the last sample up to an instant; the first one where that is later."""
        earlier = [sample for when, sample in self.points if when <= instant]
        return earlier[-1] if earlier else self.points[0][1]


@frozen(kw_only=True)
class Watch:
    """Everything that is known between two samples.

    Attributes:
        rules: What is watched for.
        source: Begins every ``incident``: two that watch at the same time need two.
        pasts: What the window of each rule is counted over, in their order.
        progress: How far each rule has come, in their order.
    """

    rules: tuple[AlertRule, ...]
    source: str
    pasts: tuple[Past, ...]
    progress: tuple[Progress, ...]

    @property
    def active(self) -> tuple[Alert, ...]:
        """The alerts of the rules that hold, whether they were sent or kept back by a cool-down."""
        return tuple(progress.alert for progress in self.progress if progress.alert is not None)


def begin(rules: tuple[AlertRule, ...], source: str) -> Watch:
    """Return the state before the first sample."""
    pasts = tuple(Past(span=rule.window) for rule in rules)
    return Watch(rules=rules, source=source, pasts=pasts, progress=(Progress(),) * len(rules))


def evaluate(state: Watch, sample: Sample, now: float) -> tuple[Watch, tuple[Alert, ...]]:
    """Take one sample into account.

    The first one is what the counters are compared with: alone it fires nothing that is counted.

    Args:
        state: What was returned the last time, or by ``begin``.
        sample: What is known now.
        now: On a clock that never goes back; it need not be the one of ``sample.at``.

    Returns:
        The next state, and the alerts that are to be sent, in the order of the rules.
    """
    pasts = tuple(past.grown(sample, now) for past in state.pasts)
    progress, told = [], []
    for rule, past, before in zip(state.rules, pasts, state.progress, strict=True):
        value = measured(rule, past, sample, now)
        after, alert = _step(rule, evolve(before, value=value), sample, now, state.source)
        progress.append(after)
        if alert is not None:
            told.append(alert)
    return evolve(state, pasts=pasts, progress=tuple(progress)), tuple(told)


def measured(rule: AlertRule, past: Past, sample: Sample, now: float) -> float | None:
    """Return the value of what a rule looks at; ``None`` where there are too few samples."""
    began = past.at(now - rule.window)
    match rule.measure:
        case Measure.FAILURE_RATE:
            attempts = sample.attempts - began.attempts
            failed = sample.failed_attempts - began.failed_attempts
            return failed / attempts if attempts >= rule.min_samples else None
        case Measure.OUTAGES:
            return float(sample.losses - began.losses)
        case Measure.TIME_TO_RECOVER:
            return sample.down_for or 0.0
        case Measure.LATENCY_P95:
            trips = sorted(seconds for _, seconds in past.round_trips)
            return quantile(trips, 0.95) if len(trips) >= rule.min_samples else None
        case Measure.OUTBOX_AGE:
            return sample.outbox_age
        case Measure.DEAD_LETTERS:
            return float(sample.dead_letters - began.dead_letters)
        case Measure.DEAFNESS:
            return float(sample.deaf)


def _step(
    rule: AlertRule, progress: Progress, sample: Sample, now: float, source: str
) -> tuple[Progress, Alert | None]:
    """Return how far a rule has come with its new value, and what is to be sent."""
    alert = progress.alert
    if alert is not None and _is_over(rule, progress.value, sample):
        return _resolved(progress, alert, sample)
    if alert is None:
        progress, alert = _risen(rule, progress, sample, now, source)
    if alert is None or progress.is_told:
        return progress, None
    if progress.told_at is not None and now - progress.told_at < rule.cool_down:
        return progress, None
    alert = evolve(alert, at=sample.at)
    return evolve(progress, alert=alert, is_told=True, told_at=now), alert


def _is_over(rule: AlertRule, value: float | None, sample: Sample) -> bool:
    """Tell whether a rule that holds does not any more; what is not known is no recovery while it is down."""
    return sample.down_for is None if value is None else value <= rule.clear_threshold


def _risen(
    rule: AlertRule, progress: Progress, sample: Sample, now: float, source: str
) -> tuple[Progress, Alert | None]:
    """Return how far a rule has come that did not hold, and its alert if it holds now."""
    value = progress.value
    if value is None or value < rule.threshold:
        return evolve(progress, since=None), None
    since = progress.since
    if since is None:
        since = now
        progress = evolve(progress, since=now, began_at=sample.at)
    if now - since < rule.hold:
        return progress, None
    number = progress.incidents + 1
    is_cooling = progress.told_at is not None and now - progress.told_at < rule.cool_down
    alert = Alert(
        incident=f"{source}-{rule.name}-{number}",
        rule=rule.name,
        state=AlertState.FIRED,
        severity=rule.severity,
        sentence=rule.words(value),
        remedy=rule.remedy,
        value=value,
        threshold=rule.threshold,
        began_at=progress.began_at,
        at=sample.at,
    )
    held = evolve(
        progress, alert=alert, is_told=False, incidents=number, suppressed=progress.suppressed + is_cooling
    )
    return held, alert


def _resolved(progress: Progress, alert: Alert, sample: Sample) -> tuple[Progress, Alert | None]:
    """Return a rule that holds no more; nobody is told of the end of what nobody was told of."""
    rested = evolve(progress, since=None, alert=None, is_told=False)
    if not progress.is_told:
        return rested, None
    lasted = duration(max(0.0, sample.at - alert.began_at))
    resolution = evolve(
        alert,
        state=AlertState.RESOLVED,
        sentence=f"Over after {lasted}: {alert.sentence}",
        remedy="",
        value=progress.value,
        at=sample.at,
    )
    return rested, resolution
