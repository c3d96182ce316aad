"""The rules that a sensible operator would begin with, each with its reason."""

from typing import Final

from realtime_fsm.machine.table import Severity
from realtime_fsm.monitoring.alert_rules import AlertRule, Measure

_MINUTE: Final = 60.0

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
