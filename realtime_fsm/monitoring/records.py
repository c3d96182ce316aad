"""The records of runs that a report is made from, in the terms of this package."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Any, Protocol, Self

from attrs import frozen


class Level(StrEnum):
    """The levels of service that availability is counted in."""

    LIVE = "live"
    """The socket is up."""
    DEGRADED = "degraded"
    """The socket is down, and data comes by polling."""
    DOWN = "down"
    """Nothing comes, although somebody wants it."""
    OFF = "off"
    """Nobody wants it: disconnected on purpose."""


@frozen(kw_only=True)
class Run:
    """One client from its start to its end.

    Attributes:
        number: Its number in the file.
        implementation: ``legacy`` or ``new``, or what else is compared.
        version: Of the software.
        instance: Which of several.
        began_at: Unix time.
        seen_at: When it last wrote anything: the end of what is known about it.
    """

    number: int
    implementation: str
    version: str
    instance: str
    began_at: float
    seen_at: float


@frozen(kw_only=True)
class LevelSpan:
    """A time during which the level of a run was the same."""

    run: int
    begin: float
    end: float
    level: Level


@frozen(kw_only=True)
class Attempt:
    """One dial; ``cause`` is ``None`` where it succeeded."""

    run: int
    at: float
    duration: float
    cause: str | None


@frozen(kw_only=True)
class OutageRecord:
    """A time without a live socket; ``ended_at`` is ``None`` where it has not ended, as far as is known."""

    run: int
    began_at: float
    ended_at: float | None
    cause: str
    recovered: bool


@frozen(kw_only=True)
class LatencySample:
    """One round trip, seconds."""

    run: int
    at: float
    seconds: float


class _Rows(Protocol):
    """The rows that are read from the file; see ``MetricsRows``."""

    @property
    def runs(self) -> Iterable[tuple[Any, ...]]: ...
    @property
    def changes(self) -> Iterable[tuple[Any, ...]]: ...
    @property
    def attempts(self) -> Iterable[tuple[Any, ...]]: ...
    @property
    def outages(self) -> Iterable[tuple[Any, ...]]: ...
    @property
    def latencies(self) -> Iterable[tuple[Any, ...]]: ...


@frozen(kw_only=True)
class Measurements:
    """Everything that a report is about.

    Attributes:
        since: Unix time from which on records count.
        runs: The runs.
        spans: What their levels were, from ``since`` on. A run that ended without saying so is known until
            it was last seen, and not longer.
        attempts: Dials.
        outages: Outages that had not ended by ``since``.
        latencies: Round trips.
    """

    since: float
    runs: tuple[Run, ...]
    spans: tuple[LevelSpan, ...]
    attempts: tuple[Attempt, ...]
    outages: tuple[OutageRecord, ...]
    latencies: tuple[LatencySample, ...]

    @classmethod
    def from_rows(cls, rows: _Rows, *, since: float) -> Self:
        """Make it from what was read from a file.

        Args:
            rows: The rows, the oldest of each kind first.
            since: Unix time from which on records count.
        """
        fields = ("number", "implementation", "version", "instance", "began_at", "seen_at")
        runs = tuple(Run(**dict(zip(fields, row, strict=True))) for row in rows.runs)
        known = {run.number for run in runs}
        return cls(
            since=since,
            runs=runs,
            spans=_spans(runs, rows.changes, since),
            attempts=tuple(
                Attempt(run=run, at=at, duration=duration, cause=cause)
                for run, at, duration, cause in rows.attempts
                if run in known
            ),
            outages=tuple(
                OutageRecord(run=run, began_at=at, ended_at=ended, cause=cause, recovered=bool(recovered))
                for run, at, ended, cause, recovered in rows.outages
                if run in known
            ),
            latencies=tuple(
                LatencySample(run=run, at=at, seconds=seconds)
                for run, at, seconds in rows.latencies
                if run in known
            ),
        )

    def of(self, implementation: str) -> "Measurements":
        """Return what belongs to the runs of one implementation."""
        return self._of(tuple(run for run in self.runs if run.implementation == implementation))

    def of_version(self, version: str) -> "Measurements":
        """Return what belongs to the runs of one version."""
        return self._of(tuple(run for run in self.runs if run.version == version))

    def _of(self, runs: tuple[Run, ...]) -> "Measurements":
        mine = {run.number for run in runs}
        return Measurements(
            since=self.since,
            runs=runs,
            spans=tuple(one for one in self.spans if one.run in mine),
            attempts=tuple(one for one in self.attempts if one.run in mine),
            outages=tuple(one for one in self.outages if one.run in mine),
            latencies=tuple(one for one in self.latencies if one.run in mine),
        )

    @property
    def implementations(self) -> tuple[str, ...]:
        """The implementations that there are runs of, in the order of their names."""
        return tuple(sorted({run.implementation for run in self.runs}))


def _spans(runs: Iterable[Run], changes: Iterable[tuple[Any, ...]], since: float) -> tuple[LevelSpan, ...]:
    """Turn changes into times between changes."""
    by_run: dict[int, list[tuple[float, Level]]] = {run.number: [] for run in runs}
    for number, at, level, _ in changes:
        if number in by_run:
            by_run[number].append((at, Level(level)))
    spans = []
    for run in runs:
        told = by_run[run.number]
        ends = [*(at for at, _ in told[1:]), run.seen_at]
        for (begin, level), end in zip(told, ends, strict=False):  # without a change, nothing is known
            if max(begin, since) < end:
                spans.append(LevelSpan(run=run.number, begin=max(begin, since), end=end, level=level))
    return tuple(spans)
