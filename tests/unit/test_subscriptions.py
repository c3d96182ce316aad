"""What is wanted, and the place of the last event of each channel: rule by rule."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from realtime_fsm import EventsMissedError, Missed, Position, RealtimeConfig, Subscription, SubscriptionState
from realtime_fsm.engine.statistics import Statistics
from realtime_fsm.engine.subscriptions import Resync, Subscriptions

State = SubscriptionState
LEFT = "event left to the replay"
NO_ROOM = "event without room, left to the replay"


class Errands(Resync):
    """A resync whose hook is run by the test."""

    def __init__(self, *, has_hook: bool = True) -> None:
        self.begun: list[tuple[Missed, Callable[[Missed, Position | None], None]]] = []
        self._has_hook = has_hook

    def begin(self, missed: Missed, done: Callable[[Missed, Position | None], None]) -> bool:
        """Note what is asked for."""
        if self._has_hook:
            self.begun.append((missed, done))
        return self._has_hook


def at(offset: int, epoch: str = "e") -> Position:
    """Return a place."""
    return Position(epoch=epoch, offset=offset)


def told(offset: int, epoch: str = "e", *, recovered: bool = True) -> dict[str, Any]:
    """Return what a server tells of a channel."""
    return {"ok": True, "epoch": epoch, "offset": offset, "recovered": recovered}


class Book:
    """Subscriptions with one active channel at a place, and what they report."""

    def __init__(self, *, offset: int | None = 5, has_hook: bool = True) -> None:
        self.statistics = Statistics()
        self.errands = Errands(has_hook=has_hook)
        self.reported: list[Any] = []
        config = RealtimeConfig(server_url="http://server")
        self.all = Subscriptions(config, self.statistics, self.errands, self.reported.append)
        self.all.want(["c"])
        self.one.state = State.ACTIVE
        self.one.position = None if offset is None else at(offset)

    @property
    def one(self) -> Subscription:
        """The channel."""
        subscription = self.all.get("c")
        assert subscription is not None
        return subscription


def on_loop(test: Callable[[], None]) -> None:
    """Run a test on a loop, which events of asyncio want."""

    async def main() -> None:
        test()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("here", "taken", "place", "state", "counted"),
    [
        (at(6), True, at(6), State.ACTIVE, (0, 0, 0)),
        (at(5), False, at(5), State.ACTIVE, (1, 0, 0)),
        (at(1), False, at(5), State.ACTIVE, (1, 0, 0)),
        (at(7), False, at(5), State.WANTED, (0, 1, 1)),
        (at(6, "other"), False, at(5), State.WANTED, (0, 1, 1)),
        (at(1, "other"), False, at(5), State.WANTED, (0, 1, 1)),
    ],
)
def test_event_is_taken_only_if_it_follows_the_last_one(
    here: Position, taken: bool, place: Position, state: State, counted: tuple[int, int, int]
) -> None:
    """The next one is taken; a repeat is dropped; anything else has left a gap, which a replay must close."""

    def test() -> None:
        book = Book()
        assert book.all.take_position("c", here) is taken
        assert (book.one.position, book.one.state) == (place, state)
        statistics = book.statistics
        assert (statistics.duplicates, statistics.gaps, statistics.dropped[LEFT]) == counted

    on_loop(test)


def test_first_event_and_unknown_channels_are_taken() -> None:
    """Without a place any event is the first; of a channel that is not wanted nothing is known."""

    def test() -> None:
        book = Book(offset=None)
        assert book.all.take_position("c", at(9))
        assert book.one.position == at(9)
        assert book.all.take_position("another", at(3))
        assert book.all.take_position("another", at(1))

    on_loop(test)


def test_gap_is_told_once_and_each_event_that_is_left_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    """However many events follow a gap, it is one gap; what is left to the replay is counted one by one."""

    def test() -> None:
        book = Book()
        for offset in (8, 9, 10):
            assert not book.all.take_position("c", at(offset))
        assert book.statistics.gaps == 1
        assert book.statistics.dropped[LEFT] == 3
        assert book.one.left_at == at(10)

    with caplog.at_level(logging.WARNING):
        on_loop(test)
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("left_at", "replayed_to", "state"),
    [
        (at(8), 8, State.ACTIVE),
        (at(8), 9, State.ACTIVE),
        (at(8), 7, State.WANTED),  # it came after what was replayed
        (at(8, "other"), 8, State.WANTED),
        (None, 8, State.ACTIVE),
    ],
)
def test_confirmation_closes_a_gap_only_if_it_reaches_what_was_left(
    left_at: Position | None, replayed_to: int, state: State
) -> None:
    """After a replay the channel is active, unless something that was left has not come with it."""

    def test() -> None:
        book = Book(offset=replayed_to)
        book.one.state, book.one.left_at = State.PENDING, left_at
        book.all.confirm(book.one, told(replayed_to))
        assert (book.one.state, book.one.left_at) == (state, None)

    on_loop(test)


def test_lost_log_is_loaded_anew_and_goes_on_from_the_snapshot() -> None:
    """While the hook runs the events are left to the replay; then the channel is asked for from its place."""

    def test() -> None:
        book = Book()
        book.all.confirm(book.one, told(20, "new", recovered=False))
        ((missed, done),) = book.errands.begun
        assert (missed.channel, missed.position) == ("c", at(20, "new"))
        assert not book.all.take_position("c", at(21, "new"))
        assert book.statistics.dropped[LEFT] == 1
        assert book.all.polled() == []
        book.all.confirm(book.one, told(22, "new", recovered=False))
        assert len(book.errands.begun) == 1  # it is being loaded already
        book.one.left_at = at(30, "new")
        done(missed, at(25, "new"))
        assert (book.one.position, book.one.state) == (at(25, "new"), State.WANTED)
        assert (book.one.left_at, book.one.is_resyncing) == (None, False)
        done(missed, at(1, "new"))
        assert book.one.position == at(25, "new")  # once is enough
        book.all.forget(["c"])
        done(missed, at(1, "new"))

    on_loop(test)


def test_what_cannot_be_replayed_is_reported_where_there_is_no_hook() -> None:
    """Without a hook the channel goes on where the server stands, and people are told."""

    def test() -> None:
        book = Book(has_hook=False)
        book.all.confirm(book.one, told(20, "new", recovered=False))
        assert (book.one.position, book.one.state) == (at(20, "new"), State.ACTIVE)
        assert [type(error) for error in book.reported] == [EventsMissedError]
        assert book.statistics.unrecovered == 1

    on_loop(test)


@pytest.mark.parametrize("recovered", [True, False])
def test_first_answer_gives_the_place_and_misses_nothing(recovered: bool) -> None:
    """A channel that has heard nothing yet has missed nothing, whatever the server says."""

    def test() -> None:
        book = Book(offset=None)
        book.all.confirm(book.one, told(20, recovered=recovered))
        assert book.one.position == at(20)
        assert (book.errands.begun, book.statistics.unrecovered) == ([], 0)

    on_loop(test)


def test_wanting_again_asks_again_only_what_was_refused() -> None:
    """What is active stays so; what was refused is asked for again; a new connection asks for all."""

    def test() -> None:
        book = Book()
        book.all.want(["c"])
        assert book.one.state is State.ACTIVE
        book.one.state = State.REFUSED
        book.all.want(["c"])
        assert book.one.state is State.WANTED
        book.one.state, book.one.left_at = State.ACTIVE, at(9)
        book.all.restart()
        assert (book.one.state, book.one.left_at) == (State.WANTED, None)

    on_loop(test)


async def test_whoever_waits_is_woken_by_every_change() -> None:
    """Wanting, forgetting, deciding and a new connection each wake those who wait for it, at once."""
    book = Book()
    due = asyncio.create_task(book.all.due())
    await asyncio.sleep(1)
    assert not due.done()
    book.all.want(["d"])
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert due.done()
    is_live = True
    decided = [asyncio.create_task(book.all.decided(["d"], lambda: is_live)) for _ in range(2)]
    await asyncio.sleep(1)
    assert not any(task.done() for task in decided)
    book.all.forget(["d"])
    await asyncio.gather(*decided)
    book.all.want(["d"])
    waiting = asyncio.create_task(book.all.decided(["d"], lambda: is_live))
    await asyncio.sleep(1)
    is_live = False
    book.all.restart()
    await waiting


def test_event_without_room_is_asked_for_again_when_there_is() -> None:
    """Its position is not taken; what follows is left too; it is no gap, and asked for only with room."""

    def test() -> None:
        book = Book()
        assert book.all.take_position("c", at(6), lambda: True)
        assert not book.all.take_position("c", at(7), lambda: False)
        assert not book.all.take_position("c", at(8), lambda: True)
        assert not book.all.take_position("c", at(6), lambda: False)  # a repeat needs no room
        assert (book.one.position, book.one.state, book.one.awaits_room) == (at(6), State.WANTED, True)
        assert book.all._to_be_asked_for() == []
        assert (book.statistics.gaps, book.statistics.duplicates) == (0, 1)
        assert book.statistics.dropped == {NO_ROOM: 1, LEFT: 1}
        book.all.fetch_the_rest()
        assert book.all._to_be_asked_for() == [book.one]

    on_loop(test)


def test_first_event_without_room_is_what_comes_next() -> None:
    """Also where no place is known yet: the place is then the one before it."""

    def test() -> None:
        book = Book(offset=None)
        assert not book.all.take_position("c", at(9), lambda: False)
        assert book.one.position == at(8)

    on_loop(test)


@pytest.mark.parametrize("has_room_again", [False, True])
def test_replay_that_was_not_taken_as_a_whole_is_not_held_against_the_server(has_room_again: bool) -> None:
    """The confirmation of a replay that found no room loads nothing anew: the rest is asked for."""

    def test() -> None:
        book = Book()
        book.one.state = State.PENDING
        assert book.all.take_position("c", at(6), lambda: True)
        assert not book.all.take_position("c", at(7), lambda: False)
        if has_room_again:
            book.all.fetch_the_rest()
        book.all.confirm(book.one, told(9))
        assert (book.one.position, book.one.state) == (at(6), State.WANTED)
        assert (book.errands.begun, book.statistics.unrecovered) == ([], 0)
        assert bool(book.all._to_be_asked_for()) is has_room_again

    on_loop(test)


def test_log_that_does_not_reach_back_is_loaded_anew_although_there_was_no_room() -> None:
    """What was left for want of room and is not in the log any more is missed, and told."""

    def test() -> None:
        book = Book()
        book.one.state = State.PENDING
        assert not book.all.take_position("c", at(6), lambda: False)
        book.all.confirm(book.one, told(30, recovered=False))
        ((_, done),) = book.errands.begun
        done(book.errands.begun[0][0], at(30))
        assert (book.one.position, book.one.awaits_room) == (at(30), False)
        assert book.all._to_be_asked_for() == [book.one]

    on_loop(test)
