"""The settings of a rollout: what can be set, where it can be set, and which source has the last word."""

import hashlib
import json
import logging
import math
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Self

from attrs import frozen

from realtime_fsm.engine.observers import Observers
from realtime_fsm.machine.checks import Problems, checked, seconds
from realtime_fsm.machine.errors import ConfigurationError

IMPLEMENTATION_VARIABLE: Final = "REALTIME_IMPLEMENTATION"
PERCENT_VARIABLE: Final = "REALTIME_ROLLOUT_PERCENT"

_WHOLE: Final = 100.0
_BUCKETS: Final = 2**64
_FILE_FIELDS: Final = ("implementation", "percent")
_MOST_BYTES: Final = 65_536
_MOST_KEPT: Final = 200

_logger = logging.getLogger("realtime_fsm.migration")


class Implementation(StrEnum):
    """The implementations that can be asked for."""

    LEGACY = "legacy"
    """The old client."""
    SHADOW = "shadow"
    """The old client; the new one runs beside it, and is only measured and compared."""
    PERCENT = "percent"
    """The new client for a part of the client ids, the old one for the others."""
    NEW = "new"
    """The new client."""


class Source(StrEnum):
    """The sources that say which implementation runs, the last word first."""

    OVERRIDE = "override"
    """A person, at run time."""
    ROLLBACK = "rollback"
    """The rollout itself: the new one fails. It holds until a person releases it."""
    FILE = "file"
    ENVIRONMENT = "environment"
    CONFIG = "config"


@frozen
class RolloutSetting:
    """The implementation that one source asks for.

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
    return (int.from_bytes(digest[:8], "big") >> 11) * (_WHOLE * 2**11 / _BUCKETS)


@frozen(kw_only=True)
class Chosen:
    """The role that is to run, and the source that says so.

    Attributes:
        role: ``legacy``, ``shadow`` or ``new``.
        source: Who says so.
        setting: What the source asks for.
    """

    role: Implementation
    source: Source
    setting: RolloutSetting


def choose(said: Mapping[Source, RolloutSetting | None], client_id: str) -> Chosen:
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
    if 0.0 <= number <= _WHOLE:
        return number
    problems.append(f"{name}={value!r} must be a number from 0 to 100: set it to 50, say")
    return None


def _fallback(value: object) -> str | None:
    return None if value in (None, "legacy") else "must be 'legacy' or None"


@frozen(kw_only=True)
class RolloutConfig:
    """The configuration of a rollout. Durations are seconds.

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
    fallback: str | None = checked(_fallback, default=None)
    poll_interval: float = seconds(2.0)
    switch_timeout: float = seconds(15.0)
    fallback_after: float = seconds(30.0)
    drain_timeout: float = seconds(5.0)
    compare_within: float = seconds(10.0)
    auto_rollback: bool = True

    def __attrs_post_init__(self) -> None:
        problems = Problems(self, recalls=True)
        try:
            RolloutSetting.read({"implementation": self.implementation, "percent": self.percent})
        except ConfigurationError as error:
            problems.add(*error.problems)
        problems.refuse()

    @property
    def setting(self) -> RolloutSetting:
        """The implementation that the configuration asks for."""
        read = RolloutSetting.read({"implementation": self.implementation, "percent": self.percent})
        if read is None:  # pragma: no cover - the implementation is never None
            raise AssertionError("a configuration that says nothing")
        return read


# The file of a rollout: read again and again; a bad one is told, and the last good setting stays.


class SettingFile:
    """A file that says what is to run.

    It need not exist, and says nothing then. But a file that has been there and is gone is a bad one: what
    it said last stays. To have it say nothing, write an empty object into it.

    Args:
        path: Where it is.

    Attributes:
        setting: What it said when it last was good; ``None`` for nothing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.setting: RolloutSetting | None = None
        self._text: str | None = None
        self._problem: str | None = None

    def load(self) -> tuple[str | None, str | None]:
        """Return what it holds, and why it cannot be read; blocking, and changes nothing."""
        try:
            with self.path.open("rb") as file:
                content = file.read(_MOST_BYTES + 1)
            if len(content) > _MOST_BYTES:
                return None, f"it is larger than {_MOST_BYTES} bytes"
            return content.decode("utf-8-sig"), None
        except FileNotFoundError:
            return None, None
        except (OSError, UnicodeDecodeError) as error:
            return None, str(error)

    def take(self, text: str | None, problem: str | None) -> str | None:
        """Take over what was loaded.

        Returns:
            What is wrong with it, once for each thing that is; ``None`` if nothing is, or nothing new.
        """
        if problem is None and text is None and self._text is not None:
            problem = "it is gone, and was there: to have it say nothing, write {} into it"
        if problem is None and text is not None:
            try:
                self.setting = RolloutSetting.of_text(text)
                self._text = text
            except ConfigurationError as error:
                problem = "; ".join(error.problems)
        is_new, self._problem = problem != self._problem, problem
        if problem is None or not is_new:
            return None
        kept = "nothing" if self.setting is None else str(self.setting)
        return f"{self.path.name} cannot be used: {problem}. What it said before stays: {kept}"


# What a rollout decided, and why: logged, counted, and kept so that a page can show it.


class DecisionKind(StrEnum):
    """The kinds of decisions."""

    START = "start"
    """What runs first."""
    SWITCH = "switch"
    """Another one runs from now on."""
    PUT_OFF = "put_off"
    """A switch that was due is tried later: the one that should take over does not connect."""
    OVERRIDE = "override"
    """A person has said what runs, or takes that back."""
    ROLLBACK = "rollback"
    """The new one fails too often."""
    FALLBACK = "fallback"
    """The new one gave up, or is without a connection for too long."""
    RELEASE = "release"
    """A person lets the new one run again, after a rollback or a fallback."""
    BAD_FILE = "bad_file"
    """The file cannot be used; the last good setting stays."""
    SETTING = "setting"
    """The file says something else."""


_LEVELS: Final = {
    DecisionKind.PUT_OFF: logging.WARNING,
    DecisionKind.ROLLBACK: logging.WARNING,
    DecisionKind.FALLBACK: logging.WARNING,
    DecisionKind.BAD_FILE: logging.ERROR,
}


@frozen(kw_only=True)
class Decision:
    """A decision of a rollout, with its reason.

    Attributes:
        at: Unix time.
        kind: What was decided.
        running: What runs after it: ``legacy``, ``shadow``, ``new``, or nothing yet.
        source: Who has the last word: see ``Source``.
        reason: Why, in words for people. Never holds a secret.
    """

    at: float
    kind: DecisionKind
    running: str
    source: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "at": self.at,
            "kind": self.kind.value,
            "running": self.running,
            "source": self.source,
            "reason": self.reason,
        }


class Decisions:
    """The last decisions, oldest first.

    Args:
        wall: The wall clock.

    Attributes:
        counts: How many of each kind there were, ever.
    """

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._kept: deque[Decision] = deque(maxlen=_MOST_KEPT)
        self._observers: Observers[[Decision]] = Observers("an observer of decisions", _logger)
        self.counts: Counter[str] = Counter()

    def __iter__(self) -> Iterator[Decision]:
        return iter(list(self._kept))

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, index: int) -> Decision:
        return self._kept[index]

    def subscribe(self, observer: Callable[[Decision], object]) -> Callable[[], None]:
        """Call ``observer`` with every decision from now on; return what ends it."""
        return self._observers.add(observer)

    def add(self, kind: DecisionKind, *, running: str, source: str, reason: str) -> Decision:
        """Log, count and keep a decision. For the rollout."""
        decision = Decision(at=self._wall(), kind=kind, running=running, source=source, reason=reason)
        self._kept.append(decision)
        self.counts[kind.value] += 1
        _logger.log(
            _LEVELS.get(kind, logging.INFO), "rollout: %s: %s (%s, by %s)", kind, reason, running, source
        )
        self._observers.tell(decision)
        return decision


# Who has the last word on what runs: an override, a rollback, the file, the environment, the config.


class RolloutControl:
    """The words of all sources, and what follows from them.

    Args:
        config: What is said last.
        client_id: Whose rollout it is.
        environ: The environment; read once.
        decisions: Where what changes is told.

    Raises:
        ConfigurationError: If the environment is wrong.
    """

    def __init__(
        self,
        config: RolloutConfig,
        *,
        client_id: str,
        environ: Mapping[str, str] | None,
        decisions: Decisions,
    ) -> None:
        environ = os.environ if environ is None else environ
        path = config.path or environ.get("REALTIME_ROLLOUT_FILE", "").strip() or None
        self.file = None if path is None else SettingFile(Path(path))
        self.held: str | None = None
        self.running = ""
        self._client_id = client_id
        self._decisions = decisions
        self._said: dict[Source, RolloutSetting | None] = {
            Source.CONFIG: config.setting,
            Source.ENVIRONMENT: RolloutSetting.of_environment(environ),
        }

    @property
    def said(self) -> Mapping[Source, RolloutSetting | None]:
        """The word of each source; ``None`` where it says nothing."""
        held = None if self.held is None else RolloutSetting(Implementation.LEGACY)
        in_file = None if self.file is None else self.file.setting
        return {**self._said, Source.ROLLBACK: held, Source.FILE: in_file}

    @property
    def chosen(self) -> Chosen:
        """The role that is to run."""
        return choose(self.said, self._client_id)

    @property
    def is_overridden(self) -> bool:
        """True if a person has the last word."""
        return self._said.get(Source.OVERRIDE) is not None

    def override(self, implementation: str | None) -> None:
        """Have a person say what runs; ``None`` takes it back.

        Raises:
            ConfigurationError: If it is no implementation.
        """
        setting = None if implementation is None else RolloutSetting.read({"implementation": implementation})
        self._said[Source.OVERRIDE] = setting
        said = "a person takes the override back" if setting is None else f"a person wants {setting}"
        self.tell(DecisionKind.OVERRIDE, said)

    def hold(self, kind: DecisionKind, reason: str) -> None:
        """Keep the old one running until ``release``."""
        self.held = reason
        self.tell(kind, reason)

    def release(self) -> bool:
        """Let the new one run again; return whether it was held."""
        if self.held is None:
            return False
        self.held = None
        self.tell(DecisionKind.RELEASE, "a person lets the new one run again")
        return True

    def take_file(self, text: str | None, problem: str | None) -> None:
        """Take over what the file was found to hold."""
        if self.file is None:
            return
        before = self.file.setting
        if (told := self.file.take(text, problem)) is not None:
            self.tell(DecisionKind.BAD_FILE, told)
        elif self.file.setting != before:
            said = "nothing" if self.file.setting is None else str(self.file.setting)
            self.tell(DecisionKind.SETTING, f"{self.file.path.name} says {said}")

    def tell(self, kind: DecisionKind, reason: str) -> None:
        """Log, count and keep a decision, with what runs and by whose word."""
        self._decisions.add(kind, running=self.running, source=self.chosen.source.value, reason=reason)
