"""The activities of FALLBACK that speak HTTP: polling for what the socket would bring, and publishing."""

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final
from urllib.parse import urlencode

from attrs import define, field

from realtime_fsm.engine.component import Components, Stay
from realtime_fsm.engine.dispatcher import Delivered
from realtime_fsm.engine.message import Message, published
from realtime_fsm.engine.port import HttpAnswer
from realtime_fsm.engine.subscriptions import Position, Subscription, SubscriptionState, read_position
from realtime_fsm.machine.config import Endpoint
from realtime_fsm.machine.errors import (
    AuthenticationError,
    ErrorCategory,
    ProtocolError,
    RealtimeError,
    ServerUnavailableError,
    ServerUnreachableError,
    SubscriptionRefusedError,
)
from realtime_fsm.machine.table import Trigger

_SPREAD: Final = 0.2
"""Pauses differ by up to this fraction, so that a fleet that fell together does not poll together."""

_SLOWEST: Final = 8
"""A failing endpoint is polled at most this many times slower than a sound one."""

_NOT_MODIFIED: Final = 304


@define(eq=False)
class _Source:
    """An endpoint that is polled, and what is remembered of it between two fallbacks.

    Attributes:
        endpoint: ``None`` for the channels of the dialect's own endpoint.
        etag: Of the last answer, with the address that gave it.
        digest: Of the last content, so that unchanged data is not delivered again.
        failures: Failed polls in a row.
    """

    endpoint: Endpoint | None
    etag: tuple[str, str | None] = ("", None)
    digest: bytes = b""
    failures: int = field(default=0)


class FallbackPollingService:
    """Polls the endpoints, each at its own pace, for as long as FALLBACK lasts.

    It has no switch of its own, because the machine is the only one: entering FALLBACK starts it, leaving
    stops it, and ``force_fallback()`` and ``release_fallback()`` do either by hand. Channels are polled from
    where their subscriptions stand; messages are queued by ``emit``, and flushed by the activity beside it,
    ``publishing``.

    Args:
        parts: The client's components.
    """

    def __init__(self, parts: Components) -> None:
        self._parts = parts
        self._sources = [_Source(endpoint) for endpoint in parts.config.fallback_endpoints]
        if parts.config.dialect.poll_path is not None:
            self._sources.append(_Source(None))
        self.is_polling = False

    @property
    def is_failing(self) -> bool:
        """True while it polls, and the last poll of every source has failed."""
        return self.is_polling and all(source.failures > 0 for source in self._sources)

    async def run(self, stay: Stay) -> None:
        """Poll everything until cancelled; report it when the server refuses the token for good."""
        self.is_polling = True
        try:
            async with asyncio.TaskGroup() as group:
                for source in self._sources:
                    group.create_task(self._poll_for_ever(source))
        except* AuthenticationError as refusals:
            error = next(e for e in refusals.exceptions if isinstance(e, AuthenticationError))
            stay.report(Trigger.POLLING_REFUSED, error=error)
        finally:
            self.is_polling = False

    async def poll_for_updates(self) -> None:
        """Poll every source once, now.

        Raises:
            RealtimeError: Why the first one failed that did.
        """
        for source in self._sources:
            await self._poll(source)

    async def _poll_for_ever(self, source: _Source) -> None:
        config, random = self._parts.config, self._parts.random
        while True:
            pause, is_whole = config.fallback_polling_interval, True
            try:
                is_whole = await self._poll(source)
            except AuthenticationError:
                raise
            except RealtimeError as error:
                source.failures += 1
                pause *= min(2**source.failures, _SLOWEST)
                pause = max(pause, error.retry_after or 0.0)
                self._parts.recovery.handle(error)
            else:
                source.failures = 0
            pause *= random.uniform(1 - _SPREAD, 1 + _SPREAD)
            if is_whole:
                await asyncio.sleep(pause)
                continue
            with suppress(TimeoutError):  # sooner where the handlers have room again for what was left
                async with asyncio.timeout(pause):
                    await self._parts.dispatcher.relieved()

    async def _poll(self, source: _Source) -> bool:
        """Poll one source; return whether the handlers had room for all of it. Never waits for them."""
        self._parts.statistics.polls += 1
        try:
            if source.endpoint is None:
                return await self._poll_channels(source)
            return await self._poll_endpoint(source, source.endpoint)
        except RealtimeError:
            self._parts.statistics.failed_polls += 1
            raise

    async def _poll_endpoint(self, source: _Source, endpoint: Endpoint) -> bool:
        """Deliver the data of an endpoint as its event, if it has changed; return whether there was room."""
        url = self._parts.config.absolute(endpoint.url)
        answer = await self._get(source, url)
        if answer is None:
            return True
        digest = hashlib.sha256(json.dumps(answer.body, sort_keys=True).encode()).digest()
        dispatcher, size = self._parts.dispatcher, answer.size_bytes
        if digest != source.digest:
            if not dispatcher.admits(endpoint.event, size):
                return False  # neither digest nor ETag is taken: the next poll brings it, or something newer
            source.digest = digest
            dispatcher.post(Delivered(endpoint.event, [answer.body], size=size, is_kept=True))
        source.etag = (url, answer.etag)
        return True

    async def _poll_channels(self, source: _Source) -> bool:
        """Deliver what the log of each wanted channel holds beyond the last event that arrived.

        Returns:
            Whether the handlers had room for all of it. What was left is asked for again.
        """
        more = True
        while more:
            query: list[tuple[str, str]] = []
            for channel, position in self._parts.subscriptions.positions().items():
                query.append(("channel", channel))
                if position is not None:
                    query.append(("position", f"{channel}:{position.epoch}:{position.offset}"))
            if not query:
                return True
            url = self._parts.config.absolute(f"{self._parts.config.dialect.poll_path}?{urlencode(query)}")
            answer = await self._get(source, url)
            if answer is None:
                return True
            is_whole, more = self._take_channels(answer.body, answer.size_bytes)
            if not is_whole:
                return False
            source.etag = (url, answer.etag)  # not before: what was not taken must be given again
        return True

    def _take_channels(self, body: Any, size: int) -> tuple[bool, bool]:
        """Deliver the events of an answer.

        Returns:
            Whether there was room for all of them, and whether there are more to be fetched.
        """
        channels = body.get("channels") if isinstance(body, dict) else None
        if not isinstance(channels, dict):
            raise ProtocolError("The polling endpoint's answer holds no channels; check `dialect`.")
        is_whole, more = True, False
        subscriptions, dispatcher = self._parts.subscriptions, self._parts.dispatcher
        for channel, stream in channels.items():
            if not isinstance(stream, dict) or stream.get("ok") is not True:
                self._refused(subscriptions.get(channel), stream)
                continue
            before = subscriptions.positions().get(channel)
            events = _events_of(stream)
            has_room = True
            for name, data, position in events:
                share = size // len(events)  # about: how large each is has not been looked at
                has_room = dispatcher.admits(name, share)
                if not has_room:
                    break
                if position is not None and not subscriptions.take_position(channel, position):
                    continue
                subscription = subscriptions.get(channel)
                give_back = None
                if position is not None and subscription is not None:
                    give_back = partial(subscription.give_back, position)
                dispatcher.post(Delivered(name, [data], None, share, is_kept=True, give_back=give_back))
            is_whole = is_whole and has_room
            if not has_room:
                continue
            if (subscription := subscriptions.get(channel)) is not None:
                subscription.state = SubscriptionState.WANTED  # by the socket, when it is back
                subscriptions.resume_at(subscription, stream)
            # At once only where the last answer brought us further, or it would go on for ever.
            more = more or (stream.get("more") is True and subscriptions.positions().get(channel) != before)
        return is_whole, more

    def _refused(self, subscription: Subscription | None, stream: Any) -> None:
        """Note that a channel may not be polled; report it once."""
        if subscription is None or subscription.state is SubscriptionState.REFUSED:
            return
        parts = self._parts
        reason = parts.subscriptions.refuse(subscription, stream, secrets=parts.tokens.secrets)
        parts.recovery.handle(
            SubscriptionRefusedError(f"The server does not let {subscription.channel!r} be polled: {reason}.")
        )

    async def _get(self, source: _Source, url: str) -> HttpAnswer | None:
        """Fetch an address; ``None`` where nothing has changed."""
        etag = source.etag[1] if source.etag[0] == url else None
        http = self._parts.http
        if self._parts.config.is_own_origin(url):
            answer = await _with_token(self._parts, lambda token: http.get(url, token=token, etag=etag))
        else:
            answer = await http.get(url, token=None, etag=etag)  # the token is nobody else's business
        return None if answer.status == _NOT_MODIFIED else answer


def _events_of(stream: dict[str, Any]) -> list[tuple[str, Any, Position | None]]:
    """Return name, data and position of each event of a polled channel.

    Raises:
        ProtocolError: If it is not a list of events. Nothing of it is delivered then.
    """
    events = stream.get("events", [])
    if not isinstance(events, list) or not all(
        isinstance(event, dict) and isinstance(event.get("event"), str) for event in events
    ):
        raise ProtocolError("The polling endpoint's answer holds something that is no event.")
    epoch = stream.get("epoch")
    return [
        (event["event"], event.get("data"), read_position({"epoch": epoch, "offset": event.get("offset")}))
        for event in events
    ]


_BATCH: Final = 50
"""Messages of one request."""

_LONGEST_PAUSE: Final = 30.0
"""Seconds between two tries at most, while publishing fails."""


async def publishing(parts: Components, stay: Stay) -> None:
    """Publish what waits, in order and with the same ids as over the socket, batch by batch.

    Without an endpoint for it all waits for the socket.
    """
    path = parts.config.dialect.publish_path
    if path is None:
        return
    url = parts.config.absolute(path)
    failures = 0
    while True:
        batch = await parts.sender.next_batch(_BATCH)
        try:
            await _publish(parts, url, batch)
        except AuthenticationError as error:
            stay.report(Trigger.POLLING_REFUSED, error=error)
            return
        except RealtimeError as error:
            failures += 1
            parts.statistics.failed_publishes += 1
            pause = min(2.0**failures * parts.random.uniform(0.5, 1.0), _LONGEST_PAUSE)
            parts.recovery.handle(error)
            await asyncio.sleep(max(pause, error.retry_after or 0.0))
        else:
            failures = 0


async def _publish(parts: Components, url: str, batch: list[Message]) -> None:
    """Publish one batch; every message of it is settled or given back, whatever happens."""
    open_ = {message.receipt.message_id: message for message in batch}
    arrived, failed = True, False  # unless it is known that nothing did
    try:
        answer = await _post(parts, url, batch)
        results = answer.body.get("results") if isinstance(answer.body, dict) else None
        for result in results if isinstance(results, list) else ():
            message = open_.pop(str(result.get("message_id")), None) if isinstance(result, dict) else None
            if message is not None:
                parts.sender.published(message, result)
        if open_:  # reported and waited for, because a server that does it once may do it every time
            raise ProtocolError(
                f"The publishing endpoint answers for {len(batch) - len(open_)} of {len(batch)} messages.",
                remedy="Check `dialect`: the server must answer for each message.",
            )
    except (ServerUnreachableError, ServerUnavailableError, AuthenticationError):
        arrived = False
        raise
    except RealtimeError as error:
        # The network's faults are not the message's; nor is it where others of the batch were taken.
        failed = error.category is ErrorCategory.PROTOCOL and len(open_) == len(batch)
        raise
    finally:
        parts.sender.unpublished(list(open_.values()), maybe_arrived=arrived, failed=failed)


async def _post(parts: Components, url: str, batch: list[Message]) -> HttpAnswer:
    body = {"messages": [published(message) for message in batch]}
    key = f"{batch[0].receipt.message_id}+{len(batch)}"
    return await _with_token(
        parts, lambda token: parts.http.post(url, body, token=token, idempotency_key=key)
    )


async def _with_token(
    parts: Components, request: Callable[[str | None], Awaitable[HttpAnswer]]
) -> HttpAnswer:
    """Make a request of the server's own; where it refuses the token, once more at once with a new one."""
    try:
        return await request(await _bearer(parts))
    except AuthenticationError:
        if not parts.tokens.can_refresh:
            raise
        parts.tokens.forget()
        return await request(await _bearer(parts))


async def _bearer(parts: Components) -> str | None:
    token = await parts.tokens.current()
    return None if token is None else token.value
