"""FALLBACK: the same data over HTTP, and the way back without a gap (SPEC C1 to C3)."""

import asyncio
from itertools import pairwise
from typing import Any

import canary
import pytest
from world import World

from realtime_fsm import (
    AuthenticationError,
    ConnectionStatus,
    Delivery,
    Dialect,
    Outcome,
    ProtocolError,
    ServerUnavailableError,
    ServerUnreachableError,
    SubscriptionRefusedError,
    TransportError,
)
from realtime_fsm.engine.port import HttpAnswer
from realtime_fsm.testing.simulated.backend import SimulatedBackend
from realtime_fsm.testing.simulated.http import Request, SimulatedHttp

S = ConnectionStatus
DOWN = ServerUnreachableError("refused.")


async def fall_back(world: World) -> None:
    """Bring a client to FALLBACK."""
    world.server.refusal = DOWN
    await world.client.connect()
    await world.until(S.FALLBACK)


async def test_fallback_delivers_changed_data_as_the_endpoints_event() -> None:
    """Polled data reaches the handlers of its event, once per change."""
    async with World(max_reconnect_attempts=0, fallback_endpoints=["news=/api/news"]) as world:
        page = {"n": 1}
        world.http.resources["/api/news"] = lambda _: dict(page)
        got: list[Any] = []
        world.client.on("news", got.append)
        await fall_back(world)
        await asyncio.sleep(200)
        assert got == [{"n": 1}]
        page["n"] = 2
        await asyncio.sleep(40)
        assert got == [{"n": 1}, {"n": 2}]


async def test_fallback_polls_after_the_client_was_disconnected_and_connected_again() -> None:
    """The HTTP side that a user gives serves every life of a client, not only the first."""
    async with World(max_reconnect_attempts=0, fallback_endpoints=["news=/news"]) as world:
        world.http.resources["/news"] = lambda _: 1
        await world.client.connect()
        await world.client.disconnect()
        await fall_back(world)
        await asyncio.sleep(10)
        assert world.client.metrics.polls > 0
        assert world.client.metrics.failed_polls == 0


async def test_fallback_remembers_what_it_delivered_in_the_last_one() -> None:
    """Data that has not changed since the last fallback is not delivered again in the next."""
    async with World(max_reconnect_attempts=0, fallback_endpoints=["news=/news"]) as world:
        world.http.resources["/news"] = lambda _: 1
        got: list[Any] = []
        world.client.on("news", got.append)
        await fall_back(world)
        await asyncio.sleep(1)
        world.server.refusal = None
        await world.until(S.CONNECTED)
        world.server.refusal = DOWN
        world.server.reset()
        await world.until(S.FALLBACK)
        await asyncio.sleep(100)
        assert got == [1]


async def test_fallback_polls_at_its_pace_with_jitter() -> None:
    """The first poll is at once, the others follow at the interval, spread by up to a fifth."""
    async with World(
        max_reconnect_attempts=0, fallback_endpoints=["/news"], fallback_polling_interval=10.0
    ) as world:
        world.http.resources["/news"] = lambda _: 1
        await fall_back(world)
        began = world.now
        await asyncio.sleep(1000)
        times = [request.at for request in world.http.requests]
        assert times[0] == pytest.approx(began)
        pauses = [b - a for a, b in pairwise(times)]
        assert all(8.0 <= pause <= 12.1 for pause in pauses)
        assert max(pauses) - min(pauses) > 1.0


async def test_fallback_asks_conditionally() -> None:
    """From the second poll on the last ETag is sent."""
    async with World(max_reconnect_attempts=0, fallback_endpoints=["/news"]) as world:
        world.http.resources["/news"] = lambda _: 1
        await fall_back(world)
        await asyncio.sleep(100)
        first, *others = world.http.requests
        assert first.etag is None
        assert {request.etag for request in others} == {others[0].etag}
        assert others[0].etag


async def test_fallback_keeps_no_etag_of_what_was_not_delivered() -> None:
    """An answer that cannot be taken is asked for again: by its ETag the good one would be missed."""

    def answer(events: object) -> HttpAnswer:
        stream = {"ok": True, "epoch": "e1", "offset": 2, "recovered": True, "events": events}
        return HttpAnswer(status=200, body={"channels": {"ticks": stream}}, etag='"2"')

    async with World(
        dialect=Dialect.REFERENCE, max_reconnect_attempts=0, fallback_polling_interval=1.0
    ) as world:
        events = [{"event": "tick", "data": number, "offset": number} for number in (1, 2)]
        assert Dialect.REFERENCE.poll_path is not None
        world.http.resources[Dialect.REFERENCE.poll_path] = [answer("cut off by a proxy"), answer(events)]
        got: list[Any] = []
        world.client.on("tick", got.append)
        await world.client.subscribe(["ticks"])
        await fall_back(world)
        await asyncio.sleep(60)
        assert got == [1, 2]
        assert world.client.metrics.failed_polls == 1


async def test_fallback_polls_a_failing_endpoint_more_slowly_and_the_others_as_before() -> None:
    """Each endpoint has a backoff of its own, and recovers by itself."""
    async with World(
        max_reconnect_attempts=0, fallback_endpoints=["/good", "/bad"], fallback_polling_interval=10.0
    ) as world:

        def fail(_: Request) -> Any:
            raise TransportError("broken.")

        world.http.resources = {"/good": lambda _: 1, "/bad": fail}
        await fall_back(world)
        await asyncio.sleep(1000)
        paths = world.http.paths()
        assert paths.count("/good") > 80
        assert 10 < paths.count("/bad") < 25
        world.http.resources["/bad"] = lambda _: 2
        await asyncio.sleep(100)
        before = world.http.paths().count("/bad")
        await asyncio.sleep(100)
        assert world.http.paths().count("/bad") >= before + 8
        assert world.client.metrics.failed_polls > 10


async def test_fallback_obeys_retry_after() -> None:
    """A server's ``Retry-After`` is waited for before the next poll."""
    async with World(max_reconnect_attempts=0, fallback_endpoints=["/news"]) as world:
        world.http.refusal = ServerUnavailableError("503.", retry_after=500.0)
        await fall_back(world)
        await asyncio.sleep(390)
        assert len(world.http.requests) == 1


async def test_fallback_ends_in_failed_when_the_token_is_refused_twice() -> None:
    """A refused token is renewed and tried once more; refused again, polling ends and so does the storm."""
    tokens = iter(canary.token(f"{n}") for n in range(100))
    async with World(
        token=lambda: next(tokens), max_reconnect_attempts=0, fallback_endpoints=["/news"]
    ) as world:
        world.http.accept_tokens = set()
        await fall_back(world)
        await world.until(S.FAILED)
        assert isinstance(world.client.gave_up, AuthenticationError)
        assert len(world.http.requests) == 2
        assert world.http.requests[0].token != world.http.requests[1].token
        await asyncio.sleep(1000)
        assert len(world.http.requests) == 2


async def test_fallback_sends_the_token_only_to_its_own_origin() -> None:
    """An endpoint of another origin is polled without the token."""
    async with World(
        token=canary.token(),
        max_reconnect_attempts=0,
        fallback_endpoints=["own=/own", "other=https://elsewhere.example/other"],
    ) as world:
        world.http.resources = {"/own": lambda _: 1, "/other": lambda _: 1}
        await fall_back(world)
        await asyncio.sleep(1)
        assert {(r.url.rpartition("/")[2], r.token) for r in world.http.requests} == {
            ("own", canary.token()),
            ("other", None),
        }


def reference_world(**config: Any) -> World:
    """Return a world whose server speaks the reference dialect, over HTTP too."""
    world = World(
        dialect=Dialect.REFERENCE,
        max_reconnect_attempts=0,
        default_delivery=Delivery.AT_LEAST_ONCE,
        **config,
    )
    log: list[int] = []
    world.log = log  # type: ignore[attr-defined]
    world.published = []  # type: ignore[attr-defined]

    def acknowledge(event: str, args: list[Any]) -> list[Any]:
        if event != "subscribe":
            return [{"ok": True, "answer": args[0] if args else None}]
        channel = {"ok": True, "epoch": "e", "offset": len(log), "recovered": True}
        since = args[0]["positions"].get("ticks", {}).get("offset", len(log))
        for offset in range(since + 1, len(log) + 1):
            world.server.emit("tick", log[offset - 1], {"channel": "ticks", "epoch": "e", "offset": offset})
        return [{"ok": True, "channels": dict.fromkeys(args[0]["channels"], channel)}]

    def events(request: Request) -> Any:
        since = int(request.url.rpartition("%3A")[2]) if "position=" in request.url else len(log)
        missed = [{"event": "tick", "data": log[n - 1], "offset": n} for n in range(since + 1, len(log) + 1)]
        stream = {"ok": True, "epoch": "e", "offset": len(log), "recovered": True, "events": missed}
        return {"ok": True, "channels": {"ticks": stream}}

    def messages(request: Request) -> Any:
        world.published += request.body["messages"]  # type: ignore[attr-defined]
        return {
            "results": [
                {"message_id": m["message_id"], "ok": True, "answer": m["data"]}
                for m in request.body["messages"]
            ]
        }

    world.server.acknowledge = acknowledge
    world.http.resources = {"/realtime/events": events, "/realtime/messages": messages}
    return world


def tick(world: World) -> None:
    """Publish the next number."""
    log: list[int] = world.log  # type: ignore[attr-defined]
    log.append(len(log) + 1)
    world.server.emit("tick", log[-1], {"channel": "ticks", "epoch": "e", "offset": len(log)})


async def test_fallback_of_the_reference_dialect_misses_and_repeats_nothing() -> None:
    """From the socket to polling and back, handlers see every event once, in order."""
    async with reference_world(fallback_polling_interval=5.0) as world:
        got: list[int] = []
        world.client.on("tick", got.append)
        await world.client.connect()
        await world.client.subscribe(["ticks"])
        for n in range(300):
            tick(world)
            if n == 50:
                world.server.refusal = DOWN
                world.server.reset()
            if n == 200:
                world.server.refusal = None
            await asyncio.sleep(1)
        await asyncio.sleep(60)
        assert "fallback" in world.path
        assert world.path[-1] == "connected"
        assert got == list(range(1, 301))
        assert world.client.metrics.gaps == 0


async def test_fallback_publishes_the_outbox_in_order_with_the_same_ids() -> None:
    """What was in flight when the socket broke and what was emitted since is published, each with its id."""
    async with reference_world() as world:
        await world.client.connect()
        await asyncio.sleep(1)
        world.server.swallow_acks = 1000
        receipts = [await world.client.emit("n", n) for n in range(3)]
        world.server.refusal = DOWN
        await asyncio.sleep(1)
        world.server.reset()
        await world.until(S.FALLBACK)
        receipts += [await world.client.emit("n", n) for n in range(3, 6)]
        assert await asyncio.gather(*receipts) == list(range(6))
        published: list[Any] = world.published  # type: ignore[attr-defined]
        assert [(m["message_id"], m["data"]) for m in published] == [
            (receipt.message_id, n) for n, receipt in enumerate(receipts)
        ]


async def test_fallback_keeps_what_could_not_be_published() -> None:
    """A publishing endpoint that fails costs nothing: the messages wait, and go out in order later."""
    async with reference_world() as world:
        world.http.refusal = DOWN
        await fall_back(world)
        receipts = [await world.client.emit("n", n) for n in range(5)]
        await asyncio.sleep(100)
        assert {receipt.outcome for receipt in receipts} == {Outcome.PENDING}
        world.http.refusal = None
        assert await asyncio.gather(*receipts) == list(range(5))


async def test_fallback_that_ends_in_the_middle_of_publishing_loses_nothing() -> None:
    """A request that is cut off by the socket's return is sent again over the socket, in order."""
    async with reference_world(reconnect_interval=5.0) as world:
        world.http.latency = 1000.0
        await fall_back(world)
        receipts = [await world.client.emit("n", n) for n in range(5)]
        await asyncio.sleep(1)
        world.server.refusal = None
        await world.until(S.CONNECTED)
        assert await asyncio.gather(*receipts) == list(range(5))
        assert world.server.received_of("n") == list(range(5))


async def test_fallback_polling_survives_answers_that_make_no_sense() -> None:
    """An endpoint that answers rubbish is reported and polled more slowly; nothing crashes."""
    async with reference_world() as world:
        await world.client.connect()
        await world.client.subscribe(["ticks"])
        no_events = (5, [None], [{}], [{"event": 5}], [{"event": "x", "offset": "y"}])
        rubbish: list[Any] = [
            *(None, [], {"channels": []}, {"channels": {"ticks": None}}),
            *({"channels": {"ticks": {"ok": True, "epoch": 1, "events": events}}} for events in no_events),
        ]
        world.http.resources["/realtime/events"] = lambda _: rubbish.pop(0) if rubbish else {}
        world.server.refusal = DOWN
        world.server.reset()
        await world.until(S.FALLBACK)
        await asyncio.sleep(5000)
        assert not rubbish
        assert world.client.status is S.FALLBACK
        assert world.client.metrics.activity_crashes == 0


@pytest.mark.parametrize("is_known", [False, True])
async def test_subscribe_in_fallback_learns_at_once_where_the_channel_stands(is_known: bool) -> None:
    """`subscribe` polls at once, and returns when each event from then on is heard or told as missed."""
    async with World(dialect=Dialect.REFERENCE, max_reconnect_attempts=0) as world:
        backend = world.server.backend = world.http.backend = SimulatedBackend()
        heard: list[Any] = []
        world.client.on("e", heard.append)
        await world.client.subscribe(["old"])
        await fall_back(world)
        await asyncio.sleep(1)
        if is_known:  # the same address again: what the server says has not changed
            await world.client.subscribe(["new"])
            await world.client.unsubscribe(["new"])
        polls = len(world.http.requests)
        began = world.now
        await world.client.subscribe(["new"])
        assert world.now - began < 1.0
        for n in range(40):
            await asyncio.sleep(1)
            backend.publish("new", "e", n)
        await asyncio.sleep(90)
        assert heard == list(range(40))
        assert len(world.http.requests) - polls < 10


async def test_subscribe_in_fallback_is_bounded_and_keeps_to_the_pace_of_a_failing_endpoint() -> None:
    """Where polling fails nothing is asked early: `subscribe` says so, and all stays wanted."""
    async with World(dialect=Dialect.REFERENCE, max_reconnect_attempts=0, ack_timeout=5.0) as world:
        world.server.backend = world.http.backend = SimulatedBackend()
        world.http.refusal = ServerUnavailableError("503.", retry_after=100.0)
        await world.client.subscribe(["old"])
        await fall_back(world)
        await asyncio.sleep(1)
        for n in range(3):
            began = world.now
            with pytest.raises(SubscriptionRefusedError, match="did not answer"):
                await world.client.subscribe([f"new{n}"])
            assert world.now - began == pytest.approx(5.0)
        assert len(world.http.requests) == 1
        waiting = asyncio.create_task(world.client.subscribe(["another"]))
        await asyncio.sleep(0.1)
        await world.client.disconnect()
        await waiting
        assert len(world.client.subscriptions) == 5


async def test_subscribe_in_fallback_goes_on_with_the_socket() -> None:
    """A `subscribe` that waits for a poll when the socket comes back waits for the server's answer there."""
    async with World(dialect=Dialect.REFERENCE, max_reconnect_attempts=0) as world:
        backend = world.server.backend = world.http.backend = SimulatedBackend(forbidden={"no"})
        await world.client.subscribe(["old"])
        world.http.latency = 8.0
        await fall_back(world)
        world.server.refusal = None
        with pytest.raises(SubscriptionRefusedError, match="'no'"):
            await world.client.subscribe(["new", "no"])
        assert world.client.status is S.CONNECTED
        assert backend.position("new")["offset"] == 0
        states = {s.channel: s.state.value for s in world.client.subscriptions}
        assert states == {"old": "active", "new": "active", "no": "refused"}


async def test_fallback_polls_many_channels_by_addresses_that_every_server_takes() -> None:
    """However many channels there are, no address is longer than 4 kB, and nothing is missed or repeated."""
    async with World(dialect=Dialect.REFERENCE, max_reconnect_attempts=0) as world:
        backend = world.server.backend = world.http.backend = SimulatedBackend()
        heard: list[Any] = []
        world.client.on("e", heard.append)
        names = [f"device/{n:05d}/telemetry" for n in range(300)]
        await world.client.subscribe(names)
        await fall_back(world)
        await asyncio.sleep(1)
        for turn in range(3):
            for name in names:
                backend.publish(name, "e", f"{turn} {name}")
            await asyncio.sleep(60)
        assert heard == [f"{turn} {name}" for turn in range(3) for name in names]
        assert max(len(request.url) for request in world.http.requests) <= 4096
        conditional = [request for request in world.http.requests if request.etag]
        assert len(conditional) > 5


async def test_fallback_request_that_is_refused_costs_the_others_nothing() -> None:
    """Where the server takes one of several requests for channels amiss, the others are made all the same."""
    async with World(dialect=Dialect.REFERENCE, max_reconnect_attempts=0) as world:
        backend = world.server.backend = SimulatedBackend()
        heard: list[Any] = []
        world.client.on("e", heard.append)
        names = [f"device/{n:05d}/telemetry" for n in range(300)]

        def poll(request: Request) -> Any:
            if "00000" in request.url:
                raise ProtocolError("The server refuses the request (HTTP 414).")
            return backend.poll(request.url)

        world.http.resources = {str(Dialect.REFERENCE.poll_path): poll}
        await world.client.subscribe(names)
        await fall_back(world)
        await asyncio.sleep(1)
        backend.publish(names[-1], "e", 1)
        await asyncio.sleep(300)
        assert heard == [1]
        assert world.client.metrics.failed_polls > 0


async def test_fallback_answer_for_a_channel_that_was_unsubscribed_meanwhile_is_dropped() -> None:
    """What a poll brings of a channel that is not wanted any more reaches no handler."""
    async with World(dialect=Dialect.REFERENCE, max_reconnect_attempts=0) as world:
        backend = world.server.backend = world.http.backend = SimulatedBackend()
        heard: list[Any] = []
        world.client.on("e", heard.append)
        await world.client.subscribe(["a"])
        await fall_back(world)
        await asyncio.sleep(1)
        world.http.latency = 20.0
        backend.publish("a", "e", 1)
        await asyncio.sleep(38)  # the next poll has begun, and its answer is under way
        assert len(world.http.requests) == 2
        assert heard == []
        await world.client.unsubscribe(["a"])
        await asyncio.sleep(60)
        assert heard == []
        assert world.client.metrics.dropped["answer for an unsubscribed channel"] == 1


@pytest.mark.parametrize("turns", range(12))
async def test_no_poll_begins_after_the_fallback_was_left(
    turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In whichever turn of the loop FALLBACK ends, no request is made from then on."""
    async with World(max_reconnect_attempts=0, fallback_endpoints=["/a", "/b"]) as world:
        begun: list[ConnectionStatus] = []
        get = SimulatedHttp.get

        async def watched(http: SimulatedHttp, url: str, **given: Any) -> HttpAnswer:
            begun.append(world.client.status)
            return await get(http, url, **given)

        monkeypatch.setattr(SimulatedHttp, "get", watched)
        world.http.resources = {"/a": lambda _: 1, "/b": lambda _: 2}
        await world.client.connect()
        world.client.force_fallback()
        for _ in range(turns):
            await asyncio.sleep(0)
        await world.client.disconnect(drain=False)
        assert set(begun) <= {S.FALLBACK}
