"""From the outbox to the network: in order, within a window, and again after a loss."""

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from realtime_fsm.engine.answer import unwrap
from realtime_fsm.engine.link import Link
from realtime_fsm.engine.message import Message
from realtime_fsm.engine.outbox import MemoryOutbox
from realtime_fsm.engine.statistics import Statistics
from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.machine.delivery import Delivery, Outcome
from realtime_fsm.machine.errors import DeliveryError


class Sender:
    """Moves messages from the outbox to the link, and settles their receipts.

    It is not a task: accepting a message, an acknowledgement and room on the link each pump it. So a message
    costs no wake-up, and nothing can be forgotten between two of them.

    Args:
        config: Window, ack time-out and bounds.
        statistics: What it counts into.
        time: The loop's clock.
    """

    def __init__(self, *, config: RealtimeConfig, statistics: Statistics, time: Callable[[], float]) -> None:
        self._config = config
        self._statistics = statistics
        self._time = time
        self.outbox = MemoryOutbox(max_messages=config.outbox_max_messages, max_bytes=config.outbox_max_bytes)
        self._link: Link | None = None
        self._in_flight: dict[Message, None] = {}  # in the order in which they were sent
        self._unwritten: deque[tuple[int, Message]] = deque()
        self._submitted = asyncio.Event()
        self._progress = asyncio.Event()

    @property
    def in_flight_count(self) -> int:
        """Messages sent and not yet acknowledged."""
        return len(self._in_flight)

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits, nothing is in flight, and all has been written."""
        return not (self.outbox.has_waiting or self._in_flight or self._unwritten)

    @property
    def oldest_in_flight_at(self) -> float | None:
        """When the oldest unacknowledged message was sent, on the loop's clock."""
        return next((message.sent_at for message in self._in_flight), None)

    async def drained(self) -> None:
        """Wait until nothing is left to do, or the link has ended. The caller bounds it."""
        while self._link is not None and not self.is_idle:
            self._progress.clear()
            await self._progress.wait()

    def submit(self, message: Message) -> bool:
        """Accept a message: it is sent now, or stored until it can be.

        Returns:
            Whether it was handed to the network at once.

        Raises:
            OutboxFullError: If there is no room to store it. Nothing was accepted.
        """
        if message.delivery is Delivery.VOLATILE and not self._may_send_now():
            self._statistics.accepted += 1
            self._settle(message, Outcome.DROPPED, reason="it is volatile and the connection is not ready")
            return False
        self.outbox.put(message)
        self._statistics.accepted += 1
        self._submitted.set()
        self.pump()
        return message.sent_at is not None

    def attach(self, link: Link) -> None:
        """Begin to send over a link that has become live."""
        self._link = link
        self.pump()

    def detach(self) -> None:
        """Stop sending, because the link has ended. What may be sent again goes back in order."""
        self._link = None
        self._progress.set()
        for _, message in self._unwritten:
            self._lose(message, "the connection ended before it was written")
        self._unwritten.clear()
        again = []
        for message in self._in_flight:
            if message.is_resent:
                again.append(message)
            else:
                self._lose(message, "the connection ended before it was acknowledged")
        self._in_flight.clear()
        self.outbox.give_back(again)

    def pump(self) -> None:
        """Send what may be sent now."""
        link, outbox = self._link, self.outbox
        if link is None:
            return
        window = self._config.max_in_flight
        while (message := outbox.peek()) is not None and link.room > 0:
            if message.wants_ack and len(self._in_flight) >= window:
                return
            outbox.take()
            self._send(link, message)

    def on_written(self, written: int) -> None:
        """Settle what has been written and wanted no acknowledgement; then send on."""
        unwritten = self._unwritten
        while unwritten and unwritten[0][0] <= written:
            _, message = unwritten.popleft()
            self._finish(message, Outcome.SENT)
        self.pump()

    def report_unacknowledged(self, sent_before: float) -> list[Message]:
        """Settle messages that a live server has left unacknowledged for too long.

        The transport is ordered and reliable, so a server that answered a later probe has had them: they
        are not sent again, which would repeat their effect.

        Args:
            sent_before: When the probe was sent that has been answered, on the loop's clock.

        Returns:
            The messages, so that they can be reported.
        """
        limit = min(sent_before, self._time() - self._config.ack_timeout)
        late = [m for m in self._in_flight if m.sent_at is not None and m.sent_at <= limit]
        for message in late:
            del self._in_flight[message]
            reason = f"the server is alive and did not acknowledge it within {self._config.ack_timeout} s"
            self._finish(message, Outcome.UNACKNOWLEDGED, reason=reason)
        self.pump()
        return late

    def withdraw(self, message: Message, *, reason: str) -> None:
        """Give a message up because its caller no longer waits for it."""
        if message in self._in_flight:
            del self._in_flight[message]
            self._finish(message, Outcome.EXPIRED, reason=reason)
            self.pump()
        elif self.outbox.withdraw(message):
            self._settle(message, Outcome.EXPIRED, reason=reason)

    async def next_batch(self, limit: int) -> list[Message]:
        """Wait for messages, and take up to ``limit`` to be published over HTTP, in order.

        A message with binary parts cannot go over HTTP: it waits for the socket, and all behind it too,
        because the order is a promise.
        """
        while not (taken := self._take_batch(limit)):
            self._submitted.clear()
            await self._submitted.wait()
        return taken

    def _take_batch(self, limit: int) -> list[Message]:
        taken: list[Message] = []
        room = self._config.max_message_bytes  # a server that takes one message takes a request of its size
        while len(taken) < limit and (message := self.outbox.peek()) and not message.payload.attachments:
            if taken and message.size_bytes > room:
                break
            room -= message.size_bytes
            taken.append(self.outbox.take())
        return taken

    def published(self, message: Message, answer: dict[str, Any]) -> None:
        """Settle a published message by the server's answer."""
        self._statistics.published += 1
        self._settle_by_answer(message, answer)

    def unpublished(self, messages: list[Message], *, maybe_arrived: bool) -> None:
        """Take back messages whose publishing failed: they wait again, or are lost, by their delivery.

        Args:
            messages: The ones that were not answered.
            maybe_arrived: Whether the server may have had them all the same.
        """
        again = []
        for message in messages:
            if message.is_resent or not maybe_arrived:
                again.append(message)
            else:
                self._lose(message, "publishing it over HTTP broke off")
        self.outbox.give_back(again)
        if again:
            self._submitted.set()

    def abandon(self, *, reason: str) -> list[Message]:
        """Give everything up that is left; return it, so that the caller can keep it."""
        left = [*self._in_flight, *self.outbox.clear()]
        for message in self._in_flight:
            self.outbox.remove(message)
        self._in_flight.clear()
        for message in left:
            self._settle(message, Outcome.DROPPED, reason=reason)
        return left

    def _may_send_now(self) -> bool:
        link = self._link
        return link is not None and link.room > 0 and not self.outbox.has_waiting

    def _send(self, link: Link, message: Message) -> None:
        self._statistics.sent += 1
        self._statistics.resent += message.sent_at is not None
        message.sent_at = self._time()
        if message.wants_ack:
            self._in_flight[message] = None
            link.send(message.payload, partial(self._acknowledged, message))
        else:
            self._unwritten.append((link.send(message.payload), message))

    def _acknowledged(self, message: Message, args: list[Any]) -> None:
        if message not in self._in_flight:
            self._statistics.dropped["late acknowledgement"] += 1
            return
        del self._in_flight[message]
        if self._config.dialect.wraps_answers:
            self._settle_by_answer(message, args[0] if args else None)
        else:
            answer = args[0] if len(args) == 1 else (args or None)
            self._finish(message, Outcome.ACKNOWLEDGED, answer=answer)
        self.pump()

    def _settle_by_answer(self, message: Message, answer: object) -> None:
        try:
            value = unwrap(answer)
        except DeliveryError as error:
            self._finish(message, Outcome.REFUSED, reason=error.message)
        else:
            self._finish(message, Outcome.ACKNOWLEDGED, answer=value)

    def _lose(self, message: Message, reason: str) -> None:
        self._finish(message, Outcome.LOST, reason=reason)

    def _finish(self, message: Message, outcome: Outcome, *, answer: Any = None, reason: str = "") -> None:
        self.outbox.remove(message)
        self._settle(message, outcome, answer=answer, reason=reason)

    def _settle(self, message: Message, outcome: Outcome, *, answer: Any = None, reason: str = "") -> None:
        if message.receipt.settle(outcome, answer=answer, reason=reason):
            self._statistics.settled[outcome.value] += 1
            self._progress.set()
