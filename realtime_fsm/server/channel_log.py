"""What was published lately, channel by channel, for clients that missed it."""

from collections import OrderedDict, deque
from typing import Any

from attrs import define, field, frozen


@frozen
class Entry:
    """One published event.

    Attributes:
        offset: Its number in the channel; they rise by one.
        event: Its name.
        data: Its data.
    """

    offset: int
    event: str
    data: Any


@frozen(kw_only=True)
class Replay:
    """What a client gets that comes back to a channel.

    Attributes:
        recovered: Whether nothing is missing between where it was and now.
        offset: Where it stands after these entries.
        entries: What it missed, oldest first.
        more: Whether the limit cut them short.
    """

    recovered: bool
    offset: int
    entries: tuple[Entry, ...] = ()
    more: bool = False


@define
class _Channel:
    entries: deque[Entry]
    offset: int = 0


@define
class ChannelLog:
    """A bounded log for each of a bounded number of channels.

    Attributes:
        epoch: Identity of this log; a client that knows another one has lost what was in between.
        log_size: Entries kept per channel.
        max_channels: Channels kept; the one used least recently makes room, and begins anew further on.
    """

    epoch: str
    log_size: int
    max_channels: int
    _channels: OrderedDict[str, _Channel] = field(factory=OrderedDict, init=False)
    _forgotten: int = field(default=0, init=False)

    def append(self, channel: str, event: str, data: Any) -> Entry:
        """Add an event to a channel, and return it with its offset."""
        log = self._open(channel)
        log.offset += 1
        entry = Entry(log.offset, event, data)
        log.entries.append(entry)
        return entry

    def offset(self, channel: str) -> int:
        """Return where a channel's stream stands: the offset of its last event."""
        return self._open(channel).offset

    def since(self, channel: str, epoch: object, offset: object, *, limit: int | None = None) -> Replay:
        """Return what a client missed that has seen everything up to ``offset`` of ``epoch``."""
        log = self._open(channel)
        if epoch != self.epoch or type(offset) is not int or not 0 <= offset <= log.offset:
            return Replay(recovered=False, offset=log.offset)
        missed = [entry for entry in log.entries if entry.offset > offset]
        if len(missed) < log.offset - offset:
            return Replay(recovered=False, offset=log.offset)
        given = missed if limit is None else missed[:limit]
        return Replay(
            recovered=True,
            offset=given[-1].offset if given else log.offset,
            entries=tuple(given),
            more=len(given) < len(missed),
        )

    def _open(self, channel: str) -> _Channel:
        log = self._channels.get(channel)
        if log is None:
            # Beyond every offset that a forgotten log may have given out, so that none is ever repeated.
            log = self._channels[channel] = _Channel(deque(maxlen=self.log_size), self._forgotten)
            while len(self._channels) > self.max_channels:
                _, oldest = self._channels.popitem(last=False)
                self._forgotten = max(self._forgotten, oldest.offset + 1)
        self._channels.move_to_end(channel)
        return log
