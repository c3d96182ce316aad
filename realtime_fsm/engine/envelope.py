"""What a message says of itself on the wire, beside its arguments: who sent it, and as which one."""

import json
from typing import Any

from realtime_fsm.engine.message import Message
from realtime_fsm.engine.payload import Payload
from realtime_fsm.machine.delivery import Delivery
from realtime_fsm.machine.dialect import Dialect


def identity_of(message: Message) -> dict[str, Any]:
    """Return what identifies a message, the same however often and by whichever way it is sent."""
    identity: dict[str, Any] = {"message_id": message.receipt.message_id}
    if message.delivery is Delivery.EXACTLY_ONCE:
        identity |= {"client_id": message.client_id, "sequence": message.sequence}
    return identity


def addressed(message: Message, dialect: Dialect) -> Payload:
    """Return a message's payload as it goes over the socket: the identity is its last argument."""
    payload = message.payload
    if not dialect.message_ids:
        return payload
    identity = json.dumps(identity_of(message), separators=(",", ":"))
    return Payload(f"{payload.text[:-1]},{identity}]", payload.attachments)


def published(message: Message) -> dict[str, Any]:
    """Return a message as it goes over HTTP."""
    args = message.args
    data = {"data": args[0]} if len(args) == 1 else {"args": args}
    return {**identity_of(message), "event": message.event, **data}
