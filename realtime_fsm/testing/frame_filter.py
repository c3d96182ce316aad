"""Applies a proxy's rules to one connection: HTTP requests, polling packets, WebSocket messages."""

import base64
import binascii
from collections import deque
from typing import Final

from attrs import define

from realtime_fsm.testing.frame_rules import Delay, Duplicate, FrameRules, Inject, Swallow
from realtime_fsm.testing.http_messages import HttpMessage, HttpReader, NotHttpError
from realtime_fsm.testing.lane_faults import Direction
from realtime_fsm.testing.websocket_frames import MessageReader, encoded

Piece = tuple[float, bytes]
"""What is forwarded, and by how many seconds it is late."""

_SEPARATOR: Final = "\x1e"
_NOOP: Final = "6"
_SWITCHING_PROTOCOLS: Final = 101
_OK: Final = 200
_BODILESS: Final = frozenset({*range(100, 200), 204, 304})


@define(eq=False)
class _Pending:
    """A request that is not answered yet."""

    method: str
    is_polling: bool
    is_discarded: bool = False  # the answer is for nobody


class FrameFilter:
    """Judges what goes through a connection.

    Args:
        rules: Of the proxy.
    """

    def __init__(self, rules: FrameRules) -> None:
        self._rules = rules
        self._pending: deque[_Pending] = deque()
        self._http = {Direction.UP: HttpReader(), Direction.DOWN: HttpReader(self._is_bodiless)}
        self._messages: dict[Direction, MessageReader] = {}
        self._is_opaque = False

    def feed(self, direction: Direction, data: bytes) -> list[Piece]:
        """Return what is forwarded of data that came, as far as it is whole. Nothing came at the end.

        Raises:
            ResetError: If a rule resets the connection.
        """
        if self._is_opaque:
            return [(0.0, data)]
        if not data:
            return [(0.0, self._rest(direction))]
        if self._messages:
            return self._websocket(direction, data)
        reader = self._http[direction]
        reader.add(data)
        pieces: list[Piece] = []
        try:
            while (message := reader.take()) is not None:
                take = self._request if direction is Direction.UP else self._answer
                pieces += take(message)
                if self._messages:  # what follows is no HTTP any more
                    return pieces + self._websocket(direction, reader.rest)
        except NotHttpError:
            self._is_opaque = True
            pieces.append((0.0, reader.rest))
        return pieces

    def _rest(self, direction: Direction) -> bytes:
        """Return what is held and will not become whole any more."""
        reader = self._messages.get(direction) or self._http[direction]
        return reader.rest

    def _is_bodiless(self, first_line: str) -> bool:
        is_head = bool(self._pending) and self._pending[0].method == "HEAD"
        return is_head or int(first_line.split(" ", 2)[1]) in _BODILESS

    def _request(self, message: HttpMessage) -> list[Piece]:
        method, target, _ = message.first_line.split(" ", 2)
        action = self._rules.judge(Direction.UP, f"{method} {target}")
        pending = _Pending(method, is_polling="transport=polling" in target)
        late = 0.0
        match action:
            case Swallow():
                return []
            case Inject():
                raise TypeError("a packet can be injected beside packets, not beside a request")
            case Delay(seconds=seconds):
                late = seconds
        if pending.is_polling:
            message = message.without("accept-encoding")  # so that the answer can be read
            if method == "POST":
                late_packets, message = self._payload(Direction.UP, message)
                late += late_packets
        elif message.header("upgrade"):
            message = message.without("sec-websocket-extensions")
        self._pending.append(pending)
        if isinstance(action, Duplicate):
            self._pending.append(_Pending(method, pending.is_polling, is_discarded=True))
            return [(late, message.raw), (0.0, message.raw)]
        return [(late, message.raw)]

    def _answer(self, message: HttpMessage) -> list[Piece]:
        if message.status == _SWITCHING_PROTOCOLS:
            self._messages = {direction: MessageReader() for direction in Direction}
            return [(0.0, message.raw)]
        if message.status in range(100, 200) or not self._pending:
            return [(0.0, message.raw)]  # more will follow, or nobody asked
        pending = self._pending.popleft()
        if pending.is_discarded:
            return []
        late = 0.0
        if pending.is_polling and pending.method == "GET" and message.status == _OK:
            late, message = self._payload(Direction.DOWN, message)
        return [(late, message.raw)]

    def _payload(self, direction: Direction, message: HttpMessage) -> tuple[float, HttpMessage]:
        """Judge the packets of a polling payload, which are late together."""
        if message.header("content-encoding"):
            return 0.0, message
        packets = message.body.decode("utf-8", "replace").split(_SEPARATOR)
        late, forwarded = 0.0, []
        for packet in packets:
            seconds, kept = self._rules.packets(direction, packet)
            late = max(late, seconds)
            forwarded += kept
        if forwarded == packets:
            return late, message
        if not forwarded and direction is Direction.DOWN:
            forwarded = [_NOOP]  # an answer with nothing in it is none
        return late, message.with_body(_SEPARATOR.join(forwarded).encode())

    def _websocket(self, direction: Direction, data: bytes) -> list[Piece]:
        pieces: list[Piece] = []
        for message in self._messages[direction].feed(data):
            if message.content is None:
                pieces.append((0.0, message.raw))
                continue
            text = _shown(message.content)
            late, kept = self._rules.packets(direction, text)
            for packet in kept:
                raw = message.raw if packet is text else _made(packet, direction)
                pieces.append((late, raw))
                late = 0.0
        return pieces


def _shown(content: str | bytes) -> str:
    """Return a message as polling would show it."""
    return content if isinstance(content, str) else "b" + base64.b64encode(content).decode()


def _made(packet: str, direction: Direction) -> bytes:
    is_masked = direction is Direction.UP
    if packet.startswith("b"):
        try:
            return encoded(base64.b64decode(packet[1:], validate=True), is_masked=is_masked)
        except binascii.Error:
            pass  # a malformed text, on purpose
    return encoded(packet, is_masked=is_masked)
