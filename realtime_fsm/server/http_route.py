"""The reference backend's HTTP side: polling, publishing, health, and CORS for all of them."""

import hashlib
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from realtime_fsm.machine.dialect import Dialect
from realtime_fsm.server.identity import Identity
from realtime_fsm.server.reply import Refusal, consent, refuse
from realtime_fsm.server.session import Caller

if TYPE_CHECKING:
    from realtime_fsm.server.websocket_service import WebSocketService

_MAX_EVENTS: Final = 500
_MAX_MESSAGES: Final = 100
_BEARER: Final = "Bearer "

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class HttpRoutes:
    """What can be done over plain HTTP.

    Args:
        service: What it is done to.
    """

    def __init__(self, service: "WebSocketService") -> None:
        self._service = service

    def application(self) -> web.Application:
        """Return the aiohttp application."""
        application = web.Application(
            client_max_size=self._service.config.max_message_bytes, middlewares=[self._cross_origin]
        )
        application.router.add_get("/healthz", self._health)
        application.router.add_get(str(Dialect.REFERENCE.poll_path), self._poll)
        application.router.add_post(str(Dialect.REFERENCE.publish_path), self._publish)
        return application

    @web.middleware
    async def _cross_origin(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Allow the front end's origins, with credentials, for GET and POST; nobody else (SPEC F1)."""
        origin = request.headers.get("Origin")
        allowed = origin in self._service.config.origins
        if request.path.startswith("/socket.io"):
            return await handler(request)  # it has rules of its own, made from the same list
        if origin is not None and not allowed:
            return web.json_response(
                refuse(Refusal("forbidden_origin", "This origin is not allowed.")), status=403
            )
        response: web.StreamResponse
        if request.method == "OPTIONS":
            response = web.Response(status=204)
            response.headers["Access-Control-Allow-Methods"] = "GET, POST"
            response.headers["Access-Control-Allow-Headers"] = (
                "Authorization, Content-Type, Idempotency-Key, If-None-Match"
            )
        else:
            response = await handler(request)
        if origin is not None:
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Allow-Credentials"] = "true"
            response.headers["Vary"] = "Origin"
        return response

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response(consent())

    async def _poll(self, request: web.Request) -> web.Response:
        """Answer what each channel has beyond the positions that the client knows."""
        try:
            identity = self._identify(request)
        except Refusal as refusal:
            return web.json_response(refuse(refusal), status=401)
        known = dict(_position(text) for text in request.query.getall("position", []))
        channels = {
            channel: self._stream(identity, channel, known.get(channel))
            for channel in request.query.getall("channel", [])
        }
        body = json.dumps(consent(channels=channels))
        etag = f'"{hashlib.sha256(body.encode()).hexdigest()[:32]}"'
        headers = {"ETag": etag, "Cache-Control": "no-cache"}
        if request.headers.get("If-None-Match") == etag:
            return web.Response(status=304, headers=headers)
        return web.Response(text=body, content_type="application/json", headers=headers)

    def _stream(self, identity: Identity, channel: str, position: tuple[str, int] | None) -> dict[str, Any]:
        refusal = self._service.channel_refusal(identity.subject, channel)
        if refusal is not None:
            return refuse(refusal)
        log = self._service.log
        if position is None:
            return consent(epoch=log.epoch, offset=log.offset(channel), recovered=True, events=[])
        replay = log.since(channel, *position, limit=_MAX_EVENTS)
        events = [{"event": e.event, "data": e.data, "offset": e.offset} for e in replay.entries]
        return consent(
            epoch=log.epoch,
            offset=replay.offset,
            recovered=replay.recovered,
            events=events,
            more=replay.more,
        )

    async def _publish(self, request: web.Request) -> web.Response:
        """Handle messages in their order, as if they had come over the socket."""
        try:
            identity = self._identify(request)
        except Refusal as refusal:
            return web.json_response(refuse(refusal), status=401)
        try:
            body = await request.json()
            known = [(str(m["message_id"]), str(m["event"]), _args(m)) for m in body["messages"]]
        except (ValueError, TypeError, KeyError):
            unclear = Refusal("invalid_request", "The body must hold a list of messages.", "protocol")
            return web.json_response(refuse(unclear), status=400)
        if len(known) > _MAX_MESSAGES:
            excess = Refusal("too_many_messages", f"At most {_MAX_MESSAGES} at a time.", "protocol")
            return web.json_response(refuse(excess), status=413)
        results = []
        for message_id, event, args in known:
            caller = Caller(subject=identity.subject, message_id=message_id, over="http")
            answer = await self._service.handle(caller, event, args)
            results.append({"message_id": message_id, **answer})
        return web.json_response(consent(results=results))

    def _identify(self, request: web.Request) -> Identity:
        header = request.headers.get("Authorization", "")
        token = header.removeprefix(_BEARER) if header.startswith(_BEARER) else None
        return self._service.verifier.verify(token)


def _args(message: dict[str, Any]) -> list[Any]:
    return list(message["args"]) if "args" in message else [message["data"]]


def _position(text: str) -> tuple[str, tuple[str, int]]:
    """Read ``channel:epoch:offset``; what cannot be read stands for a log that nobody knows."""
    channel, _, rest = text.rpartition(":")
    channel, _, epoch = channel.rpartition(":")
    return channel, (epoch, int(rest)) if rest.isdecimal() else ("", 0)
