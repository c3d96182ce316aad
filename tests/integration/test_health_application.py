"""Health over HTTP, of a client and of the backend: the right codes, nothing stored, nothing secret."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
import canary
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from realtime_fsm import (
    ConfigurationError,
    ConnectionStatus,
    Dialect,
    Health,
    RealtimeConfig,
    RealtimeService,
)
from realtime_fsm.server import BackendConfig, WebSocketService
from realtime_fsm.web.health import health_application, serve_health

PATHS: Final = ("/livez", "/readyz", "/healthz")
BOUND: Final = 20.0


async def ask(url: str, method: str = "GET") -> tuple[int, Any]:
    """Ask; return the status and what was said. Whatever it is, it must not be stored, nor be secret."""
    async with aiohttp.ClientSession() as session, session.request(method, url) as response:
        text = await response.text()
        assert response.headers["Cache-Control"] == "no-store"
        assert response.content_type == "application/json"
        assert canary.found_in(text, str(response.headers)) == []
        return response.status, json.loads(text) if text else None


async def codes(url: str, method: str = "GET") -> list[int]:
    """Return the status of every path."""
    return [(await ask(url + path, method))[0] for path in PATHS]


@asynccontextmanager
async def backend(**config: Any) -> AsyncIterator[WebSocketService]:
    """Give a backend on a free port."""
    async with WebSocketService(BackendConfig(port=0, secret=canary.SIGNING, **config)) as service:
        yield service


def client_of(url: str, **config: Any) -> RealtimeService:
    """Return a client of a backend."""
    given = RealtimeConfig(server_url=url, dialect=Dialect.REFERENCE, enable_fallback=False, **config)
    return RealtimeService(given, token=lambda: canary.jwt("me"))


class Examined:
    """Something whose health is as a test wants it."""

    def __init__(self, found: Health | Exception) -> None:
        self.found = found

    def health(self) -> Health:
        """Examine nothing."""
        if isinstance(self.found, Exception):
            raise self.found.with_traceback(None)
        return self.found


def health(*, live: bool = True, ready: bool = True, reasons: tuple[str, ...] = ()) -> Health:
    """Return a state of health."""
    return Health(live=live, ready=ready, degraded=bool(reasons), reasons=reasons)


# The client's.


async def test_health_application_follows_the_client_from_health_to_outage_and_back() -> None:
    """Mounted in a user's application it says 200 while connected, and 503 with reasons while it is not."""
    async with backend() as service:
        client = client_of(service.url, reconnect_interval=0.2)
        mine = web.Application()
        mine.add_subapp("/realtime", health_application(client))
        async with TestServer(mine) as server:
            url = str(server.make_url("/realtime"))
            assert await codes(url) == [200, 503, 503]
            async with client:
                assert await codes(url) == [200, 200, 200]
                assert await ask(f"{url}/livez") == (200, {"ok": True, "reasons": []})
                assert await ask(f"{url}/healthz") == (200, client.health().to_json())
                await service.stop()
                await client.wait_for(ConnectionStatus.RECONNECTING, timeout=BOUND)
                assert await codes(url) == [200, 503, 503]
                _, told = await ask(f"{url}/readyz")
                assert told["ok"] is False
                assert told["reasons"]
                status, told = await ask(f"{url}/healthz")
                assert (status, told["status"], told["live"]) == (503, "unavailable", True)
            assert await codes(url) == [200, 503, 503]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (health(), [200, 200, 200]),
        (health(reasons=("slow",)), [200, 200, 200]),
        (health(ready=False, reasons=("deaf",)), [200, 503, 503]),
        (health(live=False, ready=False, reasons=("stuck",)), [503, 503, 503]),
        (health(live=False, reasons=("stuck",)), [503, 200, 503]),
        (RuntimeError("the inside of it"), [503, 503, 503]),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_health_application_answers_with_the_right_codes(
    found: Health | Exception, expected: list[int], method: str
) -> None:
    """Degraded is 200; each path is 503 for what it asks about alone; HEAD says the same as GET."""
    async with serve_health(Examined(found)) as url:
        assert await codes(url, method) == expected


async def test_health_application_gives_reasons_where_it_says_no() -> None:
    """What is not asked about is not told: `/livez` names no reason for what is no reason to restart."""
    async with serve_health(Examined(health(ready=False, reasons=("deaf",)))) as url:
        assert (await ask(f"{url}/livez"))[1] == {"ok": True, "reasons": []}
        assert (await ask(f"{url}/readyz"))[1] == {"ok": False, "reasons": ["deaf"]}
        assert (await ask(f"{url}/healthz"))[1]["reasons"] == ["deaf"]
    async with serve_health(Examined(RuntimeError("the inside of it"))) as url:
        assert (await ask(f"{url}/livez"))[1]["reasons"] == ["It cannot be examined: RuntimeError."]


async def test_health_application_takes_questions_only() -> None:
    """There is nothing to be changed over it, and nothing else to be found."""
    async with serve_health(Examined(health())) as url, aiohttp.ClientSession() as session:
        for method in ("POST", "PUT", "DELETE"):
            async with session.request(method, f"{url}/healthz") as response:
                assert response.status == 405
        async with session.get(f"{url}/metrics") as response:
            assert response.status == 404


async def test_health_is_served_for_this_machine_alone_by_default() -> None:
    """Without a word about it nobody else can ask; afterwards nobody listens any more."""
    async with serve_health(Examined(health())) as url:
        assert url.startswith("http://127.0.0.1:")
        port = int(url.rpartition(":")[2])
        with pytest.raises(ConfigurationError, match=f"port={port}"):
            async with serve_health(Examined(health()), port=port):
                pytest.fail("two listen at one port")
        assert await codes(url) == [200, 200, 200]
    with pytest.raises(aiohttp.ClientConnectorError):
        await ask(f"{url}/livez")


@pytest.mark.skipif(not socket.has_ipv6, reason="this Python knows no IPv6")
async def test_health_is_served_over_ipv6_too() -> None:
    """The address that is given can be used as it is, also where it needs brackets."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError:
        pytest.skip("this machine has no ::1")
    async with serve_health(Examined(health()), host="::1") as url:
        assert url.startswith("http://[::1]:")
        assert await codes(url) == [200, 200, 200]


async def test_health_server_ends_in_time_whoever_is_connected() -> None:
    """Neither a kept connection nor a half-sent request holds the end up."""
    async with aiohttp.ClientSession() as session:
        async with asyncio.timeout(BOUND):
            async with serve_health(Examined(health())) as url:
                async with session.get(f"{url}/livez") as response:
                    await response.read()
                place = url.removeprefix("http://").split(":")
                reader, writer = await asyncio.open_connection(place[0], int(place[1]))
                writer.write(b"GET /livez HTTP/1.1\r\n")
                await writer.drain()
            assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


# The backend's.


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_backend_is_not_ready_while_it_would_refuse_the_next_client(method: str) -> None:
    """A full backend stays live, so that nobody restarts it; it is ready again when somebody has left."""
    async with backend(max_clients=1) as service:
        assert await codes(service.url, method) == [200, 200, 200]
        async with client_of(service.url):
            assert await codes(service.url, method) == [200, 503, 503]
            if method == "GET":
                _, told = await ask(f"{service.url}/healthz")
                assert (told["live"], told["ready"]) == (True, False)
                assert "max_clients=1" in told["reasons"][0]
        async with asyncio.timeout(BOUND):
            while (await ask(f"{service.url}/readyz"))[0] != 200:  # noqa: ASYNC110 - of what a peer notices
                await asyncio.sleep(0.01)
        assert await codes(service.url, method) == [200, 200, 200]


async def test_backend_tells_a_stranger_nothing_but_its_health() -> None:
    """The three paths need no token, and hold neither names nor numbers of clients."""
    async with backend() as service, client_of(service.url):
        assert await ask(f"{service.url}/livez") == (200, {"ok": True})
        assert await ask(f"{service.url}/readyz") == (200, {"ok": True, "reasons": []})
        told = {"ok": True, "live": True, "ready": True, "reasons": []}
        assert await ask(f"{service.url}/healthz") == (200, told)
