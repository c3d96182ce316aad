"""Shadow: the new client runs beside the old one, is measured and compared, and nobody hears of it."""

import asyncio
import hashlib
import json
import logging
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from attrs import asdict, define, frozen

from realtime_fsm.machine.errors import RealtimeError, SubscriptionRefusedError
from realtime_fsm.rollout.client import Running, Sink, Wanted
from realtime_fsm.rollout.rule import LEGACY, NEW

_MOST: Final = 10_000
"""Events that may wait for their like, of each side; beyond it the oldest are counted as unseen."""

_logger = logging.getLogger("realtime_fsm.migration")


@define
class Differences:
    """Counts of events, by what came of the comparison.

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


class EventComparison:
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
        """Note an event that one side has seen, and match it with its like.

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


class Shadow:
    """A client whose events are compared and go nowhere, and to which no message is given.

    Args:
        running: The client, not begun yet.
        comparison: Told what both see.
        limit: How long it may take to connect before the comparison begins without it.
    """

    def __init__(self, running: Running, comparison: EventComparison, limit: float) -> None:
        self._running = running
        self._comparison = comparison
        self._limit = limit
        self._task: asyncio.Task[None] | None = None

    @property
    def running(self) -> Running:
        """The client that runs unseen."""
        return self._running

    def start(self, wanted: Wanted) -> None:
        """Begin, in the background: the application does not wait for it."""
        self._running.client.listen(self._heard)
        self._task = asyncio.create_task(self._begin(wanted), name="realtime_fsm rollout shadow")

    async def subscribe(self, wanted: Wanted) -> None:
        """Subscribe to more channels."""
        try:
            await self._running.client.subscribe(wanted, {})
        except RealtimeError as error:
            _logger.warning("the shadow could not subscribe: %s", error)

    async def unsubscribe(self, channels: list[str]) -> None:
        """Unsubscribe from channels, and forget them."""
        await self._running.client.unsubscribe(channels)

    async def close(self) -> None:
        """End the client, and what it has begun."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
        await self._running.release()

    def tee(self, sink: Sink) -> Sink:
        """Return a sink that compares what the old client sees, and passes it on."""

        def heard(event: str, args: list[Any]) -> "asyncio.Future[Any]":
            self._comparison.seen(LEGACY, event, args, asyncio.get_running_loop().time())
            return sink(event, args)

        return heard

    def expire(self) -> None:
        """Count what has waited for its like for too long."""
        self._comparison.expire(asyncio.get_running_loop().time())

    async def _begin(self, wanted: Wanted) -> None:
        client = self._running.client
        try:
            if wanted:
                await client.subscribe(wanted, {})
            failure = await self._running.bring_up(self._limit)
            if failure is not None:
                _logger.warning("the shadow gave up: %s", failure)
            elif wanted and client.is_connected:
                await client.subscribe(wanted, {})  # wait until the server has confirmed them
        except SubscriptionRefusedError as error:
            _logger.warning("the shadow could not subscribe: %s", error)
        self._comparison.begin()

    def _heard(self, event: str, args: list[Any]) -> "asyncio.Future[Any]":
        loop = asyncio.get_running_loop()
        self._comparison.seen(NEW, event, args, loop.time())
        answer: asyncio.Future[Any] = loop.create_future()
        answer.set_result(None)
        return answer
