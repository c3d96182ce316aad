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
from pathlib import Path
from typing import Any

import aiohttp
import canary
import pytest
import socketio
from aiohttp import web
from backend_peer import BOUND, BUSY, SECRET, Peer, RunAsync, backend, eventually, http, peer, token, unsigned

from realtime_fsm import RealtimeConfig, RealtimeService
from realtime_fsm.machine.errors import ClosedError, ConfigurationError
from realtime_fsm.server import BackendConfig, WebSocketService

# Identity


async def test_connect_without_a_valid_token_is_refused_with_its_code() -> None:
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


async def test_connect_beyond_max_clients_is_refused_as_unavailable() -> None:
    """A full server refuses as unavailable, and says when to come again."""
    async with backend(max_clients=1) as service, peer(service):
        second = Peer(service)
        with pytest.raises(socketio.exceptions.ConnectionError):
            await second.connect({"token": token()})
        await second.sio.eio.disconnect(abort=True)
        data = second.refusals[0]["data"]
        assert (data["category"], data["code"]) == ("connection", "unavailable")
        assert data["retry_after"] > 0


async def test_expired_session_is_disconnected_within_a_second() -> None:
    """A session ends within a second of its token's expiry, and not before it."""
    async with backend() as service:
        expires = time.time() + 1.0
        async with peer(service, {"token": token(lifetime=1.0)}) as one:
            async with asyncio.timeout(BOUND):
                await one.gone.wait()
            assert expires <= time.time() + 0.05
            assert time.time() <= expires + 1.0 + BUSY


async def test_reauthenticate_moves_the_expiry() -> None:
    """A new token of the same subject keeps the session; a bad one, or another's, changes nothing."""
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


async def test_events_named_like_the_library_s_own_do_not_reach_its_handlers() -> None:
    """A client that emits connect or disconnect as events changes nothing, and is told so."""
    async with backend() as service, peer(service) as one:
        await one.ask("subscribe", {"channels": ["a"]})
        for name in ("connect", "disconnect"):
            answer = await one.ask(name, "made up", {"token": token("bob")})
            assert answer["ok"] is False
        service.publish("a", "x", 1)
        await one.until(lambda: len(one.seen) == 1)


# Life


async def test_stop_is_bounded_and_leaves_nothing() -> None:
    """With clients connected and long polls open the service stops in time, and leaves no task."""
    service = backend(close_timeout=3 * BOUND)
    await service.start()
    async with peer(service) as one, peer(service, transports=("polling",)) as two, http() as session:
        async with session.get(f"{service.url}/socket.io/?EIO=4&transport=polling") as response:
            sid = json.loads((await response.text())[1:])["sid"]
        url = f"{service.url}/socket.io/?EIO=4&transport=polling&sid={sid}"
        poll = asyncio.create_task(session.get(url))
        await eventually(lambda: len(service._server.eio._open) >= 3)
        began = time.monotonic()
        await service.stop()
        assert time.monotonic() - began < BOUND
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


async def test_poll_ends_when_its_client_says_goodbye() -> None:
    """A poll that is open while its client closes the connection by another request returns at once."""
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


async def test_stop_is_bounded_by_a_peer_that_has_stalled() -> None:
    """A peer that does not read cannot hold up the end."""
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
        assert time.monotonic() - began < 1.0 + BUSY
        transport.resume_reading()


async def test_application_can_be_mounted() -> None:
    """Mounted into another application it works below its prefix, and ends with it, stalled peer or not."""
    service = backend(close_timeout=3 * BOUND)
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
            assert time.monotonic() - began < BOUND
            transport.resume_reading()


async def test_stop_lets_a_handler_end() -> None:
    """A message that is being handled is acknowledged before the server goes; one that waits never is."""
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


async def test_connection_that_never_says_who_it_is_is_cut() -> None:
    """A connection without a token is closed after connect_timeout, over either transport."""
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


async def test_address_in_use_is_a_configuration_error() -> None:
    """A port that is taken is reported as a configuration error that names it."""
    async with backend() as service:
        config = BackendConfig(port=service.port, secret=SECRET)
        with pytest.raises(ConfigurationError, match=str(service.port)):
            await WebSocketService(config).start()


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
