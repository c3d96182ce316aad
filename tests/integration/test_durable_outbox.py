"""The whole client on a real file: kept across starts, set aside when corrupt, refused when in use."""

import asyncio
import resource
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import canary
import pytest

from realtime_fsm import (
    Delivery,
    DeliveryError,
    Dialect,
    ErrorCategory,
    OutboxStorageError,
    RealtimeConfig,
    RealtimeService,
)
from realtime_fsm.adapters.outbox_schema import APPLICATION_ID
from realtime_fsm.server import BackendConfig, WebSocketService, issue_token

Run = Callable[[Coroutine[Any, Any, None]], None]


def client_of(path: Path, url: str = "http://127.0.0.1:9", **config: Any) -> RealtimeService:
    """Return a client with its outbox in a file."""
    return RealtimeService(
        RealtimeConfig(server_url=url, dialect=Dialect.REFERENCE, outbox_path=str(path), **config),
        token=issue_token(canary.SIGNING, "durable", 3600.0),
    )


@pytest.mark.parametrize("durability", ["power", "process"])
async def test_messages_of_one_start_are_delivered_by_the_next(tmp_path: Path, durability: str) -> None:
    """What could not be sent is in the file when the client ends, and the next one delivers it, once."""
    path = tmp_path / "outbox.db"
    first = client_of(path, outbox_durability=durability)
    receipts = [await first.emit("n", n) for n in range(100)]
    binary = await first.emit("blob", b"\x00\xff" * 100)
    assert await first.disconnect() == (*receipts, binary)
    with pytest.raises(DeliveryError, match="stored"):
        await receipts[0]
    heard: list[Any] = []
    async with WebSocketService(BackendConfig(port=0, secret=canary.SIGNING)) as backend:
        backend.on("n", lambda _, n: heard.append(n))
        backend.on("blob", lambda _, data: heard.append(data))
        async with client_of(path, backend.url) as second:
            assert await second.call("n", 100) is None
            await second.emit("n", 101)
    assert heard == [*range(100), b"\x00\xff" * 100, 100, 101]


def test_corrupt_outbox_is_set_aside_and_people_are_told(run_async: Run, tmp_path: Path) -> None:
    """A corrupt outbox is kept under another name, loudly; the client goes on with a new one."""
    corrupt = b"SQLite format 3\0" + b"\xa5" * 52 + APPLICATION_ID.to_bytes(4, "big") + b"once" * 1000

    async def main() -> None:
        path = tmp_path / "outbox.db"
        path.write_bytes(corrupt)
        client = client_of(path)
        issues: list[Any] = []
        client.recovery.on_connection_issue(issues.append)
        await client.emit("n", 1)
        await client.disconnect()
        assert [issue.error.category for issue in issues] == [ErrorCategory.APPLICATION]
        told.append(issues[0].message)

    told: list[str] = []
    run_async(main())
    (aside,) = tmp_path.glob("outbox.db.corrupt-*")
    assert aside.read_bytes() == corrupt
    assert aside.name in told[0]


async def test_outbox_in_use_is_refused_and_free_after_the_end(tmp_path: Path) -> None:
    """Two clients cannot share a file: the second one is refused, and gets it when the first has ended."""
    path = tmp_path / "outbox.db"
    first, second = client_of(path), client_of(path)
    await first.emit("n", 1)
    with pytest.raises(OutboxStorageError, match="in use"):
        await second.emit("n", 2)
    with pytest.raises(OutboxStorageError, match="in use"):
        await second.connect()
    await first.disconnect()
    await second.emit("n", 2)
    assert len(second.outbox) == 2
    await second.disconnect()


async def test_outbox_that_cannot_be_opened_is_a_clear_error(tmp_path: Path) -> None:
    """A folder that is missing is named, with what to do; nothing is left running."""
    client = client_of(tmp_path / "missing" / "outbox.db")
    with pytest.raises(OutboxStorageError, match="missing") as refused:
        await client.connect()
    assert refused.value.remedy
    await client.disconnect()


async def test_at_most_once_survives_on_the_disk_and_is_sent_once(tmp_path: Path) -> None:
    """AT_MOST_ONCE that waits is kept like any other, and is off the disk before it is sent."""
    path = tmp_path / "outbox.db"
    first = client_of(path)
    await first.emit("n", 1, delivery=Delivery.AT_MOST_ONCE)
    await first.disconnect()
    heard: list[int] = []
    async with WebSocketService(BackendConfig(port=0, secret=canary.SIGNING)) as backend:
        backend.on("n", lambda _, n: heard.append(n))
        for _ in range(2):
            async with client_of(path, backend.url) as client:
                await client.call("n", 0)
    assert heard == [1, 0, 0]


async def test_message_that_changed_on_the_disk_is_told_and_stays_dead(tmp_path: Path) -> None:
    """A flipped bit in a body is noticed at the next start: counted, told, and never sent, not by `retry`."""
    path = tmp_path / "outbox.db"
    first = client_of(path)
    for amount in (100, 200, 300):
        await first.emit("pay", amount)
    await first.disconnect(drain=False)
    content = path.read_bytes()
    assert content.count(b'["pay",200]') == 1
    path.write_bytes(content.replace(b'["pay",200]', b'["pay",208]'))
    paid: list[int] = []
    async with WebSocketService(BackendConfig(port=0, secret=canary.SIGNING)) as backend:
        backend.on("pay", lambda _, amount: paid.append(amount))
        client = client_of(path, backend.url)
        issues: list[Any] = []
        client.recovery.on_connection_issue(issues.append)
        async with client:
            await (await client.emit("pay", 400))
            assert await client.outbox.retry() == ()
            assert [letter.message.is_damaged for letter in await client.outbox.dead_letters()] == [True]
            assert client.metrics.messages_buried == 1
    assert paid == [100, 300, 400]
    assert ["changed on the disk" in issue.message for issue in issues] == [True]


async def test_full_disk_is_told_until_there_is_room(tmp_path: Path) -> None:
    """While no message can be kept the client is not ready, and says why; with room it is, by itself."""
    async with WebSocketService(BackendConfig(port=0, secret=canary.SIGNING)) as backend:
        backend.on("n", lambda _, data: None)
        async with client_of(tmp_path / "outbox.db", backend.url) as client:
            await (await client.emit("n", 1))
            before = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
            try:
                with pytest.raises(OutboxStorageError):
                    await client.emit("n", "x" * 100_000)
                health = client.health()
                assert (health.live, health.ready) == (True, False)
                assert "Messages are refused: The outbox" in health.reasons[0]
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)
            async with asyncio.timeout(30):
                while not client.health().ready:  # noqa: ASYNC110 - the disk is asked in another thread
                    await asyncio.sleep(0.05)
            assert client.health().reasons == ()
