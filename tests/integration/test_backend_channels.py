import asyncio
import json
from typing import Any

from backend_peer import BOUND, backend, eventually, http, peer, token


async def test_heartbeat_is_answered() -> None:
    """A heartbeat is acknowledged over either transport."""
    async with backend() as service:
        for transports in (("websocket",), ("polling",), ("polling", "websocket")):
            async with peer(service, transports=transports) as one:
                assert await one.ask("heartbeat") == {"ok": True}


async def test_heartbeat_overtakes_a_slow_handler() -> None:
    """A handler that is slow does not make its client look dead."""
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


async def test_publish_reaches_subscribers_only() -> None:
    """An event goes to who is subscribed to its channel, with its place, and to nobody else."""
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


async def test_unsubscribe_ends_the_events() -> None:
    """After unsubscribing from a channel or a booking nothing of it comes."""
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


async def test_subscribe_replays_what_was_missed_before_the_acknowledgement() -> None:
    """The events after a position come, in order, before the acknowledgement."""
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


async def test_live_events_never_overtake_a_replay() -> None:
    """While another task publishes without pause, offsets rise by one through replay, ack and live."""

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


async def test_channels_that_cannot_be_had_are_refused_one_by_one() -> None:
    """A refused channel says why, and the others of the request are subscribed."""

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


async def test_slow_reader_is_disconnected() -> None:
    """A client that does not read is cut off, instead of being kept in memory for ever."""
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
