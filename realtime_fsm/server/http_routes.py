"""The HTTP side: polling, publishing, and the health check.

Web pages may use it from the configured origins, and from no other. A request without an ``Origin`` does not
come from a web page of elsewhere, and passes. Socket.IO's own path is guarded by python-engineio, by the
same list.
"""

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web

from realtime_fsm.machine.errors import ErrorCategory, ServerUnavailableError
from realtime_fsm.server.channels import Channels
from realtime_fsm.server.config import BackendConfig
from realtime_fsm.server.ledger import LedgerUnavailableError
from realtime_fsm.server.request import Answer, RequestError, problem, read_envelope, read_query
from realtime_fsm.server.router import Client, MessageRouter
from realtime_fsm.server.socketio_server import read_request
from realtime_fsm.server.token import Identity, TokenRefusedError, Verifier

EVENTS_PATH: Final = "/realtime/events"
MESSAGES_PATH: Final = "/realtime/messages"
HEALTH_PATH: Final = "/healthz"
LIVE_PATH: Final = "/livez"
READY_PATH: Final = "/readyz"

_PREFLIGHT: Final = {
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Idempotency-Key, If-None-Match",
    "Access-Control-Max-Age": "600",
}
_HEALTH_PATHS: Final = frozenset({HEALTH_PATH, LIVE_PATH, READY_PATH})
_NOT_STORED: Final = {"Cache-Control": "no-store"}
_MAX_MESSAGES: Final = 100
_MAX_BODY_MESSAGES: Final = 16
"""So many messages of the largest size fit into one request."""

_RouteHandler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class HttpRoutes:
    """The endpoints for clients without a socket, and for who watches the backend.

    Args:
        config: The origins and the limits.
        verifier: Says whose a token is.
        channels: What is polled.
        router: What published messages go through.
        unready: Says why no more clients should be sent here; empty where they may come.
    """

    def __init__(
        self,
        config: BackendConfig,
        verifier: Verifier,
        channels: Channels,
        router: MessageRouter,
        *,
        unready: Callable[[], tuple[str, ...]],
    ) -> None:
        self._config = config
        self._verifier = verifier
        self._channels = channels
        self._router = router
        self._unready = unready

    def add_to(self, app: web.Application) -> None:
        """Add the routes to an application."""
        for method, path, handler in (
            ("GET", HEALTH_PATH, self._health),
            ("GET", LIVE_PATH, self._live),
            ("GET", READY_PATH, self._ready),
            ("GET", EVENTS_PATH, self._identified(self._events)),
            ("POST", MESSAGES_PATH, self._identified(self._messages)),
        ):
            app.router.add_route(method, path, _guarded(_answering(handler), self._config.origins))
            app.router.add_route("OPTIONS", path, _guarded(_preflight, self._config.origins))
            if path in _HEALTH_PATHS:
                app.router.add_route("HEAD", path, _guarded(_answering(handler), self._config.origins))

    async def _live(self, _: web.Request) -> web.StreamResponse:
        """Answer, which is all that is asked: a backend that does not is to be started again."""
        return _told(True)

    async def _health(self, _: web.Request) -> web.StreamResponse:
        """Say all of it, with the code of the worst; not for who restarts: that is ``/livez``."""
        reasons = self._unready()
        return _told(not reasons, live=True, ready=not reasons, reasons=list(reasons))

    async def _ready(self, _: web.Request) -> web.StreamResponse:
        """Say whether more clients may be sent here. Those that are here already stay served."""
        reasons = self._unready()
        return _told(not reasons, reasons=list(reasons))

    def _identified(
        self, handler: Callable[[web.Request, Identity], Awaitable[web.StreamResponse]]
    ) -> _RouteHandler:
        """Return a handler that is only called with a valid token."""

        async def identify(request: web.Request) -> web.StreamResponse:
            scheme, _, token = request.headers.get("Authorization", "").partition(" ")
            bearer = token.strip() if scheme.lower() == "bearer" else None
            return await handler(request, self._verifier.verify(bearer))

        return identify

    async def _events(self, request: web.Request, identity: Identity) -> web.StreamResponse:
        """Give what was published after the client's positions."""
        client = Client.of(identity)
        requests = read_query(request.query.getall("channel", []), request.query.getall("position", []))
        text = await self._channels.poll(client, requests)
        etag = f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'
        headers = {"ETag": etag, "Cache-Control": "private, no-cache", "Vary": "Authorization"}
        if _matches(request.headers.get("If-None-Match", ""), etag):
            return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
        return web.Response(text=text, content_type="application/json", headers=headers)

    async def _messages(self, request: web.Request, identity: Identity) -> web.StreamResponse:
        """Handle a batch of messages, in order; no other of this client comes between them.

        Where one cannot be handled now, the batch ends before it: the results are of those that were.
        """
        messages = await self._read_messages(request)
        results: list[Answer] = []
        async with self._router.turn(identity.subject):
            try:
                for given in messages:
                    results.append(await self._handle(identity, given))  # noqa: PERF401 - those before count
            except LedgerUnavailableError:
                if not results:
                    raise
        return web.json_response({"results": results})

    async def _read_messages(self, request: web.Request) -> list[Any]:
        largest = self._config.max_message_bytes * _MAX_BODY_MESSAGES
        content = await read_request(request, largest)
        try:
            body = json.loads(content)
        except (ValueError, RecursionError):
            raise RequestError("malformed_body", "The body is not JSON.") from None
        messages = body.get("messages") if isinstance(body, Mapping) else None
        if not isinstance(messages, list):
            raise RequestError("malformed_body", "messages must be a list.")
        if len(messages) > _MAX_MESSAGES:
            raise web.HTTPRequestEntityTooLarge(max_size=_MAX_MESSAGES, actual_size=len(messages))
        return messages

    async def _handle(self, identity: Identity, given: Any) -> Answer:
        message = given if isinstance(given, Mapping) else {}
        try:
            client = Client.of(identity, read_envelope(message))
            event, args = _read_event(message)
        except RequestError as error:
            answer: Answer = {"ok": False, "error": error.problem}
        else:
            answer = await self._router.handle(client, event, args)
        return {"message_id": message.get("message_id"), **answer}


def _told(ok: bool, **more: Any) -> web.Response:
    """Return the answer of a health check."""
    status = HTTPStatus.OK if ok else HTTPStatus.SERVICE_UNAVAILABLE
    return web.json_response({"ok": ok, **more}, status=status, headers=_NOT_STORED)


def _read_event(message: Mapping[str, Any]) -> tuple[str, list[Any]]:
    """Return the name and the arguments of a message.

    Raises:
        RequestError: If it has none.
    """
    event = message.get("event")
    args = message.get("args", [message["data"]] if "data" in message else None)
    if not (isinstance(event, str) and isinstance(args, list)):
        raise RequestError("invalid_message", "A message has an event, and its data or args.")
    return event, args


def _answering(handler: _RouteHandler) -> _RouteHandler:
    """Return a handler whose refusals are answers in JSON."""

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except TokenRefusedError as error:
            refused = problem(ErrorCategory.AUTHENTICATION, error.code, error.message)
            return _error(HTTPStatus.UNAUTHORIZED, refused, {"WWW-Authenticate": "Bearer"})
        except RequestError as error:
            return _error(HTTPStatus.BAD_REQUEST, error.problem)
        except ServerUnavailableError as error:
            refused = problem(ErrorCategory.CONNECTION, "unavailable", error.message)
            return _error(
                HTTPStatus.SERVICE_UNAVAILABLE, refused, {"Retry-After": f"{error.retry_after:.0f}"}
            )
        except web.HTTPRequestEntityTooLarge:
            told = f"At most {_MAX_MESSAGES} messages in one request, and no larger a body."
            refused = problem(ErrorCategory.PROTOCOL, "too_large", told)
            return _error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, refused)

    return answer


def _guarded(handler: _RouteHandler, origins: tuple[str, ...]) -> _RouteHandler:
    """Return a handler that lets only these origins in, and tells the browser so."""

    async def guard(request: web.Request) -> web.StreamResponse:
        origin = request.headers.get("Origin")
        if origin is None:
            response = await handler(request)
        elif origin in origins:
            response = await handler(request)
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Allow-Credentials"] = "true"
            response.headers["Access-Control-Expose-Headers"] = "ETag, Retry-After"
        else:
            told = "Pages of this origin may not use this server."
            refused = problem(ErrorCategory.APPLICATION, "origin_refused", told)
            response = web.json_response({"error": refused}, status=HTTPStatus.FORBIDDEN)
        response.headers.add("Vary", "Origin")
        return response

    return guard


async def _preflight(_: web.Request) -> web.StreamResponse:
    """Answer a browser that asks what it may send."""
    return web.Response(status=HTTPStatus.NO_CONTENT, headers=_PREFLIGHT)


def _error(status: HTTPStatus, error: Answer, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.json_response({"error": error}, status=status, headers=headers)


def _matches(if_none_match: str, etag: str) -> bool:
    """Tell whether a client has this answer already (RFC 9110, 13.1.2: the weak comparison)."""
    known = [part.strip().removeprefix("W/") for part in if_none_match.split(",")]
    return "*" in known or etag in known
