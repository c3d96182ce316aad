"""WebSocket messages found in a stream of bytes, and made, without I/O (RFC 6455).

Compressed messages are not read: the proxy takes the extension out of the handshake.
"""

import os
from typing import Final

from attrs import frozen

_FINAL: Final = 0x80
_COMPRESSED: Final = 0x70
_OPCODE: Final = 0x0F
_MASKED: Final = 0x80
_LENGTH: Final = 0x7F
_LENGTH_IN_2: Final = 126
_LENGTH_IN_8: Final = 127
_LONGEST_IN_2: Final = 0xFFFF
_CONTINUATION: Final = 0
_TEXT: Final = 1
_BINARY: Final = 2
_CONTROL: Final = 8


@frozen
class Message:
    """A message, or a control frame.

    Attributes:
        raw: All of its frames as they came.
        content: The text or the bytes in it; ``None`` for a control frame and for what is compressed.
    """

    raw: bytes
    content: str | bytes | None


@frozen
class _Head:
    """Of a frame: its first byte, where its content begins and ends, and its mask."""

    first: int
    begin: int
    end: int
    mask: bytes


class MessageReader:
    """Finds the messages in what one side sends, however it is cut."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._fragments = bytearray()  # raw frames of a message that is not whole yet
        self._content = bytearray()
        self._first = 0  # byte of the message's first frame

    @property
    def rest(self) -> bytes:
        """What came and is no whole message yet."""
        return bytes(self._fragments + self._data)

    def feed(self, data: bytes) -> list[Message]:
        """Return the messages that are whole now, in order."""
        self._data += data
        messages = []
        while (head := _head(self._data)) is not None and len(self._data) >= head.end:
            raw = bytes(self._data[: head.end])
            del self._data[: head.end]
            message = self._take(head, raw)
            if message is not None:
                messages.append(message)
        return messages

    def _take(self, head: _Head, raw: bytes) -> Message | None:
        """Add a frame; return the message that it ends."""
        if head.first & _OPCODE >= _CONTROL:
            return Message(raw, None)  # may stand between the frames of a message
        if head.first & _OPCODE != _CONTINUATION:
            self._first = head.first
        self._fragments += raw
        self._content += _masked(raw[head.begin :], head.mask)
        if not head.first & _FINAL:
            return None
        whole, content = bytes(self._fragments), bytes(self._content)
        self._fragments.clear()
        self._content.clear()
        if self._first & _COMPRESSED:
            return Message(whole, None)
        is_text = self._first & _OPCODE == _TEXT
        return Message(whole, content.decode("utf-8", "replace") if is_text else content)


def encoded(content: str | bytes, *, is_masked: bool) -> bytes:
    """Return a message in one frame.

    Args:
        content: A text, or bytes for a binary message.
        is_masked: As all that a client sends must be.
    """
    opcode, data = (_TEXT, content.encode()) if isinstance(content, str) else (_BINARY, content)
    size, flag = len(data), _MASKED if is_masked else 0
    if size < _LENGTH_IN_2:
        head = bytes((_FINAL | opcode, flag | size))
    elif size <= _LONGEST_IN_2:
        head = bytes((_FINAL | opcode, flag | _LENGTH_IN_2)) + size.to_bytes(2, "big")
    else:
        head = bytes((_FINAL | opcode, flag | _LENGTH_IN_8)) + size.to_bytes(8, "big")
    mask = os.urandom(4) if is_masked else b""
    return head + mask + _masked(data, mask)


def _head(data: bytearray) -> _Head | None:
    """Return the head of the frame that the data begins with, or ``None`` where it is not whole."""
    begin = 2
    if len(data) < begin:
        return None
    size = data[1] & _LENGTH
    digits = {_LENGTH_IN_2: 2, _LENGTH_IN_8: 8}.get(size, 0)
    begin += digits
    mask_at, begin = begin, begin + (4 if data[1] & _MASKED else 0)
    if len(data) < begin:
        return None
    if digits:
        size = int.from_bytes(data[2:mask_at], "big")
    return _Head(data[0], begin, begin + size, bytes(data[mask_at:begin]))


def _masked(data: bytes, mask: bytes) -> bytes:
    """Return data with its mask put on or taken off."""
    if not mask or not data:
        return data
    key = (mask * (len(data) // 4 + 1))[: len(data)]
    return (int.from_bytes(data, "big") ^ int.from_bytes(key, "big")).to_bytes(len(data), "big")
