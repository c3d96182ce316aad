"""The outbox: where accepted messages are kept until their end. A port, and an implementation in memory."""

import asyncio
import uuid
from collections.abc import Collection, Sequence
from typing import Protocol

from attrs import field, frozen

from realtime_fsm.engine.message import DeadLetter, Message


@frozen(kw_only=True)
class OutboxContents:
    """The contents of an outbox when it was opened.

    Attributes:
        client_id: Identity of the client whose messages these are; the same as long as the outbox lives.
        last_sequence: The highest number that any message ever had, whatever became of it; 0 for none.
        waiting: The messages, by rising sequence, each with a fresh receipt, and ``is_stored`` set.
    """

    client_id: str
    last_sequence: int = 0
    waiting: Sequence[Message] = ()


class Outbox(Protocol):
    """Keeps messages. It knows nothing of order, bounds or the network: those are the sender's.

    Used by one client at a time, on its loop's thread: opened, used, closed; and it may be opened again.
    Except for ``open``, ``close`` and the dead letters nothing here waits.
    """

    @property
    def is_durable(self) -> bool:
        """True if what it holds outlives the process."""

    async def open(self) -> OutboxContents:
        """Open it and return what it holds.

        Raises:
            OutboxStorageError: If it cannot be opened, or is in use by another client.
        """

    def append(self, message: Message) -> asyncio.Future[None] | None:
        """Keep a message.

        Returns:
            ``None`` if it is kept already; otherwise a future that is resolved, in the order of the calls,
            when it is kept (``is_stored`` is set then), or fails with ``OutboxStorageError``: then it is not
            kept.
        """

    def remove(self, message: Message) -> None:
        """Forget a kept message that has come to its end. Soon, not at once: a crash may bring it back."""

    def claim(self, messages: Collection[Message]) -> asyncio.Future[None] | None:
        """Forget kept messages for certain, before they are sent: they must never be sent twice.

        Returns:
            As ``append``; ``is_stored`` is cleared.
        """

    def charge(self, message: Message) -> None:
        """Keep a kept message's ``attempts``. Soon, not at once."""

    def bury(self, letter: DeadLetter) -> None:
        """Move a message to the dead letters. Soon, not at once. The oldest make room where there is none."""

    async def dead_letters(self) -> list[DeadLetter]:
        """Return the dead letters, the oldest first."""

    async def take_dead(self, message_ids: Collection[str] | None = None) -> list[DeadLetter]:
        """Remove and return dead letters, the oldest first: by their messages' ids, or all for ``None``."""

    async def close(self) -> None:
        """Write what is left to be written, and release everything. Bounded; safe to call twice."""


def _new_client_id() -> str:
    return uuid.uuid4().hex[:12]


@frozen
class MemoryOutbox:
    """The outbox in memory: the sender's queue is all there is, and it ends with the process.

    Args:
        max_dead_letters: Dead letters kept.
    """

    max_dead_letters: int = 1000
    client_id: str = field(factory=_new_client_id)
    _dead: dict[str, DeadLetter] = field(factory=dict, init=False)

    @property
    def is_durable(self) -> bool:
        """False: it ends with the process."""
        return False

    async def open(self) -> OutboxContents:
        """Return that there is nothing."""
        return OutboxContents(client_id=self.client_id)

    def append(self, message: Message) -> None:
        """Do nothing: the sender holds it."""

    def remove(self, message: Message) -> None:
        """Do nothing: the sender's queue is all there is."""

    def claim(self, messages: Collection[Message]) -> None:
        """Do nothing: there is no file that could bring them back."""

    def charge(self, message: Message) -> None:
        """Do nothing: the message itself counts."""

    def bury(self, letter: DeadLetter) -> None:
        """Keep a dead letter."""
        message_id = letter.message.receipt.message_id
        self._dead.pop(message_id, None)  # one that died before is the youngest again
        self._dead[message_id] = letter
        if len(self._dead) > self.max_dead_letters:
            del self._dead[next(iter(self._dead))]

    async def dead_letters(self) -> list[DeadLetter]:
        """Return the dead letters, the oldest first."""
        return list(self._dead.values())

    async def take_dead(self, message_ids: Collection[str] | None = None) -> list[DeadLetter]:
        """Remove and return dead letters."""
        wanted = list(self._dead) if message_ids is None else [i for i in self._dead if i in message_ids]
        return [self._dead.pop(message_id) for message_id in wanted]

    async def close(self) -> None:
        """Do nothing: what waits is the sender's, and the dead letters stay."""
