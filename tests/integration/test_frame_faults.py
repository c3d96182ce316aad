"""Faults of single frames, between the whole client and the real backend: all is healed, once."""

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import canary
import pytest
from attrs import define, field

from realtime_fsm import ConnectionStatus, Delivery, Dialect, RealtimeConfig, RealtimeService, StatusChange
from realtime_fsm.server import BackendConfig, Client, WebSocketService
from realtime_fsm.testing.proxy.faults import Direction
from realtime_fsm.testing.proxy.frames import (
    Delay,
    Duplicate,
    Inject,
    Match,
    Pass,
    Reset,
    Rule,
    Swallow,
)
from realtime_fsm.testing.proxy.proxy import FaultProxy

SOON = 20.0
UP, DOWN = Direction.UP, Direction.DOWN
S = ConnectionStatus
DIAL = Match(UP, re.compile(r"^GET /socket\.io/\?(?!.*sid=)"))
POLL = Match(UP, re.compile(r"^GET /socket\.io/.*sid="))
both_transports = pytest.mark.parametrize("transport", ["websocket", "polling"])


@define(eq=False)
class Play:
    """The client, the proxy, the backend, and what they have seen."""

    service: WebSocketService
    proxy: FaultProxy
    client: RealtimeService
    heard: list[int] = field(factory=list)
    effects: list[int] = field(factory=list)
    changes: list[StatusChange] = field(factory=list)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something holds, bounded: it has no event of its own."""
        async with asyncio.timeout(SOON):
            while not condition():  # noqa: ASYNC110 - of what others append to
                await asyncio.sleep(0.005)

    async def happened(self, rule: Rule) -> None:
        """Wait until a rule was used up."""
        await asyncio.wait_for(rule.happened.wait(), SOON)

    async def reconnected(self) -> None:
        """Break the connection, and wait until it was lost and is back."""
        # The HTTP library repeats a GET that was reset, once: polling is lost only if that fails too.
        polls = self.proxy.rule(POLL, Reset(), times=None)
        self.proxy.reset_peer()
        await self.client.wait_for(S.RECONNECTING, timeout=SOON)
        polls.end()
        await self.client.wait_for(S.CONNECTED, timeout=SOON)

    def publish(self, *numbers: int) -> None:
        """Publish events."""
        for n in numbers:
            self.service.publish("ticks", "tick", {"n": n})


@asynccontextmanager
async def play(transport: str = "websocket", **settings: Any) -> AsyncIterator[Play]:
    """Set everything up: connected and subscribed; ``note`` gives each of its effects a number of its own."""
    numbers = itertools.count(100)
    async with (
        WebSocketService(BackendConfig(port=0, secret=canary.SIGNING)) as service,
        FaultProxy("127.0.0.1", service.port, frames=True) as proxy,
    ):
        defaults: dict[str, Any] = {
            "dialect": Dialect.REFERENCE,
            "transports": (transport,),
            "stable_after": 0.0,
            "first_retry_within": 0.05,
            "backoff_base": 0.05,
            "backoff_maximum": 0.2,
            "reconnect_interval": 0.1,
            "fallback_polling_interval": 0.1,
        }
        config = RealtimeConfig(server_url=proxy.url, **{**defaults, **settings})
        client = RealtimeService(config, token=canary.jwt())
        stage = Play(service, proxy, client)

        def note(_: Client, data: dict[str, int]) -> int:
            """Take effect, and answer with something that no other effect is answered with."""
            stage.effects.append(data["n"])
            return next(numbers)

        service.on("note", note)
        client.on("tick", lambda data: stage.heard.append(data["n"]))
        client.connection_status.subscribe(stage.changes.append)
        async with client:
            await client.subscribe(["ticks"])
            stage.publish(1)
            await stage.until(lambda: stage.heard == [1])
            yield stage


async def soon(waited_for: Awaitable[Any]) -> Any:
    """Wait, bounded."""
    return await asyncio.wait_for(waited_for, SOON)


@both_transports
async def test_frame_swallowed_ack_gives_one_effect_and_the_first_answer(transport: str) -> None:
    """A message whose ack is lost is sent again after the loss, takes effect once, with its first answer."""
    async with play(transport) as stage:
        rule = stage.proxy.rule(Match(DOWN, re.compile(r'^43\d+\[.*"answer"')), Swallow())
        receipt = await stage.client.emit("note", {"n": 1}, delivery=Delivery.EXACTLY_ONCE)
        await stage.happened(rule)
        await stage.reconnected()
        assert await soon(receipt) == 100
        assert stage.effects == [1]
        assert len(stage.proxy.log.matching(Match(UP, '42["note"'))) == 2


@both_transports
async def test_frame_swallowed_message_is_sent_again_after_the_loss(transport: str) -> None:
    """A message that never reached the server does so after the loss, before those that came later."""
    async with play(transport, max_in_flight=1) as stage:
        rule = stage.proxy.rule(Match(UP, '42["note"'), Swallow())
        receipts = [
            await stage.client.emit("note", {"n": n}, delivery=Delivery.EXACTLY_ONCE) for n in (1, 2, 3)
        ]
        await stage.happened(rule)
        assert stage.effects == []
        await stage.reconnected()
        assert [await soon(receipt) for receipt in receipts] == [100, 101, 102]
        assert stage.effects == [1, 2, 3]


@both_transports
async def test_frame_duplicated_message_takes_effect_once(transport: str) -> None:
    """A message that reaches the server twice takes effect once, and the second ack does no harm."""
    async with play(transport) as stage:
        rule = stage.proxy.rule(Match(UP, '42["note"'), Duplicate())
        assert await soon(stage.client.call("note", {"n": 1})) == 100
        await stage.happened(rule)
        assert await soon(stage.client.call("note", {"n": 2})) == 101
        assert stage.effects == [1, 2]
        assert stage.client.status is S.CONNECTED


@both_transports
async def test_frame_duplicated_event_is_heard_once(transport: str) -> None:
    """A published event that arrives twice is heard once, and so is what follows."""
    async with play(transport) as stage:
        rule = stage.proxy.rule(Match(DOWN, '42["tick"'), Duplicate(), times=2)
        stage.publish(2, 3, 4)
        await stage.happened(rule)
        await stage.until(lambda: len(stage.heard) >= 4)
        stage.publish(5)
        await stage.until(lambda: 5 in stage.heard)
        assert stage.heard == [1, 2, 3, 4, 5]
        assert stage.client.status is S.CONNECTED


@both_transports
async def test_frame_swallowed_event_is_replayed(transport: str) -> None:
    """The gap that a lost event leaves is seen at the next one, and healed by a replay, in order."""
    async with play(transport) as stage:
        rule = stage.proxy.rule(Match(DOWN, '42["tick"'), Swallow())
        stage.publish(2)
        await stage.happened(rule)
        assert stage.heard == [1]
        stage.publish(3, 4)
        await stage.until(lambda: len(stage.heard) >= 4)
        assert stage.heard == [1, 2, 3, 4]
        assert stage.client.metrics.losses == 0


@both_transports
async def test_frame_swallowed_event_is_replayed_after_a_loss(transport: str) -> None:
    """A lost event after which nothing came is replayed when the connection is back."""
    async with play(transport) as stage:
        rule = stage.proxy.rule(Match(DOWN, '42["tick"'), Swallow())
        stage.publish(2)
        await stage.happened(rule)
        await stage.reconnected()
        await stage.until(lambda: stage.heard == [1, 2])


@both_transports
async def test_frame_delayed_event_keeps_its_place(transport: str) -> None:
    """An event that is late is heard late, and not overtaken."""
    async with play(transport) as stage:
        loop = asyncio.get_running_loop()
        began = loop.time()
        stage.proxy.rule(Match(DOWN, re.compile('"n":2')), Delay(0.15))
        stage.publish(2, 3)
        await stage.until(lambda: len(stage.heard) >= 3)
        assert loop.time() - began >= 0.15
        assert stage.heard == [1, 2, 3]


@both_transports
async def test_frame_second_dial_refused_is_retried(transport: str) -> None:
    """A reconnect whose first dial is refused goes on to the next one, and loses nothing."""
    async with play(transport) as stage:
        rule = stage.proxy.rule(DIAL, Reset())
        losing = asyncio.ensure_future(stage.reconnected())
        await stage.happened(rule)
        receipt = await stage.client.emit("note", {"n": 1}, delivery=Delivery.EXACTLY_ONCE)
        stage.publish(2)
        await soon(losing)
        assert await soon(receipt) == 100
        await stage.until(lambda: stage.heard == [1, 2])
        assert [entry.action for entry in stage.proxy.log.matching(DIAL)] == [
            "passed",
            "reset",
            "passed",
        ]
        assert stage.client.metrics.failed_connections == 1
        assert stage.effects == [1]


@both_transports
@pytest.mark.parametrize("packet", ["42[", "4", "42{}", "9nonsense", '42["tick"', "hello"])
async def test_frame_malformed_is_counted_and_harmless(transport: str, packet: str) -> None:
    """A malformed frame is counted; what comes before and after it is heard, on the same connection."""
    async with play(transport) as stage:
        stage.proxy.rule(Match(DOWN, '42["tick"'), Inject(packet))
        stage.publish(2, 3)
        await stage.until(lambda: stage.heard == [1, 2, 3])
        assert stage.client.metrics.malformed_frames == 1
        assert stage.client.metrics.losses == 0


@both_transports
async def test_frame_injected_event_is_heard_before_or_after(transport: str) -> None:
    """An event that is injected is heard like any other, at the place where it was put."""
    async with play(transport) as stage:
        packet = '42["tick",{"n":77}]'
        stage.proxy.rule(Match(DOWN, re.compile('"n":2')), Inject(packet, is_before=True))
        stage.proxy.rule(Match(DOWN, re.compile('"n":3')), Inject(packet.replace("77", "78")))
        stage.publish(2, 3, 4)
        await stage.until(lambda: 4 in stage.heard)
        assert stage.heard == [1, 77, 2, 3, 78, 4]


async def test_frame_injected_message_from_the_client_is_handled() -> None:
    """A message that is injected on the way up reaches the server, masked as it must be."""
    async with play() as stage:
        stage.proxy.rule(Match(UP, '42["note"'), Inject('42["note",{"n":9}]', is_before=True))
        assert await soon(stage.client.call("note", {"n": 1})) == 101
        assert stage.effects == [9, 1]


async def test_frame_duplicated_request_takes_effect_once() -> None:
    """In FALLBACK, messages whose request reaches the server twice take effect once, and are answered."""
    async with play() as stage:
        rule = stage.proxy.rule(Match(UP, "POST /realtime/messages"), Duplicate())
        stage.client.force_fallback()
        await stage.client.wait_for(S.FALLBACK, timeout=SOON)
        assert await soon(stage.client.call("note", {"n": 1})) == 100
        await stage.happened(rule)
        assert await soon(stage.client.call("note", {"n": 2})) == 101
        assert stage.effects == [1, 2]


async def test_frame_refused_publication_is_repeated_and_takes_effect_once() -> None:
    """In FALLBACK, a request that is refused is made again."""
    async with play() as stage:
        rule = stage.proxy.rule(Match(UP, "POST /realtime/messages"), Reset())
        stage.client.force_fallback()
        await stage.client.wait_for(S.FALLBACK, timeout=SOON)
        assert await soon(stage.client.call("note", {"n": 1})) == 100
        await stage.happened(rule)
        assert stage.effects == [1]


async def test_frame_log_shows_what_passed_and_no_token() -> None:
    """The log tells frames and requests in their order, and what was done; tokens are taken out."""
    async with play() as stage:
        rule = stage.proxy.rule(Match(UP, '42["note"'), Pass(), times=None, skip=1)
        for n in (1, 2, 3):
            await soon(stage.client.call("note", {"n": n}))
        assert (rule.applied, rule.skip) == (2, 0)
        log = stage.proxy.log
        texts = [entry.text for entry in log]
        assert len(log) == len(texts)
        order = [
            next(i for i, text in enumerate(texts) if text.startswith(start))
            for start in ("GET /socket.io/", "0{", "40{", "42")
        ]
        assert order == sorted(order)
        assert len(log.matching(Match(UP, '42["note"'), "passed")) == 3
        assert log.matching(Match(DOWN, '42["note"')) == []
        assert log.matching(Match(UP, '42["note"'), "swallow") == []
        assert canary.found_in(*map(repr, log)) == []
        assert "***" in next(text for text in texts if text.startswith("40{"))
        with pytest.raises(RuntimeError, match="frames=True"):
            FaultProxy("127.0.0.1", 1).rule(DIAL, Reset())


@both_transports
async def test_frame_rules_hold_however_the_bytes_are_cut(transport: str) -> None:
    """With everything in segments of a few bytes, on both sides of the proxy, rules and log work the same."""
    async with play(transport) as stage, FaultProxy("127.0.0.1", stage.proxy.port) as before:
        before.slicer(5, size_variation=4)
        rule = stage.proxy.rule(Match(UP, '42["note"'), Duplicate(), times=None)
        config = RealtimeConfig(server_url=before.url, dialect=Dialect.REFERENCE, transports=(transport,))
        async with FaultProxy("127.0.0.1", stage.service.port) as behind:
            behind.slicer(5, size_variation=4)
            stage.proxy.set_target("127.0.0.1", behind.port)
            async with RealtimeService(config, token=canary.jwt("sliced")) as client:
                answers = [await soon(client.call("note", {"n": n})) for n in range(20)]
        assert answers == list(range(100, 120))
        assert rule.applied == 20
        assert stage.effects == list(range(20))


async def test_frame_rules_read_websockets_that_would_be_compressed() -> None:
    """A client that offers compression has it without the proxy; through it, frames stay readable."""
    async with play() as stage, aiohttp.ClientSession() as http:
        compressed = {}
        for name, url in (
            ("direct", f"http://127.0.0.1:{stage.service.port}"),
            ("proxied", stage.proxy.url),
        ):
            target = f"{url}/socket.io/?EIO=4&transport=websocket"
            async with http.ws_connect(target, compress=15) as websocket:
                compressed[name] = websocket.compress != 0
                assert (await soon(websocket.receive_str())).startswith("0{")
                await websocket.send_str("40" + "{}" + " " * 200)
                assert (await soon(websocket.receive_str())).startswith("44")
        assert compressed == {"direct": True, "proxied": False}
        assert len(stage.proxy.log.matching(Match(UP, "40{}"))) == 1
        assert len(stage.proxy.log.matching(Match(DOWN, "44"))) == 1


@both_transports
async def test_frame_rules_read_and_change_long_packets(transport: str) -> None:
    """Packets that HTTP would compress, and those longer than any read, are matched and left as they are."""
    async with play(transport) as stage:
        heard: list[str] = []
        stage.client.on("long", heard.append)
        texts = ["x" * 2_000, "y" * 70_000, "\u20ac" * 100_000]
        rule = stage.proxy.rule(Match(DOWN, '42["long"'), Duplicate(), times=None)
        for text in texts:
            stage.service.publish("ticks", "long", text)
        await stage.until(lambda: len(heard) >= 3)
        stage.publish(2)
        await stage.until(lambda: 2 in stage.heard)
        assert heard == texts
        assert rule.applied == 3
