"""The laws of the dead letters of an outbox, and how an outbox is made."""

from pathlib import Path

from realtime_fsm.engine.outbox import Outbox
from realtime_fsm.engine.payload import Payload
from realtime_fsm.testing.contracts.contract import Contract, skip
from realtime_fsm.testing.contracts.kept_messages import append_all, fields_of, letter, sequences


class DeadLetterLaws(Contract):
    """What was given up is kept until somebody takes it; see ``OutboxContract``."""

    def make(self, folder: Path, *, max_dead_letters: int = 1000) -> Outbox:
        """Return an outbox; for the same folder one that holds the same."""
        raise NotImplementedError

    def durable(self, folder: Path) -> Outbox:
        """Return an outbox, or skip the test."""
        outbox = self.make(folder)
        if not outbox.is_durable:
            skip("it does not outlive the process")
        return outbox

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
