"""Socket.IO packets on the wire: decoding and encoding, without I/O.

A packet is ``<type>[<attachments>-][<namespace>,][<ack id>][<JSON>]``; inside Engine.IO it is the text of a
MESSAGE, whose own type ``4`` stands before it. Binary parts follow as attachments of their own.

Source: the Socket.IO protocol, revision 5; limits and strictness are those of socket.io-parser.
"""

import json
import re
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, Final, NoReturn, Self

from attrs import frozen

from realtime_fsm.engine.payload import MAX_ATTACHMENTS, Payload
from realtime_fsm.machine.dialect import RESERVED_EVENTS
from realtime_fsm.machine.errors import MalformedFrameError

# The types of Engine.IO packets; Socket.IO packets are inside MESSAGE.
OPEN: Final = "0"
CLOSE: Final = "1"
PING: Final = "2"
PONG: Final = "3"
MESSAGE: Final = "4"
NOOP: Final = "6"

SEPARATOR: Final = "\x1e"
"""Stands between the packets of a polling payload."""

_MAX_ACK_DIGITS: Final = 15  # more cannot be told apart by a JavaScript server
_MAX_ATTACHMENT_DIGITS: Final = 10
_HEADER: Final = re.compile(r"([0-6])(?:([0-9]*)-)?(?:(/[^,?]*)(?:\?[^,]*)?(?:,|$))?([0-9]+)?")


class PacketType(IntEnum):
    """The types of Socket.IO packets."""

    CONNECT = 0
    DISCONNECT = 1
    EVENT = 2
    ACK = 3
    CONNECT_ERROR = 4
    BINARY_EVENT = 5
    BINARY_ACK = 6


class ExcessiveAttachmentsError(Exception):
    """A header announces more binary parts than can be meant: what follows cannot be trusted."""


@frozen
class Packet:
    """A decoded packet.

    Attributes:
        type: What it is.
        namespace: To which namespace it belongs.
        ack_id: Number of the acknowledgement, where there is one.
        data: The decoded JSON, with placeholders where attachments belong; ``None`` where there is none.
        attachment_count: How many binary parts follow.
    """

    type: PacketType
    namespace: str
    ack_id: int | None
    data: Any
    attachment_count: int


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_decoder: Final = json.JSONDecoder(parse_constant=_refuse_constant)

decode_array: Final = _decoder.raw_decode
"""``(text, start) -> (value, end)``: read the JSON value at ``start``, for the fast path of plain events."""


def decode(text: str, start: int = 0) -> Packet:
    """Decode a packet.

    Args:
        text: Holds the packet.
        start: Where in ``text`` it begins.

    Raises:
        ExcessiveAttachmentsError: If it announces too many attachments.
        MalformedFrameError: If it is not a Socket.IO packet, in whatever way.
    """
    header = _HEADER.match(text, start)
    if header is None:
        raise MalformedFrameError("A frame has no known packet type.")
    kind = PacketType(int(header[1]))
    count = _attachment_count(kind, header[2])
    digits = header[4]
    if digits is not None and len(digits) > _MAX_ACK_DIGITS:
        raise MalformedFrameError(f"The acknowledgement id of a {kind.name} packet is too long.")
    data = _json(kind, text[header.end() :])
    ack_id = None if digits is None else int(digits)
    _check_shape(kind, ack_id, data)
    return Packet(kind, header[3] or "/", ack_id, data, count)


def _attachment_count(kind: PacketType, digits: str | None) -> int:
    binary = kind in {PacketType.BINARY_EVENT, PacketType.BINARY_ACK}
    if binary != (digits is not None) or digits == "":
        raise MalformedFrameError(f"The number of attachments of a {kind.name} packet is out of place.")
    if not digits:
        return 0
    if len(digits) > _MAX_ATTACHMENT_DIGITS or int(digits) > MAX_ATTACHMENTS:
        raise ExcessiveAttachmentsError(
            f"A {kind.name} packet announces more than {MAX_ATTACHMENTS} attachments."
        )
    return int(digits)


def _json(kind: PacketType, text: str) -> Any:
    if not text:
        return None
    try:
        return _decoder.decode(text)
    except (ValueError, RecursionError) as error:
        reason = type(error).__name__
    # Neither the text nor the original, which holds it: it may be what must not be logged.
    raise MalformedFrameError(f"The payload of a {kind.name} packet is not JSON ({reason}).")


def _check_shape(kind: PacketType, ack_id: int | None, data: Any) -> None:
    """Refuse what is JSON, but not what a packet of this type holds."""
    if kind in {PacketType.EVENT, PacketType.BINARY_EVENT}:
        if not isinstance(data, list) or not data or not is_event_name(data[0]):
            raise MalformedFrameError(f"A {kind.name} packet holds no event.")
    elif kind in {PacketType.ACK, PacketType.BINARY_ACK}:
        if not isinstance(data, list) or ack_id is None:
            raise MalformedFrameError(f"An {kind.name} packet acknowledges nothing.")
    elif kind is PacketType.CONNECT:
        if data is not None and not isinstance(data, dict):
            raise MalformedFrameError("The payload of a CONNECT packet is not an object.")
    elif kind is PacketType.DISCONNECT and data is not None:
        raise MalformedFrameError("A DISCONNECT packet has a payload.")


def is_event_name(name: object) -> bool:
    """Tell whether a server may send an event of this name."""
    return isinstance(name, str) and name not in RESERVED_EVENTS


def reconstruct(data: Any, attachments: Sequence[bytes]) -> Any:
    """Put attachments in the place of their placeholders.

    Raises:
        MalformedFrameError: If a placeholder has no attachment, or the nesting is too deep.
    """
    try:
        return _reconstruct(data, attachments)
    except RecursionError as error:
        raise MalformedFrameError("A binary packet is nested too deeply.") from error


def _reconstruct(data: Any, attachments: Sequence[bytes]) -> Any:
    if isinstance(data, list):
        return [_reconstruct(item, attachments) for item in data]
    if not isinstance(data, dict):
        return data
    if data.get("_placeholder") is not True:
        return {key: _reconstruct(value, attachments) for key, value in data.items()}
    number = data.get("num")
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < len(attachments):
        raise MalformedFrameError("A placeholder of a binary packet has no attachment.")
    return attachments[number]


def head(kind: PacketType, namespace: str) -> str:
    """Return what stands before the ack id in a frame without attachments."""
    return f"{MESSAGE}{kind:d}" if namespace == "/" else f"{MESSAGE}{kind:d}{namespace},"


def encode_binary(kind: PacketType, namespace: str, ack_id: int | None, payload: Payload) -> str:
    """Return the text frame of a packet whose attachments follow it."""
    where = "" if namespace == "/" else f"{namespace},"
    number = "" if ack_id is None else ack_id
    return f"{MESSAGE}{kind:d}{len(payload.attachments)}-{where}{number}{payload.text}"


# What an Engine.IO server announces when a session opens.

_MAX_MILLISECONDS: Final = 24 * 3600 * 1000


@frozen(kw_only=True)
class Handshake:
    """The parts of the OPEN packet that are used here; python-socketio reads the packet itself as well.

    Attributes:
        ping_interval: Seconds between two pings of the server.
        ping_timeout: Seconds that it waits for an answer.
    """

    ping_interval: float
    ping_timeout: float

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read the JSON of an OPEN packet; ``None`` if python-socketio could not use it.

        Source: the Engine.IO protocol, revision 4; intervals are milliseconds on the wire.
        """
        try:
            announced = json.loads(text)
        except (ValueError, RecursionError):
            return None
        if not isinstance(announced, dict):
            return None
        interval = _seconds(announced.get("pingInterval"))
        timeout = _seconds(announced.get("pingTimeout"))
        if interval is None or timeout is None:
            return None
        if not isinstance(announced.get("sid"), str) or not isinstance(announced.get("upgrades"), list):
            return None
        return cls(ping_interval=interval, ping_timeout=timeout)


def _seconds(milliseconds: Any) -> float | None:
    if isinstance(milliseconds, bool) or not isinstance(milliseconds, (int, float)):
        return None
    return milliseconds / 1000 if 0 <= milliseconds <= _MAX_MILLISECONDS else None
