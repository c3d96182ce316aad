"""Taking messages out of a durable outbox before they are sent, because they must never be sent twice."""

import asyncio
from collections.abc import Callable
from functools import partial
from itertools import islice, takewhile
from typing import Final

from realtime_fsm.engine.message import Message
from realtime_fsm.engine.outbox import Outbox
from realtime_fsm.engine.send_queue import SendQueue
from realtime_fsm.machine.errors import RealtimeError

_AT_ONCE: Final = 100
"""Messages claimed in one step."""

_AGAIN_AFTER: Final = 1.0
"""Seconds after which a failed claim is tried again."""


def needs_claim(message: Message) -> bool:
    """Tell whether a message must be forgotten by the outbox before it is sent."""
    return message.is_stored and not message.is_resent


class Claims:
    """Holds messages in the queue until the outbox has forgotten them for certain.

    Args:
        queue: Where they wait.
        outbox: Where they are kept.
        report: Told of errors.
        on_claimed: Called when held messages may be sent.
    """

    def __init__(
        self,
        queue: SendQueue,
        outbox: Outbox,
        *,
        report: Callable[[RealtimeError], object],
        on_claimed: Callable[[], None],
    ) -> None:
        self._queue = queue
        self._outbox = outbox
        self._report = report
        self._on_claimed = on_claimed
        self._again: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Claim the messages in front of the queue that need it."""
        batch = list(islice(takewhile(needs_claim, self._queue), _AT_ONCE))
        self._queue.hold(batch)
        claimed = self._outbox.claim(batch)
        if claimed is None:
            self._queue.release(batch)
        else:
            claimed.add_done_callback(partial(self._decided, batch))

    def stop(self) -> None:
        """Try nothing again."""
        if self._again is not None:
            self._again.cancel()

    def _decided(self, batch: list[Message], claimed: "asyncio.Future[None]") -> None:
        error = None if claimed.cancelled() else claimed.exception()
        if error is None and not claimed.cancelled():
            self._release(batch)
            return
        if isinstance(error, RealtimeError):
            self._report(error)
        self._again = asyncio.get_running_loop().call_later(_AGAIN_AFTER, self._release, batch)

    def _release(self, batch: list[Message]) -> None:
        self._queue.release(batch)
        self._on_claimed()
