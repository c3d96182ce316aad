"""The errors of aiohttp, of the operating system and of a Socket.IO server, in the words of the library.

Translated once, here. A message names hosts and status codes, and never a query, a header or a token.
"""

import math
import os
import ssl
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import aiohttp

from realtime_fsm.machine.errors import (
    AuthenticationError,
    ConnectionLostError,
    InternalError,
    MalformedFrameError,
    NamespaceRefusedError,
    NotSocketIOError,
    PayloadTooLargeError,
    ProtocolError,
    RealtimeError,
    RedirectRefusedError,
    ServerDisconnectError,
    ServerUnavailableError,
    ServerUnreachableError,
)
from realtime_fsm.machine.redaction import redacted

_MAX_WORDS: Final = 200
_MAX_RETRY_DIGITS: Final = 9
_NO_SUCH_NAMESPACE: Final = frozenset({"Invalid namespace", "Unable to connect"})
"""What Node's server and python-socketio say when nothing listens in a namespace."""

_MESSAGE_TOO_BIG: Final = 1009
_PAGES: Final = frozenset({"text/html", "application/xhtml+xml"})
_GATEWAY_HEADERS: Final = ("cf-mitigated", "x-amzn-waf-action")
"""Headers by which gateways mark an answer as their own challenge, whatever its content."""
_FORBIDDEN_REMEDY: Final = (
    "A gateway or a firewall before the server may stop this client, or the server wants a token: see to "
    "that if it lasts. It is tried again by itself."
)


def origin_of(url: str) -> str:
    """Return the scheme, host and port of an address: all of it that may be shown."""
    try:
        parts = urlsplit(url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        port = "" if parts.port is None else f":{parts.port}"
    except ValueError:
        return "an address that cannot be read"
    return f"{parts.scheme}://{host}{port}"


def words(text: object) -> str:
    """Return a server's words, fit to be shown: one line of bounded length, and no JSON Web Token."""
    line = redacted(" ".join(str(text).split()))
    return line if len(line) <= _MAX_WORDS else line[: _MAX_WORDS - 1] + "…"


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return how many seconds a server asks to wait, from its ``Retry-After`` header.

    Source: RFC 9110, section 10.2.3. A date is read against the server's own clock where it tells it.
    """
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:_MAX_RETRY_DIGITS])
    due = _timestamp(value)
    if due is None:
        return None
    now = _timestamp(headers.get("Date", ""))
    return max(0.0, due - (time.time() if now is None else now))


def _timestamp(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def from_status(
    status: int, headers: Mapping[str, str], *, url: str, identified: bool = True
) -> RealtimeError:
    """Translate the status of an HTTP answer that is not the wanted one.

    A 403 refuses an identity only where there was one, and where a server says so: a page for people comes
    from a gateway before it, which will let the client pass again.

    Args:
        status: Of the answer.
        headers: Of the answer.
        url: What was asked; only its origin is shown.
        identified: Whether whoever asked has said who they are.
    """
    where = origin_of(url)
    if status == HTTPStatus.FORBIDDEN and (not identified or _is_page(headers)):
        return ServerUnavailableError(
            f"{where} lets nobody pass now (HTTP {status}).",
            status=status,
            retry_after=retry_after(headers),
            remedy=_FORBIDDEN_REMEDY,
        )
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return AuthenticationError(f"{where} refuses the identity (HTTP {status}).")
    if status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return ServerUnavailableError(
            f"{where} cannot serve now (HTTP {status}).", status=status, retry_after=retry_after(headers)
        )
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        location = headers.get("Location")
        to = "" if location is None else f" to {origin_of(urljoin(url, location))}"
        return RedirectRefusedError(f"{where} redirects{to} (HTTP {status}).")
    return NotSocketIOError(f"{where} does not answer as a Socket.IO server (HTTP {status}).")


def _is_page(headers: Mapping[str, str]) -> bool:
    """Tell whether an answer is a page for people, or a gateway says that it is its own."""
    kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return kind in _PAGES or any(name in headers for name in _GATEWAY_HEADERS)


def from_exception(error: BaseException, *, url: str, identified: bool = True) -> RealtimeError:
    """Translate what was raised on the way to a server; the original becomes the cause.

    Args:
        error: What was raised.
        url: What was asked; only its origin is shown.
        identified: As for ``from_status``.
    """
    if isinstance(error, RealtimeError):
        return error
    translated = _translate(error, url, origin_of(url), identified=identified)
    translated.__cause__ = error
    return translated


def _translate(error: BaseException, url: str, where: str, *, identified: bool) -> RealtimeError:
    match error:
        case aiohttp.WSServerHandshakeError():
            if error.status in {HTTPStatus.SWITCHING_PROTOCOLS, HTTPStatus.OK}:
                return NotSocketIOError(f"{where} does not open a WebSocket ({words(error.message)}).")
            return from_status(error.status, error.headers or {}, url=url, identified=identified)
        case aiohttp.ServerDisconnectedError():
            return NotSocketIOError(f"{where} closes the connection without an answer.")
        case TimeoutError():
            return ServerUnreachableError(f"{where} does not answer in time.")
        case OSError():
            return _from_os_error(error, where)
        case aiohttp.ClientPayloadError():
            return ServerUnreachableError(f"The answer of {where} was cut off.")
        case aiohttp.ClientResponseError():
            return NotSocketIOError(f"{where} does not speak HTTP.")
        case aiohttp.ClientConnectionError():
            return ServerUnreachableError(f"The connection to {where} ended.")
    return InternalError(f"{type(error).__name__} on the way to {where}.")


def _from_os_error(error: OSError, where: str) -> RealtimeError:
    match error:
        case aiohttp.ClientConnectorCertificateError():
            reason = error.certificate_error
            return ServerUnreachableError(f"The certificate of {where} is refused: {words(reason)}.")
        case ssl.SSLError() | aiohttp.ClientSSLError():
            return ServerUnreachableError(f"No TLS connection with {where}: {words(error)}.")
        case aiohttp.ClientConnectorError():
            return ServerUnreachableError(f"{where} cannot be reached: {_os_words(error.os_error)}.")
    return ServerUnreachableError(f"The connection to {where} failed: {_os_words(error)}.")


def _os_words(error: OSError) -> str:
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return words(error.strerror or error)  # a name that cannot be resolved has no errno of the system


def from_refusal(payload: Any) -> RealtimeError:
    """Translate the payload of a CONNECT_ERROR packet.

    A server that follows the reference says the category itself; of all others a refusal is taken as one of
    the identity, because that is what connection handlers and middlewares refuse.

    Args:
        payload: ``{"message": str, "data": ...}``, or whatever else a server sends.
    """
    message = payload.get("message") if isinstance(payload, dict) else payload
    data = payload.get("data") if isinstance(payload, dict) else None
    said = words(message) if isinstance(message, str) and message else "without a reason"
    text = f"The server refuses the connection: {said}."
    told = data if isinstance(data, dict) else {}
    category = told.get("category")
    if category == "connection":
        return ServerUnavailableError(text, retry_after=_seconds(told.get("retry_after")))
    if category == "protocol":
        return ProtocolError(text)
    if category is None and said in _NO_SUCH_NAMESPACE:
        return NamespaceRefusedError(text)
    return AuthenticationError(text)


def _seconds(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        seconds = float(value)
    except OverflowError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def from_websocket_error(error: BaseException | None, limit: int) -> RealtimeError:
    """Translate what aiohttp found wrong with the frames of a WebSocket."""
    if isinstance(error, aiohttp.WebSocketError) and error.code == _MESSAGE_TOO_BIG:
        translated: RealtimeError = too_large(limit)
    elif isinstance(error, aiohttp.WebSocketError):
        translated = MalformedFrameError(f"The WebSocket's frames are broken (code {error.code}).")
    elif isinstance(error, OSError):
        translated = ConnectionLostError(f"The connection broke: {_os_words(error)}.")
    else:
        translated = ConnectionLostError("The connection broke.")
    translated.__cause__ = error
    return translated


def from_close_code(code: int | None, reason: str | None) -> RealtimeError:
    """Translate the close frame of a WebSocket; without one the connection just ended."""
    if code is None:
        return ConnectionLostError("The connection ended without a goodbye.")
    said = f": {words(reason)}" if reason else ""
    hint = None
    if code == _MESSAGE_TOO_BIG:
        hint = "A message is larger than the server accepts: lower `max_message_bytes`."
    return ServerDisconnectError(f"The server closed the WebSocket (code {code}{said}).", remedy=hint)


def too_large(limit: int) -> PayloadTooLargeError:
    """Return the error for a frame or an answer that exceeds the limit."""
    return PayloadTooLargeError(f"The server sent more than max_inbound_bytes={limit} at once.")


def as_loss(error: RealtimeError) -> RealtimeError:
    """Return what an error means to a connection that was open: mostly that it is lost.

    A refused identity, an overloaded server and broken frames stay what they are.
    """
    if isinstance(error, ServerUnreachableError):
        lost: RealtimeError = ConnectionLostError(error.message)
    elif isinstance(error, NotSocketIOError):
        lost = ConnectionLostError(f"The session ended: {error.message}")
    else:
        return error
    lost.__cause__ = error.__cause__ or error
    return lost
