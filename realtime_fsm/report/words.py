"""Figures in words for people: never more digits than mean something, and never 100 % that is not."""

from collections.abc import Callable
from datetime import UTC, datetime
from math import ceil, floor, log10
from typing import Final

from realtime_fsm.machine import figures
from realtime_fsm.machine.figures import Form
from realtime_fsm.report.statistics import ROUNDING, Interval

NOTHING: Final = "-"
_MOST_DIGITS: Final = 6
_LEAST: Final = 1e-6
"""Share that is told from nothing, and how far from a whole."""


def percent(share: float | None) -> str:
    """Write a share: ``96.6 %``, ``99.982 %``; only a whole is 100 %, and only nothing is 0 %."""
    if share is None:
        return NOTHING
    rest = min(share, 1 - share)
    if rest <= ROUNDING:
        return f"{share * 100:.0f} %"
    if rest < _LEAST:
        return f"< {_LEAST * 100:.4f} %" if share < _LEAST else f"> {100 - _LEAST * 100:.4f} %"
    return f"{share * 100:.{max(1, ceil(-log10(rest)) - 1)}f} %"


def duration(seconds: float | None) -> str:
    """Write a duration: ``12 ms``, ``3.4 s``, ``5.6 min``, ``7.8 h``, ``9.0 d``."""
    return NOTHING if seconds is None else figures.duration(seconds, Form.TABLE)


def number(value: float | None) -> str:
    """Write a number with three digits that count."""
    if value is None:
        return NOTHING
    return f"{value:.3g}" if 0 < abs(value) < 100 else f"{value:.0f}"  # noqa: PLR2004 - three digits


def moment(at: float) -> str:
    """Write a time as ``2026-05-01 14:00``, UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")


def difference(value: float, interval: Interval, unit: str) -> str:
    """Write a difference and its interval, with as many digits as it takes to see what they say."""
    digits = _digits(interval)
    signed: Callable[[float], str] = lambda one: f"{_whole(one, digits):+.{digits}f}"  # noqa: E731
    return f"{signed(value)}{f' {unit}' if unit else ''} [{signed(interval.low)}, {signed(interval.high)}]"


def _digits(interval: Interval) -> int:
    """Two that count of the bound further from zero, and one of the other where the difference is certain."""
    far = max(abs(interval.low), abs(interval.high))
    if far < ROUNDING:
        return 1
    digits = 1 - floor(log10(far))
    if interval.excludes_zero:
        digits = max(digits, -floor(log10(min(abs(interval.low), abs(interval.high)))))
    return min(_MOST_DIGITS, max(0, digits))


def _whole(value: float, digits: int) -> float:
    """Return no minus zero."""
    return 0.0 if round(value, digits) == 0 else value
