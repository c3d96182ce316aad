"""What every ledger promises."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from realtime_fsm.server import Ledger, MemoryLedger, SqliteLedger, Stamp
from realtime_fsm.server.ledger import MAX_ANSWER_BYTES, MAX_KEPT_ANSWERS, MAX_KEPT_BYTES, digest_of
from realtime_fsm.server.request import Answer

pytestmark = pytest.mark.real_loop

RunAsync = Callable[..., Any]
REFUSED = {"ok": False, "error": {"category": "application", "code": "handler_failed", "message": "No."}}
REPEATED = {"ok": True, "duplicate": True}


class Opened:
    """A ledger, and what took effect through it."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.effects: list[Any] = []

    async def send(
        self,
        sequence: int,
        answer: Answer | None = None,
        *,
        client: str = "c",
        subject: str = "ann",
        digest: str = "",
    ) -> Answer:
        """Send a message, and note whether it takes effect."""

        async def handle(_: Any) -> Answer:
            await asyncio.sleep(0)
            self.effects.append((subject, client, sequence))
            return {"ok": True, "answer": sequence} if answer is None else answer

        return await self.ledger.apply(Stamp(subject, client, sequence, digest), handle)


Opening = Callable[..., AbstractAsyncContextManager[Opened]]


@pytest.fixture(params=["memory", "sqlite"])
def opening(request: pytest.FixtureRequest, tmp_path: Path) -> Opening:
    """Return what opens a ledger of each kind, empty each time."""
    names = iter(range(10_000))

    @asynccontextmanager
    async def opened(**options: Any) -> AsyncIterator[Opened]:
        ledger: Ledger
        if request.param == "memory":
            ledger = MemoryLedger(**options)
        else:
            ledger = SqliteLedger(tmp_path / f"{next(names)}.db", **options)
        await ledger.open()
        try:
            yield Opened(ledger)
        finally:
            await ledger.close()

    return opened


async def test_repeat_gets_the_first_answer_and_no_effect(opening: Opening) -> None:
    """A message takes effect once; each repeat gets the first answer, marked as a duplicate."""
    async with opening() as ledger:
        first = {"ok": True, "answer": {"text": "grüß dich \N{PARTY POPPER}", "n": [1, 2.5, None]}}
        assert await ledger.send(1, first) == first
        for _ in range(2):
            assert await ledger.send(1, {"ok": True, "answer": "other"}) == {**first, "duplicate": True}
        assert ledger.effects == [("ann", "c", 1)]


async def test_refusal_is_repeated_as_a_refusal(opening: Opening) -> None:
    """A refused message is not handled again, and never looks delivered: its repeat is refused as well."""
    async with opening() as ledger:
        assert await ledger.send(1, REFUSED) == REFUSED
        await ledger.send(2)
        assert await ledger.send(1) == {**REFUSED, "duplicate": True}
        assert ledger.effects == [("ann", "c", 1), ("ann", "c", 2)]


async def test_number_of_another_message_is_refused(opening: Opening) -> None:
    """A message never gets the answer of another one: with a number that was lent it is refused."""
    large = {"ok": True, "answer": "x" * MAX_ANSWER_BYTES}
    async with opening() as ledger:
        for number, answer in enumerate(({"ok": True, "answer": 1}, large, REFUSED), start=1):
            await ledger.send(number, answer, digest="a")
            for digest in ("b", "c"):
                refused = await ledger.send(number, digest=digest)
                assert refused["ok"] is False
                assert refused["error"]["code"] == "number_reused"
            assert (await ledger.send(number, digest="a"))["duplicate"]
            assert (await ledger.send(number))["duplicate"]
        assert len(ledger.effects) == 3


def test_digest_is_of_the_whole_message() -> None:
    """Whatever differs in a message makes another digest, and the same message has the same one."""
    said: list[tuple[str, list[Any]]] = [
        ("n", []),
        ("n", [1]),
        ("m", [1]),
        ("n", [1, 1]),
        ("n", [[1, 1]]),
        ("n", ["1"]),
        ("n", [{"a": 1}]),
        ("n", [b"\x01"]),
        ("n", ["\udcff"]),
    ]
    assert len({digest_of(event, args) for event, args in said}) == len(said)
    assert digest_of("n", [{"a": b"1"}]) == digest_of("n", ({"a": bytearray(b"1")},))


async def test_numbers_may_be_missing(opening: Opening) -> None:
    """Above the mark any number is new; below it any is a repeat, even one that never came."""
    async with opening() as ledger:
        for sequence in (3, 70, 2**53 - 1):
            assert "duplicate" not in await ledger.send(sequence)
        assert await ledger.send(69) == REPEATED
        assert [effect[-1] for effect in ledger.effects] == [3, 70, 2**53 - 1]


async def test_nobody_suppresses_another_ones_messages(opening: Opening) -> None:
    """A client's id means nothing beyond its subject: one that claims another's changes nothing for it."""
    async with opening() as ledger:
        await ledger.send(1000, client="c", subject="eve")
        assert await ledger.send(1, client="c", subject="ann") == {"ok": True, "answer": 1}
        assert await ledger.send(1, client="d", subject="ann") == {"ok": True, "answer": 1}
        assert await ledger.send(1, client="nn", subject="a") == {"ok": True, "answer": 1}
        assert len(ledger.effects) == 4


@pytest.mark.parametrize("how", ["raises", "is cancelled"])
async def test_message_that_was_not_handled_is_no_repeat(opening: Opening, how: str) -> None:
    """If handling it was broken off, the mark stands where it was: the message is handled when it returns."""
    begun = asyncio.Event()

    async def broken(_: Any) -> Answer:
        begun.set()
        if how == "raises":
            raise RuntimeError("broken off")
        await asyncio.Event().wait()
        raise AssertionError

    async with opening() as ledger:
        await ledger.send(1)
        sending = asyncio.create_task(ledger.ledger.apply(Stamp("ann", "c", 2), broken))
        await begun.wait()
        if how == "is cancelled":
            sending.cancel()
        with pytest.raises((RuntimeError, asyncio.CancelledError)):
            await sending
        assert await ledger.send(2) == {"ok": True, "answer": 2}
        assert await ledger.send(1) == {"ok": True, "answer": 1, "duplicate": True}


async def test_kept_answers_are_bounded(opening: Opening) -> None:
    """Of each client the newest answers are kept, by number and by size; those let go are still repeats."""
    async with opening() as ledger:
        for sequence in range(1, MAX_KEPT_ANSWERS + 2):
            await ledger.send(sequence)
        assert await ledger.send(1) == REPEATED
        assert await ledger.send(2) == {"ok": True, "answer": 2, "duplicate": True}

        large = {"ok": True, "answer": "x" * MAX_ANSWER_BYTES}
        assert await ledger.send(1000, large) == large
        assert await ledger.send(1000) == REPEATED

        some = {"ok": True, "answer": "x" * (MAX_KEPT_BYTES // 6)}
        for sequence in range(1001, 1011):
            await ledger.send(sequence, some)
        kept = [s for s in range(1001, 1011) if await ledger.send(s) == {**some, "duplicate": True}]
        assert kept == list(range(1006, 1011))


async def test_answers_do_not_crowd_out_refusals(opening: Opening) -> None:
    """A refusal is kept however large the answers are that come after it, and its own number is bounded."""
    async with opening() as ledger:
        await ledger.send(1, REFUSED)
        for sequence in range(2, 2 + MAX_KEPT_ANSWERS + 10):
            await ledger.send(sequence, {"ok": True, "answer": "x" * 1000})
        assert await ledger.send(1) == {**REFUSED, "duplicate": True}
        for sequence in range(1000, 1000 + MAX_KEPT_ANSWERS):
            await ledger.send(sequence, REFUSED)
        assert await ledger.send(1) == REPEATED
        assert await ledger.send(1000) == {**REFUSED, "duplicate": True}


async def test_clients_are_bounded(opening: Opening, caplog: pytest.LogCaptureFixture) -> None:
    """The client whose last effect is the longest ago is given up first, and that is logged."""
    async with opening(max_clients=4) as ledger:
        for subject in "abcd":
            await ledger.send(1, subject=subject)
        await ledger.send(2, subject="a")
        await ledger.send(1, subject="e")  # gives up b
        ledger.effects.clear()
        for subject, sequence in (("a", 2), ("c", 1), ("d", 1), ("e", 1)):
            assert (await ledger.send(sequence, subject=subject))["duplicate"] is True
        assert ledger.effects == []
        assert await ledger.send(1, subject="b") == {"ok": True, "answer": 1}
        assert (await ledger.send(1, subject="a")) == {"ok": True, "answer": 1, "duplicate": True}
    assert "max_ledger_clients" in caplog.text


async def test_subject_cannot_crowd_the_others_out(opening: Opening) -> None:
    """However many clients a subject makes up, it fills no more than half, and the others stay known."""
    async with opening(max_clients=4) as ledger:
        await ledger.send(1, subject="ann")
        await ledger.send(1, subject="bob")
        for number in range(20):
            await ledger.send(1, subject="eve", client=str(number))
        for subject, client in (("ann", "c"), ("bob", "c"), ("eve", "19"), ("eve", "18")):
            assert (await ledger.send(1, subject=subject, client=client))["duplicate"] is True
        assert "duplicate" not in await ledger.send(1, subject="eve", client="17")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3), st.integers(1, 4)), max_size=15))
def test_any_course_of_losses_gives_each_message_one_effect(
    opening: Opening, run_async: RunAsync, course: list[tuple[str, int, int]]
) -> None:
    """Whatever is lost and sent again, each message has one effect, in order, and one answer."""

    async def main() -> None:
        acknowledged = {"a": 0, "b": 0}
        async with opening() as ledger:
            for client, lost, count in course:  # sends some, of which the last acknowledgements are lost
                begin = acknowledged[client] + 1
                for sequence in range(begin, begin + count):
                    answer = await ledger.send(sequence, client=client)
                    assert answer["answer"] == sequence
                acknowledged[client] = max(begin + count - 1 - lost, begin - 1)
            for client, count in acknowledged.items():
                had = [effect[-1] for effect in ledger.effects if effect[1] == client]
                assert had == list(range(1, len(had) + 1))
                assert len(had) >= count

    run_async(main())
