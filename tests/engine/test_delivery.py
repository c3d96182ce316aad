"""Outbound promises of a whole client: bounds, policies, time to live, attempts, once and only once."""

import asyncio
from typing import Any

import pytest
from world import World

from realtime_fsm import (
    AuthenticationError,
    ClosedError,
    ConnectionLostError,
    ConnectionStatus,
    Delivery,
    DeliveryError,
    Dialect,
    ErrorCategory,
    InvalidArgumentError,
    MalformedFrameError,
    OutboxFullError,
    Outcome,
    Receipt,
    ServerUnreachableError,
    UnsupportedDeliveryError,
)
from realtime_fsm.testing.simulated.backend import SimulatedBackend

S = ConnectionStatus
D = Delivery
DOWN = ServerUnreachableError("refused.")


def reference_world(**config: Any) -> tuple[World, SimulatedBackend]:
    """Return a client of a reference backend, which notes the numbers that it is sent."""
    world = World(dialect=Dialect.REFERENCE, **config)
    backend = SimulatedBackend(handlers={"n": lambda n: n})
    world.server.backend = world.http.backend = backend
    return world, backend


async def connected(world: World) -> None:
    """Connect, and let the first probe be answered, so that the next acknowledgement is a message's."""
    await world.client.connect()
    await asyncio.sleep(1)


def applied(backend: SimulatedBackend) -> list[Any]:
    """Return what took effect, in order."""
    return [message.args[0] for message in backend.handled]


async def outcome_of(receipt: Receipt) -> Outcome:
    """Return what became of a message."""
    (result,) = await asyncio.gather(receipt, return_exceptions=True)
    if isinstance(result, DeliveryError):
        assert result.outcome == receipt.outcome.value
    return receipt.outcome


# Bounds and policies.


async def test_full_outbox_rejects_and_keeps_what_it_holds() -> None:
    """With `reject` the message that does not fit is refused, and nothing else changes."""
    async with World(outbox_max_messages=2) as world:
        kept = [await world.client.emit("n", n) for n in range(2)]
        with pytest.raises(OutboxFullError, match="outbox_max_messages"):
            await world.client.emit("n", 2)
        assert world.client.metrics.messages_accepted == 2
        await world.client.connect()
        await asyncio.gather(*kept)
        await asyncio.sleep(1)
        assert world.server.received_of("n") == [0, 1]


async def test_full_outbox_drops_the_oldest_and_says_so() -> None:
    """With `drop_oldest` the newest messages are kept, and the receipts of the others say why they went."""
    async with World(outbox_max_messages=3, outbox_overflow="drop_oldest") as world:
        receipts = [await world.client.emit("n", n) for n in range(5)]
        assert [receipt.outcome for receipt in receipts[:2]] == [Outcome.DROPPED] * 2
        with pytest.raises(DeliveryError, match="drop_oldest"):
            await receipts[0]
        assert world.client.metrics.messages_by_outcome == {"dropped": 2}
        await world.client.connect()
        await asyncio.gather(*receipts[2:])
        await asyncio.sleep(1)
        assert world.server.received_of("n") == [2, 3, 4]


async def test_full_outbox_does_not_drop_in_vain() -> None:
    """With `drop_oldest` nothing is dropped for a message that cannot fit beside those in flight."""
    config = {"outbox_overflow": "drop_oldest", "outbox_max_messages": 3, "max_in_flight": 3}
    async with World(**config) as world:
        await world.client.connect()
        world.server.swallow_acks = 10
        flying = [await world.client.emit("n", n, delivery=D.AT_LEAST_ONCE) for n in range(3)]
        with pytest.raises(OutboxFullError):
            await world.client.emit("n", 3, delivery=D.AT_LEAST_ONCE)
        assert not any(receipt.is_settled for receipt in flying)


async def test_full_outbox_blocks_until_there_is_room_in_order() -> None:
    """With `block` emits wait for room, and are accepted in the order in which they began to wait."""
    async with World(outbox_max_messages=2, outbox_overflow="block") as world:
        emits = [asyncio.create_task(world.client.emit("n", n)) for n in range(8)]
        await asyncio.sleep(5)
        assert [task.done() for task in emits] == [True] * 2 + [False] * 6
        emits[3].cancel()
        await world.client.connect()
        results = await asyncio.gather(*emits, return_exceptions=True)
        assert isinstance(results[3], asyncio.CancelledError)
        await asyncio.sleep(1)
        assert world.server.received_of("n") == [0, 1, 2, 4, 5, 6, 7]
        assert world.client.metrics.messages_accepted == 7


async def test_blocked_emit_ends_with_the_client() -> None:
    """Disconnecting ends an emit that waits for room with an error: nothing was accepted."""
    async with World(outbox_max_messages=1, outbox_overflow="block") as world:
        world.server.refusal = DOWN
        await world.client.connect()
        first = await world.client.emit("n", 1)
        blocked = asyncio.create_task(world.client.emit("n", 2))
        await asyncio.sleep(1)
        await world.client.disconnect()
        with pytest.raises(ClosedError):
            await blocked
        assert await outcome_of(first) is Outcome.DROPPED
        assert world.client.metrics.messages_accepted == 1


async def test_outbox_is_cleared_of_what_waits_alone() -> None:
    """`clear()` drops what waits, says so on the receipts, and leaves what is in flight."""
    async with World(max_in_flight=1) as world:
        await world.client.connect()
        receipts = [await world.client.emit("n", n, delivery=D.AT_LEAST_ONCE) for n in range(3)]
        assert world.client.outbox.clear() == tuple(receipts[1:])
        assert await receipts[0] == 0
        assert [r.outcome for r in receipts[1:]] == [Outcome.DROPPED] * 2
        assert (len(world.client.outbox), world.client.outbox.size_bytes) == (0, 0)


# Time to live.


async def test_message_expires_in_its_time_wherever_it_waits() -> None:
    """A message that still waits when its time is up is dropped then, and never sent afterwards."""
    async with World(message_ttl=50.0) as world:
        short = await world.client.emit("n", 1, ttl=10.0)
        by_default = await world.client.emit("n", 2)
        long = await world.client.emit("n", 3, ttl=1000.0)
        began = world.now
        assert await outcome_of(short) is Outcome.EXPIRED
        assert world.now - began == pytest.approx(10.0)
        assert await outcome_of(by_default) is Outcome.EXPIRED
        assert world.now - began == pytest.approx(50.0)
        await world.client.connect()
        await long
        await asyncio.sleep(1)
        assert world.server.received_of("n") == [3]


async def test_message_in_flight_may_be_acknowledged_after_its_time() -> None:
    """The time to live bounds the sending: one in flight may still arrive, but is not sent again."""
    async with World() as world:
        await connected(world)
        world.server.latency = 6.0
        late = await world.client.emit("n", 1, ttl=10.0, delivery=D.AT_LEAST_ONCE)
        assert await late == 1
        world.server.latency = 0.01
        world.server.swallow_acks = 1
        unheard = await world.client.emit("n", 2, ttl=10.0, delivery=D.AT_LEAST_ONCE)
        await asyncio.sleep(15)
        world.server.reset()
        assert await outcome_of(unheard) is Outcome.EXPIRED
        await world.until(S.CONNECTED)
        await asyncio.sleep(20)
        assert world.server.received_of("n") == [1, 2]


@pytest.mark.parametrize("ttl", [0, -1, float("nan"), float("inf")])
async def test_time_to_live_must_be_a_time(ttl: float) -> None:
    """A time to live that is none is refused, and nothing is accepted."""
    async with World() as world:
        with pytest.raises(InvalidArgumentError, match="ttl="):
            await world.client.emit("n", 1, ttl=ttl)
        assert world.client.metrics.messages_accepted == 0


# Attempts.


class Poison:
    """A server that breaks the connection whenever it is sent a certain number, and acknowledges the rest."""

    def __init__(self, world: World, number: int) -> None:
        self._world = world
        self._number = number

    def __call__(self, event: str, args: list[Any]) -> list[Any] | None:
        """Acknowledge an event."""
        if args == [self._number]:
            self._world.server.reset(ConnectionLostError("The connection was reset."))
            return None
        return None if event == "heartbeat" else args


async def test_poison_message_dies_alone_and_the_others_pass() -> None:
    """A message that breaks every connection goes to the dead letters; none of its neighbours does."""
    config = {"max_reconnect_attempts": 100, "max_delivery_attempts": 6, "stable_after": 1.0}
    async with World(**config) as world:
        await world.client.connect()
        world.server.acknowledge = Poison(world, 5)
        receipts = [await world.client.emit("n", n, delivery=D.AT_LEAST_ONCE) for n in range(10)]
        outcomes = [await outcome_of(receipt) for receipt in receipts]
        assert outcomes == [Outcome.ACKNOWLEDGED] * 5 + [Outcome.DEAD] + [Outcome.ACKNOWLEDGED] * 4
        (letter,) = await world.client.outbox.dead_letters()
        assert letter.message.receipt is receipts[5]
        assert letter.message.attempts == 6
        assert "6 connections" in letter.reason


async def test_dead_letter_can_be_retried_under_its_id() -> None:
    """A dead letter that is retried is delivered with the id that it had, and is no dead letter any more."""
    world, backend = reference_world()
    async with world:
        await world.client.connect()
        issues: list[Any] = []
        world.client.recovery.on_connection_issue(issues.append)
        refused = await world.client.emit("unknown", 7)
        assert await outcome_of(refused) is Outcome.REFUSED
        await asyncio.sleep(0)
        assert [issue.error.category for issue in issues] == [ErrorCategory.APPLICATION]
        assert refused.message_id in issues[0].message
        backend.handlers["unknown"] = lambda n: n + 1
        assert await world.client.outbox.retry(["another"]) == ()
        (again,) = await world.client.outbox.retry([refused.message_id])
        assert await again == 8
        assert again.message_id == refused.message_id
        assert backend.handled[-1].message_id == refused.message_id
        assert await world.client.outbox.dead_letters() == []


async def test_dead_letters_can_be_dropped() -> None:
    """Dropped dead letters are gone, and only the ones that were named."""
    world, _ = reference_world(outbox_max_dead_letters=3)
    async with world:
        await world.client.connect()
        receipts = [await world.client.emit("unknown", n) for n in range(4)]
        for receipt in receipts:
            assert await outcome_of(receipt) is Outcome.REFUSED
        letters = await world.client.outbox.dead_letters()
        assert [letter.message.receipt for letter in letters] == receipts[1:]
        assert await world.client.outbox.drop([receipts[2].message_id, "another"]) == 1
        assert await world.client.outbox.drop() == 2
        assert await world.client.outbox.drop() == 0


# Exactly once.


async def test_exactly_once_needs_a_server_that_deduplicates() -> None:
    """EXACTLY_ONCE on a server that does not promise it is refused: it would be a lie."""
    async with World() as world:
        with pytest.raises(UnsupportedDeliveryError, match="plain"):
            await world.client.emit("n", 1, delivery=D.EXACTLY_ONCE)


async def test_exactly_once_is_the_default_of_the_reference_dialect() -> None:
    """A message whose acknowledgement was lost is sent again, and takes effect once; its answer is kept."""
    world, backend = reference_world()
    async with world:
        await connected(world)
        world.server.swallow_acks = 5
        receipts = [await world.client.emit("n", n) for n in range(5)]
        await asyncio.sleep(1)
        assert applied(backend) == [0, 1, 2, 3, 4]
        world.server.reset()
        assert await asyncio.gather(*receipts) == [0, 1, 2, 3, 4]
        assert applied(backend) == [0, 1, 2, 3, 4]
        assert world.client.metrics.messages_repeated == 5
        assert [message.sequence for message in backend.handled] == [1, 2, 3, 4, 5]


async def test_exactly_once_survives_a_refusal_that_was_not_heard() -> None:
    """A refusal whose acknowledgement was lost is heard from the repeat: it never looks delivered."""
    world, _ = reference_world()
    async with world:
        await connected(world)
        world.server.swallow_acks = 2
        refused = await world.client.emit("unknown", 1)
        taken = await world.client.emit("n", 2)
        await asyncio.sleep(1)
        world.server.reset()
        assert await outcome_of(refused) is Outcome.REFUSED
        assert await taken == 2


async def test_exactly_once_over_the_fallback_and_back() -> None:
    """What was in flight when the socket broke is published with the same ids, and takes effect once."""
    world, backend = reference_world(max_reconnect_attempts=0, fallback_polling_interval=1.0)
    async with world:
        await connected(world)
        world.server.swallow_acks = 3
        receipts = [await world.client.emit("n", n) for n in range(3)]
        await asyncio.sleep(1)
        world.server.refusal = DOWN
        world.server.reset()
        await world.until(S.FALLBACK)
        receipts += [await world.client.emit("n", n) for n in range(3, 6)]
        assert await asyncio.gather(*receipts) == list(range(6))
        assert applied(backend) == list(range(6))
        assert backend.repeats == 3
        assert {message.over for message in backend.handled[3:]} == {"http"}
        keys = [request.idempotency_key for request in world.http.requests if request.method == "POST"]
        assert len(set(keys)) == len(keys) > 0


async def test_message_that_may_be_published_already_is_not_published_twice_at_most_once() -> None:
    """AT_MOST_ONCE whose publishing may have arrived is lost; one that certainly did not, waits."""
    world, backend = reference_world(max_reconnect_attempts=0, fallback_polling_interval=1.0)
    async with world:
        world.server.refusal = DOWN
        await world.client.connect()
        await world.until(S.FALLBACK)
        world.http.refusal = ServerUnreachableError("refused.")
        waits = await world.client.emit("n", 1, delivery=D.AT_MOST_ONCE)
        await asyncio.sleep(5)
        assert not waits.is_settled
        world.http.refusal = None
        assert await waits == 1
        world.http.refusal = ConnectionLostError("cut off.")
        doubtful = await world.client.emit("n", 2, delivery=D.AT_MOST_ONCE)
        assert await outcome_of(doubtful) is Outcome.LOST
        assert applied(backend) == [1]


async def test_poison_over_http_dies_alone() -> None:
    """A batch that the server cannot read is taken apart: only the message that is why goes to the dead."""
    world, backend = reference_world(
        max_reconnect_attempts=0, fallback_polling_interval=1.0, max_delivery_attempts=3
    )
    async with world:
        world.server.refusal = DOWN
        receipts = [await world.client.emit("n", n) for n in range(4)]

        def answer(request: Any) -> Any:
            if any(message["data"] == 1 for message in request.body["messages"]):
                return MalformedFrameError("The server cannot read it.")
            return backend.receive(request.body)

        world.http.backend = None
        world.http.resources[Dialect.REFERENCE.publish_path or ""] = answer
        await world.client.connect()
        outcomes = [await outcome_of(receipt) for receipt in receipts]
        assert outcomes[1] is Outcome.DEAD
        assert outcomes[2:] == [Outcome.ACKNOWLEDGED] * 2
        assert applied(backend)[-2:] == [2, 3]


# Calls and the end.


async def test_call_is_asked_again_or_fails_at_once_by_its_delivery() -> None:
    """When the link is lost a call ends at once, or is asked again: it never waits for a dead link."""
    async with World() as world:
        await connected(world)
        world.server.swallow_acks = 2
        began = world.now
        again = asyncio.create_task(world.client.call("n", 1))
        fails = asyncio.create_task(world.client.call("n", 2, delivery=D.AT_MOST_ONCE))
        await asyncio.sleep(1)
        world.server.reset()
        with pytest.raises(DeliveryError, match="lost"):
            await fails
        assert world.now - began == pytest.approx(1.0)
        assert await again == 1


async def test_disconnect_drains_what_waits_and_accepts_nothing_new() -> None:
    """Draining delivers what was accepted, refuses what comes meanwhile, and returns nothing undelivered."""
    async with World(max_in_flight=2, close_timeout=60.0) as world:
        await world.client.connect()
        world.server.latency = 0.5
        receipts = [await world.client.emit("n", n, delivery=D.AT_LEAST_ONCE) for n in range(10)]
        began = world.now
        ending = asyncio.create_task(world.client.disconnect(drain=True))
        await asyncio.sleep(0.1)
        with pytest.raises(ClosedError):
            await world.client.emit("n", 99)
        assert await ending == ()
        assert world.now - began < 10.0  # five round trips, and not the time that it may take
        assert [await receipt for receipt in receipts] == list(range(10))
        assert world.server.received_of("n") == list(range(10))


async def test_disconnect_drains_over_http_in_the_fallback() -> None:
    """In FALLBACK draining publishes what waits."""
    world, backend = reference_world(max_reconnect_attempts=0)
    async with world:
        world.server.refusal = DOWN
        await world.client.connect()
        await world.until(S.FALLBACK)
        world.http.latency = 0.5
        receipts = [await world.client.emit("n", n) for n in range(60)]
        assert await world.client.disconnect() == ()
        assert [await receipt for receipt in receipts] == list(range(60)) == applied(backend)


async def test_disconnect_returns_what_could_not_be_sent_within_its_time() -> None:
    """A drain that is not done in its time ends there; what is left is returned, and its receipts say so."""
    async with World(close_timeout=4.0) as world:
        await connected(world)
        world.server.swallow_acks = 1
        receipt = await world.client.emit("n", 1, delivery=D.AT_LEAST_ONCE)
        began = world.now
        assert await world.client.disconnect() == (receipt,)
        assert world.now - began <= 4.0
        assert await outcome_of(receipt) is Outcome.DROPPED


async def test_blocked_emits_are_not_overtaken_by_smaller_ones() -> None:
    """A message that would fit waits behind a larger one that does not: the order is that of the emits."""
    config = {"outbox_overflow": "block", "outbox_max_bytes": 1000, "max_message_bytes": 1000}
    async with World(**config) as world:
        await world.client.emit("n", "x" * 500)
        emits = [asyncio.create_task(world.client.emit("n", text)) for text in ("y" * 600, "z")]
        await asyncio.sleep(1)
        assert not any(task.done() for task in emits)
        await world.client.connect()
        await asyncio.gather(*emits)
        await asyncio.sleep(1)
        assert [text[0] for text in world.server.received_of("n")] == ["x", "y", "z"]


async def test_answer_that_is_not_of_the_dialect_is_a_refusal() -> None:
    """A server that acknowledges otherwise than its dialect says has not consented; the message is kept."""
    async with World(dialect=Dialect.REFERENCE) as world:
        await world.client.connect()
        receipt = await world.client.emit("n", 1)
        with pytest.raises(DeliveryError, match="dialect"):
            await receipt
        assert receipt.outcome is Outcome.REFUSED
        assert len(await world.client.outbox.dead_letters()) == 1


async def test_publishing_that_is_refused_for_good_is_failed() -> None:
    """An identity that is refused over HTTP, twice, ends the fallback; the messages wait for a better one."""
    world, _ = reference_world(max_reconnect_attempts=0)
    async with world:
        world.server.refusal = DOWN
        await world.client.connect()
        await world.until(S.FALLBACK)
        world.http.refusal = AuthenticationError("The server refuses the identity (HTTP 401).")
        receipt = await world.client.emit("n", 1)
        await world.until(S.FAILED)
        assert not receipt.is_settled
        world.http.refusal = world.server.refusal = None
        world.client.retry_now()
        assert await receipt == 1


async def test_numbers_go_on_when_the_client_connects_again() -> None:
    """A client that disconnects and connects again does not use a number twice: nothing looks repeated."""
    world, backend = reference_world()
    async with world:
        for n in range(3):
            await world.client.connect()
            assert await (await world.client.emit("n", n)) == n
            await world.client.disconnect()
        assert applied(backend) == [0, 1, 2]
        assert backend.repeats == 0


async def test_message_emitted_after_the_disconnect_waits_for_the_next_connection() -> None:
    """A client that is disconnected accepts messages again, for when it is connected."""
    async with World() as world:
        await world.client.connect()
        await world.client.disconnect()
        receipt = await world.client.emit("n", 1)
        assert not receipt.is_settled
        await world.client.connect()
        await receipt
        await asyncio.sleep(1)
        assert world.server.received_of("n") == [1]


async def test_blocked_emit_that_is_cancelled_holds_nobody_up() -> None:
    """A message that is too large for now, and whose emit was cancelled, keeps nobody waiting."""
    config = {"outbox_overflow": "block", "outbox_max_bytes": 1000, "max_message_bytes": 1000}
    async with World(**config) as world:
        await world.client.emit("n", "x" * 300)
        large, small = (asyncio.create_task(world.client.emit("n", "y" * n)) for n in (900, 500))
        await asyncio.sleep(1)
        assert not small.done()
        large.cancel()
        async with asyncio.timeout(1.0):
            await small


async def test_disconnect_leaves_no_timer() -> None:
    """The times to live of what was given up are watched no longer."""
    async with World() as world:
        await world.client.emit("n", 1, ttl=1000.0)
        await world.client.disconnect()
        loop: Any = asyncio.get_running_loop()
        assert not [handle for handle in loop._scheduled if not handle.cancelled()]
