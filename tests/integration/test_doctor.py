"""The doctor on broken servers: the right check fails, with the cause, the remedy and the exit code."""

import asyncio
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import canary
import pytest
import sick_servers as sick
import trustme
from aiohttp import web
from attrs import frozen

from realtime_fsm.cli import main as command_line
from realtime_fsm.cli.arguments import EXIT_FAILED, EXIT_OK, EXIT_REFUSED, EXIT_UNREACHABLE, EXIT_USAGE
from realtime_fsm.doctor import CHECKS, Target, Verdict, examine
from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.server import BackendConfig, WebSocketService


@frozen
class Diagnosis:
    """What the command said and returned."""

    code: int
    checks: dict[str, dict[str, Any]]

    @property
    def failed(self) -> list[str]:
        """The checks that failed."""
        return [name for name, check in self.checks.items() if check["verdict"] == "failed"]

    def says(self, check: str, verdict: str, *words: str) -> None:
        """Assert how a check ended, and what is said about it; the remedy included."""
        found = self.checks[check]
        assert found["verdict"] == verdict, found
        text = f"{found['message']} {found['remedy']}"
        assert [word for word in words if word not in text] == [], text
        assert found["remedy"]


Diagnose = Callable[..., Awaitable[Diagnosis]]


@pytest.fixture
def diagnose(capsys: pytest.CaptureFixture[str]) -> Diagnose:
    """Give a function that runs the command in a thread beside the servers, short of patience."""

    async def run(url: str, *arguments: str, patience: float = 1.0, idle: float = 0.0) -> Diagnosis:
        began = time.monotonic()
        given = ["doctor", url, "--json", "--timeout", str(patience), "--idle", str(idle), *arguments]
        code = await asyncio.to_thread(command_line, given)
        assert time.monotonic() - began < 20 + idle + patience * len(CHECKS)
        out, error = capsys.readouterr()
        assert error == ""
        assert canary.found_in(out) == []
        report = json.loads(out)
        assert report["exit_code"] == code
        assert report["ok"] is (code == EXIT_OK)
        assert [check["check"] for check in report["checks"]] == [check.name for check in CHECKS]
        return Diagnosis(code, {check["check"]: check for check in report["checks"]})

    return run


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Give an authority."""
    return trustme.CA()


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """Give an authority that this machine trusts."""
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    return authority


def certified(authority: trustme.CA, *names: str, **options: Any) -> ssl.SSLContext:
    """Return the context of a server with a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names, **options).configure_cert(context)
    return context


# The way to the server.


async def test_doctor_names_an_address_that_is_no_server_address(diagnose: Diagnose) -> None:
    """An address with credentials is usage: the first check fails, nothing is tried, nothing is shown."""
    found = await diagnose(f"http://me:{canary.token()}@127.0.0.1:9/?token={canary.token()}")
    found.says("configuration", "failed", "credentials", "server_url")
    assert (found.failed, found.code) == (["configuration"], EXIT_USAGE)


async def test_doctor_names_a_host_that_does_not_exist(diagnose: Diagnose) -> None:
    """A name that cannot be resolved fails `name`; everything after it is skipped with that reason."""
    found = await diagnose("http://nothing.invalid", patience=3)
    found.says("name", "failed", "nothing.invalid")
    assert (found.failed, found.code) == (["name"], EXIT_UNREACHABLE)
    later = [check for check in found.checks.values() if check["verdict"] == "skipped"]
    assert len(later) == len(CHECKS) - 2
    assert {check["message"] for check in later} == {"Not tried, because `name` failed."}


async def test_doctor_does_not_wait_for_a_resolver_that_hangs(
    diagnose: Diagnose, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resolver that never answers fails `name` within the time-out, and does not hold the command up."""
    release = threading.Event()

    def hangs(*_: Any, **__: Any) -> list[Any]:
        assert release.wait(20)
        raise socket.gaierror(socket.EAI_AGAIN, "late")

    monkeypatch.setattr("realtime_fsm.doctor.network.socket.getaddrinfo", hangs)
    try:
        found = await diagnose("http://slow.example", patience=0.2)
    finally:
        release.set()
    found.says("name", "failed", "No answer", "0.2 s", "resolv.conf")
    assert (found.failed, found.code) == (["name"], EXIT_UNREACHABLE)
    for thread in threading.enumerate():
        if thread.name == "realtime_fsm doctor resolver":
            thread.join(5)


async def test_doctor_names_a_port_at_which_nothing_listens(diagnose: Diagnose) -> None:
    """A refused connection fails `tcp`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    found = await diagnose(f"http://127.0.0.1:{port}")
    found.says("tcp", "failed", "nothing listens", "Start the server")
    assert (found.failed, found.code) == (["tcp"], EXIT_UNREACHABLE)


async def _says_nothing(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def _hangs_up(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read(1)


async def _greets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-OpenSSH_9.6\r\n")
    await reader.read()


async def test_doctor_names_a_server_that_accepts_and_is_silent(diagnose: Diagnose) -> None:
    """A server that accepts TCP and says nothing fails `http`, by the time-out."""
    async with sick.talking(_says_nothing) as url:
        found = await diagnose(url)
    found.says("http", "failed", "accepts the connection and says nothing", "hangs")
    assert (found.failed, found.code) == (["http"], EXIT_UNREACHABLE)


async def test_doctor_names_a_server_that_hangs_up(diagnose: Diagnose) -> None:
    """A server that closes without an answer fails `http`: it answers, but it is no HTTP server."""
    async with sick.talking(_hangs_up) as url:
        found = await diagnose(url)
    found.says("http", "failed", "closes the connection without an answer", "HTTP server")
    assert (found.failed, found.code) == (["http"], EXIT_FAILED)


async def test_doctor_names_a_server_of_another_protocol(diagnose: Diagnose) -> None:
    """A port at which something other than HTTP is spoken fails `http`."""
    async with sick.talking(_greets) as url:
        found = await diagnose(url)
    found.says("http", "failed", "does not speak HTTP", "HTTP server")
    assert (found.failed, found.code) == (["http"], EXIT_FAILED)


# TLS.


async def test_doctor_names_a_tls_port_that_is_asked_without(
    diagnose: Diagnose, authority: trustme.CA
) -> None:
    """http:// to a port that speaks TLS fails `http`, and the remedy is the address with https://."""
    async with sick.sound(tls=certified(authority, "localhost")) as url:
        place = url.removeprefix("https://localhost")
        found = await diagnose(f"http://127.0.0.1{place}")
    found.says("http", "failed", "speaks TLS", f"https://127.0.0.1{place}")
    assert (found.failed, found.code) == (["http"], EXIT_UNREACHABLE)


async def test_doctor_names_a_plain_port_that_is_asked_for_tls(diagnose: Diagnose) -> None:
    """https:// to a port that speaks no TLS fails `tls`, and the remedy is http://."""
    async with sick.sound() as url:
        found = await diagnose(url.replace("http://", "https://"))
    found.says("tls", "failed", "does not speak TLS", "http://")
    assert (found.failed, found.code) == (["tls"], EXIT_UNREACHABLE)


async def test_doctor_names_a_tls_handshake_that_never_ends(diagnose: Diagnose) -> None:
    """A server that accepts TCP and does not begin with TLS fails `tls`, by the time-out."""
    async with sick.talking(_says_nothing) as url:
        found = await diagnose(url.replace("http://", "https://"))
    found.says("tls", "failed", "does not begin with TLS", "port")
    assert (found.failed, found.code) == (["tls"], EXIT_UNREACHABLE)


async def test_doctor_names_an_expired_certificate(diagnose: Diagnose, trusted: trustme.CA) -> None:
    """A certificate whose time is over fails `tls` as expired, not as untrusted."""
    now = datetime.now(UTC)
    over = certified(
        trusted, "localhost", not_before=now - timedelta(days=9), not_after=now - timedelta(days=2)
    )
    async with sick.sound(tls=over) as url:
        found = await diagnose(url)
    found.says("tls", "failed", "has expired", "Renew")
    assert (found.failed, found.code) == (["tls"], EXIT_UNREACHABLE)


async def test_doctor_names_a_certificate_of_another_name(diagnose: Diagnose, trusted: trustme.CA) -> None:
    """A certificate for another host fails `tls` by the name."""
    async with sick.sound(tls=certified(trusted, "elsewhere.example")) as url:
        found = await diagnose(url)
    found.says("tls", "failed", "another name than localhost", "name")
    assert (found.failed, found.code) == (["tls"], EXIT_UNREACHABLE)


async def test_doctor_names_an_unknown_issuer(diagnose: Diagnose, authority: trustme.CA) -> None:
    """A certificate of an authority that is not trusted fails `tls`, and says how to trust it."""
    async with sick.sound(tls=certified(authority, "localhost")) as url:
        found = await diagnose(url)
    found.says("tls", "failed", "issuer", "SSL_CERT_FILE")
    assert (found.failed, found.code) == (["tls"], EXIT_UNREACHABLE)


async def test_doctor_names_a_self_signed_certificate(
    diagnose: Diagnose, authority: trustme.CA, tmp_path: Path
) -> None:
    """A certificate that nobody but itself vouches for fails `tls` as self-signed."""
    path = tmp_path / "self.pem"
    authority.private_key_pem.write_to_path(str(path))
    authority.cert_pem.write_to_path(str(path), append=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    async with sick.sound(tls=context) as url:
        found = await diagnose(url)
    found.says("tls", "failed", "self-signed", "SSL_CERT_FILE")
    assert (found.failed, found.code) == (["tls"], EXIT_UNREACHABLE)


async def test_doctor_warns_of_a_certificate_that_expires_soon(
    diagnose: Diagnose, trusted: trustme.CA
) -> None:
    """A certificate with three days left is a warning with the days, and the examination goes on."""
    soon = certified(trusted, "localhost", not_after=datetime.now(UTC) + timedelta(days=3, hours=1))
    async with sick.sound(tls=soon) as url:
        found = await diagnose(url)
    found.says("tls", "warning", "expires in 3 days", "Renew")
    assert (found.failed, found.code) == ([], EXIT_OK)
    assert found.checks["heartbeat"]["verdict"] == "ok"


# HTTP.


async def _missing(_: web.Request) -> web.Response:
    return web.Response(status=404, text="nothing here")


async def _bad_gateway(_: web.Request) -> web.Response:
    return web.Response(status=502, text="<html>502</html>", headers={"Server": "nginx/1.24.0"})


async def _overloaded(_: web.Request) -> web.Response:
    return web.Response(status=503, headers={"Retry-After": "7"})


async def _elsewhere(_: web.Request) -> web.Response:
    raise web.HTTPFound(f"https://elsewhere.example/socket.io/?token={canary.token()}")


async def _forbidden(_: web.Request) -> web.Response:
    return web.Response(status=403, text=canary.token())


async def _page(_: web.Request) -> web.Response:
    return web.Response(text="<!doctype html><title>Welcome</title>", content_type="text/html")


async def _gibberish(_: web.Request) -> web.Response:
    return web.Response(body=b"\x1b[2J\x00\xff", content_type="image/png")


async def _engine_3(_: web.Request) -> web.Response:
    packet = "0" + json.dumps(sick.OPEN)
    return web.Response(text=f"{len(packet)}:{packet}2:40")


async def _engine_3_in_binary(_: web.Request) -> web.Response:
    packet = b"0" + json.dumps(sick.OPEN).encode()
    length = bytes(int(digit) for digit in str(len(packet)))
    return web.Response(body=b"\x00" + length + b"\xff" + packet)


async def _other_version(_: web.Request) -> web.Response:
    return web.json_response({"code": 5, "message": "Unsupported protocol version"}, status=400)


async def _half_open(_: web.Request) -> web.Response:
    return sick.opening({"sid": "abcdefgh"})


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (_missing, ("http", EXIT_FAILED, ("/socket.io/", "404", "--path"))),
        (_bad_gateway, ("http", EXIT_UNREACHABLE, ("A proxy answers", "nginx/1.24.0", "502", "behind"))),
        (_overloaded, ("http", EXIT_UNREACHABLE, ("503", "overloaded"))),
        (_elsewhere, ("http", EXIT_REFUSED, ("redirects", "https://elsewhere.example", "final address"))),
        (_forbidden, ("http", EXIT_REFUSED, ("refuses the identity", "403"))),
        (_page, ("handshake", EXIT_FAILED, ("web page", "no Socket.IO server", "--path"))),
        (_gibberish, ("handshake", EXIT_FAILED, ("OPEN packet", "image/png"))),
        (_engine_3, ("handshake", EXIT_FAILED, ("Engine.IO 3", "Update the server"))),
        (_engine_3_in_binary, ("handshake", EXIT_FAILED, ("Engine.IO 3", "Update the server"))),
        (
            _other_version,
            ("handshake", EXIT_FAILED, ("Engine.IO 4", "Unsupported protocol version", "Update")),
        ),
        (_half_open, ("handshake", EXIT_FAILED, ("lacks", "pingInterval"))),
        (sick.forgets, ("handshake", EXIT_FAILED, ("does not know it in the next request", "sticky"))),
    ],
)
async def test_doctor_names_what_answers_wrongly(
    diagnose: Diagnose, answer: sick.Answer, expected: tuple[str, int, tuple[str, ...]]
) -> None:
    """An HTTP server that is no sound Socket.IO server fails the one check that can tell what it is."""
    check, code, words = expected
    async with sick.answering(answer) as url:
        found = await diagnose(url)
    found.says(check, "failed", *words)
    assert (found.failed, found.code) == ([check], code)


# The websocket.


@pytest.mark.parametrize(
    ("proxy", "words"),
    [
        (sick.refuses_upgrades, ("refused", "HTTP 400")),
        (sick.swallows_upgrades, ("Nothing answers", "swallows")),
        (sick.swallows_frames, ("opens", "nothing comes through")),
    ],
)
async def test_doctor_names_a_websocket_that_a_proxy_keeps_away(
    diagnose: Diagnose, proxy: Any, words: tuple[str, ...]
) -> None:
    """Only `websocket` fails, the rest is examined over polling, and the remedy is the proxy's setting."""
    async with sick.sound(in_front=proxy) as url:
        found = await diagnose(url)
    found.says("websocket", "failed", *words, "Polling works", "proxy_set_header Upgrade")
    assert (found.failed, found.code) == (["websocket"], EXIT_FAILED)
    assert found.checks["namespace"]["details"]["transport"] == "polling"
    assert found.checks["heartbeat"]["verdict"] == "ok"


async def test_doctor_warns_of_a_server_without_polling(diagnose: Diagnose) -> None:
    """A server that takes websockets only is a warning, and is examined over a websocket."""
    async with sick.sound(transports=["websocket"]) as url:
        found = await diagnose(url)
    found.says("handshake", "warning", "no polling")
    assert (found.failed, found.code) == ([], EXIT_OK)
    assert found.checks["namespace"]["details"]["transport"] == "websocket"


# The namespace and the identity.


async def test_doctor_names_a_namespace_that_is_not_there(diagnose: Diagnose) -> None:
    """A namespace that the server does not have fails `namespace`: refused."""
    async with sick.sound(handlers={"connect": lambda sid, environ: None}) as url:
        found = await diagnose(url, "--namespace", "/none")
    found.says("namespace", "failed", "no namespace /none", "--namespace")
    assert (found.failed, found.code) == (["namespace"], EXIT_REFUSED)


async def test_doctor_names_a_connection_handler_that_hangs(diagnose: Diagnose) -> None:
    """A handler that neither lets in nor refuses fails `namespace`, by the time-out."""
    release = asyncio.Event()

    async def hangs(sid: str, environ: object) -> None:
        await release.wait()

    async with sick.sound(handlers={"connect": hangs}) as url:
        found = await diagnose(url)
        release.set()
    found.says("namespace", "failed", "nothing answers for the namespace /", "handler hangs")
    assert (found.failed, found.code) == (["namespace"], EXIT_FAILED)


async def test_doctor_names_a_missing_token(diagnose: Diagnose) -> None:
    """A server that wants a token, and gets none, fails `authentication` with the option to use."""
    async with WebSocketService(BackendConfig(port=0, secret=canary.SIGNING)) as backend:
        found = await diagnose(backend.url, "--dialect", "reference")
    found.says("authentication", "failed", "No token was given", "--token-env")
    assert (found.failed, found.code) == (["authentication"], EXIT_REFUSED)


async def test_doctor_names_a_refused_token(diagnose: Diagnose, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that the server refuses fails `authentication`; the server repeats it, and it is not shown."""
    monkeypatch.setenv("A_TOKEN", canary.token())

    def refuses(sid: str, environ: object, auth: dict[str, str]) -> None:
        raise sick.socketio.exceptions.ConnectionRefusedError(f"unknown: {auth['token']} \x1b[2J")

    async with sick.sound(handlers={"connect": refuses}) as url:
        found = await diagnose(url, "--token-env", "A_TOKEN")
    found.says("authentication", "failed", "refuses the token in A_TOKEN", "unknown: ***", "auth.token")
    assert "\x1b" not in found.checks["authentication"]["message"]
    assert (found.failed, found.code) == (["authentication"], EXIT_REFUSED)


async def test_doctor_names_an_expired_token(diagnose: Diagnose, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that is over by its own words is said to be, with since when."""
    monkeypatch.setenv("A_TOKEN", canary.jwt("me", -100.0))
    async with WebSocketService(BackendConfig(port=0, secret=canary.SIGNING)) as backend:
        found = await diagnose(backend.url, "--dialect", "reference", "--token-env", "A_TOKEN")
    found.says("authentication", "failed", "The token in A_TOKEN expired 10", "fresh token", "clocks")
    assert (found.failed, found.code) == (["authentication"], EXIT_REFUSED)


# The open connection.


async def test_doctor_names_a_heartbeat_that_is_never_acknowledged(diagnose: Diagnose) -> None:
    """What the dialect promises and the server does not do fails; where it promises nothing, it warns."""
    async with sick.sound(acknowledges=False) as url:
        found = await diagnose(url, "--dialect", "reference")
        plain = await diagnose(url)
    found.says("heartbeat", "failed", "does not acknowledge `heartbeat`", "Add a handler", "--dialect plain")
    found.says("recovery", "failed", "does not confirm `subscribe`", "--dialect plain")
    assert (found.failed, found.code) == (["heartbeat", "recovery"], EXIT_FAILED)
    plain.says("heartbeat", "warning", "pings of the websocket are answered", "Add a handler")
    assert (plain.failed, plain.code) == ([], EXIT_OK)


async def test_doctor_names_a_connection_that_is_open_and_deaf(diagnose: Diagnose) -> None:
    """A server that lets the client in, and then answers neither events nor pings, fails `heartbeat`."""
    async with sick.answering(sick.deaf) as url:
        found = await diagnose(url)
    found.says("heartbeat", "failed", "open, and deaf", "proxy passes nothing on")
    assert (found.failed, found.code) == (["heartbeat"], EXIT_FAILED)


async def test_doctor_names_a_server_that_ends_the_connection_at_once(diagnose: Diagnose) -> None:
    """A connection that ends right after it was accepted fails `heartbeat`, with what the server said."""

    async def ends_at_once(request: web.Request) -> web.StreamResponse:
        websocket = web.WebSocketResponse()
        if request.method == "POST":
            return web.Response(text="ok")
        if not websocket.can_prepare(request):
            return sick.opening(sick.OPEN)
        await websocket.prepare(request)
        await websocket.send_str("0" + json.dumps(sick.OPEN))
        await websocket.receive()
        await websocket.send_str('40{"sid":"x"}')
        await websocket.receive()
        await websocket.send_str("41")
        return websocket

    async with sick.answering(ends_at_once) as url:
        found = await diagnose(url)
    found.says("heartbeat", "failed", "The connection ended", "server's log")
    assert found.checks["idle"]["message"].startswith("The connection has ended")
    assert (found.failed, found.code) == (["heartbeat"], EXIT_FAILED)


async def test_doctor_names_a_proxy_that_cuts_silent_connections(diagnose: Diagnose) -> None:
    """A proxy's idle time-out fails `idle`, with the seconds survived, and the setting to change."""
    async with sick.sound() as url, sick.impatient_proxy(url, 0.4) as front:
        found = await diagnose(front, idle=5, patience=2)
        short = await diagnose(front, idle=0.05, patience=2)
    found.says("idle", "failed", "idle time-out", "pings only every 25 s", "proxy_read_timeout")
    assert 0.3 <= found.checks["idle"]["details"]["survived"] < 4
    assert (found.failed, found.code) == (["idle"], EXIT_FAILED)
    short.says("idle", "ok", "Survives", "--idle 27")


async def test_doctor_names_a_server_that_announces_pings_and_sends_none(diagnose: Diagnose) -> None:
    """Pings that do not come in the announced time fail `idle` as the server's silence, not as a cut."""

    async def quiet(request: web.Request) -> web.StreamResponse:
        packet = {**sick.OPEN, "pingInterval": 200, "pingTimeout": 200}
        if request.method == "POST":
            return web.Response(text="ok")
        websocket = web.WebSocketResponse()
        if not websocket.can_prepare(request):
            return sick.opening(packet)
        await websocket.prepare(request)
        await websocket.send_str("0" + json.dumps(packet))
        async for message in websocket:
            if message.data.startswith("40"):
                await websocket.send_str('40{"sid":"x","pid":"y"}')
            elif message.data.startswith("42"):
                await websocket.send_str("431[]")
        return websocket

    async with sick.answering(quiet) as url:
        found = await diagnose(url, idle=5, patience=1)
    found.says("idle", "failed", "announces pings every 0.2 s, and sends none", "buffering")
    assert found.checks["recovery"]["verdict"] == "ok"
    assert (found.failed, found.code) == (["idle"], EXIT_FAILED)


# Sound servers.


async def test_doctor_finds_nothing_wrong_with_the_reference_backend(
    diagnose: Diagnose, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference backend passes every check, over a websocket, and no session is left on it."""
    monkeypatch.setenv("A_TOKEN", canary.jwt("me", 60))
    async with WebSocketService(BackendConfig(port=0, secret=canary.SIGNING)) as backend:
        found = await diagnose(
            backend.url, "--dialect", "reference", "--token-env", "A_TOKEN", idle=0.2, patience=5
        )
        assert backend.subscriber_count("realtime-fsm-doctor") == 0
    verdicts = {name: check["verdict"] for name, check in found.checks.items()}
    assert verdicts.pop("tls") == "skipped"
    assert set(verdicts.values()) == {"ok"}
    assert found.code == EXIT_OK
    assert found.checks["recovery"]["details"]["kind"] == "replay"


async def test_doctor_finds_nothing_wrong_with_a_plain_server_over_tls(
    diagnose: Diagnose, trusted: trustme.CA
) -> None:
    """A plain python-socketio server over TLS passes; that it replays nothing is a warning, not a failure."""
    context = certified(trusted, "localhost", not_after=datetime.now(UTC) + timedelta(days=90))
    async with sick.sound(tls=context) as url:
        found = await diagnose(url, idle=0.2, patience=5)
    verdicts = {name: check["verdict"] for name, check in found.checks.items()}
    assert verdicts.pop("recovery") == "warning"
    assert set(verdicts.values()) == {"ok"}
    assert found.code == EXIT_OK
    assert found.checks["tls"]["details"]["version"] in {"TLSv1.2", "TLSv1.3"}


# The command.


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {}])
async def test_doctor_prints_a_line_for_each_check_into_a_pipe(environment: dict[str, str]) -> None:
    """In a pipe each check is one line with its glyph and word, uncoloured, and the token is nowhere."""
    async with sick.sound() as url:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "realtime_fsm.cli", "doctor", url, "--idle", "0.1"),
            *("--token-env", "A_TOKEN"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **environment, "A_TOKEN": canary.token()},
        )
        async with asyncio.timeout(20):
            out, error = await canary.output_of(process)
    assert (process.returncode, error.decode()) == (EXIT_OK, "")
    *lines, summary = out.decode().splitlines()
    assert "\x1b" not in out.decode()
    words = {"✓": "ok", "!": "warning", "✗": "failed", "-": "skipped"}
    for line, check in zip(lines, CHECKS, strict=True):
        glyph, word, name, *_ = line.split()
        assert (words[glyph], check.name) == (word, name)
    assert summary.startswith(f"{url}: 10 ok, 1 warning, 1 skipped")


@pytest.mark.parametrize(
    ("address", "failed", "end"),
    [
        ("http://127.0.0.1:{closed}", "tcp", "; unreachable (exit code 3)"),
        ("localhost:{closed}", "configuration", "; wrong usage (exit code 2)"),
    ],
)
def test_doctor_does_not_hide_what_failed_among_what_was_skipped(
    capsys: pytest.CaptureFixture[str], address: str, failed: str, end: str
) -> None:
    """For people, the checks after the failed one share a line; the last line says what it comes to."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = address.format(closed=listener.getsockname()[1])
    command_line(["doctor", url])
    *_, wrong, skipped, summary = capsys.readouterr().out.splitlines()
    assert wrong.split()[:3] == ["✗", "failed", failed]
    names = [check.name for check in CHECKS]
    later = ", ".join(names[names.index(failed) + 1 :])
    assert skipped == f"- skipped {later}  Not tried, because `{failed}` failed."
    assert summary.startswith(f"{url}: ")
    assert summary.endswith(end)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--timeout", "0"],
        ["--timeout", "soon"],
        ["--idle", "-1"],
        ["--idle", "nan"],
        ["--dialect", "klingon"],
    ],
)
def test_doctor_refuses_arguments_that_make_no_sense(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """An argument that cannot be meant is usage (2), and named."""
    with pytest.raises(SystemExit) as caught:
        command_line(["doctor", "http://127.0.0.1:9", *arguments])
    assert caught.value.code == EXIT_USAGE
    assert arguments[0] in capsys.readouterr().err


def test_doctor_refuses_a_variable_that_is_not_set(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that is not there is usage (2), before anything is tried."""
    monkeypatch.delenv("NO_SUCH_TOKEN", raising=False)
    assert command_line(["doctor", "http://127.0.0.1:9", "--token-env", "NO_SUCH_TOKEN"]) == EXIT_USAGE
    out, error = capsys.readouterr()
    assert out == ""
    assert "NO_SUCH_TOKEN" in error


async def test_doctor_in_code_tells_each_finding_as_it_comes() -> None:
    """`examine` tells the findings in order, gives the same ones in its report, and leaves nothing open."""
    told = []
    async with sick.sound() as url:
        target = Target(config=RealtimeConfig(server_url=url), token=canary.token(), idle=0.05)
        report = await examine(target, told.append)
    assert tuple(told) == report.findings
    assert report.is_ok
    assert report.finding("namespace").verdict is Verdict.OK
    assert canary.found_in(repr(target), repr(report)) == []
    with pytest.raises(KeyError):
        report.finding("horoscope")


def test_doctor_gives_its_target_by_the_former_name_with_a_warning() -> None:
    """`Patient` is still importable: it is `Target`, and a warning says so."""
    with pytest.warns(DeprecationWarning, match="Target"):
        from realtime_fsm.doctor import Patient  # noqa: PLC0415
    assert Patient is Target
