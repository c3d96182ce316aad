"""Messages and dead letters for the tests of the outboxes."""

import asyncio
from collections.abc import Iterable
from typing import Any

from realtime_fsm.engine.message import DeadLetter, Message, Receipt
from realtime_fsm.engine.outbox import Outbox
from realtime_fsm.engine.payload import Payload
from realtime_fsm.machine.delivery import Delivery


def message(sequence: int, **changes: Any) -> Message:
    """Return a message that was accepted."""
    event = changes.get("event", "note")
    fields: dict[str, Any] = {
        "event": event,
        "payload": Payload(f'["note",{sequence}]'),
        "delivery": Delivery.AT_LEAST_ONCE,
        "wants_ack": True,
        "receipt": Receipt(event, f"c-{sequence}"),
        "sequence": sequence,
        "accepted_at": 1_700_000_000.25 + sequence,
    }
    return Message(**fields | changes)


def letter(sequence: int, reason: str = "refused", **changes: Any) -> DeadLetter:
    """Return a dead letter."""
    return DeadLetter(message=message(sequence, **changes), reason=reason, died_at=1_700_000_100.5 + sequence)


def fields_of(kept: Message) -> dict[str, Any]:
    """Return what an outbox has to keep of a message."""
    return {
        "event": kept.event,
        "payload": kept.payload,
        "delivery": kept.delivery,
        "wants_ack": kept.wants_ack,
        "receipt": (kept.receipt.event, kept.receipt.message_id),
        "sequence": kept.sequence,
        "accepted_at": kept.accepted_at,
        "expires_at": kept.expires_at,
        "attempts": kept.attempts,
        "size_bytes": kept.size_bytes,
    }


def sequences(kept: Iterable[Message | DeadLetter]) -> list[int]:
    """Return the numbers of messages or dead letters, in their order."""
    return [item.message.sequence if isinstance(item, DeadLetter) else item.sequence for item in kept]


async def append_all(outbox: Outbox, messages: Iterable[Message]) -> None:
    """Append messages, and wait until they are kept."""
    futures = [outbox.append(one) for one in messages]
    await asyncio.gather(*(future for future in futures if future is not None))
