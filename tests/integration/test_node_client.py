"""The reference backend and the client that the others have: ``socket.io-client`` in Node."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from node_package import environment
from server_process import HERE

from realtime_fsm.server import BackendConfig, Client, WebSocketService, issue_token

SOCKET_IO_CLIENT = "4.8.4"
SECRET = "0123456789abcdef0123456789abcdef"
BOUND = 20.0  # of every wait; none comes near it
TOKEN = issue_token(SECRET, "ann", 3600.0)  # a whole run of all tests lasts for minutes


WAYS = {"websocket": ["websocket"], "polling": ["polling"], "upgrade": ["polling", "websocket"]}
any_way = pytest.mark.parametrize("way", WAYS)


@pytest.fixture(scope="session")
def node_environment() -> dict[str, str]:
    """Return an environment with the client."""
    return environment("socket.io-client", SOCKET_IO_CLIENT)


class NodeClient:
    """A client in a process of its own, and what it tells."""

    def __init__(self, process: "subprocess.Popen[bytes]", told: asyncio.StreamReader) -> None:
        self._process = process
        self._told = told
        self._last_id = 0
        self.transports: list[str] = []
        self.received: list[Any] = []
        self.answers: dict[int, Any] = {}

    def order(self, do: str, **more: Any) -> None:
        """Have something done."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **more}).encode() + b"\n")
        self._process.stdin.flush()

    def ask(self, *args: Any) -> int:
        """Emit an event; return the id of its answer."""
        self._last_id += 1
        self.order("ask", id=self._last_id, args=args)
        return self._last_id

    async def until(self, what: str) -> Any:
        """Return what is told of something; note what else is told before."""
        while True:
            async with asyncio.timeout(BOUND):
                line = await self._told.readline()
            assert line, f"the client ended before {what!r}: {self._process.wait(BOUND)}"
            told = json.loads(line)
            if told["what"] == "uses":
                self.transports.append(told["transport"])
            if told["what"] == "received":
                self.received.append(told["args"])
            if told["what"] == "answered":
                assert told.get("error") is None, told
                assert told["id"] not in self.answers
                self.answers[told["id"]] = told["answer"]
            if told["what"] == what:
                return told

    async def answer(self, number: int) -> Any:
        """Return the answer to an event."""
        while number not in self.answers:
            await self.until("answered")
        return self.answers[number]

    async def answered(self, *args: Any) -> Any:
        """Emit an event, and return its answer."""
        return await self.answer(self.ask(*args))


@asynccontextmanager
async def node(environ: dict[str, str]) -> AsyncIterator[NodeClient]:
    """Run a client, and see it end well."""
    command = ["node", str(HERE / "node_client.cjs")]
    with subprocess.Popen(  # noqa: ASYNC220 - which only begins it
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ
    ) as process:
        try:
            assert process.stdin is not None
            told = asyncio.StreamReader()
            loop = asyncio.get_running_loop()
            pipe, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(told), process.stdout)
            try:
                yield NodeClient(process, told)
                process.stdin.close()
                async with asyncio.timeout(BOUND):
                    while await told.readline():
                        pass
                assert process.wait(BOUND) == 0
            finally:
                pipe.close()
        finally:
            process.kill()


@asynccontextmanager
async def scene(
    environ: dict[str, str], way: str, **options: Any
) -> AsyncIterator[tuple[WebSocketService, NodeClient]]:
    """Run a backend and a client that is connected to it in one of the ways."""
    async with WebSocketService(BackendConfig(port=0, secret=SECRET)) as service, node(environ) as client:
        client.order(
            "connect",
            url=service.url,
            options={"auth": {"token": TOKEN}, "transports": WAYS[way], **options},
        )
        await client.until("connected")
        while len(client.transports) < len(WAYS[way]):
            await client.until("uses")
        assert client.transports == WAYS[way]
        yield service, client


def envelope(sequence: int) -> dict[str, Any]:
    """Return what a message carries that is to be handled once."""
    return {"message_id": f"m{sequence}", "client_id": "browser", "sequence": sequence}


@any_way
async def test_node_client_is_served(node_environment: dict[str, str], way: str) -> None:
    """A Node client beats, subscribes, is sent events with their place, and has its own events answered."""
    async with scene(node_environment, way) as (service, client):
        service.on("add", lambda _, a, b: a + b)
        service.on("echo", lambda _, *args: list(args))
        assert await client.answered("heartbeat") == {"ok": True}
        joined = await client.answered("subscribe", {"channels": ["bookings"]})
        place = joined["channels"]["bookings"]
        assert (place["ok"], place["offset"], place["recovered"]) == (True, 0, True)
        data = {"text": "grüß dich \N{PARTY POPPER}", "list": [1, 2.5, None, True]}
        for n in (1, 2):
            service.publish("bookings", "booking_updated", {**data, "n": n})
        service.publish("others", "unseen", None)
        assert await client.answered("add", 1, 2) == {"ok": True, "answer": 3}
        assert await client.answered("echo", data) == {"ok": True, "answer": [data]}
        assert await client.answered("echo") == {"ok": True, "answer": []}
        assert (await client.answered("nobody"))["error"]["code"] == "unknown_event"
        assert client.received == [
            [
                "booking_updated",
                {**data, "n": n},
                {"channel": "bookings", "epoch": place["epoch"], "offset": n},
            ]
            for n in (1, 2)
        ]


@any_way
async def test_node_client_catches_up(node_environment: dict[str, str], way: str) -> None:
    """A Node client that returns with its position gets what it has missed, before its acknowledgement."""
    async with scene(node_environment, way) as (service, client):
        joined = await client.answered("monitor_bookings", {"booking_ids": ["42"]})
        position = {key: joined["channels"]["booking:42"][key] for key in ("epoch", "offset")}
        client.order("drop")
        await client.until("disconnected")
        for n in range(1, 31):
            service.publish("booking:42", "booking_updated", n)
        client.order("return")
        await client.until("connected")
        again = {"booking_ids": ["42"], "positions": {"booking:42": position}}
        joined = await client.answered("monitor_bookings", again)
        assert [args[1] for args in client.received] == list(range(1, 31))
        assert joined["channels"]["booking:42"] == {
            "ok": True,
            "epoch": position["epoch"],
            "offset": 30,
            "recovered": True,
        }


@any_way
@pytest.mark.parametrize(
    ("auth", "code"),
    [
        ({}, "token_missing"),
        ({"token": "garbage"}, "token_invalid"),
        ({"token": issue_token(SECRET, "ann", -1.0)}, "token_expired"),
    ],
    ids=["missing", "invalid", "expired"],
)
async def test_node_client_is_told_why_it_is_refused(
    node_environment: dict[str, str], way: str, auth: Any, code: str
) -> None:
    """A Node client's ``connect_error`` has a message for people, and in ``data`` what its code needs."""
    async with (
        WebSocketService(BackendConfig(port=0, secret=SECRET)) as service,
        node(node_environment) as client,
    ):
        client.order("connect", url=service.url, options={"auth": auth, "transports": WAYS[way]})
        refused = await client.until("refused")
        assert refused["data"] == {"category": "authentication", "code": code, "retry_after": None}
        assert "token" in refused["message"].lower()


@any_way
async def test_node_client_sends_again_and_takes_effect_once(
    node_environment: dict[str, str], way: str
) -> None:
    """A Node client that lost its connection before the acknowledgement, and sends again, has one effect."""
    effects: list[int] = []
    begun, release = asyncio.Event(), asyncio.Event()

    async def book(client: Client, n: int) -> Any:
        begun.set()
        await release.wait()
        effects.append(n)
        return {"subject": client.subject, "number": len(effects)}

    async with scene(node_environment, way) as (service, client):
        service.on("book", book)
        lost = client.ask("book", 7, envelope(1))
        async with asyncio.timeout(BOUND):
            await begun.wait()
        client.order("drop")
        await client.until("disconnected")
        client.order("return")
        await client.until("connected")
        again = client.ask("book", 7, envelope(1))
        after = client.ask("book", 8, envelope(2))
        assert await client.answered("heartbeat") == {"ok": True}
        release.set()
        first = {"ok": True, "answer": {"subject": "ann", "number": 1}}
        assert await client.answer(again) == {**first, "duplicate": True}
        assert (await client.answer(after))["answer"]["number"] == 2
        assert lost not in client.answers
        assert effects == [7, 8]
        assert service.duplicate_count == 1


@any_way
async def test_node_client_s_own_retries_take_effect_once(node_environment: dict[str, str], way: str) -> None:
    """With ``retries``, the client's own at-least-once, an impatient client has one effect of each event."""
    effects: list[int] = []
    repeats = asyncio.Event()

    async def book(_: Client, n: int) -> int:
        if n == 1:
            await repeats.wait()
        effects.append(n)
        return n * 10

    async with scene(node_environment, way, retries=100, ackTimeout=300) as (service, client):
        service.on("book", book)
        first, second = (client.ask("book", n, envelope(n)) for n in (1, 2))
        (session,) = service._sessions
        async with asyncio.timeout(BOUND):
            while session.messages < 3:  # noqa: ASYNC110 - sent again by the client's own timer
                await asyncio.sleep(0.02)
        repeats.set()
        assert (await client.answer(first))["answer"] == 10
        assert (await client.answer(second))["answer"] == 20
        assert effects == [1, 2]
        assert service.duplicate_count >= 1
