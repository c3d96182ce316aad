"""Subscriptions are state: remembered, repeated, confirmed or refused (SPEC A1)."""

import asyncio
from typing import Any

import pytest
from world import World

from realtime_fsm import ConnectionStatus, Dialect, InvalidArgumentError, SubscriptionRefusedError

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
