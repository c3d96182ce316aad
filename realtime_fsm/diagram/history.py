"""The history of a connection: counts and times for the pictures."""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attrs import frozen

from realtime_fsm.machine.errors import InvalidArgumentError
from realtime_fsm.machine.record import StatusChange


@frozen(kw_only=True)
class HistoryStep:
    """One move that was made.

    Attributes:
        source: The state that was left.
        trigger: What fired it.
        dest: The state that was entered.
        at: When, in seconds since the Unix epoch.
        reason: Why, in words for people.
    """

    source: str
    trigger: str
    dest: str
    at: float
    reason: str = ""

    @property
    def clock(self) -> str:
        """The time of day in UTC."""
        return datetime.fromtimestamp(self.at, tz=UTC).strftime("%H:%M:%S")


@frozen(kw_only=True)
class Visits:
    """The times that a connection was in a state.

    Attributes:
        entries: How often it was entered.
        seconds: How long it lasted, all in all; the visit that has not ended is not counted.
    """

    entries: int
    seconds: float


@frozen
class History:
    """The moves of one connection, in order."""

    steps: tuple[HistoryStep, ...]

    @property
    def current(self) -> str | None:
        """The state in which it ends; ``None`` when nothing has happened."""
        return self.steps[-1].dest if self.steps else None

    def taken(self, source: str, trigger: str, dest: str) -> tuple[HistoryStep, ...]:
        """Return the times at which one move was made."""
        wanted = (source, trigger, dest)
        return tuple(step for step in self.steps if (step.source, step.trigger, step.dest) == wanted)

    def visits(self, state: str) -> Visits | None:
        """Return how a state fared, or ``None`` where the connection never was in it."""
        entries = sum(step.dest == state for step in self.steps)
        if entries == 0 and (not self.steps or self.steps[0].source != state):
            return None
        pairs = zip(self.steps, self.steps[1:], strict=False)
        seconds = sum(max(0.0, later.at - step.at) for step, later in pairs if step.dest == state)
        return Visits(entries=entries, seconds=seconds)


HistoryLike = History | Sequence[StatusChange] | Sequence[HistoryStep] | str | Path
"""A history in any of its forms: changes as observers were told them, steps, or a file of JSON Lines."""


def history_of(source: HistoryLike) -> History:
    """Return the history out of any of its forms.

    Args:
        source: See ``HistoryLike``; a file is what ``realtime-fsm listen --json`` prints.

    Raises:
        InvalidArgumentError: If the file cannot be read, or a line is none of a history.
    """
    if isinstance(source, History):
        return source
    if isinstance(source, str | Path):
        return read_history(Path(source))
    return History(tuple(_step(item) for item in source))


def read_history(path: Path) -> History:
    """Read JSON Lines as ``realtime-fsm listen --json`` prints them; events are passed over.

    The last line may be unfinished, as a writer that is killed leaves it.

    Raises:
        InvalidArgumentError: If the file cannot be read, or a line is none of a history.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise InvalidArgumentError(
            f"The history {path} cannot be read: {why}.", remedy="Name a file of `listen --json`."
        ) from error
    lines = text.split("\n")
    unfinished = lines.pop()
    steps = list(_steps(path, lines))
    try:
        steps += _steps(path, [unfinished], first=len(lines) + 1)
    except InvalidArgumentError as error:
        if not isinstance(error.__cause__, json.JSONDecodeError):
            raise
    return History(tuple(steps))


def _steps(path: Path, lines: Sequence[str], *, first: int = 1) -> Iterable[HistoryStep]:
    for number, line in enumerate(lines, start=first):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            if isinstance(record, dict) and record.get("kind", "status") != "status":
                continue
            yield _step_of(record)
        except (KeyError, TypeError, ValueError, OverflowError, OSError) as error:
            raise InvalidArgumentError(
                f"Line {number} of {path} is no change of status.",
                remedy="Each line is a JSON object with previous, current, trigger, reason and at.",
            ) from error


def _step_of(record: Any) -> HistoryStep:
    step = HistoryStep(
        source=str(record["previous"]),
        trigger=str(record["trigger"]),
        dest=str(record["current"]),
        at=float(record["at"]),
        reason=str(record.get("reason") or ""),
    )
    step.clock  # noqa: B018 - a time that is none is refused here, where its line is known
    return step


def _step(item: StatusChange | HistoryStep) -> HistoryStep:
    if isinstance(item, HistoryStep):
        return item
    return HistoryStep(
        source=item.previous.value,
        trigger=item.trigger.value,
        dest=item.current.value,
        at=item.at,
        reason=item.reason,
    )
