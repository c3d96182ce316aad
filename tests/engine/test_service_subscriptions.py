"""Subscriptions are state: remembered, repeated, confirmed or refused (SPEC A1)."""

import asyncio
from typing import Any

import pytest
from attrs import evolve
from world import World

from realtime_fsm import (
    ConnectionStatus,
    Dialect,
    InvalidArgumentError,
    ServerUnreachableError,
    SubscriptionRefusedError,
)
from realtime_fsm.testing.simulated.backend import SimulatedBackend
from realtime_fsm.testing.simulated.sessions import SimulatedSessions

S = ConnectionStatus


def asked(world: World, event: str) -> list[Any]:
    """Return what was asked for by an event, in order."""
    body = {"subscribe": "channels", "unsubscribe": "channels", "monitor_bookings": "booking_ids"}[event]
    return [args[0][body] for name, args in world.server.received if name == event]


def consent(event: str, args: list[Any]) -> list[Any]:
    """Answer as the reference backend does; channels that begin with ``no`` are refused."""
    if event not in {"subscribe", "monitor_bookings"}:
        return [{"ok": True}]
    names = args[0].get("channels") or [f"booking:{name}" for name in args[0]["booking_ids"]]
    refusal = {"ok": False, "error": {"message": "not for you"}}
    yes = {"ok": True, "epoch": "e", "offset": 0, "recovered": True}
    return [{"ok": True, "channels": {n: refusal if n.startswith("no") else yes for n in names}}]


async def test_subscriptions_are_repeated_on_every_connection() -> None:
    """What was wanted offline or online is asked for on every connection, before any message."""
    async with World() as world:
        await world.client.subscribe(["a", "b", "a"])
        await world.client.monitor_bookings(["42"])
        await world.client.emit("n", 1)
        await world.client.connect()
        await asyncio.sleep(1)
        assert asked(world, "subscribe") == [["a", "b"]]
        assert asked(world, "monitor_bookings") == [["42"]]
        names = [name for name, _ in world.server.received if name != "heartbeat"]
        assert names == ["subscribe", "monitor_bookings", "n"]
        await world.client.subscribe(["c"])
        await world.client.unsubscribe(["a", "unknown"])
        await asyncio.sleep(1)
        assert asked(world, "subscribe")[1:] == [["c"]]
        assert asked(world, "unsubscribe") == [["a"]]
        world.server.reset()
        await world.until(S.CONNECTED)
        await asyncio.sleep(1)
        assert asked(world, "subscribe")[2:] == [["b", "c"]]
        assert asked(world, "monitor_bookings") == [["42"], ["42"]]


async def test_subscriptions_are_confirmed_or_refused_by_name() -> None:
    """On a dialect that confirms, a refused channel is an error that names it; the others are active."""
    async with World(dialect=Dialect.REFERENCE) as world:
        world.server.acknowledge = consent
        await world.client.connect()
        await asyncio.sleep(1)
        with pytest.raises(SubscriptionRefusedError, match=r"'nope' \(not for you\)"):
            await world.client.subscribe(["yes", "nope"])
        states = {s.channel: s.state.value for s in world.client._subscriptions}
        assert states == {"yes": "active", "nope": "refused"}
        await world.client.monitor_bookings(["7"])
        assert {s.channel: s.state.value for s in world.client._subscriptions}["booking:7"] == "active"


async def test_subscription_request_lost_with_its_connection_is_asked_again() -> None:
    """A connection that ends before the answer costs nothing: the next one asks again."""
    async with World(dialect=Dialect.REFERENCE) as world:
        world.server.acknowledge = consent
        await world.client.connect()
        await asyncio.sleep(1)
        world.server.swallow_acks = 1
        subscribing = asyncio.create_task(world.client.subscribe(["yes"]))
        await asyncio.sleep(1)
        world.server.reset()
        await subscribing
        await world.until(S.CONNECTED)
        await asyncio.sleep(1)
        assert [s.state.value for s in world.client._subscriptions] == ["active"]


async def test_subscription_that_is_never_answered_does_not_hold_messages_up_for_ever() -> None:
    """A server that does not answer the request is reported, and the outbox drains after ``ack_timeout``."""
    async with World(dialect=Dialect.REFERENCE, ack_timeout=5.0) as world:
        await world.client.subscribe(["a"])
        world.server.acknowledge = lambda event, args: None if event == "subscribe" else [{"ok": True}]
        issues: list[Any] = []
        world.client.recovery.on_connection_issue(issues.append)
        await world.client.connect()
        await world.client.call("n", 1, timeout=10)
        assert len(issues) == 1


@pytest.mark.parametrize("names", ["bookings", [], [""], ["a", "  "], [1], [None]])
async def test_subscriptions_with_bad_names_are_refused_whole(names: Any) -> None:
    """A bare string, an empty list or a blank name is refused, and nothing is remembered of it."""
    async with World() as world:
        for method in (world.client.subscribe, world.client.unsubscribe, world.client.monitor_bookings):
            with pytest.raises(InvalidArgumentError):
                await method(names)
        assert list(world.client._subscriptions) == []


async def test_subscription_events_are_delivered_once_and_without_their_place() -> None:
    """Where events carry their place, repeats are dropped, and handlers see only data."""
    async with World(dialect=Dialect.REFERENCE) as world:
        world.server.acknowledge = consent
        got: list[Any] = []
        world.client.on("tick", lambda *args: got.append(args))
        await world.client.connect()
        await world.client.subscribe(["ticks"])
        for offset in (1, 2, 2, 1, 3):
            world.server.emit("tick", offset, {"channel": "ticks", "epoch": "e", "offset": offset})
        world.server.emit("tick", {"channel": 5, "epoch": "e", "offset": "x"})  # no place, but data
        await asyncio.sleep(1)
        assert got == [(1,), (2,), (3,), ({"channel": 5, "epoch": "e", "offset": "x"},)]
        assert world.client.metrics.duplicates_dropped == 2
        assert world.client.metrics.gaps == 0


async def test_subscription_answers_that_make_no_sense_are_refusals() -> None:
    """Whatever a server answers, nothing crashes: what is no consent is a refusal."""
    answers: list[Any] = [
        [],
        [None],
        [5],
        [{}],
        [{"channels": 3}],
        [{"channels": {"a": None}}],
        [{"ok": 1}],
    ]
    async with World(dialect=Dialect.REFERENCE) as world:
        await world.client.connect()
        await asyncio.sleep(1)
        while answers:
            world.server.acknowledge = lambda *_: answers[0]
            with pytest.raises(SubscriptionRefusedError):
                await world.client.subscribe(["a"])
            answers.pop(0)
        assert world.path == ["connecting", "connected"]


def names_of(count: int) -> list[str]:
    """Return names of channels."""
    return [f"device/{n:05d}/telemetry" for n in range(count)]


@pytest.mark.parametrize("dialect", [Dialect.PLAIN, Dialect.REFERENCE])
async def test_subscriptions_that_do_not_fit_into_one_request_come_back_in_several(dialect: Dialect) -> None:
    """However much was subscribed bit by bit, all of it is asked for after a reconnect, once and in order."""
    async with World(dialect=dialect, max_message_bytes=4000) as world:
        if dialect.positions:
            world.server.backend = SimulatedBackend()
        await world.client.connect()
        names = names_of(500)
        for at in range(0, 500, 50):
            await world.client.subscribe(names[at : at + 50])
        await world.client.monitor_bookings(names)
        world.server.received.clear()
        world.server.reset()
        await world.client.emit("n", 1)
        await world.until(S.CONNECTED)
        await asyncio.sleep(5)
        for event in ("subscribe", "monitor_bookings"):
            requests = asked(world, event)
            assert 3 < len(requests) < 50
            assert [name for request in requests for name in request] == names
        assert {s.state.value for s in world.client.subscriptions} == {"active"}
        assert [name for name, _ in world.server.received if name != "heartbeat"][-1] == "n"
        assert world.client.metrics.activity_crashes == 0
        world.server.received.clear()
        await world.client.unsubscribe(names)
        await asyncio.sleep(1)
        told = asked(world, "unsubscribe")
        assert len(told) > 1
        assert [name for request in told for name in request] == names


async def test_each_request_of_many_is_decided_by_itself() -> None:
    """A request that is refused or not answered costs the channels of the others nothing."""
    async with World(dialect=Dialect.REFERENCE, max_message_bytes=1000, ack_timeout=5.0) as world:
        answers: list[list[str]] = []

        def answer(event: str, args: list[Any]) -> list[Any] | None:
            if event != "subscribe":
                return [{"ok": True}]
            answers.append(args[0]["channels"])
            if len(answers) == 1:
                return [{"ok": False, "error": {"message": "too many"}}]
            return None if len(answers) == 2 else consent(event, args)

        world.server.acknowledge = answer
        await world.client.connect()
        with pytest.raises(SubscriptionRefusedError, match="did not answer"):
            await world.client.subscribe(names_of(100))
        states = {s.channel: s.state.value for s in world.client.subscriptions}
        assert {states[name] for name in answers[0]} == {"refused"}
        assert {states[name] for name in answers[2]} == {"active"}
        await asyncio.sleep(10)
        states = {s.channel: s.state.value for s in world.client.subscriptions}
        assert {states[name] for name in answers[1]} == {"active"}


@pytest.mark.parametrize("name", ["x" * 600, "half a pair \ud800"])
async def test_subscription_that_can_never_be_asked_for_is_refused_at_once(name: str) -> None:
    """A name that fits into no request, its position included, is refused, and not remembered."""
    async with World(dialect=Dialect.REFERENCE, max_message_bytes=1000) as world:
        for method in (world.client.subscribe, world.client.monitor_bookings):
            with pytest.raises(InvalidArgumentError):
                await method(["good", name])
        assert world.client.subscriptions == ()


async def test_position_that_does_not_fit_costs_its_channel_alone() -> None:
    """A server whose positions outgrow a request makes one channel refused, and breaks no connection."""
    async with World(dialect=Dialect.REFERENCE, max_message_bytes=1000) as world:
        world.server.backend = SimulatedBackend()
        await world.client.connect()
        await world.client.subscribe(["a", "b"])
        world.server.emit("tick", 1, {"channel": "a", "epoch": "e1", "offset": 1})
        await asyncio.sleep(1)
        world.server.backend.epoch = "e" * 2000
        world.server.reset()
        await world.until(S.CONNECTED)
        await asyncio.sleep(1)
        world.server.reset()
        await world.until(S.CONNECTED)
        await asyncio.sleep(1)
        assert {s.state.value for s in world.client.subscriptions} == {"refused"}
        await world.client.subscribe(["c"])
        assert world.client.metrics.activity_crashes == 0


@pytest.mark.parametrize("turns", range(1, 9))
async def test_unsubscribe_is_the_last_word_whenever_it_is_called(turns: int) -> None:
    """However soon after `subscribe`, neither the server nor the handlers know the channel afterwards."""
    async with World(dialect=Dialect.REFERENCE) as world:
        backend = world.server.backend = SimulatedBackend()
        heard: list[Any] = []
        world.client.on("e", heard.append)
        await world.client.connect()
        await asyncio.sleep(1)
        subscribing = asyncio.create_task(world.client.subscribe(["a"]))
        for _ in range(turns):
            await asyncio.sleep(0)
        await world.client.unsubscribe(["a"])
        await subscribing
        backend.publish("a", "e", 1)
        await asyncio.sleep(1)
        assert (heard, world.client.subscriptions) == ([], ())


@pytest.mark.parametrize("cancelled", [False, True])
async def test_unsubscribed_channel_is_silent_at_once(cancelled: bool) -> None:
    """What is under way, or waits for a handler, is not heard any more, also if the caller was cancelled."""
    async with World(dialect=Dialect.REFERENCE) as world:
        backend = world.server.backend = SimulatedBackend()
        heard: list[Any] = []

        async def hear(number: int) -> None:
            heard.append(number)
            await asyncio.sleep(5)

        world.client.on("e", hear)
        await world.client.connect()
        await world.client.subscribe(["a"])
        for n in range(3):
            backend.publish("a", "e", n)
        await asyncio.sleep(1)
        backend.publish("a", "e", 3)
        leaving = asyncio.create_task(world.client.unsubscribe(["a"]))
        await asyncio.sleep(0)
        if cancelled:
            leaving.cancel()
        await asyncio.wait({leaving})
        await asyncio.sleep(30)
        assert heard == [0]
        assert world.client.metrics.dropped["event of an unsubscribed channel"] == 3
        await world.client.subscribe(["a"])
        backend.publish("a", "e", 4)
        await asyncio.sleep(10)
        assert heard == [0, 4]
        assert world.client.metrics.unrecovered == 0


async def test_unsubscribed_while_nobody_could_be_told_is_told_to_a_recovered_session() -> None:
    """A server that goes on with the session knows the old channels: it is told before it is asked."""
    async with World() as world:
        world.server.sessions = SimulatedSessions()
        await world.client.connect()
        await world.client.subscribe(["a", "b"])
        world.server.emit("e", 1)
        await asyncio.sleep(1)
        world.server.received.clear()
        world.server.refusal = ServerUnreachableError("refused.")
        world.server.reset()
        await world.client.unsubscribe(["a"])
        world.server.refusal = None
        await world.until(S.CONNECTED)
        await asyncio.sleep(1)
        told = [(name, args[0]["channels"]) for name, args in world.server.received if name != "heartbeat"]
        assert told == [("unsubscribe", ["a"]), ("subscribe", ["b"])]
        world.server.received.clear()
        world.server.reset()
        await world.client.unsubscribe(["b"])
        world.server.sessions.forget()  # another session: nobody knows them any more
        await world.until(S.CONNECTED)
        await asyncio.sleep(1)
        assert [name for name, _ in world.server.received if name != "heartbeat"] == []


ROOMS = Dialect(
    name="rooms",
    subscribe_event="join",
    unsubscribe_event="leave",
    subscribe_payload=lambda room, _: room,
    unsubscribe_payload=lambda room: (room, "bye"),
)


async def test_subscriptions_speak_as_the_dialect_wants_it() -> None:
    """With payloads of its own `join("room")` is repeated on every connection, room by room."""
    async with World(dialect=ROOMS) as world:
        await world.client.subscribe(["a", "b"])
        await world.client.connect()
        await asyncio.sleep(1)
        await world.client.unsubscribe(["a"])
        await asyncio.sleep(1)
        world.server.reset()
        await world.until(S.CONNECTED)
        await asyncio.sleep(1)
        told = [(name, args) for name, args in world.server.received if name != "heartbeat"]
        assert told == [("join", ["a"]), ("join", ["b"]), ("leave", ["a", "bye"]), ("join", ["b"])]


async def test_subscription_payload_is_told_the_position() -> None:
    """A payload of its own may say from where the channel is to go on."""
    dialect = evolve(Dialect.REFERENCE, subscribe_payload=lambda channel, here: (channel, here))
    async with World(dialect=dialect) as world:
        world.server.acknowledge = lambda event, _: [{"ok": True, "epoch": "e", "offset": 3}]
        await world.client.connect()
        await world.client.subscribe(["a"])
        world.server.reset()
        await world.until(S.CONNECTED)
        await asyncio.sleep(1)
        told = [args for name, args in world.server.received if name == "subscribe"]
        assert told == [["a", None], ["a", {"epoch": "e", "offset": 3}]]


async def test_subscription_payload_that_fails_costs_its_channel_alone() -> None:
    """A function of the user's that raises is told at once; if it does later, no connection is lost."""
    fails = {"bad"}

    def payload(channel: str, _: object) -> str:
        if channel in fails:
            raise LookupError(channel)
        return channel

    def farewell(channel: str) -> str:
        return payload(channel, None)

    dialect = Dialect(name="mine", subscribe_payload=payload, unsubscribe_payload=farewell)
    async with World(dialect=dialect) as world:
        issues: list[Any] = []
        world.client.recovery.on_connection_issue(lambda issue: issues.append(issue.error))
        await world.client.connect()
        with pytest.raises(InvalidArgumentError, match="LookupError"):
            await world.client.subscribe(["a", "bad"])
        await world.client.subscribe(["a", "b"])
        fails.add("a")
        world.server.reset()
        await world.until(S.CONNECTED)
        await asyncio.sleep(1)
        assert {s.channel: s.state.value for s in world.client.subscriptions} == {
            "a": "refused",
            "b": "active",
        }
        fails.add("b")
        await world.client.unsubscribe(["b"])
        await asyncio.sleep(1)
        assert [type(error) for error in issues[-2:]] == [SubscriptionRefusedError, InvalidArgumentError]
        assert world.client.metrics.activity_crashes == 0
