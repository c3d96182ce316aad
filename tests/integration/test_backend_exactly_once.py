import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from backend_peer import BOUND, BUSY, backend, eventually, http, peer, token

from realtime_fsm.machine.errors import ConfigurationError
from realtime_fsm.server import Client, MemoryLedger, Stamp, WebSocketService


def envelope(sequence: Any, client_id: Any = "c") -> dict[str, Any]:
    """Return what a message carries that is to be handled once."""
    return {"message_id": f"{client_id}-{sequence}", "client_id": client_id, "sequence": sequence}


async def post(service: WebSocketService, *messages: dict[str, Any], subject: str = "ann") -> Any:
    """Publish messages over HTTP; return their results, or the status where that is not 200."""
    async with http(token(subject)) as session:
        url = f"{service.url}/realtime/messages"
        async with session.post(url, json={"messages": messages}) as response:
            return (await response.json())["results"] if response.status == 200 else response.status


@pytest.fixture(params=["memory", "sqlite"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """Return the options for a service with either ledger."""
    return {} if request.param == "memory" else {"ledger_path": str(tmp_path / "ledger.db")}


async def test_message_whose_acknowledgement_was_lost_takes_effect_once(ledger: dict[str, Any]) -> None:
    """Sent again over a new connection, or over HTTP, it gets the first answer and has no second effect."""
    effects: list[int] = []
    begun, release = asyncio.Event(), asyncio.Event()

    async with backend(**ledger) as service:

        @service.on("book")
        async def book(client: Client, n: int) -> Any:
            begun.set()
            await release.wait()
            effects.append(n)
            return {"number": len(effects)}

        async with peer(service) as one:
            await one.sio.emit("book", (7, envelope(1)), callback=lambda *_: answers.append(1))
            answers: list[int] = []
            async with asyncio.timeout(BOUND):
                await begun.wait()
            await one.sio.eio.disconnect(abort=True)
        assert (effects, answers) == ([], [])
        first = {"ok": True, "answer": {"number": 1}}
        async with peer(service) as one:
            again = asyncio.create_task(one.ask("book", 7, envelope(1)))
            assert await one.ask("heartbeat") == {"ok": True}  # so that it has arrived, and waits
            release.set()
            assert await again == {**first, "duplicate": True}
            assert await one.ask("book", 7, envelope(1)) == {**first, "duplicate": True}
            (result,) = await post(service, {"event": "book", "data": 7, **envelope(1)})
            assert result == {"message_id": "c-1", **first, "duplicate": True}
            assert await one.ask("book", 8, envelope(2)) == {"ok": True, "answer": {"number": 2}}
        assert effects == [7, 8]
        assert service.duplicate_count == 3


async def test_batch_over_http_takes_effect_once(ledger: dict[str, Any]) -> None:
    """A batch that is posted again, with more at its end, has the effects of what is new alone."""
    effects: list[int] = []

    async with backend(**ledger) as service:
        service.on("add", lambda _, n: effects.append(n) or len(effects))
        batch = [{"event": "add", "data": n, **envelope(n)} for n in (1, 4, 5)]
        answers = [(r["answer"], r.get("duplicate")) for r in await post(service, *batch)]
        assert answers == [(1, None), (2, None), (3, None)]
        batch.append({"event": "add", "data": 9, **envelope(9)})
        answers = [(r["answer"], r.get("duplicate")) for r in await post(service, *batch)]
        assert answers == [(1, True), (2, True), (3, True), (4, None)]
        async with peer(service) as one:
            answer = await one.ask("add", 9, envelope(9))
            assert answer == {"ok": True, "answer": 4, "duplicate": True}
        assert effects == [1, 4, 5, 9]


async def test_message_without_a_number_is_no_duplicate() -> None:
    """A message with nothing but an id is handled each time: at least once is what its sender asked for."""
    effects: list[int] = []
    async with backend() as service, peer(service) as one:
        service.on("add", lambda _, n: effects.append(n))
        for _ in range(2):
            assert await one.ask("add", 1, {"message_id": "m"}) == {"ok": True, "answer": None}
        for _ in range(2):
            await post(service, {"event": "add", "data": 2, "message_id": "m"})
        assert effects == [1, 1, 2, 2]


async def test_subject_cannot_suppress_another_one_s_messages(ledger: dict[str, Any]) -> None:
    """A client that claims another subject's client id, and high numbers, changes nothing for it."""
    effects: list[str] = []
    async with (
        backend(**ledger) as service,
        peer(service) as ann,
        peer(service, {"token": token("eve")}) as eve,
    ):
        service.on("note", lambda client: effects.append(client.subject))
        await eve.ask("note", envelope(1_000_000, "ann's"))
        await post(service, {"event": "note", "args": [], **envelope(2_000_000, "ann's")}, subject="eve")
        assert await ann.ask("note", envelope(1, "ann's")) == {"ok": True, "answer": None}
        assert effects == ["eve", "eve", "ann"]


async def test_refusal_that_was_lost_is_repeated(ledger: dict[str, Any]) -> None:
    """A refused message that is sent again is refused again, even after later ones have taken effect."""
    calls: list[int] = []

    def fail(_: Client) -> None:
        calls.append(1)
        raise RuntimeError("broken")

    async with backend(**ledger) as service:
        service.on("fail", fail)
        service.on("ok", lambda _: None)
        async with peer(service) as one:
            refused = await one.ask("fail", envelope(1))
            unknown = await one.ask("nobody", envelope(2))
            assert (await one.ask("ok", envelope(3)))["ok"] is True
        assert refused["error"]["code"] == "handler_failed"
        async with peer(service) as one:
            assert await one.ask("fail", envelope(1)) == {**refused, "duplicate": True}
            assert await one.ask("nobody", envelope(2)) == {**unknown, "duplicate": True}
        (result,) = await post(service, {"event": "fail", "args": [], **envelope(1)})
        assert result == {"message_id": "c-1", **refused, "duplicate": True}
        assert calls == [1]


async def test_malformed_envelope_reaches_no_handler() -> None:
    """A malformed envelope is refused, over the socket and over HTTP, and the connection goes on."""
    calls: list[Any] = []
    async with backend() as service, peer(service) as one:
        service.on("note", lambda _, *args: calls.append(args))
        for bad in (
            envelope(0),
            envelope(True),
            envelope("1"),
            envelope(2**53),
            envelope(10**90),
            envelope(1, "x" * 201),
            envelope(1, ""),
            envelope(1, 7),
            envelope(1, None),
        ):
            answers = [await one.ask("note", bad)]
            answers += await post(service, {"event": "note", "args": [], **bad})
            for answer in answers:
                error = answer["error"]
                assert (error["category"], error["code"]) == ("protocol", "invalid_message")
        assert calls == []
        other = {**envelope(1), "more": 1}
        assert (await one.ask("note", other))["ok"] is True
        assert calls == [(other,)]
        assert service.duplicate_count == 0


@pytest.mark.parametrize(
    "unreadable",
    [
        '42["add",2,{"message_id":"c-2","client_id":"c","sequence":' + "9" * 101 + "}]",
        '42["add",2',
        '451-["add",{"_placeholder":true,"num":0}]',  # and no attachment comes
        "42" + "[" * 100_000,
        "49",
    ],
    ids=lambda text: text[:12],
)
async def test_what_follows_a_frame_that_cannot_be_read_is_not_handled(unreadable: str) -> None:
    """No message overtakes one that cannot be read: the connection ends, and the rest comes again."""
    effects: list[int] = []
    async with backend() as service, peer(service) as other, http() as session:
        service.on("add", lambda _, n: effects.append(n))
        async with session.ws_connect(f"{service.url}/socket.io/?EIO=4&transport=websocket") as ws:
            await ws.receive_str()
            await ws.send_str("40" + json.dumps({"token": token()}))
            await ws.receive_str()
            add = [f"42{json.dumps(['add', n, envelope(n)])}" for n in (1, 3)]
            for text in (add[0], unreadable, add[1]):
                await ws.send_str(text)
            async with asyncio.timeout(BOUND):
                while not (await ws.receive()).type.name.startswith("CLOS"):
                    pass
        assert effects == [1]
        batch = [{"event": "add", "data": n, **envelope(n)} for n in (1, 2, 3)]
        assert [r.get("duplicate", False) for r in await post(service, *batch)] == [True, False, False]
        assert effects == [1, 2, 3]
        assert await other.ask("heartbeat") == {"ok": True}


class FailingLedger(MemoryLedger):
    """A ledger that cannot keep one number, for as long as it is told so."""

    def __init__(self, cannot_keep: int) -> None:
        super().__init__()
        self.cannot_keep: int | None = cannot_keep

    async def apply(self, stamp: Stamp, handle: Any) -> Any:
        """Handle a message."""
        if stamp.sequence == self.cannot_keep:
            raise OSError("no space left on the device")
        return await super().apply(stamp, handle)


async def test_what_follows_a_message_that_was_not_kept_waits_for_it() -> None:
    """Where the ledger fails, no later message of the connection overtakes: sent again, all have effects."""
    effects: list[int] = []
    release = asyncio.Event()

    async def add(_: Client, n: int) -> None:
        await release.wait()
        effects.append(n)

    failing = FailingLedger(2)
    async with backend(ledger=failing) as service:
        service.on("add", add)
        async with peer(service) as one:
            for n in (1, 2, 3, 4):
                await one.sio.emit("add", (n, envelope(n)))
            assert await one.ask("heartbeat") == {"ok": True}  # so that all of them wait in line
            release.set()
            async with asyncio.timeout(BOUND):
                await one.gone.wait()
        assert effects == [1]
        batch = [{"event": "add", "data": n, **envelope(n)} for n in (1, 2, 3, 4)]
        assert [r["message_id"] for r in await post(service, *batch)] == ["c-1"]
        assert await post(service, *batch[1:]) == 503
        failing.cannot_keep = None
        assert [r["ok"] for r in await post(service, *batch)] == [True] * 4
        assert effects == [1, 2, 3, 4]


async def test_what_follows_a_message_that_found_no_room_waits_for_it() -> None:
    """A flood that is cut off leaves no gap: what came after the first refused one is not handled either."""
    effects: list[int] = []
    release = asyncio.Event()

    async def add(_: Client, n: int) -> None:
        await release.wait()
        effects.append(n)

    async with backend(max_pending_messages=3) as service:
        service.on("add", add)
        url = f"{service.url}/socket.io/?EIO=4&transport=websocket"
        async with http() as session, session.ws_connect(url) as ws:
            await ws.receive_str()
            await ws.send_str("40" + json.dumps({"token": token()}))
            await ws.receive_str()
            (watched,) = service._sessions
            watch, service._watch.condemn = service._watch.condemn, lambda *_: None  # type: ignore[method-assign]
            for n in range(1, 6):
                await ws.send_str("42" + json.dumps(["add", n, envelope(n)]))
            await eventually(lambda: watched.messages == 5)
            release.set()
            await eventually(lambda: effects == [1, 2, 3])
            await ws.send_str("42" + json.dumps(["add", 6, envelope(6)]))
            await eventually(lambda: watched.messages == 6)
            service._watch.condemn = watch  # type: ignore[method-assign]
        batch = [{"event": "add", "data": n, **envelope(n)} for n in range(1, 7)]
        assert [r["ok"] for r in await post(service, *batch)] == [True] * 6
        assert effects == [1, 2, 3, 4, 5, 6]


async def test_ledger_in_a_file_outlives_the_server(tmp_path: Path) -> None:
    """A message that took effect before a restart is a repeat after it; the handler's writes are there."""

    def note(client: Client, text: str) -> str:
        client.transaction.execute("CREATE TABLE IF NOT EXISTS note (text TEXT)")
        client.transaction.execute("INSERT INTO note VALUES (?)", (text,))
        return str(client.transaction.execute("SELECT group_concat(text) FROM note").fetchone()[0])

    for expected in ({"ok": True, "answer": "hi"}, {"ok": True, "answer": "hi", "duplicate": True}):
        async with backend(ledger_path=str(tmp_path / "app.db")) as service, peer(service) as one:
            service.on("note", note)
            assert await one.ask("note", "hi", envelope(1)) == expected
    async with backend(ledger_path=str(tmp_path / "app.db")) as service, peer(service) as one:
        service.on("note", note)
        assert await one.ask("note", "ho", envelope(2)) == {"ok": True, "answer": "hi,ho"}


async def test_ledger_that_cannot_be_used_is_a_configuration_error(tmp_path: Path) -> None:
    """A server whose ledger cannot be opened does not start, says why, and leaves nothing."""
    for path in (str(tmp_path), str(tmp_path / "missing" / "ledger.db")):
        with pytest.raises(ConfigurationError, match="ledger"):
            await backend(ledger_path=path).start()
    with pytest.raises(ConfigurationError, match="ledger_path"):
        backend(ledger_path=str(tmp_path / "a.db"), ledger=MemoryLedger())


async def test_stop_cuts_off_a_handler_with_a_transaction_in_time(tmp_path: Path) -> None:
    """A handler that hangs with the ledger's transaction neither delays the end nor leaves an effect."""
    begun = asyncio.Event()

    async def hang(client: Client) -> None:
        client.transaction.execute("CREATE TABLE half (done TEXT)")
        begun.set()
        await asyncio.Event().wait()

    service = backend(ledger_path=str(tmp_path / "app.db"), close_timeout=1.0)
    await service.start()
    service.on("hang", hang)
    async with peer(service) as one:
        await one.sio.emit("hang", envelope(1))
        async with asyncio.timeout(BOUND):
            await begun.wait()
        before = time.monotonic()
        await service.stop()
        assert time.monotonic() - before < 1.0 + BUSY
    async with backend(ledger_path=str(tmp_path / "app.db")) as service, peer(service) as one:
        service.on("hang", lambda client: client.transaction.execute("CREATE TABLE half (x)") and 1)
        assert await one.ask("hang", envelope(1)) == {"ok": True, "answer": 1}
