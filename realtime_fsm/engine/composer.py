"""From what the caller gives to a message: checked and encoded, or refused as a whole."""

import math
from typing import Any

from attrs import frozen

from realtime_fsm.engine.message import RESENT, Message, Receipt
from realtime_fsm.engine.payload import check_event_name, encode
from realtime_fsm.engine.port import WallClock
from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.machine.delivery import Delivery
from realtime_fsm.machine.errors import InvalidArgumentError, UnsupportedDeliveryError


@frozen
class Composer:
    """Makes messages.

    Attributes:
        config: The dialect, the defaults, and the largest size of a message.
        wall: The wall clock.
    """

    config: RealtimeConfig
    wall: WallClock

    def compose(
        self,
        event: str,
        data: Any,
        delivery: Delivery | None = None,
        *,
        ttl: float | None = None,
        is_call: bool = False,
    ) -> Message:
        """Make a message.

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
        config = self.config
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
            expires_at=None if ttl is None else self.wall() + ttl,
        )
