"""The outbound queue: every message from ``emit`` to its end.

A message is *accepted* (numbered, within the bounds, kept by the outbox before anybody is told so), it
*waits* in the order of the calls, it is *taken* by the sender, and it comes to its *end*: off the books, out
of the outbox, its receipt settled and counted, in one step. Between taking and ending it stays on the books,
where it counts against the bounds, because a lost connection may give it back.

1. What waits stands in one line. Nothing overtakes: a message that is *held* holds all behind it. The one
   exception are the first words on a connection (``first_words.py``), which have a line of their own for as
   long as they are being said; what is left of it then joins the other in front.
2. A message is held while the disk has not confirmed it, so that nothing is sent that a crash would forget;
   and, where it must never be sent twice, until the disk has confirmed that it was forgotten: the *claim*.
3. Whoever finds no room waits in line as well; whoever comes before the outbox is open, before them.

The seam to ``Sender``: this object knows what is owed, that one what is on the wire.
"""

import asyncio
import heapq
import itertools
import logging
import math
import uuid
import weakref
from collections import OrderedDict, deque
from collections.abc import Awaitable, Collection, Iterable
from functools import partial
from itertools import islice, takewhile
from typing import Any, Final

from attrs import define

from realtime_fsm.engine.first_words import GREETING, greeting_of
from realtime_fsm.engine.message import RESENT, DeadLetter, Message, Receipt
from realtime_fsm.engine.observers import Observers
from realtime_fsm.engine.outbox import Outbox
from realtime_fsm.engine.payload import check_event_name, encode
from realtime_fsm.engine.port import WallClock
from realtime_fsm.engine.recovery import ErrorRecoveryStrategy
from realtime_fsm.engine.statistics import Statistics
from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.machine.delivery import Delivery, Outcome, Overflow
from realtime_fsm.machine.errors import (
    ClosedError,
    DeliveryError,
    InvalidArgumentError,
    OutboxFullError,
    OutboxStorageError,
    RealtimeError,
    UnsupportedDeliveryError,
)

_BURIED: Final = {
    Delivery.AT_LEAST_ONCE: frozenset({Outcome.DEAD, Outcome.REFUSED}),
    # On a server that has not acknowledged one of these, often as it was asked, something is wrong.
    Delivery.EXACTLY_ONCE: frozenset({Outcome.DEAD, Outcome.REFUSED, Outcome.UNACKNOWLEDGED}),
}
"""Outcomes after which a message is kept among the dead letters, for a person to decide about."""

_CLAIM_SIZE: Final = 100
"""Messages claimed in one step."""

_FEW_PLACES: Final = 64
"""Times to live of messages that have ended, which are not worth being cleared away."""

_CLAIM_AGAIN_AFTER: Final = 1.0
"""Seconds after which a failed claim is tried again."""

_RESTORED_IN_A_TURN: Final = 1000
"""Stored messages that are queued in one turn of the loop."""

_PROBE_AFTER: Final = 1.0
"""Seconds after which an outbox that kept nothing is asked whether it can again."""

LOOP_CLOSED: Final = "its event loop was closed without `disconnect()`"

_logger = logging.getLogger("realtime_fsm.message")

_Stored = asyncio.Future[None]


class Outlet:
    """Where messages leave: the sender, as the queue sees it. This one lets nothing out; see ``Sender``."""

    @property
    def is_free(self) -> bool:
        """True if a message that is alone in line would leave at once."""
        return False

    @property
    def is_greeting(self) -> bool:
        """True while first words, and nothing else, are being said over a live connection."""
        return False

    def pump(self) -> None:
        """Send what may be sent now."""


@define(eq=False)
class _Caller:
    """A caller whose message cannot be accepted yet.

    Attributes:
        message: The message.
        turn: Resolved when it was accepted, with what is still to be waited for: the disk.
    """

    message: Message
    turn: "asyncio.Future[Awaitable[None] | None]"


class OutboundQueue:
    """All that is accepted and has not come to its end: the line, the books, and the outbox behind them.

    Args:
        config: The bounds, and what happens at them.
        outbox: Where messages are kept.
        statistics: What it counts into.
        recovery: Told of errors that no caller waits for.
        wall: The wall clock, because messages may be older than the process.

    Attributes:
        outlet: Where messages leave: the sender.
        waiting: What waits, in order; to be read alone.
        first: The first words that wait, in order: they overtake all others.
        client_id: Identity of what is accepted from now on, once the outbox is open.
        storage_error: Why the outbox keeps nothing at present; ``None`` while it does. It is asked until it
            does, whether anything is emitted or not.
        progress: Set whenever a message has come to its end.
        observers: Told of each end and when it was, in the loop's next turn.
    """

    def __init__(
        self,
        *,
        config: RealtimeConfig,
        outbox: Outbox,
        statistics: Statistics,
        recovery: ErrorRecoveryStrategy,
        wall: WallClock,
    ) -> None:
        self._config = config
        self._outbox = outbox
        self._statistics = statistics
        self._recovery = recovery
        self._wall = wall
        self._held: set[Message] = set()
        self._count = 0
        self._bytes = 0
        self._taken_bytes = 0
        # A heap, which lets go of what has ended at once; the places of it are cleared away by the half.
        self._expiring: list[tuple[float, int, weakref.ref[Message]]] = []
        self._places = itertools.count()
        self._empty_places = 0
        self._expiry_timer: asyncio.TimerHandle | None = None
        self._claim_timer: asyncio.TimerHandle | None = None
        self._probe_timer: asyncio.TimerHandle | None = None
        self._early: deque[_Caller] = deque()  # who came before the outbox was open
        self._blocked: deque[_Caller] = deque()  # who waits for room
        self._opening: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()  # an outbox that is being closed is closed before it is opened again
        self._is_open = False
        self._is_closing = False
        self._sequence = 0
        self._run_id = uuid.uuid4().hex[:12]
        self._fleeting = 0
        self.waiting: OrderedDict[Message, None] = OrderedDict()
        self.first: OrderedDict[Message, None] = OrderedDict()
        self.outlet = Outlet()
        self.client_id = ""
        self.storage_error: BaseException | None = None
        self.progress = asyncio.Event()
        self.observers: Observers[[Message, float]] = Observers(
            "an observer of messages", _logger, statistics
        )

    # The books.

    def __len__(self) -> int:
        return self._count

    @property
    def size_bytes(self) -> int:
        """Bytes of payload on the books."""
        return self._bytes

    @property
    def held_count(self) -> int:
        """Count of the messages that are held."""
        return len(self._held)

    @property
    def blocked_count(self) -> int:
        """Count of the callers that wait for room."""
        return len(self._blocked)

    @property
    def is_in_use(self) -> bool:
        """True while the outbox is open, or being opened."""
        return self._is_open or (self._opening is not None and not self._opening.done())

    def lacks_room(self, message: Message) -> str | None:
        """Return why a message does not fit now, with the name of the bound; ``None`` if it fits.

        First words are bounded by themselves: what waits behind them can leave only after them.
        """
        if message.overtakes:
            fits = len(self.first) < self._config.outbox_max_messages
            fits = fits and self._bytes + message.size_bytes <= 2 * self._config.outbox_max_bytes
            return None if fits else f"holds {len(self.first)} first words of the on_connect hook"
        if self._count >= self._config.outbox_max_messages:
            return f"holds {self._count} messages, its outbox_max_messages"
        if self._bytes + message.size_bytes > self._config.outbox_max_bytes:
            return (
                f"holds {self._bytes} bytes, and {message.size_bytes} more would pass "
                f"its outbox_max_bytes={self._config.outbox_max_bytes}"
            )
        return None

    def could_fit(self, message: Message) -> bool:
        """Tell whether a message would fit if nothing waited."""
        config, taken = self._config, self._count - len(self.waiting) - len(self.first)
        fits = self._taken_bytes + message.size_bytes <= config.outbox_max_bytes
        return fits and taken < config.outbox_max_messages

    # Opening and closing.

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

    async def _open(self) -> None:
        async with self._turn:
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
        self.client_id = contents.client_id
        self._sequence = max(self._sequence, contents.last_sequence)
        for number, message in enumerate(contents.waiting, start=1):
            self.put(message)  # whatever the bounds: it was accepted once
            self._statistics.restored += 1
            if number % _RESTORED_IN_A_TURN == 0:
                await asyncio.sleep(0)  # cancelled here, what is queued ends as if all of it had been
        if contents.damaged:
            self._tell_of_damaged(len(contents.damaged))
        self._is_open = True
        while self._early:  # in their order, before any other
            early = self._early.popleft()
            try:
                early.turn.set_result(self.submit(early.message))
            except (OutboxFullError, ClosedError) as error:
                early.turn.set_exception(error)
        self.outlet.pump()

    def _tell_of_damaged(self, count: int) -> None:
        self._statistics.buried += count
        self._recovery.handle(
            DeliveryError(
                f"{count} stored messages are dead: their bytes have changed on the disk.",
                outcome=Outcome.DEAD.value,
                remedy="See to the disk. They are kept among the dead letters, and cannot be sent.",
            )
        )

    def stop_accepting(self) -> None:
        """Refuse all further messages, and those that wait for room."""
        self._is_closing = True
        while self._blocked:
            turn = self._blocked.popleft().turn
            if not turn.done():
                turn.set_exception(ClosedError("The client was disconnected before there was room."))

    async def close(self) -> None:
        """Keep what is to be kept, and close the outbox. What still waits is the caller's to settle."""
        self.stop_accepting()
        if self._opening is not None and not self._opening.done():
            self._opening.cancel()
            await asyncio.wait({self._opening})
        self._expiring.clear()
        self._empty_places = 0
        self._set_expiry_timer()
        self._is_open = False
        self._stop_probing()
        self.storage_error = None
        async with self._turn:
            await self._outbox.close()

    def accept_again(self) -> None:
        """End what ``stop_accepting`` began: whoever emits now, does it for the next connection."""
        self._is_closing = False

    def leave_loop(self) -> None:
        """Forget the event loop, and whoever waited on it."""
        self.progress = asyncio.Event()
        self._turn = asyncio.Lock()
        self._opening = self._expiry_timer = self._claim_timer = self._probe_timer = None
        self._empty_places = 0
        self.storage_error = None
        self._early.clear()
        self._blocked.clear()
        for message in [message for message in self._held if not message.is_stored]:
            self._statistics.accepted -= 1  # its `emit` has not returned, and never will
            self.strike(message)
        self._held.clear()
        self._expiring.clear()
        self._is_open = self._is_closing = False

    def leave_to_outbox(self) -> None:
        """Settle what the outbox keeps: it is read again when that is opened."""
        for message in [message for message in self.waiting if message.is_stored]:
            self.strike(message)
            self._settle(message, Outcome.STORED, reason=LOOP_CLOSED)

    # Accepting.

    def compose(
        self,
        event: str,
        data: Any,
        delivery: Delivery | None = None,
        *,
        ttl: float | None = None,
        is_call: bool = False,
    ) -> Message:
        """Make a message of what the caller gives: checked and encoded, or refused as a whole.

        Args:
            event: Its name.
            data: JSON, or bytes within it; a tuple is several arguments, ``None`` is none.
            delivery: What is promised; by default ``config.default_delivery``.
            ttl: Seconds after which it is no longer sent; by default ``config.message_ttl``.
            is_call: Whether the caller waits for the answer.

        Raises:
            InvalidArgumentError: If it cannot be sent, ever.
            UnsupportedDeliveryError: If the server does not offer the delivery.
        """
        config = self._config
        delivery = config.default_delivery if delivery is None else Delivery(delivery)
        if delivery is Delivery.EXACTLY_ONCE and not config.dialect.deduplicates:
            raise UnsupportedDeliveryError(
                f"EXACTLY_ONCE needs a server that drops repeats, and dialect={config.dialect.name!r} does "
                "not say so.",
                remedy="Use AT_LEAST_ONCE, or a dialect that `deduplicates`, such as Dialect.REFERENCE.",
            )
        ttl = config.message_ttl if ttl is None else ttl
        if ttl is not None and not (math.isfinite(ttl) and ttl > 0):
            raise InvalidArgumentError(
                f"ttl={ttl!r} is not a time to live.", remedy="Give a number of seconds, more than 0."
            )
        args = data if isinstance(data, tuple) else () if data is None else (data,)
        return Message(
            event=event,
            payload=encode(
                [check_event_name(event), *args],
                what=f"The event {event!r}",
                max_bytes=config.max_message_bytes,
            ),
            delivery=delivery,
            receipt=Receipt(event),
            wants_ack=is_call or delivery in RESENT,
            is_call=is_call,
            overtakes=GREETING.get() is not None and self.is_first_word,
            expires_at=None if ttl is None else self._wall() + ttl,
        )

    def submit(self, message: Message) -> Awaitable[None] | None:
        """Accept a message.

        Returns:
            ``None`` when it is accepted; otherwise what is to be awaited first: room, or the disk.

        Raises:
            OutboxFullError: If there is no room, and the policy is to refuse. Nothing was accepted.
            ClosedError: If the client is being disconnected.
            OutboxStorageError: (when awaited) If it cannot be kept. Nothing was accepted.
        """
        if message.overtakes:  # also while it closes: what drains waits for the end of the first words
            self._submit_first(message)
            return None
        if self._is_closing:
            raise ClosedError("The client is being disconnected, and accepts no more messages.")
        if not self._is_open:
            return self._open_and_submit(message)
        if message.delivery is Delivery.VOLATILE and (self.waiting or not self.outlet.is_free):
            self._number(message, kept=False)
            reason = "it is volatile and the connection is not ready"
            self._settle(message, Outcome.DROPPED, reason=reason)
            return None
        lack = self.lacks_room(message) if not self._blocked else "is full, and others wait for room"
        if lack is not None and not self._make_room(message, lack):
            return self._wait_for_room(message)
        stored = self._accept(message)
        return None if stored is None else asyncio.shield(stored)

    @property
    def is_first_word(self) -> bool:
        """True where the caller is the hook that says the first words, and they still count."""
        return greeting_of(self) is not None and self.outlet.is_greeting

    def _submit_first(self, message: Message) -> None:
        """Accept a first word, whatever waits, and leave it to nobody: it is of this connection."""
        if (lack := self.lacks_room(message)) is not None:
            raise OutboxFullError(f"The outbox {lack}.")
        self._number(message, kept=False)
        self.put(message)
        self.outlet.pump()
        if message.delivery is Delivery.VOLATILE and message in self.first:
            self.finish(message, Outcome.DROPPED, reason="it is volatile and the connection is not ready")

    def end_first_words(self) -> None:
        """Let what is left of the first words join the others, in front: their connection has ended."""
        left, self.first = self.first, OrderedDict()
        for message in reversed(left):
            message.overtakes = False
            self.waiting[message] = None
            self.waiting.move_to_end(message, last=False)

    async def _open_and_submit(self, message: Message) -> None:
        early = _Caller(message, asyncio.get_running_loop().create_future())
        self._early.append(early)
        try:
            await self.open()
        finally:
            if early in self._early:  # it could not be opened, or the caller does not want it any more
                self._early.remove(early)
        if (waiting := early.turn.result()) is not None:
            await waiting

    def _make_room(self, message: Message, lack: str) -> bool:
        """Apply the policy; return whether there is room now, and not only later."""
        policy = self._config.outbox_overflow
        if policy is Overflow.BLOCK:
            return False
        can_fit = policy is Overflow.DROP_OLDEST and self.could_fit(message)
        while can_fit and (oldest := next(iter(self.waiting), None)) is not None:
            reason = f"the outbox {lack}, and outbox_overflow is drop_oldest"
            self.finish(oldest, Outcome.DROPPED, reason=reason)
            if (still := self.lacks_room(message)) is None:
                return True
            lack = still
        raise OutboxFullError(f"The outbox {lack}.")

    async def _wait_for_room(self, message: Message) -> None:
        blocked = _Caller(message, asyncio.get_running_loop().create_future())
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
        while self._blocked and self.lacks_room(self._blocked[0].message) is None:
            blocked = self._blocked.popleft()
            if not blocked.turn.done():
                blocked.turn.set_result(self._accept(blocked.message))

    def _number(self, message: Message, *, kept: bool) -> None:
        """Give a message its identity. A number that the outbox does not remember must not come from it."""
        self._statistics.accepted += 1
        message.accepted_at = self._wall()
        if message.is_retried:  # one from the disk knows its number alone
            message.client_id = message.client_id or self.client_id
        elif message.overtakes and (greeting := greeting_of(self)) is not None:
            message.client_id, message.sequence = greeting.number()
        elif kept:
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
        kept = not message.is_call and bool(message.is_resent or self.waiting or not self.outlet.is_free)
        self._number(message, kept=kept)
        self.put(message)
        stored = self._outbox.append(message) if kept else None
        if stored is None:
            self.outlet.pump()
        else:
            self.hold((message,))
            stored.add_done_callback(partial(self._kept, message))
        return stored

    def _kept(self, message: Message, stored: _Stored) -> None:
        """Let a kept message be sent; one that could not be kept was never accepted."""
        failed = stored.cancelled() or stored.exception() is not None
        self._note_storage(stored, message.size_bytes)
        if message.receipt.is_settled:  # its caller gave it up meanwhile
            if not failed and message.receipt.outcome is not Outcome.STORED:
                self._outbox.remove(message)
            return
        self.release((message,))
        if failed:
            self._statistics.accepted -= 1
            self.strike(message)
            self._grant()
        else:
            self.outlet.pump()

    # The line.

    def put(self, message: Message) -> None:
        """Queue a message behind all others, and watch its time to live. The bounds are the caller's."""
        self._count += 1
        self._bytes += message.size_bytes
        (self.first if message.overtakes else self.waiting)[message] = None
        if message.expires_at is not None:
            place = (message.expires_at, next(self._places), weakref.ref(message))
            heapq.heappush(self._expiring, place)
            self._set_expiry_timer()

    def hold(self, messages: Collection[Message]) -> None:
        """Keep waiting messages, and all behind them, from being taken."""
        self._held.update(messages)

    def release(self, messages: Collection[Message]) -> None:
        """Let held messages be taken again, in their turn."""
        self._held.difference_update(messages)

    def peek(self) -> Message | None:
        """Return the message that is next, without taking it; ``None`` while it is held."""
        if not self.waiting:
            return None
        message = next(iter(self.waiting))
        return None if message in self._held else message

    def take(self, *, may_want_ack: bool = True) -> Message | None:
        """Take the message that is next; it stays on the books.

        Args:
            may_want_ack: Whether there is room in the window, for one that wants to be acknowledged.

        Returns:
            The message; ``None`` where none waits, where it is held, or held from now on because it must be
            claimed first, or where it must wait for the window.
        """
        line = self.first or self.waiting
        if not line:
            return None
        message = next(iter(line))
        if message in self._held or (message.wants_ack and not may_want_ack):
            return None
        if message.is_stored and not message.is_resent:
            self._claim()
            if message in self._held:
                return None
        del line[message]
        self._taken_bytes += message.size_bytes
        return message

    def give_back(self, messages: Iterable[Message]) -> None:
        """Put taken messages back in front of all others, in the order given."""
        for message in reversed(list(messages)):
            message.overtakes = False
            self.waiting[message] = None
            self.waiting.move_to_end(message, last=False)
            self._taken_bytes -= message.size_bytes

    def is_waiting(self, message: Message) -> bool:
        """Tell whether a message waits."""
        return message in self.waiting or message in self.first

    def _claim(self) -> None:
        """Hold what stands in front and must never be sent twice, until the outbox has forgotten it."""
        batch = list(islice(takewhile(_needs_claim, self.waiting), _CLAIM_SIZE))
        self.hold(batch)
        claimed = self._outbox.claim(batch)
        if claimed is None:
            self.release(batch)
        else:
            claimed.add_done_callback(partial(self._claimed, batch))

    def _note_storage(self, asked: _Stored, size_bytes: int) -> None:
        """Remember whether the disk takes anything; one that refused is asked until it does."""
        if asked.cancelled() or not self._is_open:
            return
        self.storage_error = asked.exception()
        if self.storage_error is None:
            self._stop_probing()
        elif self._probe_timer is None:
            loop = asyncio.get_running_loop()
            self._probe_timer = loop.call_later(_PROBE_AFTER, self._probe, size_bytes)

    def _probe(self, size_bytes: int) -> None:
        self._probe_timer = None
        probed = self._outbox.probe(size_bytes)
        if probed is None:
            self.storage_error = None
        else:
            probed.add_done_callback(partial(self._note_storage, size_bytes=size_bytes))

    def _stop_probing(self) -> None:
        if self._probe_timer is not None:
            self._probe_timer.cancel()
            self._probe_timer = None

    def _claimed(self, batch: list[Message], claimed: _Stored) -> None:
        self._note_storage(claimed, 0)
        error = None if claimed.cancelled() else claimed.exception()
        if error is None and not claimed.cancelled():
            self._release_claimed(batch)
            return
        if isinstance(error, RealtimeError):
            self._recovery.handle(error)
        loop = asyncio.get_running_loop()
        self._claim_timer = loop.call_later(_CLAIM_AGAIN_AFTER, self._release_claimed, batch)

    def _release_claimed(self, batch: list[Message]) -> None:
        self.release(batch)
        self.outlet.pump()

    # The end.

    def finish(self, message: Message, outcome: Outcome, *, answer: Any = None, reason: str = "") -> None:
        """End a message that is on the books.

        Args:
            message: The message, waiting or taken.
            outcome: What became of it.
            answer: What the server answered.
            reason: Why it was not delivered, in words that end a sentence.
        """
        self.strike(message)
        if outcome in _BURIED.get(message.delivery, ()) and not message.is_call:
            self._bury(message, outcome, reason)
        elif message.is_stored and outcome is not Outcome.STORED:
            self._outbox.remove(message)
        self._settle(message, outcome, answer=answer, reason=reason)
        if self._blocked:
            self._grant()

    def charge(self, message: Message) -> None:
        """Count a failed attempt of the message that was first in line; after too many it is given up."""
        message.attempts += 1
        if message.attempts < self._config.max_delivery_attempts:
            if message.is_stored:
                self._outbox.charge(message)
            return
        reason = f"{message.attempts} connections in a row ended before the server acknowledged it"
        self.finish(message, Outcome.DEAD, reason=reason)

    def strike(self, message: Message) -> None:
        """Strike a message off the books, waiting or taken: it has come to its end."""
        if message in self.waiting:
            del self.waiting[message]
            self._held.discard(message)
        elif message in self.first:
            del self.first[message]
        else:
            self._taken_bytes -= message.size_bytes
        self._count -= 1
        self._bytes -= message.size_bytes
        if message.expires_at is not None:
            self._clear_places()

    def _clear_places(self) -> None:
        """Note that a message with a time to live has ended; clear up when that is true of most."""
        self._empty_places += 1
        if self._empty_places * 2 > len(self._expiring) and self._empty_places > _FEW_PLACES:
            self._expiring = [place for place in self._expiring if _lives(place[2]())]
            heapq.heapify(self._expiring)
            self._empty_places = 0

    def abandon(self, message: Message, *, reason: str) -> None:
        """Give up a message, taken or waiting, because the client ends."""
        if self._claim_timer is not None:
            self._claim_timer.cancel()
            self._claim_timer = None
        outcome = Outcome.STORED if message.is_stored else Outcome.DROPPED
        self.finish(message, outcome, reason=reason)

    def has_expired(self, message: Message) -> bool:
        """Tell whether it is too late to send a message."""
        return message.expires_at is not None and message.expires_at <= self._wall()

    def _settle(self, message: Message, outcome: Outcome, *, answer: Any = None, reason: str = "") -> None:
        """Settle and count the receipt of a message that is on no books."""
        if message.receipt.settle(outcome, answer=answer, reason=reason):
            self._statistics.settled[outcome.value] += 1
            self.progress.set()
            self.observers.tell_soon(message, self._wall())

    def _bury(self, message: Message, outcome: Outcome, reason: str) -> None:
        """Put a message among the dead letters, and tell people: its caller may not be there any more."""
        refused = outcome is Outcome.REFUSED
        self._outbox.bury(
            DeadLetter(message=message, reason=reason, died_at=self._wall(), is_refused=refused)
        )
        self._statistics.buried += 1
        self._recovery.handle(
            DeliveryError(
                f"Message {message.receipt.message_id} ({message.event!r}) is {outcome.value}: {reason}.",
                outcome=outcome.value,
                remedy="It is kept among the dead letters of the outbox.",
            )
        )

    def _set_expiry_timer(self) -> None:
        """Set the one timer for the message that expires next."""
        if self._expiry_timer is not None:
            self._expiry_timer.cancel()
            self._expiry_timer = None
        if self._expiring:
            delay = max(0.0, self._expiring[0][0] - self._wall())
            self._expiry_timer = asyncio.get_running_loop().call_later(delay, self._expire)

    def _expire(self) -> None:
        """End what waits and whose time is up; what is in flight may still be acknowledged."""
        self._expiry_timer = None
        while self._expiring and self._expiring[0][0] <= self._wall():
            message = heapq.heappop(self._expiring)[2]()
            if message is None or message.receipt.is_settled:
                self._empty_places = max(0, self._empty_places - 1)
            elif self.is_waiting(message):
                self.finish(message, Outcome.EXPIRED, reason="its time to live is over")
        self._set_expiry_timer()


def _needs_claim(message: Message) -> bool:
    """Tell whether a message must be forgotten by the outbox before it is sent."""
    return message.is_stored and not message.is_resent


def _lives(message: Message | None) -> bool:
    """Tell whether a message is there, and has not come to its end."""
    return message is not None and not message.receipt.is_settled


def _retrieve(task: asyncio.Task[None]) -> None:
    """Look at the error, which those who wait have had: it must not be reported as lost when none does."""
    if not task.cancelled():
        task.exception()
