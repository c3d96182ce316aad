"""What is known of a client at one time, and what people are told of it: frozen records."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from attrs import frozen

from realtime_fsm.machine.table import Severity


@frozen(kw_only=True)
class Sample:
    """What is known of a client at one time. Counters only ever rise.

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
    """What an alert says of its rule."""

    FIRED = "fired"
    RESOLVED = "resolved"


@frozen(kw_only=True)
class Alert:
    """What people are told. Holds no secret.

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
        """What names this very message: the incident and the state. Whoever repeats it, repeats its id."""
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
    """What became of alerts so far.

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
