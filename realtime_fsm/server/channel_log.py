"""What was published, kept for those who were away: one bounded log per channel. Pure."""

import secrets
from collections import OrderedDict, deque
from collections.abc import Callable
from itertools import islice
from typing import Any

from attrs import field, frozen

from realtime_fsm.engine.subscription import Position


@frozen
class LoggedEvent:
    """An event at its place.

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
    """What a client that comes back has missed.

    Attributes:
        recovered: Whether the log still holds everything after the client's position.
        position: Place of the last of ``events``, or where the live stream begins.
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
        """Place of the last event; offset 0 where there was none yet."""
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
