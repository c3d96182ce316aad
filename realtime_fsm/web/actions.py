"""The actions of the page: retry, fall back, pause. Who may ask for them is checked, and each is logged."""

import asyncio
import hmac
import ipaddress
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

from aiohttp import web
from attrs import define, field, frozen

from realtime_fsm.machine.errors import RealtimeError
from realtime_fsm.service import RealtimeService
from realtime_fsm.web.snapshot import may

ACTIONS: Final = ("retry", "fallback", "release", "pause", "resume")
"""By name, as in ``POST actions/NAME``."""

_SAME_ORIGIN: Final = {"same-origin", "none"}
_PROXIED: Final = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Via")
"""Who sends one of these speaks for somebody else, who need not be on this machine."""

_logger = logging.getLogger("realtime_fsm.web")


@frozen
class Refusal:
    """The reason why a request is not obeyed."""

    status: HTTPStatus
    reason: str


@frozen(kw_only=True)
class Access:
    """The rule of who may act.

    Attributes:
        token: What has to be shown; ``None`` where there is none.
        trust_loopback: Whether a request from this machine needs none.
    """

    token: str | None = field(default=None, repr=False)
    trust_loopback: bool = True

    def refusal(self, request: web.Request) -> Refusal | None:
        """Return why a request may not act, or ``None`` where it may."""
        if (foreign := _foreign_origin(request)) is not None:
            return foreign
        if self.token is not None and _shows(request, self.token):
            return None
        if self.trust_loopback and is_local(request):
            return None
        if self.token is None:
            return Refusal(HTTPStatus.FORBIDDEN, "Only this machine may act: no token has been set.")
        return Refusal(HTTPStatus.UNAUTHORIZED, "This needs the token of the status page.")


def is_local(request: web.Request) -> bool:
    """Tell whether a request comes from this machine, for itself, to a name that only this machine has.

    The name counts because a page from elsewhere can have its own name resolve to 127.0.0.1; a browser would
    take that for the same origin.
    """
    if any(header in request.headers for header in _PROXIED):
        return False
    return is_loopback(request.remote or "") and is_loopback(host_name(request.headers.get("Host", "")))


def is_loopback(name: str) -> bool:
    """Tell whether a name or an address is this machine's."""
    if name.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def host_name(host: str) -> str:
    """Return the name in a ``Host`` header, without its port; empty where it is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _shows(request: web.Request, token: str) -> bool:
    scheme, _, shown = request.headers.get("Authorization", "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(
        shown.strip().encode("utf-8", "surrogateescape"), token.encode()
    )


def _foreign_origin(request: web.Request) -> Refusal | None:
    """Refuse what another page makes a browser send."""
    if request.headers.get("Sec-Fetch-Site", "none") not in _SAME_ORIGIN:
        return Refusal(HTTPStatus.FORBIDDEN, "Another page asked for this.")
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc.lower() != request.headers.get("Host", "").lower():
        return Refusal(HTTPStatus.FORBIDDEN, "Another page asked for this.")
    return None


@define(kw_only=True)
class ActionCounts:
    """Counts of the actions that were done, that changed nothing, and that were refused."""

    done: Counter[str] = field(factory=Counter)
    idle: Counter[str] = field(factory=Counter)
    refused: Counter[str] = field(factory=Counter)

    def to_json(self) -> dict[str, dict[str, int]]:
        """Return them as JSON."""
        return {"done": dict(self.done), "idle": dict(self.idle), "refused": dict(self.refused)}


class Actions:
    """Does what is asked for, for who may ask.

    Args:
        realtime: The client.
        access: Who may act.
    """

    def __init__(self, realtime: RealtimeService, access: Access) -> None:
        self._realtime = realtime
        self._access = access
        self._connecting: asyncio.Task[None] | None = None
        self._deeds: Mapping[str, Callable[[], bool]] = {
            "retry": realtime.retry_now,
            "fallback": realtime.force_fallback,
            "release": realtime.release_fallback,
            "pause": realtime.pause,
            "resume": self._resume,
        }
        self.counts = ActionCounts()

    async def handle(self, request: web.Request) -> web.Response:
        """Answer ``POST actions/NAME``."""
        name = request.match_info["name"]
        if name not in self._deeds:
            return _answer(HTTPStatus.NOT_FOUND, error=f"The actions are {', '.join(ACTIONS)}.")
        if (refusal := self._access.refusal(request)) is not None:
            self.counts.refused[name] += 1
            _logger.warning("%s was asked for by %s, and refused: %s", name, request.remote, refusal.reason)
            return _answer(refusal.status, error=refusal.reason)
        return self._act(name, request.remote)

    async def stop(self) -> None:
        """End a connect that is under way."""
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
            await asyncio.wait({connecting})

    def _act(self, name: str, who: str | None) -> web.Response:
        if not may(self._realtime, self._realtime.connection_status.last)[name]:
            self.counts.idle[name] += 1
            _logger.info("%s was asked for by %s; there is nothing to be done", name, who)
            return _answer(HTTPStatus.CONFLICT, error=f"There is nothing to {name} now.")
        try:
            done = self._deeds[name]()
        except RealtimeError as error:
            self.counts.idle[name] += 1
            _logger.warning("%s was asked for by %s, and is not possible: %s", name, who, error)
            return _answer(HTTPStatus.CONFLICT, error=str(error))
        (self.counts.done if done else self.counts.idle)[name] += 1
        _logger.warning("%s was asked for by %s%s", name, who, "" if done else "; it changed nothing")
        return _answer(HTTPStatus.OK, action=name, changed=done, state=self._realtime.status.value)

    def _resume(self) -> bool:
        """Connect in the background; how it ends is seen on the page."""
        if self._connecting is not None and not self._connecting.done():
            return False
        self._connecting = asyncio.create_task(self._connect(), name="realtime_fsm status page: resume")
        return True

    async def _connect(self) -> None:
        try:
            await self._realtime.connect()
        except RealtimeError as error:
            _logger.warning("resuming did not succeed: %s", error)


def _answer(status: HTTPStatus, **told: Any) -> web.Response:
    headers = {"WWW-Authenticate": "Bearer"} if status is HTTPStatus.UNAUTHORIZED else None
    return web.json_response(told, status=status, headers=headers)
