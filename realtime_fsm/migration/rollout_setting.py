"""Which implementation is to run: what can be set, where it can be set, and who has the last word. Pure."""

import hashlib
import json
import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, Self

from attrs import field, frozen

from realtime_fsm.machine.errors import ConfigurationError

IMPLEMENTATION_VARIABLE: Final = "REALTIME_IMPLEMENTATION"
PERCENT_VARIABLE: Final = "REALTIME_ROLLOUT_PERCENT"

_MOST: Final = 100.0
_BUCKETS: Final = 2**64
_FILE_FIELDS: Final = ("implementation", "percent")


class Implementation(StrEnum):
    """What can be asked for."""

    LEGACY = "legacy"
    """The old client."""
    SHADOW = "shadow"
    """The old client; the new one runs beside it, and is only measured and compared."""
    PERCENT = "percent"
    """The new client for a part of the client ids, the old one for the others."""
    NEW = "new"
    """The new client."""


class Source(StrEnum):
    """Who says which implementation runs, the last word first."""

    OVERRIDE = "override"
    """A person, at run time."""
    ROLLBACK = "rollback"
    """The rollout itself: the new one fails. It holds until a person releases it."""
    FILE = "file"
    ENVIRONMENT = "environment"
    CONFIG = "config"


@frozen
class Setting:
    """What one source asks for.

    Attributes:
        implementation: What is to run.
        percent: Which part of the client ids gets the new one, where it is ``percent``; 0 to 100.
    """

    implementation: Implementation
    percent: float = 0.0

    def __str__(self) -> str:
        is_part = self.implementation is Implementation.PERCENT
        return f"{self.percent:g} %" if is_part else self.implementation.value

    def role(self, client_id: str) -> Implementation:
        """Return what it means for one client: ``legacy``, ``shadow`` or ``new``."""
        if self.implementation is not Implementation.PERCENT:
            return self.implementation
        return Implementation.NEW if place_of(client_id) < self.percent else Implementation.LEGACY

    @classmethod
    def read(cls, given: Mapping[str, Any], *, names: tuple[str, str] = _FILE_FIELDS) -> Self | None:
        """Return what was given, as text or as JSON; ``None`` where nothing was.

        Args:
            given: Values by the names; others are not looked at.
            names: What the two values are called there.

        Raises:
            ConfigurationError: For each value that is wrong: its name, itself, the rule and the remedy.
        """
        implementation, percent = (given.get(name) for name in names)
        problems: list[str] = []
        kind = _implementation(implementation, names[0], problems)
        part = _percent(percent, names[1], problems)
        if kind is None and part is not None:
            kind = Implementation.PERCENT
        if kind is Implementation.PERCENT and part is None and not problems:
            problems.append(
                f"{names[0]}='percent' needs a part: set {names[1]} to a number from 0 to 100, such as 50"
            )
        if part is not None and kind not in {Implementation.PERCENT, None} and not problems:
            problems.append(
                f"{names[1]}={percent!r} says nothing beside {names[0]}={implementation!r}: "
                f"remove it, or set {names[0]} to 'percent'"
            )
        if problems:
            raise ConfigurationError(*problems)
        return None if kind is None else cls(kind, part or 0.0)

    @classmethod
    def of_text(cls, text: str) -> Self | None:
        """Return what a file says: a JSON object of ``implementation`` and ``percent``.

        An empty object says nothing, and leaves the word to the environment.

        Raises:
            ConfigurationError: If it is no such thing; what is wrong is named.
        """
        try:
            given = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigurationError(
                f'the file is not JSON ({error}): write {{"implementation": "legacy"}}, say'
            ) from None
        if not isinstance(given, dict):
            raise ConfigurationError(
                f"the file holds a {type(given).__name__} and must hold an object: "
                'write {"implementation": "legacy"}, say'
            )
        unknown = sorted(set(given) - set(_FILE_FIELDS))
        if unknown:
            raise ConfigurationError(
                *(f"{name!r} is not a known field: known are {', '.join(_FILE_FIELDS)}" for name in unknown)
            )
        return cls.read(given)

    @classmethod
    def of_environment(cls, environ: Mapping[str, str]) -> Self | None:
        """Return what the environment says; an empty value says nothing.

        Raises:
            ConfigurationError: If a variable is wrong.
        """
        names = (IMPLEMENTATION_VARIABLE, PERCENT_VARIABLE)
        given = {name: environ[name].strip() for name in names if environ.get(name, "").strip()}
        return cls.read(given, names=names)


def place_of(client_id: str) -> float:
    """Return where a client stands among all, from 0 up to but not 100: the same always and everywhere.

    Clients below the percentage get the new implementation; so raising it moves nobody back.
    """
    digest = hashlib.sha256(f"realtime_fsm rollout:{client_id}".encode("utf-8", "surrogatepass")).digest()
    # 2**53 values of the 2**64: so that it is exact, and never rounds up to 100.
    return (int.from_bytes(digest[:8], "big") >> 11) * (_MOST * 2**11 / _BUCKETS)


@frozen(kw_only=True)
class Chosen:
    """What is to run, and who says so.

    Attributes:
        role: ``legacy``, ``shadow`` or ``new``.
        source: Who says so.
        setting: What the source asks for.
    """

    role: Implementation
    source: Source
    setting: Setting


def choose(said: Mapping[Source, Setting | None], client_id: str) -> Chosen:
    """Return what is to run: the first source that says anything, in the order of ``Source``.

    Args:
        said: What each source says; the configuration always says something.
        client_id: Whose rollout it is.
    """
    for source in Source:
        setting = said.get(source)
        if setting is not None:
            return Chosen(role=setting.role(client_id), source=source, setting=setting)
    raise ConfigurationError("nothing says which implementation runs: set implementation='legacy', say")


def _implementation(value: object, name: str, problems: list[str]) -> Implementation | None:
    if value is None:
        return None
    if isinstance(value, str) and value.strip().lower() in set(Implementation):
        return Implementation(value.strip().lower())
    problems.append(f"{name}={value!r} must be one of {', '.join(Implementation)}: set it to 'legacy', say")
    return None


def _percent(value: object, name: str, problems: list[str]) -> float | None:
    if value is None:
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(str(value).strip().removesuffix("%"))
    except ValueError:
        number = math.nan
    if 0.0 <= number <= _MOST:
        return number
    problems.append(f"{name}={value!r} must be a number from 0 to 100: set it to 50, say")
    return None


def _positive(_: object, attribute: Any, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ConfigurationError(
            f"{attribute.name}={value!r} must be a finite number of seconds, more than 0: "
            f"the default is {attribute.default}"
        )


def _seconds(default: float) -> Any:
    return field(default=default, validator=_positive)


@frozen(kw_only=True)
class RolloutConfig:
    """What a rollout begins with. Durations are seconds.

    Attributes:
        implementation: ``legacy``, ``shadow``, ``percent`` or ``new``: what runs where nothing else says.
        percent: Which part of the client ids gets the new one, with ``percent``.
        path: A JSON file that is read again and again, and wins over this and the environment; ``None`` for
            none. It need not exist.
        fallback: ``legacy`` has the old client take over when the new one gives up, or is not connected for
            ``fallback_after``; ``None`` leaves the new one to itself.
        poll_interval: Pause between two looks at the file and at the rule of the automatic rollback.
        switch_timeout: How long the one that takes over may take to connect before the switch is put off.
        fallback_after: How long the new one may be without a connection, with ``fallback``.
        drain_timeout: How long the one that goes has for what it has sent.
        compare_within: With ``shadow``: how much later one may see an event than the other.
        auto_rollback: Whether the new one is rolled back by itself when it fails more often than the old one.
    """

    implementation: str = "legacy"
    percent: float | None = None
    path: str | None = None
    fallback: str | None = None
    poll_interval: float = _seconds(2.0)
    switch_timeout: float = _seconds(15.0)
    fallback_after: float = _seconds(30.0)
    drain_timeout: float = _seconds(5.0)
    compare_within: float = _seconds(10.0)
    auto_rollback: bool = True

    def __attrs_post_init__(self) -> None:
        Setting.read({"implementation": self.implementation, "percent": self.percent})
        if self.fallback not in {None, "legacy"}:
            raise ConfigurationError(
                f"fallback={self.fallback!r} must be 'legacy' or None: set it to 'legacy'"
            )

    @property
    def setting(self) -> Setting:
        """What the configuration asks for."""
        read = Setting.read({"implementation": self.implementation, "percent": self.percent})
        if read is None:  # pragma: no cover - the implementation is never None
            raise AssertionError("a configuration that says nothing")
        return read
