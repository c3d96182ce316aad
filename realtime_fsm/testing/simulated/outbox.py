"""A durable outbox without a disk: commits take virtual time, fail on demand, and survive a crash."""

import asyncio
from collections import deque
from collections.abc import Callable, Collection

from attrs import define, evolve, field

from realtime_fsm.engine.message import DeadLetter, Message, Receipt
from realtime_fsm.engine.outbox import OutboxContents, new_client_id
from realtime_fsm.machine.errors import OutboxStorageError


@define(eq=False)
class SimulatedDisk:
    """A disk that outlives a crash. Give the same one to the outbox of the next start.

    Attributes:
        last_sequence: The highest number that any message had.
        waiting: The kept messages, by number.
        dead: The dead letters, by message id.
        owner: The outbox that is open on it.
    """

    last_sequence: int = 0
    waiting: dict[int, Message] = field(factory=dict)
    dead: dict[str, DeadLetter] = field(factory=dict)
    owner: "SimulatedOutbox | None" = None

    def crash(self) -> None:
        """End the process that uses it: whatever it has not committed by now is lost."""
        if self.owner is not None:
            self.owner.lose_power()

    def copy(self) -> "SimulatedDisk":
        """Return a copy, as a backup is, that nobody uses."""
        waiting = {number: evolve(message) for number, message in self.waiting.items()}
        return SimulatedDisk(last_sequence=self.last_sequence, waiting=waiting, dead=dict(self.dead))


class SimulatedOutbox:
    """An ``Outbox`` on a ``SimulatedDisk``.

    Args:
        disk: What it is kept on.
        delay: Seconds that a commit takes.
        max_dead_letters: Dead letters kept.

    Attributes:
        is_full: Whether commits of new messages fail, as on a full disk.
    """

    def __init__(
        self, disk: SimulatedDisk | None = None, *, delay: float = 0.005, max_dead_letters: int = 1000
    ) -> None:
        self.disk = SimulatedDisk() if disk is None else disk
        self.is_full = False
        self._delay = delay
        self._max_dead_letters = max_dead_letters
        self._is_alive = False
        self._commits: dict[asyncio.Future[None], asyncio.Future[None]] = {}  # what the caller has, by ours
        self._queue: deque[Callable[[], None]] = deque()  # timers that are due together keep no order
        self._removed: set[int] = set()  # while they were being committed

    @property
    def is_durable(self) -> bool:
        """True: it outlives a crash."""
        return True

    async def open(self) -> OutboxContents:
        """Return what the disk holds.

        Raises:
            OutboxStorageError: If another outbox is open on the disk.
        """
        if self.disk.owner is not None:
            raise OutboxStorageError("The simulated disk is in use.")
        await asyncio.sleep(self._delay)
        self.disk.owner = self
        self._is_alive = True
        waiting = [_restored(message) for _, message in sorted(self.disk.waiting.items())]
        return OutboxContents(
            client_id=new_client_id(), last_sequence=self.disk.last_sequence, waiting=waiting
        )

    def append(self, message: Message) -> asyncio.Future[None]:
        """Keep a message after the delay, unless the disk is full."""
        return self._commit((message,), kept=True)

    def remove(self, message: Message) -> None:
        """Forget a message, at once."""
        if self._is_alive:
            self._forget(message.sequence)

    def claim(self, messages: Collection[Message]) -> asyncio.Future[None] | None:
        """Forget messages after the delay, unless the disk is full."""
        return self._commit(tuple(messages), kept=False) if messages else None

    def charge(self, message: Message) -> None:
        """Keep the attempts, at once."""
        if self._is_alive and message.sequence in self.disk.waiting:
            self.disk.waiting[message.sequence].attempts = message.attempts

    def probe(self, size_bytes: int) -> asyncio.Future[None]:
        """Keep nothing after the delay, unless the disk is full."""
        del size_bytes
        return self._commit((), kept=True)

    def bury(self, letter: DeadLetter) -> None:
        """Move a message to the dead letters, at once."""
        if self._is_alive:
            dead, message_id = self.disk.dead, letter.message.receipt.message_id
            self._forget(letter.message.sequence)
            dead.pop(message_id, None)  # one that died before is the youngest again
            dead[message_id] = letter
            if len(dead) > self._max_dead_letters:
                del dead[next(iter(dead))]

    async def dead_letters(self) -> list[DeadLetter]:
        """Return the dead letters."""
        return list(self.disk.dead.values())

    async def take_dead(self, message_ids: Collection[str] | None = None) -> list[DeadLetter]:
        """Remove and return dead letters.

        Raises:
            OutboxStorageError: If it is not open.
        """
        if not self._is_alive:
            raise _not_open()
        wanted = [i for i in self.disk.dead if message_ids is None or i in message_ids]
        return [self.disk.dead.pop(message_id) for message_id in wanted]

    async def close(self) -> None:
        """Finish what is being committed."""
        if self._commits:
            await asyncio.wait(set(self._commits))
        self._let_go()

    def lose_power(self) -> None:
        """Commit nothing any more."""
        for ended, asked in list(self._commits.items()):
            ended.cancel()
            asked.cancel()
        self._let_go()

    def _let_go(self) -> None:
        self._is_alive = False
        if self.disk.owner is self:
            self.disk.owner = None

    def _forget(self, sequence: int) -> None:
        self.disk.waiting.pop(sequence, None)
        if self._commits:
            self._removed.add(sequence)

    def _commit(self, messages: tuple[Message, ...], *, kept: bool) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        asked: asyncio.Future[None] = loop.create_future()
        if not self._is_alive:
            asked.set_exception(_not_open())
            return asked
        ended: asyncio.Future[None] = loop.create_future()
        self._commits[ended] = asked
        if kept:
            self._removed.difference_update(message.sequence for message in messages)

        def commit() -> None:
            if ended.done():  # the power was lost
                return
            ended.set_result(None)
            if not self.is_full:
                self._write(messages, kept=kept)
            if asked.done():  # nobody waits for it any more, which changes nothing
                return
            if self.is_full:
                asked.set_exception(OutboxStorageError("The simulated disk is full."))
            else:
                asked.set_result(None)

        ended.add_done_callback(self._commits.pop)
        self._queue.append(commit)
        loop.call_later(self._delay, self._commit_next)
        return asked

    def _commit_next(self) -> None:
        self._queue.popleft()()

    def _write(self, messages: tuple[Message, ...], *, kept: bool) -> None:
        disk = self.disk
        for message in messages:
            message.is_stored = kept
            if not kept:
                disk.waiting.pop(message.sequence, None)
                continue
            disk.last_sequence = max(disk.last_sequence, message.sequence)
            if message.sequence in self._removed:
                self._removed.discard(message.sequence)
            else:
                disk.waiting[message.sequence] = evolve(message)


def _not_open() -> OutboxStorageError:
    return OutboxStorageError("The simulated outbox is not open.")


def _restored(message: Message) -> Message:
    receipt = Receipt(message.event, message.receipt.message_id)
    return evolve(message, receipt=receipt, sent_at=None, is_stored=True)
