"""The port ``HttpClient``, by aiohttp."""

import asyncio
import io
import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final, NoReturn

import aiohttp

from realtime_fsm.adapters import error_translation
from realtime_fsm.adapters.bounded_http import SocketRegistry, body_to_send, read_body
from realtime_fsm.engine.port import HttpAnswer
from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.machine.errors import (
    ConnectionLostError,
    InternalError,
    MalformedFrameError,
    NotSocketIOError,
    ProtocolError,
    RealtimeError,
    ServerUnavailableError,
    ServerUnreachableError,
)

_CLOSE_TIMEOUT: Final = 1.0
_NOTHING_DONE: Final = frozenset(
    {HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}
)
"""Answers with which a server says that it has not even begun."""


class AiohttpClient:
    """HTTP bounded in time and size. Follows no redirect, and shows the token only to the server's origin.

    Args:
        config: The server's origin, and the limits.
        connector_factory: Makes the connector; by default one for TCP.
    """

    def __init__(
        self,
        config: RealtimeConfig,
        connector_factory: Callable[[], aiohttp.BaseConnector] | None = None,
    ) -> None:
        self._config = config
        self._sockets = SocketRegistry()
        self._make_connector = self._sockets.connector if connector_factory is None else connector_factory
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    def open(self) -> None:
        """Be ready for requests; the session is opened by the first one."""
        self._closed = False

    async def get(self, url: str, *, token: str | None, etag: str | None) -> HttpAnswer:
        """Fetch JSON; see ``HttpClient.get``."""
        headers = {} if etag is None else {"If-None-Match": etag}
        return await self._request("GET", url, headers, token=token, data=None)

    async def post(self, url: str, body: object, *, token: str | None, idempotency_key: str) -> HttpAnswer:
        """Send JSON and return the JSON answer; see ``HttpClient.post``."""
        headers = {"Content-Type": "application/json", "Idempotency-Key": idempotency_key}
        data = json.dumps(body, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
        return await self._request("POST", url, headers, token=token, data=body_to_send(data))

    async def close(self) -> None:
        """Release the session and its sockets, at once and in bounded time."""
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            self._sockets.cut()
            closing = asyncio.ensure_future(session.close())
            await asyncio.wait({closing}, timeout=_CLOSE_TIMEOUT)
            closing.cancel()

    async def _request(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        *,
        token: str | None,
        data: bytes | io.BytesIO | None,
    ) -> HttpAnswer:
        if token is not None and self._config.is_own_origin(url):
            headers["Authorization"] = f"Bearer {token}"
        is_effective = method == "POST"
        try:
            return await self._fetch(method, url, headers | {"Accept": "application/json"}, data)
        except ServerUnavailableError as error:
            raise _as_doubt(error, is_effective and error.status not in _NOTHING_DONE) from error.__cause__
        except RealtimeError:
            raise
        except aiohttp.ClientResponseError as error:
            # Not chained: the original holds the headers of the request, and with them the token.
            translated = _for_http(error_translation.from_exception(error, url=url), url)
            raise _as_doubt(translated, is_effective) from None
        except aiohttp.ClientConnectorError as error:
            raise _for_http(error_translation.from_exception(error, url=url), url) from error
        except Exception as error:
            translated = _for_http(error_translation.from_exception(error, url=url), url)
            raise _as_doubt(translated, is_effective) from error

    async def _fetch(
        self, method: str, url: str, headers: dict[str, str], data: bytes | io.BytesIO | None
    ) -> HttpAnswer:
        session = self._opened_session()
        async with session.request(
            method, url, headers=headers, data=data, allow_redirects=False
        ) as response:
            status, etag = response.status, response.headers.get("ETag")
            if status == HTTPStatus.NOT_MODIFIED:
                return HttpAnswer(status=status, etag=etag)
            if not HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
                known = "Authorization" in headers
                error = error_translation.from_status(status, response.headers, url=url, identified=known)
                raise _for_http(error, url, status)
            limit = self._config.max_inbound_bytes
            raw = await read_body(response.content, limit)
            if raw is None:
                response.close()  # rather than to read the rest
                raise error_translation.too_large(limit)
            return HttpAnswer(status=status, body=_decode(raw, url), etag=etag, size_bytes=len(raw))

    def _opened_session(self) -> aiohttp.ClientSession:
        if self._closed:
            raise InternalError("The HTTP client is used after it was closed.")
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=self._make_connector(),
                timeout=aiohttp.ClientTimeout(total=self._config.request_timeout),
            )
        return self._session


def _as_doubt(error: RealtimeError, may_have_arrived: bool) -> RealtimeError:
    """Return what an error means for a request that has effects and may have had them."""
    if not (may_have_arrived and isinstance(error, (ServerUnreachableError, ServerUnavailableError))):
        return error
    return ConnectionLostError(
        f"{error.message} Whether the request was heeded is not known.", retry_after=error.retry_after
    )


def _for_http(error: RealtimeError, url: str, status: int | None = None) -> RealtimeError:
    """Return what an error means where no Socket.IO was expected."""
    if not isinstance(error, NotSocketIOError):
        return error
    where = error_translation.origin_of(url)
    if status is None:
        translated: RealtimeError = ServerUnreachableError(f"{where} gives no answer that can be read.")
    else:
        translated = ProtocolError(
            f"{where} refuses the request (HTTP {status}).",
            remedy="Check the address of the endpoint, and what the server expects there.",
        )
    translated.__cause__ = error.__cause__
    return translated


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _decode(raw: bytes, url: str) -> Any:
    """Return the JSON of a body, whatever its content type; ``None`` for an empty one."""
    if not raw:
        return None
    try:
        return json.loads(raw.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        reason = type(error).__name__
    # Not chained: the original holds the body, and with it whatever the server repeats.
    raise MalformedFrameError(
        f"{error_translation.origin_of(url)} does not answer with JSON ({reason}).",
        remedy="Check the address of the endpoint: it must answer with JSON.",
    )
