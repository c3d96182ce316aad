"""Publishing, subscribing and polling: one log for each channel, seen live and later.

The order that is promised: a client gets the events of a channel by rising offset, the missed ones before
the acknowledgement of its subscription, and no live one between them. It holds because nothing between
reading the log and joining the channel awaits, and because all that is sent to a client, acknowledgements
included, goes through the one queue of its connection.
"""

import asyncio
import json
import logging
import secrets
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, Final

from attrs import field, frozen
from engineio.packet import Packet as EnginePacket

from realtime_fsm.engine.payload import check_event_name
from realtime_fsm.engine.subscriptions import Position
from realtime_fsm.machine.errors import ErrorCategory, InvalidArgumentError
from realtime_fsm.server.config import BackendConfig
from realtime_fsm.server.request import (
    MAX_NAME_LENGTH,
    Answer,
    ChannelRequest,
    is_channel_name,
    json_text,
    problem,
)
from realtime_fsm.server.router import Client, call
from realtime_fsm.server.session import Session, Sessions
from realtime_fsm.server.socketio_server import EngineServer, message

AuthorizeChannel = Callable[[Client, str], Any]
"""``authorize_channel(client, channel) -> bool``, plain or a coroutine function."""

_POLL_LIMIT: Final = 500
"""Most events per channel of one poll."""

_POLL_BYTES: Final = 1_000_000
"""About how large the answer of one poll may grow; what is left is fetched by the next one."""

_logger = logging.getLogger("realtime_fsm.server")


@frozen
class LoggedEvent:
    """A published event and its number.

    Attributes:
        event: Its name.
        data: What was published with it.
        offset: Its number in the channel; they rise by one, from 1.
    """

    event: str
    data: Any
    offset: int


@frozen(kw_only=True)
class Replay:
    """The events that a client missed while it was away.

    Attributes:
        recovered: Whether the log still holds everything after the client's position.
        position: That of the last of ``events``, or where the live stream begins.
        events: What was missed, oldest first; nothing where it cannot be recovered.
        more: Whether ``limit`` cut the events short.
    """

    recovered: bool
    position: Position
    events: list[LoggedEvent] = field(factory=list)
    more: bool = False


class ChannelLog:
    """The last events of one channel.

    Args:
        size: How many are kept.
        epoch: Identity of this log; positions of another one mean nothing in it.
    """

    def __init__(self, size: int, epoch: str) -> None:
        self._epoch = epoch
        self._last = 0
        self._events: deque[LoggedEvent] = deque(maxlen=size)

    @property
    def position(self) -> Position:
        """Position of the last event; offset 0 where there was none yet."""
        return Position(epoch=self._epoch, offset=self._last)

    def append(self, event: str, data: Any) -> Position:
        """Keep an event, and give up the oldest one where the log is full."""
        self._last += 1
        self._events.append(LoggedEvent(event, data, self._last))
        return self.position

    def since(self, position: Position | None, limit: int | None = None) -> Replay:
        """Return what was published after a position.

        Args:
            position: The last event that the client has; ``None`` asks for nothing but where the stream is.
            limit: Most events to be returned.
        """
        if position is None:
            return Replay(recovered=True, position=self.position)
        before_first = self._last - len(self._events)
        if position.epoch != self._epoch or not before_first <= position.offset <= self._last:
            return Replay(recovered=False, position=self.position)
        skip = position.offset - before_first
        stop = None if limit is None else skip + limit
        events = list(islice(self._events, skip, stop))
        reached = events[-1].offset if events else position.offset
        return Replay(
            recovered=True,
            position=Position(epoch=self._epoch, offset=reached),
            events=events,
            more=reached < self._last,
        )


class ChannelLogs:
    """The logs of all channels, of a bounded number: the one published to longest ago is given up first.

    Only publishing makes a log, so that no client can crowd another one's out. A channel without one stands
    at offset 0 of the present epoch, which is the epoch of all logs begun in it. It ends when a log is given
    up: should that channel return, its old positions are of another epoch, and nobody mistakes the two.

    Args:
        max_channels: How many logs are kept.
        log_size: How many events each of them keeps.
        new_epoch: Makes an id that was never used before.
    """

    def __init__(
        self,
        *,
        max_channels: int,
        log_size: int,
        new_epoch: Callable[[], str] = lambda: secrets.token_hex(8),
    ) -> None:
        self._max_channels = max_channels
        self._log_size = log_size
        self._new_epoch = new_epoch
        self._epoch = new_epoch()
        self._logs: OrderedDict[str, ChannelLog] = OrderedDict()

    def __len__(self) -> int:
        return len(self._logs)

    def append(self, channel: str, event: str, data: Any) -> Position:
        """Keep an event of a channel."""
        log = self._logs.get(channel)
        if log is None:
            if len(self._logs) >= self._max_channels:
                self._logs.popitem(last=False)
                self._epoch = self._new_epoch()
            log = self._logs[channel] = ChannelLog(self._log_size, self._epoch)
        else:
            self._logs.move_to_end(channel)
        return log.append(event, data)

    def since(self, channel: str, position: Position | None, limit: int | None = None) -> Replay:
        """Return what was published to a channel after a position; see ``ChannelLog.since``."""
        log = self._logs.get(channel) or ChannelLog(self._log_size, self._epoch)
        return log.since(position, limit)


class Channels:
    """Publishes to the channels, subscribes clients to them, and answers polls.

    Args:
        config: The limits.
        sessions: Who is subscribed.
        engine: What the events are sent through.
        condemn: Called with a session that is to be disconnected, and why.
        authorize: Says who may have which channel; by default everybody may have all.
    """

    def __init__(
        self,
        config: BackendConfig,
        sessions: Sessions,
        engine: EngineServer,
        *,
        condemn: Callable[[Session, str], None],
        authorize: AuthorizeChannel | None,
    ) -> None:
        self._config = config
        self._sessions = sessions
        self._engine = engine
        self._condemn = condemn
        self._authorize = authorize
        self._logs = ChannelLogs(max_channels=config.max_channels, log_size=config.log_size)

    def publish(self, channel: str, event: str, data: Any) -> Position:
        """Log an event, and send it to all who are subscribed."""
        _check_name(channel)
        check_event_name(event)
        text = json_text(data, what=f"The event {event!r}", max_bytes=self._config.max_message_bytes)
        position = self._logs.append(channel, event, text)
        members = self._sessions.members(channel)
        if members:
            packet = _packet(channel, position.epoch, LoggedEvent(event, text, position.offset))
            for session in members:
                if self._engine.enqueue(session.engine_sid, packet) > self._config.max_pending_events:
                    self._condemn(session, "it reads too slowly")
        return position

    def position(self, channel: str) -> Position:
        """Return where a channel stands."""
        _check_name(channel)
        return self._logs.since(channel, None).position

    async def subscribe(self, session: Session, requests: Iterable[ChannelRequest]) -> Answer:
        """Subscribe a session to channels, and send what it has missed of them; return the answer."""
        async with session.turn:
            return {"ok": True, "channels": {r.channel: await self._join(session, r) for r in requests}}

    async def unsubscribe(self, session: Session, channels: Iterable[str]) -> Answer:
        """Take a session out of channels; return the answer."""
        async with session.turn:
            for channel in channels:
                self._sessions.leave(session, channel)
        return {"ok": True}

    async def poll(self, client: Client, requests: Iterable[ChannelRequest]) -> str:
        """Return what was published to channels after the client's positions, as a JSON text."""
        room = _POLL_BYTES
        is_going_on = False
        streams: list[str] = []
        for index, request in enumerate(requests):
            refused = await self._refused(client, request, index)
            if refused is not None:
                stream = json.dumps({"ok": False, "error": refused})
            else:
                replay = self._logs.since(request.channel, request.position, _POLL_LIMIT)
                # One of the cut streams must hold an event, or the client would not ask for more at once.
                count = _fitting(replay, room, least=0 if is_going_on else 1)
                is_going_on = is_going_on or 0 < count < len(replay.events) or (count > 0 and replay.more)
                stream = _stream(replay, request.position, count)
            room -= len(stream)
            streams.append(f"{json.dumps(request.channel)}:{stream}")
        return f'{{"channels":{{{",".join(streams)}}}}}'

    async def _join(self, session: Session, request: ChannelRequest) -> Answer:
        channel = request.channel
        others = len(session.channels - {channel})
        refused = await self._refused(session.client(), request, others)
        if refused is None and not (await self._has_room(session) and session.is_open):
            refused = problem(ErrorCategory.CONNECTION, "unavailable", "The connection has ended.")
        if refused is not None:
            return {"ok": False, "error": refused}
        # From here to the join nothing awaits: what is published now comes after the replay.
        replay = self._logs.since(channel, request.position)
        for event in replay.events:
            self._engine.enqueue(session.engine_sid, _packet(channel, replay.position.epoch, event))
        self._sessions.join(session, channel)
        return {
            "ok": True,
            "epoch": replay.position.epoch,
            "offset": replay.position.offset,
            "recovered": replay.recovered,
        }

    async def _has_room(self, session: Session) -> bool:
        """Wait until the connection can take the replay of one more channel."""
        if self._engine.pending(session.engine_sid) * 2 <= self._config.max_pending_events:
            return True
        try:
            async with asyncio.timeout(self._config.ping_timeout):
                await self._engine.drained(session.engine_sid)
        except TimeoutError:
            self._condemn(session, "it reads its missed events too slowly")
            return False
        return True

    async def _refused(self, client: Client, request: ChannelRequest, others: int) -> Answer | None:
        """Return why a client cannot have a channel beside ``others``; ``None`` if it can."""
        if request.problem is not None:
            return request.problem
        if others >= self._config.max_channels_per_client:
            told = f"No more than {self._config.max_channels_per_client} channels for one client."
            return problem(ErrorCategory.APPLICATION, "too_many_channels", told)
        if self._authorize is None:
            return None
        try:
            async with asyncio.timeout(self._config.handler_timeout):
                allowed = await call(self._authorize, client, request.channel)
        except Exception:
            _logger.exception("authorize_channel failed for %r", request.channel)
            return problem(
                ErrorCategory.APPLICATION,
                "authorization_failed",
                "It cannot be told who may have this channel.",
            )
        if allowed is True:
            return None
        return problem(
            ErrorCategory.APPLICATION, "channel_forbidden", "This client may not have this channel."
        )


def _check_name(channel: object) -> None:
    if not is_channel_name(channel):
        raise InvalidArgumentError(
            f"channel={channel!r} is not the name of a channel.",
            remedy=f"Give a text that is not blank, of at most {MAX_NAME_LENGTH} characters.",
        )


def _packet(channel: str, epoch: str, event: LoggedEvent) -> EnginePacket:
    """Return an event with its position, encoded once for all who get it."""
    position = json.dumps({"channel": channel, "epoch": epoch, "offset": event.offset}, separators=(",", ":"))
    return message(f"2[{json.dumps(event.event)},{event.data},{position}]")


def _fitting(replay: Replay, room: int, *, least: int) -> int:
    """Return how many of the events fit, about, into an answer that may grow by ``room``."""
    for count, event in enumerate(replay.events):
        room -= len(event.data)
        if room <= 0 and count >= least:
            return count
    return len(replay.events)


def _stream(replay: Replay, asked: Position | None, count: int) -> str:
    """Return a channel's part of a poll's answer.

    Args:
        replay: What the log gave.
        asked: The client's position.
        count: How many of the events are given.
    """
    events = ",".join(
        f'{{"event":{json.dumps(event.event)},"data":{event.data},"offset":{event.offset}}}'
        for event in replay.events[:count]
    )
    is_cut = count < len(replay.events)
    head = {
        "ok": True,
        "epoch": replay.position.epoch,
        "offset": asked.offset + count if is_cut and asked is not None else replay.position.offset,
        "recovered": replay.recovered,
        **({"more": True} if is_cut or replay.more else {}),
    }
    return f'{json.dumps(head, separators=(",", ":"))[:-1]},"events":[{events}]}}'
