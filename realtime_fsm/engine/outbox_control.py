"""``realtime.outbox``: the outbox as its user sees it."""

from collections.abc import Collection

from attrs import evolve, frozen

from realtime_fsm.engine.message import DeadLetter, Receipt
from realtime_fsm.engine.outbound_queue import OutboundQueue
from realtime_fsm.engine.outbox import Outbox
from realtime_fsm.machine.delivery import Outcome


@frozen
class OutboxControl:
    """The outbox of a client: ``realtime.outbox``.

    Args:
        outbox: Where messages are kept.
        queue: What is owed.
    """

    _outbox: Outbox
    _queue: OutboundQueue

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def size_bytes(self) -> int:
        """Bytes of payload of the messages that have not come to their end."""
        return self._queue.size_bytes

    def clear(self) -> tuple[Receipt, ...]:
        """Drop all messages that wait; those in flight go on. Return the receipts, which say so."""
        waiting = list(self._queue.waiting)
        for message in waiting:
            self._queue.finish(message, Outcome.DROPPED, reason="the outbox was cleared")
        return tuple(message.receipt for message in waiting)

    async def dead_letters(self) -> list[DeadLetter]:
        """Return the messages that were given up, the oldest first.

        Raises:
            OutboxStorageError: If the outbox cannot be opened.
        """
        await self._queue.open()
        return await self._outbox.dead_letters()

    async def retry(self, message_ids: Collection[str] | None = None) -> tuple[Receipt, ...]:
        """Send dead letters again: those of these ids, or all.

        Each keeps its id and gets a new number: whether the server has applied it before is for whoever
        decides this to know.

        Returns:
            Their new receipts.

        Raises:
            OutboxStorageError: If one cannot be kept. It stays among the dead letters, and all behind it.
            OutboxFullError: If there is no room for one. As above.
        """
        receipts = []
        for letter in await self.dead_letters():
            message_id = letter.message.receipt.message_id
            if message_ids is not None and message_id not in message_ids:
                continue
            receipt = Receipt(letter.message.event, message_id)
            message = evolve(
                letter.message, receipt=receipt, attempts=0, expires_at=None, is_stored=False, sent_at=None
            )
            # First kept, then taken from the dead: a crash in between leaves it twice, and not lost.
            if (waiting := self._queue.submit(message)) is not None:
                await waiting
            await self._outbox.take_dead([message_id])
            receipts.append(receipt)
        return tuple(receipts)

    async def drop(self, message_ids: Collection[str] | None = None) -> int:
        """Delete dead letters for good: those of these ids, or all; return how many there were.

        Raises:
            OutboxStorageError: If the outbox cannot be used.
        """
        await self._queue.open()
        return len(await self._outbox.take_dead(message_ids))
