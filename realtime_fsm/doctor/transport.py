"""The checks of the two transports: HTTP and Engine.IO over it, and the websocket."""

import asyncio
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
from realtime_fsm.doctor.examination import Examination, FirstAnswer, Target
from realtime_fsm.doctor.finding import Fault, Finding, failed, from_error, ok, skipped, warning
from realtime_fsm.doctor.network import speaks_tls
from realtime_fsm.machine.errors import NotSocketIOError, RealtimeError

HTTP: Final = "http"
HANDSHAKE: Final = "handshake"
WEBSOCKET: Final = "websocket"

_MOST_READ: Final = 64 * 1024
_SHOWN: Final = 60
_ENGINE_3: Final = re.compile(rb"\A(?:\d+:0\{|\x00[\x00-\x09]{1,9}\xff0\{)")
"""The beginning of an Engine.IO 3 server's payload: the length of its packet, as text or in binary."""

_NO_TRANSPORT: Final = 0  # Engine.IO's own error codes
_NO_SESSION: Final = 1
_OTHER_VERSION: Final = 5
_NOT_THERE: Final = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.GONE})
_BEHIND: Final = frozenset({HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT})

_WEBSOCKET_CLOSE_TIMEOUT: Final = 0.5
_NEEDS_UPGRADES: Final = (
    "Make the proxy pass upgrades on; nginx: proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; "
    'proxy_set_header Connection "upgrade";'
)

_logger = logging.getLogger("realtime_fsm.doctor")


async def check_http(examination: Examination) -> Finding:
    """Ask as a Socket.IO client does, and look at the status alone."""
    target = examination.target
    url = target.endpoint("polling")
    try:
        async with examination.session() as session, session.get(url, allow_redirects=False) as response:
            body = await response.content.read(_MOST_READ)
            examination.answer = FirstAnswer(response.status, response.headers, body)
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return await _no_http(examination, error, url)
    return await _judged(examination, examination.answer, url)


async def _no_http(examination: Examination, error: Exception, url: str) -> Finding:
    target = examination.target
    if not target.is_secure and await speaks_tls(examination):
        return _wants_tls(target)
    if isinstance(error, TimeoutError):
        return failed(
            HTTP,
            Fault.UNREACHABLE,
            f"{target.authority} accepts the connection and says nothing: no HTTP answer in "
            f"{target.timeout:g} s.",
            "The server hangs, or is not an HTTP server: look at its log and its load, or raise --timeout.",
        )
    return from_error(
        HTTP,
        error_translation.from_exception(error, url=url),
        "Check that an HTTP server listens at this port, and look at its log.",
    )


def _wants_tls(target: Target) -> Finding:
    return failed(
        HTTP,
        Fault.UNREACHABLE,
        f"{target.authority} speaks TLS, and was asked without.",
        f"Use https://{target.authority} instead of http://.",
    )


async def _judged(examination: Examination, answer: FirstAnswer, url: str) -> Finding:
    target = examination.target
    status = answer.status
    if status == HTTPStatus.OK:
        return ok(HTTP, f"{target.authority} answers (HTTP {status}{_server_of(answer)}).", status=status)
    if status == HTTPStatus.BAD_REQUEST and not target.is_secure and await speaks_tls(examination):
        return _wants_tls(target)
    if status == HTTPStatus.BAD_REQUEST:  # it is for the next check to say what the server means
        return ok(HTTP, f"{target.authority} answers (HTTP {status}{_server_of(answer)}).", status=status)
    error = error_translation.from_status(status, answer.headers, url=url)
    said, remedy = error.message, ""
    if status in _NOT_THERE:
        path = f"/{target.config.socketio_path.strip('/')}/"
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


def _remedy_of_redirect(answer: FirstAnswer, url: str) -> str:
    target = urljoin(url, answer.headers.get("Location", ""))
    if error_translation.origin_of(target) != error_translation.origin_of(url):
        return f"Use the final address: {error_translation.origin_of(target)}"
    return (
        f"Make the server answer at /{urlsplit(url).path.strip('/')}/ itself; a client follows no redirect."
    )


def _server_of(answer: FirstAnswer) -> str:
    named = answer.headers.get("Server", "")
    return f", {words(named)[:_SHOWN]}" if named else ""


async def check_handshake(examination: Examination) -> Finding:
    """Read the OPEN packet, and close the session that it has opened."""
    answer = examination.answer
    if answer is None:  # pragma: no cover - a failed `http` stops the examination
        raise AssertionError("no answer to look at")
    if answer.status != HTTPStatus.OK:
        return _refused(examination.target, answer)
    packet, _, _ = answer.body.partition(frame.SEPARATOR.encode())
    text = packet.decode(errors="replace")
    if not text.startswith(frame.OPEN + "{"):
        return _other_body(answer)
    examination.handshake = Handshake.parse(text[1:])
    if examination.handshake is None:
        return failed(
            HANDSHAKE,
            Fault.UNSOUND,
            "The server's OPEN packet lacks sid, upgrades, pingInterval or pingTimeout, or holds nonsense.",
            "Update the server's Socket.IO library, and see that no proxy changes the bodies of answers.",
        )
    return await _announced(examination, examination.handshake, json.loads(text[1:]))


async def _announced(examination: Examination, handshake: Handshake, packet: dict[str, Any]) -> Finding:
    details: dict[str, Any] = {
        "engineio": 4,
        "ping_interval": handshake.ping_interval,
        "ping_timeout": handshake.ping_timeout,
        "upgrades": [word for word in packet["upgrades"] if isinstance(word, str)],
        "max_payload": packet.get("maxPayload"),
    }
    if await _is_forgotten(examination, packet["sid"]):
        return failed(
            HANDSHAKE,
            Fault.UNSOUND,
            "The server opens a session, and does not know it in the next request.",
            "Several servers stand behind one address: make the balancer keep a client with one (sticky).",
            **details,
        )
    examination.transports.append("polling")
    return ok(
        HANDSHAKE,
        f"Engine.IO 4: a session opens over polling; pings every {handshake.ping_interval:g} s, "
        f"waits {handshake.ping_timeout:g} s.",
        **details,
    )


async def _is_forgotten(examination: Examination, sid: str) -> bool:
    """Close the session; tell whether the server has never heard of it."""
    target = examination.target
    url = target.endpoint("polling", sid=sid)
    try:
        async with (
            examination.session() as session,
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


def _refused(target: Target, answer: FirstAnswer) -> Finding:
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
        wanted = "polling" in target.config.transports
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


def _other_body(answer: FirstAnswer) -> Finding:
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


async def check_websocket(examination: Examination) -> Finding:
    """Open a websocket as the client does, and wait for the OPEN packet to come through it."""
    target = examination.target
    if WEBSOCKET not in target.config.transports:
        return skipped(WEBSOCKET, "`transports` leaves websocket out.")
    try:
        async with asyncio.timeout(target.timeout), examination.session() as session:
            finding = await _opened(examination, session)
    except TimeoutError:
        return _blocked(
            examination,
            f"Nothing answers the request for a websocket within {target.timeout:g} s: a proxy swallows it.",
        )
    except (aiohttp.ClientError, OSError, RealtimeError) as error:
        return _not_opened(examination, error)
    if finding.fault is None:
        examination.transports.insert(0, WEBSOCKET)
        examination.transports.sort(key=target.config.transports.index)
    return finding


async def _opened(examination: Examination, session: aiohttp.ClientSession) -> Finding:
    target = examination.target
    websocket = await session.ws_connect(
        target.endpoint(WEBSOCKET),
        max_msg_size=target.config.max_inbound_bytes,
        timeout=aiohttp.ClientWSTimeout(ws_close=_WEBSOCKET_CLOSE_TIMEOUT),
    )
    try:
        try:
            async with asyncio.timeout(target.timeout / 2):
                message = await websocket.receive()
        except TimeoutError:
            return _blocked(examination, "A websocket opens, and nothing comes through it.")
        return _first_frame(examination, message)
    finally:
        await websocket.close()


def _first_frame(examination: Examination, message: aiohttp.WSMessage) -> Finding:
    text: Any = message.data
    if message.type is not aiohttp.WSMsgType.TEXT:
        code = f" (code {text})" if message.type is aiohttp.WSMsgType.CLOSE else ""
        return _blocked(examination, f"A websocket opens, and is closed at once{code}.")
    handshake = Handshake.parse(text[1:]) if text.startswith(frame.OPEN) else None
    if handshake is None:
        return failed(
            WEBSOCKET,
            Fault.UNSOUND,
            "A websocket opens, and what comes first is not an Engine.IO OPEN packet.",
            "Check `socketio_path` (--path): another websocket server answers there.",
        )
    examination.handshake = examination.handshake or handshake
    return ok(WEBSOCKET, "A websocket opens, and the server's first packet comes through it.")


def _not_opened(examination: Examination, error: Exception) -> Finding:
    target = examination.target
    if isinstance(error, aiohttp.WSServerHandshakeError):
        status = error.status
        if status == HTTPStatus.OK:
            said = "The request for a websocket is answered like any other (HTTP 200): its upgrade is lost."
        elif status == HTTPStatus.SWITCHING_PROTOCOLS:
            said = f"The answer to the upgrade is broken: {error_translation.words(error.message)}."
        else:
            said = f"The upgrade to a websocket is refused (HTTP {status})."
        return _blocked(examination, said, status=status)
    translated = error_translation.from_exception(error, url=target.config.server_url)
    return _blocked(examination, f"No websocket opens: {translated.message}")


def _blocked(examination: Examination, said: str, **details: Any) -> Finding:
    """Return that there is no websocket, and what the client does then."""
    then = " Polling works, and is used instead: slower." if "polling" in examination.transports else ""
    return failed(WEBSOCKET, Fault.UNSOUND, said + then, _NEEDS_UPGRADES, **details)
