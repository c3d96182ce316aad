import json
from typing import Any

import aiohttp
import canary
import pytest
from backend_peer import backend, http, token


async def test_http_endpoints_need_a_valid_token() -> None:
    """Without a valid bearer token the endpoints answer 401 with the code; the health check answers."""
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


async def test_poll_gives_what_was_published_since() -> None:
    """A poll gives what came after each position, in pages, and an ETag that saves the next one."""
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


async def test_poll_bounds_the_size_of_its_answer() -> None:
    """An answer is cut where it grows too large, says so, and following it still gives everything."""
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


async def test_http_requests_that_cannot_be_read_are_refused() -> None:
    """What is malformed gets 400, what is too much 413, and a bad message of a batch only its own error."""
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


async def test_origins_are_let_in_by_the_list_alone() -> None:
    """Socket.IO and the endpoints let in requests without an origin and of the listed ones; no others."""
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
