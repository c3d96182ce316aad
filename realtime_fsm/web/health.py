"""The health of a client over HTTP, for who restarts processes and who sends them traffic."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Final, Protocol

from aiohttp import web

from realtime_fsm.adapters.serving import Listener

LIVE_PATH: Final = "/livez"
READY_PATH: Final = "/readyz"
HEALTH_PATH: Final = "/healthz"

LOOPBACK: Final = "127.0.0.1"

_NOT_STORED: Final = {"Cache-Control": "no-store"}
_SHUTDOWN: Final = 1.0

_logger = logging.getLogger("realtime_fsm.health")


class Examined(Protocol):
    """The result of an examination: ``Health`` is such."""

    @property
    def live(self) -> bool:
        """True where a restart of the process could not help."""

    @property
    def ready(self) -> bool:
        """True while data flows."""

    @property
    def reasons(self) -> tuple[str, ...]:
        """All that is not perfect, in sentences."""

    def to_json(self) -> dict[str, Any]:
        """Return all of it."""


class Examinable(Protocol):
    """A client that can be examined: ``RealtimeService`` is one."""

    def health(self) -> Examined:
        """Examine the client as it is now."""


def health_application(realtime: Examinable) -> web.Application:
    """Return an application with the health of a client, to be mounted: ``app.add_subapp("/realtime", ...)``.

    - ``/livez``: 503 only where a restart of the process could help.
    - ``/readyz``: 503 while no data flows: not connected, or connected but deaf.
    - ``/healthz``: everything; 503 where either of the two is.

    The answers are JSON with the reasons, hold no secret, and are never to be stored. They do tell how the
    client fares, and the name of its server: mind who can reach them.

    Args:
        realtime: The client; on whose loop the application runs.
    """
    application = web.Application()
    for path, judge in (
        (LIVE_PATH, lambda health: (health.live, _brief(health.live, health))),
        (READY_PATH, lambda health: (health.ready, _brief(health.ready, health))),
        (HEALTH_PATH, lambda health: (health.live and health.ready, health.to_json())),
    ):
        application.router.add_get(path, _handler(realtime, judge))
    return application


def _brief(ok: bool, health: Examined) -> dict[str, Any]:
    return {"ok": ok, "reasons": [] if ok else list(health.reasons)}


def _handler(
    realtime: Examinable, judge: Callable[[Examined], tuple[bool, dict[str, Any]]]
) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        try:
            ok, told = judge(realtime.health())
        except Exception as error:
            _logger.exception("the client could not be examined")
            ok, told = False, {"ok": False, "reasons": [f"It cannot be examined: {type(error).__name__}."]}
        status = HTTPStatus.OK if ok else HTTPStatus.SERVICE_UNAVAILABLE
        return web.json_response(told, status=status, headers=_NOT_STORED)

    return answer


@asynccontextmanager
async def serve_health(realtime: Examinable, *, host: str = LOOPBACK, port: int = 0) -> AsyncIterator[str]:
    """Serve the health of a client while the context lasts, and give the address.

    ::

        async with RealtimeService(config) as realtime, serve_health(realtime, port=9101):
            ...

    Args:
        realtime: The client.
        host: Where to listen; by default only for this machine.
        port: Of it; 0 picks one.

    Raises:
        ConfigurationError: If nothing can listen there.
    """
    async with Listener(health_application(realtime), host, port, shutdown_timeout=_SHUTDOWN) as listener:
        yield listener.url
