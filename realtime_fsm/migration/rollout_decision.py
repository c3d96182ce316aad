"""What a rollout decided, and why: logged, counted, and kept so that a page can show it."""

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Any, Final

from attrs import frozen

_MOST_KEPT: Final = 200

_logger = logging.getLogger("realtime_fsm.migration")


class DecisionKind(StrEnum):
    """What was decided."""

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
    """One decision.

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
        self._observers: list[Callable[[Decision], object]] = []
        self.counts: Counter[str] = Counter()

    def __iter__(self) -> Iterator[Decision]:
        return iter(list(self._kept))

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, index: int) -> Decision:
        return self._kept[index]

    def subscribe(self, observer: Callable[[Decision], object]) -> Callable[[], None]:
        """Call ``observer`` with every decision from now on; return what ends it."""
        self._observers.append(observer)

        def remove() -> None:
            if observer in self._observers:
                self._observers.remove(observer)

        return remove

    def add(self, kind: DecisionKind, *, running: str, source: str, reason: str) -> Decision:
        """Log, count and keep a decision. For the rollout."""
        decision = Decision(at=self._wall(), kind=kind, running=running, source=source, reason=reason)
        self._kept.append(decision)
        self.counts[kind.value] += 1
        _logger.log(
            _LEVELS.get(kind, logging.INFO), "rollout: %s: %s (%s, by %s)", kind, reason, running, source
        )
        for observer in list(self._observers):
            try:
                observer(decision)
            except Exception:
                _logger.exception("an observer of decisions raised")
        return decision
