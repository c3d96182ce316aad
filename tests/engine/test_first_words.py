"""The program's own first words: on every connection, before all else; its errors decide."""

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from world import World

from realtime_fsm import (
    ApplicationError,
    AuthenticationError,
    ConnectionStatus,
    Delivery,
    Dialect,
    Outcome,
    RealtimeConfig,
    RealtimeError,
    RealtimeService,
)
from realtime_fsm.engine.first_words import FirstWords
from realtime_fsm.testing import SimulatedBackend
from realtime_fsm.testing.simulated.server import SimulatedServer

S = ConnectionStatus


def heard(world: World) -> list[tuple[str, Any]]:
    """Return what the server has heard, heartbeats aside: names and first arguments."""
    return [(name, args[0] if args else None) for name, args in world.server.received if name != "heartbeat"]


async def test_first_words_overtake_all_that_waits_on_every_connection() -> None:
    """The hook is awaited before the channels are asked for and before the outbox; what it sends is first."""
    async with World() as world:
        client = world.client

        @client.on_connect
        async def login() -> None:
            assert client.is_connected
            assert await client.call("login", "me") == "me"
            await client.emit("join", "room")

        await client.subscribe(["c"])
        for n in range(3):
            await client.emit("n", n)
        await client.connect()
        await asyncio.sleep(1)
        words = [("login", "me"), ("join", "room"), ("subscribe", {"channels": ["c"]})]
        assert heard(world) == [*words, ("n", 0), ("n", 1), ("n", 2)]
        world.server.received.clear()
        world.server.reset()
        await client.emit("n", 3)
        await world.until(S.CONNECTED)
        await asyncio.sleep(1)
        assert heard(world) == [*words, ("n", 3)]


async def test_first_words_are_alone_until_the_hook_has_ended() -> None:
    """While the hook runs nothing of the program is sent but its own, also by tasks that it has started."""
    async with World() as world:
        client, go_on = world.client, asyncio.Event()
        later: list[asyncio.Task[Any]] = []

        @client.on_connect
        async def slow() -> None:
            await asyncio.gather(client.emit("hello", 1), client.emit("hello", 2))
            later.append(asyncio.create_task(after_it()))
            await go_on.wait()

        async def after_it() -> None:
            await go_on.wait()
            await asyncio.sleep(0.5)
            await client.emit("n", "left behind")

        await client.connect()
        await client.emit("n", "waits")
        dropped = await client.emit("n", "fleeting", delivery=Delivery.VOLATILE)
        subscribing = asyncio.create_task(client.subscribe(["c"]))
        await asyncio.sleep(0.1)
        await client.unsubscribe(["c"])
        await subscribing
        await asyncio.sleep(2)
        assert heard(world) == [("hello", 1), ("hello", 2)]
        assert dropped.outcome is Outcome.DROPPED
        go_on.set()
        await asyncio.gather(*later)
        await asyncio.sleep(1)
        assert heard(world)[2:] == [("n", "waits"), ("n", "left behind")]


async def test_first_words_pass_a_full_outbox() -> None:
    """However much waits, the hook's own are accepted: nothing of it could leave before them."""
    async with World(outbox_max_messages=2, outbox_overflow="block") as world:
        client = world.client

        @client.on_connect
        async def login() -> None:
            await client.call("login", 1)

        for n in range(2):
            await client.emit("n", n)
        await client.connect()
        await asyncio.sleep(1)
        assert heard(world) == [("login", 1), ("n", 0), ("n", 1)]
        assert client.metrics.messages_waiting == 0


async def test_first_words_take_effect_once_beside_what_they_overtake() -> None:
    """Overtaking does not make a repeat of what is overtaken: each run of the hook is numbered by itself."""
    backend = SimulatedBackend(handlers={"login": lambda n: n, "n": lambda n: n, "ask": lambda n: n})
    async with World(dialect=Dialect.REFERENCE) as world:
        world.server.backend = world.http.backend = backend
        client, logins = world.client, 0

        @client.on_connect
        async def login() -> None:
            nonlocal logins
            logins += 1
            await client.emit("login", logins)
            assert await client.call("login", -logins) == -logins

        asking = [asyncio.create_task(client.call("ask", n)) for n in range(3)]
        for n in range(3):
            await client.emit("n", n)
        await client.connect()
        await asyncio.sleep(1)
        world.server.swallow_acks = 1
        receipt = await client.emit("n", 3)
        await asyncio.sleep(0.5)
        world.server.reset()
        asking += [asyncio.create_task(client.call("ask", n)) for n in range(3, 6)]
        await receipt
        await world.until(S.CONNECTED)
        assert await asyncio.gather(*asking) == list(range(6))
        await asyncio.sleep(1)
        assert [m.args[0] for m in backend.handled if m.event == "login"] == [1, -1, 2, -2]
        assert [m.args[0] for m in backend.handled if m.event == "n"] == [0, 1, 2, 3]
        assert backend.repeats == 1


async def test_first_words_that_were_not_acknowledged_keep_their_promise() -> None:
    """What the hook emitted at least once is sent again after a loss, behind the words of the next run."""
    async with World() as world:
        client, runs, receipts = world.client, 0, []

        @client.on_connect
        async def login() -> None:
            nonlocal runs
            runs += 1
            receipts.append(await client.emit("login", runs, delivery=Delivery.AT_LEAST_ONCE))

        world.server.swallow_acks = 1
        await client.connect()
        await asyncio.sleep(1)
        await client.emit("n", 1)
        await asyncio.sleep(0.1)
        world.server.reset()
        await world.until(S.CONNECTED)
        await asyncio.sleep(1)
        assert heard(world) == [("login", 1), ("n", 1), ("login", 2), ("login", 1)]
        assert {receipt.outcome for receipt in receipts} == {Outcome.ACKNOWLEDGED}


async def test_hook_within_which_channels_are_subscribed_is_not_held_up() -> None:
    """`subscribe` within the hook only remembers: the channels are asked for as soon as it has ended."""
    async with World(dialect=Dialect.REFERENCE) as world:
        world.server.backend = SimulatedBackend()
        began = world.now

        @world.client.on_connect
        async def join() -> None:
            await world.client.subscribe(["c"])

        await world.client.connect()
        await world.client.subscribe(["d"])
        assert world.now - began < 1
        assert [s.state.value for s in world.client.subscriptions] == ["active", "active"]


@pytest.mark.parametrize(
    ("error", "path"),
    [
        (AuthenticationError("The login was refused."), ["connecting", "connected", "failed"]),
        (ApplicationError("Not yet.", retryable=True), ["connecting", "connected", "reconnecting"]),
        (ApplicationError("Never."), ["connecting", "connected", "failed"]),
        (KeyError("secret"), ["connecting", "connected", "reconnecting"]),
        (TimeoutError(), ["connecting", "connected", "reconnecting"]),
        (asyncio.CancelledError(), ["connecting", "connected", "reconnecting"]),
    ],
)
async def test_hook_that_raises_decides_what_becomes_of_the_connection(
    error: BaseException, path: list[str]
) -> None:
    """Its error is told, once; it says itself whether trying again can help; nothing else was sent."""
    async with World() as world:
        issues: list[Any] = []
        world.client.recovery.on_connection_issue(issues.append)

        @world.client.on_connect
        def refuse() -> None:
            raise error

        await world.client.emit("n", 1)
        with suppress(RealtimeError):  # which `connect()` raises where it is for good
            await world.client.connect()
        await world.until(S(path[-1]))
        assert world.path == path
        told = world.changes[-1].error
        assert told is error or type(told) is ApplicationError
        assert [issue.error for issue in issues] == [told]
        assert heard(world) == []
        assert world.client.metrics.activity_crashes == 0


async def test_hook_that_fails_for_a_while_is_tried_with_backoff_until_it_succeeds() -> None:
    """Connections that are of no use without their first words do not come in a storm, and end well."""
    async with World() as world:
        runs: list[float] = []

        @world.client.on_connect
        async def fails_four_times() -> None:
            runs.append(world.now)
            if len(runs) < 5:
                raise OSError

        await world.client.emit("n", 1)
        await world.client.connect()
        await asyncio.sleep(300)
        assert len(runs) == 5
        assert runs[4] - runs[0] > 7
        assert heard(world) == [("n", 1)]


async def test_hook_that_does_not_end_is_given_up_in_its_time() -> None:
    """The hook is bounded by `connection_timeout`: then the connection is lost with an error that says so."""
    async with World(connection_timeout=4.0) as world:

        @world.client.on_connect
        async def hang() -> None:
            await asyncio.Event().wait()

        await world.client.connect()
        assert await world.until(S.RECONNECTING) == pytest.approx(4.0)
        assert "on_connect hook did not end within 4.0 s" in str(world.changes[-1].error)


async def test_hook_is_cancelled_with_its_connection() -> None:
    """A hook whose connection is lost does not go on: the next connection has one of its own."""
    async with World() as world:
        story: list[str] = []

        @world.client.on_connect
        async def hang() -> None:
            story.append("begins")
            try:
                await asyncio.sleep(1)
                story.append("ends")
            except asyncio.CancelledError:
                story.append("cancelled")
                raise

        await world.client.connect()
        await asyncio.sleep(0.5)
        world.server.reset()
        await world.until(S.CONNECTED)
        await asyncio.sleep(5)
        assert story == ["begins", "cancelled", "begins", "ends"]


async def test_disconnect_that_drains_waits_for_the_first_words() -> None:
    """A drain that begins while the hook runs lets it speak to its end, and then sends what waited."""
    async with World() as world:

        @world.client.on_connect
        async def login() -> None:
            await asyncio.sleep(0.5)
            await world.client.call("login", 1)

        await world.client.emit("n", 1, delivery=Delivery.AT_LEAST_ONCE)
        await world.client.connect()
        assert await world.client.disconnect() == ()
        assert heard(world) == [("login", 1), ("n", 1)]


async def test_first_words_are_of_one_client_alone() -> None:
    """What the hook of a client sends by another client is nothing special there."""
    async with World() as world:
        other = RealtimeService(RealtimeConfig(), token="t", transport_factory=SimulatedServer())
        words = FirstWords(object(), 1.0)
        words.hook = lambda: other.emit("n", 1)
        await other.emit("n", 0)
        await words.say()
        assert len(other.outbox) == 2
        assert [letter.event for letter in await other.disconnect()] == ["n", "n"]
        await world.client.connect()
