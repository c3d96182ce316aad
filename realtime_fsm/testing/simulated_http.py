"""The HTTP side of FALLBACK without a network: the engine's HTTP port, scripted and observed."""

import asyncio
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from attrs import define, field, frozen

from realtime_fsm.engine.port import HttpAnswer
from realtime_fsm.machine.errors import AuthenticationError, ProtocolError, RealtimeError

_NOT_MODIFIED = 304

Resource = Callable[["Request"], Any]
"""Gives the body of an answer, or raises a ``RealtimeError``."""


@frozen(kw_only=True)
class Request:
    """One request, as it was made.

    Attributes:
        at: When, on the loop's clock.
        method: ``GET`` or ``POST``.
        url: Absolute.
        token: The bearer token, if one was sent.
        body: Of a ``POST``.
        etag: Of a ``GET``.
    """

    at: float
    method: str
    url: str
    token: str | None
    body: Any = None
    etag: str | None = None


@define(eq=False)
class SimulatedHttp:
    """Scripted resources by path. Use it as the ``http`` of a client; change its attributes at any time.

    Attributes:
        latency: Seconds for an answer.
        resources: What each path gives.
        refusal: Raised by every request, or ``None``.
        accept_tokens: Tokens that are let in, or ``None`` for everybody.
        requests: Every request, in order.
        is_closed: Whether the client closed it.
    """

    latency: float = 0.01
    resources: dict[str, Resource] = field(factory=dict)
    refusal: RealtimeError | None = None
    accept_tokens: set[str] | None = None
    requests: list[Request] = field(factory=list)
    is_closed: bool = False

    async def get(self, url: str, *, token: str | None, etag: str | None) -> HttpAnswer:
        """Answer a GET; 304 where the ETag is the resource's."""
        body = await self._answer(url, "GET", token, etag=etag)
        now = f'"{hash(repr(body))}"'
        return (
            HttpAnswer(status=_NOT_MODIFIED, etag=now)
            if etag == now
            else HttpAnswer(status=200, body=body, etag=now)
        )

    async def post(self, url: str, body: object, *, token: str | None, idempotency_key: str) -> HttpAnswer:
        """Answer a POST."""
        del idempotency_key
        return HttpAnswer(status=200, body=await self._answer(url, "POST", token, body=body))

    async def close(self) -> None:
        """Note that it was closed."""
        self.is_closed = True

    def paths(self) -> list[str]:
        """Return the path of every request, in order."""
        return [urlsplit(request.url).path for request in self.requests]

    async def _answer(
        self, url: str, method: str, token: str | None, *, body: object = None, etag: str | None = None
    ) -> Any:
        request = Request(
            at=asyncio.get_running_loop().time(), method=method, url=url, token=token, body=body, etag=etag
        )
        self.requests.append(request)
        await asyncio.sleep(self.latency)
        if self.refusal is not None:
            raise self.refusal
        if self.accept_tokens is not None and token not in self.accept_tokens:
            raise AuthenticationError("The server refuses the token.")
        resource = self.resources.get(urlsplit(url).path)
        if resource is None:
            raise ProtocolError(f"{urlsplit(url).path} was answered with 404.")
        return resource(request)
