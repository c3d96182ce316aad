"""Events that wait for their handlers: how many, how much, and which of them make room."""

import asyncio
from typing import Any

import pytest

from realtime_fsm import InboundOverflow
from realtime_fsm.engine.dispatcher import NO_ROOM, NO_ROOM_FOR_QUESTION, SUPERSEDED, Delivered, Dispatcher
from realtime_fsm.engine.statistics import Statistics


class Desk:
    """A dispatcher whose handlers note what they get; nothing is handled until it is started."""

    def __init__(
        self, *, limit: int = 4, max_bytes: int = 1000, overflow: InboundOverflow | None = None
    ) -> None:
        self.statistics = Statistics()
        self.dispatcher = Dispatcher(
            statistics=self.statistics,
            limit=limit,
            on_error=lambda *_: None,
            max_bytes=max_bytes,
            overflow=InboundOverflow.DROP_OLDEST if overflow is None else overflow,
        )
        self.heard: list[Any] = []
        self.rooms = 0
        self.dispatcher.on("*", lambda _, n: self.heard.append(n))
        self.dispatcher.on_room = self.note_room

    def note_room(self) -> None:
        """Count that there is room again."""
        self.rooms += 1

    def post(self, n: int, name: str = "n", **given: Any) -> bool:
        """Post a numbered event."""
        return self.dispatcher.post(Delivered(name, [n], **given))

    async def handled(self) -> list[Any]:
        """Return what was heard, once all is handled."""
        done = asyncio.Event()

        async def end() -> None:
            done.set()

        self.dispatcher.run("the end", end)
        self.dispatcher.start()
        await done.wait()
        await self.dispatcher.close()
        return self.heard

    @property
    def dropped(self) -> dict[str, int]:
        """What was dropped, by reason."""
        return dict(self.statistics.dropped)


async def test_oldest_events_make_room_for_the_newest() -> None:
    """Beyond the bound the oldest go, one for one, each counted; the newest are handled in order."""
    desk = Desk(limit=4)
    assert [desk.post(n) for n in range(4)] == [True] * 4
    assert [desk.post(n) for n in range(4, 10)] == [False] * 6
    assert len(desk.dispatcher) == 4
    assert await desk.handled() == [6, 7, 8, 9]
    assert desk.dropped == {NO_ROOM: 6}


async def test_bytes_are_bounded_as_well_and_a_larger_event_waits_alone() -> None:
    """As many of the oldest go as the newest needs; one that is larger than the bound is still handled."""
    desk = Desk(limit=100, max_bytes=1000)
    for n in range(4):
        assert desk.post(n, size=250)
    assert not desk.post(4, size=500)
    assert desk.dropped == {NO_ROOM: 2}
    assert not desk.post(5, size=5000)
    assert len(desk.dispatcher) == 1
    assert await desk.handled() == [5]


async def test_event_that_nobody_would_send_again_makes_no_room() -> None:
    """What a server was told to have arrived stays; where only such events wait, the new one is dropped."""
    desk = Desk(limit=4)
    for n in range(3):
        desk.post(n, is_kept=True)
    desk.post(3)
    assert not desk.post(4)
    assert not desk.post(5)
    assert await desk.handled() == [0, 1, 2, 5]
    desk = Desk(limit=2)
    desk.post(0, is_kept=True)
    desk.post(1, is_kept=True)
    assert not desk.post(2)
    assert desk.dropped == {NO_ROOM: 1}
    assert await desk.handled() == [0, 1]


async def test_latest_event_of_each_name_is_kept() -> None:
    """With ``latest`` what a later one of its name follows goes first, and is no falling behind."""
    desk = Desk(limit=3, overflow=InboundOverflow.LATEST)
    desk.post(1, "a")
    desk.post(2, "b")
    for n in range(3, 10):
        desk.post(n, "c")
    assert desk.dropped == {SUPERSEDED: 6}
    assert not desk.dispatcher.is_behind
    assert not desk.post(10, "d")  # more names than there is room
    assert desk.dispatcher.is_behind
    assert desk.dropped == {SUPERSEDED: 6, NO_ROOM: 1}
    assert await desk.handled() == [2, 9, 10]


async def test_question_that_is_dropped_is_not_answered_and_counted_as_such() -> None:
    """A server that wanted an answer gets none; the reason says that it was a question."""
    desk = Desk(limit=1)
    answers: list[Any] = []
    desk.post(0, answer=answers.append)
    desk.post(1, answer=answers.append)
    assert desk.dropped == {NO_ROOM_FOR_QUESTION: 1}
    assert await desk.handled() == [1]
    assert len(answers) == 1


async def test_room_is_told_once_half_of_it_is_free() -> None:
    """Who was not admitted is told once, when half of the room is free in events and in bytes."""
    desk = Desk(limit=4, max_bytes=1000)
    for n in range(4):
        assert desk.dispatcher.admits("n", 100)
        desk.post(n, size=100)
    assert not desk.dispatcher.admits("n", 1)
    assert not desk.dispatcher.admits("n", 1)
    assert (desk.dispatcher.is_behind, desk.dispatcher.spells, desk.rooms) == (True, 1, 0)
    left = []
    desk.dispatcher.on_room = lambda: left.append(len(desk.dispatcher))
    await desk.handled()
    assert left == [3]  # with the end, which is no event
    assert not desk.dispatcher.is_behind


async def test_errands_keep_their_place_and_make_no_room() -> None:
    """What is to be done among the events is never dropped, and done after those that waited before it."""
    desk = Desk(limit=2)

    async def errand() -> None:
        desk.heard.append("errand")

    desk.post(0)
    desk.post(1)
    desk.dispatcher.run("an errand", errand)
    desk.post(2)
    assert await desk.handled() == [1, "errand", 2]


async def test_event_that_nobody_wants_needs_no_room() -> None:
    """An event without a handler is dropped as ever, whatever waits."""
    desk = Desk(limit=1)
    desk.dispatcher.off("*")
    desk.dispatcher.on("n", lambda _: None)
    desk.post(0)
    assert desk.dispatcher.admits("other", 10**6)
    assert desk.post(1, "other")
    assert desk.dropped == {"event without a handler": 1}
    await desk.dispatcher.close()


@pytest.mark.parametrize("policy", InboundOverflow)
async def test_bounds_hold_whatever_comes(policy: InboundOverflow) -> None:
    """Neither bound is exceeded, and what is handled and what is dropped are together all there was."""
    desk = Desk(limit=5, max_bytes=300, overflow=policy)
    for n in range(500):
        size = (n * 37) % 120
        is_kept = n % 11 == 0 and desk.dispatcher.admits("a", size)
        desk.post(n, "abcdefg"[n * n % 7], size=size, is_kept=is_kept)
        assert len(desk.dispatcher) <= 5
        assert desk.dispatcher.waiting_bytes <= 300
    waiting = len(desk.dispatcher)
    await desk.handled()
    assert desk.heard == sorted(desk.heard)
    assert waiting == len(desk.heard)
    assert waiting + sum(desk.dropped.values()) == 500
