"""What the router makes of a ledger: its own, or one that an application brings."""

import asyncio
import logging
from typing import Any

import pytest

from realtime_fsm.server import BackendConfig, Client, MemoryLedger, Stamp
from realtime_fsm.server.ledger import Handle, LedgerUnavailableError, digest_of
from realtime_fsm.server.request import Answer
from realtime_fsm.server.router import MessageRouter

CONFIG = BackendConfig(secret="0123456789abcdef0123456789abcdef")


def numbered(sequence: int) -> Client:
    """Return the sender of a message with a number."""
    return Client(subject="ann", claims={"a": "claim"}, message_id="m", client_id="c", sequence=sequence)


class OwnLedger(MemoryLedger):
    """An application's ledger: it gives a transaction of its own, and can fail."""

    def __init__(self) -> None:
        super().__init__()
        self.stamps: list[Stamp] = []
        self.failure: Exception | None = None

    async def apply(self, stamp: Stamp, handle: Handle) -> Answer:
        """Handle a message."""
        self.stamps.append(stamp)
        if self.failure is not None:
            raise self.failure
        return await super().apply(stamp, lambda _: handle("secret transaction"))


async def test_handler_is_given_the_ledger_s_transaction() -> None:
    """The handler of a message with a number gets the transaction; one without passes the ledger by."""
    ledger = OwnLedger()
    router = MessageRouter(CONFIG, ledger)
    seen: list[Client] = []
    router.on("note", seen.append)
    await router.handle(numbered(1), "note", [])
    await router.handle(Client(subject="ann", claims={}, message_id="m"), "note", [])
    await router.handle(Client(subject="ann", claims={}, message_id="m"), "note", [])
    assert [client.transaction for client in seen] == ["secret transaction", None, None]
    assert (seen[0].client_id, seen[0].sequence, seen[0].message_id) == ("c", 1, "m")
    assert ledger.stamps == [Stamp("ann", "c", 1, digest_of("note", []))]


def test_client_shows_no_secret() -> None:
    """What a client looks like in a log holds neither claims nor transaction."""
    text = repr(Client(subject="ann", claims={"a": "claim"}, transaction="secret transaction"))
    assert "claim" not in text
    assert "secret" not in text


async def test_failed_ledger_acknowledges_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever a ledger raises, the message is not answered at all, it is logged, and the router goes on."""
    ledger = OwnLedger()
    router = MessageRouter(CONFIG, ledger)
    router.on("note", lambda _: "done")
    ledger.failure = OSError("no space left")
    with pytest.raises(LedgerUnavailableError) as caught:
        await router.handle(numbered(1), "note", [])
    assert caught.value.retry_after is not None
    assert caught.value.__cause__ is ledger.failure
    ledger.failure = None
    assert await router.handle(numbered(1), "note", []) == {"ok": True, "answer": "done"}
    assert "no space left" in caplog.text


@pytest.mark.parametrize("how", ["fails", "is unknown", "takes too long", "answers no JSON"])
async def test_every_refusal_is_kept(how: str, caplog: pytest.LogCaptureFixture) -> None:
    """However a message is refused, its repeat is refused in the same way, and counted as a duplicate."""
    router = MessageRouter(CONFIG, MemoryLedger())
    calls: list[int] = []

    async def handler(_: Client) -> Any:
        calls.append(1)
        if how == "fails":
            raise RuntimeError(how)
        if how == "takes too long":
            await asyncio.Event().wait()
        return float("nan")

    if how != "is unknown":
        router.on("note", handler)
    caplog.set_level(logging.CRITICAL, "realtime_fsm.server")
    refused = await router.handle(numbered(1), "note", [])
    assert refused["ok"] is False
    for _ in range(2):
        assert await router.handle(numbered(1), "note", []) == {**refused, "duplicate": True}
    assert len(calls) == (0 if how == "is unknown" else 1)
    assert router.duplicates == 2
