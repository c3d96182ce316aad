"""A rollout in all its moods, and the old client alone, on real servers (SPEC G1 to G3)."""

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import socketio
from aiohttp import web
from migration_scene import SOON, Stream, backend, client_config, settings, until
from socketio import packet

from realtime_fsm import ClosedError, DeliveryError, Dialect, Outcome, SubscriptionRefusedError
from realtime_fsm.adapters.metrics_file import read
from realtime_fsm.migration import (
    DecisionKind,
    EngineClient,
    PlainClient,
    RealtimeClient,
    RollbackLimits,
    Rollout,
    database_evidence,
)
from realtime_fsm.monitoring.records import Level, Measurements
from realtime_fsm.rollout.rule import RollbackRule
from realtime_fsm.rollout.setting import SettingFile
from realtime_fsm.rollout.stage import default_clients
from realtime_fsm.testing import FaultProxy


async def settled(rollout: Rollout) -> str:
    """Wait until what is to run does, bounded."""
    async with asyncio.timeout(SOON):
        return await rollout.settled()


@pytest.mark.parametrize("kind", [PlainClient, EngineClient])
async def test_both_clients_do_what_the_protocol_says(kind: Callable[..., Any]) -> None:
    """Connect, handle, emit, disconnect: the same code runs on either (SPEC G1)."""
    async with backend() as (server, token):
        server.on("add", lambda _, a, b: a + b)
        client: RealtimeClient = kind(client_config(server.url), token=token)
        heard: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        client.on("tick", heard.set_result)
        assert not client.is_connected
        await client.connect()
        assert (client.is_connected, client.gave_up) == (True, None)
        await client.subscribe({"ticks": None}, {})  # type: ignore[attr-defined]
        server.publish("ticks", "tick", {"n": 1})
        async with asyncio.timeout(SOON):
            assert await (await client.emit("add", (1, 2))) == 3
            assert await heard == {"n": 1}
            with pytest.raises(DeliveryError, match="No handler"):
                await (await client.emit("unknown"))
        await client.disconnect()
        await client.disconnect()
        assert not client.is_connected


async def test_old_client_says_why_it_is_refused() -> None:
    """A token that is refused, and one that cannot be had, are told as errors of the library."""

    def fail() -> str:
        raise OSError("no")

    async with backend() as (server, _):
        for source, name in (("nonsense", "AuthenticationError"), (fail, "TokenSourceError")):
            client = PlainClient(client_config(server.url), token=source, reconnect_delay=0.01)
            errors: list[str] = []
            client.watch(lambda signal, errors=errors: errors.append(type(signal.error).__name__))
            await client.connect()
            await client.disconnect()
            assert errors[0] == name


async def test_old_client_is_told_which_channel_is_refused() -> None:
    """A channel that the server refuses is an error at ``subscribe``, whichever client runs."""
    async with backend() as (server, token):
        for implementation in ("legacy", "new"):
            rollout = Rollout(
                client_config(server.url),
                settings(implementation=implementation),
                client_id="me",
                token=token,
                environ={},
            )
            async with rollout:
                with pytest.raises(SubscriptionRefusedError):
                    await rollout.subscribe(["x" * 10_000])


def test_both_are_recorded_in_one_database_and_it_is_the_evidence(
    run_long: Callable[..., Any], tmp_path: Path
) -> None:
    """Attempts, levels and outages of both are in the file, and the rule can be asked with them (SPEC G3)."""
    path = tmp_path / "metrics.db"

    async def main() -> None:
        async with backend() as (server, token), FaultProxy("127.0.0.1", server.port) as proxy:
            config = client_config(proxy.url)
            clients = default_clients(config, token) | {
                "legacy": lambda: PlainClient(config, token=token, reconnect_delay=0.02)
            }
            rollout = Rollout(config, settings(), client_id="me", clients=clients, environ={}, metrics=path)
            stream = Stream(server, rollout)
            async with rollout:
                await rollout.subscribe(["ticks"])
                stream.start()
                for implementation in ("legacy", "new"):
                    rollout.override(implementation)
                    assert await settled(rollout) == implementation
                    await stream.flowing()
                    proxy.reset_peer()
                    await stream.flowing(60)
                await stream.end()
            stream.check()

    run_long(main(), timeout=60.0)
    measured = Measurements.from_rows(read(path, since=0.0), since=0.0)
    assert measured.implementations == ("legacy", "new")
    for implementation in measured.implementations:
        mine = measured.of(implementation)
        assert len([one for one in mine.attempts if one.cause is None]) >= 2
        assert [one.recovered for one in mine.outages] == [True]
        assert {Level.LIVE, Level.DOWN} <= {span.level for span in mine.spans}
    assert measured.of("legacy").latencies
    new, legacy = database_evidence(path, window=3600.0)()
    assert min(new.samples, legacy.samples) >= 3
    assert min(new.failures, legacy.failures) >= 1


async def test_evidence_of_other_processes_rolls_back(tmp_path: Path) -> None:
    """What many processes have recorded decides for one that has seen nothing; a bad file decides nothing."""
    path = tmp_path / "metrics.db"
    path.write_bytes(b"no database at all, and longer than the header of one" * 10)
    looked = []

    def evidence() -> Any:
        looked.append(1)
        return database_evidence(path, window=60.0)()

    async with backend() as (server, token):
        rollout = Rollout(
            client_config(server.url),
            settings(implementation="new"),
            client_id="me",
            token=token,
            environ={},
            rule=RollbackRule(RollbackLimits(min_samples=1)),
            evidence=evidence,
        )
        async with rollout:
            assert await settled(rollout) == "new"
            assert looked == [1]


def test_bad_file_and_what_is_decided_can_be_shown(
    run_async: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A bad file changes nothing and is told; the page's picture is JSON and holds no secret (SPEC G3)."""
    path = tmp_path / "rollout.json"
    path.write_text('{"implementation": "new"}', encoding="utf-8")

    async def main() -> dict[str, Any]:
        async with backend() as (server, token):
            rollout = Rollout(
                client_config(server.url),
                settings(),
                client_id="me",
                token=token,
                environ={"REALTIME_IMPLEMENTATION": "legacy", "REALTIME_ROLLOUT_FILE": str(path)},
            )
            async with rollout:
                assert rollout.running == "new"
                path.write_text('{"implementation": "nwe"}', encoding="utf-8")
                assert await settled(rollout) == "new"
                return rollout.to_json()

    with caplog.at_level(logging.INFO, "realtime_fsm.migration"):
        shown = run_async(main())
    assert "implementation='nwe' must be one of" in caplog.text
    assert json.loads(json.dumps(shown))["counts"] == {"setting": 1, "start": 1, "bad_file": 1}
    assert shown["chosen"] == {"role": "new", "source": "file"}
    assert shown["said"] == {"config": "legacy", "environment": "legacy", "file": "new"}


async def test_settled_does_not_trust_a_look_that_began_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that changes after it was read, and before that look has ended, is looked at again."""
    path = tmp_path / "rollout.json"
    has_read, goes_on = threading.Event(), threading.Event()
    async with backend() as (server, token):
        config = client_config(server.url)
        rollout = Rollout(config, settings(path=str(path)), client_id="me", token=token, environ={})
        async with rollout:
            load = SettingFile.load

            def slow(file: SettingFile) -> Any:
                found = load(file)
                has_read.set()
                assert goes_on.wait(SOON)
                return found

            monkeypatch.setattr(SettingFile, "load", slow)
            assert await asyncio.to_thread(has_read.wait, SOON)
            path.write_text('{"implementation": "new"}', encoding="utf-8")
            asked = asyncio.create_task(settled(rollout))
            await asyncio.sleep(0)
            goes_on.set()
            assert await asked == "new"


async def test_switch_is_put_off_while_the_other_does_not_connect(tmp_path: Path) -> None:
    """Without a fallback the old one goes on until the new one can take over (SPEC G2)."""
    async with backend() as (server, token), FaultProxy("127.0.0.1", server.port) as proxy:
        proxy.refuse(True)
        config = client_config(server.url)
        clients = default_clients(config, token) | {
            "new": lambda: EngineClient(client_config(proxy.url), token=token)
        }
        given = settings(switch_timeout=0.5)
        environ = {"REALTIME_ROLLOUT_FILE": str(tmp_path / "rollout.json")}
        rollout = Rollout(config, given, client_id="me", clients=clients, environ=environ)
        stream = Stream(server, rollout)
        put_off = asyncio.Event()
        async with rollout:
            await rollout.subscribe(["ticks"])
            stream.start()
            rollout.decisions.subscribe(
                lambda one: put_off.set() if one.kind is DecisionKind.PUT_OFF else None
            )
            (tmp_path / "rollout.json").write_text('{"percent": 100}', encoding="utf-8")
            async with asyncio.timeout(SOON):
                await put_off.wait()
            assert rollout.running == "legacy"
            await stream.flowing(30)
            proxy.refuse(False)
            assert await settled(rollout) == "new"
            await stream.flowing()
            await stream.end()
        stream.check()


def test_disconnect_in_the_midst_of_a_switch_settles_every_message(run_async: Callable[..., Any]) -> None:
    """Whenever a rollout is closed, each receipt comes to its end, and nothing is left behind."""

    async def main(turns: int) -> None:
        async with backend() as (server, token):
            rollout = Rollout(client_config(server.url), settings(), client_id="me", token=token, environ={})
            server.on("number", lambda _, data: data["n"])
            await rollout.connect()
            rollout.override("new")
            receipts = []
            for number in range(turns):
                receipts.append(await rollout.emit("number", {"n": number}))
                await asyncio.sleep(0)
            async with asyncio.timeout(SOON):
                await rollout.disconnect()
                ends = await asyncio.gather(*receipts, return_exceptions=True)
            assert [end for end in ends if isinstance(end, int)] == list(range(turns))
            with pytest.raises(ClosedError):
                await rollout.emit("number", {"n": 0})

    for turns in (1, 10, 40, 160):
        run_async(main(turns))


@asynccontextmanager
async def plain_server() -> AsyncIterator[tuple[socketio.AsyncServer, str]]:
    """Run a server of plain python-socketio, which numbers nothing and drops no repeats."""
    sio = socketio.AsyncServer(async_mode="aiohttp", ping_interval=0.3)
    app = web.Application()
    sio.attach(app)
    runner = web.AppRunner(app, shutdown_timeout=0.5)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield sio, f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await sio.shutdown()
        await runner.cleanup()


async def test_plain_server_gets_every_message_once_over_switches() -> None:
    """On a server without numbers no message is lost or doubled; exactly one client is listened to."""
    received: list[int] = []
    arrived = asyncio.Event()
    async with plain_server() as (sio, url):

        async def number(sid: str, n: int) -> None:
            received.append(n)
            arrived.set()
            await sio.emit("echo", n, to=sid)

        sio.on("number", number)
        rollout = Rollout(client_config(url, dialect=Dialect.PLAIN), settings(), client_id="me", environ={})
        heard: list[int] = []
        rollout.on("echo", heard.append)
        receipts = []
        async with rollout:
            for n in range(200):
                receipts.append(await rollout.emit("number", n))
                if n % 50 == 25:
                    rollout.override("new" if rollout.running == "legacy" else "legacy")
                if n % 50 == 49:
                    await settled(rollout)
            async with asyncio.timeout(SOON):
                await asyncio.gather(*receipts)
                while len(received) < 200:
                    arrived.clear()
                    await arrived.wait()
        assert received == list(range(200))
        assert {receipt.outcome for receipt in receipts} == {Outcome.SENT}
        assert len(set(heard)) == len(heard)
        assert sorted(heard) == heard


async def test_old_client_connects_again_when_it_loses_the_link_in_the_midst_of_a_request() -> None:
    """It waits for no answer that cannot come: to a subscription, or in a session that was refused."""
    config: dict[str, Any] = {
        "dialect": Dialect(name="confirming", confirms_subscriptions=True),
        "ack_timeout": 10 * SOON,
        "heartbeat_interval": 0.1,
        "heartbeat_timeout": 0.1,
    }
    asked: list[str] = []
    async with plain_server() as (sio, url):

        async def subscribe(sid: str, _: Any) -> Any:
            asked.append(sid)
            if len(asked) == 1:
                await sio.disconnect(sid)
            return {"ok": True}

        sio.on("subscribe", subscribe)
        client = PlainClient(client_config(url, **config), reconnect_delay=0.01)
        await client.subscribe({"ticks": None}, {})
        await client.connect()
        await until(lambda: len(asked) == 2)
        refusal = sio.packet_class(packet.CONNECT_ERROR, data={"message": "not any more"}, namespace="/")
        await sio._send_packet(sio.manager.eio_sid_from_sid(asked[1], "/"), refusal)
        await until(lambda: len(asked) == 3)
        await client.disconnect()


async def test_rollout_can_be_begun_again() -> None:
    """After a disconnect it connects again, with its subscriptions and handlers."""
    async with backend() as (server, token):
        rollout = Rollout(client_config(server.url), settings(), client_id="me", token=token, environ={})
        heard: asyncio.Queue[int] = asyncio.Queue()
        rollout.on("tick", heard.put_nowait)
        for number in range(2):
            async with rollout, asyncio.timeout(SOON):
                await rollout.subscribe(["ticks"])
                server.publish("ticks", "tick", number)
                assert await heard.get() == number
                rollout.override("new")
                assert await settled(rollout) == "new"
                await rollout.unsubscribe(["ticks"])
            rollout.override(None)


async def test_shadow_sends_no_message_of_its_own() -> None:
    """The client beside the old one connects under the same identity, and emits nothing (SPEC G2)."""
    async with backend() as (server, token):
        senders: list[str | None] = []
        server.on("note", lambda client, _: senders.append(client.sid))
        rollout = Rollout(
            client_config(server.url),
            settings(implementation="shadow"),
            client_id="me",
            token=token,
            environ={},
        )
        async with rollout, asyncio.timeout(SOON):
            await rollout.subscribe(["ticks"])
            rollout.on("tick", lambda _: None)
            for number in range(5):
                await (await rollout.emit("note", number))
            while rollout.differences.matched == 0:
                server.publish("ticks", "tick", len(senders))
                await asyncio.sleep(0)
            await (await rollout.emit("note", 5))
        assert len(senders) == 6
        assert len(set(senders)) == 1


@pytest.mark.parametrize("implementation", ["legacy", "new"])
def test_server_is_answered_and_bookings_are_monitored(
    run_async: Callable[..., Any], implementation: str
) -> None:
    """What a handler returns answers the server, and bookings and their end work, whichever client runs."""

    async def plain() -> None:
        async with plain_server() as (sio, url):
            sids: list[str] = []
            sio.on("hello", sids.append)
            given = settings(implementation=implementation)
            rollout = Rollout(client_config(url, dialect=Dialect.PLAIN), given, client_id="me", environ={})

            @rollout.on("ask")
            async def answer(a: int, b: int) -> int:
                return a + b

            async with rollout, asyncio.timeout(SOON):
                await (await rollout.emit("hello"))
                await until(lambda: bool(sids))
                assert await sio.call("ask", (1, 2), to=sids[0]) == 3
                assert rollout.off("ask") == 1
                assert await sio.call("ask", (1, 2), to=sids[0]) is None

    async def reference() -> None:
        async with backend() as (server, token):
            given = settings(implementation=implementation)
            rollout = Rollout(client_config(server.url), given, client_id="me", token=token, environ={})
            heard: asyncio.Queue[Any] = asyncio.Queue()
            rollout.on("booking_updated", heard.put_nowait)
            async with rollout, asyncio.timeout(SOON):
                await rollout.monitor_bookings(["42"])
                server.publish("booking:42", "booking_updated", 1)
                assert await heard.get() == 1
                await rollout.unsubscribe(["booking:42", "never"])
                await (await barrier(rollout))
                server.publish("booking:42", "booking_updated", 2)
                await (await barrier(rollout))
                assert heard.empty()

    async def barrier(rollout: Rollout) -> Any:
        receipt = await rollout.emit("nobody")

        async def wait() -> None:
            with pytest.raises(DeliveryError):
                await receipt

        return wait()

    run_async(plain())
    run_async(reference())


async def test_messages_that_wait_for_a_plain_server_change_the_client() -> None:
    """What the new one could not send yet the old one sends, once; and the other way round."""
    received: list[int] = []
    async with (
        plain_server() as (sio, url),
        FaultProxy("127.0.0.1", int(url.rpartition(":")[2])) as proxy,
    ):
        sio.on("number", lambda _, n: received.append(n))
        config = client_config(url, dialect=Dialect.PLAIN)
        dead = client_config(proxy.url, dialect=Dialect.PLAIN)
        clients = default_clients(config, None)
        pairs = (("new", EngineClient), ("legacy", PlainClient))
        for first, kind in pairs:
            received.clear()
            rollout = Rollout(
                config,
                settings(implementation=first),
                client_id="me",
                clients=clients | {first: lambda kind=kind: kind(dead)},
                environ={},
            )
            lost = asyncio.Event()
            async with rollout, asyncio.timeout(SOON):
                client = rollout._stage.running.client
                client.watch(lambda _, lost=lost: lost.set())
                proxy.refuse(True)
                proxy.reset_peer()
                await lost.wait()
                receipts = [await rollout.emit("number", n) for n in range(20)]
                rollout.override("legacy" if first == "new" else "new")
                await asyncio.gather(*receipts)
                await until(lambda: len(received) == 20)
            assert received == list(range(20))
            proxy.refuse(False)


@pytest.mark.real_loop(timeout=60.0)
async def test_message_of_unknown_fate_is_told_as_lost_and_never_doubled() -> None:
    """What the old one had under way on a dead link when the new one took over is lost, and says so."""
    async with backend() as (server, token), FaultProxy("127.0.0.1", server.port) as proxy:
        received: list[int] = []
        server.on("number", lambda _, n: received.append(n))
        config = client_config(server.url)
        clients = default_clients(config, token) | {
            "legacy": lambda: PlainClient(client_config(proxy.url), token=token)
        }
        given = settings(drain_timeout=0.2)
        rollout = Rollout(config, given, client_id="me", clients=clients, environ={})
        async with rollout, asyncio.timeout(SOON):
            proxy.black_hole(True)
            lost = await rollout.emit("number", 1)
            await until(lambda: not len(rollout._stage.outflow))
            rollout.override("new")
            assert await settled(rollout) == "new"
            await (await rollout.emit("number", 2))
            assert lost.outcome is Outcome.LOST
        assert received == [2]


async def test_old_client_tells_of_silence() -> None:
    """A server that does not answer a dial is told as such; one that acknowledges nothing, by the receipt."""
    async with backend() as (server, token), FaultProxy("127.0.0.1", server.port) as proxy:
        proxy.black_hole(True)
        client = PlainClient(client_config(proxy.url, connection_timeout=0.2), token=token)
        errors: list[str] = []
        client.watch(lambda signal: errors.append(type(signal.error).__name__))
        await client.connect()
        await client.disconnect()
        assert errors == ["ConnectTimeoutError"]
    async with plain_server() as (sio, url):
        sio.on("slow", lambda _: {"no": "answer of the dialect"})
        dialect = Dialect(name="silent", wraps_answers=True)
        given = {"heartbeat_interval": 0.1, "heartbeat_timeout": 0.1}
        told = asyncio.Event()

        async def hang(*_: Any) -> None:
            await told.wait()

        sio.on("mute", hang)
        for event, patience, words in (
            ("slow", SOON, "not of its dialect"),
            ("mute", 0.1, "did not acknowledge it"),
        ):
            config = client_config(url, dialect=dialect, ack_timeout=patience, **given)
            client = PlainClient(config)
            await client.connect()
            async with asyncio.timeout(SOON):
                with pytest.raises(DeliveryError, match=words):
                    await (await client.emit(event))
            await client.disconnect()
        told.set()


async def test_messages_that_another_client_sent_do_not_stay_in_the_outbox(tmp_path: Path) -> None:
    """What the old one took over from a durable outbox is not sent again when the new one comes back."""
    received: list[int] = []
    async with AsyncExitStack() as stack:
        sio, url = await stack.enter_async_context(plain_server())
        sio.on("number", lambda _, n: received.append(n))
        port = int(url.rpartition(":")[2])
        proxy = await stack.enter_async_context(FaultProxy("127.0.0.1", port))
        config = client_config(url, dialect=Dialect.PLAIN)
        durable = client_config(proxy.url, dialect=Dialect.PLAIN, outbox_path=str(tmp_path / "outbox.db"))
        clients = default_clients(config, None) | {"new": lambda: EngineClient(durable)}
        given = settings(implementation="new")
        rollout = Rollout(config, given, client_id="me", clients=clients, environ={})
        async with rollout, asyncio.timeout(SOON):
            proxy.refuse(True)
            proxy.reset_peer()
            await until(lambda: not rollout.is_connected)
            receipts = [await rollout.emit("number", n) for n in range(10)]
            rollout.override("legacy")
            await asyncio.gather(*receipts)
            proxy.refuse(False)
            rollout.override(None)
            assert await settled(rollout) == "new"
            await (await rollout.emit("number", 10))
            await until(lambda: 10 in received)
        assert received == list(range(11))


@pytest.mark.parametrize("implementation", ["legacy", "new"])
async def test_reason_of_a_receipt_is_whole_whatever_the_name_of_the_event(implementation: str) -> None:
    """The reason is the server's, also where the event's name holds what separates the two in an error."""
    async with backend() as (server, token):
        rollout = Rollout(
            client_config(server.url),
            settings(implementation=implementation),
            client_id="me",
            token=token,
            environ={},
        )
        async with rollout, asyncio.timeout(SOON):
            receipt = await rollout.emit("note: a: b")
            with pytest.raises(DeliveryError, match=r"'note: a: b'.*No handler"):
                await receipt
        assert receipt.outcome is Outcome.REFUSED
        assert receipt.reason.startswith("No handler")
        assert receipt.answer is None
