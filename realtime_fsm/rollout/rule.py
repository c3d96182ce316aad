"""The automatic rollback: a rule that says when the new implementation fails more often than the old one."""

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from attrs import frozen

from realtime_fsm.adapters.metrics_file import read
from realtime_fsm.machine.checks import Problems, checked, number, seconds, whole
from realtime_fsm.monitoring.records import Measurements
from realtime_fsm.rollout.client import Signal, SignalKind

LEGACY: Final = "legacy"
NEW: Final = "new"

_HOUR: Final = 3600.0
_MOST_SAMPLES: Final = 10_000


@frozen
class Trial:
    """One thing that went well or did not: the end of a dial, or the loss of a connection.

    Attributes:
        at: When, in seconds; of the same clock for all samples.
        failed: Whether it was a failure.
    """

    at: float
    failed: bool


@frozen
class FailureRate:
    """The rate at which an implementation failed.

    Attributes:
        samples: What was counted.
        failures: How many of it were failures.
    """

    samples: int
    failures: int

    @property
    def value(self) -> float:
        """The share of failures; 0 where nothing was counted."""
        return self.failures / self.samples if self.samples else 0.0

    def __str__(self) -> str:
        return f"{self.value:.0%} ({self.failures} of {self.samples})"


@frozen(kw_only=True)
class Ruling:
    """The answer of the rule: to roll back, or not, and why.

    Attributes:
        roll_back: Whether the new one is to be rolled back.
        reason: Why, or why not yet, in words for people.
        new: How often the new one failed.
        legacy: How often the old one did.
    """

    roll_back: bool
    reason: str
    new: FailureRate
    legacy: FailureRate


def _below_one(value: object) -> str | None:
    is_share = isinstance(value, (int, float)) and not isinstance(value, bool) and 0.0 <= value < 1.0
    return None if is_share else "must be from 0 up to 1"


@frozen(kw_only=True)
class RollbackLimits:
    """The limits beyond which the new one counts as worse.

    Attributes:
        threshold: By how much its failure rate must exceed the old one's: 0.1 is ten points of percent.
        min_samples: So many samples of each are needed.
        window: Seconds for which a sample counts.
        baseline: Failure rate that is held against the new one where there are too few samples of the old
            one; ``None`` rolls nothing back then.
    """

    threshold: float = checked(_below_one, default=0.1)
    min_samples: int = whole(20)
    window: float = seconds(_HOUR)
    baseline: float | None = number(None, zero=True, most=1.0)

    def __attrs_post_init__(self) -> None:
        Problems(self, recalls=True).refuse()


class RollbackRule:
    """Counts failures of both, and says when it is enough.

    It only says so: that a rollback then holds until a person releases it, whatever is counted meanwhile, is
    the rollout's part.

    Args:
        limits: When the new one counts as worse.
    """

    def __init__(self, limits: RollbackLimits | None = None) -> None:
        self.limits = RollbackLimits() if limits is None else limits
        self._samples: dict[str, deque[Trial]] = {}

    def add(self, implementation: str, *, failed: bool, at: float) -> None:
        """Count something; of each implementation in the order of time. The memory is bounded."""
        self._samples.setdefault(implementation, deque(maxlen=_MOST_SAMPLES)).append(Trial(at, failed))

    def forget(self) -> None:
        """Count anew: what was counted before a person released a rollback is not held against it twice."""
        self._samples.clear()

    def rate(self, implementation: str, now: float) -> FailureRate:
        """Return how often an implementation failed within the window."""
        samples = self._samples.get(implementation, deque())
        while samples and samples[0].at < now - self.limits.window:
            samples.popleft()
        return rate_of(samples)

    def decide(self, now: float) -> Ruling:
        """Say whether the new one is to be rolled back, by what was counted within the window."""
        return judge(self.limits, new=self.rate(NEW, now), legacy=self.rate(LEGACY, now))


def rate_of(samples: Iterable[Trial]) -> FailureRate:
    """Return how many of the samples there are, and how many of them failed."""
    failed = [sample.failed for sample in samples]
    return FailureRate(len(failed), sum(failed))


def judge(limits: RollbackLimits, *, new: FailureRate, legacy: FailureRate) -> Ruling:
    """Say whether the new one is to be rolled back.

    Args:
        limits: When it counts as worse.
        new: How often it failed.
        legacy: How often the old one did.
    """

    def verdict(reason: str, *, roll_back: bool = False) -> Ruling:
        return Ruling(roll_back=roll_back, reason=reason, new=new, legacy=legacy)

    if new.samples < limits.min_samples:
        return verdict(f"too few samples of the new one: {new.samples} of {limits.min_samples}")
    compared, told = legacy.value, f"the old one fails at {legacy}"
    if legacy.samples < limits.min_samples:
        if limits.baseline is None:
            return verdict(f"too few samples of the old one: {legacy.samples} of {limits.min_samples}")
        compared, told = limits.baseline, f"the baseline is {limits.baseline:.0%}"
    if new.value - compared > limits.threshold:
        reason = f"the new one fails at {new}, {told}; the threshold is {limits.threshold:.0%} more"
        return verdict(reason, roll_back=True)
    return verdict(f"the new one fails at {new}, {told}")


def rates(measured: Measurements, *, since: float) -> tuple[FailureRate, FailureRate]:
    """Return how often the new and the old one failed, from a metrics database of many processes.

    Args:
        measured: What was read from it. A dial is a sample, and each outage is one that failed.
        since: Unix time from which on it counts.

    Returns:
        The new one's, the old one's.
    """

    def rate(implementation: str) -> FailureRate:
        mine = measured.of(implementation)
        dials = [Trial(one.at, one.cause is not None) for one in mine.attempts if one.at >= since]
        losses = [Trial(one.began_at, failed=True) for one in mine.outages if one.began_at >= since]
        return rate_of([*dials, *losses])

    return rate(NEW), rate(LEGACY)


# What is held against the new client: what happened here, or what many processes have recorded.

Evidence = Callable[[], tuple[FailureRate, FailureRate]]
"""Returns how often the new one failed, and the old one. It is called in a thread, and may take its time."""

EVIDENCE_INTERVAL = 30.0
"""Seconds between two looks at evidence that comes from elsewhere."""


def database_evidence(path: str | os.PathLike[str], *, window: float) -> Evidence:
    """Return evidence from a metrics database that many processes share: old clients and new ones.

    Args:
        path: Of the database.
        window: Seconds for which a record counts.
    """

    def look() -> tuple[FailureRate, FailureRate]:
        since = time.time() - window
        return rates(Measurements.from_rows(read(Path(path), since=since), since=since), since=since)

    return look


class RollbackGuard:
    """Asks the rule, with evidence of this process or from elsewhere.

    Args:
        rule: The rule; ``None`` asks nothing.
        evidence: From elsewhere; ``None`` for what this process has seen.
    """

    def __init__(self, rule: RollbackRule | None, evidence: Evidence | None) -> None:
        self._rule = rule
        self._evidence = evidence
        self._looked_at = -EVIDENCE_INTERVAL

    def watch(self, implementation: str) -> Callable[[Signal], None]:
        """Return what counts the signals of a client."""

        def heard(signal: Signal) -> None:
            if self._rule is not None and signal.kind is not SignalKind.GAVE_UP:
                now = asyncio.get_running_loop().time()
                self._rule.add(implementation, failed=signal.kind is not SignalKind.LIVE, at=now)

        return heard

    def forget(self) -> None:
        """Count anew, after a person has decided."""
        if self._rule is not None:
            self._rule.forget()

    def rates(self) -> dict[str, str]:
        """Return how often each failed within the window, for people, as this process has seen it."""
        if self._rule is None:
            return {}
        now = asyncio.get_running_loop().time()
        return {name: str(self._rule.rate(name, now)) for name in (NEW, LEGACY)}

    async def verdict(self) -> Ruling | None:
        """Return what the rule says; ``None`` where it is not asked now.

        Raises:
            MetricsStorageError: If the evidence cannot be read.
        """
        if self._rule is None:
            return None
        now = asyncio.get_running_loop().time()
        if self._evidence is None:
            return self._rule.decide(now)
        if now - self._looked_at < EVIDENCE_INTERVAL:
            return None
        self._looked_at = now
        new, legacy = await asyncio.to_thread(self._evidence)
        return judge(self._rule.limits, new=new, legacy=legacy)
