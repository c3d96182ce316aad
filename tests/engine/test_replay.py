"""Inbound promises of a whole client: no gap, no repeat, in order; what nobody can replay is loaded anew."""

import asyncio
from collections.abc import Callable
from typing import Any, Self

import pytest
from world import World

from realtime_fsm import (
    ConnectionStatus,
    Dialect,
    EventsMissedError,
    Missed,
    Position,
    ServerUnreachableError,
    SubscriptionRefusedError,
    SubscriptionState,
)
from realtime_fsm.testing.simulated.backend import BackendSession, SimulatedBackend

S = ConnectionStatus
DOWN = ServerUnreachableError("refused.")


class HastyBackend(SimulatedBackend):
    """A backend on which something may happen between the joining of a channel and its confirmation."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.after_joining: Callable[[], None] = lambda: None

    def answer(self, session: BackendSession, event: str, args: list[Any]) -> dict[str, Any]:
        """Answer as the backend does, and let something happen before the answer is sent."""
        given = super().answer(session, event, args)
        if event == "subscribe":
            self.after_joining()
        return given


class Reader:
    """A client of a reference backend that notes the numbers it hears on a channel."""

    def __init__(self, **config: Any) -> None:
        self.world = World(
            dialect=Dialect.REFERENCE, fallback_polling_interval=1.0, reconnect_interval=1.0, **config
        )
        self.backend = HastyBackend(handlers={"snapshot": self.snapshot})
        self.world.server.backend = self.world.http.backend = self.backend
        self.client = self.world.client
        self.heard: list[int] = []
        self.published = 0
        self.issues: list[Any] = []
        self.client.on("tick", self.heard.append)
        self.client.recovery.on_connection_issue(lambda issue: self.issues.append(issue.error))

    async def __aenter__(self) -> Self:
        await self.client.connect()
        await self.client.subscribe(["ticks"])
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.world.__aexit__()

    def publish(self, count: int = 1) -> None:
        """Publish the next numbers."""
        for _ in range(count):
            self.published += 1
            self.backend.publish("ticks", "tick", self.published)

    def snapshot(self) -> dict[str, Any]:
        """Return all numbers so far, and the place that they stand for."""
        position = self.backend.position("ticks")
        return {"numbers": list(range(1, self.published + 1)), **position}

    async def load(self, missed: Missed) -> Position:
        """Load a snapshot, as a user's hook does."""
        assert missed.channel == "ticks"
        answer = await self.client.call("snapshot")
        self.heard[:] = answer["numbers"]
        return Position(epoch=answer["epoch"], offset=answer["offset"])

    async def has_heard_all(self) -> None:
        """Wait until everything was heard, once and in order; fail if it is not."""
        async with asyncio.timeout(60):
            while len(self.heard) < self.published:  # noqa: ASYNC110 - of the handlers
                await asyncio.sleep(0.1)
        assert self.heard == list(range(1, self.published + 1))


async def test_gap_on_a_live_connection_is_healed_by_a_replay() -> None:
    """An event that does not follow the last one is left to a replay, which brings all, once, in order."""
    async with Reader() as reader:
        reader.publish(2)
        await asyncio.sleep(1)
        reader.backend.lose_next("ticks", 2)
        reader.publish(2)
        await asyncio.sleep(1)
        assert reader.heard == [1, 2]
        reader.publish(3)
        await reader.has_heard_all()
        metrics = reader.client.metrics
        assert (metrics.gaps, metrics.unrecovered, metrics.resyncs) == (1, 0, 0)
        assert reader.client.subscriptions[0].state is SubscriptionState.ACTIVE


async def test_gap_is_healed_while_more_is_published_all_the_time() -> None:
    """A replay that events overtake on the way still leaves no gap, no repeat and no disorder."""
    async with Reader() as reader:
        reader.world.server.latency = 0.5
        for n in range(100):
            if n in {10, 30, 31, 32, 70}:
                reader.backend.lose_next("ticks", 1)
            reader.publish()
            await asyncio.sleep(0.1)
        reader.publish()
        await reader.has_heard_all()
        assert reader.client.metrics.gaps >= 3
        asked = len(reader.world.server.received_of("subscribe"))
        await asyncio.sleep(10)
        assert len(reader.world.server.received_of("subscribe")) == asked < 20


async def test_missed_events_come_over_every_way_once_and_in_order() -> None:
    """Through losses, the fallback and back, every event is heard once, in order."""
    async with Reader(max_reconnect_attempts=1, stable_after=0.5) as reader:
        for turn in range(60):
            if turn % 20 == 3:
                reader.world.server.reset()
            if turn % 20 == 7:
                reader.world.server.refusal = DOWN
                reader.world.server.reset()
            if turn % 20 == 17:
                reader.world.server.refusal = None
            reader.publish()
            await asyncio.sleep(0.5)
        await reader.has_heard_all()
        assert "fallback" in reader.world.path
        assert reader.client.metrics.resyncs == 0


@pytest.mark.parametrize("by_polling", [False, True])
async def test_lost_log_is_loaded_anew_once(by_polling: bool) -> None:
    """When the log is lost the hook is called once, and the channel goes on from the snapshot's place."""
    async with Reader(max_reconnect_attempts=0 if by_polling else 10) as reader:
        calls: list[Missed] = []

        @reader.client.on_resync
        async def load(missed: Missed) -> Position:
            calls.append(missed)
            if not by_polling:
                return await reader.load(missed)
            position = reader.backend.position("ticks")
            reader.heard[:] = range(1, reader.published + 1)
            reader.publish(2)  # after the snapshot, before it is answered
            await asyncio.sleep(1)
            return Position(**position)

        reader.publish(3)
        await asyncio.sleep(1)
        reader.world.server.refusal = DOWN
        reader.world.server.reset()
        reader.backend.restart()
        reader.publish(4)
        if not by_polling:
            reader.world.server.refusal = None
        await asyncio.sleep(5)
        reader.publish(4)
        await reader.has_heard_all()
        assert len(calls) == 1
        assert calls[0].position is not None
        assert reader.client.metrics.unrecovered == 1


async def test_link_that_flaps_during_a_resync_does_not_call_it_again() -> None:
    """However often the link is lost while the hook runs, it is called once, and nothing is missed."""
    async with Reader() as reader:
        calls: list[Missed] = []

        @reader.client.on_resync
        async def load(missed: Missed) -> Position:
            calls.append(missed)
            position = await reader.load(missed)
            await asyncio.sleep(20)
            return position

        reader.publish(3)
        await asyncio.sleep(1)
        reader.backend.restart()
        reader.world.server.reset()
        for _ in range(4):
            await reader.world.until(S.CONNECTED)
            await asyncio.sleep(1)
            reader.publish()
            reader.world.server.reset()
            await asyncio.sleep(0.1)
        reader.publish()
        await reader.has_heard_all()
        assert len(calls) == 1


async def test_log_that_is_lost_again_during_a_resync_is_loaded_once_more() -> None:
    """A snapshot of a log that is lost meanwhile is not the end: the hook is called for the new one."""
    async with Reader() as reader:
        calls: list[Missed] = []

        @reader.client.on_resync
        async def load(missed: Missed) -> Position:
            calls.append(missed)
            position = await reader.load(missed)
            if len(calls) == 1:
                await asyncio.sleep(5)
            return position

        reader.publish(3)
        await asyncio.sleep(1)
        for _ in range(2):
            reader.backend.restart()
            reader.world.server.reset()
            reader.publish(2)
            await reader.world.until(S.CONNECTED)
            await asyncio.sleep(1)
        reader.publish(2)
        await reader.has_heard_all()
        assert len(calls) == 2


async def test_missed_events_without_a_hook_are_reported() -> None:
    """Without a hook the stream goes on live, and people are told that events were missed."""
    async with Reader() as reader:
        reader.publish(2)
        await asyncio.sleep(1)
        reader.backend.restart()
        reader.world.server.reset()
        reader.publish(2)
        await reader.world.until(S.CONNECTED)
        await asyncio.sleep(1)
        reader.publish(2)
        await asyncio.sleep(1)
        assert reader.heard == [1, 2, 5, 6]
        assert [type(error) for error in reader.issues].count(EventsMissedError) == 1
        assert reader.client.metrics.unrecovered == 1


async def test_hook_that_fails_is_reported_and_the_stream_goes_on() -> None:
    """A hook that raises, or returns nonsense, is an error of the user's code: the channel goes on live."""
    async with Reader() as reader:
        results: list[Any] = [RuntimeError("no snapshot"), "nonsense"]

        @reader.client.on_resync
        def load(missed: Missed) -> Any:
            result = results.pop(0)
            if isinstance(result, Exception):
                raise result
            return result

        for _ in range(2):
            reader.publish(1)
            await asyncio.sleep(1)
            reader.backend.restart()
            reader.world.server.reset()
            await reader.world.until(S.CONNECTED)
            await asyncio.sleep(1)
        reader.publish(2)
        await asyncio.sleep(1)
        assert reader.heard == [1, 2, 3, 4]
        assert reader.client.metrics.handler_errors == 2


async def test_disconnect_during_a_resync_leaves_it_to_the_next_connection() -> None:
    """A resync that was cut off by `disconnect()` is made again after the next `connect()`."""
    async with Reader() as reader:
        calls: list[Missed] = []

        @reader.client.on_resync
        async def load(missed: Missed) -> Position:
            calls.append(missed)
            if len(calls) == 1:
                await asyncio.sleep(1000)
            return await reader.load(missed)

        reader.publish(3)
        await asyncio.sleep(1)
        reader.backend.restart()
        reader.world.server.reset()
        reader.publish(2)
        await asyncio.sleep(5)
        await reader.client.disconnect()
        assert len(calls) == 1
        await reader.client.connect()
        await asyncio.sleep(1)
        reader.publish(2)
        await reader.has_heard_all()
        assert len(calls) == 2


async def test_server_that_does_not_replay_what_it_says_is_not_asked_for_ever() -> None:
    """A server whose replay leaves the gap open is asked once; then what was missed is reported."""
    async with Reader() as reader:
        reader.publish(2)
        await asyncio.sleep(1)
        reader.backend.lose_next("ticks", 1000)
        reader.publish(3)
        reader.world.server.reset()
        await reader.world.until(S.CONNECTED)
        await asyncio.sleep(60)
        assert len(reader.world.server.received_of("subscribe")) == 2
        assert reader.client.metrics.unrecovered == 1
        reader.backend.lose_next("ticks", 0)
        reader.publish(1)
        await asyncio.sleep(1)
        assert reader.heard == [1, 2, 6]


async def test_plain_server_is_loaded_anew_after_every_reconnect() -> None:
    """Where nobody replays, the hook runs after each reconnect, before any event of the new connection."""
    async with World() as world:
        story: list[Any] = []
        world.client.on("n", story.append)

        @world.client.on_resync
        async def load(missed: Missed) -> None:
            assert missed.channel is None
            story.append("begins")
            await asyncio.sleep(1)
            story.append("ends")

        await world.client.connect()
        world.server.emit("n", 1)
        await asyncio.sleep(1)
        world.server.reset()
        await world.until(S.CONNECTED)
        world.server.emit("n", 2)
        await asyncio.sleep(3)
        assert story == [1, "begins", "ends", 2]


async def test_resync_that_waits_covers_all_reconnects_before_it() -> None:
    """Reconnects that happen while the hook still waits for its turn need no second call."""
    async with World() as world:
        calls: list[Missed] = []
        world.client.on_resync(calls.append)
        world.client.on("slow", lambda: asyncio.sleep(30))
        await world.client.connect()
        world.server.emit("slow")
        await asyncio.sleep(1)
        for _ in range(3):
            world.server.reset()
            await world.until(S.CONNECTED)
            await asyncio.sleep(1)
        await asyncio.sleep(60)
        assert len(calls) == 1


async def test_subscribe_returns_when_it_is_confirmed() -> None:
    """On a live connection `subscribe` waits for the answer; the states tell how far each has come."""
    async with Reader() as reader:
        reader.backend.forbidden.add("secret")
        reader.world.server.latency = 2.0
        began = reader.world.now
        asking = asyncio.create_task(reader.client.subscribe(["a", "secret"]))
        await asyncio.sleep(1)
        states = {s.channel: s.state for s in reader.client.subscriptions}
        assert states["a"] is states["secret"] is SubscriptionState.PENDING
        with pytest.raises(SubscriptionRefusedError, match="secret"):
            await asking
        assert reader.world.now - began == pytest.approx(4.0)
        states = {s.channel: s.state for s in reader.client.subscriptions}
        assert states == {
            "ticks": SubscriptionState.ACTIVE,
            "a": SubscriptionState.ACTIVE,
            "secret": SubscriptionState.REFUSED,
        }
        reader.world.server.latency = 0.01
        reader.world.server.refusal = DOWN
        reader.world.server.reset()
        await reader.client.subscribe(["b"])  # offline it returns at once
        assert {s.state for s in reader.client.subscriptions} == {SubscriptionState.WANTED}
        await reader.client.unsubscribe(["a"])
        reader.world.server.refusal = None
        await reader.world.until(S.CONNECTED)
        await asyncio.sleep(1)
        (again,) = reader.world.server.received_of("subscribe")[-1:]
        assert again["channels"] == ["ticks", "secret", "b"]


async def test_subscribe_that_nobody_answers_ends_and_stays_wanted() -> None:
    """A server that stays silent makes `subscribe` fail in its time; it is asked again all the same."""
    async with Reader(ack_timeout=5.0) as reader:
        answer = reader.world.server.swallow_acks
        reader.world.server.swallow_acks = 1
        began = reader.world.now
        with pytest.raises(SubscriptionRefusedError, match="did not answer"):
            await reader.client.subscribe(["a"])
        assert reader.world.now - began == pytest.approx(5.0)
        reader.world.server.swallow_acks = answer
        await asyncio.sleep(10)
        assert {s.state for s in reader.client.subscriptions} == {SubscriptionState.ACTIVE}


async def test_polled_events_wait_for_slow_handlers_and_none_is_lost() -> None:
    """Polling heeds the bound on pending events, also when the socket comes back in the middle of it."""
    async with Reader(max_reconnect_attempts=0, max_pending_events=10) as reader:
        reader.client.on("tick", lambda _: asyncio.sleep(0.2))
        reader.world.server.refusal = DOWN
        reader.world.server.reset()
        reader.publish(100)
        most = 0
        for _ in range(30):
            await asyncio.sleep(0.1)
            most = max(most, reader.client.metrics.events_pending)
        assert 0 < most <= 10
        reader.world.server.refusal = None
        await reader.world.until(S.CONNECTED)
        await reader.has_heard_all()


async def test_event_between_the_joining_and_its_confirmation_is_not_lost() -> None:
    """An event of a new log that comes before the server has said so is fetched again, without another."""
    async with Reader() as reader:
        reader.publish(2)
        await asyncio.sleep(1)
        reader.backend.restart()
        reader.backend.after_joining = lambda: reader.publish(reader.published == 2)
        reader.world.server.reset()
        await reader.world.until(S.CONNECTED)
        await asyncio.sleep(5)
        assert reader.heard == [1, 2, 3]


async def test_channel_that_may_not_be_polled_is_asked_for_on_the_socket() -> None:
    """A refusal over HTTP is reported once, and forgotten when the socket is back."""
    async with Reader(max_reconnect_attempts=0) as reader:
        reader.world.server.refusal = DOWN
        reader.world.server.reset()
        reader.backend.forbidden.add("ticks")
        await reader.world.until(S.FALLBACK)
        await asyncio.sleep(20)
        refusals = [error for error in reader.issues if isinstance(error, SubscriptionRefusedError)]
        assert len(refusals) == 1
        assert reader.client.subscriptions[0].state is SubscriptionState.REFUSED
        reader.backend.forbidden.clear()
        reader.world.server.refusal = None
        await reader.world.until(S.CONNECTED)
        reader.publish(2)
        await reader.has_heard_all()
        assert reader.client.subscriptions[0].state is SubscriptionState.ACTIVE


async def test_answer_that_was_cut_off_before_it_was_taken_is_fetched_again() -> None:
    """A poll that is cancelled while it waits for the handlers does not count: the next one is not a 304."""
    async with Reader(max_reconnect_attempts=0, max_pending_events=2) as reader:
        gate = asyncio.Event()
        reader.client.on("tick", lambda _: gate.wait())
        reader.publish(3)
        await asyncio.sleep(1)
        reader.world.server.refusal = DOWN
        reader.world.server.reset()
        reader.publish(3)
        await reader.world.until(S.FALLBACK)
        await asyncio.sleep(1)
        assert reader.client.force_fallback()  # entered anew: what runs is cancelled
        await asyncio.sleep(1)
        gate.set()
        await reader.has_heard_all()


async def test_plain_server_is_loaded_anew_each_time() -> None:
    """Every reconnect is a gap: also one after a resync has ended, and one after a resync was cut off."""
    async with World() as world:
        calls: list[Missed] = []
        pause = 0.0

        @world.client.on_resync
        async def load(missed: Missed) -> None:
            calls.append(missed)
            await asyncio.sleep(pause)

        await world.client.connect()
        for _ in range(2):
            world.server.reset()
            await world.until(S.CONNECTED)
            await asyncio.sleep(1)
        assert len(calls) == world.client.metrics.resyncs == 2
        world.client.on("slow", lambda: asyncio.sleep(1000))
        world.server.emit("slow")
        await asyncio.sleep(1)
        world.server.reset()
        await world.until(S.CONNECTED)  # the hook waits for the handler
        await world.client.disconnect()
        await world.client.connect()
        await asyncio.sleep(1)
        assert len(calls) == 3


async def test_events_of_a_channel_that_find_no_room_are_replayed_by_themselves() -> None:
    """With positions nothing is lost: what does not fit is fetched again when there is room, in order."""
    async with Reader(max_pending_events=4) as reader:
        reader.client.on("tick", lambda _: asyncio.sleep(0.05))
        reader.publish(100)
        await reader.has_heard_all()
        metrics = reader.client.metrics
        assert metrics.dropped["event without room, left to the replay"] >= 1
        assert "event without room" not in metrics.dropped
        assert (metrics.gaps, metrics.unrecovered, metrics.resyncs, metrics.duplicates_dropped) == (
            0,
            0,
            0,
            0,
        )
        await asyncio.sleep(1)
        assert reader.client.subscriptions[0].state is SubscriptionState.ACTIVE
        asked = len(reader.world.server.received_of("subscribe"))
        await asyncio.sleep(60)
        assert len(reader.world.server.received_of("subscribe")) == asked


async def test_subscribe_returns_while_the_handlers_are_behind() -> None:
    """A handler may subscribe: the answer is heard, although its replay finds no room."""
    async with Reader(max_pending_events=2) as reader:
        done: list[float] = []

        @reader.client.on("tick")
        async def join(n: int) -> None:
            if n == 1:
                for _ in range(10):
                    reader.publish()
                await asyncio.sleep(1)
                began = reader.world.now
                await reader.client.subscribe(["ticks", "more"])
                done.append(reader.world.now - began)

        reader.publish()
        await reader.has_heard_all()
        assert done[0] < 1.0


async def test_polls_do_not_wait_for_handlers_and_take_what_fits() -> None:
    """A poll takes what there is room for and ends; the rest is polled again when there is room."""
    async with Reader(max_reconnect_attempts=0, max_pending_events=4) as reader:
        gate = asyncio.Event()
        reader.client.on("tick", lambda _: gate.wait())
        reader.world.server.refusal = DOWN
        reader.world.server.reset()
        reader.publish(50)
        await reader.world.until(S.FALLBACK)
        await asyncio.sleep(5)
        assert reader.client.metrics.events_pending == 4
        polled = reader.client.metrics.polls
        await asyncio.sleep(10)
        assert polled + 5 <= reader.client.metrics.polls <= polled + 15
        gate.set()
        await reader.has_heard_all()
        assert reader.client.metrics.gaps == 0


async def test_events_that_a_disconnect_drops_come_with_the_next_connect() -> None:
    """What waits for its handler at a disconnect was not heard: the next connection brings it."""
    async with Reader() as reader:
        reader.client.on("tick", lambda _: asyncio.sleep(10))
        reader.publish(5)
        await asyncio.sleep(1)
        await reader.client.disconnect()
        assert reader.heard == [1]
        await reader.client.connect()
        await reader.has_heard_all()
        assert reader.client.metrics.dropped["event after disconnect"] == 4
