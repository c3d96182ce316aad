"""The simulated server and transport, backend and HTTP keep the laws of the ports that they stand in for."""

import asyncio
import inspect
import random
from typing import Any

import pytest

from realtime_fsm.engine.payload import Payload, encode
from realtime_fsm.engine.port import HttpAnswer, HttpClient, Transport, TransportFactory, TransportListener
from realtime_fsm.machine.errors import (
    ApplicationError,
    AuthenticationError,
    ConnectionLostError,
    InternalError,
    ProtocolError,
    RealtimeError,
    ServerDisconnectError,
    ServerUnavailableError,
    ServerUnreachableError,
)
from realtime_fsm.testing.simulated.backend import Handled, SimulatedBackend
from realtime_fsm.testing.simulated.http import SimulatedHttp
from realtime_fsm.testing.simulated.server import (
    Accept,
    Hang,
    Refuse,
    SimulatedServer,
    SimulatedTransport,
    echo_only,
    silence,
)

LATENCY = 0.01
SOON = 1.0
URL = "http://server"


class RecordingListener:
    """Notes everything that a transport tells, with its time."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.times: list[float] = []
        self.sizes: list[int] = []
        self.acknowledged = asyncio.Event()

    def on_event(self, name: str, args: list[Any], ack_id: int | None, size: int = 0) -> None:
        """See the port."""
        self.sizes.append(size)
        self._note("event", name, args, ack_id)

    def on_ack(self, ack_id: int, args: list[Any]) -> None:
        """See the port."""
        self._note("ack", ack_id, args)
        self.acknowledged.set()

    def on_pong(self, number: int) -> None:
        """See the port."""
        self._note("pong", number)

    def on_written(self) -> None:
        """See the port."""
        self._note("written")

    def on_malformed(self, error: RealtimeError) -> None:
        """See the port."""
        self._note("malformed", error)

    def on_lost(self, error: RealtimeError) -> None:
        """See the port."""
        self._note("lost", type(error))

    def of(self, kind: str) -> list[tuple[Any, ...]]:
        """Return what was told of one kind."""
        return [what[1:] for what in self.told if what[0] == kind]

    def _note(self, *what: Any) -> None:
        self.told.append(what)
        self.times.append(now())


def now() -> float:
    """Return the loop's clock."""
    return asyncio.get_running_loop().time()


def payload(*wire: Any) -> Payload:
    """Return an encoded event."""
    return encode(list(wire), what="a test's event", max_bytes=10_000)


async def opened(
    server: SimulatedServer, auth: dict[str, Any] | None = None
) -> tuple[SimulatedTransport, RecordingListener]:
    """Return an open transport and who listens to it."""
    listener = RecordingListener()
    transport = server(listener)
    await transport.open(auth)
    return transport, listener


@pytest.mark.parametrize(
    ("port", "simulation"),
    [
        (TransportFactory, SimulatedServer),
        (Transport, SimulatedTransport),
        (HttpClient, SimulatedHttp),
        (TransportListener, RecordingListener),
    ],
)
def test_simulated_things_fit_their_ports(port: type, simulation: type) -> None:
    """Every method of a port is there, with the same parameters, and is a coroutine where the port's is."""
    methods = [name for name, what in vars(port).items() if inspect.isfunction(what)]
    wanted = [name for name in methods if name == "__call__" or not name.startswith("_")]
    assert wanted
    for name in wanted:
        asked, given = getattr(port, name), getattr(simulation, name)
        assert list(inspect.signature(given).parameters) == list(inspect.signature(asked).parameters)
        assert inspect.iscoroutinefunction(given) == inspect.iscoroutinefunction(asked)


# Dials.


async def test_simulated_server_accepts_after_the_latency_and_counts_links() -> None:
    """A dial takes the latency both ways; live links are counted, and the most of them are remembered."""
    server = SimulatedServer()
    began = now()
    first, _ = await opened(server, {"token": "a"})
    assert now() - began == pytest.approx(2 * LATENCY)
    second, _ = await opened(server)
    assert (server.live_links, server.most_links) == (2, 2)
    await first.close(goodbye=False)
    await second.close(goodbye=True)
    assert (server.live_links, server.most_links) == (0, 2)
    assert server.dials == [{"token": "a"}, None]


async def test_simulated_server_follows_its_script_of_dials() -> None:
    """Each scripted outcome is used once, in order; then the standing orders hold."""
    server = SimulatedServer(
        script=[Refuse(ServerUnavailableError("busy.", retry_after=3.0)), Hang(), Accept(after=2.5)],
        refusal=ServerUnreachableError("standing."),
    )
    with pytest.raises(ServerUnavailableError) as busy:
        await opened(server)
    assert busy.value.retry_after == 3.0
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(opened(server), 1000.0)
    began = now()
    await opened(server)
    assert now() - began == pytest.approx(2.5)
    for _ in range(3):
        with pytest.raises(ServerUnreachableError, match="standing"):
            await opened(server)
    assert len(server.dials) == 6
    assert server.live_links == 1


async def test_simulated_server_refusing_for_long_does_not_grow_the_error() -> None:
    """The same refusal raised again and again keeps a traceback of one dial."""
    error = ServerUnreachableError("no.")
    server = SimulatedServer(refusal=error)
    depths = set()
    for _ in range(50):
        with pytest.raises(ServerUnreachableError):
            await opened(server)
        trace, depth = error.__traceback__, 0
        while trace is not None:
            trace, depth = trace.tb_next, depth + 1
        depths.add(depth)
    assert len(depths) == 1


@pytest.mark.parametrize("fault", ["is_silent", "is_black_hole"])
async def test_simulated_server_answers_a_waiting_dial_once_it_can(fault: str) -> None:
    """A dial that a silent server or a black hole keeps waiting succeeds as soon as the fault ends."""
    server = SimulatedServer()
    setattr(server, fault, True)
    dial = asyncio.create_task(opened(server))
    await asyncio.sleep(500.0)
    assert not dial.done()
    setattr(server, fault, False)
    async with asyncio.timeout(SOON):
        await dial
    assert server.live_links == 1


async def test_simulated_server_lets_in_by_token() -> None:
    """Only accepted tokens are let in, on scripted dials as well; every auth object is recorded."""
    server = SimulatedServer(accept_tokens={"good"}, script=[Accept()])
    for auth in ({"token": "bad"}, {}, None):
        with pytest.raises(AuthenticationError):
            await opened(server, auth)
    await opened(server, {"token": "good"})
    assert server.dials == [{"token": "bad"}, {}, None, {"token": "good"}]


# Messages.


async def test_simulated_server_receives_in_order_and_acknowledges() -> None:
    """Events arrive decoded, in order, with every argument; acknowledgements come one round trip later."""
    server = SimulatedServer()
    transport, listener = await opened(server)
    began = now()
    transport.send(payload("note", {"n": 1}, {"message_id": "m-1"}), 1)
    transport.send(payload("note", b"raw", [b"more"]), 2)
    transport.send(payload("heartbeat"), 3)
    await asyncio.sleep(SOON)
    assert server.received == [
        ("note", [{"n": 1}, {"message_id": "m-1"}]),
        ("note", [b"raw", [b"more"]]),
        ("heartbeat", []),
    ]
    assert server.received_of("note") == [{"n": 1}, b"raw"]
    assert listener.of("ack") == [(1, [{"n": 1}, {"message_id": "m-1"}]), (2, [b"raw", [b"more"]])]
    assert listener.times[-1] == pytest.approx(began + 2 * LATENCY)


async def test_simulated_server_acknowledges_as_it_is_told() -> None:
    """Nothing, chosen events, late, not the next ones, the heartbeat: each is a switch of the server."""
    server = SimulatedServer()
    transport, listener = await opened(server)
    ids = iter(range(1, 100))

    async def acked(event: str = "note") -> bool:
        number = next(ids)
        transport.send(payload(event), number)
        await asyncio.sleep(SOON)
        return (number, server.acknowledge(event, [])) in listener.of("ack") or (
            number,
            [{"ok": True}],
        ) in listener.of("ack")

    assert await acked()
    server.acknowledge = silence
    assert not await acked()
    server.acknowledge = echo_only("this")
    assert await acked("this")
    assert not await acked("that")
    server.acknowledge = lambda _, args: args
    server.swallow_acks = 2
    assert [await acked() for _ in range(3)] == [False, False, True]
    assert await acked("heartbeat")
    server.acks_heartbeat = False
    assert not await acked("heartbeat")
    server.acks_heartbeat = True
    server.acknowledge = silence
    assert await acked("heartbeat")


async def test_simulated_server_delays_acknowledgements_in_order() -> None:
    """Delayed acknowledgements keep their order and are late by exactly the delay; heartbeats are not."""
    server = SimulatedServer(ack_delay=5.0, acks_heartbeat=True)
    transport, listener = await opened(server)
    began = now()
    for number in range(1, 50):
        transport.send(payload("note"), number)
    transport.send(payload("heartbeat"), 99)
    await asyncio.sleep(10.0)
    acks = [(what[1], at) for what, at in zip(listener.told, listener.times, strict=True) if what[0] == "ack"]
    assert [number for number, _ in acks] == [99, *range(1, 50)]
    assert acks[0][1] == pytest.approx(began + 2 * LATENCY)
    assert acks[-1][1] == pytest.approx(began + 5.0 + 2 * LATENCY)


async def test_simulated_server_emits_to_all_links_in_order() -> None:
    """What the server emits reaches every link, in order, each with a copy of its own."""
    server = SimulatedServer()
    _, one = await opened(server)
    _, other = await opened(server)
    data = {"n": [1]}
    server.emit("tick", data, ack_id=7)
    data["n"].append(2)
    server.emit("tock")
    await asyncio.sleep(SOON)
    assert one.of("event") == other.of("event") == [("tick", [{"n": [1]}], 7), ("tock", [], None)]
    assert one.of("event")[0][1][0] is not other.of("event")[0][1][0]


async def test_simulated_server_notes_answers_to_its_questions() -> None:
    """An answer arrives with its number, and takes no room from the messages."""
    server = SimulatedServer()
    transport, _ = await opened(server)
    transport.answer(7, payload(1, b"two"))
    room = transport.room
    await asyncio.sleep(SOON)
    assert server.answers == [(7, [1, b"two"])]
    assert (transport.room, transport.written) == (room, 0)


@pytest.mark.parametrize("seed", range(5))
async def test_simulated_server_jitter_is_repeatable_and_keeps_the_order(seed: int) -> None:
    """Jitter comes from the given source alone, and no frame overtakes another."""

    async def times() -> list[float]:
        server = SimulatedServer(latency=0.1, jitter=1.0, random=random.Random(seed))  # noqa: S311 - a test
        _, listener = await opened(server)
        began = now()
        for n in range(20):
            server.emit("tick", n)
            await asyncio.sleep(0.05)
        await asyncio.sleep(2.0)
        assert [args[0] for _, args, _ in listener.of("event")] == list(range(20))
        return [round(at - began, 6) for at in listener.times]

    first = await times()
    assert await times() == first
    assert len(set(first)) > 2
    assert all(at - 0.05 * n >= 0.1 for n, at in enumerate(first))


async def test_simulated_server_jitter_needs_a_seeded_source() -> None:
    """Jitter without a source of randomness is refused: such a run could not be repeated."""
    with pytest.raises(ValueError, match="random"):
        await opened(SimulatedServer(jitter=1.0))


# Faults.


async def test_simulated_server_black_hole_holds_both_ways_until_it_is_healed() -> None:
    """Through a black hole nothing passes and nothing is closed; healed, all of it arrives in order."""
    server = SimulatedServer(latency=1.0)
    transport, listener = await opened(server)
    transport.send(payload("note", 1), 1)  # under way when the hole opens
    server.emit("tick", 1)
    await asyncio.sleep(0.5)
    server.is_black_hole = True
    transport.send(payload("note", 2), 2)
    server.emit("tick", 2)
    transport.ping(1)
    heard = transport.last_received
    await asyncio.sleep(500.0)
    transport.send(payload("note", 3), 3)  # under way when the hole closes
    server.emit("tick", 3)
    await asyncio.sleep(0.5)
    assert (server.received, listener.of("event"), listener.of("lost")) == ([], [], [])
    assert transport.last_received == heard
    assert transport.written == 3
    server.is_black_hole = False
    transport.send(payload("note", 4), 4)
    await asyncio.sleep(10.0)
    assert server.received_of("note") == [1, 2, 3, 4]
    assert [args for _, args, _ in listener.of("event")] == [[1], [2], [3]]
    assert [number for number, _ in listener.of("ack")] == [1, 2, 3, 4]
    assert listener.of("pong") == [(1,)]


@pytest.mark.parametrize("drop", ["close", "goodbye", "reset"])
async def test_simulated_server_black_hole_loses_what_it_holds_with_the_link(drop: str) -> None:
    """What a black hole holds is lost when the connection is given up before the hole is healed."""
    server = SimulatedServer()
    transport, listener = await opened(server)
    server.is_black_hole = True
    transport.send(payload("note", 1), 1)
    await asyncio.sleep(SOON)
    if drop == "reset":
        server.reset()
    else:
        await transport.close(goodbye=drop == "goodbye")
    server.is_black_hole = False
    await asyncio.sleep(SOON)
    assert server.received == []
    assert listener.of("lost") == ([(ConnectionLostError,)] if drop == "reset" else [])


async def test_simulated_server_reset_is_told_once_and_ends_everything() -> None:
    """After a reset the listener hears of the loss, and of nothing else ever again."""
    server = SimulatedServer()
    transport, listener = await opened(server)
    server.emit("tick")
    transport.send(payload("note"), 1)
    await asyncio.sleep(LATENCY / 2)  # both are under way
    server.reset()
    server.reset(ServerDisconnectError("again."))
    transport.send(payload("note"), 2)
    await transport.close(goodbye=False)
    await asyncio.sleep(SOON)
    assert listener.told == [("written",), ("lost", ConnectionLostError)]
    assert (server.received, server.links) == ([], [])


async def test_simulated_server_kick_comes_after_what_was_sent_before() -> None:
    """A kick is the last thing that a client hears, and in its place in the order."""
    server = SimulatedServer()
    _, listener = await opened(server)
    server.emit("tick")
    server.kick()
    server.emit("never")
    await asyncio.sleep(SOON)
    assert listener.told == [("event", "tick", [], None), ("lost", ServerDisconnectError)]
    assert server.live_links == 0


async def test_simulated_server_stalled_writer_takes_nothing_until_it_flows() -> None:
    """Stalled, ``written`` stops and ``room`` shrinks; flowing again, all leaves and arrives in order."""
    server = SimulatedServer(queue_limit=10)
    transport, listener = await opened(server)
    assert transport.room == 10
    server.is_stalled = True
    for n in range(12):
        transport.send(payload("note", n), None)
    assert transport.ping(1)
    await asyncio.sleep(100.0)
    assert (transport.written, transport.room) == (0, -2)
    assert (listener.told, server.received) == ([], [])
    server.is_stalled = False
    await asyncio.sleep(SOON)
    assert (transport.written, transport.room) == (12, 10)
    assert server.received_of("note") == list(range(12))
    assert listener.told == [("written",), ("pong", 1)]


async def test_simulated_server_pings_are_switches() -> None:
    """A server may leave pings unanswered, or have none at all."""
    server = SimulatedServer(answers_pings=False)
    transport, listener = await opened(server)
    assert transport.ping(1)
    await asyncio.sleep(SOON)
    server.can_ping = False
    assert not transport.ping(1)
    server.can_ping = server.answers_pings = True
    assert listener.told == []
    transport.ping(1)
    await asyncio.sleep(SOON)
    assert listener.told == [("pong", 1)]
    assert transport.last_received == listener.times[0]


async def test_simulated_transport_goodbye_delivers_what_was_sent() -> None:
    """A goodbye waits until all is written, and what was written still arrives; an abort loses it."""
    server = SimulatedServer()
    transport, listener = await opened(server)
    server.is_stalled = True
    transport.send(payload("note", 1), 1)
    closing = asyncio.create_task(transport.close(goodbye=True))
    await asyncio.sleep(100.0)
    assert not closing.done()
    server.is_stalled = False
    async with asyncio.timeout(SOON):
        await closing
    await asyncio.sleep(SOON)
    assert server.received_of("note") == [1]
    assert (transport.closed_with_goodbye, listener.told) == (True, [])
    aborted, _ = await opened(server)
    aborted.send(payload("note", 2), 1)
    await asyncio.sleep(LATENCY / 2)  # it is under way
    await aborted.close(goodbye=False)
    await asyncio.sleep(SOON)
    assert server.received_of("note") == [1]


async def test_simulated_transport_goodbye_can_be_cancelled() -> None:
    """A goodbye that the caller gives up releases everything; what was not written is lost."""
    server = SimulatedServer()
    transport, _ = await opened(server)
    server.is_stalled = True
    transport.send(payload("note", 1), 1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(transport.close(goodbye=True), 5.0)
    server.is_stalled = False
    await transport.close(goodbye=True)
    await asyncio.sleep(SOON)
    assert (server.received, server.live_links) == ([], 0)


async def test_simulated_transport_tells_how_large_events_are() -> None:
    """The size of an event grows with its data: what waits can be bounded in bytes."""
    server = SimulatedServer()
    _, listener = await opened(server)
    server.emit("tick", "x" * 1000)
    server.emit("tick", 1)
    await asyncio.sleep(SOON)
    large, small = listener.sizes
    assert 1000 <= large < 1100
    assert 0 < small < 100


@pytest.mark.real_loop
async def test_simulated_transport_runs_on_a_real_loop() -> None:
    """Nothing of it depends on virtual time."""
    server = SimulatedServer(latency=0.001)
    transport, listener = await opened(server)
    transport.send(payload("note", 1), 1)
    async with asyncio.timeout(SOON):
        await listener.acknowledged.wait()
    assert listener.of("ack") == [(1, [1])]
    await transport.close(goodbye=True)


# The reference dialect.


async def asked(transport: SimulatedTransport, listener: RecordingListener, number: int, *wire: Any) -> Any:
    """Send an event and return its acknowledgement."""
    transport.send(payload(*wire), number)
    await asyncio.sleep(SOON)
    return next(args[0] for ack_id, args in listener.of("ack") if ack_id == number)


def place(channel: str, offset: int, epoch: str = "e1") -> dict[str, Any]:
    """Return the last argument of a published event."""
    return {"channel": channel, "epoch": epoch, "offset": offset}


async def test_simulated_backend_replays_before_it_confirms() -> None:
    """Missed events come before the answer, live ones after it, and each carries its place."""
    backend = SimulatedBackend()
    transport, listener = await opened(SimulatedServer(backend=backend))
    for n in range(1, 4):
        backend.publish("a", "tick", n)
    positions = {"a": {"epoch": "e1", "offset": 1}}
    transport.send(payload("subscribe", {"channels": ["a", "b"], "positions": positions}), 1)
    await asyncio.sleep(1.5 * LATENCY)  # it has been answered, and nothing of it is here yet
    backend.publish("a", "tick", 4)
    backend.publish("elsewhere", "tick", 0)
    await asyncio.sleep(SOON)
    confirmed = {"ok": True, "epoch": "e1", "offset": 3, "recovered": True}
    assert [what for what in listener.told if what[0] != "written"] == [
        ("event", "tick", [2, place("a", 2)], None),
        ("event", "tick", [3, place("a", 3)], None),
        ("ack", 1, [{"ok": True, "channels": {"a": confirmed, "b": {**confirmed, "offset": 0}}}]),
        ("event", "tick", [4, place("a", 4)], None),
    ]


@pytest.mark.parametrize("position", [("e0", 1), ("e1", 0), ("e1", 99)], ids=["epoch", "too old", "future"])
async def test_simulated_backend_says_where_it_cannot_recover(position: tuple[str, int]) -> None:
    """Another epoch, or an offset that the log does not reach, is not recovered and replays nothing."""
    backend = SimulatedBackend(log_size=2)
    transport, listener = await opened(SimulatedServer(backend=backend))
    for n in range(1, 4):
        backend.publish("a", "tick", n)
    positions = {"a": dict(zip(("epoch", "offset"), position, strict=True))}
    body = {"channels": ["a"], "positions": positions}
    answer = await asked(transport, listener, 1, "subscribe", body)
    assert answer["channels"]["a"] == {"ok": True, "epoch": "e1", "offset": 3, "recovered": False}
    assert listener.of("event") == []


async def test_simulated_backend_knows_bookings_unsubscribing_and_refusals() -> None:
    """Bookings are channels of their own, unsubscribing ends a channel, and a forbidden one is refused."""
    backend = SimulatedBackend(forbidden={"secret"})
    server = SimulatedServer(backend=backend)
    transport, listener = await opened(server)
    answer = await asked(transport, listener, 1, "monitor_bookings", {"booking_ids": ["42"]})
    assert answer["channels"]["booking:42"]["ok"] is True
    answer = await asked(transport, listener, 2, "subscribe", {"channels": ["secret"]})
    assert answer["channels"]["secret"]["error"]["code"] == "forbidden"
    backend.publish("booking:42", "changed")
    backend.publish("secret", "changed")
    assert await asked(transport, listener, 3, "unsubscribe", {"channels": ["booking:42"]}) == {"ok": True}
    backend.publish("booking:42", "changed")
    await asyncio.sleep(SOON)
    assert listener.of("event") == [("changed", [None, place("booking:42", 1)], None)]


async def test_simulated_backend_forgets_a_link_that_ended() -> None:
    """A new connection starts without subscriptions, and an old one gets nothing any more."""
    backend = SimulatedBackend()
    server = SimulatedServer(backend=backend)
    transport, listener = await opened(server)
    await asked(transport, listener, 1, "subscribe", {"channels": ["a"]})
    server.reset()
    _, fresh = await opened(server)
    backend.publish("a", "tick")
    await asyncio.sleep(SOON)
    assert (listener.of("event"), fresh.of("event")) == ([], [])
    assert not backend._members


async def test_simulated_backend_handles_messages_as_the_reference_does() -> None:
    """The id is stripped, the handler's result is the answer, and refusals say why."""

    def refuse() -> None:
        raise ApplicationError("not today.")

    backend = SimulatedBackend(handlers={"add": lambda a, b: a + b, "never": refuse})
    transport, listener = await opened(SimulatedServer(backend=backend))
    answer = await asked(transport, listener, 1, "add", 1, 2, {"message_id": "m-1"})
    assert answer == {"ok": True, "answer": 3}
    answer = await asked(transport, listener, 2, "never")
    assert answer["error"] == {"category": "application", "code": "refused", "message": "not today."}
    answer = await asked(transport, listener, 3, "nonsense", {"message_id": "m-2"})
    assert answer["error"]["code"] == "unknown_event"
    assert await asked(transport, listener, 4, "heartbeat") == {"ok": True}
    transport.send(payload("add", 3, 4), None)
    await asyncio.sleep(SOON)
    assert backend.handled == [
        Handled(event="add", args=[1, 2], message_id="m-1", over="socket"),
        Handled(event="add", args=[3, 4], message_id=None, over="socket"),
    ]


async def test_simulated_backend_renews_the_identity_by_the_servers_tokens() -> None:
    """A new token is judged as at the dial; consent tells until when it is good."""
    backend = SimulatedBackend(wall=lambda: 1000.0, token_lifetime=60.0)
    server = SimulatedServer(backend=backend, accept_tokens={"good"})
    transport, listener = await opened(server, {"token": "good"})
    answer = await asked(transport, listener, 1, "reauthenticate", {"token": "good"})
    assert answer == {"ok": True, "expires_at": 1060.0}
    answer = await asked(transport, listener, 2, "reauthenticate", {"token": "bad"})
    assert (answer["ok"], answer["error"]["category"]) == (False, "authentication")


async def test_simulated_backend_restart_loses_the_log() -> None:
    """A backend that is started anew has another epoch, and counts from the beginning."""
    backend = SimulatedBackend()
    backend.publish("a", "tick")
    backend.restart()
    assert backend.epoch == "e2"
    assert backend.publish("a", "tick") == 1


# HTTP.


async def got(http: SimulatedHttp, path: str, etag: str | None = None) -> HttpAnswer:
    """Fetch a path."""
    return await http.get(f"{URL}{path}", token="t", etag=etag)


async def test_simulated_http_answers_by_path_as_scripted() -> None:
    """A path gives what its function returns, its answers in turn with the last one staying, or its error."""
    unwell = ServerUnavailableError("503.")
    http = SimulatedHttp(
        resources={
            "/function": lambda request: {"asked": request.path},
            "/list": [1, unwell, HttpAnswer(status=200, body="whole"), 4],
            "/error": unwell,
            "/empty": [],
        }
    )
    assert (await got(http, "/function?x=1")).body == {"asked": "/function"}
    bodies = []
    for _ in range(5):
        try:
            bodies.append((await got(http, "/list")).body)
        except ServerUnavailableError as error:
            bodies.append(error)
    assert bodies == [1, unwell, "whole", 4, 4]
    http.resources["/list"] = ["anew", "more"]
    assert (await got(http, "/list")).body == "anew"
    with pytest.raises(ServerUnavailableError):
        await got(http, "/error")
    with pytest.raises(ProtocolError, match="/nowhere was answered with 404"):
        await got(http, "/nowhere")
    with pytest.raises(ValueError, match="/empty is empty"):
        await got(http, "/empty")
    assert http.paths() == ["/function", *["/list"] * 6, "/error", "/nowhere", "/empty"]


async def test_simulated_http_notes_requests_with_their_time() -> None:
    """Every request is recorded as it was made, and when, and answered after the latency."""
    http = SimulatedHttp(
        latency=0.5, resources={"/a": lambda _: {"x": 1}, "/b": lambda request: request.body}
    )
    began = now()
    answer = await got(http, "/a", "tag")
    assert now() == began + 0.5
    assert answer.size_bytes == len(b'{"x": 1}')
    body = [1]
    answer = await http.post(f"{URL}/b", body, token=None, idempotency_key="key")
    assert answer.body == [1]
    assert answer.body is not body
    first, second = http.requests
    assert (first.at, first.method, first.token, first.etag) == (began, "GET", "t", "tag")
    assert (second.at, second.method, second.idempotency_key) == (began + 0.5, "POST", "key")
    await http.close()
    assert http.is_closed
    with pytest.raises(InternalError, match="after it was closed"):
        await got(http, "/a")


async def test_simulated_http_answers_304_while_nothing_changes() -> None:
    """The same body has the same ETag, which answers 304 without a body; another body is sent whole."""
    state = {"n": 1}
    http = SimulatedHttp(resources={"/a": lambda _: state})
    first = await got(http, "/a")
    assert (first.status, first.body) == (200, {"n": 1})
    again = await got(http, "/a", first.etag)
    assert (again.status, again.body, again.etag) == (304, None, first.etag)
    state["n"] = 2
    changed = await got(http, "/a", first.etag)
    assert (changed.status, changed.body) == (200, {"n": 2})
    assert first.body == {"n": 1}


async def test_simulated_http_refuses_and_falls_silent() -> None:
    """A standing refusal is raised, tokens are checked, and silence ends by the time-out."""
    http = SimulatedHttp(resources={"/a": lambda _: 1}, accept_tokens={"other"})
    with pytest.raises(AuthenticationError):
        await got(http, "/a")
    http.accept_tokens = {"t"}
    assert (await got(http, "/a")).body == 1
    http.refusal = ServerUnreachableError("down.")
    with pytest.raises(ServerUnreachableError, match="down"):
        await got(http, "/a")
    http.is_silent = True
    began = now()
    with pytest.raises(ServerUnreachableError, match="in time"):
        await got(http, "/a")
    assert now() - began == http.timeout


async def test_simulated_http_polls_the_log_that_the_socket_publishes_to() -> None:
    """Polling gives what came after each position, at most 500 events at a time, and says what is missing."""
    backend = SimulatedBackend(forbidden={"no"})
    http = SimulatedHttp(backend=backend)
    for n in range(1, 603):
        backend.publish("booking:42", "tick", n)
    path = "/realtime/events?channel=booking:42&channel=new&channel=no&position=booking:42:e1:1"
    channels = (await got(http, path)).body["channels"]
    stream = channels["booking:42"]
    assert [event["data"] for event in stream["events"]] == list(range(2, 502))
    assert stream["events"][0] == {"event": "tick", "data": 2, "offset": 2}
    assert (stream["offset"], stream["more"], stream["recovered"]) == (501, True, True)
    assert channels["new"] == {"ok": True, "epoch": "e1", "offset": 0, "recovered": True, "events": []}
    assert channels["no"]["ok"] is False
    answer = await got(http, "/realtime/events?channel=booking:42&position=booking:42:e1:501")
    rest = answer.body["channels"]["booking:42"]
    assert ([event["offset"] for event in rest["events"]], rest["offset"]) == ([*range(502, 603)], 602)
    assert "more" not in rest
    lost = (await got(http, "/realtime/events?channel=booking:42&position=booking:42:e0:1")).body
    assert lost["channels"]["booking:42"]["recovered"] is False


async def test_simulated_http_publishes_as_the_reference_does() -> None:
    """Messages are handled in order and answered one by one; too many at once are refused."""
    backend = SimulatedBackend(handlers={"add": lambda *numbers: sum(numbers)})
    http = SimulatedHttp(backend=backend)

    async def published(messages: list[dict[str, Any]]) -> Any:
        url = f"{URL}/realtime/messages"
        return await http.post(url, {"messages": messages}, token="t", idempotency_key="k")

    answer = await published(
        [
            {"message_id": "1", "event": "add", "data": 5},
            {"message_id": "2", "event": "add", "args": [1, 2]},
            {"message_id": "3", "event": "nonsense", "args": []},
        ]
    )
    results = answer.body["results"]
    assert results[:2] == [
        {"message_id": "1", "ok": True, "answer": 5},
        {"message_id": "2", "ok": True, "answer": 3},
    ]
    assert (results[2]["message_id"], results[2]["error"]["code"]) == ("3", "unknown_event")
    assert [handled.over for handled in backend.handled] == ["http", "http"]
    with pytest.raises(ProtocolError, match="413"):
        await published([{"message_id": str(n), "event": "add", "data": n} for n in range(101)])
