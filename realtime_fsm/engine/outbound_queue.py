"""Accepting messages: numbered, within the bounds, and kept before anybody is told that they are."""

import asyncio
import heapq
import logging
import uuid
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from functools import partial
from typing import Any, Final

from attrs import define

from realtime_fsm.engine.message import DeadLetter, Message
from realtime_fsm.engine.outbox import Outbox
from realtime_fsm.engine.port import WallClock
from realtime_fsm.engine.statistics import Statistics
from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.machine.delivery import Delivery, Outcome, Overflow
from realtime_fsm.machine.errors import (
    ClosedError,
    DeliveryError,
    OutboxFullError,
    OutboxStorageError,
    RealtimeError,
)

# The messages that wait for the network: first in, first out, bounded by count and by bytes.


class SendQueue:
    """What waits, and the books of all that has not come to its end.

    A message that was taken stays on the books (it counts against the bounds) until it is struck off,
    because until then it may have to come back.

    Args:
        max_messages: Most messages on the books.
        max_bytes: Most bytes of payload on the books.
    """

    def __init__(self, *, max_messages: int, max_bytes: int) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._waiting: OrderedDict[Message, None] = OrderedDict()
        self._held: set[Message] = set()
        self._count = 0
        self._bytes = 0
        self._taken_bytes = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Message]:
        """Iterate over what waits, in order."""
        return iter(self._waiting)

    @property
    def size_bytes(self) -> int:
        """Bytes of payload on the books."""
        return self._bytes

    @property
    def has_waiting(self) -> bool:
        """Whether anything waits, held or not."""
        return bool(self._waiting)

    @property
    def held_count(self) -> int:
        """How many messages are held."""
        return len(self._held)

    def lacks_room(self, message: Message) -> str | None:
        """Return why a message does not fit now, with the name of the bound; ``None`` if it fits."""
        if self._count >= self._max_messages:
            return f"holds {self._count} messages, its outbox_max_messages"
        if self._bytes + message.size_bytes > self._max_bytes:
            return (
                f"holds {self._bytes} bytes, and {message.size_bytes} more would pass "
                f"its outbox_max_bytes={self._max_bytes}"
            )
        return None

    def could_fit(self, message: Message) -> bool:
        """Tell whether a message would fit if nothing waited."""
        taken = self._count - len(self._waiting)
        return taken < self._max_messages and self._taken_bytes + message.size_bytes <= self._max_bytes

    def put(self, message: Message) -> None:
        """Queue a message behind all others. The bounds are the caller's: see ``lacks_room``."""
        self._count += 1
        self._bytes += message.size_bytes
        self._waiting[message] = None

    def hold(self, messages: Collection[Message]) -> None:
        """Keep waiting messages, and all behind them, from being taken."""
        self._held.update(messages)

    def release(self, messages: Collection[Message]) -> None:
        """Undo ``hold``."""
        self._held.difference_update(messages)

    def peek(self) -> Message | None:
        """Return the message that is next, without taking it; ``None`` while it is held."""
        if not self._waiting:
            return None
        message = next(iter(self._waiting))
        return None if message in self._held else message

    def take(self) -> Message:
        """Take the message that is next. It stays on the books."""
        message = self._waiting.popitem(last=False)[0]
        self._taken_bytes += message.size_bytes
        return message

    def give_back(self, messages: Iterable[Message]) -> None:
        """Put taken messages back in front of all others, in the order given."""
        for message in reversed(list(messages)):
            self._waiting[message] = None
            self._waiting.move_to_end(message, last=False)
            self._taken_bytes -= message.size_bytes

    def is_waiting(self, message: Message) -> bool:
        """Tell whether a message waits."""
        return message in self._waiting

    def strike(self, message: Message) -> None:
        """Strike a message off the books, waiting or taken: it has come to its end."""
        if message in self._waiting:
            del self._waiting[message]
            self._held.discard(message)
        else:
            self._taken_bytes -= message.size_bytes
        self._count -= 1
        self._bytes -= message.size_bytes


# The end of a message: off the books, out of the outbox, its receipt settled and counted, in one step.

_BURIED: Final = {
    Delivery.AT_LEAST_ONCE: frozenset({Outcome.DEAD, Outcome.REFUSED}),
    # On a server that has not acknowledged one of these something is wrong, and sending it again is safe.
    Delivery.EXACTLY_ONCE: frozenset({Outcome.DEAD, Outcome.REFUSED, Outcome.UNACKNOWLEDGED}),
}
"""Outcomes after which a message is kept among the dead letters, for a person to decide about."""

_logger = logging.getLogger("realtime_fsm.message")


class Settlement:
    """Brings messages to their end.

    Args:
        queue: The books.
        outbox: Where they are kept.
        statistics: What it counts into.
        wall: The wall clock, for the dead letters.
        max_attempts: Connections that may end with the same message first in line.
        report: Told of the messages that are put among the dead letters.

    Attributes:
        progress: Set whenever a message has come to its end.
        observers: Told of each end and when it was, in the loop's next turn.
        on_room: Called after each end: there is room for another message.
    """

    def __init__(
        self,
        queue: SendQueue,
        outbox: Outbox,
        statistics: Statistics,
        *,
        wall: WallClock,
        max_attempts: int,
        report: Callable[[RealtimeError], object],
    ) -> None:
        self._queue = queue
        self._outbox = outbox
        self._statistics = statistics
        self._wall = wall
        self._max_attempts = max_attempts
        self._report = report
        self.progress = asyncio.Event()
        self.observers: list[Callable[[Message, float], object]] = []
        self.on_room: Callable[[], None] = _nobody_waits

    def finish(self, message: Message, outcome: Outcome, *, answer: Any = None, reason: str = "") -> None:
        """End a message that is on the books.

        Args:
            message: The message, waiting or taken.
            outcome: What became of it.
            answer: What the server answered.
            reason: Why it was not delivered, in words that end a sentence.
        """
        self._queue.strike(message)
        if outcome in _BURIED.get(message.delivery, ()) and not message.is_call:
            self._bury(message, outcome, reason)
        elif message.is_stored and outcome is not Outcome.STORED:
            self._outbox.remove(message)
        self.settle(message, outcome, answer=answer, reason=reason)
        self.on_room()

    def charge(self, message: Message) -> None:
        """Count a failed attempt of the message that was first in line; after too many it is given up."""
        message.attempts += 1
        if message.attempts < self._max_attempts:
            if message.is_stored:
                self._outbox.charge(message)
            return
        reason = f"{message.attempts} connections in a row ended before the server acknowledged it"
        self.finish(message, Outcome.DEAD, reason=reason)

    def _bury(self, message: Message, outcome: Outcome, reason: str) -> None:
        """Put a message among the dead letters, and tell people: its caller may not be there any more."""
        self._outbox.bury(DeadLetter(message=message, reason=reason, died_at=self._wall()))
        self._statistics.buried += 1
        self._report(
            DeliveryError(
                f"Message {message.receipt.message_id} ({message.event!r}) is {outcome.value}: {reason}.",
                outcome=outcome.value,
                remedy="It is kept among the dead letters of the outbox.",
            )
        )

    def settle(self, message: Message, outcome: Outcome, *, answer: Any = None, reason: str = "") -> None:
        """Settle and count the receipt of a message that is on no books."""
        if message.receipt.settle(outcome, answer=answer, reason=reason):
            self._statistics.settled[outcome.value] += 1
            self.progress.set()
            if self.observers:
                now, loop = self._wall(), asyncio.get_running_loop()
                for observer in self.observers:
                    loop.call_soon(self._tell, observer, message, now)

    def _tell(self, observer: Callable[[Message, float], object], message: Message, at: float) -> None:
        try:
            observer(message, at)
        except Exception:
            self._statistics.handler_errors += 1
            _logger.exception("an observer of messages raised")


def _nobody_waits() -> None:
    """Stand in until somebody does."""


# The time to live: one timer for all messages that have one.


class Expiry:
    """Tells when messages are no longer to be sent.

    Args:
        wall: The wall clock, because messages may be older than the process.
        on_expired: Called with each message when its time has come, wherever it is by then.
    """

    def __init__(self, wall: WallClock, on_expired: Callable[[Message], None]) -> None:
        self._wall = wall
        self._on_expired = on_expired
        self._heap: list[tuple[float, int, Message]] = []
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, message: Message) -> None:
        """Watch a message, if it expires at all."""
        if message.expires_at is not None:
            heapq.heappush(self._heap, (message.expires_at, message.sequence, message))
            self._set_timer()

    def has_expired(self, message: Message) -> bool:
        """Tell whether it is too late to send a message."""
        return message.expires_at is not None and message.expires_at <= self._wall()

    def stop(self) -> None:
        """Forget all messages."""
        self._heap.clear()
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._heap:
            delay = max(0.0, self._heap[0][0] - self._wall())
            self._timer = asyncio.get_running_loop().call_later(delay, self._expire)

    def _expire(self) -> None:
        self._timer = None
        while self._heap and self._heap[0][0] <= self._wall():
            _, _, message = heapq.heappop(self._heap)
            if not message.receipt.is_settled:
                self._on_expired(message)
        self._set_timer()


_Stored = asyncio.Future[None]


@define(eq=False)
class _Blocked:
    """A message that waits for room.

    Attributes:
        message: The message.
        turn: Resolved when it was accepted, with what is still to be waited for.
    """

    message: Message
    turn: "asyncio.Future[_Stored | None]"


@define(eq=False)
class _Early:
    """A message that came before the outbox was open.

    Attributes:
        message: The message.
        turn: Resolved when it was its turn, with what is still to be waited for.
    """

    message: Message
    turn: "asyncio.Future[Awaitable[None] | None]"


class Intake:
    """Where messages come in. They leave it in the queue, in the order of the calls.

    Args:
        config: The bounds, and what happens at them.
        outbox: Where messages are kept.
        queue: Where they wait for the network.
        settlement: How they end.
        statistics: What it counts into.
        wall: The wall clock.

    Attributes:
        may_send_now: Tells whether a message would leave at once. The sender sets it.
        on_ready: Called when the queue has something new to be sent. The sender sets it.
        client_id: Identity of this client, once the outbox is open.
    """

    def __init__(
        self,
        *,
        config: RealtimeConfig,
        outbox: Outbox,
        queue: SendQueue,
        settlement: Settlement,
        statistics: Statistics,
        wall: WallClock,
    ) -> None:
        self._config = config
        self._outbox = outbox
        self._queue = queue
        self._settlement = settlement
        self._statistics = statistics
        self._wall = wall
        self._expiry = Expiry(wall, self._expired)
        self._blocked: deque[_Blocked] = deque()
        self._early: deque[_Early] = deque()
        self._opening: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._is_open = False
        self._is_closing = False
        self._sequence = 0
        self._run_id = uuid.uuid4().hex[:12]
        self._fleeting = 0
        self.client_id = ""
        self.may_send_now: Callable[[], bool] = lambda: False
        self.on_ready: Callable[[], None] = lambda: None
        settlement.on_room = self._grant

    @property
    def blocked_count(self) -> int:
        """How many callers wait for room."""
        return len(self._blocked)

    def has_expired(self, message: Message) -> bool:
        """Tell whether it is too late to send a message."""
        return self._expiry.has_expired(message)

    async def open(self) -> None:
        """Open the outbox, and queue what it has kept. Callers share one opening.

        Raises:
            OutboxStorageError: If it cannot be opened.
            ClosedError: If the client was disconnected meanwhile.
        """
        self._is_closing = False
        if self._is_open:
            return
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._open(), name="realtime_fsm outbox: open")
            self._opening.add_done_callback(_retrieve)
        opening = self._opening
        await asyncio.wait({opening})  # which a cancelled caller leaves to the others
        if opening.cancelled():
            raise ClosedError("The client was disconnected while its outbox was being opened.")
        opening.result()

    def submit(self, message: Message) -> Awaitable[None] | None:
        """Accept a message.

        Returns:
            ``None`` when it is accepted; otherwise what is to be awaited first: room, or the disk.

        Raises:
            OutboxFullError: If there is no room, and the policy is to refuse. Nothing was accepted.
            ClosedError: If the client is being disconnected.
            OutboxStorageError: (when awaited) If it cannot be kept. Nothing was accepted.
        """
        if self._is_closing:
            raise ClosedError("The client is being disconnected, and accepts no more messages.")
        if not self._is_open:
            return self._open_and_submit(message)
        if message.delivery is Delivery.VOLATILE and not self.may_send_now():
            self._number(message, kept=False)
            reason = "it is volatile and the connection is not ready"
            self._settlement.settle(message, Outcome.DROPPED, reason=reason)
            return None
        lack = self._queue.lacks_room(message) if not self._blocked else "is full, and others wait for room"
        if lack is not None and not self._make_room(message, lack):
            return self._wait_for_room(message)
        stored = self._accept(message)
        return None if stored is None else asyncio.shield(stored)

    def stop_accepting(self) -> None:
        """Refuse all further messages, and those that wait for room."""
        self._is_closing = True
        while self._blocked:
            turn = self._blocked.popleft().turn
            if not turn.done():
                turn.set_exception(ClosedError("The client was disconnected before there was room."))

    async def close(self) -> None:
        """Keep what is to be kept, and close the outbox. What the queue holds is the caller's to settle."""
        self.stop_accepting()
        if self._opening is not None and not self._opening.done():
            self._opening.cancel()
            await asyncio.wait({self._opening})
        self._expiry.stop()
        self._is_open = False
        async with self._turn:
            await self._outbox.close()
        self._is_closing = False  # whoever emits now, does it for the next connection

    async def _open(self) -> None:
        async with self._turn:  # one that is being closed must be closed first
            contents = await self._outbox.open()
        if not self._config.dialect.deduplicates and any(
            message.delivery is Delivery.EXACTLY_ONCE for message in contents.waiting
        ):
            await self._outbox.close()
            raise OutboxStorageError(
                "The outbox holds messages that must take effect exactly once, and "
                f"dialect={self._config.dialect.name!r} does not say that the server drops repeats.",
                remedy="Use the dialect with which they were emitted, or another `outbox_path`.",
                retryable=False,
            )
        if self.client_id != contents.client_id:
            self._sequence = 0
        self.client_id = contents.client_id
        self._sequence = max(self._sequence, contents.last_sequence)
        for message in contents.waiting:
            message.client_id = contents.client_id
            self._queue.put(message)  # whatever the bounds: it was accepted once
            self._expiry.watch(message)
            self._statistics.restored += 1
        self._is_open = True
        self._submit_early()
        self.on_ready()

    async def _open_and_submit(self, message: Message) -> None:
        early = _Early(message, asyncio.get_running_loop().create_future())
        self._early.append(early)
        try:
            await self.open()
        finally:
            if early in self._early:  # it could not be opened, or the caller does not want it any more
                self._early.remove(early)
        if (waiting := early.turn.result()) is not None:
            await waiting

    def _submit_early(self) -> None:
        """Accept those that came before the outbox was open, in their order, before any other."""
        while self._early:
            early = self._early.popleft()
            try:
                early.turn.set_result(self.submit(early.message))
            except (OutboxFullError, ClosedError) as error:
                early.turn.set_exception(error)

    def _make_room(self, message: Message, lack: str) -> bool:
        """Apply the policy; return whether there is room now, and not only later."""
        policy = self._config.outbox_overflow
        if policy is Overflow.BLOCK:
            return False
        can_fit = policy is Overflow.DROP_OLDEST and self._queue.could_fit(message)
        while can_fit and (oldest := next(iter(self._queue), None)) is not None:
            reason = f"the outbox {lack}, and outbox_overflow is drop_oldest"
            self._settlement.finish(oldest, Outcome.DROPPED, reason=reason)
            if (still := self._queue.lacks_room(message)) is None:
                return True
            lack = still
        raise OutboxFullError(f"The outbox {lack}.")

    async def _wait_for_room(self, message: Message) -> None:
        blocked = _Blocked(message, asyncio.get_running_loop().create_future())
        self._blocked.append(blocked)
        try:
            stored = await blocked.turn
        except asyncio.CancelledError:
            if blocked in self._blocked:  # otherwise it is accepted already, and goes on without its caller
                self._blocked.remove(blocked)
                self._grant()  # there may be room enough for those behind it
            raise
        if stored is not None:
            await asyncio.shield(stored)

    def _grant(self) -> None:
        """Accept those that waited for room, in their order."""
        while self._blocked and self._queue.lacks_room(self._blocked[0].message) is None:
            blocked = self._blocked.popleft()
            if not blocked.turn.done():
                blocked.turn.set_result(self._accept(blocked.message))

    def _number(self, message: Message, *, kept: bool) -> None:
        """Give a message its identity. A number that the outbox does not remember must not come from it."""
        self._statistics.accepted += 1
        message.accepted_at = self._wall()
        if kept:
            self._sequence += 1
            message.client_id, message.sequence = self.client_id, self._sequence
        else:
            self._fleeting += 1
            message.client_id, message.sequence = self._run_id, self._fleeting
        if not message.receipt.message_id:  # a dead letter keeps its own
            message.receipt.message_id = f"{message.client_id}-{message.sequence}"

    def _accept(self, message: Message) -> _Stored | None:
        """Number, queue and keep a message for which there is room."""
        # One that leaves now and is never sent again need not be kept: it is in flight, and may be lost. Nor
        # need a call, whose caller ends with the process.
        kept = message.is_worth_keeping or not (message.is_call or self.may_send_now())
        self._number(message, kept=kept)
        self._queue.put(message)
        self._expiry.watch(message)
        stored = self._outbox.append(message) if kept else None
        if stored is None:
            self.on_ready()
        else:
            self._queue.hold((message,))
            stored.add_done_callback(partial(self._kept, message))
        return stored

    def _kept(self, message: Message, stored: _Stored) -> None:
        """Let a kept message be sent; one that could not be kept was never accepted."""
        failed = stored.cancelled() or stored.exception() is not None
        if message.receipt.is_settled:  # its caller gave it up meanwhile
            if not failed and message.receipt.outcome is not Outcome.STORED:
                self._outbox.remove(message)
            return
        self._queue.release((message,))
        if failed:
            self._statistics.accepted -= 1
            self._queue.strike(message)
            self._grant()
        else:
            self.on_ready()

    def _expired(self, message: Message) -> None:
        """End a message whose time is up while it waits; one in flight may still be acknowledged."""
        if self._queue.is_waiting(message):
            self._settlement.finish(message, Outcome.EXPIRED, reason="its time to live is over")


def _retrieve(task: asyncio.Task[None]) -> None:
    """Look at the error, which those who wait have had: it must not be reported as lost when none does."""
    if not task.cancelled():
        task.exception()
