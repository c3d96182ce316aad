"""A message on its way out, and the receipt that tells what became of it."""

import asyncio
import json
from collections.abc import Generator
from copy import copy
from typing import Any, Final

from attrs import define, field, frozen

from realtime_fsm.engine.payload import Payload
from realtime_fsm.machine.delivery import Delivery, Outcome
from realtime_fsm.machine.errors import DeliveryError, WrongLoopError
from realtime_fsm.machine.redaction import redacted

RESENT: Final = frozenset({Delivery.AT_LEAST_ONCE, Delivery.EXACTLY_ONCE})
"""Deliveries whose messages are sent again until they are acknowledged."""

_REMEDIES: Final = {
    Outcome.DROPPED: "Emit it again when connected, or use a delivery that waits in the outbox.",
    Outcome.LOST: "Whether it arrived is not known; use AT_LEAST_ONCE to have it sent again.",
    Outcome.UNACKNOWLEDGED: "The server's handler must call back; for one that does not, use AT_MOST_ONCE.",
    Outcome.EXPIRED: "Raise its time-out.",
    Outcome.REFUSED: "See the server's reason.",
    Outcome.DEAD: "It is among the dead letters of `realtime.outbox`: mend the cause, and retry it there.",
    Outcome.STORED: "It is kept in the outbox, and sent when the client starts again.",
}


class Receipt:
    """The fate of a message. Await it to wait for the end, as often and from as many tasks as needed.

    Awaiting returns the acknowledgement's payload (``None`` where none was asked for: see ``outcome``),
    and raises ``DeliveryError`` when the message was not delivered. Cancelling a waiter cancels only that
    waiter: the message goes on.

    Attributes:
        event: Name of the event.
        message_id: Identity of the message; the same however often it is sent. Given when it is accepted.
        outcome: What became of it so far.
        answer: The acknowledgement's payload; ``None`` before it, and where none was asked for.
        reason: Why it was not delivered, as the rest of a sentence; empty where it was, or may still be.
    """

    __slots__ = ("__weakref__", "_error", "_future", "answer", "event", "message_id", "outcome", "reason")

    def __init__(self, event: str, message_id: str = "") -> None:
        self.event = event
        self.message_id = message_id
        self.outcome = Outcome.PENDING
        self.answer: Any = None
        self.reason = ""
        self._error: DeliveryError | None = None
        self._future: asyncio.Future[None] | None = None

    @property
    def is_settled(self) -> bool:
        """True once it is decided."""
        return self.outcome is not Outcome.PENDING

    def __await__(self) -> Generator[Any, None, Any]:
        if not self.is_settled:
            loop = asyncio.get_running_loop()
            if self._future is None or self._future.get_loop().is_closed():
                self._future = loop.create_future()
            elif self._future.get_loop() is not loop:
                raise WrongLoopError(f"The receipt of {self.event!r} is awaited on another event loop.")
            yield from asyncio.shield(self._future).__await__()
        if self._error is not None:
            raise copy(self._error)  # one that is raised again and again collects frames
        return self.answer

    def __repr__(self) -> str:
        return f"<Receipt {self.message_id} {self.event!r} {self.outcome.value}>"

    def settle(self, outcome: Outcome, *, answer: Any = None, reason: str = "") -> bool:
        """Decide it, once. For the engine.

        Returns:
            Whether this call decided it; ``False`` when it had been decided before.
        """
        if self.outcome is not Outcome.PENDING:
            return False
        self.outcome = outcome
        self.answer = answer
        if not outcome.is_delivered:
            self._fail(outcome, reason)
        if self._future is not None and not self._future.get_loop().is_closed():
            self._future.set_result(None)
        return True

    def doubt(self, *, reason: str) -> None:
        """Take SENT back: nobody has seen that it was read, and nobody will. For the engine."""
        self.outcome = Outcome.LOST
        self._fail(Outcome.LOST, reason)

    def _fail(self, outcome: Outcome, reason: str) -> None:
        self.reason = reason
        self._error = DeliveryError(
            f"Message {self.message_id} ({self.event!r}) is {outcome.value}: {reason}.",
            outcome=outcome.value,
            remedy=_REMEDIES[outcome],
        )


@define(eq=False, kw_only=True)
class Message:
    """A message from ``emit`` to its end. Encoded once, when it was accepted.

    Attributes:
        event: Name of the event.
        payload: The encoded arguments, the event's name first; the identity is not in it.
        delivery: What was promised.
        wants_ack: Whether the server is asked to acknowledge it.
        receipt: What the caller holds.
        is_call: Whether somebody waits for the answer, so that it is worth nothing to the next process.
        client_id: Who numbered it: the opening of the outbox that accepted it, or this run of the client.
        sequence: Its number among those of the client; they rise, and none is used twice. 0 until the
            message is accepted.
        accepted_at: Seconds since the Unix epoch.
        expires_at: When it is no longer to be sent, in the same; ``None`` for never.
        attempts: How often a connection ended while it was the first one that waited for its
            acknowledgement.
        sent_at: When it was last handed to the network, on the loop's clock; ``None`` before.
        is_stored: Whether a durable outbox holds it.
        is_damaged: Whether it has changed while it was stored, so that it must never be sent.
        overtakes: Whether it is one of the first words on a connection, which overtake all others.
        size_bytes: Of the payload, kept because the queue adds and subtracts it.
        repeats: How often it was sent again on a live connection, for want of an acknowledgement.
        is_retried: Whether it was a dead letter, and still has the number of its first life.
        is_resent: Whether it is sent again after a loss; kept because it is asked at every step.
    """

    event: str
    payload: Payload
    delivery: Delivery
    wants_ack: bool
    receipt: Receipt
    is_call: bool = False
    client_id: str = ""
    sequence: int = 0
    accepted_at: float = 0.0
    expires_at: float | None = None
    attempts: int = 0
    sent_at: float | None = None
    is_stored: bool = False
    is_damaged: bool = False
    overtakes: bool = False
    repeats: int = 0
    is_retried: bool = False
    size_bytes: int = field(init=False)
    is_resent: bool = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.size_bytes = self.payload.size_bytes
        self.is_resent = self.delivery in RESENT

    @property
    def args(self) -> list[Any]:
        """The arguments; placeholders stand where binary parts belong."""
        args: list[Any] = json.loads(self.payload.text)
        return args[1:]


@frozen(kw_only=True)
class DeadLetter:
    """A message that was given up, kept for a person to decide about.

    Attributes:
        message: The message, as it was.
        reason: Why it was given up.
        died_at: Seconds since the Unix epoch.
        is_refused: Whether the server has answered that it will not take it: it took no effect, and its
            number is used up. Otherwise the server may have had it.
    """

    message: Message
    reason: str
    died_at: float
    is_refused: bool = False


# What a message says of itself on the wire, beside its arguments: who sent it, and as which one.


def identity_of(message: Message) -> dict[str, Any]:
    """Return what identifies a message, the same however often and by whichever way it is sent."""
    identity: dict[str, Any] = {"message_id": message.receipt.message_id}
    if message.delivery is Delivery.EXACTLY_ONCE:
        identity |= {"client_id": message.client_id, "sequence": message.sequence}
    return identity


def addressed(message: Message) -> Payload:
    """Return a message's payload as it goes over the socket: the identity is its last argument."""
    payload, identity = message.payload, json.dumps(identity_of(message), separators=(",", ":"))
    size_bytes = message.size_bytes + len(identity) + 1
    return Payload(f"{payload.text[:-1]},{identity}]", payload.attachments, size_bytes)


def published(message: Message) -> dict[str, Any]:
    """Return a message as it goes over HTTP."""
    args = message.args
    data = {"data": args[0]} if len(args) == 1 else {"args": args}
    return {**identity_of(message), "event": message.event, **data}


# Answers of a server that wraps them: ``{"ok": true, "answer": ...}``, or ``"error"`` where it refuses.


def unwrap(answer: object) -> Any:
    """Return what a wrapped answer holds.

    Raises:
        DeliveryError: If the server refused, or if this is not a wrapped answer.
    """
    if not isinstance(answer, dict) or "ok" not in answer:
        raise DeliveryError(
            "the server's answer is not of its dialect",
            outcome=Outcome.REFUSED.value,
            remedy="Check that `dialect` is the server's.",
        )
    if answer["ok"] is True:
        return answer.get("answer")
    raise DeliveryError(refusal_text(answer.get("error")), outcome=Outcome.REFUSED.value)


def refusal_text(error: object) -> str:
    """Return the words of a server's ``error`` object, bounded in length, and without JSON Web Tokens."""
    if isinstance(error, dict):
        error = error.get("message") or error.get("code")
    return redacted(str(error or "no reason given"))[:200]
