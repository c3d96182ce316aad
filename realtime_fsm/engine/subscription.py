"""Subscriptions are state: what is wanted is remembered, and asked for again on every connection."""

import asyncio
import logging
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from typing import Any, Final

from attrs import define, field, frozen

from realtime_fsm.engine.answer import refusal_text
from realtime_fsm.engine.link import Link
from realtime_fsm.engine.payload import encode
from realtime_fsm.engine.recovery import ErrorRecoveryStrategy
from realtime_fsm.engine.statistics import Statistics
from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.machine.errors import (
    ConnectionLostError,
    InvalidArgumentError,
    SubscriptionRefusedError,
)

BOOKING_PREFIX: Final = "booking:"
"""A monitored booking is a channel of this prefix, where the dialect knows positions."""

_logger = logging.getLogger("realtime_fsm.subscription")


class SubscriptionState(Enum):
    """How far a subscription has come on the present connection."""

    WANTED = "wanted"
    PENDING = "pending"
    ACTIVE = "active"
    REFUSED = "refused"


@frozen(kw_only=True)
class Position:
    """A place in a channel's log.

    Attributes:
        epoch: Identity of the log; another one means that the old log is lost.
        offset: Number of the last event; they rise by one.
    """

    epoch: str
    offset: int


@define(eq=False, kw_only=True)
class Subscription:
    """One channel or booking that is wanted.

    Attributes:
        channel: Name under which its events arrive.
        booking_id: Set where it was asked for by ``monitor_bookings``.
        state: How far it has come on the present connection.
        reason: Why it was refused.
        position: Place of the last event that arrived, where the dialect tells.
    """

    channel: str
    booking_id: str | None = None
    state: SubscriptionState = SubscriptionState.WANTED
    reason: str | None = None
    position: Position | None = None


@define(eq=False)
class Subscriptions:
    """All that is wanted, and asking for it.

    Attributes:
        config: The dialect's names, and the time-out of a confirmation.
        statistics: What it counts into.
        recovery: Told of what could not be subscribed.
    """

    config: RealtimeConfig
    statistics: Statistics
    recovery: ErrorRecoveryStrategy
    _wanted: dict[str, Subscription] = field(factory=dict, init=False)

    def __iter__(self) -> Iterator[Subscription]:
        return iter(list(self._wanted.values()))

    def want(self, channels: Iterable[str], *, bookings: bool = False) -> None:
        """Remember channels (or bookings), to be asked for now and on every connection."""
        for name in channels:
            channel = BOOKING_PREFIX + name if bookings else name
            known = self._wanted.setdefault(
                channel, Subscription(channel=channel, booking_id=name if bookings else None)
            )
            if known.state is SubscriptionState.REFUSED:
                known.state = SubscriptionState.WANTED

    def forget(self, channels: Iterable[str]) -> list[str]:
        """Forget channels; return the ones that had been wanted."""
        return [name for name in channels if self._wanted.pop(name, None) is not None]

    def restart(self) -> None:
        """Begin anew, because the connection is a new one: nothing is active on it."""
        for subscription in self._wanted.values():
            subscription.state = SubscriptionState.WANTED

    async def ask(self, link: Link) -> None:
        """Ask for all that is wanted and neither asked for nor confirmed yet, and wait for the answers.

        Where the dialect does not confirm, what was asked for counts as active. The wait is bounded by
        ``ack_timeout``; what was not answered by then stays wanted, and is reported.
        """
        dialect = self.config.dialect
        wanted = [s for s in self._wanted.values() if s.state is SubscriptionState.WANTED]
        channels = [s for s in wanted if s.booking_id is None]
        bookings = [s for s in wanted if s.booking_id is not None]
        requests = []
        if channels:
            body = {"channels": [s.channel for s in channels]}
            requests.append(self._ask(link, dialect.subscribe_event, body, channels))
        if bookings:
            body = {"booking_ids": [str(s.booking_id) for s in bookings]}
            requests.append(self._ask(link, dialect.monitor_event, body, bookings))
        await asyncio.gather(*requests)

    async def drop(self, link: Link, channels: list[str]) -> None:
        """Tell the server that channels are no longer wanted. Errors as for ``ask``, reported."""
        try:
            await self._request(link, self.config.dialect.unsubscribe_event, {"channels": channels})
        except ConnectionLostError:
            return  # the next connection does not ask for them any more
        except TimeoutError:
            self.recovery.handle(
                SubscriptionRefusedError("The server did not answer the unsubscribe request in time.")
            )

    def refusals(self, channels: Iterable[str]) -> SubscriptionRefusedError | None:
        """Return one error for all refused channels among these, or ``None``."""
        refused = [
            f"{name!r} ({s.reason})"
            for name in channels
            if (s := self._wanted.get(name)) and s.state is SubscriptionState.REFUSED
        ]
        if not refused:
            return None
        return SubscriptionRefusedError(f"The server refused {', '.join(refused)}.")

    def positions(self) -> dict[str, Position | None]:
        """Return where each channel stands, for polling."""
        return {s.channel: s.position for s in self._wanted.values()}

    def take_place(self, channel: str, here: Position) -> bool:
        """Note the place of an event that arrived.

        Returns:
            Whether it is new. An event at or before the place that is already known is a repeat.
        """
        subscription = self._wanted.get(channel)
        if subscription is None:
            return True
        last = subscription.position
        if last is not None and last.epoch == here.epoch:
            if here.offset <= last.offset:
                self.statistics.duplicates += 1
                return False
            self.statistics.gaps += here.offset > last.offset + 1
        subscription.position = here
        return True

    def resume_at(self, channel: str, answer: Mapping[str, Any]) -> None:
        """Take over where the server says that a channel's stream stands, unless we are further already."""
        subscription = self._wanted.get(channel)
        here = read_position(answer)
        if subscription is None or here is None:
            return
        last = subscription.position
        if last is None or last.epoch != here.epoch:
            subscription.position = here
        if answer.get("recovered") is False:
            self.statistics.gaps += 1
            _logger.warning("events of channel %r were missed: its log does not reach back", channel)

    async def _ask(
        self, link: Link, event: str, body: dict[str, Any], subscriptions: list[Subscription]
    ) -> None:
        if self.config.dialect.positions:
            body["positions"] = {
                s.channel: {"epoch": s.position.epoch, "offset": s.position.offset}
                for s in subscriptions
                if s.position is not None
            }
        for subscription in subscriptions:
            subscription.state = SubscriptionState.PENDING
        try:
            answer = await self._request(link, event, body)
        except ConnectionLostError:
            return  # asked again on the next connection, which begins with `restart`
        except TimeoutError:
            for subscription in subscriptions:
                subscription.state = SubscriptionState.WANTED
            self.recovery.handle(
                SubscriptionRefusedError(f"The server did not answer the {event} request in time.")
            )
            return
        for subscription in subscriptions:
            self._confirm(subscription, answer)

    async def _request(self, link: Link, event: str, body: dict[str, Any]) -> Any:
        """Send a request; return its answer, or a plain consent where the dialect gives none."""
        payload = encode([event, body], what=f"The {event} request", max_bytes=self.config.max_message_bytes)
        if not self.config.dialect.confirms_subscriptions:
            link.send(payload)
            return {"ok": True}
        async with asyncio.timeout(self.config.ack_timeout):
            args = await link.request(payload)
        return args[0] if args else None

    def _confirm(self, subscription: Subscription, answer: Any) -> None:
        verdict = answer
        if isinstance(answer, dict) and isinstance(answer.get("channels"), dict):
            verdict = answer["channels"].get(subscription.channel)
        if isinstance(verdict, dict) and verdict.get("ok") is True:
            subscription.state = SubscriptionState.ACTIVE
            self.resume_at(subscription.channel, verdict)
            return
        subscription.state = SubscriptionState.REFUSED
        subscription.reason = refusal_text(verdict.get("error") if isinstance(verdict, dict) else None)
        self.recovery.handle(
            SubscriptionRefusedError(f"The server refused {subscription.channel!r}: {subscription.reason}.")
        )


def read_position(answer: Mapping[str, Any]) -> Position | None:
    """Return the position that a server's object holds, or ``None`` where it holds none."""
    epoch, offset = answer.get("epoch"), answer.get("offset")
    return Position(epoch=epoch, offset=offset) if isinstance(epoch, str) and type(offset) is int else None


def check_names(names: Iterable[str], *, what: str) -> list[str]:
    """Return the names of channels (or bookings) if they may be asked for, each once, in order.

    Raises:
        InvalidArgumentError: For all names that are not a string or are blank, or if a bare string was given.
    """
    if isinstance(names, (str, bytes)):
        raise InvalidArgumentError(
            f"{what}={names!r} is one name, not several.", remedy=f"Give a list: [{names!r}]."
        )
    given = list(names)
    wrong = [name for name in given if not isinstance(name, str) or not name.strip()]
    if wrong or not given:
        raise InvalidArgumentError(
            f"{what}={given!r} holds {wrong!r}." if wrong else f"{what} is empty.",
            remedy="Give a list of names that are not blank.",
        )
    return list(dict.fromkeys(given))
