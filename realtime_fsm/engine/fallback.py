"""The activities of FALLBACK that speak HTTP: polling for what the socket would bring, and publishing."""

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final
from urllib.parse import urlencode

from attrs import define, field

from realtime_fsm.engine.component import Components, Stay
from realtime_fsm.engine.dispatcher import Delivered
from realtime_fsm.engine.message import Message, published
from realtime_fsm.engine.port import HttpAnswer
from realtime_fsm.engine.subscriptions import Position, Subscription, SubscriptionState, read_position
from realtime_fsm.machine.backoff import Pacer
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

_SLOWEST: Final = 8
"""A failing endpoint is polled at most this many times slower than a sound one."""

_LONGEST_ADDRESS: Final = 4000
"""Bytes of an address, at most: servers and proxies refuse requests of which the head is longer than 4 kB or
8 kB (nginx: ``large_client_header_buffers``), and the other headers need room as well. Only what asks for a
single channel may be longer."""

_NOT_MODIFIED: Final = 304


@define(eq=False)
class _Source:
    """An endpoint that is polled, and what is remembered of it between two fallbacks.

    Attributes:
        endpoint: ``None`` for the channels of the dialect's own endpoint.
        pacer: When it may be polled next.
        etags: Of the last answers, by the addresses that gave them.
        digest: Of the last content, so that unchanged data is not delivered again.
    """

    endpoint: Endpoint | None
    pacer: Pacer
    etags: dict[str, str | None] = field(factory=dict)
    digest: bytes = b""


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
        endpoints: list[Endpoint | None] = [*parts.config.fallback_endpoints]
        if parts.config.dialect.poll_path is not None:
            endpoints.append(None)
        interval = parts.config.fallback_polling_interval
        slowest = interval * _SLOWEST
        self._sources = [_Source(one, parts.pacer(interval, slowest, slowest)) for one in endpoints]
        self._stay: Stay | None = None
        self.is_polling = False

    @property
    def is_failing(self) -> bool:
        """True while it polls, and the last poll of every source has failed."""
        return self.is_polling and all(source.pacer.failures > 0 for source in self._sources)

    async def run(self, stay: Stay) -> None:
        """Poll everything until cancelled; report it when the server refuses the token for good."""
        self.is_polling, self._stay = True, stay
        try:
            async with asyncio.TaskGroup() as group:
                for source in self._sources:
                    group.create_task(self._poll_for_ever(source))
        except* AuthenticationError as refusals:
            error = next(e for e in refusals.exceptions if isinstance(e, AuthenticationError))
            stay.report(Trigger.POLLING_REFUSED, error=error)
        finally:
            self.is_polling, self._stay = False, None

    async def poll_for_updates(self) -> None:
        """Poll every source once, now.

        Raises:
            RealtimeError: Why the first one failed that did.
        """
        for source in self._sources:
            await self._poll(source)

    async def _poll_for_ever(self, source: _Source) -> None:
        time, pacer = asyncio.get_running_loop().time, source.pacer
        await asyncio.sleep(pacer.floor.left(time()))  # what was asked for in the last fallback
        while True:
            is_whole = True
            try:
                is_whole = await self._poll(source)
            except AuthenticationError:
                raise
            except RealtimeError as error:
                if pacer.failed(error, time()):
                    self._parts.report_long_retry_after(error)
                self._parts.recovery.handle(error)
            else:
                pacer.succeeded()
            await self._rest(source, time() + pacer.pause(time()), is_whole=is_whole)

    async def _rest(self, source: _Source, due_at: float, *, is_whole: bool) -> None:
        """Wait until the next poll is due; channels that are subscribed meanwhile are asked for at once.

        It is due sooner where the handlers have room again for what the last one has left. None of this where
        the last poll has failed: then all keep to its pace.
        """
        loop, subscriptions = asyncio.get_running_loop(), self._parts.subscriptions
        while source.pacer.failures == 0 and loop.time() < due_at:
            try:
                async with asyncio.timeout_at(due_at):
                    while is_whole or self._parts.dispatcher.is_behind:
                        if source.endpoint is None and subscriptions.unplaced():
                            break
                        await subscriptions.changed()  # which tells of room, too
                    else:
                        return
            except TimeoutError:
                return
            try:
                is_whole &= await self._poll(source, only_new=True)
            except AuthenticationError:
                raise
            except RealtimeError as error:
                if source.pacer.failed(error, loop.time()):
                    self._parts.report_long_retry_after(error)
                due_at = max(due_at, loop.time() + source.pacer.pause(loop.time()))
                self._parts.recovery.handle(error)
        await asyncio.sleep(due_at - loop.time())

    async def _poll(self, source: _Source, *, only_new: bool = False) -> bool:
        """Poll one source; return whether the handlers had room for all of it. Never waits for them."""
        self._parts.statistics.polls += 1
        try:
            if source.endpoint is None:
                return await self._poll_channels(source, only_new=only_new)
            return await self._poll_endpoint(source, source.endpoint)
        except RealtimeError:
            self._parts.statistics.failed_polls += 1
            raise

    async def _poll_endpoint(self, source: _Source, endpoint: Endpoint) -> bool:
        """Deliver the data of an endpoint as its event, if it has changed; return whether there was room."""
        url = self._parts.config.absolute(endpoint.url)
        answer = await self._get(url, source.etags.get(url))
        if answer is None:
            return True
        digest = hashlib.sha256(json.dumps(answer.body, sort_keys=True).encode()).digest()
        dispatcher, size = self._parts.dispatcher, answer.size_bytes
        if digest != source.digest:
            if not dispatcher.admits(endpoint.event, size):
                return False  # neither digest nor ETag is taken: the next poll brings it, or something newer
            source.digest = digest
            dispatcher.post(Delivered(endpoint.event, [answer.body], size=size, is_kept=True))
        source.etags = {url: answer.etag}
        return True

    async def _poll_channels(self, source: _Source, *, only_new: bool) -> bool:
        """Deliver what the log of each wanted channel holds beyond the last event that arrived.

        Returns:
            Whether the handlers had room for all of it. What was left is asked for again.

        Raises:
            RealtimeError: Why the first request failed that did. A refusal of one concerns no other; behind
                a fault of the network or the server none is made.
        """
        etags: dict[str, str | None] = {}
        refusal: ProtocolError | None = None
        is_whole = True
        subscriptions = self._parts.subscriptions
        for asked in self._requests(subscriptions.unplaced() if only_new else subscriptions.polled()):
            try:
                is_whole &= await self._poll_some(source, asked, etags)
            except ProtocolError as error:
                refusal = refusal or error
        if not only_new:
            source.etags = etags
        if refusal is not None:
            raise refusal
        return is_whole

    def _requests(self, wanted: Sequence[Subscription]) -> Iterator[list[Subscription]]:
        """Yield the channels of each request, so that none has too long an address."""
        length = shortest = len(self._address([]))
        batch: list[Subscription] = []
        for subscription in wanted:
            added = len(urlencode(_query_of(subscription))) + 1
            if batch and length + added > _LONGEST_ADDRESS:
                yield batch
                batch, length = [], shortest
            batch.append(subscription)
            length += added
        if batch:
            yield batch

    def _address(self, asked: Sequence[Subscription]) -> str:
        config = self._parts.config
        query = urlencode([pair for subscription in asked for pair in _query_of(subscription)])
        return config.absolute(f"{config.dialect.poll_path}?{query}")

    async def _poll_some(
        self, source: _Source, asked: Sequence[Subscription], etags: dict[str, str | None]
    ) -> bool:
        """Poll channels until nothing more is to be had of them; return whether there was room for all."""
        subscriptions = self._parts.subscriptions
        is_whole = more = True
        while more:
            asked = [s for s in asked if subscriptions.get(s.channel) is s and not s.is_resyncing]
            if not asked:
                return True
            for subscription in asked:
                subscription.is_anew = subscription.position is None
            url = self._address(asked)
            # "Nothing has changed" tells nobody where a channel stands of whom nothing is known.
            etag = None if any(s.is_anew for s in asked) else source.etags.get(url)
            answer = await self._get(url, etag)
            if answer is None:
                etags[url], more = etag, False
            else:
                is_whole, more = self._take_channels(answer, {s.channel: s for s in asked})
                if is_whole:
                    etags[url] = answer.etag  # not before: what was not taken must be given again
            for subscription in asked:
                subscription.is_polled = True  # also where the server did not say a word of it
            subscriptions.tell()
            more = more and is_whole
        return is_whole

    def _take_channels(self, answer: HttpAnswer, asked: dict[str, Subscription]) -> tuple[bool, bool]:
        """Deliver the events of an answer.

        Returns:
            Whether there was room for all of them, and whether there are more to be fetched.
        """
        body = answer.body
        channels = body.get("channels") if isinstance(body, dict) else None
        if not isinstance(channels, dict):
            raise ProtocolError("The polling endpoint's answer holds no channels; check `dialect`.")
        is_whole, more = True, False
        subscriptions = self._parts.subscriptions
        for channel, stream in channels.items():
            subscription = asked.get(channel)
            if subscription is None or subscriptions.get(channel) is not subscription:
                self._parts.statistics.dropped["answer for an unsubscribed channel"] += 1
                continue
            if not isinstance(stream, dict) or stream.get("ok") is not True:
                self._refused(subscription, stream)
                continue
            before = subscription.position
            if not self._take_events(subscription, _events_of(stream), answer.size_bytes):
                is_whole = False
                continue
            subscription.state = SubscriptionState.WANTED  # by the socket, when it is back
            subscriptions.resume_at(subscription, stream)
            # At once only where the last answer brought us further, or it would go on for ever.
            more = more or (stream.get("more") is True and subscription.position != before)
        return is_whole, more

    def _take_events(
        self, subscription: Subscription, events: list[tuple[str, Any, Position | None]], size: int
    ) -> bool:
        """Deliver the events of a channel for which there is room; return whether it was enough for all."""
        dispatcher, subscriptions = self._parts.dispatcher, self._parts.subscriptions
        is_wanted = subscriptions.watch(subscription.channel)
        share = size // max(1, len(events))  # about: how large each is has not been looked at
        for name, data, position in events:
            if not dispatcher.admits(name, share):
                if position is not None and subscription.position is None:
                    subscription.give_back(position)  # so that it is what comes next
                return False
            give_back = None
            if position is not None:
                if not subscriptions.take_position(subscription.channel, position):
                    continue
                give_back = partial(subscription.give_back, position)
            dispatcher.post(
                Delivered(name, [data], None, is_wanted, share, is_kept=True, give_back=give_back)
            )
        return True

    def _refused(self, subscription: Subscription, stream: Any) -> None:
        """Note that a channel may not be polled; report it once."""
        if subscription.state is SubscriptionState.REFUSED:
            return
        parts = self._parts
        reason = parts.subscriptions.refuse(subscription, stream, secrets=parts.tokens.secrets)
        parts.recovery.handle(
            SubscriptionRefusedError(f"The server does not let {subscription.channel!r} be polled: {reason}.")
        )

    async def _get(self, url: str, etag: str | None) -> HttpAnswer | None:
        """Fetch an address; ``None`` where nothing has changed."""
        http = self._parts.http

        async def fetch(token: str | None) -> HttpAnswer:
            self._stop_where_it_ended()
            return await http.get(url, token=token, etag=etag)

        if self._parts.config.is_own_origin(url):
            answer = await _with_token(self._parts, fetch)
        else:
            answer = await fetch(None)  # the token is nobody else's business
        self._stop_where_it_ended()
        return None if answer.status == _NOT_MODIFIED else answer

    def _stop_where_it_ended(self) -> None:
        """End, where the state was left already: a task of the group hears of it turns after the group."""
        if self._stay is not None and self._stay.has_ended:
            raise asyncio.CancelledError


def _query_of(subscription: Subscription) -> list[tuple[str, str]]:
    """Return the part of an address that asks for a channel."""
    channel, here = subscription.channel, subscription.position
    asked = [("channel", channel)]
    return asked if here is None else [*asked, ("position", f"{channel}:{here.epoch}:{here.offset}")]


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


async def publishing(parts: Components, stay: Stay) -> None:
    """Publish what waits, in order and with the same ids as over the socket, batch by batch.

    Without an endpoint for it all waits for the socket.
    """
    path = parts.config.dialect.publish_path
    if path is None:
        return
    url = parts.config.absolute(path)
    time, pacer = asyncio.get_running_loop().time, parts.publishing
    await asyncio.sleep(pacer.floor.left(time()))  # what was asked for in the last fallback
    while True:
        batch = await parts.sender.next_batch(_BATCH)
        try:
            await _publish(parts, url, batch)
        except AuthenticationError as error:
            stay.report(Trigger.POLLING_REFUSED, error=error)
            return
        except RealtimeError as error:
            parts.statistics.failed_publishes += 1
            if pacer.failed(error, time()):
                parts.report_long_retry_after(error)
            parts.recovery.handle(error)
            await asyncio.sleep(pacer.pause(time()))
        else:
            pacer.succeeded()


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
