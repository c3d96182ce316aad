"""The timeline of a report: the same figures, hour by hour or day by day."""

from collections.abc import Iterable
from math import ceil, floor
from typing import Final

from attrs import define, field, frozen

from realtime_fsm.monitoring.report_data import Level, Measurements
from realtime_fsm.monitoring.report_figures import DAY, Availability

HOUR: Final = 3600.0
MINUTE: Final = 60.0
_STEPS: Final = ((MINUTE, 2 * HOUR), (HOUR, 3 * DAY))
_MOST: Final = 400
"""Buckets that a timeline may have; records with absurd times must not make millions."""


@frozen(kw_only=True)
class Bucket:
    """What happened in one hour or day.

    Attributes:
        begin: Unix time.
        availability: Seconds by level; all zero where nothing is known.
        outages: That began in it.
        attempts: Dials that ended in it.
        failures: Those of them that failed.
    """

    begin: float
    availability: Availability
    outages: int
    attempts: int
    failures: int


@frozen(kw_only=True)
class Timeline:
    """What times a report is about, and how they are cut.

    Attributes:
        begin: Unix time of the first record.
        end: Of the last one.
        step: Seconds of a bucket: a minute for two hours, an hour for three days, otherwise one day or more.
    """

    begin: float
    end: float
    step: float

    @classmethod
    def over(cls, found: Measurements) -> "Timeline | None":
        """Find the times that records are about; ``None`` where there are none."""
        times = list(_times(found))
        if not times:
            return None
        begin, end = min(times), max(times)
        step = next((step for step, longest in _STEPS if end - begin <= longest), DAY)
        while (end - begin) / step > _MOST - 2:
            step *= 2
        return cls(begin=begin, end=end, step=step)

    @property
    def unit(self) -> str:
        """What a bucket is called."""
        names = {MINUTE: "minute", HOUR: "hour", DAY: "day"}
        return names.get(self.step) or f"{self.step / DAY:.0f} days"

    @property
    def begins(self) -> tuple[float, ...]:
        """When the buckets begin; the first one holds ``begin``, the last one ``end``."""
        first = floor(self.begin / self.step)
        last = max(first + 1, ceil(self.end / self.step))
        return tuple(number * self.step for number in range(first, last))

    def buckets(self, found: Measurements) -> tuple[Bucket, ...]:
        """Count what happened in each of them."""
        begins = self.begins
        cells = [_Cell() for _ in begins]
        last = len(begins) - 1

        def place(at: float) -> int:
            return min(last, max(0, floor((at - begins[0]) / self.step)))

        for span in found.spans:
            for number in range(place(span.begin), place(span.end) + 1):
                begin = begins[number]
                seconds = min(span.end, begin + self.step) - max(span.begin, begin)
                cells[number].seconds[span.level] += max(0.0, seconds)
        for outage in found.outages:
            if outage.began_at >= found.since:
                cells[place(outage.began_at)].outages += 1
        for attempt in found.attempts:
            cell = cells[place(attempt.at)]
            cell.attempts += 1
            cell.failures += attempt.cause is not None
        return tuple(cell.bucket(begin) for cell, begin in zip(cells, begins, strict=True))


@define
class _Cell:
    """A bucket that is being filled."""

    seconds: dict[Level, float] = field(factory=lambda: dict.fromkeys(Level, 0.0))
    outages: int = 0
    attempts: int = 0
    failures: int = 0

    def bucket(self, begin: float) -> Bucket:
        """Return it, filled."""
        return Bucket(
            begin=begin,
            availability=Availability(
                live=self.seconds[Level.LIVE],
                degraded=self.seconds[Level.DEGRADED],
                down=self.seconds[Level.DOWN],
            ),
            outages=self.outages,
            attempts=self.attempts,
            failures=self.failures,
        )


def _times(found: Measurements) -> Iterable[float]:
    for span in found.spans:
        yield span.begin
        yield span.end
    for attempt in found.attempts:
        yield attempt.at
    for outage in found.outages:
        yield max(outage.began_at, found.since)
    for sample in found.latencies:
        yield sample.at
