"""A message on its way out, and the receipt that tells what became of it."""

import asyncio
from collections.abc import Generator
from copy import copy
from typing import Any, Final

from attrs import define, field

from realtime_fsm.engine.payload import Payload
from realtime_fsm.machine.delivery import Delivery, Outcome
from realtime_fsm.machine.errors import DeliveryError

RESENT: Final = frozenset({Delivery.AT_LEAST_ONCE, Delivery.EXACTLY_ONCE})
"""Deliveries whose messages are sent again until they are acknowledged."""

_REMEDIES: Final = {
    Outcome.DROPPED: "Emit it again when connected, or use a delivery that waits in the outbox.",
    Outcome.LOST: "Whether it arrived is not known; use AT_LEAST_ONCE to have it sent again.",
    Outcome.UNACKNOWLEDGED: "The server's handler must call back; for one that does not, use AT_MOST_ONCE.",
    Outcome.EXPIRED: "Raise its time-out.",
    Outcome.REFUSED: "See the server's reason.",
}


class Receipt:
    """What became of a message. Await it to wait for the end, as often and from as many tasks as needed.

    Awaiting returns the acknowledgement's payload (``None`` where none was asked for: see ``outcome``),
    and raises ``DeliveryError`` when the message was not delivered. Cancelling a waiter cancels only that
    waiter: the message goes on.

    Attributes:
        event: Name of the event.
        message_id: Identity of the message; the same however often it is sent.
        outcome: What became of it so far.
    """

    __slots__ = ("_answer", "_error", "_future", "event", "message_id", "outcome")

    def __init__(self, event: str, message_id: str) -> None:
        self.event = event
        self.message_id = message_id
        self.outcome = Outcome.PENDING
        self._answer: Any = None
        self._error: DeliveryError | None = None
        self._future: asyncio.Future[None] | None = None

    @property
    def is_settled(self) -> bool:
        """Whether it is decided."""
        return self.outcome is not Outcome.PENDING

    def __await__(self) -> Generator[Any, None, Any]:
        if not self.is_settled:
            if self._future is None:
                self._future = asyncio.get_running_loop().create_future()
            yield from asyncio.shield(self._future).__await__()
        if self._error is not None:
            raise copy(self._error)  # one that is raised again and again collects frames
        return self._answer

    def __repr__(self) -> str:
        return f"<Receipt {self.message_id} {self.event!r} {self.outcome.value}>"

    def settle(self, outcome: Outcome, *, answer: Any = None, reason: str = "") -> bool:
        """Decide it, once. For the engine.

        Returns:
            Whether this call decided it; ``False`` when it had been decided before.
        """
        if self.is_settled:
            return False
        self.outcome = outcome
        self._answer = answer
        if not outcome.is_delivered:
            self._error = DeliveryError(
                f"Message {self.message_id} ({self.event!r}) is {outcome.value}: {reason}.",
                outcome=outcome.value,
                remedy=_REMEDIES[outcome],
            )
        if self._future is not None:
            self._future.set_result(None)
        return True


@define(eq=False, kw_only=True)
class Message:
    """A message from ``emit`` to its end. Encoded once, when it was accepted.

    Attributes:
        event: Name of the event.
        payload: The encoded arguments, the event's name first.
        args: The arguments as given, for publishing over HTTP.
        delivery: What was promised.
        receipt: What the caller holds.
        wants_ack: Whether the server is asked to acknowledge it.
        sent_at: When it was last handed to the network, on the loop's clock; ``None`` before.
        size_bytes: Of the payload, kept because the outbox adds and subtracts it.
    """

    event: str
    payload: Payload
    args: tuple[Any, ...]
    delivery: Delivery
    receipt: Receipt
    wants_ack: bool
    sent_at: float | None = None
    size_bytes: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.size_bytes = self.payload.size_bytes

    @property
    def is_resent(self) -> bool:
        """Whether it is sent again after a loss."""
        return self.delivery in RESENT
