"""Each law of ``OutboxContract`` can fail: for every one there is an outbox that breaks it."""

import asyncio
import itertools
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import test_contracts as sound

from realtime_fsm.engine.message import DeadLetter, Message
from realtime_fsm.engine.outbox import OutboxContents
from realtime_fsm.testing import (
    OutboxContract,
    SimulatedOutbox,
)


class Outbox(SimulatedOutbox):
    """One to be broken; every method of a defect is one that the sound one has."""


class Haunted(Outbox):
    """Holds something when it is new."""

    async def open(self) -> OutboxContents:
        """Lie."""
        contents = await super().open()
        return OutboxContents(client_id=contents.client_id, last_sequence=1)


class Nameless(Outbox):
    """All openings have the same identity."""

    async def open(self) -> OutboxContents:
        """Lie."""
        contents = await super().open()
        return OutboxContents(client_id="me", last_sequence=contents.last_sequence, waiting=contents.waiting)


class Shared(Outbox):
    """Can be opened by two clients."""

    async def open(self) -> OutboxContents:
        """Take it from whoever has it."""
        self.disk.owner = None
        return await super().open()


class Unclosable(Outbox):
    """Cannot be closed twice."""

    async def close(self) -> None:
        """Wait for ever, the second time."""
        if self.disk.owner is not self:
            await asyncio.sleep(1e6)
        await super().close()


class Shuffled(Outbox):
    """Keeps later what was appended first."""

    delays = itertools.cycle((0.3, 0.1, 0.2))

    def append(self, message: Message) -> asyncio.Future[None]:
        """Take another time for each."""
        kept = super().append(message)
        late: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(next(self.delays), lambda: late.done() or late.set_result(None))
        kept.add_done_callback(lambda _: None)
        return late


class Changing(Outbox):
    """Does not keep the time of acceptance."""

    def append(self, message: Message) -> asyncio.Future[None]:
        """Change what is kept."""
        kept = super().append(message)
        kept.add_done_callback(partial(self._change, message.sequence))
        return kept

    def _change(self, sequence: int, _: object) -> None:
        if sequence in self.disk.waiting:
            self.disk.waiting[sequence].accepted_at = 0.0


class Sticky(Outbox):
    """Does not forget."""

    def remove(self, message: Message) -> None:
        """Do nothing."""


class Reusing(Outbox):
    """Gives numbers anew when their messages have gone."""

    async def open(self) -> OutboxContents:
        """Count what is there."""
        contents = await super().open()
        last = max((message.sequence for message in contents.waiting), default=0)
        return OutboxContents(client_id=contents.client_id, last_sequence=last, waiting=contents.waiting)


class Probed(Outbox):
    """Takes a number for a trial."""

    def probe(self, size_bytes: int) -> asyncio.Future[None]:
        """Count it."""
        self.disk.last_sequence += 1
        return super().probe(size_bytes)


class Free(Outbox):
    """Does not charge."""

    def charge(self, message: Message) -> None:
        """Do nothing."""


class Deaf(Outbox):
    """Says that it has forgotten, and has not."""

    def claim(self, messages: Collection[Message]) -> asyncio.Future[None] | None:
        """Do nothing."""
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done if messages else None


class Backward(Outbox):
    """Gives dead letters in the wrong order."""

    async def dead_letters(self) -> list[DeadLetter]:
        """Turn them round."""
        return (await super().dead_letters())[::-1]


class Boundless(Outbox):
    """Keeps all dead letters."""

    def __init__(self, disk: Any, *, max_dead_letters: int) -> None:
        super().__init__(disk, max_dead_letters=1000 * max_dead_letters)


class Generous(Outbox):
    """Gives the same dead letters again and again."""

    async def take_dead(self, message_ids: Collection[str] | None = None) -> list[DeadLetter]:
        """Keep what is given."""
        kept = dict(self.disk.dead)
        taken = await super().take_dead(message_ids)
        self.disk.dead.update(kept)
        return taken


class Fickle(Outbox):
    """Forgets a message when nobody waits for it."""

    def append(self, message: Message) -> asyncio.Future[None]:
        """Take a cancelled wait for a change of mind."""
        kept = super().append(message)
        kept.add_done_callback(lambda done: self.remove(message) if done.cancelled() else None)
        return kept


class Undead(Outbox):
    """Goes on when it is closed."""

    async def close(self) -> None:
        """Give only the disk back."""
        await super().close()
        self._is_alive = True


OUTBOXES: dict[str, type[SimulatedOutbox]] = {
    "test_new_outbox_is_empty": Haunted,
    "test_each_opening_is_an_identity_of_its_own": Nameless,
    "test_probe_keeps_nothing": Probed,
    "test_outbox_in_use_is_refused_to_others": Shared,
    "test_close_is_safe_at_any_time": Unclosable,
    "test_append_keeps_in_the_order_of_the_calls": Shuffled,
    "test_messages_come_back_whole": Changing,
    "test_removed_message_is_gone": Sticky,
    "test_numbers_never_go_back": Reusing,
    "test_charge_keeps_the_attempts": Free,
    "test_claimed_messages_are_gone_when_it_says_so": Deaf,
    "test_dead_letters_are_kept_the_oldest_first": Backward,
    "test_dead_letters_are_bounded": Boundless,
    "test_dead_letters_are_taken_once": Generous,
    "test_cancelled_waiter_disturbs_nobody": Fickle,
    "test_closed_outbox_keeps_nothing": Undead,
}


@pytest.mark.parametrize("law", OUTBOXES)
def test_defect_of_an_outbox_is_caught(law: str, tmp_path: Path) -> None:
    """The law fails for an outbox that breaks it."""
    suite = sound.TestSimulatedOutbox()
    suite.kind = OUTBOXES[law]
    with pytest.raises(AssertionError):
        getattr(suite, law)(tmp_path)


def test_every_law_of_an_outbox_is_broken_once() -> None:
    """There is a defect for each law, so that none is vacuous."""
    assert set(OUTBOXES) == {name for name in dir(OutboxContract) if name.startswith("test_")}
