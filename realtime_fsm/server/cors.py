"""Which web pages may use the HTTP endpoints: those of the configured origins, and no other.

A request without an ``Origin`` does not come from a web page of elsewhere, and passes. Socket.IO's own path
is guarded by python-engineio, by the same list.
"""

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final

from aiohttp import web

from realtime_fsm.machine.errors import ErrorCategory
from realtime_fsm.server.answer import problem

_Next = Callable[[web.Request], Awaitable[web.StreamResponse]]

_PREFLIGHT: Final = {
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Idempotency-Key, If-None-Match",
    "Access-Control-Max-Age": "600",
}


def guarded(handler: _Next, origins: tuple[str, ...]) -> _Next:
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


async def preflight(_: web.Request) -> web.StreamResponse:
    """Answer a browser that asks what it may send."""
    return web.Response(status=HTTPStatus.NO_CONTENT, headers=_PREFLIGHT)
