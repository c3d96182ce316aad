"""The HTTP side of FALLBACK without a network: the engine's HTTP port, scripted and observed."""

import asyncio
import hashlib
import json
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

from attrs import define, field, frozen

from realtime_fsm.engine.port import HttpAnswer
from realtime_fsm.machine.dialect import Dialect
from realtime_fsm.machine.errors import (
    AuthenticationError,
    ConnectionLostError,
    InternalError,
    ProtocolError,
    RealtimeError,
    ServerUnreachableError,
)
from realtime_fsm.testing.simulated.backend import SimulatedBackend

_NOT_MODIFIED: Final = 304


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
        idempotency_key: Of a ``POST``.
    """

    at: float
    method: str
    url: str
    token: str | None = field(repr=False)
    body: Any = None
    etag: str | None = None
    idempotency_key: str | None = None

    @property
    def path(self) -> str:
        """The path that is asked for."""
        return urlsplit(self.url).path


Resource = Callable[[Request], Any] | list[Any] | RealtimeError
"""The content of a path: a function that gives an answer; answers for one request each, of which the last one
stays; or an error that is raised. An answer is the body, a whole ``HttpAnswer``, or an error to be raised."""


@define(eq=False)
class SimulatedHttp:
    """Scripted resources by path. Use it as the ``http`` of a client; change its attributes at any time.

    Attributes:
        latency: Seconds for an answer.
        timeout: Seconds after which a request is given up that nobody answers.
        resources: What each path gives.
        backend: Serves what is not in ``resources``, as the reference backend does.
        refusal: Raised by every request, or ``None``.
        is_cut: Requests take effect, and the connection breaks before their answers arrive.
        is_silent: Answers nothing.
        accept_tokens: Tokens that are let in, or ``None`` for everybody.
        requests: Every request, in order.
        is_closed: Whether the client closed it.
    """

    latency: float = 0.01
    timeout: float = 10.0
    resources: dict[str, Resource] = field(factory=dict)
    backend: SimulatedBackend | None = None
    refusal: RealtimeError | None = None
    is_cut: bool = False
    is_silent: bool = False
    accept_tokens: set[str] | None = field(default=None, repr=False)
    requests: list[Request] = field(factory=list)
    is_closed: bool = False
    _given: dict[str, tuple[list[Any], int]] = field(factory=dict, init=False)

    def open(self) -> None:
        """Note that it is used again."""
        self.is_closed = False

    async def get(self, url: str, *, token: str | None, etag: str | None) -> HttpAnswer:
        """Answer a GET; 304 where the ETag is the resource's."""
        answer = await self._answer(Request(at=_now(), method="GET", url=url, token=token, etag=etag))
        if etag is not None and etag == answer.etag:
            return HttpAnswer(status=_NOT_MODIFIED, etag=etag)
        return answer

    async def post(self, url: str, body: object, *, token: str | None, idempotency_key: str) -> HttpAnswer:
        """Answer a POST; the server has a copy of the body."""
        sent = json.loads(json.dumps(body))  # the server has a copy
        return await self._answer(
            Request(
                at=_now(), method="POST", url=url, token=token, body=sent, idempotency_key=idempotency_key
            )
        )

    async def close(self) -> None:
        """Note that it was closed."""
        self.is_closed = True

    def paths(self) -> list[str]:
        """Return the path of every request, in order."""
        return [request.path for request in self.requests]

    async def _answer(self, request: Request) -> HttpAnswer:
        if self.is_closed:
            raise InternalError("The HTTP client is used after it was closed.")
        self.requests.append(request)
        if self.is_silent:
            await asyncio.sleep(self.timeout)
            raise ServerUnreachableError("The server does not answer in time.")
        await asyncio.sleep(self.latency)
        if self.refusal is not None:
            raise self.refusal.with_traceback(None)  # or the traceback would grow with every request
        if self.accept_tokens is not None and request.token not in self.accept_tokens:
            raise AuthenticationError("The server refuses the token.")
        answer = self._look_up(request)
        if self.is_cut:
            raise ConnectionLostError("The connection broke before the answer came.")
        if isinstance(answer, RealtimeError):
            raise answer.with_traceback(None)
        return answer if isinstance(answer, HttpAnswer) else _encoded(answer)

    def _look_up(self, request: Request) -> Any:
        resource = self.resources.get(request.path)
        if resource is None:
            return self._ask_backend(request)
        if isinstance(resource, list):
            return self._next_of(resource, request.path)
        return resource if isinstance(resource, RealtimeError) else resource(request)

    def _next_of(self, answers: list[Any], path: str) -> Any:
        if not answers:
            raise ValueError(f"the list of answers for {path} is empty")
        known, index = self._given.get(path, (answers, 0))
        index = index if known is answers else 0  # another list begins at its beginning
        self._given[path] = (answers, index + 1)
        return answers[min(index, len(answers) - 1)]

    def _ask_backend(self, request: Request) -> Any:
        if self.backend is not None:
            if (request.method, request.path) == ("GET", Dialect.REFERENCE.poll_path):
                return self.backend.poll(request.url)
            if (request.method, request.path) == ("POST", Dialect.REFERENCE.publish_path):
                return self.backend.receive(request.body)
        raise ProtocolError(f"{request.path} was answered with 404.")


def _now() -> float:
    return asyncio.get_running_loop().time()


def _encoded(body: Any) -> HttpAnswer:
    """Return an answer as it would come over the wire: a copy, with its size and its ETag."""
    raw = json.dumps(body).encode()
    etag = f'"{hashlib.sha256(raw).hexdigest()[:32]}"'
    return HttpAnswer(status=200, body=json.loads(raw), etag=etag, size_bytes=len(raw))
