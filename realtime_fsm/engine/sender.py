"""From the queue to the network: in order, within a window, and again after a loss.

It is not a task: accepting a message, an acknowledgement and room on the link each pump it. So a message
costs no wake-up, and nothing can be forgotten between two of them.

Over a socket a message is *in flight* from its writing to its acknowledgement, or, where it wants none,
*unwritten* until the transport has written it. Over HTTP a batch is taken, and each message of it is
*published* by the server's answer, or *unpublished*. At a loss what may be sent again is given back to the
queue, in its order, and the rest is lost.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Iterator
from functools import partial
from itertools import islice
from typing import Any, Final
from weakref import WeakKeyDictionary

from realtime_fsm.engine.flight_recorder import FlightRecorder, Kind
from realtime_fsm.engine.link import Link
from realtime_fsm.engine.message import Message, Receipt, addressed, unwrap
from realtime_fsm.engine.outbound_queue import OutboundQueue, Outlet
from realtime_fsm.engine.statistics import Statistics
from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.machine.delivery import Delivery, Outcome
from realtime_fsm.machine.errors import DeliveryError
from realtime_fsm.machine.redaction import redacted

_SUSPECT_AFTER: Final = 3
"""Losses in a row with the same message first in line, after which it is sent alone: so a message that
breaks the connection is told from those that only wait behind it."""


class Sender(Outlet):
    """All that is on the wire, or taken for it: moves messages from the queue, and brings them to their end.

    Args:
        config: Window, ack time-out, attempt cap.
        queue: What is owed.
        statistics: What it counts into.
        secrets: What the words of a server must not show, though it may repeat them.
        recorder: Remembers the messages, in debug mode.
    """

    def __init__(
        self,
        *,
        config: RealtimeConfig,
        queue: OutboundQueue,
        statistics: Statistics,
        secrets: Collection[str] = (),
        recorder: FlightRecorder,
    ) -> None:
        self._config = config
        self._statistics = statistics
        self._secrets = secrets
        self._recorder = recorder
        self._link: Link | None = None
        self._is_greeting = False
        # In the order in which they were sent, with their numbers on the link and of their acknowledgements.
        self._in_flight: dict[Message, tuple[int, int]] = {}
        self._unwritten: deque[tuple[int, Message]] = deque()
        # What is called SENT, with its number on the link, until the server has been seen to have read it.
        self._unproven: deque[tuple[int, Receipt]] = deque(maxlen=config.outbox_max_messages)
        # Nobody will ever see it of these. A receipt that nobody holds any more misleads nobody, and goes.
        self._doubtful: WeakKeyDictionary[Receipt, None] = WeakKeyDictionary()
        self._suspect: Message | None = None
        self._submitted = asyncio.Event()  # something may wait that can be published
        self.queue = queue
        queue.outlet = self

    @property
    def in_flight_count(self) -> int:
        """Messages sent and not yet acknowledged."""
        return len(self._in_flight)

    @property
    def is_idle(self) -> bool:
        """True if every accepted message has come to its end."""
        return not self.queue

    @property
    def oldest_in_flight_at(self) -> float | None:
        """When the oldest unacknowledged message was sent, on the loop's clock; calls have their own time."""
        return next((message.sent_at for message in self._in_flight if not message.is_call), None)

    @property
    def oldest_accepted_at(self) -> float | None:
        """When the oldest message that has not come to its end was accepted, Unix time."""
        first = (*islice(self._in_flight, 1), *(m for _, m in islice(self._unwritten, 1)))
        lines = (*islice(self.queue.first, 1), *islice(self.queue.waiting, 1))
        return min((message.accepted_at for message in (*first, *lines)), default=None)

    async def drained(self, can_go_on: Callable[[], bool]) -> None:
        """Wait until nothing is left, or nothing can be delivered any more. The caller bounds it."""
        while not self.is_idle and can_go_on():
            self.queue.progress.clear()
            await self.queue.progress.wait()

    def greet(self, link: Link) -> None:
        """Begin to send over a link that has become live: the first words alone."""
        self._link, self._is_greeting = link, True

    def attach(self, link: Link) -> None:
        """Begin to send all over a live link."""
        self._link, self._is_greeting = link, False
        self.pump()

    def detach(self, *, broken: bool) -> None:
        """Stop sending, because the link has ended. What may be sent again goes back in order.

        Args:
            broken: Whether it ended by itself, so that the first message in flight may be why.
        """
        link, self._link, self._is_greeting = self._link, None, False
        self.queue.progress.set()
        self.queue.end_first_words()
        if link is not None:
            self._prove(link.proven)
        if broken:
            self._doubt()
        lost = [message for _, message in self._unwritten]
        self._unwritten.clear()
        in_flight, self._in_flight = self._in_flight, {}
        self._suspect = None
        again = [message for message in in_flight if message.is_resent]
        lost += [message for message in in_flight if not message.is_resent]
        self.queue.give_back(again)
        if broken and link is not None and again and in_flight[again[0]][0] <= link.transport.written:
            self.queue.charge(again[0])
        for message in again:
            if self.queue.has_expired(message) and not message.receipt.is_settled:
                self.queue.finish(message, Outcome.EXPIRED, reason="its time to live is over")
        for message in lost:
            self.queue.finish(message, Outcome.LOST, reason="the connection ended while it was under way")

    @property
    def is_free(self) -> bool:
        """True if a message that is alone in line would leave at once."""
        link = None if self._is_greeting else self._link
        return link is not None and self._suspect is None and link.transport.room > 0

    @property
    def is_greeting(self) -> bool:
        """True while first words, and nothing else, are being said over a live connection."""
        return self._is_greeting

    def pump(self) -> None:
        """Send what may be sent now."""
        link, queue = self._link, self.queue
        if link is None:
            self._submitted.set()
            return
        window, transport = self._config.max_in_flight, link.transport
        may_leave = not self._is_greeting
        while (queue.first or (may_leave and queue.waiting)) and self._suspect is None and transport.room > 0:
            message = queue.take(may_want_ack=len(self._in_flight) < window)
            if message is None:
                return
            self._send(link, message)

    def on_written(self, written: int) -> None:
        """Settle what has been written and wanted no acknowledgement; then send on."""
        unwritten = self._unwritten
        while unwritten and unwritten[0][0] <= written:
            number, message = unwritten.popleft()
            self.queue.finish(message, Outcome.SENT)
            self._unproven.append((number, message.receipt))
        if self._link is not None:
            self._prove(self._link.proven)
        self.pump()

    def report_unacknowledged(self, *, received: int, asked_at: float) -> list[Message]:
        """Settle messages that the server has had, and has left unacknowledged for ``ack_timeout``.

        A server that has answered a probe has had all that was sent before it, and whatever it said before
        the answer has been read. To send such a message again would repeat its effect; where the server
        drops repeats that is safe, and asks for the acknowledgement once more, ``max_delivery_attempts``
        times in all. A call is left to its own time-out.

        Args:
            received: How many messages of the link the server must have had, by its answer.
            asked_at: When it was asked, on the loop's clock.

        Returns:
            The messages that were settled, so that they can be reported.
        """
        timeout = self._config.ack_timeout
        late = [
            message
            for message, (number, _) in self._in_flight.items()
            if number <= received
            and not message.is_call
            and message.sent_at is not None
            and message.sent_at + timeout <= asked_at
        ]
        again = [message for message in late if self._may_ask_again(message)]
        for message in late:
            self._call_back(message)
        for message in again:
            message.repeats += 1
        self.queue.give_back(again)
        settled = [message for message in late if message not in again]
        for message in settled:
            reason = f"the server is alive and did not acknowledge it within {timeout} s"
            self.queue.finish(message, Outcome.UNACKNOWLEDGED, reason=reason)
        self.pump()
        return settled

    def _may_ask_again(self, message: Message) -> bool:
        """Tell whether a message that the server has had may be sent once more: its number tells a repeat."""
        return (
            message.delivery is Delivery.EXACTLY_ONCE
            and message.repeats + 1 < self._config.max_delivery_attempts
            and not self.queue.has_expired(message)
        )

    def withdraw(self, message: Message, *, reason: str) -> None:
        """Give a message up because its caller no longer waits for it."""
        if message in self._in_flight:
            self._call_back(message)
        elif not self.queue.is_waiting(message):
            return  # it was never accepted, or is being published and will be settled by that
        self.queue.finish(message, Outcome.EXPIRED, reason=reason)
        self.pump()

    async def next_batch(self, limit: int) -> list[Message]:
        """Wait for messages, and take up to ``limit`` to be published over HTTP, in order.

        A message with binary parts cannot go over HTTP: it waits for the socket, and all behind it too,
        because the order is a promise. One that failed before goes alone.
        """
        while not (taken := self._take_batch(limit)):
            self._submitted.clear()
            await self._submitted.wait()
        return taken

    def published(self, message: Message, answer: dict[str, Any]) -> None:
        """Settle a published message by the server's answer."""
        self._statistics.published += 1
        self._settle_by_answer(message, answer)

    def unpublished(self, messages: list[Message], *, maybe_arrived: bool, failed: bool) -> None:
        """Take back messages that were not published: they wait again, or are lost, by their delivery.

        Args:
            messages: The ones that were not answered.
            maybe_arrived: Whether the server may have had them all the same.
            failed: Whether the first of them may be why.
        """
        again = [message for message in messages if message.is_resent or not maybe_arrived]
        self.queue.give_back(again)
        for message in messages:
            if not message.is_resent and maybe_arrived:
                reason = "publishing it over HTTP broke off"
                self.queue.finish(message, Outcome.LOST, reason=reason)
        if again and failed:
            self.queue.charge(again[0])
        if again:
            self._submitted.set()

    async def proven(self) -> bool:
        """Wait until the server has been seen to have read all that was sent so far. The caller bounds it.

        Returns:
            ``False`` where the connection ends first.
        """
        if (link := self._link) is None:
            return True
        is_read = await link.read_by_peer()
        self._prove(link.proven)
        return is_read

    def abandon(self, *, reason: str) -> Iterator[Receipt]:
        """Give everything up that is left, one by one, as the iterator is read; yield the receipts.

        First what was called SENT, and may be lost: nobody has seen that the server has read it.
        """
        doubtful = [*self._doubtful, *(receipt for _, receipt in self._unproven)]
        self._doubtful.clear()
        self._unproven.clear()
        for receipt in doubtful:
            receipt.doubt(reason=f"{reason} before the server was seen to have read it: it may be lost")
            self._statistics.dropped["message sent, and not seen to be read"] += 1
            yield receipt
        while self._in_flight:
            message = next(iter(self._in_flight))
            del self._in_flight[message]
            self.queue.abandon(message, reason=reason)
            yield message.receipt
        while self._unwritten:
            message = self._unwritten.popleft()[1]
            self.queue.abandon(message, reason=reason)
            yield message.receipt
        while line := self.queue.first or self.queue.waiting:
            message = next(iter(line))
            self.queue.abandon(message, reason=reason)
            yield message.receipt

    def leave_loop(self) -> None:
        """Forget the event loop, and the link that has ended with it."""
        self._submitted = asyncio.Event()
        self.queue.leave_loop()
        self._doubt()
        self.detach(broken=False)
        self.queue.leave_to_outbox()

    # Inside.

    def _doubt(self) -> None:
        """Give up the hope of a proof for what is called SENT: its link has ended."""
        for _, receipt in self._unproven:
            self._doubtful[receipt] = None
        self._unproven.clear()
        while len(self._doubtful) > self._config.outbox_max_messages:
            del self._doubtful[next(iter(self._doubtful))]

    def _prove(self, number: int) -> None:
        """Take note that the server has read all up to a number."""
        while self._unproven and self._unproven[0][0] <= number:
            self._unproven.popleft()

    def _send(self, link: Link, message: Message) -> None:
        self._statistics.sent += 1
        self._statistics.resent += message.sent_at is not None
        message.sent_at = asyncio.get_running_loop().time()
        if self._recorder.is_tracing():
            self._recorder.note(Kind.MESSAGE, f"{message.receipt!r}, {message.size_bytes} bytes")
        dialect = self._config.dialect
        payload = addressed(message) if dialect.message_ids else message.payload
        if message.wants_ack:
            self._in_flight[message] = (0, 0)  # known before the transport can acknowledge it
            number = link.send(payload, partial(self._acknowledged, message))
            self._in_flight[message] = (number, self._statistics.ack_ids)
            if message.attempts >= _SUSPECT_AFTER:
                self._suspect = message
        else:
            self._unwritten.append((link.send(payload), message))

    def _take_batch(self, limit: int) -> list[Message]:
        taken: list[Message] = []
        room = self._config.max_message_bytes  # a server that takes one message takes a request of its size
        while len(taken) < limit and (message := self.queue.peek()) and not message.payload.attachments:
            if taken and (message.size_bytes > room or taken[0].attempts):
                break
            if self.queue.take() is None:
                break  # it is being claimed
            room -= message.size_bytes
            taken.append(message)
        return taken

    def _end_flight(self, message: Message) -> tuple[int, int]:
        if message is self._suspect:
            self._suspect = None
        return self._in_flight.pop(message)

    def _call_back(self, message: Message) -> None:
        """End a flight without its acknowledgement: the link lets go of whoever waited for it."""
        _, ack_id = self._end_flight(message)
        if self._link is not None:
            self._link.forget(ack_id)

    def _acknowledged(self, message: Message, args: list[Any]) -> None:
        if message not in self._in_flight:
            self._statistics.dropped["late acknowledgement"] += 1
            return
        number, _ = self._end_flight(message)
        if self._link is not None:
            self._link.heard_of(number)
        if self._recorder.is_tracing():
            self._recorder.note(Kind.ACK, f"of {message.receipt.message_id}")
        if self._config.dialect.wraps_answers:
            self._settle_by_answer(message, args[0] if args else None)
        else:
            answer = args[0] if len(args) == 1 else (args or None)
            self.queue.finish(message, Outcome.ACKNOWLEDGED, answer=answer)
        self.pump()

    def _settle_by_answer(self, message: Message, answer: object) -> None:
        try:
            value = unwrap(answer)
        except DeliveryError as error:
            reason = redacted(error.message, self._secrets)
            self.queue.finish(message, Outcome.REFUSED, reason=reason)
        else:
            repeated = isinstance(answer, dict) and answer.get("duplicate") is True
            self._statistics.repeated += repeated
            if repeated and message.is_retried and "answer" not in answer:  # type: ignore[operator]
                # Its number is older than what the server remembers: it may have been passed over.
                reason = "the server takes it for a repeat, and does not know any more what became of it"
                self.queue.finish(message, Outcome.DEAD, reason=reason)
            else:
                self.queue.finish(message, Outcome.ACKNOWLEDGED, answer=value)
