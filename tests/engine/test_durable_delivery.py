"""A durable outbox under a whole client: nothing accepted is lost, whenever the process ends."""

import asyncio
from typing import Any

import pytest
from world import World

from realtime_fsm import (
    ClosedError,
    ConnectionStatus,
    Delivery,
    DeliveryError,
    Dialect,
    OutboxStorageError,
    Outcome,
    ServerUnreachableError,
)
from realtime_fsm.testing.simulated.backend import SimulatedBackend
from realtime_fsm.testing.simulated.outbox import SimulatedDisk, SimulatedOutbox
from realtime_fsm.testing.virtual_loop import wall_clock

S = ConnectionStatus
D = Delivery
DOWN = ServerUnreachableError("refused.")


def durable_world(
    disk: SimulatedDisk, backend: SimulatedBackend | None = None, *, delay: float = 0.005, **config: Any
) -> tuple[World, SimulatedOutbox]:
    """Return a client with a durable outbox on a disk, and the outbox."""
    outbox = SimulatedOutbox(disk, delay=delay)
    world = World(outbox=outbox, dialect=Dialect.REFERENCE, **config)
    world.server.backend = world.http.backend = backend or SimulatedBackend(handlers={"n": lambda n: n})
    return world, outbox


def backend_of(world: World) -> SimulatedBackend:
    """Return what the client talks to."""
    assert isinstance(world.server.backend, SimulatedBackend)
    return world.server.backend


def applied(backend: SimulatedBackend) -> list[Any]:
    """Return what took effect, in order."""
    return [message.args[0] for message in backend.handled]


async def test_emit_returns_when_the_message_is_kept() -> None:
    """What `emit` has accepted is on the disk, and not a moment earlier."""
    disk = SimulatedDisk()
    world, _ = durable_world(disk, delay=2.0)
    async with world:
        await world.client.emit("warm up", 0)
        began = world.now
        receipt = await world.client.emit("n", 1)
        assert world.now - began == pytest.approx(2.0)
        assert [message.sequence for message in disk.waiting.values()] == [1, 2]
        assert disk.waiting[2].receipt.message_id == receipt.message_id
        assert disk.waiting[2].accepted_at == pytest.approx(wall_clock()() - 2.0)


async def test_message_is_not_sent_before_it_is_kept() -> None:
    """A number that could be forgotten must not be seen by the server: it would be used again."""
    world, _ = durable_world(SimulatedDisk(), delay=2.0)
    async with world:
        await world.client.connect()
        emitting = asyncio.create_task(world.client.emit("n", 1))
        await asyncio.sleep(1.9)
        assert applied(backend_of(world)) == []
        await (await emitting)
        assert applied(backend_of(world)) == [1]


async def test_messages_accepted_before_a_crash_are_delivered_by_the_next_start() -> None:
    """After a crash the next client sends what was accepted, in order, under the same ids, each once."""
    disk, backend = SimulatedDisk(), SimulatedBackend(handlers={"n": lambda n: n})
    first, _ = durable_world(disk, backend)
    async with first:
        await first.client.connect()
        await asyncio.sleep(1)
        first.server.swallow_acks = 3
        flying = [await first.client.emit("n", n) for n in range(3)]
        await asyncio.sleep(1)
        first.server.refusal = DOWN
        first.server.reset()
        waiting = [await first.client.emit("n", n) for n in range(3, 6)]
        assert applied(backend) == [0, 1, 2]
        disk.crash()
    second, _ = durable_world(disk, backend)
    async with second:
        await second.client.connect()
        assert second.client.metrics.messages_waiting == 6
        await (await second.client.emit("n", 6))
        assert applied(backend) == list(range(7))
        ids = [receipt.message_id for receipt in (*flying, *waiting)]
        assert [message.message_id for message in backend.handled[:6]] == ids
        assert [message.sequence for message in backend.handled] == list(range(1, 8))
        await second.client.disconnect()
        assert not disk.waiting


async def test_numbers_are_never_used_again() -> None:
    """When all messages are gone a restart goes on counting where the last one ended."""
    disk, backend = SimulatedDisk(), SimulatedBackend(handlers={"n": lambda n: n})
    for start in range(3):
        world, _ = durable_world(disk, backend)
        async with world:
            await world.client.connect()
            assert await (await world.client.emit("n", start)) == start
    assert [message.sequence for message in backend.handled] == [1, 2, 3]
    assert len({message.message_id for message in backend.handled}) == 3
    assert backend.repeats == 0


async def test_message_that_cannot_be_kept_was_never_accepted() -> None:
    """On a full disk `emit` raises, nothing of the message remains, and the next one goes on."""
    world, outbox = durable_world(SimulatedDisk())
    async with world:
        await world.client.connect()
        outbox.is_full = True
        with pytest.raises(OutboxStorageError, match="full"):
            await world.client.emit("n", 1)
        metrics = world.client.metrics
        assert (metrics.messages_accepted, metrics.messages_waiting, metrics.outbox_bytes) == (0, 0, 0)
        outbox.is_full = False
        assert await (await world.client.emit("n", 2)) == 2
        assert applied(backend_of(world)) == [2]


async def test_cancelled_emit_is_accepted_whole_or_not_at_all() -> None:
    """An emit that is cancelled while its message is being kept goes on without its caller."""
    world, _ = durable_world(SimulatedDisk(), delay=2.0)
    async with world:
        await world.client.connect()
        emitting = asyncio.create_task(world.client.emit("n", 1))
        await asyncio.sleep(1)
        emitting.cancel()
        await asyncio.sleep(5)
        assert emitting.cancelled()
        assert applied(backend_of(world)) == [1]
        assert world.client.metrics.messages_delivered == 1


async def test_message_at_most_once_is_forgotten_before_it_is_sent() -> None:
    """AT_MOST_ONCE that waited on the disk is off it before it is sent: no crash can send it twice."""
    disk, backend = SimulatedDisk(), SimulatedBackend(handlers={"n": lambda n: n})
    world, _ = durable_world(disk, backend, delay=0.5)
    async with world:
        waits = [await world.client.emit("n", n, delivery=D.AT_MOST_ONCE) for n in range(3)]
        last = await world.client.emit("n", 3)
        assert len(disk.waiting) == 4
        seen: list[int] = []
        backend.handlers["n"] = lambda n: seen.append(len(disk.waiting)) or n
        await world.client.connect()
        await asyncio.gather(*waits, last)
        await asyncio.sleep(1)
        assert applied(backend) == [0, 1, 2, 3]
        assert seen == [1, 1, 1, 1]  # only the last one, which is sent again until it is acknowledged


async def test_claim_that_fails_is_made_again() -> None:
    """AT_MOST_ONCE that cannot be forgotten is not sent; when the disk has room again, it is."""
    disk = SimulatedDisk()
    world, outbox = durable_world(disk)
    async with world:
        await world.client.emit("n", 1, delivery=D.AT_MOST_ONCE)
        outbox.is_full = True
        issues: list[Any] = []
        world.client.recovery.on_connection_issue(issues.append)
        await world.client.connect()
        await asyncio.sleep(3)
        assert applied(backend_of(world)) == []
        assert any("full" in issue.message for issue in issues)
        outbox.is_full = False
        await asyncio.sleep(3)
        assert applied(backend_of(world)) == [1]


async def test_message_at_most_once_that_leaves_at_once_is_not_kept() -> None:
    """On a live link AT_MOST_ONCE does not wait for the disk, and does not overtake what does."""
    disk = SimulatedDisk()
    world, _ = durable_world(disk, delay=1.0)
    async with world:
        await world.client.connect()
        began = world.now
        await world.client.emit("n", 1, delivery=D.AT_MOST_ONCE)
        assert world.now == began
        kept = asyncio.create_task(world.client.emit("n", 2))
        await asyncio.sleep(0)
        await world.client.emit("n", 3, delivery=D.AT_MOST_ONCE)
        await (await kept)
        await asyncio.sleep(3)
        assert applied(backend_of(world)) == [1, 2, 3]


async def test_disconnect_leaves_what_could_not_be_sent_for_the_next_start() -> None:
    """What a durable outbox still holds stays there, its receipts say so, and the next connect sends it."""
    disk = SimulatedDisk()
    world, _ = durable_world(disk)
    async with world:
        world.server.refusal = DOWN
        await world.client.connect()
        receipts = [await world.client.emit("n", n) for n in range(3)]
        assert await world.client.disconnect() == tuple(receipts)
        for receipt in receipts:
            with pytest.raises(DeliveryError, match="stored"):
                await receipt
            assert receipt.outcome is Outcome.STORED
        assert len(disk.waiting) == 3
        assert disk.owner is None
        world.server.refusal = None
        await world.client.connect()
        await asyncio.sleep(1)
        assert applied(backend_of(world)) == [0, 1, 2]


async def test_outbox_in_use_is_a_clear_error_of_connect() -> None:
    """A second client on the same outbox is refused when it connects, and leaves nothing running."""
    disk = SimulatedDisk()
    world, _ = durable_world(disk)
    async with world:
        await world.client.connect()
        second, _ = durable_world(disk)
        async with second:
            with pytest.raises(OutboxStorageError, match="in use"):
                await second.client.connect()
            assert second.client.status is S.DISCONNECTED
        assert await (await world.client.emit("n", 1)) == 1


async def test_attempts_and_dead_letters_outlive_the_process() -> None:
    """How often a message was tried, and that it was given up, is known to the next start."""
    disk = SimulatedDisk()
    world, _ = durable_world(disk, max_delivery_attempts=3, max_reconnect_attempts=100)
    async with world:
        await world.client.connect()
        await asyncio.sleep(1)
        world.server.swallow_acks = 1
        await world.client.emit("n", 1)
        await world.client.emit("unknown", 2)
        await asyncio.sleep(1)
        world.server.refusal = DOWN
        world.server.reset()
        await asyncio.sleep(1)
        disk.crash()
    assert [message.attempts for message in disk.waiting.values()] == [1]
    second, _ = durable_world(disk, backend_of(world))
    async with second:
        (letter,) = await second.client.outbox.dead_letters()
        assert letter.message.event == "unknown"


async def test_call_is_not_kept_for_the_next_process() -> None:
    """A call whose caller dies with the process is not sent by the next one; it needs no disk."""
    disk = SimulatedDisk()
    world, outbox = durable_world(disk)
    async with world:
        calls = [
            asyncio.create_task(world.client.call("n", n, delivery=delivery))
            for n, delivery in enumerate((D.AT_LEAST_ONCE, D.EXACTLY_ONCE, D.AT_MOST_ONCE))
        ]
        await asyncio.sleep(1)
        assert not disk.waiting
        await world.client.connect()
        assert await asyncio.gather(*calls) == [0, 1, 2]
        assert not disk.waiting
        outbox.is_full = True
        assert await world.client.call("n", 3) == 3


async def test_call_takes_effect_once_beside_the_numbers_of_the_outbox() -> None:
    """Calls and messages are numbered apart: none is taken for a repeat, and a repeated call counts once."""
    disk, backend = SimulatedDisk(), SimulatedBackend(handlers={"n": lambda n: n})
    for start in range(2):
        world, _ = durable_world(disk, backend)
        async with world:
            await world.client.connect()
            await asyncio.sleep(1)
            for n in range(3):
                await (await world.client.emit("n", 10 * start + n))
            world.server.swallow_acks = 1
            call = asyncio.create_task(world.client.call("n", 10 * start + 9))
            await asyncio.sleep(1)
            world.server.reset()
            assert await call == 10 * start + 9
    assert applied(backend) == [0, 1, 2, 9, 10, 11, 12, 19]
    assert backend.repeats == 2


async def test_call_that_is_refused_is_no_dead_letter() -> None:
    """The caller has heard of it; there is nothing for anybody to decide."""
    world, _ = durable_world(SimulatedDisk())
    async with world:
        await world.client.connect()
        with pytest.raises(DeliveryError, match="unknown"):
            await world.client.call("unknown")
        assert await world.client.outbox.dead_letters() == []


async def test_outbox_of_another_dialect_is_refused_rather_than_its_promise_broken() -> None:
    """Messages that must take effect once are not sent to a server that does not drop repeats."""
    disk = SimulatedDisk()
    world, _ = durable_world(disk)
    async with world:
        await world.client.emit("n", 1)
    async with World(outbox=SimulatedOutbox(disk)) as plain:
        with pytest.raises(OutboxStorageError, match="exactly once"):
            await plain.client.connect()
        assert disk.owner is None
    assert len(disk.waiting) == 1


async def test_connect_during_a_disconnect_waits_for_the_outbox() -> None:
    """A client that connects again while it is still disconnecting gets its outbox when it is free."""
    disk = SimulatedDisk()
    world, _ = durable_world(disk, delay=0.5)
    async with world:
        await world.client.connect()
        emitting = asyncio.create_task(world.client.emit("n", 1))
        await asyncio.sleep(0)
        ending = asyncio.create_task(world.client.disconnect(drain=False))
        await asyncio.sleep(0.1)
        assert await world.client.connect() is S.CONNECTED
        await asyncio.gather(emitting, ending)
        await asyncio.sleep(1)
        assert applied(backend_of(world)) == [1]


async def test_emit_that_waits_for_the_opening_ends_with_the_client() -> None:
    """An emit whose outbox is closed before it was open raises, and is not taken for cancelled."""
    world, _ = durable_world(SimulatedDisk(), delay=5.0)
    async with world:
        emitting = asyncio.create_task(world.client.emit("n", 1))
        await asyncio.sleep(1)
        await world.client.disconnect()
        with pytest.raises(ClosedError):
            await emitting


async def test_message_that_expires_while_it_is_being_kept_does_not_stay() -> None:
    """One whose time is up before the disk has it is forgotten again: no later start sends it."""
    disk = SimulatedDisk()
    world, _ = durable_world(disk, delay=2.0)
    async with world:
        await world.client.emit("n", 0)
        receipt = await world.client.emit("n", 1, ttl=1.0)
        assert receipt.outcome is Outcome.EXPIRED
        assert [message.args for message in disk.waiting.values()] == [[0]]


async def test_time_to_live_goes_on_after_a_restart() -> None:
    """A message that waits on the disk expires at its time, in whichever process that is."""
    disk = SimulatedDisk()
    first, _ = durable_world(disk)
    async with first:
        await first.client.emit("n", 1, ttl=100.0)
        await first.client.emit("n", 2)
    await asyncio.sleep(50)
    second, _ = durable_world(disk, fallback_after=None)  # over which they would be published
    async with second:
        second.server.refusal = DOWN
        await second.client.connect()
        await asyncio.sleep(45)
        assert second.client.metrics.messages_waiting == 2
        await asyncio.sleep(10)
        assert second.client.metrics.messages_by_outcome == {"expired": 1}
    assert [message.args for message in disk.waiting.values()] == [[2]]


async def test_blocked_emit_returns_when_its_message_is_kept() -> None:
    """One that had to wait for room waits for the disk too; one that the disk refuses makes room."""
    disk = SimulatedDisk()
    world, outbox = durable_world(disk, delay=1.0, outbox_max_messages=1, outbox_overflow="block")
    async with world:
        await world.client.emit("n", 0)
        blocked = [asyncio.create_task(world.client.emit("n", n)) for n in (1, 2)]
        await asyncio.sleep(1)
        outbox.is_full = True
        world.client.outbox.clear()
        await asyncio.sleep(0.5)
        assert not blocked[0].done()
        await asyncio.sleep(0.7)
        assert isinstance(blocked[0].exception(), OutboxStorageError)
        outbox.is_full = False  # in time for the second one, which had its room then
        await blocked[1]
        assert [message.args for message in disk.waiting.values()] == [[2]]


async def test_outbox_put_back_from_a_backup_lends_no_number_twice() -> None:
    """New messages on a restored outbox take effect and get their own answers; old ones do not come twice."""
    disk, backend = SimulatedDisk(), SimulatedBackend(handlers={"n": lambda n: n})
    backups = []
    for numbers in ((1, 2), (3, 4, 5)):
        backups.append(disk.copy())
        world, _ = durable_world(disk, backend)
        async with world:
            await world.client.connect()
            assert [await (await world.client.emit("n", n)) for n in numbers] == list(numbers)
    for number, backup in enumerate(backups, start=6):
        world, _ = durable_world(backup, backend)
        async with world:
            await world.client.connect()
            assert await (await world.client.emit("n", number)) == number
    assert applied(backend) == [1, 2, 3, 4, 5, 6, 7]


async def test_two_machines_on_copies_of_an_outbox_lose_nothing_and_double_nothing() -> None:
    """What waited in a copied file takes effect once, and what each machine accepts then as well."""
    disk, backend = SimulatedDisk(), SimulatedBackend(handlers={"n": lambda n: n})
    world, _ = durable_world(disk, backend)
    async with world:
        kept = [await world.client.emit("n", n) for n in range(3)]
    assert [receipt.outcome for receipt in kept] == [Outcome.STORED] * 3
    one, _ = durable_world(disk, backend)
    other, _ = durable_world(disk.copy(), backend)
    async with one, other:
        await asyncio.gather(one.client.connect(), other.client.connect())
        machines = enumerate((one.client, other.client))
        receipts = {10 * n + m: await c.emit("n", 10 * n + m) for m, c in machines for n in range(1, 20)}
        assert {n: await receipt for n, receipt in receipts.items()} == {n: n for n in receipts}
    assert sorted(applied(backend)) == sorted([0, 1, 2, *receipts])
    for machine in (0, 1):
        own = [n for n in applied(backend) if n >= 10 and n % 10 == machine]
        assert own == sorted(own)
