"""What is held against the new client: what happened here, or what many processes have recorded."""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

from realtime_fsm.adapters.sqlite_metrics_file import read
from realtime_fsm.migration.rollback_rule import LEGACY, NEW, Rate, RollbackRule, Verdict, judge, rates
from realtime_fsm.migration.rollout_client import Signal, SignalKind
from realtime_fsm.monitoring.report_data import Measurements

Evidence = Callable[[], tuple[Rate, Rate]]
"""Returns how often the new one failed, and the old one. It is called in a thread, and may take its time."""

EVIDENCE_INTERVAL = 30.0
"""Seconds between two looks at evidence that comes from elsewhere."""


def database_evidence(path: str | os.PathLike[str], *, window: float) -> Evidence:
    """Return evidence from a metrics database that many processes share: old clients and new ones.

    Args:
        path: Of the database.
        window: Seconds for which a record counts.
    """

    def look() -> tuple[Rate, Rate]:
        since = time.time() - window
        return rates(Measurements.from_rows(read(Path(path), since=since), since=since), since=since)

    return look


class Guard:
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

    async def verdict(self) -> Verdict | None:
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
