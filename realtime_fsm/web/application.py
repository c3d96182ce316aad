"""The page as an application, to be mounted anywhere: every address in it is relative."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from http import HTTPStatus
from importlib.resources import files
from typing import Any, Final

from aiohttp import web
from aiohttp.typedefs import Middleware
from attrs import frozen

from realtime_fsm.adapters.serving import Listener
from realtime_fsm.diagram import shipped_svg, stylesheet
from realtime_fsm.machine.errors import ConfigurationError
from realtime_fsm.service import RealtimeService
from realtime_fsm.web.actions import Access, Actions, host_name, is_loopback
from realtime_fsm.web.events import EventHub, Traffic

HUB: Final = web.AppKey("realtime_fsm_hub", EventHub)
ACTIONS: Final = web.AppKey("realtime_fsm_actions", Actions)

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_LEAST_TOKEN: Final = 8

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@frozen(kw_only=True)
class _File:
    body: bytes
    content_type: str

    @property
    def tag(self) -> str:
        return hashlib.sha256(self.body).hexdigest()[:16]


def status_application(
    realtime: RealtimeService,
    *,
    token: str | None = None,
    trust_loopback: bool | None = None,
    hosts: Collection[str] | None = None,
    interval: float = 1.0,
    heartbeat: float = 15.0,
    backlog: int = 64,
    max_readers: int = 32,
    wall: Callable[[], float] = time.time,
) -> web.Application:
    """Return an application with the status page of a client, to be mounted under any path.

    ::

        app.add_subapp("/realtime/", status_application(realtime, token=TOKEN))

    Whoever reaches it can read how the client fares: mind who that is. Buttons work for who shows the token,
    or, where there is none, for this machine. Behind a proxy on the same machine everybody seems to be on
    it: set a token there.

    Args:
        realtime: The client; on whose loop the application runs.
        token: What has to be shown to act: ``Authorization: Bearer ...``; the page asks for it.
        trust_loopback: Whether requests from this machine, to a name of this machine, may act without it; by
            default where there is no token.
        hosts: Names under which the page may be asked for; ``None`` allows all. Give them where it must not
            be read by pages that have their own name resolve to its address.
        interval: Seconds between two looks at the figures while somebody watches.
        heartbeat: Seconds of silence after which a stream gets a sign of life.
        backlog: Events that a reader may leave unread before it is dropped.
        max_readers: Streams at one time.
        wall: The wall clock.

    Raises:
        ConfigurationError: If the token is too short to be one, or if a number makes no sense.
    """
    if token is not None and len(token) < _LEAST_TOKEN:
        raise ConfigurationError(f"token has fewer than {_LEAST_TOKEN} characters: anybody could guess it")
    if not (interval > 0 and heartbeat > 0 and backlog > 0 and max_readers > 0):
        raise ConfigurationError("interval, heartbeat, backlog and max_readers must be more than 0")
    hub = EventHub(
        realtime, wall=wall, interval=interval, heartbeat=heartbeat, backlog=backlog, most=max_readers
    )
    trusted = token is None if trust_loopback is None else trust_loopback
    actions = Actions(realtime, Access(token=token, trust_loopback=trusted))
    hub.extra = lambda: {"actions": actions.counts.to_json()}
    application = web.Application(middlewares=[_guard(hosts)])
    application[HUB], application[ACTIONS] = hub, actions
    _route(application, hub, actions)
    application.on_response_prepare.append(_protect)
    application.cleanup_ctx.append(_following(hub, actions))
    application.on_shutdown.append(lambda _: hub.stop())  # before the server waits for open requests
    return application


async def _protect(_: web.Request, response: web.StreamResponse) -> None:
    """Send with every answer what a browser must not do with it; nothing is kept but what says so."""
    response.headers.update(HEADERS)
    response.headers.setdefault("Cache-Control", "no-store")


def _route(application: web.Application, hub: EventHub, actions: Actions) -> None:
    router = application.router
    for path, found in _files().items():
        router.add_get(path, _static(found))
    router.add_get("", _to_the_slash)
    router.add_get("/events", hub.stream)
    router.add_post("/actions/{name}", actions.handle)

    async def snapshot(_: web.Request) -> web.Response:
        return web.json_response(hub.snapshot())

    router.add_get("/snapshot.json", snapshot)


def _following(hub: EventHub, actions: Actions) -> Callable[[web.Application], AsyncIterator[None]]:
    async def follow(_: web.Application) -> AsyncIterator[None]:
        hub.start()
        yield
        await hub.stop()
        await actions.stop()

    return follow


def _files() -> dict[str, _File]:
    """Return what is served as it is, by path."""
    folder = files("realtime_fsm.web").joinpath("static")
    kinds = {"css": "text/css", "js": "text/javascript", "html": "text/html", "svg": "image/svg+xml"}
    texts = {
        "/": ("html", folder.joinpath("index.html").read_text("utf-8")),
        "/page.css": ("css", folder.joinpath("page.css").read_text("utf-8")),
        "/page.js": ("js", folder.joinpath("page.js").read_text("utf-8")),
        "/icon.svg": ("svg", folder.joinpath("icon.svg").read_text("utf-8")),
        "/diagram.css": ("css", stylesheet()),
        "/diagram-lr.svg": ("svg", shipped_svg("LR", styled=False)),
        "/diagram-tb.svg": ("svg", shipped_svg("TB", styled=False)),
    }
    return {path: _File(body=text.encode(), content_type=kinds[kind]) for path, (kind, text) in texts.items()}


def _static(found: _File) -> _Handler:
    async def serve(request: web.Request) -> web.Response:
        headers = {"Cache-Control": "no-cache", "ETag": f'"{found.tag}"'}
        if any(tag.value == found.tag for tag in request.if_none_match or ()):
            return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
        return web.Response(
            body=found.body, content_type=found.content_type, charset="utf-8", headers=headers
        )

    return serve


async def _to_the_slash(request: web.Request) -> web.Response:
    """Lead from ``/realtime`` to ``/realtime/``, from where relative addresses are right."""
    last = request.path.rpartition("/")[2]
    return web.Response(status=HTTPStatus.PERMANENT_REDIRECT, headers={"Location": f"./{last}/"})


def _guard(hosts: Collection[str] | None) -> Middleware:
    names = None if hosts is None else {name.lower() for name in hosts}

    @web.middleware
    async def guard(request: web.Request, handler: _Handler) -> web.StreamResponse:
        if names is not None and host_name(request.headers.get("Host", "")) not in names:
            return web.json_response(
                {"error": "This page is not known under that name."},
                status=HTTPStatus.MISDIRECTED_REQUEST,
            )
        return await handler(request)

    return guard


# The page on a port of its own.

LOOPBACK: Final = "127.0.0.1"
_LOCAL_NAMES: Final = ("localhost", LOOPBACK, "::1")
_SHUTDOWN: Final = 1.0


@frozen
class StatusPage:
    """A page that is being served.

    Attributes:
        url: Where.
    """

    url: str
    _hub: EventHub

    @property
    def traffic(self) -> Traffic:
        """The counts of its streams."""
        return self._hub.traffic

    async def opened(self, within: float) -> bool:
        """Wait until somebody has opened the page, for so many seconds; return whether anybody has."""
        try:
            async with asyncio.timeout(within):
                await self._hub.watched.wait()
        except TimeoutError:
            return False
        return True

    def announce(self, text: str) -> None:
        """Show a note on the page, and among the changes: what the program does just now."""
        self._hub.announce(text)


@asynccontextmanager
async def serve_status_page(
    realtime: RealtimeService, *, host: str = LOOPBACK, port: int = 0, **options: Any
) -> AsyncIterator[StatusPage]:
    """Serve the status page of a client while the context lasts.

    ::

        async with RealtimeService(config) as realtime, serve_status_page(realtime, port=9102) as page:
            print(page.url)

    Args:
        realtime: The client.
        host: Where to listen; by default only for this machine, and then only under names of this machine.
        port: Of it; 0 picks one.
        options: As of ``status_application``.

    Raises:
        ConfigurationError: If nothing can listen there.
    """
    if is_loopback(host):
        options.setdefault("hosts", (*_LOCAL_NAMES, host))
    application = status_application(realtime, **options)
    async with Listener(application, host, port, shutdown_timeout=_SHUTDOWN) as listener:
        yield StatusPage(f"{listener.url}/", application[HUB])
