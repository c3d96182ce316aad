"""Shadow: what the one implementation saw and the other did not. Pure."""

import hashlib
import json
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from attrs import asdict, define, frozen

LEGACY: Final = "legacy"
NEW: Final = "new"

_MOST: Final = 10_000
"""Events that may wait for their like, of each side; beyond it the oldest are counted as unseen."""


@define
class Differences:
    """What came of the comparison so far.

    Attributes:
        matched: Events that both saw in time.
        late: Events that the other one saw as well, but too late.
        only_legacy: Events that the new one has not seen.
        only_new: Events that the old one has not seen.
    """

    matched: int = 0
    late: int = 0
    only_legacy: int = 0
    only_new: int = 0

    def to_json(self) -> dict[str, int]:
        """Return it as JSON."""
        return asdict(self)


@frozen
class _Waiting:
    """An event that one side has seen; ``counts`` unless it may be older than the comparison."""

    key: bytes
    at: float
    counts: bool


class Comparison:
    """Compares what two clients see, whatever the order between them: equal events cancel each other out.

    Args:
        within: Seconds by which one may see an event later than the other.
        differences: What it counts into; by default new ones.
    """

    def __init__(self, within: float, differences: Differences | None = None) -> None:
        self.differences = Differences() if differences is None else differences
        self._within = within
        self._is_begun = False
        self._waiting: dict[str, deque[_Waiting]] = {LEGACY: deque(), NEW: deque()}
        self._by_key: dict[str, dict[bytes, list[_Waiting]]] = {LEGACY: {}, NEW: {}}
        self._unseen: dict[str, deque[bytes]] = {LEGACY: deque(maxlen=_MOST), NEW: deque(maxlen=_MOST)}

    def begin(self) -> None:
        """Both see events from now on; what only the old one saw before is no difference."""
        self._is_begun = True

    def seen(self, side: str, event: str, args: Sequence[Any], now: float) -> None:
        """Note an event.

        Args:
            side: ``legacy`` or ``new``: who saw it.
            event: Its name.
            args: Its arguments.
            now: Of a clock that does not jump.
        """
        self.expire(now)
        other = NEW if side == LEGACY else LEGACY
        key = digest(event, args)
        if (alike := self._by_key[other].get(key)) is not None:
            self._take(other, alike.pop(0))
            self.differences.matched += 1
        elif key in self._unseen[other]:
            self._unseen[other].remove(key)
            self.differences.late += 1
            self._count(other, -1)
        else:
            waiting = _Waiting(key, now, self._is_begun)
            self._waiting[side].append(waiting)
            self._by_key[side].setdefault(key, []).append(waiting)
            if len(self._waiting[side]) > _MOST:
                self._give_up(side, self._waiting[side][0])

    def expire(self, now: float) -> None:
        """Count what has waited for its like for too long."""
        for side, waiting in self._waiting.items():
            while waiting and waiting[0].at + self._within < now:
                self._give_up(side, waiting[0])

    def _give_up(self, side: str, waiting: _Waiting) -> None:
        self._by_key[side][waiting.key].remove(waiting)
        self._take(side, waiting)
        if waiting.counts:
            self._count(side, 1)
            self._unseen[side].append(waiting.key)

    def _take(self, side: str, waiting: _Waiting) -> None:
        self._waiting[side].remove(waiting)
        if not self._by_key[side][waiting.key]:
            del self._by_key[side][waiting.key]

    def _count(self, side: str, by: int) -> None:
        if side == LEGACY:
            self.differences.only_legacy += by
        else:
            self.differences.only_new += by


def digest(event: str, args: Sequence[Any]) -> bytes:
    """Return what two events have in common if they are equal; bytes within them count."""
    text = json.dumps([event, *args], sort_keys=True, separators=(",", ":"), default=_shown)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _shown(value: object) -> str:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"bytes {hashlib.blake2b(bytes(value), digest_size=16).hexdigest()}"
    return f"{type(value).__name__} {value}"
