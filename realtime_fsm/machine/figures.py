"""Figures for people: quantiles, and durations in words. Pure."""

import math
from collections.abc import Mapping, Sequence
from enum import Enum
from types import MappingProxyType
from typing import Final


def quantile(ordered: Sequence[float], share: float) -> float | None:
    """Return the smallest value that such a share of all does not exceed; ``None`` where there is none.

    Args:
        ordered: Values, the least first.
        share: More than 0, up to 1; 0.95 for the 95th percentile.
    """
    if not ordered:
        return None
    return ordered[math.ceil(round(share * len(ordered), 9)) - 1]  # 0.07 * 100 is a little more than 7


class Form(Enum):
    """The ways to write a duration: they differ in the digits, and in when the next unit begins."""

    SENTENCE = "sentence"
    """In running text: ``250 ms``, ``45 s``, ``10 min``, ``1.5 h``."""
    TABLE = "table"
    """Below one another, with as many digits: ``12 ms``, ``3.4 s``, ``10.0 min``, ``7.8 h``, ``9.0 d``."""
    SHORT = "short"
    """Where there is little room: ``0.4s``, ``12s``, ``3m 20s``, ``2h 5m``."""


_FACTORS: Final = MappingProxyType({"ms": 1000.0, "s": 1.0, "min": 1 / 60, "h": 1 / 3600, "d": 1 / 86_400})

_BELOW: Final[Mapping[Form, tuple[tuple[float, str], ...]]] = MappingProxyType(
    {
        Form.SENTENCE: ((1.0, "ms"), (120.0, "s"), (7200.0, "min"), (math.inf, "h")),
        Form.TABLE: ((1.0, "ms"), (100.0, "s"), (6000.0, "min"), (360_000.0, "h"), (math.inf, "d")),
    }
)
"""Seconds below which each unit is used."""


def duration(seconds: float, form: Form = Form.SENTENCE) -> str:
    """Return a duration in words, in the unit that suits it.

    Args:
        seconds: 0 or more.
        form: How it is written.
    """
    if form is Form.SHORT:
        return _short(seconds)
    factor, unit = scale_of(seconds, form)
    value = seconds * factor
    if form is Form.TABLE:
        return f"{value:.{0 if unit == 'ms' and value >= 10 else 1}f} {unit}"  # noqa: PLR2004 - two digits
    if unit == "ms":
        return f"{value:.0f} ms" if value else "0 s"
    return f"{value:.3g} s" if unit == "s" else f"{round(value, 1):g} {unit}"


def scale_of(seconds: float, form: Form = Form.TABLE) -> tuple[float, str]:
    """Return by what seconds are multiplied to be read easily, and the unit that this makes."""
    units = _BELOW[form]
    unit = next((unit for below, unit in units if abs(seconds) < below), units[-1][1])
    return _FACTORS[unit], unit


def _short(seconds: float) -> str:
    if seconds < 9.95:  # noqa: PLR2004 - the last one that reads 9.9
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest}s"
    hours, minutes = divmod(minutes, 60)
    if hours == 0:
        return f"{minutes}m {rest}s" if rest else f"{minutes}m"
    return f"{hours}h {minutes}m" if minutes else f"{hours}h"
