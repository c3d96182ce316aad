"""Socket.IO's connection state recovery: a server that offers it sends again what a client has missed.

Such a server lets a client in with a private session id, the ``pid``, and appends an *offset* to the
arguments of what it stores: events that ask for no answer and are not volatile. A client that comes back with
both gets what it has missed, and the same ``pid``: then nothing was lost. What it sends is not covered.

Source: ``socket.io`` 4.8: ``socket.ts`` (client), ``namespace.ts``, ``in-memory-adapter.ts``.
"""

import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

from realtime_fsm.engine.port import WallClock
from realtime_fsm.engine.statistics import Statistics
from realtime_fsm.machine.dialect import Dialect
from realtime_fsm.machine.errors import HeartbeatTimeoutError, RealtimeError

_REMEMBERED: Final = 1000
"""Offsets that are remembered, to tell repeats."""

_KINDS: Final = (
    re.compile(
        r"[0-9A-Za-z_-]{7}(?:\.[0-9A-Za-z_-]+)?"
    ),  # in memory: a time in milliseconds, to the base of 64
    re.compile(r"[0-9]{10,}-[0-9]+"),  # Redis streams
    re.compile(r"[0-9a-f]{24}"),  # MongoDB
)
_TIMED: Final = _KINDS[0]
_DIGITS: Final = {
    digit: value
    for value, digit in enumerate("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_")
}
_LONGEST_PAUSE: Final = 30 * 24 * 3600 * 1000
"""Milliseconds between two offsets of a session, and between the clocks of client and server, at most: what
seems to be further away is no offset but a word."""


class SessionRecovery:
    """A session that a server keeps: what leads back to it, and which of its events have been seen.

    A volatile event whose own last argument looks just like an offset cannot be told apart: name such events
    in ``Dialect.events_without_offset``.

    Args:
        dialect: Whether to ask for recovery, and what an offset looks like.
        statistics: What it counts into.
        wall: The wall clock: offsets tell the time.
    """

    def __init__(self, dialect: Dialect, statistics: Statistics, wall: WallClock) -> None:
        self._dialect = dialect
        self._statistics = statistics
        self._wall = wall
        self._given_kind = None if dialect.offset_pattern is None else re.compile(dialect.offset_pattern)
        self._pid: str | None = None
        self._offset: str | None = None
        self._kind: re.Pattern[str] | None = None
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._was_recovered = False
        self._is_whole = False

    def __repr__(self) -> str:
        return f"<SessionRecovery {'of a session' if self._pid is not None else 'without a session'}>"

    def auth(self, auth: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """Return the auth object of the next CONNECT packet, with what leads back to the session."""
        if self._pid is None:
            return auth
        offset = {} if self._offset is None else {"offset": self._offset}
        return {"pid": self._pid, **offset, **(auth or {})}

    def joined(self, welcome: Mapping[str, Any]) -> bool:
        """Note what the server let the client in with, before any event of the connection is taken.

        Args:
            welcome: The data of its CONNECT packet.

        Returns:
            Whether it is the old session, and what was missed comes with it.
        """
        pid = welcome.get("pid")
        if not (self._dialect.recovers_sessions and isinstance(pid, str)):
            pid = None
        recovered: bool = pid is not None and pid == self._pid
        if not recovered:
            self.forget()
            self._pid = pid
        self._was_recovered = recovered
        return recovered

    def began(self) -> bool:
        """Note that a connection has become live.

        Returns:
            Whether nothing was missed since the last one that did: each that was opened in between, and never
            became live, was of the same session.
        """
        is_whole, self._is_whole = self._is_whole, True
        return is_whole

    def take(self, event: str, args: list[Any], ack_id: int | None) -> bool:
        """Take the offset off an event; called in the order in which events arrive.

        Args:
            event: Its name.
            args: Its arguments; the offset is removed from them.
            ack_id: Set where the server wants an answer: such events have no offset.

        Returns:
            Whether the event is new.
        """
        if self._pid is None or ack_id is not None or not args or type(args[-1]) is not str:
            return True
        offset = args[-1]
        if event in self._dialect.events_without_offset or not self._is_offset(offset):
            return True
        del args[-1]
        if offset in self._seen:
            self._statistics.duplicates += 1
            return False
        self._offset = offset
        self._seen[offset] = None
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return True

    def lost(self, error: RealtimeError) -> None:
        """Note why the connection was lost.

        A session that was recovered once and whose connection then died in silence is given up: the server
        may still hold the dead connection, and by ending it later it would make the new one deaf.
        """
        if self._was_recovered and isinstance(error, HeartbeatTimeoutError):
            self.forget()

    def forget(self) -> None:
        """Forget the session: the next connection begins a new one."""
        self._pid = self._offset = self._kind = None
        self._seen.clear()
        self._was_recovered = self._is_whole = False

    def _is_offset(self, text: str) -> bool:
        """Tell whether a last argument is an offset: like the ones before it, and not before the last one."""
        if self._given_kind is not None:
            return self._given_kind.fullmatch(text) is not None
        if self._kind is None:
            self._kind = next((kind for kind in _KINDS if self._is_first_of(kind, text)), None)
            return self._kind is not None
        if self._kind.fullmatch(text) is None:
            return False
        if self._kind is not _TIMED or self._offset is None or text in self._seen:
            return True
        return 0 <= _milliseconds(text) - _milliseconds(self._offset) <= _LONGEST_PAUSE

    def _is_first_of(self, kind: re.Pattern[str], text: str) -> bool:
        if kind.fullmatch(text) is None:
            return False
        return kind is not _TIMED or abs(_milliseconds(text) - self._wall() * 1000) <= _LONGEST_PAUSE


def _milliseconds(offset: str) -> int:
    """Return the time that an offset of the in-memory kind stands for."""
    value = 0
    for digit in offset.partition(".")[0]:
        value = value * 64 + _DIGITS[digit]
    return value
