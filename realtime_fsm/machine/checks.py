"""Checked fields: a configuration says what each field takes, and tells at once all that is wrong. Pure.

A check is a function of the value. It returns ``None``, or the rule that is broken, with the remedy where
the rule does not name it, in words that follow ``name=value``: "must be a whole number, 1 or more". It is
declared with the field, so that a configuration reads as the list of what it takes. What a converter cannot
convert it leaves as it is, for the check to refuse: so the one error names all fields that are wrong.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, Final

from attrs import NOTHING, field, fields

from realtime_fsm.machine.errors import ConfigurationError

Check = Callable[[Any], str | None]

_CHECK: Final = "check"


def by(check: Check) -> Mapping[str, Check]:
    """Return the ``metadata`` of a field that is checked.

    For fields with a typed converter: only of a plain ``attrs.field(converter=...)`` do type checkers know
    what may be given.
    """
    return {_CHECK: check}


def checked(check: Check, **options: Any) -> Any:
    """Declare a field with a check; ``options`` are those of ``attrs.field``."""
    return field(metadata=by(check), **options)


def finite(*, zero: bool = False, most: float = math.inf, unit: str = "", may_be_none: bool = False) -> Check:
    """Return a check of a finite number, more than 0 (or 0 and more, where ``zero``).

    Args:
        zero: Whether 0 is allowed.
        most: The highest number that is.
        unit: Named by the rule, such as ``" of seconds"``.
        may_be_none: Whether ``None`` is allowed.
    """
    limits = ("0 or more" if zero else "more than 0") + ("" if most == math.inf else f", {most:g} at most")

    def check(value: object) -> str | None:
        if value is None and may_be_none:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return f"must be a number{unit}, such as 2.5"
        is_within = math.isfinite(value) and 0 <= value <= most and (value > 0 or zero)
        return None if is_within else f"must be a finite number{unit}, {limits}"

    return check


def counting(*, least: int = 1, most: int | None = None, may_be_none: bool = False) -> Check:
    """Return a check of an ``int`` within limits: of what counts something, or is in whole units."""
    limits = f"{least} or more" if most is None else f"from {least} to {most}"

    def check(value: object) -> str | None:
        if value is None and may_be_none:
            return None
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        is_within = is_whole and value >= least and (most is None or value <= most)  # type: ignore[operator]
        return None if is_within else f"must be a whole number, {limits}"

    return check


def number(default: Any = NOTHING, *, zero: bool = False, most: float = math.inf) -> Any:
    """Declare a field that holds a number; see ``finite``. A default of ``None`` lets it be ``None``."""
    return checked(finite(zero=zero, most=most, may_be_none=default is None), default=default)


def seconds(
    default: Any = NOTHING, *, zero: bool = False, most: float = math.inf, may_be_none: bool = False
) -> Any:
    """Declare a field that holds a time in seconds; otherwise as ``number``."""
    check = finite(zero=zero, most=most, unit=" of seconds", may_be_none=may_be_none or default is None)
    return checked(check, default=default)


def whole(default: int, *, least: int = 1, most: int | None = None, may_be_none: bool = False) -> Any:
    """Declare a field that holds a whole number; see ``counting``."""
    return checked(counting(least=least, most=most, may_be_none=may_be_none), default=default)


def flag(*, default: bool) -> Any:
    """Declare a field that is ``True`` or ``False``, and nothing that merely looks like it."""
    return checked(
        lambda value: None if isinstance(value, bool) else "must be true or false", default=default
    )


def string(rule: str, default: Any = NOTHING, *, allows: Callable[[str], object] = str.strip) -> Any:
    """Declare a field that holds a text which is not blank, or another one that ``allows`` finds good.

    A default of ``None`` lets the field be ``None``.
    """

    def check(value: object) -> str | None:
        if value is None and default is None:
            return None
        return None if isinstance(value, str) and allows(value) else rule

    return checked(check, default=default)


def member(kind: type[Enum], default: Any = NOTHING) -> Any:
    """Declare a field that holds a member of an enumeration; its value stands for it when it is given."""
    names = ", ".join(one.value for one in kind)

    def convert(given: object) -> object:
        return next((one for one in kind if given in (one, one.value)), given)

    return checked(
        lambda value: None if isinstance(value, kind) else f"must be one of {names}",
        default=default,
        converter=convert,
    )


def choice(default: str, choices: Sequence[str]) -> Any:
    """Declare a field that holds one of a few texts."""
    rule = f"must be one of {', '.join(choices)}"
    return checked(lambda value: None if value in choices else rule, default=default)


def subset(choices: Iterable[str], rule: str) -> Check:
    """Return a check of a tuple that holds some of a few texts, each of them once."""
    allowed = frozenset(choices)

    def check(value: tuple[str, ...]) -> str | None:
        is_sound = value and set(value) <= allowed and len(set(value)) == len(value)
        return None if is_sound else rule

    return check


def listed(given: str | Iterable[str]) -> tuple[str, ...]:
    """Return the parts of a text with commas; what comes in parts already, as a tuple."""
    return tuple(part.strip() for part in given.split(",")) if isinstance(given, str) else tuple(given)


class Problems:
    """All that is wrong with a configuration, told at once: first each field, then how the fields fit.

    How two fields fit says something only where both are sound by themselves.

    Args:
        record: The configuration, an attrs record.
        of: What the words begin with, where several records are told apart.
        shown: Returns what may be shown of a value; by default all of it.
        recalls: Whether the words recall the default of a field that is wrong.
    """

    def __init__(
        self,
        record: Any,
        *,
        of: str = "",
        shown: Callable[[str, object], object] = lambda _, value: value,
        recalls: bool = False,
    ) -> None:
        self._record = record
        self._of = of
        self._sound: set[str] = set()
        self.found: list[str] = []
        for attribute in fields(type(record)):
            name, value = attribute.name, getattr(record, attribute.name)
            check: Check | None = attribute.metadata.get(_CHECK)
            rule = None if check is None else check(value)
            if rule is None:
                self._sound.add(name)
            else:
                remedy = f": the default is {attribute.default!r}" if recalls else ""
                self.add(f"{name}={shown(name, value)!r} {rule}{remedy}")

    def add(self, *problems: str) -> None:
        """Note what else is wrong."""
        self.found += [self._of + problem for problem in problems]

    def are_sound(self, *names: str) -> bool:
        """Tell whether nothing is wrong with any of some fields."""
        return self._sound.issuperset(names)

    def order(self, lesser: str, greater: str, why: str) -> None:
        """Note it where one field is more than another one."""
        if self.are_sound(lesser, greater):
            low, high = getattr(self._record, lesser), getattr(self._record, greater)
            if low > high:
                self.add(f"{lesser}={low!r} must not be more than {greater}={high!r}: {why}")

    def refuse(self) -> None:
        """Raise what was found, if anything was.

        Raises:
            ConfigurationError: With every problem.
        """
        if self.found:
            raise ConfigurationError(*self.found)
