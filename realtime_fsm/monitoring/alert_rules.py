"""Rules of alerts: what is measured, from when it is alarming, and what people are told.

A rule *holds* from when its value reaches ``threshold`` until it is at ``clear_threshold`` or below: between
the two nothing changes, so that a value that trembles around a limit does not ring twice. Pure.
"""

import math
import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from string import Formatter
from typing import Any, Final

from attrs import NOTHING, fields, frozen

from realtime_fsm.machine.checks import Problems, checked, member, number, seconds, string, whole
from realtime_fsm.machine.errors import ConfigurationError
from realtime_fsm.machine.figures import duration
from realtime_fsm.machine.table import Severity

MAX_WINDOW: Final = 24 * 3600.0
"""Seconds that a rule may look back: what it looks back on is kept in memory."""

MAX_ROUND_TRIPS: Final = 512
"""Round trips that are kept for percentiles; no rule may want more."""

_MINUTE: Final = 60.0
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")


class Measure(StrEnum):
    """The measures that a rule can look at."""

    FAILURE_RATE = "failure_rate"
    """Failed attempts to connect, as a share of all that ended within the window: 0 to 1."""
    OUTAGES = "outages"
    """Live connections that ended by themselves within the window."""
    TIME_TO_RECOVER = "time_to_recover"
    """Seconds for which a connection has been wanted and not had; 0 while there is one, or none is wanted."""
    LATENCY_P95 = "latency_p95"
    """95th percentile of the round trips of heartbeats within the window, seconds."""
    OUTBOX_AGE = "outbox_age"
    """Seconds since the oldest message in the outbox was accepted; 0 where it is empty."""
    DEAD_LETTERS = "dead_letters"
    """Messages put among the dead letters within the window."""
    DEAFNESS = "deafness"
    """1 while the state says that data flows and it does not (``health().deaf``), otherwise 0."""


WINDOWED: Final = frozenset(
    {Measure.FAILURE_RATE, Measure.OUTAGES, Measure.LATENCY_P95, Measure.DEAD_LETTERS}
)
"""What is counted over a window; the others are as they are now."""

SAMPLED: Final = frozenset({Measure.FAILURE_RATE, Measure.LATENCY_P95})
"""What says nothing where there are too few samples."""

_SECONDS: Final = frozenset({Measure.TIME_TO_RECOVER, Measure.LATENCY_P95, Measure.OUTBOX_AGE})

_PLACES: Final = ("value", "threshold", "window")
_SENTENCE: Final = "must be a sentence for people"


def _template(value: object) -> str | None:
    if not isinstance(value, str) or not value.strip():
        return _SENTENCE
    try:
        places = [(place, spec, conversion) for _, place, spec, conversion in Formatter().parse(value)]
    except ValueError as error:
        return f"cannot be filled in: {error}"
    if any(place is not None and (place not in _PLACES or spec or kind) for place, spec, kind in places):
        return "may hold only " + ", ".join(f"{{{place}}}" for place in _PLACES)
    return None


@frozen(kw_only=True)
class AlertRule:
    """A rule: from when on people are to be told of something, and in which words.

    Attributes:
        name: What it is known by: small letters, digits and ``_``; unique among the rules of an ``Alerts``.
        measure: What it looks at; a ``Measure`` or its value.
        threshold: At this value, or above it, the rule begins to hold.
        clear_threshold: At this value, or below it, it stops; less than ``threshold``.
        window: Seconds over which is counted; ``> 0`` for what is counted over a window, 0 for what is not.
        min_samples: Attempts, or round trips, without which the value is not known.
        hold: Seconds that the value must stay at ``threshold`` or above before anybody is told.
        cool_down: Seconds after an alert within which the same rule sends no further one. One that holds
            again, and still does at their end, is sent then.
        severity: How much it should worry people; a ``Severity`` or its value.
        sentence: What they are told; ``{value}``, ``{threshold}`` and ``{window}`` are filled in.
        remedy: What they can do.

    Raises:
        ConfigurationError: With everything that is wrong with it.
    """

    name: str = string(
        "must be up to 64 small letters, digits and _, and begin with a letter", allows=_NAME.fullmatch
    )
    measure: Measure = member(Measure)
    threshold: float = number(zero=True)
    clear_threshold: float = number(zero=True)
    window: float = seconds(0.0, zero=True)
    min_samples: int = whole(1, most=MAX_ROUND_TRIPS)
    hold: float = seconds(0.0, zero=True)
    cool_down: float = seconds(600.0, zero=True)
    severity: Severity = member(Severity, Severity.WARNING)
    sentence: str = checked(_template)
    remedy: str = string(_SENTENCE)

    def __attrs_post_init__(self) -> None:
        problems = Problems(self, of=f"rule {self.name!r}: ")
        if problems.are_sound("threshold", "clear_threshold") and self.clear_threshold >= self.threshold:
            problems.add(
                f"clear_threshold={self.clear_threshold!r} must be less than "
                f"threshold={self.threshold!r}, or it would fire and resolve at once"
            )
        if problems.are_sound("measure"):
            problems.add(*self._misfits(problems))
        problems.refuse()

    def words(self, value: float) -> str:
        """Return the sentence, filled in."""
        return self.sentence.format(
            value=self.shown(value), threshold=self.shown(self.threshold), window=duration(self.window)
        )

    def shown(self, value: float) -> str:
        """Return a value of the measure, for people."""
        if self.measure is Measure.FAILURE_RATE:
            return f"{value:.0%}"
        return duration(value) if self.measure in _SECONDS else f"{value:g}"

    def _misfits(self, problems: Problems) -> Iterable[str]:
        """Yield what does not fit the measure."""
        measure = self.measure
        highest = {Measure.FAILURE_RATE: 1.0, Measure.DEAFNESS: 1.0}.get(measure, math.inf)
        if problems.are_sound("window") and measure in WINDOWED and not 0.0 < self.window <= MAX_WINDOW:
            yield f"window={self.window!r} must be more than 0 and at most {MAX_WINDOW:g} s"
        if problems.are_sound("window") and measure not in WINDOWED and self.window:
            yield f"window={self.window!r} must be 0: {measure.value} is not counted over one"
        if problems.are_sound("min_samples") and measure not in SAMPLED and self.min_samples != 1:
            yield f"min_samples={self.min_samples!r} must be 1: {measure.value} has no samples"
        if problems.are_sound("threshold") and self.threshold > highest:
            yield f"threshold={self.threshold!r} must be at most {highest:g}, or it never fires"


def check_rules(rules: Iterable[AlertRule]) -> tuple[AlertRule, ...]:
    """Return the rules, having checked that they can be told apart.

    Raises:
        ConfigurationError: With everything that is no rule, and every name that is given twice.
    """
    given = tuple(rules)
    problems = [f"{rule!r} is no AlertRule" for rule in given if not isinstance(rule, AlertRule)]
    names = [rule.name for rule in given if isinstance(rule, AlertRule)]
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    problems += [f"rule {name!r}: its name is given to {names.count(name)} rules" for name in twice]
    if not given:
        problems.append("there is no rule: give DEFAULT_RULES, say")
    if problems:
        raise ConfigurationError(*problems)
    return given


def read_rules(given: Iterable[Mapping[str, Any]]) -> tuple[AlertRule, ...]:
    """Make rules of what a configuration file holds: one mapping for each, by the names of the fields.

    Raises:
        ConfigurationError: With everything that is wrong with any of them.
    """
    rules: list[AlertRule] = []
    problems: list[str] = []
    known = {attribute.name for attribute in fields(AlertRule)}
    required = {attribute.name for attribute in fields(AlertRule) if attribute.default is NOTHING}
    for position, one in enumerate(given, start=1):
        if not isinstance(one, Mapping):
            problems.append(f"rule {position}: {one!r} is no mapping of fields to values")
            continue
        of = f"rule {one.get('name', position)!r}: "
        unfit = [f"{of}{name} is no field of a rule" for name in one if name not in known]
        unfit += [f"{of}{name} is missing" for name in sorted(required - set(one))]
        problems += unfit
        if not unfit:
            try:
                rules.append(AlertRule(**one))
            except ConfigurationError as error:
                problems += error.problems
    if problems:
        raise ConfigurationError(*problems)
    return check_rules(rules)


# The rules that a sensible operator would begin with, each with its reason.

DEFAULT_RULES: Final[tuple[AlertRule, ...]] = (
    # Half of the attempts fail: not a bad moment but a bad server, or a bad path to it. With the default
    # backoff a restart of half a minute makes 5 failed attempts and one that succeeds, so 8 are asked for: a
    # deployment is silent, and a server that stays away is told of after a minute and a half.
    AlertRule(
        name="failure_rate",
        measure=Measure.FAILURE_RATE,
        threshold=0.5,
        clear_threshold=0.2,
        window=10 * _MINUTE,
        min_samples=8,
        severity=Severity.ERROR,
        sentence="{value} of the attempts to connect within {window} failed.",
        remedy="See `failures_by_cause` for why, and run `realtime-fsm doctor` against the server.",
    ),
    # Each is short, and hidden from users; together they are a flapping path, a proxy that cuts idle
    # connections, or a server that restarts in a loop. One deployment is one outage, so 3 are no deployment.
    AlertRule(
        name="outages",
        measure=Measure.OUTAGES,
        threshold=3,
        clear_threshold=1,
        window=15 * _MINUTE,
        cool_down=15 * _MINUTE,
        severity=Severity.WARNING,
        sentence="The connection was lost {value} times within {window}.",
        remedy="Look for a proxy that cuts idle connections, a restarting server, or a bad network.",
    ),
    # Two minutes are longer than a deployment, a failover and the first seven attempts: somebody must look.
    # Where polling carries the data this is an outage all the same, because it is slower and costs more.
    AlertRule(
        name="time_to_recover",
        measure=Measure.TIME_TO_RECOVER,
        threshold=2 * _MINUTE,
        clear_threshold=0.0,
        severity=Severity.ERROR,
        sentence="There has been no live connection for {value}.",
        remedy="Run `realtime-fsm doctor` against the server; `retry_now()` once it is mended.",
    ),
    # Above a second people feel that nothing is live any more. Ten round trips, and a minute, because one
    # that was slow proves nothing: at the default heartbeat a window holds about 24.
    AlertRule(
        name="latency",
        measure=Measure.LATENCY_P95,
        threshold=1.0,
        clear_threshold=0.5,
        window=10 * _MINUTE,
        min_samples=10,
        hold=1 * _MINUTE,
        severity=Severity.WARNING,
        sentence="One heartbeat in twenty takes {value} or more to be answered.",
        remedy="Look at the load of the server and at the network between.",
    ),
    # A message that is five minutes old is late by anybody's measure, and whoever sent it believes that it is
    # on its way. The half minute spares a start with a durable outbox that is emptied at once.
    AlertRule(
        name="outbox_age",
        measure=Measure.OUTBOX_AGE,
        threshold=5 * _MINUTE,
        clear_threshold=1 * _MINUTE,
        hold=30.0,
        severity=Severity.WARNING,
        sentence="A message has been waiting in the outbox for {value}.",
        remedy="Restore the connection; where it is live, the server takes messages too slowly.",
    ),
    # A dead letter is a message that was promised to be delivered, and will not be unless somebody acts: one
    # is enough. An hour, so that a burst of them is one alert.
    AlertRule(
        name="dead_letters",
        measure=Measure.DEAD_LETTERS,
        threshold=1,
        clear_threshold=0,
        window=60 * _MINUTE,
        cool_down=60 * _MINUTE,
        severity=Severity.ERROR,
        sentence="Messages given up and put among the dead letters within {window}: {value}.",
        remedy="See `realtime-fsm outbox list`; mend the cause, then `outbox.retry()` or `outbox.drop()`.",
    ),
    # The worst of all, because every light is green. Health has been patient already; half a minute more, so
    # that one poll that failed is told to nobody.
    AlertRule(
        name="deafness",
        measure=Measure.DEAFNESS,
        threshold=1,
        clear_threshold=0,
        hold=30.0,
        severity=Severity.ERROR,
        sentence="The connection looks live, but nothing gets through.",
        remedy="`health().reasons` says who does not listen: a handler that hangs, or the server.",
    ),
)
"""What an ``Alerts`` watches for unless told otherwise."""
