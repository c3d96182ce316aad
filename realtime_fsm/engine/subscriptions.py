"""Subscriptions are state: what is wanted is remembered, with the position of the last event of each channel.

It is asked for anew on every connection, from where each channel stands. A server that numbers its events
(``Dialect.positions``) replays what was missed; what it cannot replay the user's resync hook loads anew.
"""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from enum import Enum
from functools import partial
from typing import Any, Final

from attrs import define, evolve, frozen

from realtime_fsm.engine.dispatcher import Dispatcher
from realtime_fsm.engine.link import Link
from realtime_fsm.engine.message import refusal_text
from realtime_fsm.engine.payload import encode
from realtime_fsm.engine.statistics import Statistics
from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.machine.errors import (
    ConnectionLostError,
    EventsMissedError,
    InvalidArgumentError,
    RealtimeError,
    SubscriptionRefusedError,
)
from realtime_fsm.machine.redaction import redacted

BOOKING_PREFIX: Final = "booking:"
"""A monitored booking is a channel of this prefix, where the dialect knows positions."""


class SubscriptionState(Enum):
    """The stages of a subscription on the present connection."""

    WANTED = "wanted"
    """It is to be asked for: as soon as there is a connection, or because something of it was missed."""
    PENDING = "pending"
    """It was asked for, and not answered yet."""
    ACTIVE = "active"
    """The server has confirmed it, or was told where it does not confirm."""
    REFUSED = "refused"
    """The server said no; see ``reason``. The next connection asks again."""

    @property
    def is_decided(self) -> bool:
        """True where the present connection has nothing more to say about it."""
        return self in {SubscriptionState.ACTIVE, SubscriptionState.REFUSED}


@frozen(kw_only=True)
class Position:
    """A point in a channel's log.

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
        position: Of the last event that arrived, where the dialect tells.
        left_at: Position of the last event that was left to a replay, which must close the gap before it.
        is_resyncing: Whether its state is being loaded anew; until then its events are left to the replay
            that follows.
        awaits_room: Whether there was no room for an event of it; it is asked for again when there is.
        was_left: Whether there was none at any time since it was last asked for, so that not all of the
            replay was taken.
    """

    channel: str
    booking_id: str | None = None
    state: SubscriptionState = SubscriptionState.WANTED
    reason: str | None = None
    position: Position | None = None
    left_at: Position | None = None
    is_resyncing: bool = False
    awaits_room: bool = False
    was_left: bool = False

    def give_back(self, here: Position) -> None:
        """Stand before an event that was taken and never handled, so that it comes again."""
        self.position = evolve(here, offset=here.offset - 1)


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


@frozen(kw_only=True)
class Missed:
    """A gap in the events, as a resync hook is told of it.

    Attributes:
        channel: Whose events were missed; ``None`` for all that the server sends.
        position: Where the channel's stream goes on, if the hook gives no other position; ``None`` where
            the server tells none.
        reason: Why they cannot be replayed.
    """

    channel: str | None
    position: Position | None
    reason: str


ResyncHook = Callable[[Missed], "Position | Awaitable[Position | None] | None"]
"""Loads a snapshot, and returns its position in the channel: what was published after it comes next."""


class Resync:
    """Has the user's hook load what nobody can replay; the stream goes on from where that stands.

    The hook runs among the handlers: after the events before the gap, and before those after it.

    Args:
        dispatcher: Runs it.
        statistics: What it counts into.

    Attributes:
        hook: The user's; ``None`` where there is none.
    """

    def __init__(self, dispatcher: Dispatcher, statistics: Statistics) -> None:
        self._dispatcher = dispatcher
        self._statistics = statistics
        self._waits_for_all = False
        self.hook: ResyncHook | None = None

    def begin(self, missed: Missed, done: Callable[[Missed, Position | None], None]) -> bool:
        """Have the state of a channel loaded anew.

        Args:
            missed: What the hook is told.
            done: Called with the position from which to go on.

        Returns:
            Whether there is a hook.
        """
        if self.hook is None:
            return False
        self._dispatcher.run(f"resync of {missed.channel!r}", partial(self._load, self.hook, missed, done))
        return True

    def begin_for_all(self, reason: str) -> None:
        """Have everything loaded anew, where the server numbers nothing. One that waits already is enough."""
        if self.hook is None or self._waits_for_all:
            return
        self._waits_for_all = True
        missed = Missed(channel=None, position=None, reason=reason)
        self._dispatcher.run("resync", partial(self._load, self.hook, missed, None))

    def reset(self) -> None:
        """Forget what waits: the dispatcher has dropped it."""
        self._waits_for_all = False

    async def _load(
        self,
        hook: ResyncHook,
        missed: Missed,
        done: Callable[[Missed, Position | None], None] | None,
    ) -> None:
        if missed.channel is None:
            self._waits_for_all = False  # a connection that is lost from here on needs another one
        self._statistics.resyncs += 1
        position = missed.position
        try:
            result = hook(missed)
            given = await result if inspect.isawaitable(result) else result
            if isinstance(given, Position):
                position = given
            elif given is not None:
                raise InvalidArgumentError(
                    f"The resync hook returned a {type(given).__name__}.",
                    remedy="Return the Position of what it has loaded, or None.",
                )
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                done = None  # the client is being disconnected: the channel stands where it stood
            raise
        finally:
            if done is not None:
                done(missed, position)


_BY_REPLAY: Final = "event left to the replay"
NO_ROOM_YET: Final = "event without room, left to the replay"

_logger = logging.getLogger("realtime_fsm.subscription")


class Subscriptions:
    """All that is wanted, and how far each channel has come.

    An event of a channel is delivered if its offset follows the last one's. One that does not has left a gap:
    it is dropped, and the channel is asked for again from the last event, so that the server replays it with
    all that was missed. What cannot be replayed is loaded anew by the resync hook, once, and the channel
    goes on from where that stands.

    Args:
        config: The dialect's names, and how long a confirmation may take.
        statistics: What it counts into.
        resync: Loads what cannot be replayed.
        report: Told of what was missed, refused or not answered.

    Attributes:
        resync: As above.
    """

    def __init__(
        self,
        config: RealtimeConfig,
        statistics: Statistics,
        resync: Resync,
        report: Callable[[RealtimeError], object],
    ) -> None:
        self._config = config
        self._statistics = statistics
        self.resync = resync
        self._report = report
        self._wanted: dict[str, Subscription] = {}
        self._changed = asyncio.Event()

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
        self.tell()

    def forget(self, channels: Iterable[str]) -> list[str]:
        """Forget channels; return the ones that had been wanted."""
        forgotten = [name for name in channels if self._wanted.pop(name, None) is not None]
        self.tell()
        return forgotten

    def restart(self) -> None:
        """Begin anew, because the connection has ended: nothing is active any more."""
        for subscription in self._wanted.values():
            subscription.state = SubscriptionState.WANTED
            subscription.left_at = None
            subscription.awaits_room = subscription.was_left = False
        self.tell()

    def fetch_the_rest(self) -> None:
        """Ask again for what had been left for want of room: the handlers have caught up."""
        for subscription in self._wanted.values():
            subscription.awaits_room = False
        self.tell()

    def give_resyncs_up(self) -> None:
        """Forget the resyncs that were not finished, because the dispatcher has dropped them with all else.

        Their channels stand where they stood before.
        """
        self.resync.reset()
        for subscription in self._wanted.values():
            subscription.is_resyncing = False

    def tell(self) -> None:
        """Wake whoever waits for a change."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def due(self) -> None:
        """Wait until something is to be asked for."""
        while not self._to_be_asked_for():
            await self._changed.wait()

    async def decided(self, channels: Iterable[str], is_live: Callable[[], bool]) -> None:
        """Wait until the server has decided about channels, or the connection has ended."""
        names = list(channels)
        while is_live() and any(name in self._wanted and not self._is_decided(name) for name in names):
            await self._changed.wait()

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

    def get(self, channel: str) -> Subscription | None:
        """Return what is known of a channel that is wanted."""
        return self._wanted.get(channel)

    def positions(self) -> dict[str, Position | None]:
        """Return where each channel stands, for polling; without the ones that are loaded anew."""
        return {s.channel: s.position for s in self._wanted.values() if not s.is_resyncing}

    # Asking the server, over a live link.

    async def ask(self, link: Link) -> None:
        """Ask for all that is wanted and neither asked for nor confirmed yet, and wait for the answers.

        Where the dialect does not confirm, what was asked for counts as active. The wait is bounded by
        ``ack_timeout``; what was not answered by then stays wanted, and is reported.
        """
        dialect = self._config.dialect
        wanted = self._to_be_asked_for()
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
        """Tell the server that channels are no longer wanted, and wait as ``ask`` does."""
        try:
            await self._request(link, self._config.dialect.unsubscribe_event, {"channels": channels})
        except ConnectionLostError:
            return  # the next connection does not ask for them any more
        except TimeoutError:
            self._report(
                SubscriptionRefusedError("The server did not answer the unsubscribe request in time.")
            )

    async def _ask(
        self, link: Link, event: str, body: dict[str, Any], subscriptions: list[Subscription]
    ) -> None:
        if self._config.dialect.positions:
            body["positions"] = {
                s.channel: {"epoch": s.position.epoch, "offset": s.position.offset}
                for s in subscriptions
                if s.position is not None
            }
        for subscription in subscriptions:
            subscription.state = SubscriptionState.PENDING
            subscription.was_left = False
        try:
            answer = await self._request(link, event, body)
        except ConnectionLostError:
            return  # asked again on the next connection
        except TimeoutError:
            for subscription in subscriptions:
                subscription.state = SubscriptionState.WANTED
            self._report(SubscriptionRefusedError(f"The server did not answer the {event} request in time."))
            return
        for subscription in subscriptions:
            self._answered(link, subscription, answer)
        self.tell()

    async def _request(self, link: Link, event: str, body: dict[str, Any]) -> Any:
        """Send a request; return its answer, or a plain consent where the dialect gives none."""
        payload = encode([event, body], what=f"The {event} request", max_bytes=self._config.max_message_bytes)
        if not self._config.dialect.confirms_subscriptions:
            link.send(payload)
            return {"ok": True}
        async with asyncio.timeout(self._config.ack_timeout):
            args = await link.request(payload)
        return args[0] if args else None

    def _answered(self, link: Link, subscription: Subscription, answer: Any) -> None:
        """Note what the server said of one channel: one object for all of them, or one for each."""
        if subscription.state is not SubscriptionState.PENDING:
            return  # its connection has ended: the answer came too late
        said = answer
        if isinstance(answer, dict) and isinstance(answer.get("channels"), dict):
            said = answer["channels"].get(subscription.channel)
        if isinstance(said, dict) and said.get("ok") is True:
            self.confirm(subscription, said)
        else:
            reason = self.refuse(subscription, said, secrets=link.secrets)
            self._report(SubscriptionRefusedError(f"The server refused {subscription.channel!r}: {reason}."))

    # What the server says, over the link or in the answer to a poll.

    def take_position(
        self, channel: str, here: Position, has_room: Callable[[], bool] = lambda: True
    ) -> bool:
        """Note the position of an event that arrived.

        Args:
            channel: Of the event.
            here: Its position.
            has_room: Asked whether it can be delivered now; if not, its position is not taken, and it is
                fetched again when there is room.

        Returns:
            Whether it is to be delivered now: it is new, and follows the last one.
        """
        subscription = self._wanted.get(channel)
        if subscription is None:
            return True
        last = subscription.position
        if subscription.is_resyncing:
            self._statistics.dropped[_BY_REPLAY] += 1
            return False
        if last is None or _follows(last, here):
            if not has_room():
                self._leave_for_room(subscription, here)
                return False
            subscription.position = here
            return True
        if last.epoch == here.epoch and here.offset <= last.offset:
            self._statistics.duplicates += 1
        else:
            self._leave_to_replay(subscription, here)
        return False

    def refuse(self, subscription: Subscription, answer: Any, *, secrets: Collection[str]) -> str:
        """Note that the server has refused a channel.

        Args:
            subscription: The channel.
            answer: The server's object for it.
            secrets: What its words must not show, though it may repeat them.

        Returns:
            Why, in the server's words.
        """
        reason = refusal_text(answer.get("error") if isinstance(answer, dict) else None)
        subscription.state = SubscriptionState.REFUSED
        subscription.reason = redacted(reason, secrets)
        return subscription.reason

    def confirm(self, subscription: Subscription, answer: Mapping[str, Any]) -> None:
        """Note that the server has confirmed a channel, after all that it has replayed."""
        subscription.state = SubscriptionState.ACTIVE
        self.resume_at(subscription, answer)
        left_at, subscription.left_at = subscription.left_at, None
        here = subscription.position
        if left_at is not None and (here is None or not _reaches(here, left_at)):
            subscription.state = SubscriptionState.WANTED  # what was left came after what was replayed

    def resume_at(self, subscription: Subscription, answer: Mapping[str, Any]) -> None:
        """Take over where the server says that a channel stands, after all that it has replayed.

        Args:
            subscription: The channel.
            answer: The server's object for it: ``epoch``, ``offset``, ``recovered``.
        """
        here = read_position(answer)
        if here is None or subscription.is_resyncing:
            return
        last = subscription.position
        if answer.get("recovered") is False and last is not None:
            self._missed(subscription, here, "its log does not reach back")
        elif last is None:
            subscription.position = here
        elif subscription.was_left and last.epoch == here.epoch:
            return  # it has replayed all, and we have not taken all of it
        elif last.epoch != here.epoch or last.offset < here.offset:
            # It says that it has replayed all, and has not: to ask again would go on for ever.
            self._missed(subscription, here, "the server did not replay all that it said")

    def _to_be_asked_for(self) -> list[Subscription]:
        return [
            s for s in self if s.state is SubscriptionState.WANTED and not (s.is_resyncing or s.awaits_room)
        ]

    def _is_decided(self, channel: str) -> bool:
        subscription = self._wanted[channel]
        return subscription.state.is_decided or subscription.is_resyncing or subscription.awaits_room

    def _leave_to_replay(self, subscription: Subscription, here: Position) -> None:
        """Drop an event that does not follow the last one, and have the server replay from there."""
        if subscription.left_at is None:
            self._statistics.gaps += 1
            _logger.warning(
                "an event of channel %r does not follow the last one: the server is asked to replay",
                subscription.channel,
            )
        self._statistics.dropped[_BY_REPLAY] += 1
        subscription.left_at = here
        if subscription.state is SubscriptionState.ACTIVE:
            subscription.state = SubscriptionState.WANTED
            self.tell()

    def _leave_for_room(self, subscription: Subscription, here: Position) -> None:
        """Drop an event that the handlers have no room for, and have it replayed when they have."""
        self._statistics.dropped[NO_ROOM_YET] += 1
        if subscription.position is None:
            subscription.give_back(here)
        subscription.left_at = here
        subscription.awaits_room = subscription.was_left = True
        if subscription.state is SubscriptionState.ACTIVE:
            subscription.state = SubscriptionState.WANTED
        self.tell()

    def _missed(self, subscription: Subscription, here: Position, why: str) -> None:
        """Load a channel anew, or go on without what was missed where nobody can."""
        self._statistics.unrecovered += 1
        missed = Missed(channel=subscription.channel, position=here, reason=why)
        subscription.is_resyncing = self.resync.begin(missed, self._resynced)
        if not subscription.is_resyncing:
            subscription.position = here
            self._report(EventsMissedError(f"Events of channel {subscription.channel!r} were missed: {why}."))

    def _resynced(self, missed: Missed, position: Position | None) -> None:
        """Go on from where a resync has ended."""
        subscription = self._wanted.get(missed.channel or "")
        if subscription is None or not subscription.is_resyncing:
            return
        subscription.is_resyncing = False
        subscription.position = position
        subscription.left_at = None
        subscription.awaits_room = subscription.was_left = False
        subscription.state = SubscriptionState.WANTED
        self.tell()


def _reaches(here: Position, there: Position) -> bool:
    return here.epoch == there.epoch and here.offset >= there.offset


def _follows(last: Position, here: Position) -> bool:
    return here.epoch == last.epoch and here.offset == last.offset + 1
