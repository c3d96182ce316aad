"""From what the caller gives to a message: checked, numbered and encoded, or refused as a whole."""

import uuid
from typing import Any

from attrs import define, field

from realtime_fsm.engine.message import RESENT, Message, Receipt
from realtime_fsm.engine.payload import check_event_name, encode
from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.machine.delivery import Delivery
from realtime_fsm.machine.errors import UnsupportedDeliveryError


@define(eq=False)
class Composer:
    """Makes messages, each with an identity that it keeps however often it is sent.

    Attributes:
        config: The dialect, and the largest size of a message.
        client_id: Identity of this client; messages are numbered within it.
    """

    config: RealtimeConfig
    client_id: str = field(factory=lambda: uuid.uuid4().hex[:12])
    _sequence: int = field(default=0, init=False)

    def compose(
        self, event: str, data: Any, delivery: Delivery | None = None, *, wants_ack: bool = False
    ) -> Message:
        """Make a message.

        Args:
            event: Its name.
            data: JSON, or bytes within it; a tuple is several arguments, ``None`` is none.
            delivery: What is promised; by default ``config.default_delivery``.
            wants_ack: Ask for an acknowledgement even where the delivery does not need one.

        Raises:
            InvalidArgumentError: If it cannot be sent, ever.
            UnsupportedDeliveryError: If the delivery is not offered.
        """
        delivery = self.config.default_delivery if delivery is None else Delivery(delivery)
        if delivery is Delivery.EXACTLY_ONCE:
            raise UnsupportedDeliveryError(
                "EXACTLY_ONCE is not offered by this version.",
                remedy="Use AT_LEAST_ONCE, and let the server drop repeats by the message's id.",
            )
        message_id = f"{self.client_id}-{self._sequence + 1}"
        args = data if isinstance(data, tuple) else () if data is None else (data,)
        wire: list[Any] = [check_event_name(event), *args]
        if self.config.dialect.message_ids:
            wire.append({"message_id": message_id})
        payload = encode(wire, what=f"The event {event!r}", max_bytes=self.config.max_message_bytes)
        self._sequence += 1
        return Message(
            event=event,
            payload=payload,
            args=args,
            delivery=delivery,
            receipt=Receipt(event, message_id),
            wants_ack=wants_ack or delivery in RESENT,
        )
