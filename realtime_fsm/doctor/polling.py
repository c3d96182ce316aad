"""HTTP, and Engine.IO over it: the first request of every Socket.IO client."""

import json
import logging
import re
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import aiohttp

from realtime_fsm.adapters import error_translation, frame
from realtime_fsm.adapters.error_translation import words
from realtime_fsm.adapters.frame import Handshake
from realtime_fsm.doctor.finding import Fault, Finding, failed, from_error, ok, warning
from realtime_fsm.doctor.network import speaks_tls
from realtime_fsm.doctor.patient import HttpAnswer, Patient
from realtime_fsm.machine.errors import NotSocketIOError

HTTP: Final = "http"
HANDSHAKE: Final = "handshake"

_MOST_READ: Final = 64 * 1024
_SHOWN: Final = 60
_ENGINE_3: Final = re.compile(rb"\A(?:\d+:0\{|\x00[\x00-\x09]{1,9}\xff0\{)")
"""How the payload of an Engine.IO 3 server begins: with the length of its packet, as text or in binary."""

_NO_TRANSPORT: Final = 0  # Engine.IO's own error codes
_NO_SESSION: Final = 1
_OTHER_VERSION: Final = 5
_NOT_THERE: Final = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.GONE})
_BEHIND: Final = frozenset({HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT})

_logger = logging.getLogger("realtime_fsm.doctor")


async def check_http(patient: Patient) -> Finding:
    """Ask as a Socket.IO client does, and look at the status alone."""
    url = patient.endpoint("polling")
    try:
        async with patient.session() as session, session.get(url, allow_redirects=False) as response:
            body = await response.content.read(_MOST_READ)
            patient.answer = HttpAnswer(response.status, response.headers, body)
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return await _no_http(patient, error, url)
    return await _judged(patient, patient.answer, url)


async def _no_http(patient: Patient, error: Exception, url: str) -> Finding:
    if not patient.is_secure and await speaks_tls(patient):
        return _wants_tls(patient)
    if isinstance(error, TimeoutError):
        return failed(
            HTTP,
            Fault.UNREACHABLE,
            f"{patient.place} accepts the connection and says nothing: no HTTP answer in "
            f"{patient.timeout:g} s.",
            "The server hangs, or is not an HTTP server: look at its log and its load, or raise --timeout.",
        )
    return from_error(
        HTTP,
        error_translation.from_exception(error, url=url),
        "Check that an HTTP server listens at this port, and look at its log.",
    )


def _wants_tls(patient: Patient) -> Finding:
    return failed(
        HTTP,
        Fault.UNREACHABLE,
        f"{patient.place} speaks TLS, and was asked without.",
        f"Use https://{patient.place} instead of http://.",
    )


async def _judged(patient: Patient, answer: HttpAnswer, url: str) -> Finding:
    status = answer.status
    if status == HTTPStatus.OK:
        return ok(HTTP, f"{patient.place} answers (HTTP {status}{_server_of(answer)}).", status=status)
    if status == HTTPStatus.BAD_REQUEST and not patient.is_secure and await speaks_tls(patient):
        return _wants_tls(patient)
    if status == HTTPStatus.BAD_REQUEST:  # it is for the next check to say what the server means
        return ok(HTTP, f"{patient.place} answers (HTTP {status}{_server_of(answer)}).", status=status)
    error = error_translation.from_status(status, answer.headers, url=url)
    said, remedy = error.message, ""
    if status in _NOT_THERE:
        path = f"/{patient.config.socketio_path.strip('/')}/"
        said = f"Nothing speaks Socket.IO at the path {path} (HTTP {status}{_server_of(answer)})."
        remedy = "Set `socketio_path` (--path) to the server's, or make the proxy pass this path on to it."
    elif status in _BEHIND:
        said = f"A proxy answers{_server_of(answer)}: the server behind it does not (HTTP {status})."
        remedy = (
            "Start the server behind the proxy, and check the address to which the proxy passes requests."
        )
    elif HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        remedy = _remedy_of_redirect(answer, url)
    return from_error(HTTP, type(error)(said), remedy, status=status, retry_after=error.retry_after)


def _remedy_of_redirect(answer: HttpAnswer, url: str) -> str:
    target = urljoin(url, answer.headers.get("Location", ""))
    if error_translation.origin_of(target) != error_translation.origin_of(url):
        return f"Use the final address: {error_translation.origin_of(target)}"
    return (
        f"Make the server answer at /{urlsplit(url).path.strip('/')}/ itself; a client follows no redirect."
    )


def _server_of(answer: HttpAnswer) -> str:
    named = answer.headers.get("Server", "")
    return f", {words(named)[:_SHOWN]}" if named else ""


async def check_handshake(patient: Patient) -> Finding:
    """Read the OPEN packet, and close the session that it has opened."""
    answer = patient.answer
    if answer is None:  # pragma: no cover - a failed `http` stops the examination
        raise AssertionError("no answer to look at")
    if answer.status != HTTPStatus.OK:
        return _refused(patient, answer)
    packet, _, _ = answer.body.partition(frame.SEPARATOR.encode())
    text = packet.decode(errors="replace")
    if not text.startswith(frame.OPEN + "{"):
        return _other_body(answer)
    patient.handshake = Handshake.parse(text[1:])
    if patient.handshake is None:
        return failed(
            HANDSHAKE,
            Fault.UNSOUND,
            "The server's OPEN packet lacks sid, upgrades, pingInterval or pingTimeout, or holds nonsense.",
            "Update the server's Socket.IO library, and see that no proxy changes the bodies of answers.",
        )
    return await _announced(patient, patient.handshake, json.loads(text[1:]))


async def _announced(patient: Patient, handshake: Handshake, packet: dict[str, Any]) -> Finding:
    details: dict[str, Any] = {
        "engineio": 4,
        "ping_interval": handshake.ping_interval,
        "ping_timeout": handshake.ping_timeout,
        "upgrades": [word for word in packet["upgrades"] if isinstance(word, str)],
        "max_payload": packet.get("maxPayload"),
    }
    if await _is_forgotten(patient, packet["sid"]):
        return failed(
            HANDSHAKE,
            Fault.UNSOUND,
            "The server opens a session, and does not know it in the next request.",
            "Several servers stand behind one address: make the balancer keep a client with one (sticky).",
            **details,
        )
    patient.transports.append("polling")
    return ok(
        HANDSHAKE,
        f"Engine.IO 4: a session opens over polling; pings every {handshake.ping_interval:g} s, "
        f"waits {handshake.ping_timeout:g} s.",
        **details,
    )


async def _is_forgotten(patient: Patient, sid: str) -> bool:
    """Close the session; tell whether the server has never heard of it."""
    url = patient.endpoint("polling", sid=sid)
    try:
        async with (
            patient.session() as session,
            session.post(url, data=frame.CLOSE, allow_redirects=False) as response,
        ):
            body = await response.content.read(_MOST_READ)
            if response.status != HTTPStatus.BAD_REQUEST:
                return False
    except (aiohttp.ClientError, OSError) as error:
        _logger.debug("the session could not be closed: %s", type(error).__name__)
        return False
    code, said = _complaint(body)
    return code == _NO_SESSION or "session" in said.lower()


def _refused(patient: Patient, answer: HttpAnswer) -> Finding:
    """Say why an Engine.IO server, or something else, answers 400."""
    code, said = _complaint(answer.body)
    lower = said.lower()
    if code == _OTHER_VERSION or ("unsupported" in lower and "version" in lower):
        return failed(
            HANDSHAKE,
            Fault.UNSOUND,
            f"The server does not speak Engine.IO 4: {said}.",
            "Update the server to Socket.IO 3 or later (python-socketio 5 or later).",
        )
    if code == _NO_TRANSPORT or "transport" in lower:
        wanted = "polling" in patient.config.transports
        report = warning if wanted else ok
        return report(
            HANDSHAKE,
            "The server takes no polling, only websockets.",
            "Where websockets are blocked there is no other way: allow polling on the server.",
        )
    return failed(
        HANDSHAKE,
        Fault.UNSOUND,
        f"The server refuses the first request (HTTP {answer.status}): {said or 'without a reason'}.",
        "Look at the log of the server, or of the proxy in front of it, for why.",
    )


def _complaint(body: bytes) -> tuple[int | None, str]:
    """Return the code and the words of an Engine.IO server: an object from Node, a string from Python."""
    text = body.decode(errors="replace")
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return None, words(text)[:_SHOWN]
    if isinstance(told, dict):
        code = told.get("code")
        return (code if type(code) is int else None), words(told.get("message", "")).rstrip(".")
    return None, words(told).rstrip(".")


def _other_body(answer: HttpAnswer) -> Finding:
    """Say what it is that answers instead of an Engine.IO server."""
    if _ENGINE_3.match(answer.body):
        return failed(
            HANDSHAKE,
            Fault.UNSOUND,
            "The server speaks Engine.IO 3: it is Socket.IO 2 or older.",
            "Update the server to Socket.IO 3 or later; its `allowEIO3` is for old clients only.",
        )
    kind = words(answer.headers.get("Content-Type", "no content type")).partition(";")[0][:_SHOWN]
    begins = answer.body.lstrip()[:15].lower()
    if "html" in kind.lower() or begins.startswith((b"<!doctype html", b"<html")):
        said = "A web page answers, and no Socket.IO server."
        remedy = "Check the address and `socketio_path` (--path): a web server or a catch-all route answers."
    else:
        said = f"What answers does not begin with an Engine.IO OPEN packet ({kind})."
        remedy = NotSocketIOError.default_remedy
    return failed(HANDSHAKE, Fault.UNSOUND, said, remedy)
