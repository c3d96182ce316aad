"""Rules for single frames that pass a ``FaultProxy``: what is matched, what is done, and the log of it.

Frames are packets of Engine.IO, over polling or a WebSocket, and HTTP requests. They are found in the streams
of bytes here, and made, without I/O: as much of HTTP/1.1 and of RFC 6455 as a proxy for tests needs.
Compressed messages are not read; the proxy takes the extension out of the handshake.
"""

import asyncio
import base64
import binascii
import os
import re
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from attrs import define, evolve, field, frozen

from realtime_fsm.machine.redaction import MASK, redacted
from realtime_fsm.testing.proxy.faults import BlockedError, Direction

PASSED: Final = "passed"

_LONGEST_LOGGED: Final = 500
_MOST_LOGGED: Final = 10_000
_ACK_ID: Final = re.compile(r"^(4[25](?:\d+-)?(?:/[^,\[]*,)?)\d+(?=\[)")
_TOKEN: Final = re.compile(r"(token\"?\s*[:=]\s*\"?)[^\"&\s]+", re.IGNORECASE)

# Engine.IO over polling.
_SEPARATOR: Final = "\x1e"
_NOOP: Final = "6"

# HTTP/1.1.
_END_OF_HEAD: Final = b"\r\n\r\n"
_LONGEST_HEAD: Final = 64 * 1024
_FIRST_LINE: Final = re.compile(rb"[A-Z]{3,16} \S+ HTTP/1\.[01]$|HTTP/1\.[01] \d{3}( |$)")
_SIZES: Final = ("content-length", "transfer-encoding")
_SWITCHING_PROTOCOLS: Final = 101
_OK: Final = 200
_BODILESS: Final = frozenset({*range(100, 200), 204, 304})

# WebSockets: bits of a frame's first two bytes, and its opcodes.
_FINAL_FRAME: Final = 0x80
_COMPRESSED: Final = 0x70
_OPCODE: Final = 0x0F
_MASKED: Final = 0x80
_LENGTH: Final = 0x7F
_SIZE_IN_2: Final = 126
_SIZE_IN_8: Final = 127
_LONGEST_IN_2: Final = 0xFFFF
_CONTINUATION: Final = 0
_TEXT: Final = 1
_BINARY: Final = 2
_CONTROL: Final = 8

Piece = tuple[float, bytes]
"""Bytes that are forwarded, and by how many seconds they are late."""


class ResetError(BlockedError):
    """A rule resets the connection."""


@frozen
class Match:
    """The frames that a rule is for.

    A text is compared with the beginning: of a packet of Engine.IO as it is on the wire (``'42["note"'`` an
    event, ``"43"`` an acknowledgement, ``"b..."`` binary data in base64), or of a request
    (``"POST /realtime/messages"``). The id for an acknowledgement may be left out of it. A regular
    expression is searched for.

    Attributes:
        direction: Which way it goes. Requests go up.
        pattern: What it looks like.
    """

    direction: Direction
    pattern: str | re.Pattern[str]

    def applies(self, direction: Direction, text: str) -> bool:
        """Tell whether a frame is meant."""
        if direction is not self.direction:
            return False
        if isinstance(self.pattern, re.Pattern):
            return self.pattern.search(text) is not None
        return text.startswith(self.pattern) or _ACK_ID.sub(r"\1", text).startswith(self.pattern)


@frozen
class Pass:
    """Only note that it passed."""


@frozen
class Swallow:
    """Forward nothing. A request that is swallowed is never answered."""


@frozen
class Duplicate:
    """Forward it twice. A request that is duplicated is answered once, by the first answer."""


@frozen
class Delay:
    """Forward it late; what comes behind it waits.

    Attributes:
        seconds: By how much.
    """

    seconds: float


@frozen
class Inject:
    """Forward it, and another packet too. For packets, not for requests.

    Attributes:
        packet: On the wire of Engine.IO; ``"b"`` and base64 for binary data.
        is_before: The other one comes first.
    """

    packet: str
    is_before: bool = False


@frozen
class Reset:
    """Reset the connection, and forward nothing."""


FrameAction = Pass | Swallow | Duplicate | Delay | Inject | Reset


@define(eq=False)
class Rule:
    """A match, and what is done with the frames that it is for.

    Attributes:
        match: What it is for.
        action: What is done.
        times: How often at most; ``None`` for always.
        skip: So many matches are let pass before.
        applied: How often it was done.
        happened: Set once it was done ``times`` times; once at all where that is ``None``.
    """

    match: Match
    action: FrameAction
    times: int | None = 1
    skip: int = 0
    applied: int = 0
    happened: asyncio.Event = field(factory=asyncio.Event)

    def end(self) -> None:
        """Let the rule decide about nothing any more."""
        self.times = self.applied

    def claims(self, direction: Direction, text: str) -> bool:
        """Tell whether it decides about a frame, and count it."""
        if self.times is not None and self.applied >= self.times:
            return False
        if not self.match.applies(direction, text):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.applied += 1
        if self.applied >= (1 if self.times is None else self.times):
            self.happened.set()
        return True


@frozen
class Passage:
    """An entry of the log: one frame that came by.

    Attributes:
        direction: Which way.
        text: The packet or request, shortened, and without tokens.
        action: What was done, in lower case: ``"passed"``, ``"swallow"``, ...
        at: By the loop's clock.
    """

    direction: Direction
    text: str
    action: str
    at: float


class FrameLog:
    """The frames that came by, with what was done with each: the last 10,000 entries."""

    def __init__(self) -> None:
        self._entries: deque[Passage] = deque(maxlen=_MOST_LOGGED)

    def __iter__(self) -> Iterator[Passage]:
        return iter(tuple(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def matching(self, match: Match, action: str | None = None) -> list[Passage]:
        """Return the entries that a match is for; those of one action only, where it is given."""
        return [
            entry
            for entry in self._entries
            if match.applies(entry.direction, entry.text) and action in (None, entry.action)
        ]

    def add(self, direction: Direction, text: str, action: FrameAction) -> None:
        """Note a frame. For the connections."""
        shown = _TOKEN.sub(rf"\1{MASK}", redacted(text))[:_LONGEST_LOGGED]
        name = PASSED if isinstance(action, Pass) else type(action).__name__.lower()
        at = asyncio.get_running_loop().time()
        self._entries.append(Passage(direction, shown, name, at))


class FrameRules:
    """The rules of a proxy, and its log. Of the rules that match, the one that was added first decides."""

    def __init__(self) -> None:
        self.rules: list[Rule] = []
        self.log = FrameLog()

    def judge(self, direction: Direction, text: str) -> FrameAction:
        """Return what is to be done with a frame, and note it.

        Raises:
            ResetError: If a rule resets the connection.
        """
        action: FrameAction = Pass()
        for rule in self.rules:
            if rule.claims(direction, text):
                action = rule.action
                break
        self.log.add(direction, text, action)
        if isinstance(action, Reset):
            raise ResetError("a rule resets it")
        return action

    def packets(self, direction: Direction, text: str) -> tuple[float, list[str]]:
        """Return what is forwarded in place of a packet, and by how many seconds it is late."""
        match self.judge(direction, text):
            case Swallow():
                return 0.0, []
            case Duplicate():
                return 0.0, [text, text]
            case Delay(seconds=seconds):
                return seconds, [text]
            case Inject(packet=packet, is_before=is_before):
                return 0.0, [packet, text] if is_before else [text, packet]
        return 0.0, [text]


class NotHttpError(ValueError):
    """The bytes are no HTTP message, or none whose end can be told: they are given on as they are."""


@frozen
class HttpMessage:
    """A request or an answer.

    Attributes:
        first_line: Of its head.
        headers: Name in lower case, and the line as it came.
        body: Without the chunks' sizes.
        raw: All of it as it came.
    """

    first_line: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    raw: bytes

    @property
    def status(self) -> int:
        """The status code of an answer; 0 for a request."""
        word = self.first_line.split(" ", 2)[1]
        return int(word) if self.first_line.startswith("HTTP/") else 0

    def header(self, name: str) -> str:
        """Return a header's value, or nothing."""
        for each, line in self.headers:
            if each == name:
                return line.partition(":")[2].strip()
        return ""

    def without(self, *names: str) -> "HttpMessage":
        """Return it without some headers."""
        return self._made(tuple(pair for pair in self.headers if pair[0] not in names), self.body)

    def with_body(self, body: bytes) -> "HttpMessage":
        """Return it with another body."""
        kept = tuple(pair for pair in self.headers if pair[0] not in _SIZES)
        return self._made((*kept, ("content-length", f"Content-Length: {len(body)}")), body)

    def _made(self, headers: tuple[tuple[str, str], ...], body: bytes) -> "HttpMessage":
        lines = [self.first_line, *(line for _, line in headers)]
        head = "\r\n".join(lines).encode("latin-1") + _END_OF_HEAD
        is_chunked = any(name == "transfer-encoding" for name, _ in headers)
        sent = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if is_chunked and body else body
        if is_chunked and not body:
            sent = b"0\r\n\r\n"
        return evolve(self, headers=headers, body=body, raw=head + sent)


class HttpReader:
    """Finds the messages in what one side sends, however it is cut.

    Args:
        is_bodiless: Whether a message has no body whatever its head says: told its first line.
    """

    def __init__(self, is_bodiless: Callable[[str], bool] = lambda _: False) -> None:
        self._is_bodiless = is_bodiless
        self._data = bytearray()
        self._is_answer = False

    @property
    def rest(self) -> bytes:
        """The bytes that came and are no whole message yet."""
        return bytes(self._data)

    def add(self, data: bytes) -> None:
        """Take in what came."""
        self._data += data

    def take(self) -> HttpMessage | None:
        """Return the next message, or ``None`` where it is not whole.

        Raises:
            NotHttpError: If there is none, or none with an end; ``rest`` is what came.
        """
        end = self._data.find(_END_OF_HEAD)
        self._check_beginning(end)
        if end < 0:
            return None
        first_line, *lines = bytes(self._data[:end]).decode("latin-1").split("\r\n")
        headers = tuple((line.partition(":")[0].strip().lower(), line) for line in lines)
        message = HttpMessage(first_line, headers, b"", b"")
        found = self._body(message, end + len(_END_OF_HEAD))
        if found is None:
            return None
        body, size = found
        raw = bytes(self._data[:size])
        del self._data[:size]
        return evolve(message, body=body, raw=raw)

    def _check_beginning(self, end: int) -> None:
        line, newline, _ = bytes(self._data[:_LONGEST_HEAD]).partition(b"\r\n")
        if newline and not _FIRST_LINE.match(line):
            raise NotHttpError("it does not begin like an HTTP message")
        if end < 0 and len(self._data) > _LONGEST_HEAD:
            raise NotHttpError("its head has no end")

    def _body(self, message: HttpMessage, begin: int) -> tuple[bytes, int] | None:
        """Return the body, and where the message ends; ``None`` where it is not whole."""
        if self._is_bodiless(message.first_line):
            return b"", begin
        if "chunked" in message.header("transfer-encoding").lower():
            return self._chunks(begin)
        length = message.header("content-length")
        if not length:
            if message.status:
                raise NotHttpError("its body ends with the connection")
            return b"", begin
        if not length.isdecimal():
            raise NotHttpError("its length is no number")
        end = begin + int(length)
        return (bytes(self._data[begin:end]), end) if len(self._data) >= end else None

    def _chunks(self, at: int) -> tuple[bytes, int] | None:
        """Put the chunks together; trailers are for nobody here."""
        body = bytearray()
        while (newline := self._data.find(b"\r\n", at)) >= 0:
            word = bytes(self._data[at:newline]).partition(b";")[0].strip()
            try:
                size = int(word, 16)
            except ValueError:
                raise NotHttpError("the size of a chunk is no number") from None
            at = newline + 2
            if size == 0:
                end = self._data.find(b"\r\n", at)
                while end > at:  # a trailer
                    at = end + 2
                    end = self._data.find(b"\r\n", at)
                return (bytes(body), end + 2) if end >= 0 else None
            if len(self._data) < at + size + 2:
                return None
            body += self._data[at : at + size]
            at += size + 2
        return None


@frozen
class WebSocketMessage:
    """A message, or a control frame.

    Attributes:
        raw: All of its frames as they came.
        content: The text or the bytes in it; ``None`` for a control frame and for what is compressed.
    """

    raw: bytes
    content: str | bytes | None


@frozen
class _FrameHead:
    """The head of a frame: its first byte, where its content begins and ends, and its mask."""

    first: int
    begin: int
    end: int
    mask: bytes


class WebSocketReader:
    """Finds the messages in what one side sends, however it is cut."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._fragments = bytearray()  # raw frames of a message that is not whole yet
        self._content = bytearray()
        self._first = 0  # byte of the message's first frame

    @property
    def rest(self) -> bytes:
        """The bytes that came and are no whole message yet."""
        return bytes(self._fragments + self._data)

    def feed(self, data: bytes) -> list[WebSocketMessage]:
        """Return the messages that are whole now, in order."""
        self._data += data
        messages = []
        while (head := _frame_head(self._data)) is not None and len(self._data) >= head.end:
            raw = bytes(self._data[: head.end])
            del self._data[: head.end]
            message = self._take(head, raw)
            if message is not None:
                messages.append(message)
        return messages

    def _take(self, head: _FrameHead, raw: bytes) -> WebSocketMessage | None:
        """Add a frame; return the message that it ends."""
        if head.first & _OPCODE >= _CONTROL:
            return WebSocketMessage(raw, None)  # may stand between the frames of a message
        if head.first & _OPCODE != _CONTINUATION:
            self._first = head.first
        self._fragments += raw
        self._content += _masked(raw[head.begin :], head.mask)
        if not head.first & _FINAL_FRAME:
            return None
        whole, content = bytes(self._fragments), bytes(self._content)
        self._fragments.clear()
        self._content.clear()
        if self._first & _COMPRESSED:
            return WebSocketMessage(whole, None)
        is_text = self._first & _OPCODE == _TEXT
        return WebSocketMessage(whole, content.decode("utf-8", "replace") if is_text else content)


def websocket_frame(content: str | bytes, *, is_masked: bool) -> bytes:
    """Return a message in one frame.

    Args:
        content: A text, or bytes for a binary message.
        is_masked: As all that a client sends must be.
    """
    opcode, data = (_TEXT, content.encode()) if isinstance(content, str) else (_BINARY, content)
    size, flag = len(data), _MASKED if is_masked else 0
    if size < _SIZE_IN_2:
        head = bytes((_FINAL_FRAME | opcode, flag | size))
    elif size <= _LONGEST_IN_2:
        head = bytes((_FINAL_FRAME | opcode, flag | _SIZE_IN_2)) + size.to_bytes(2, "big")
    else:
        head = bytes((_FINAL_FRAME | opcode, flag | _SIZE_IN_8)) + size.to_bytes(8, "big")
    mask = os.urandom(4) if is_masked else b""
    return head + mask + _masked(data, mask)


def _frame_head(data: bytearray) -> _FrameHead | None:
    """Return the head of the frame that the data begins with, or ``None`` where it is not whole."""
    begin = 2
    if len(data) < begin:
        return None
    size = data[1] & _LENGTH
    digits = {_SIZE_IN_2: 2, _SIZE_IN_8: 8}.get(size, 0)
    begin += digits
    mask_at, begin = begin, begin + (4 if data[1] & _MASKED else 0)
    if len(data) < begin:
        return None
    if digits:
        size = int.from_bytes(data[2:mask_at], "big")
    return _FrameHead(data[0], begin, begin + size, bytes(data[mask_at:begin]))


def _masked(data: bytes, mask: bytes) -> bytes:
    """Return data with its mask put on or taken off."""
    if not mask or not data:
        return data
    key = (mask * (len(data) // 4 + 1))[: len(data)]
    return (int.from_bytes(data, "big") ^ int.from_bytes(key, "big")).to_bytes(len(data), "big")


@define(eq=False)
class _Pending:
    """A request that is not answered yet."""

    method: str
    is_polling: bool
    is_discarded: bool = False  # the answer is for nobody


class FrameFilter:
    """Applies a proxy's rules to one connection: its HTTP requests, polling packets, WebSocket messages.

    Args:
        rules: Of the proxy.
    """

    def __init__(self, rules: FrameRules) -> None:
        self._rules = rules
        self._pending: deque[_Pending] = deque()
        self._http = {Direction.UP: HttpReader(), Direction.DOWN: HttpReader(self._is_bodiless)}
        self._messages: dict[Direction, WebSocketReader] = {}
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
            self._messages = {direction: WebSocketReader() for direction in Direction}
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
            text = _as_packet(message.content)
            late, kept = self._rules.packets(direction, text)
            for packet in kept:
                raw = message.raw if packet is text else _as_frame(packet, direction)
                pieces.append((late, raw))
                late = 0.0
        return pieces


def _as_packet(content: str | bytes) -> str:
    """Return a message as polling would show it."""
    return content if isinstance(content, str) else "b" + base64.b64encode(content).decode()


def _as_frame(packet: str, direction: Direction) -> bytes:
    is_masked = direction is Direction.UP
    if packet.startswith("b"):
        try:
            return websocket_frame(base64.b64decode(packet[1:], validate=True), is_masked=is_masked)
        except binascii.Error:
            pass  # a malformed text, on purpose
    return websocket_frame(packet, is_masked=is_masked)
