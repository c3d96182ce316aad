import asyncio
from typing import Any

import pytest
from backend_peer import BOUND, RunAsync, backend, eventually, http, peer, token

from realtime_fsm.machine.errors import InvalidArgumentError
from realtime_fsm.server import Client


async def test_application_events_are_answered() -> None:
    """A handler's answer, its failure, and a missing handler each have their own answer."""
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


async def test_messages_of_a_client_are_handled_in_order() -> None:
    """However long a handler awaits, the client's next message waits for it; another client's does not."""
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


async def test_http_messages_wait_for_those_of_the_lost_socket() -> None:
    """What a client publishes over HTTP is handled after what it had sent over its lost socket."""
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


async def test_handler_that_takes_too_long_is_ended() -> None:
    """A handler that never ends is cancelled, and the client's next message is handled."""

    async def hang(_: Any) -> None:
        await asyncio.Event().wait()

    async with backend(handler_timeout=0.1) as service, peer(service) as one:
        service.on("hang", hang)
        service.on("ok", lambda _: 1)
        assert (await one.ask("hang"))["error"]["code"] == "handler_timeout"
        assert await one.ask("ok") == {"ok": True, "answer": 1}


async def test_client_with_too_many_waiting_messages_is_disconnected() -> None:
    """A client that floods a slow handler is disconnected, and its waiting messages stay bounded."""

    async def hang(_: Any) -> None:
        await asyncio.Event().wait()

    async with backend(max_pending_messages=5, close_timeout=1.0) as service, peer(service) as one:
        service.on("hang", hang)
        for _ in range(10):
            await one.sio.emit("hang")
        async with asyncio.timeout(BOUND):
            await one.gone.wait()


async def test_polling_keeps_bursts_and_large_messages() -> None:
    """Over polling neither a burst of messages nor a large one is lost."""
    async with backend() as service, peer(service, transports=("polling",)) as one:
        got: list[Any] = []
        service.on("n", lambda _, n: got.append(n))
        service.on("size", lambda _, text: len(text))
        for n in range(40):
            await one.sio.emit("n", n)
        assert await one.ask("size", "x" * 700_000) == {"ok": True, "answer": 700_000}
        await eventually(lambda: len(got) == 40)
        assert got == list(range(40))


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


async def test_position_is_where_a_channel_stands() -> None:
    """Who subscribes from the place that came with a snapshot gets what was published after it, no more."""
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
