import asyncio
import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import canary
import pytest
import socketio
from aiohttp import web
from engineio.payload import Payload

from realtime_fsm import RealtimeConfig, RealtimeService
from realtime_fsm.adapters.library_check import make_client
from realtime_fsm.machine.errors import ClosedError, ConfigurationError, InvalidArgumentError
from realtime_fsm.server import BackendConfig, Client, MemoryLedger, Stamp, WebSocketService

SECRET = canary.SIGNING
BOUND = 8.0

RunAsync = Callable[..., Any]


@pytest.fixture(autouse=True)
def unlimited_packets() -> Iterator[None]:
    """The backend raises a process-wide limit of the library; put it back for the other tests."""
    before = Payload.max_decode_packets
    yield
    Payload.max_decode_packets = before


def token(subject: str = "ann", lifetime: float = 60.0, **claims: Any) -> str:
    """Return a valid token."""
    return canary.jwt(subject, lifetime, **claims)


def backend(**options: Any) -> WebSocketService:
    """Return a service that is not started."""
    given = {name: options.pop(name, None) for name in ("authorize_channel", "ledger")}
    config = BackendConfig(port=0, secret=SECRET, **options)
    return WebSocketService(config, **given)


class Peer:
    """A plain Socket.IO client that notes what it gets, in order."""

    def __init__(self, service: WebSocketService) -> None:
        self.service = service
        self.sio = make_client()
        self.seen: list[tuple[Any, ...]] = []
        self.refusals: list[Any] = []
        self.changed = asyncio.Event()
        self.gone = asyncio.Event()
        self.sio.on("*", self._event)
        self.sio.on("disconnect", self._gone)
        self.sio.on("connect_error", lambda *args: self.refusals.append(args[0] if args else None))

    def _event(self, name: str, *args: Any) -> None:
        self.seen.append((name, *args))
        self.changed.set()

    def _gone(self, *_: Any) -> None:
        self.gone.set()

    async def connect(self, auth: Any, transports: tuple[str, ...] = ("websocket",)) -> None:
        """Connect, or raise."""
        await self.sio.connect(self.service.url, auth=auth, transports=list(transports), wait_timeout=5)

    async def ask(self, event: str, *args: Any) -> Any:
        """Emit an event, and return its acknowledgement."""
        return await self.sio.call(event, args, timeout=BOUND)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something holds of what was seen."""
        async with asyncio.timeout(BOUND):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    def offsets(self, channel: str) -> list[int]:
        """Return the offsets that came from a channel, in order."""
        return [seen[-1]["offset"] for seen in self.seen if seen[-1]["channel"] == channel]


@asynccontextmanager
async def peer(
    service: WebSocketService, auth: Any = ..., transports: tuple[str, ...] = ("websocket",)
) -> AsyncIterator[Peer]:
    """Connect a client, by default with a valid token; disconnect it at the end."""
    one = Peer(service)
    try:
        await one.connect({"token": token()} if auth is ... else auth, transports)
        yield one
    finally:
        await one.sio.eio.disconnect(abort=True)
        await one.sio.disconnect()
        loops = [one.sio.eio.read_loop_task, one.sio.eio.write_loop_task]
        left = {task for task in loops if task is not None}
        for task in left:  # a polling client that was told goodbye keeps them for half a minute
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=BOUND)


@asynccontextmanager
async def http(bearer: str | None = None) -> AsyncIterator[aiohttp.ClientSession]:
    """Open an HTTP client."""
    headers = {} if bearer is None else {"Authorization": f"Bearer {bearer}"}
    async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=BOUND)) as session:
        yield session


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait, bounded, for something that no event tells of."""
    async with asyncio.timeout(BOUND):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.01)


def unsigned(header: dict[str, Any], claims: dict[str, Any]) -> str:
    """Return a token without a signature."""
    import base64  # noqa: PLC0415

    parts = [base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=").decode() for p in (header, claims)]
    return ".".join([*parts, ""])


# Identity


def test_connect_without_a_valid_token_is_refused_with_its_code(run_async: RunAsync) -> None:
    """A CONNECT without a valid token is refused with the code that says why."""
    good = {"sub": "ann", "exp": time.time() + 60}
    cases = [
        (None, "token_missing"),
        ({}, "token_missing"),
        ({"token": ""}, "token_missing"),
        ("text", "token_missing"),
        ({"token": canary.token()}, "token_invalid"),
        ({"token": 7}, "token_invalid"),
        ({"token": unsigned({"alg": "none", "typ": "JWT"}, good)}, "token_invalid"),
        ({"token": canary.jwt("ann", 60, signing="x" * 32)}, "token_invalid"),
        ({"token": token(lifetime=-1)}, "token_expired"),
        ({"token": "W" + "1tb" * 2000 + ".e30.x"}, "token_invalid"),
    ]

    async def main() -> None:
        async with backend() as service:
            for auth, code in cases:
                one = Peer(service)
                with pytest.raises(socketio.exceptions.ConnectionError):
                    await one.connect(auth)
                await one.sio.eio.disconnect(abort=True)
                refusal = one.refusals[0]
                assert refusal["data"] == {"category": "authentication", "code": code, "retry_after": None}
                assert refusal["message"]
                await asyncio.sleep(0)

    run_async(main())


def test_connect_beyond_max_clients_is_refused_as_unavailable(run_async: RunAsync) -> None:
    """A full server refuses as unavailable, and says when to come again."""

    async def main() -> None:
        async with backend(max_clients=1) as service, peer(service):
            second = Peer(service)
            with pytest.raises(socketio.exceptions.ConnectionError):
                await second.connect({"token": token()})
            await second.sio.eio.disconnect(abort=True)
            data = second.refusals[0]["data"]
            assert (data["category"], data["code"]) == ("connection", "unavailable")
            assert data["retry_after"] > 0

    run_async(main())


def test_expired_session_is_disconnected_within_a_second(run_async: RunAsync) -> None:
    """A session ends within a second of its token's expiry, and not before it."""

    async def main() -> None:
        async with backend() as service:
            expires = time.time() + 1.0
            async with peer(service, {"token": token(lifetime=1.0)}) as one:
                async with asyncio.timeout(BOUND):
                    await one.gone.wait()
                assert expires <= time.time() + 0.05
                assert time.time() <= expires + 1.0

    run_async(main())


def test_reauthenticate_moves_the_expiry(run_async: RunAsync) -> None:
    """A new token of the same subject keeps the session; a bad one, or another's, changes nothing."""

    async def main() -> None:
        async with backend() as service, peer(service, {"token": token(lifetime=1.0)}) as one:
            for bad, code in (
                ({"token": canary.token()}, "token_invalid"),
                ({"token": token("bob")}, "token_invalid"),
                ({"token": token(lifetime=-1)}, "token_expired"),
                ({}, "token_missing"),
                ("text", "token_missing"),
            ):
                answer = await one.ask("reauthenticate", bad)
                assert answer["ok"] is False
                assert (answer["error"]["category"], answer["error"]["code"]) == ("authentication", code)
            until = time.time() + 60
            answer = await one.ask("reauthenticate", {"token": token(lifetime=60)})
            assert answer["ok"] is True
            assert answer["expires_at"] == pytest.approx(until, abs=2)
            async with peer(service, {"token": token(lifetime=1.0)}) as other:  # ends when one would have
                async with asyncio.timeout(BOUND):
                    await other.gone.wait()
            assert await one.ask("heartbeat") == {"ok": True}

    run_async(main())


def test_events_named_like_the_library_s_own_do_not_reach_its_handlers(run_async: RunAsync) -> None:
    """A client that emits connect or disconnect as events changes nothing, and is told so."""

    async def main() -> None:
        async with backend() as service, peer(service) as one:
            await one.ask("subscribe", {"channels": ["a"]})
            for name in ("connect", "disconnect"):
                answer = await one.ask(name, "made up", {"token": token("bob")})
                assert answer["ok"] is False
            service.publish("a", "x", 1)
            await one.until(lambda: len(one.seen) == 1)

    run_async(main())


# Channels


def test_heartbeat_is_answered(run_async: RunAsync) -> None:
    """A heartbeat is acknowledged over either transport."""

    async def main() -> None:
        async with backend() as service:
            for transports in (("websocket",), ("polling",), ("polling", "websocket")):
                async with peer(service, transports=transports) as one:
                    assert await one.ask("heartbeat") == {"ok": True}

    run_async(main())


def test_heartbeat_overtakes_a_slow_handler(run_async: RunAsync) -> None:
    """A handler that is slow does not make its client look dead."""

    async def main() -> None:
        release = asyncio.Event()

        async def slow(_: Any) -> None:
            await release.wait()

        async with backend() as service, peer(service) as one:
            service.on("slow", slow)
            answer = asyncio.create_task(one.ask("slow"))
            assert await one.ask("heartbeat") == {"ok": True}
            assert (await one.ask("subscribe", {"channels": ["a"]}))["ok"] is True
            assert not answer.done()
            release.set()
            assert await answer == {"ok": True, "answer": None}

    run_async(main())


def test_publish_reaches_subscribers_only(run_async: RunAsync) -> None:
    """An event goes to who is subscribed to its channel, with its place, and to nobody else."""

    async def main() -> None:
        async with backend() as service, peer(service) as one, peer(service) as other:
            answer = await one.ask("subscribe", {"channels": ["a"]})
            place = answer["channels"]["a"]
            assert place["ok"] is True
            assert place["recovered"] is True
            assert place["offset"] == 0
            assert (await other.ask("subscribe", {"channels": ["b"]}))["channels"]["b"]["ok"] is True
            position = service.publish("a", "tick", {"n": 1})
            service.publish("b", "tock", "ü")
            await one.until(lambda: bool(one.seen))
            await other.until(lambda: bool(other.seen))
            assert position.offset == 1
            assert one.seen == [("tick", {"n": 1}, {"channel": "a", "epoch": place["epoch"], "offset": 1})]
            assert [seen[:2] for seen in other.seen] == [("tock", "ü")]

    run_async(main())


def test_unsubscribe_ends_the_events(run_async: RunAsync) -> None:
    """After unsubscribing from a channel or a booking nothing of it comes."""

    async def main() -> None:
        async with backend() as service, peer(service) as one:
            await one.ask("subscribe", {"channels": ["a", "b"]})
            answer = await one.ask("monitor_bookings", {"booking_ids": ["42"]})
            assert answer["channels"]["booking:42"]["ok"] is True
            service.publish("booking:42", "booking_updated", {"id": "42"})
            await one.until(lambda: bool(one.seen))
            assert await one.ask("unsubscribe", {"channels": ["a", "booking:42", "never"]}) == {"ok": True}
            for channel in ("a", "booking:42", "b"):
                service.publish(channel, "late", None)
            await one.until(lambda: one.offsets("b") == [1])
            assert one.offsets("a") == []
            assert one.offsets("booking:42") == [1]

    run_async(main())


def test_subscribe_replays_what_was_missed_before_the_acknowledgement(run_async: RunAsync) -> None:
    """The events after a position come, in order, before the acknowledgement."""

    async def main() -> None:
        async with backend(log_size=5) as service, peer(service) as one:
            epoch = service.publish("a", "x", 1).epoch
            for n in range(2, 11):
                service.publish("a", "x", n)
            for offset, recovered, replayed in (
                (7, True, [8, 9, 10]),
                (5, True, [6, 7, 8, 9, 10]),
                (10, True, []),
                (4, False, []),
                (0, False, []),
                (11, False, []),
            ):
                one.seen.clear()
                body = {"channels": ["a"], "positions": {"a": {"epoch": epoch, "offset": offset}}}
                answer = await one.ask("subscribe", body)
                place = {"ok": True, "epoch": epoch, "offset": 10, "recovered": recovered}
                assert answer == {"ok": True, "channels": {"a": place}}
                assert one.offsets("a") == replayed
                assert [seen[1] for seen in one.seen] == replayed
            body = {"channels": ["a"], "positions": {"a": {"epoch": "other", "offset": 7}}}
            assert (await one.ask("subscribe", body))["channels"]["a"]["recovered"] is False

    run_async(main())


def test_live_events_never_overtake_a_replay(run_async: RunAsync) -> None:
    """While another task publishes without pause, offsets rise by one through replay, ack and live."""

    async def main() -> None:
        async def authorize(*_: Any) -> bool:
            await asyncio.sleep(0)
            return True

        async with backend(authorize_channel=authorize) as service, peer(service) as one:
            epoch = service.publish("a", "x", 1).epoch
            budget = 0  # so that no round publishes more than the log holds

            async def flood() -> None:
                nonlocal budget
                while budget >= 0:
                    if budget:
                        budget -= 1
                        service.publish("a", "x", None)
                    await asyncio.sleep(0)

            flooding = asyncio.create_task(flood())
            last, live = 1, 0
            for _ in range(10):
                budget = 400
                body = {"channels": ["a"], "positions": {"a": {"epoch": epoch, "offset": last}}}
                place = (await one.ask("subscribe", body))["channels"]["a"]
                assert place["recovered"] is True
                assert one.offsets("a")[-1] >= place["offset"]  # the replay came first
                await one.ask("heartbeat")
                await one.ask("unsubscribe", {"channels": ["a"]})
                live += one.offsets("a")[-1] - place["offset"]
                last = one.offsets("a")[-1]
            budget = -1
            await flooding
            assert live > 0  # there was something that could have overtaken
            assert one.offsets("a") == list(range(2, last + 1))

    run_async(main())


def test_channels_that_cannot_be_had_are_refused_one_by_one(run_async: RunAsync) -> None:
    """A refused channel says why, and the others of the request are subscribed."""

    async def main() -> None:
        def authorize(who: Any, channel: str) -> bool:
            if channel == "broken":
                raise RuntimeError("secret detail")
            return channel != "private"

        async with (
            backend(authorize_channel=authorize, max_channels_per_client=3) as service,
            peer(service) as one,
        ):
            names = ["a", "", "private", "x" * 201, "b", "a", "c", "d"]
            channels = (await one.ask("subscribe", {"channels": names}))["channels"]
            codes = {n[:9]: "ok" if c["ok"] else c["error"]["code"] for n, c in channels.items()}
            assert codes == {
                "a": "ok",
                "": "invalid_channel",
                "private": "channel_forbidden",
                "x" * 9: "invalid_channel",
                "b": "ok",
                "c": "ok",
                "d": "too_many_channels",
            }
            assert (await one.ask("subscribe", {"channels": ["a"]}))["channels"]["a"]["ok"] is True
            for body in ({"channels": [7]}, {"channels": "a"}, {}, None, {"channels": [None]}):
                answer = await one.ask("subscribe", body)
                assert (answer["ok"], answer["error"]["code"]) == (False, "invalid_channel")
            await one.ask("unsubscribe", {"channels": ["c"]})
            broken = (await one.ask("subscribe", {"channels": ["broken"]}))["channels"]["broken"]
            assert broken["ok"] is False
            assert "secret detail" not in json.dumps(broken)
            bad = {"channels": ["a"], "positions": {"a": {"epoch": 1, "offset": True}}}
            assert (await one.ask("subscribe", bad))["channels"]["a"]["error"]["code"] == "invalid_position"

    run_async(main())


def test_slow_reader_is_disconnected(run_async: RunAsync) -> None:
    """A client that does not read is cut off, instead of being kept in memory for ever."""

    async def main() -> None:
        service = backend(log_size=10, max_pending_events=50)
        async with service, peer(service) as quick, http() as session:
            await quick.ask("subscribe", {"channels": ["small"]})
            url = f"{service.url}/socket.io/?EIO=4&transport=websocket"
            async with session.ws_connect(url) as ws:
                await ws.receive_str()
                await ws.send_str("40" + json.dumps({"token": token()}))
                await ws.receive_str()
                await ws.send_str('420["subscribe",{"channels":["big"]}]')
                assert json.loads((await ws.receive_str())[3:])[0]["channels"]["big"]["ok"] is True
                assert ws._response.connection is not None
                ws._response.connection.transport.pause_reading()
                lost = asyncio.Event()
                data = "x" * 100_000

                async def flood() -> None:
                    while len(service._sessions) > 1:
                        service.publish("big", "x", data)
                        await asyncio.sleep(0)
                    lost.set()

                async with asyncio.timeout(BOUND):
                    await flood()
                assert lost.is_set()
                service.publish("small", "x", 1)
                await quick.until(lambda: quick.offsets("small") == [1])
                await eventually(lambda: len(service._server.eio.sockets) == 1)
                await eventually(lambda: len(service._server.eio._open) == 1)
                ws._response.connection.transport.resume_reading()

    run_async(main())


# Messages


def test_application_events_are_answered(run_async: RunAsync) -> None:
    """A handler's answer, its failure, and a missing handler each have their own answer."""

    async def main() -> None:
        seen: list[Any] = []

        async with backend() as service, peer(service) as one, http(token()) as session:

            @service.on("note")
            def note(client: Any, *args: Any) -> Any:
                seen.append((client.subject, client.message_id, args))
                return {"n": len(args)}

            @service.on("later")
            async def later(client: Any, value: int) -> int:
                await asyncio.sleep(0)
                return value + 1

            service.on("boom", lambda _: 1 / 0)
            service.on("nan", lambda _: float("nan"))
            service.on("object", lambda _: object())

            async def by_socket(event: str, args: list[Any], message_id: str | None) -> Any:
                extra = [] if message_id is None else [{"message_id": message_id}]
                return await one.ask(event, *args, *extra)

            async def by_http(event: str, args: list[Any], message_id: str | None) -> Any:
                body = {"messages": [{"message_id": message_id, "event": event, "args": args}]}
                async with session.post(f"{service.url}/realtime/messages", json=body) as response:
                    assert response.status == 200
                    (result,) = (await response.json())["results"]
                    assert result.pop("message_id") == message_id
                    return result

            for way in (by_socket, by_http):
                seen.clear()
                assert await way("note", [{"a": 1}], "m1") == {"ok": True, "answer": {"n": 1}}
                assert await way("note", [], "m2") == {"ok": True, "answer": {"n": 0}}
                assert await way("note", [1, 2], None) == {"ok": True, "answer": {"n": 2}}
                assert seen == [("ann", "m1", ({"a": 1},)), ("ann", "m2", ()), ("ann", None, (1, 2))]
                assert await way("later", [1], None) == {"ok": True, "answer": 2}
                for event in ("boom", "nan", "object"):
                    answer = await way(event, [], None)
                    assert answer["ok"] is False
                    error = answer["error"]
                    assert (error["category"], error["code"]) == ("application", "handler_failed")
                    assert "division" not in error["message"]
                assert (await way("nobody", [], None))["error"]["code"] == "unknown_event"

    run_async(main())


def test_messages_of_a_client_are_handled_in_order(run_async: RunAsync) -> None:
    """However long a handler awaits, the client's next message waits for it; another client's does not."""

    async def main() -> None:
        log: list[Any] = []
        release = asyncio.Event()

        async def note(client: Any, n: int) -> int:
            log.append(("begin", client.subject, n))
            if client.subject == "ann" and n == 0:
                await release.wait()
            await asyncio.sleep(0)
            log.append(("end", client.subject, n))
            return n

        async with backend() as service, peer(service) as ann, peer(service, {"token": token("bob")}) as bob:
            service.on("note", note)
            answers = [asyncio.create_task(ann.ask("note", n)) for n in range(20)]
            assert await bob.ask("note", 0) == {"ok": True, "answer": 0}
            release.set()
            assert [(await a)["answer"] for a in answers] == list(range(20))
            of_ann = [(what, n) for what, who, n in log if who == "ann"]
            assert of_ann == [(what, n) for n in range(20) for what in ("begin", "end")]

    run_async(main())


def test_http_messages_wait_for_those_of_the_lost_socket(run_async: RunAsync) -> None:
    """What a client publishes over HTTP is handled after what it had sent over its lost socket."""

    async def main() -> None:
        log: list[Any] = []
        begun, release = asyncio.Event(), asyncio.Event()

        async def note(_: Any, n: int) -> None:
            begun.set()
            await release.wait()
            log.append(n)

        async with backend() as service:
            service.on("note", note)
            async with peer(service) as one:
                for n in range(3):
                    await one.sio.emit("note", n)
                async with asyncio.timeout(BOUND):
                    await begun.wait()
                assert await one.ask("heartbeat") == {"ok": True}  # so that all three have arrived
            async with http(token()) as session:
                body = {"messages": [{"message_id": "m", "event": "note", "data": 3}]}
                posting = asyncio.create_task(session.post(f"{service.url}/realtime/messages", json=body))
                await asyncio.sleep(0.05)  # long enough for a wrong server to handle it
                release.set()
                (await posting).release()
            assert log == [0, 1, 2, 3]

    run_async(main())


def test_handler_that_takes_too_long_is_ended(run_async: RunAsync) -> None:
    """A handler that never ends is cancelled, and the client's next message is handled."""

    async def main() -> None:
        async def hang(_: Any) -> None:
            await asyncio.Event().wait()

        async with backend(handler_timeout=0.1) as service, peer(service) as one:
            service.on("hang", hang)
            service.on("ok", lambda _: 1)
            assert (await one.ask("hang"))["error"]["code"] == "handler_timeout"
            assert await one.ask("ok") == {"ok": True, "answer": 1}

    run_async(main())


def test_client_with_too_many_waiting_messages_is_disconnected(run_async: RunAsync) -> None:
    """A client that floods a slow handler is disconnected, and its waiting messages stay bounded."""

    async def main() -> None:
        async def hang(_: Any) -> None:
            await asyncio.Event().wait()

        async with backend(max_pending_messages=5, close_timeout=1.0) as service, peer(service) as one:
            service.on("hang", hang)
            for _ in range(10):
                await one.sio.emit("hang")
            async with asyncio.timeout(BOUND):
                await one.gone.wait()

    run_async(main())


def test_polling_keeps_bursts_and_large_messages(run_async: RunAsync) -> None:
    """Over polling neither a burst of messages nor a large one is lost."""

    async def main() -> None:
        async with backend() as service, peer(service, transports=("polling",)) as one:
            got: list[Any] = []
            service.on("n", lambda _, n: got.append(n))
            service.on("size", lambda _, text: len(text))
            for n in range(40):
                await one.sio.emit("n", n)
            assert await one.ask("size", "x" * 700_000) == {"ok": True, "answer": 700_000}
            await eventually(lambda: len(got) == 40)
            assert got == list(range(40))

    run_async(main())


def test_on_refuses_names_that_cannot_be_handled(run_async: RunAsync) -> None:
    """A handler cannot be registered for a reserved name, the backend's own, or one that has a handler."""
    service = backend()
    service.on("mine", print)
    for name in ("connect", "heartbeat", "subscribe", "", "mine"):
        with pytest.raises(InvalidArgumentError):
            service.on(name, print)


def test_publish_refuses_what_cannot_be_sent(run_async: RunAsync) -> None:
    """What is not JSON, too large, or for no channel is refused, and nothing is logged of it."""
    service = backend(max_message_bytes=2048)
    first = service.publish("a", "x", 1)
    for channel, event, data in (
        ("a", "x", float("nan")),
        ("a", "x", b"binary"),
        ("a", "x", "y" * 3000),
        ("a", "connect", 1),
        (" ", "x", 1),
        (None, "x", 1),
    ):
        with pytest.raises(InvalidArgumentError):
            service.publish(channel, event, data)  # type: ignore[arg-type]
    assert service.publish("a", "x", 2).offset == first.offset + 1


def test_position_is_where_a_channel_stands(run_async: RunAsync) -> None:
    """Who subscribes from the place that came with a snapshot gets what was published after it, no more."""

    async def main() -> None:
        async with backend() as service, peer(service) as one:

            @service.on("load")
            def load(_: Client) -> Any:
                place = service.position("a")
                return {"snapshot": list(published), "epoch": place.epoch, "offset": place.offset}

            published: list[int] = []

            def publish(n: int) -> None:
                published.append(n)
                service.publish("a", "x", n)

            assert service.position("a").offset == 0
            for n in range(3):
                publish(n)
            loaded = (await one.ask("load"))["answer"]
            assert loaded.pop("snapshot") == [0, 1, 2]
            publish(3)
            await one.ask("subscribe", {"channels": ["a"], "positions": {"a": loaded}})
            assert [seen[1] for seen in one.seen] == [3]
            with pytest.raises(InvalidArgumentError):
                service.position(" ")

    run_async(main())


# Exactly once


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


def test_message_whose_acknowledgement_was_lost_takes_effect_once(
    ledger: dict[str, Any], run_async: RunAsync
) -> None:
    """Sent again over a new connection, or over HTTP, it gets the first answer and has no second effect."""

    async def main() -> None:
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

    run_async(main())


def test_batch_over_http_takes_effect_once(ledger: dict[str, Any], run_async: RunAsync) -> None:
    """A batch that is posted again, with more at its end, has the effects of what is new alone."""

    async def main() -> None:
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

    run_async(main())


def test_message_without_a_number_is_no_duplicate(run_async: RunAsync) -> None:
    """A message with nothing but an id is handled each time: at least once is what its sender asked for."""

    async def main() -> None:
        effects: list[int] = []
        async with backend() as service, peer(service) as one:
            service.on("add", lambda _, n: effects.append(n))
            for _ in range(2):
                assert await one.ask("add", 1, {"message_id": "m"}) == {"ok": True, "answer": None}
            for _ in range(2):
                await post(service, {"event": "add", "data": 2, "message_id": "m"})
            assert effects == [1, 1, 2, 2]

    run_async(main())


def test_subject_cannot_suppress_another_one_s_messages(ledger: dict[str, Any], run_async: RunAsync) -> None:
    """A client that claims another subject's client id, and high numbers, changes nothing for it."""

    async def main() -> None:
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

    run_async(main())


def test_refusal_that_was_lost_is_repeated(ledger: dict[str, Any], run_async: RunAsync) -> None:
    """A refused message that is sent again is refused again, even after later ones have taken effect."""

    async def main() -> None:
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

    run_async(main())


def test_malformed_envelope_reaches_no_handler(run_async: RunAsync) -> None:
    """A malformed envelope is refused, over the socket and over HTTP, and the connection goes on."""

    async def main() -> None:
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

    run_async(main())


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
def test_what_follows_a_frame_that_cannot_be_read_is_not_handled(
    unreadable: str, run_async: RunAsync
) -> None:
    """No message overtakes one that cannot be read: the connection ends, and the rest comes again."""

    async def main() -> None:
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

    run_async(main())


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


def test_what_follows_a_message_that_was_not_kept_waits_for_it(run_async: RunAsync) -> None:
    """Where the ledger fails, no later message of the connection overtakes: sent again, all have effects."""

    async def main() -> None:
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

    run_async(main())


def test_what_follows_a_message_that_found_no_room_waits_for_it(run_async: RunAsync) -> None:
    """A flood that is cut off leaves no gap: what came after the first refused one is not handled either."""

    async def main() -> None:
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

    run_async(main())


def test_ledger_in_a_file_outlives_the_server(tmp_path: Path, run_async: RunAsync) -> None:
    """A message that took effect before a restart is a repeat after it; the handler's writes are there."""

    async def main() -> None:
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

    run_async(main())


def test_ledger_that_cannot_be_used_is_a_configuration_error(tmp_path: Path, run_async: RunAsync) -> None:
    """A server whose ledger cannot be opened does not start, says why, and leaves nothing."""

    async def main() -> None:
        for path in (str(tmp_path), str(tmp_path / "missing" / "ledger.db")):
            with pytest.raises(ConfigurationError, match="ledger"):
                await backend(ledger_path=path).start()
        with pytest.raises(ConfigurationError, match="ledger_path"):
            backend(ledger_path=str(tmp_path / "a.db"), ledger=MemoryLedger())

    run_async(main())


def test_stop_cuts_off_a_handler_with_a_transaction_in_time(tmp_path: Path, run_async: RunAsync) -> None:
    """A handler that hangs with the ledger's transaction neither delays the end nor leaves an effect."""

    async def main() -> None:
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
            assert time.monotonic() - before < 1.5
        async with backend(ledger_path=str(tmp_path / "app.db")) as service, peer(service) as one:
            service.on("hang", lambda client: client.transaction.execute("CREATE TABLE half (x)") and 1)
            assert await one.ask("hang", envelope(1)) == {"ok": True, "answer": 1}

    run_async(main())


# HTTP


def test_http_endpoints_need_a_valid_token(run_async: RunAsync) -> None:
    """Without a valid bearer token the endpoints answer 401 with the code; the health check answers."""

    async def main() -> None:
        async with backend() as service, http() as session:
            for header, code in (
                (None, "token_missing"),
                ("Basic abc", "token_missing"),
                ("Bearer ", "token_missing"),
                (f"Bearer {canary.token()}", "token_invalid"),
                (f"Bearer {token(lifetime=-1)}", "token_expired"),
            ):
                headers = {} if header is None else {"Authorization": header}
                for method, path in (("GET", "/realtime/events?channel=a"), ("POST", "/realtime/messages")):
                    async with session.request(method, service.url + path, headers=headers) as response:
                        assert response.status == 401
                        error = (await response.json())["error"]
                        assert (error["category"], error["code"]) == ("authentication", code)
            async with session.get(f"{service.url}/healthz") as response:
                assert (response.status, (await response.json())["ok"]) == (200, True)

    run_async(main())


def test_poll_gives_what_was_published_since(run_async: RunAsync) -> None:
    """A poll gives what came after each position, in pages, and an ETag that saves the next one."""

    async def main() -> None:
        async with backend(log_size=1000) as service, http(token()) as session:

            async def poll(*query: tuple[str, str], etag: str | None = None) -> tuple[int, Any, str]:
                headers = {} if etag is None else {"If-None-Match": etag}
                url = f"{service.url}/realtime/events"
                async with session.get(url, params=list(query), headers=headers) as response:
                    body = await response.json() if response.status == 200 else None
                    return response.status, body, response.headers.get("ETag", "")

            status, body, etag = await poll(("channel", "booking:42"))
            stands = body["channels"]["booking:42"]
            assert status == 200
            assert (stands["offset"], stands["recovered"], stands["events"]) == (0, True, [])
            for query in ((("channel", "booking:42"),),):
                assert (await poll(*query, etag=etag))[0] == 304
                assert (await poll(*query, etag=f'"other", W/{etag}'))[0] == 304
            position = ("position", f"booking:42:{stands['epoch']}:0")
            for n in range(1, 601):
                service.publish("booking:42", "tick", {"n": n})
            status, body, new = await poll(("channel", "booking:42"), position, etag=etag)
            page = body["channels"]["booking:42"]
            assert new != etag
            assert [e["offset"] for e in page["events"]] == list(range(1, 501))
            assert page["events"][0] == {"event": "tick", "data": {"n": 1}, "offset": 1}
            assert (page["more"], page["offset"]) == (True, 500)
            position = ("position", f"booking:42:{page['epoch']}:500")
            _, body, _ = await poll(("channel", "booking:42"), ("channel", "b"), position)
            page = body["channels"]["booking:42"]
            assert [e["offset"] for e in page["events"]] == list(range(501, 601))
            assert "more" not in page
            assert body["channels"]["b"]["ok"] is True
            wrong = ("position", "booking:42:other:500")
            page = (await poll(("channel", "booking:42"), wrong))[1]["channels"]["booking:42"]
            assert (page["recovered"], page["events"], page["offset"]) == (False, [], 600)

    run_async(main())


def test_poll_bounds_the_size_of_its_answer(run_async: RunAsync) -> None:
    """An answer is cut where it grows too large, says so, and following it still gives everything."""

    async def main() -> None:
        async with backend() as service, http(token()) as session:
            place = {c: [service.publish(c, "x", 0).epoch, 1] for c in ("a", "b")}
            for channel in ("a", "b"):
                for n in range(20):
                    service.publish(channel, "x", [n, "x" * 200_000])
            got: dict[str, list[int]] = {"a": [], "b": []}
            more = True
            while more:
                query = [("channel", c) for c in place]
                query += [("position", f"{c}:{epoch}:{offset}") for c, (epoch, offset) in place.items()]
                async with session.get(f"{service.url}/realtime/events", params=query) as response:
                    text = await response.text()
                assert len(text) < 2_000_000
                streams = json.loads(text)["channels"]
                more = any(s.get("more") and s["events"] for s in streams.values())
                for channel, stream in streams.items():
                    got[channel] += [e["data"][0] for e in stream["events"]]
                    assert stream["recovered"] is True
                    place[channel][1] = stream["offset"]
            assert got == {"a": list(range(20)), "b": list(range(20))}

    run_async(main())


def test_http_requests_that_cannot_be_read_are_refused(run_async: RunAsync) -> None:
    """What is malformed gets 400, what is too much 413, and a bad message of a batch only its own error."""

    async def main() -> None:
        async with backend(max_message_bytes=2048) as service, http(token()) as session:
            service.on("ok", lambda _, *args: list(args))
            events, messages = f"{service.url}/realtime/events", f"{service.url}/realtime/messages"
            for query in (
                [],
                [("channel", "a"), ("position", "b:e:1")],
                [("channel", "a"), ("position", "a:e:-1")],
                [("channel", "a"), ("position", "a:1")],
                [("channel", "a"), ("position", "a:e:" + "9" * 30)],
            ):
                async with session.get(events, params=query) as response:
                    assert response.status == 400
                    assert (await response.json())["error"]["category"] == "protocol"
            for data, status in (
                (b"not json", 400),
                (b"[" * 30_000, 400),
                (b"[]", 400),
                (b'{"messages": 7}', 400),
                (b'{"messages": [' + b",".join([b"{}"] * 101) + b"]}", 413),
                (b"x" * (2048 * 20), 413),
            ):
                async with session.post(messages, data=data) as response:
                    assert response.status == status
                    assert "error" in await response.json()
            batch = [
                {"message_id": "1", "event": "ok", "data": 1},
                7,
                {"message_id": "3", "event": "ok"},
                {"message_id": "4", "event": "ok", "args": []},
                {"message_id": "5", "event": "ok", "args": [1, 2]},
                {"message_id": "6", "event": "subscribe", "data": {"channels": ["a"]}},
            ]
            async with session.post(messages, json={"messages": batch}) as response:
                results = (await response.json())["results"]
            assert [r["message_id"] for r in results] == ["1", None, "3", "4", "5", "6"]
            assert [r["answer"] if r["ok"] else r["error"]["code"] for r in results] == [
                [1],
                "invalid_message",
                "invalid_message",
                [],
                [1, 2],
                "unknown_event",
            ]

    run_async(main())


def test_origins_are_let_in_by_the_list_alone(run_async: RunAsync) -> None:
    """Socket.IO and the endpoints let in requests without an origin and of the listed ones; no others."""

    async def main() -> None:
        async with backend(frontend_url="https://app.example, http://localhost:3000") as service:
            matrix = [
                (None, True),
                ("https://app.example", True),
                ("http://localhost:3000", True),
                (service.url, False),
                ("https://evil.example", False),
                ("null", False),
                ("http://localhost:3001", False),
                ("http://app.example", False),
                ("https://app.example.evil.example", False),
            ]
            async with http(token()) as session:
                for origin, allowed in matrix:
                    headers = {} if origin is None else {"Origin": origin}
                    for path in (
                        "/socket.io/?EIO=4&transport=polling",
                        "/realtime/events?channel=a",
                        "/healthz",
                    ):
                        async with session.get(service.url + path, headers=headers) as response:
                            assert (response.status == 200) is allowed, (origin, path)
                            told = response.headers.get("Access-Control-Allow-Origin")
                            assert told == (origin if allowed else None)
                            if origin is not None and allowed:
                                assert response.headers["Access-Control-Allow-Credentials"] == "true"
                    asked = {**headers, "Access-Control-Request-Method": "POST"}
                    async with session.options(f"{service.url}/realtime/messages", headers=asked) as response:
                        told = response.headers.get("Access-Control-Allow-Origin")
                        assert told == (origin if allowed else None)
                        if allowed:
                            assert set(response.headers["Access-Control-Allow-Methods"].split(", ")) == {
                                "GET",
                                "POST",
                            }
                            assert "Authorization" in response.headers["Access-Control-Allow-Headers"]
                    url = f"{service.url}/socket.io/?EIO=4&transport=websocket"
                    if allowed:
                        async with session.ws_connect(url, headers=headers) as ws:
                            assert (await ws.receive_str())[0] == "0"
                    else:
                        with pytest.raises(aiohttp.WSServerHandshakeError):
                            await session.ws_connect(url, headers=headers)

    run_async(main())


# Life


def test_stop_is_bounded_and_leaves_nothing(run_async: RunAsync) -> None:
    """With clients connected and long polls open the service stops in time, and leaves no task."""

    async def main() -> None:
        service = backend(close_timeout=2.0)
        await service.start()
        async with peer(service) as one, peer(service, transports=("polling",)) as two, http() as session:
            async with session.get(f"{service.url}/socket.io/?EIO=4&transport=polling") as response:
                sid = json.loads((await response.text())[1:])["sid"]
            url = f"{service.url}/socket.io/?EIO=4&transport=polling&sid={sid}"
            poll = asyncio.create_task(session.get(url))
            await eventually(lambda: len(service._server.eio._open) >= 3)
            began = time.monotonic()
            await service.stop()
            assert time.monotonic() - began < 2.0
            async with asyncio.timeout(BOUND):
                await one.gone.wait()
                await two.gone.wait()
            with contextlib.suppress(aiohttp.ClientError):
                (await poll).release()
        await service.stop()
        with pytest.raises(ClosedError):
            _ = service.port
        with pytest.raises(ClosedError):
            await service.start()

    run_async(main())


def test_poll_ends_when_its_client_says_goodbye(run_async: RunAsync) -> None:
    """A poll that is open while its client closes the connection by another request returns at once."""

    async def main() -> None:
        async with backend() as service, http() as session:
            base = f"{service.url}/socket.io/?EIO=4&transport=polling"
            async with session.get(base) as response:
                base += "&sid=" + json.loads((await response.text())[1:])["sid"]
            async with session.post(base, data="40" + json.dumps({"token": token()})) as response:
                assert response.status == 200
            async with session.get(base) as response:
                assert (await response.text()).startswith("40")
            poll = asyncio.create_task(session.get(base))
            await eventually(lambda: len(service._server.eio._open) == 1)
            async with session.post(base, data="1") as response:
                assert response.status == 200
            (await poll).release()

    run_async(main())


def test_stop_is_bounded_by_a_peer_that_has_stalled(run_async: RunAsync) -> None:
    """A peer that does not read cannot hold up the end."""

    async def main() -> None:
        service = backend(close_timeout=1.0)
        await service.start()
        url = f"{service.url}/socket.io/?EIO=4&transport=websocket"
        async with http() as session, session.ws_connect(url) as ws:
            await ws.receive_str()
            await ws.send_str("40" + json.dumps({"token": token()}))
            await ws.receive_str()
            await ws.send_str('420["subscribe",{"channels":["big"]}]')
            await ws.receive_str()
            transport = ws._response.connection.transport
            transport.pause_reading()
            for _ in range(200):
                service.publish("big", "x", "x" * 100_000)
            await asyncio.sleep(0.1)  # the writer fills the socket, and stalls
            began = time.monotonic()
            await service.stop()
            assert time.monotonic() - began < 1.5
            transport.resume_reading()

    run_async(main())


def test_application_can_be_mounted(run_async: RunAsync) -> None:
    """Mounted into another application it works below its prefix, and ends with it, stalled peer or not."""

    async def main() -> None:
        service = backend(close_timeout=1.0)
        outer = web.Application()
        outer.add_subapp("/rt", service.application)
        runner = web.AppRunner(outer)  # which waits a minute for open requests
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/rt"
        async with http(token()) as session:
            async with session.get(f"{url}/realtime/events?channel=big") as response:
                assert response.status == 200
            async with session.ws_connect(f"{url}/socket.io/?EIO=4&transport=websocket") as ws:
                await ws.receive_str()
                await ws.send_str("40" + json.dumps({"token": token()}))
                await ws.receive_str()
                await ws.send_str('420["subscribe",{"channels":["big"]}]')
                await ws.receive_str()
                transport = ws._response.connection.transport
                transport.pause_reading()
                for _ in range(200):
                    service.publish("big", "x", "x" * 100_000)
                await asyncio.sleep(0.1)  # the writer fills the socket, and stalls
                began = time.monotonic()
                await runner.cleanup()
                assert time.monotonic() - began < 0.9
                transport.resume_reading()

    run_async(main())


def test_stop_lets_a_handler_end(run_async: RunAsync) -> None:
    """A message that is being handled is acknowledged before the server goes; one that waits never is."""

    async def main() -> None:
        begun, started = asyncio.Event(), []

        async def note(_: Any, n: int) -> int:
            started.append(n)
            begun.set()
            await asyncio.sleep(0.1)
            return n

        service = backend(close_timeout=2.0)
        await service.start()
        service.on("note", note)
        # Not python-socketio's client: it may forget an acknowledgement that comes right before the end.
        config = RealtimeConfig(server_url=service.url, dialect="reference", transports=("websocket",))
        async with RealtimeService(config, token=token()) as one:
            first, second = (asyncio.create_task(one.call("note", n)) for n in (1, 2))
            async with asyncio.timeout(BOUND):
                await begun.wait()
            await service.stop()
            assert await first == 1
            assert started == [1]
            second.cancel()
            await asyncio.wait({second})

    run_async(main())


def test_connection_that_never_says_who_it_is_is_cut(run_async: RunAsync) -> None:
    """A connection without a token is closed after connect_timeout, over either transport."""

    async def main() -> None:
        ended = {aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.ERROR}
        async with (
            backend(connect_timeout=0.2, expiry_check_interval=0.1) as service,
            http() as session,
            session.ws_connect(f"{service.url}/socket.io/?EIO=4&transport=websocket") as ws,
        ):
            await ws.receive_str()
            async with session.get(f"{service.url}/socket.io/?EIO=4&transport=polling") as response:
                assert response.status == 200
            async with asyncio.timeout(BOUND):
                assert (await ws.receive()).type in ended
            await eventually(lambda: not service._server.eio.sockets)

    run_async(main())


def test_address_in_use_is_a_configuration_error(run_async: RunAsync) -> None:
    """A port that is taken is reported as a configuration error that names it."""

    async def main() -> None:
        async with backend() as service:
            config = BackendConfig(port=service.port, secret=SECRET)
            with pytest.raises(ConfigurationError, match=str(service.port)):
                await WebSocketService(config).start()

    run_async(main())


def test_serve_command_keeps_its_ledger_where_it_is_told(tmp_path: Path) -> None:
    """``realtime-fsm serve --ledger`` makes the database, and leaves it tidy when it ends."""
    command = [sys.executable, "-m", "realtime_fsm.cli", "serve", "--port", "0"]
    environ = {**os.environ, "REALTIME_SERVER_SECRET": SECRET}
    path = tmp_path / "ledger.db"
    with subprocess.Popen(
        [*command, "--ledger", str(path)], stdout=subprocess.PIPE, env=environ, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("http://")
        assert path.exists()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=BOUND)
    assert process.returncode == 0
    assert [file.name for file in tmp_path.iterdir()] == ["ledger.db"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_prints_its_address_first_and_ends_by_a_signal(number: signal.Signals) -> None:
    """The first line is the address at which it answers, and either signal ends it cleanly."""
    code = "from realtime_fsm.server import *; serve(BackendConfig.from_env(port=0))"
    environ = {**os.environ, "REALTIME_SERVER_SECRET": SECRET}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ, text=True
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        with urllib.request.urlopen(f"{address}/healthz", timeout=BOUND) as response:  # noqa: S310 - our own
            assert json.load(response)["ok"] is True
        process.send_signal(number)
        rest = process.communicate(timeout=BOUND)
    assert (process.returncode, rest) == (0, ("", ""))


def test_log_never_holds_a_token(run_async: RunAsync, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever the level, no log record of any logger holds a token, accepted or refused."""
    good, forged, fresh = token(), canary.jwt("ann", 60, signing="y" * 32), token("ann", 61)
    caplog.set_level(logging.DEBUG)
    for name in ("socketio", "engineio", "socketio.client", "engineio.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # those of the client in this test

    async def main() -> None:
        async with backend() as service, peer(service, {"token": good}) as one, http(forged) as session:
            await one.ask("reauthenticate", {"token": fresh})
            await one.ask("reauthenticate", {"token": forged})
            refused = Peer(service)
            with pytest.raises(socketio.exceptions.ConnectionError):
                await refused.connect({"token": forged})
            await refused.sio.eio.disconnect(abort=True)
            async with session.get(f"{service.url}/realtime/events?channel=a") as response:
                assert response.status == 401

    run_async(main())
    assert caplog.records
    for secret in (good, forged, fresh, SECRET):
        assert secret not in caplog.text
