"""The outbox in a file against a dictionary."""

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st
from isolation import run_bounded

from realtime_fsm.adapters.outbox_writer import SqliteOutbox
from realtime_fsm.engine.message import Message
from realtime_fsm.machine.errors import RealtimeError
from realtime_fsm.testing.contracts.outbox_contract import letter, message, sequences


def refuse(error: RealtimeError) -> None:
    """Fail on an error that nobody awaits: none is expected."""
    raise error


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(
            ["append", "append", "append", "remove", "claim", "charge", "bury", "take", "reopen"]
        ),
        st.integers(min_value=0, max_value=30),
    ),
    min_size=20,
    max_size=60,
)


@settings(max_examples=25)
@given(operations=OPERATIONS)
def test_random_operations_match_a_dict(operations: list[tuple[str, int]]) -> None:
    """Whatever is asked in whatever order, the file holds what a dictionary would."""
    with TemporaryDirectory() as folder:
        run_bounded(play(Path(folder) / "o.db", operations))


async def play(path: Path, operations: list[tuple[str, int]]) -> None:
    """Ask the same of an outbox and of two dictionaries, and compare them at every reopening."""
    outbox = SqliteOutbox(path, durability="process", max_dead_letters=3, report=refuse)
    await outbox.open()
    waiting: dict[int, Message] = {}
    dead: list[int] = []
    last = 0
    for name, choice in [*operations, ("reopen", 0)]:
        chosen = waiting.get(list(waiting)[choice % len(waiting)]) if waiting else None
        if name == "append":
            last += 1 + choice
            waiting[last] = message(last)
            outbox.append(waiting[last])
        elif name == "take":
            wanted = dead[: choice % 3]
            assert sequences(await outbox.take_dead([f"c-{number}" for number in wanted])) == wanted
            dead = dead[len(wanted) :]
        elif name == "reopen":
            await outbox.close()
            contents = await outbox.open()
            assert (contents.last_sequence, sequences(contents.waiting)) == (last, list(waiting))
            assert [one.attempts for one in contents.waiting] == [one.attempts for one in waiting.values()]
            assert sequences(await outbox.dead_letters()) == dead
            waiting = {one.sequence: one for one in contents.waiting}
        elif chosen is not None and name == "charge":
            chosen.attempts += 1
            outbox.charge(chosen)
        elif chosen is not None:
            del waiting[chosen.sequence]
            if name == "bury":
                outbox.bury(letter(chosen.sequence))
                dead = [*dead, chosen.sequence][-3:]
            else:
                (outbox.remove if name == "remove" else lambda one: outbox.claim([one]))(chosen)
    await outbox.close()
