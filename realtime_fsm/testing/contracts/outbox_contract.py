"""The laws of every outbox: inherit the suite, and override ``make``."""

import asyncio
from collections.abc import Awaitable, Iterable
from pathlib import Path
from typing import Any, Final

from realtime_fsm.engine.message import DeadLetter, Message, Receipt
from realtime_fsm.engine.outbox import Outbox
from realtime_fsm.engine.payload import Payload
from realtime_fsm.machine.delivery import Delivery
from realtime_fsm.machine.errors import OutboxStorageError
from realtime_fsm.testing.contracts.contract import Contract, skip

_LONGEST_ID: Final = 64


class OutboxContract(Contract):
    """The laws of the port ``Outbox``. Override ``make``; what only a durable one can keep is skipped."""

    def make(self, folder: Path, *, max_dead_letters: int = 1000) -> Outbox:
        """Return an outbox; for the same folder one that holds the same."""
        raise NotImplementedError

    def durable(self, folder: Path) -> Outbox:
        """Return an outbox, or skip the test."""
        outbox = self.make(folder)
        if not outbox.is_durable:
            skip("it does not outlive the process")
        return outbox

    def test_new_outbox_is_empty(self, tmp_path: Path) -> None:
        """A new outbox holds nothing, and names the client by something that can travel."""

        async def main() -> None:
            outbox = self.make(tmp_path)
            contents = await outbox.open()
            assert (contents.last_sequence, list(contents.waiting)) == (0, [])
            assert contents.client_id.isascii()
            assert contents.client_id.isprintable()
            assert 0 < len(contents.client_id) <= _LONGEST_ID
            assert await outbox.dead_letters() == []
            await outbox.close()

        self.run(main())

    def test_each_opening_is_an_identity_of_its_own(self, tmp_path: Path) -> None:
        """Opened again it names another client, for what is accepted then; what is kept keeps its own."""

        async def main() -> None:
            outbox = self.make(tmp_path)
            known: list[str] = []
            for number in range(1, 5):
                contents = await outbox.open()
                assert [one.client_id for one in contents.waiting] == (known if outbox.is_durable else [])
                assert contents.client_id not in known
                known.append(contents.client_id)
                await append_all(outbox, [message(number, client_id=contents.client_id)])
                await outbox.close()

        self.run(main())

    def test_outbox_in_use_is_refused_to_others(self, tmp_path: Path) -> None:
        """While one client uses an outbox no other can open it; and it is not disturbed by the try."""
        outbox, other = self.durable(tmp_path), self.durable(tmp_path)

        async def main() -> None:
            await outbox.open()
            assert isinstance(await _error_of(other.open()), OutboxStorageError)
            await other.close()
            await append_all(outbox, [message(1)])
            await outbox.close()
            assert sequences((await other.open()).waiting) == [1]
            await other.close()

        self.run(main())

    def test_close_is_safe_at_any_time(self, tmp_path: Path) -> None:
        """Closing is safe before opening, twice, and twice at once; opening again works."""

        async def main() -> None:
            outbox = self.make(tmp_path)
            await self.within_bound(outbox.close(), "the outbox that was not open is closed")
            for _ in range(2):
                await outbox.open()
                await self.within_bound(_closed_twice_at_once(outbox), "the outbox is closed")
                await self.within_bound(outbox.close(), "the outbox is closed again")

        self.run(main())

    def test_append_keeps_in_the_order_of_the_calls(self, tmp_path: Path) -> None:
        """Futures of messages are resolved in the order of the calls, and the messages are marked by then."""

        async def main() -> None:
            outbox = self.make(tmp_path)
            await outbox.open()
            resolved: list[int] = []

            def note(one: Message) -> None:
                resolved.append(one.sequence * one.is_stored)

            for number in range(1, 1201):
                one = message(number)
                future = outbox.append(one)
                assert (future is None) is not outbox.is_durable
                if future is not None:
                    future.add_done_callback(lambda _, one=one: note(one))  # type: ignore[misc]
            await append_all(outbox, [message(1201)])
            assert resolved == (list(range(1, 1201)) if outbox.is_durable else [])
            await outbox.close()

        self.run(main())

    def test_messages_come_back_whole(self, tmp_path: Path) -> None:
        """All that belongs to a message outlives the process, in order; with fresh receipts, and marked."""
        outbox = self.durable(tmp_path)
        kept = [
            message(3, payload=Payload('["note","é\\u0000"]'), expires_at=1_800_000_000.125, attempts=2),
            message(1, delivery=Delivery.EXACTLY_ONCE, wants_ack=False),
            message(2, payload=Payload('["note"]', (b"\0" * 300, b"", b"\xff")), event="späť"),
        ]

        async def main() -> None:
            await outbox.open()
            await append_all(outbox, kept)
            await outbox.close()
            waiting = (await outbox.open()).waiting
            assert [fields_of(one) for one in waiting] == [
                fields_of(one) for one in sorted(kept, key=lambda one: one.sequence)
            ]
            assert all(one.is_stored and not one.receipt.is_settled for one in waiting)
            assert not {id(one.receipt) for one in waiting} & {id(one.receipt) for one in kept}
            await outbox.close()

        self.run(main())

    def test_removed_message_is_gone(self, tmp_path: Path) -> None:
        """A removed message does not come back, even if it was removed before it was kept."""
        outbox = self.durable(tmp_path)

        async def main() -> None:
            await outbox.open()
            kept = [message(number) for number in range(1, 6)]
            await append_all(outbox, kept[:3])
            outbox.append(kept[3])
            outbox.remove(kept[3])
            outbox.remove(kept[1])
            outbox.remove(message(99))
            await append_all(outbox, kept[4:])
            await outbox.close()
            assert sequences((await outbox.open()).waiting) == [1, 3, 5]
            await outbox.close()

        self.run(main())

    def test_numbers_never_go_back(self, tmp_path: Path) -> None:
        """The last number is remembered after every message has gone, however it went."""
        outbox = self.durable(tmp_path)

        async def main() -> None:
            for number in (1, 2):
                await outbox.open()
                one = message(10 * number)
                await append_all(outbox, [one])
                if number == 1:
                    outbox.remove(one)
                else:
                    outbox.claim([one])
                await outbox.close()
                contents = await outbox.open()
                assert (contents.last_sequence, list(contents.waiting)) == (10 * number, [])
                await outbox.close()

        self.run(main())

    def test_charge_keeps_the_attempts(self, tmp_path: Path) -> None:
        """The attempts are kept as they were when they were charged, the last ones count."""
        outbox = self.durable(tmp_path)

        async def main() -> None:
            await outbox.open()
            one, other = message(1), message(2)
            await append_all(outbox, [one, other])
            for attempts in (1, 2, 3):
                one.attempts = attempts
                outbox.charge(one)
            one.attempts = 99
            await outbox.close()
            assert [kept.attempts for kept in (await outbox.open()).waiting] == [3, 0]
            await outbox.close()

        self.run(main())

    def test_claimed_messages_are_gone_when_it_says_so(self, tmp_path: Path) -> None:
        """Claimed messages are not marked any more, and do not come back; they may be kept again."""

        async def main() -> None:
            outbox = self.make(tmp_path)
            await outbox.open()
            kept = [message(number) for number in range(1, 5)]
            await append_all(outbox, kept)
            claimed = outbox.claim(kept[:3])
            assert (claimed is None) is not outbox.is_durable
            if claimed is not None:
                await append_all(outbox, [kept[2]])
                await claimed
            assert [one.is_stored for one in kept] == [False, False, outbox.is_durable, outbox.is_durable]
            assert outbox.claim([]) is None
            await outbox.close()
            assert sequences((await outbox.open()).waiting) == ([3, 4] if outbox.is_durable else [])
            await outbox.close()

        self.run(main())

    def test_probe_keeps_nothing(self, tmp_path: Path) -> None:
        """To try whether there is room leaves no message, and takes no number."""
        outbox = self.durable(tmp_path)

        async def main() -> None:
            await outbox.open()
            for size_bytes in (0, 10_000):
                probed = outbox.probe(size_bytes)
                assert probed is not None
                await probed
            await outbox.close()
            contents = await outbox.open()
            assert (contents.last_sequence, list(contents.waiting)) == (0, [])
            await outbox.close()

        self.run(main())

    def test_cancelled_waiter_disturbs_nobody(self, tmp_path: Path) -> None:
        """Whoever stops waiting for a message to be kept changes nothing for the others, nor for it."""
        outbox = self.durable(tmp_path)

        async def main() -> None:
            await outbox.open()
            futures = [outbox.append(message(number)) for number in range(1, 11)]
            for future in futures[::2]:
                assert future is not None
                future.cancel()
            await asyncio.gather(*(future for future in futures[1::2] if future is not None))
            await outbox.close()
            assert sequences((await outbox.open()).waiting) == list(range(1, 11))
            await outbox.close()

        self.run(main())

    def test_closed_outbox_keeps_nothing(self, tmp_path: Path) -> None:
        """Appending to an outbox that is closed, claiming from it or asking it fails."""
        outbox = self.durable(tmp_path)

        async def main() -> None:
            await outbox.open()
            await outbox.close()
            for ask in (
                lambda: outbox.append(message(1)),
                lambda: outbox.claim([message(1)]),
                outbox.take_dead,
            ):
                asked = ask()
                assert asked is not None
                assert isinstance(await _error_of(asked), OutboxStorageError)

        self.run(main())

    def test_dead_letters_are_kept_the_oldest_first(self, tmp_path: Path) -> None:
        """Dead letters come whole, in the order of their burial, and stay when it is closed."""

        async def main() -> None:
            outbox = self.make(tmp_path)
            await outbox.open()
            letters = [letter(5, "no \udcff"), letter(2, payload=Payload('["n"]', (b"12",))), letter(9)]
            await append_all(outbox, [letters[1].message])
            for one in letters:
                outbox.bury(one)
            for _ in range(2):
                found = await outbox.dead_letters()
                assert [fields_of(one.message) for one in found] == [
                    fields_of(one.message) for one in letters
                ]
                assert [one.died_at for one in found] == [one.died_at for one in letters]
                assert [one.reason for one in found[1:]] == ["refused", "refused"]
                await outbox.close()
                assert not (await outbox.open()).waiting
            await outbox.close()

        self.run(main())

    def test_dead_letters_are_bounded(self, tmp_path: Path) -> None:
        """Beyond the bound the oldest dead letters go."""

        async def main() -> None:
            outbox = self.make(tmp_path, max_dead_letters=3)
            await outbox.open()
            for number in (4, 1, 3, 2, 5):
                outbox.bury(letter(number))
            assert sequences(await outbox.dead_letters()) == [3, 2, 5]
            await outbox.close()

        self.run(main())

    def test_dead_letters_are_taken_once(self, tmp_path: Path) -> None:
        """Taken dead letters are gone: by id, in their own order, unknown ids without effect; or all."""

        async def main() -> None:
            outbox = self.make(tmp_path)
            await outbox.open()
            for number in (1, 2, 3, 4):
                outbox.bury(letter(number))
            assert await outbox.take_dead(["c-9"]) == await outbox.take_dead([]) == []
            assert sequences(await outbox.take_dead(["c-3", "c-9", "c-1"])) == [1, 3]
            assert sequences(await outbox.dead_letters()) == [2, 4]
            assert sequences(await outbox.take_dead()) == [2, 4]
            assert await outbox.take_dead() == await outbox.dead_letters() == []
            await outbox.close()

        self.run(main())


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
    """Return the fields of a message that an outbox has to keep."""
    return {
        "event": kept.event,
        "payload": kept.payload,
        "delivery": kept.delivery,
        "wants_ack": kept.wants_ack,
        "receipt": (kept.receipt.event, kept.receipt.message_id),
        "client_id": kept.client_id,
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


async def _closed_twice_at_once(outbox: Outbox) -> None:
    await asyncio.gather(outbox.close(), outbox.close())


async def _error_of(asked: Awaitable[Any]) -> Exception | None:
    """Return why something failed; ``None`` if it did not."""
    try:
        await asked
    except Exception as error:  # noqa: BLE001 - which one it is is for the law to say
        return error
    return None
