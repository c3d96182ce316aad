"""Subscriptions are state: what is wanted is remembered, with the position of the last event of each channel.

It is asked for anew on every connection, from where each channel stands. A server that numbers its events
(``Dialect.positions``) replays what was missed; what it cannot replay the user's resync hook loads anew.
"""

import asyncio
import inspect
import json
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from enum import Enum
from functools import partial
from typing import Any, Final

from attrs import define, evolve, frozen

from realtime_fsm.engine.dispatcher import Dispatcher
from realtime_fsm.engine.link import Link
from realtime_fsm.engine.message import refusal_text
from realtime_fsm.engine.payload import Payload, encode
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
        is_asked: Whether the present connection has been asked for it.
        is_known: Whether the server's session may know it: it was asked for on this connection, or on one
            whose session this one goes on with.
        is_anew: Whether it was last asked for without a position, so that nothing of it can be missed yet.
        is_polled: Whether polling has told where it stands since the last live connection.
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
    is_asked: bool = False
    is_known: bool = False
    is_anew: bool = False
    is_polled: bool = False
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
_UNWANTED: Final = "event of an unsubscribed channel"

_MOST_LEFT: Final = 1000
"""Channels that are remembered because the server may still know them, though nobody wants them."""

_FARTHEST: Final = Position(epoch="e" * 64, offset=2**63)
"""A position as long as any that is reckoned with, when a name is looked at for the first time."""
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
        # Channels that nobody wants any more, and that the server may still know: whether the present
        # connection was told. Those whose answer is out have a token each: until it comes, what arrives of
        # them was sent before.
        self._left: dict[str, bool] = {}
        self._leaving: dict[str, object] = {}
        self._changed = asyncio.Event()

    def __iter__(self) -> Iterator[Subscription]:
        return iter(list(self._wanted.values()))

    def check(self, names: Iterable[str], *, bookings: bool = False) -> None:
        """Look whether each channel (or booking) can be asked for, by itself, on every connection to come.

        Raises:
            InvalidArgumentError: If one cannot: it is too long, or no text, or the dialect's payload of it is
                not JSON.
        """
        here = _FARTHEST if self._config.dialect.positions else None
        for name in names:
            channel = BOOKING_PREFIX + name if bookings else name
            booking_id = name if bookings else None
            self._request_for([Subscription(channel=channel, booking_id=booking_id, position=here)])
            if (given := self._config.dialect.unsubscribe_payload) is not None:
                self._encoded(self._config.dialect.unsubscribe_event, arguments_of(given, channel))

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
        """Forget channels; return those that the present connection was asked for, and must be told of."""
        asked = []
        for name in channels:
            forgotten = self._wanted.pop(name, None)
            if forgotten is None:
                continue
            if forgotten.is_known:
                self._left[name] = False
            if forgotten.is_asked:
                asked.append(name)
        while len(self._left) > _MOST_LEFT:
            del self._left[next(iter(self._left))]
        self.tell()
        return asked

    def restart(self) -> None:
        """Begin anew, because the connection has ended: nothing is active any more."""
        for subscription in self._wanted.values():
            subscription.state = SubscriptionState.WANTED
            subscription.left_at = None
            subscription.is_asked = subscription.is_polled = False
            subscription.awaits_room = subscription.was_left = False
        self._left = dict.fromkeys(self._left, False)
        self._leaving.clear()
        self.tell()

    def fetch_the_rest(self) -> None:
        """Ask again for what had been left for want of room: the handlers have caught up."""
        for subscription in self._wanted.values():
            subscription.awaits_room = False
        self.tell()

    def began(self, *, is_whole: bool) -> None:
        """Note that a connection has become live.

        Args:
            is_whole: Whether it goes on with the session of the one before, whose channels the server knows.
        """
        if is_whole:
            return
        self._left.clear()
        for subscription in self._wanted.values():
            subscription.is_known = False

    def give_resyncs_up(self) -> None:
        """Forget the resyncs that were not finished, because the dispatcher has dropped them with all else.

        Their channels stand where they stood before.
        """
        self.resync.reset()
        for subscription in self._wanted.values():
            subscription.is_resyncing = False

    def leave_loop(self) -> None:
        """Forget the event loop; what is wanted stays so."""
        self._changed = asyncio.Event()
        self.give_resyncs_up()

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

    async def placed(self, channels: Iterable[str], is_polling: Callable[[], bool]) -> None:
        """Wait until it is known where each channel stands, so that nothing of it is missed in silence.

        Args:
            channels: Their names.
            is_polling: Whether polling may still tell it.
        """
        names = set(channels)
        while is_polling() and not names.isdisjoint(s.channel for s in self.unplaced()):
            await self._changed.wait()

    def unplaced(self) -> list[Subscription]:
        """Return the channels of which polling has yet to learn where they stand."""
        return [
            s
            for s in self._wanted.values()
            if s.position is None
            and not (s.is_polled or s.is_resyncing or s.state is SubscriptionState.REFUSED)
        ]

    async def changed(self) -> None:
        """Wait for the next change; it may be of anything."""
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

    def watch(self, channel: str) -> Callable[[], bool] | None:
        """Return what tells whether a channel has been wanted from now on; ``None`` where it is not now."""
        subscription = self._wanted.get(channel)
        return None if subscription is None else partial(self._is_wanted, subscription)

    def polled(self) -> list[Subscription]:
        """Return what is to be polled: all but the channels that are loaded anew."""
        return [s for s in self._wanted.values() if not s.is_resyncing]

    # Asking the server, over a live link.

    async def ask(self, link: Link) -> None:
        """Ask for all that is wanted and neither asked for nor confirmed yet, and wait for the answers.

        What does not fit into one request (``max_message_bytes``) goes in several, in order; each is answered
        for itself. What is sent was decided in the same step: nothing that is decided later, such as an
        ``unsubscribe``, can be on the wire before it. Where the dialect does not confirm, what was asked for
        counts as active. The wait is bounded by ``ack_timeout``; what was not answered by then stays wanted,
        and is reported.
        """
        wanted = self._to_be_asked_for()
        channels = deque(s for s in wanted if s.booking_id is None)
        bookings = deque(s for s in wanted if s.booking_id is not None)
        sent: list[tuple[list[Subscription], asyncio.Future[list[Any]]]] = []
        for waiting in (channels, bookings):
            while waiting:
                if (batch := self._next_batch(waiting)) and (one := self._send(link, batch)) is not None:
                    sent.append((batch, one))
                await asyncio.sleep(0)  # each encodes up to a megabyte: the loop gets its turn in between
        await asyncio.gather(*(self._heard(link, *each) for each in sent))

    async def leave(self, link: Link) -> None:
        """Tell a server that goes on with the session what was unsubscribed while nobody could tell it."""
        await self.drop(link, [channel for channel, told in self._left.items() if not told])

    async def drop(self, link: Link, channels: list[str]) -> None:
        """Tell the server that channels are no longer wanted, and wait as ``ask`` does.

        All requests are sent in the first step, so that a caller that is cancelled has sent them too.
        """
        if not channels:
            return
        token = object()
        sent = [self._request(link, payload) for payload in self._leave_requests(channels)]
        self._left.update((channel, True) for channel in channels if channel in self._left)
        answers = [answer for answer in sent if answer is not None]
        if not answers:
            return
        self._leaving.update(dict.fromkeys(channels, token))
        while len(self._leaving) > _MOST_LEFT:
            del self._leaving[next(iter(self._leaving))]
        try:
            async with asyncio.timeout(self._config.ack_timeout):
                await asyncio.gather(*answers)
        except ConnectionLostError:
            return  # the next connection does not ask for them any more
        except TimeoutError:
            self._report(
                SubscriptionRefusedError("The server did not answer the unsubscribe request in time.")
            )
        for channel in channels:
            if self._leaving.get(channel) is token:
                del self._leaving[channel]
                self._left.pop(channel, None)

    def _next_batch(self, waiting: deque[Subscription]) -> list[Subscription]:
        """Take the next that fit into one request; those that nobody wants any more are passed over."""
        dialect = self._config.dialect
        room = self._config.max_message_bytes - _FRAME_BYTES
        room -= len(dialect.subscribe_event.encode()) + len(dialect.monitor_event.encode())
        batch: list[Subscription] = []
        while waiting:
            one = waiting[0]
            if one.state is not SubscriptionState.WANTED or not self._is_wanted(one):
                waiting.popleft()
                continue
            room -= self._size_of(one)
            if batch and (room < 0 or (one.booking_id is None and dialect.subscribe_payload is not None)):
                break
            batch.append(waiting.popleft())
        return batch

    def _size_of(self, subscription: Subscription) -> int:
        """Return what a channel adds to a request."""
        size = _json_bytes(subscription.booking_id or subscription.channel) + 1
        if self._config.dialect.positions and subscription.position is not None:
            place = _as_json(subscription.position)
            size += _json_bytes(subscription.channel) + _json_bytes(place) + 2
        return size

    def _send(self, link: Link, batch: list[Subscription]) -> "asyncio.Future[list[Any]] | None":
        """Ask for channels, now; return the answer to come, or ``None`` where there is none."""
        try:
            payload = self._request_for(batch)
        except InvalidArgumentError as error:
            # Not the others' fault, nor the connection's: only its position, or a payload of the user's that
            # differs from call to call, can have made of it what it was not when it was subscribed.
            for subscription in batch:
                reason = self.refuse(subscription, {"error": error.message}, secrets=link.secrets)
                self._report(
                    SubscriptionRefusedError(f"{subscription.channel!r} cannot be asked for: {reason}")
                )
            self.tell()
            return None
        for subscription in batch:
            subscription.state = SubscriptionState.PENDING
            subscription.is_asked = subscription.is_known = True
            subscription.is_anew = subscription.position is None
            subscription.was_left = False
            self._left.pop(subscription.channel, None)
        answer = self._request(link, payload)
        if answer is None:
            for subscription in batch:
                self.confirm(subscription, {})
            self.tell()
        return answer

    async def _heard(
        self, link: Link, batch: list[Subscription], answer: "asyncio.Future[list[Any]]"
    ) -> None:
        """Wait for the answer to a request, and note it."""
        try:
            async with asyncio.timeout(self._config.ack_timeout):
                args = await answer
        except ConnectionLostError:
            return  # asked again on the next connection
        except TimeoutError:
            for subscription in batch:
                if subscription.state is SubscriptionState.PENDING:
                    subscription.state = SubscriptionState.WANTED
            event = self._event_of(batch)
            self._report(SubscriptionRefusedError(f"The server did not answer the {event} request in time."))
            self.tell()
            return
        for subscription in batch:
            self._answered(link, subscription, args[0] if args else None)
        self.tell()

    def _request(self, link: Link, payload: Payload) -> "asyncio.Future[list[Any]] | None":
        """Send a request, now; return its answer to come, or ``None`` where the dialect gives none."""
        if not self._config.dialect.confirms_subscriptions:
            link.send(payload)
            return None
        return link.ask(payload)

    def _request_for(self, batch: list[Subscription]) -> Payload:
        """Encode the request for channels, or for bookings.

        Raises:
            InvalidArgumentError: If it cannot be sent.
        """
        dialect, event = self._config.dialect, self._event_of(batch)
        places = {s.channel: _as_json(s.position) for s in batch if s.position is not None}
        if batch[0].booking_id is None and (given := dialect.subscribe_payload) is not None:
            (one,) = batch
            return self._encoded(event, arguments_of(given, one.channel, places.get(one.channel)))
        names = [s.channel if s.booking_id is None else s.booking_id for s in batch]
        body: dict[str, Any] = {"channels" if batch[0].booking_id is None else "booking_ids": names}
        if dialect.positions:
            body["positions"] = places
        return self._encoded(event, (body,))

    def _event_of(self, batch: list[Subscription]) -> str:
        dialect = self._config.dialect
        return dialect.subscribe_event if batch[0].booking_id is None else dialect.monitor_event

    def _leave_requests(self, channels: list[str]) -> Iterator[Payload]:
        """Yield the requests that end channels, each of which fits."""
        dialect, event = self._config.dialect, self._config.dialect.unsubscribe_event
        if dialect.unsubscribe_payload is not None:
            for channel in channels:
                try:
                    yield self._encoded(event, arguments_of(dialect.unsubscribe_payload, channel))
                except InvalidArgumentError as error:  # it could be made when the channel was subscribed
                    self._report(error)
            return
        most = self._config.max_message_bytes - _FRAME_BYTES - len(event.encode())
        batch: list[str] = []
        room = most
        for channel in channels:
            size = _json_bytes(channel) + 1
            if batch and size > room:
                yield self._encoded(event, ({"channels": batch},))
                batch, room = [], most
            batch.append(channel)
            room -= size
        yield self._encoded(event, ({"channels": batch},))

    def _encoded(self, event: str, args: tuple[Any, ...]) -> Payload:
        return encode([event, *args], what=f"The {event} request", max_bytes=self._config.max_message_bytes)

    def _answered(self, link: Link, subscription: Subscription, answer: Any) -> None:
        """Note what the server said of one channel: one object for all of them, or one for each."""
        if subscription.state is not SubscriptionState.PENDING or not self._is_wanted(subscription):
            return  # its connection has ended, or it was unsubscribed: the answer came too late
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
            if channel in self._leaving:
                self._statistics.dropped[_UNWANTED] += 1
                return False
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
        was_left = subscription.was_left and last is not None and last.epoch == here.epoch
        if last is None or (subscription.is_anew and not was_left and not _reaches(last, here)):
            subscription.position = here  # it was asked for from now on: what came before is no loss
        elif subscription.is_anew:
            return
        elif answer.get("recovered") is False:
            self._missed(subscription, here, "its log does not reach back")
        elif was_left:
            return  # it has replayed all, and we have not taken all of it
        elif last.epoch != here.epoch or last.offset < here.offset:
            # It says that it has replayed all, and has not: to ask again would go on for ever.
            self._missed(subscription, here, "the server did not replay all that it said")

    def _is_wanted(self, subscription: Subscription) -> bool:
        return self._wanted.get(subscription.channel) is subscription

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


_FRAME_BYTES: Final = 64
"""What a request holds beside the names and positions: quotes, brackets, and the keys of its body."""


def _as_json(here: Position) -> dict[str, Any]:
    return {"epoch": here.epoch, "offset": here.offset}


def _json_bytes(value: object) -> int:
    """Return how many bytes a value takes in a request."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return len(text.encode(errors="surrogatepass"))  # one that cannot be sent is refused by the encoding


def arguments_of(payload: Callable[..., Any], *args: Any) -> tuple[Any, ...]:
    """Return the arguments that a dialect's own payload gives, as for ``emit``.

    Raises:
        InvalidArgumentError: If it raises.
    """
    try:
        given = payload(*args)
    except Exception as error:
        raise InvalidArgumentError(
            f"The dialect's payload of {args[0]!r} raised {type(error).__name__}: {error}.",
            remedy="See `Dialect.subscribe_payload` and `unsubscribe_payload`.",
        ) from error
    return given if isinstance(given, tuple) else () if given is None else (given,)


def _reaches(here: Position, there: Position) -> bool:
    return here.epoch == there.epoch and here.offset >= there.offset


def _follows(last: Position, here: Position) -> bool:
    return here.epoch == last.epoch and here.offset == last.offset + 1
