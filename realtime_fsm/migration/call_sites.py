"""Warns of an old name once per place in the code that uses it, and says what stands for it."""

import sys
import warnings
from typing import Final

_MOST: Final = 10_000
"""Places that are remembered: programs that write themselves anew have no end of them."""

_seen: set[tuple[str, int, str]] = set()


def warn_once(name: str, replacement: str, *, depth: int = 2) -> None:
    """Warn that a name is deprecated, where this is the first call from its line.

    It does not lean on Python's own registry, which forgets whenever a filter changes.

    Args:
        name: What was used.
        replacement: What to use instead.
        depth: Which caller is meant: 1 is who calls this function.
    """
    frame = sys._getframe(depth)  # noqa: SLF001 - the only way to the caller's line
    place = (frame.f_code.co_filename, frame.f_lineno, name)
    if place in _seen or len(_seen) >= _MOST:
        return
    _seen.add(place)
    warnings.warn_explicit(
        f"{name} is deprecated; use {replacement}",
        DeprecationWarning,
        filename=frame.f_code.co_filename,
        lineno=frame.f_lineno,
        module=frame.f_globals.get("__name__", "<unknown>"),
    )
