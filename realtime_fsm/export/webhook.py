"""Alerts by HTTP: a signed POST, tried again for as long as that can help.

Signed as Standard Webhooks asks, which is what their libraries verify, in any language: ``webhook-id``,
``webhook-timestamp`` and ``webhook-signature: v1,<base64>``, the HMAC-SHA256 of ``id.timestamp.body``. The id
is the alert's own and the same in every try, so that the receiver can drop what it has seen.

Source: https://www.standardwebhooks.com
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from random import SystemRandom
from typing import Final
from urllib.parse import urlsplit

import aiohttp
from attrs import frozen

from realtime_fsm.adapters import error_translation
from realtime_fsm.adapters.bounded_http import SocketRegistry
from realtime_fsm.machine.backoff import BackoffLimits, ExponentialBackoff, Jitter, RandomSource
from realtime_fsm.machine.checks import Problems, seconds, whole
from realtime_fsm.machine.errors import (
    AuthenticationError,
    ConfigurationError,
    ProtocolError,
    RealtimeError,
    RedirectRefusedError,
    ServerUnavailableError,
    ServerUnreachableError,
)
from realtime_fsm.monitoring import Alert

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - what a secret begins with that is base64
_LEAST_SECRET: Final = 24
"""Bytes, as Standard Webhooks asks."""

_CLOSE_TIMEOUT: Final = 1.0
_RETRIED: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})
"""Of the 4xx, the ones that say nothing against the request itself; all 5xx are tried again too."""


class Signature:
    """Signs requests. Keeps no secret that can be shown.

    Args:
        secret: At least 24 bytes: bytes, a text, or ``whsec_`` and base64.

    Raises:
        ConfigurationError: If it is too short, or not base64.
    """

    def __init__(self, secret: str | bytes) -> None:
        key = secret if isinstance(secret, bytes) else _decoded(secret)
        if len(key) < _LEAST_SECRET:
            raise ConfigurationError(f"secret must have at least {_LEAST_SECRET} bytes, and has {len(key)}")
        self._mac = hmac.new(key, digestmod=hashlib.sha256)

    def headers(self, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
        """Return the headers of a request."""
        mac = self._mac.copy()
        mac.update(f"{message_id}.{timestamp}.".encode() + body)
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": "v1," + base64.b64encode(mac.digest()).decode(),
        }


@frozen(kw_only=True)
class WebhookLimits:
    """The bounds of the tries to send an alert. Durations are seconds.

    Attributes:
        request_timeout: Bound of one request, until the head of its answer is there.
        max_attempts: Requests for one alert, at most.
        give_up_after: Time for one alert with all of its tries and pauses; what comes later helps nobody.
        backoff_base: First pause.
        backoff_maximum: Longest one.
        max_retry_after: Longest pause that a server gets that asks for one.
    """

    request_timeout: float = seconds(10.0)
    max_attempts: int = whole(6)
    give_up_after: float = seconds(300.0)
    backoff_base: float = seconds(1.0)
    backoff_maximum: float = seconds(60.0)
    max_retry_after: float = seconds(120.0)

    def problems(self) -> list[str]:
        """Return everything that is wrong with it."""
        problems = Problems(self)
        problems.order("backoff_base", "backoff_maximum", "the longest pause cannot be below the first one")
        return problems.found


class WebhookSink:
    """Sends alerts to a webhook: a sink for ``Alerts``, which queues what waits for it.

    The address may hold a secret in its path, as those of chat services do: no more of it than its origin is
    ever shown, and the secret nowhere. Redirects are refused, and the answer's body is not read.

    Args:
        url: ``http://`` or ``https://``, without credentials.
        secret: Shared with the receiver; see ``Signature``.
        limits: How long it is tried.
        random: Source of the jitter.
        wall: The wall clock, for the timestamps.

    Raises:
        ConfigurationError: With everything that is wrong with these.
    """

    def __init__(
        self,
        url: str,
        *,
        secret: str | bytes,
        limits: WebhookLimits | None = None,
        random: RandomSource | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._limits = WebhookLimits() if limits is None else limits
        problems = [*_address_problems(url), *self._limits.problems()]
        try:
            self._signature = Signature(secret)
        except ConfigurationError as error:
            problems += error.problems
        if problems:
            raise ConfigurationError(*problems)
        self._url = url
        self._random = SystemRandom() if random is None else random
        self._wall = wall
        self.requests = 0

    def __repr__(self) -> str:
        return f"WebhookSink({error_translation.origin_of(self._url)!r}, secret='***')"

    async def send(self, alert: Alert) -> None:
        """Send one alert, however many requests that takes.

        Raises:
            RealtimeError: If the receiver refuses it, or could not be had for too long. Holds no secret.
        """
        body = json.dumps(alert.to_json(), separators=(",", ":"), ensure_ascii=False).encode()
        limits = self._limits
        backoff = ExponentialBackoff(
            random=self._random,
            limits=BackoffLimits(base=limits.backoff_base, maximum=limits.backoff_maximum),
            strategy=Jitter.FULL,
        )
        loop = asyncio.get_running_loop()
        until = loop.time() + limits.give_up_after
        while True:
            error = await self._try(alert.id, body, min(limits.request_timeout, until - loop.time()))
            if error is None:
                return
            asked = min(error.retry_after or 0.0, limits.max_retry_after)
            pause = max(backoff.next_delay(), asked)
            backoff.increment()
            is_last = backoff.attempt >= limits.max_attempts or loop.time() + pause >= until
            if is_last or not error.retryable:
                raise error
            await asyncio.sleep(pause)

    async def _try(self, message_id: str, body: bytes, within: float) -> RealtimeError | None:
        """Send one request; return why it failed, or ``None``."""
        self.requests += 1
        headers = self._signature.headers(message_id, int(self._wall()), body)
        headers |= {"Content-Type": "application/json", "User-Agent": "realtime-fsm"}
        try:
            async with asyncio.timeout(within):
                status, answered = await self._post(headers, body)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # Not chained: the original may hold the whole address, and the headers of the request.
            words = error_translation.from_exception(error, url=self._url).message
            return ServerUnreachableError(words, remedy=_REMEDY)
        return _error_of(status, answered, self._url)

    async def _post(self, headers: dict[str, str], body: bytes) -> tuple[int, Mapping[str, str]]:
        """Send one request, over a connection of which nothing is left; return the answer's head."""
        sockets = SocketRegistry()
        session = aiohttp.ClientSession(
            connector=sockets.connector(), timeout=aiohttp.ClientTimeout(total=None)
        )
        try:
            response = await session.post(self._url, data=body, headers=headers, allow_redirects=False)
            response.close()
            return response.status, response.headers
        finally:
            sockets.cut()
            closing = asyncio.ensure_future(session.close())
            await asyncio.wait({closing}, timeout=_CLOSE_TIMEOUT)
            closing.cancel()


_REMEDY: Final = "Check the address of the webhook, and that its receiver runs."


def _decoded(secret: str) -> bytes:
    if not secret.startswith(SECRET_PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error:
        pass
    # Not chained, nor shown: it is the secret.
    raise ConfigurationError(f"secret begins with {SECRET_PREFIX} and must go on in base64")


def _address_problems(url: object) -> list[str]:
    """Return what is wrong with an address. It is not shown: its path may be a secret."""
    try:
        parts = urlsplit(url if isinstance(url, str) else "")
        is_address = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address:
        return ["url must begin with http:// or https:// and name a host"]
    if parts.username is not None or parts.password is not None:
        return ["url must not hold credentials: the signature proves who sends"]
    return []


def _error_of(status: int, headers: Mapping[str, str], url: str) -> RealtimeError | None:
    """Return what an answer means: ``None`` for success; whether it is ``retryable`` is what matters."""
    where = error_translation.origin_of(url)
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return None
    if status in _RETRIED or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return ServerUnavailableError(
            f"{where} cannot take the alert now (HTTP {status}).",
            status=status,
            retry_after=error_translation.retry_after(headers),
        )
    text, remedy = f"{where} refuses the alert (HTTP {status}).", "Check the webhook's address and secret."
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return AuthenticationError(text, remedy=remedy)
    if status < HTTPStatus.BAD_REQUEST:
        return RedirectRefusedError(text, remedy="Give the final address of the webhook.")
    return ProtocolError(text, remedy=remedy, retryable=False)
