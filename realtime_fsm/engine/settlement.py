"""The end of a message: off the books, out of the outbox, its receipt settled and counted, in one step."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

from realtime_fsm.engine.message import DeadLetter, Message
from realtime_fsm.engine.outbox import Outbox
from realtime_fsm.engine.port import WallClock
from realtime_fsm.engine.send_queue import SendQueue
from realtime_fsm.engine.statistics import Statistics
from realtime_fsm.machine.delivery import Delivery, Outcome
from realtime_fsm.machine.errors import DeliveryError, RealtimeError

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
