"""Arguments on their way: encoded once, when they are accepted, and never again."""

import json
from collections.abc import Sequence
from typing import Any, Final

from attrs import field, frozen

from realtime_fsm.machine.dialect import RESERVED_EVENTS
from realtime_fsm.machine.errors import InvalidArgumentError

MAX_ATTACHMENTS: Final = 10
"""Most binary parts of one message. Source: the default limit of socket.io-parser."""


@frozen
class Payload:
    """The encoded arguments of one event or acknowledgement.

    Attributes:
        text: The JSON array, with placeholders where binary parts belong.
        attachments: The binary parts, in the order of their placeholders.
        size_bytes: Size on the wire, without the few bytes of framing; measured where it is not given.
    """

    text: str
    attachments: tuple[bytes, ...] = ()
    size_bytes: int = field()

    @size_bytes.default
    def _measure(self) -> int:
        text = len(self.text) if self.text.isascii() else len(self.text.encode())
        return text + sum(map(len, self.attachments))


def is_encodable(text: str) -> bool:
    """Tell whether a text can be sent, stored and logged: JSON lets half of a surrogate pair through."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def encode(args: Sequence[Any], *, what: str, max_bytes: int) -> Payload:
    """Encode arguments as strict JSON, binary parts set aside.

    Args:
        args: The whole array: for an event, its name first.
        what: What is being encoded, for the error.
        max_bytes: Largest size allowed.

    Raises:
        InvalidArgumentError: If it is not JSON (NaN and infinity included), or too large.
    """
    attachments: list[bytes] = []

    def set_aside(value: object) -> dict[str, object]:
        if isinstance(value, (bytes, bytearray, memoryview)):
            attachments.append(bytes(value))
            return {"_placeholder": True, "num": len(attachments) - 1}
        raise TypeError(f"{type(value).__name__} is not JSON")

    try:
        text = json.dumps(args, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=set_aside)
        text_bytes = len(text.encode())  # lone surrogates are valid for json, and break the connection
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidArgumentError(
            f"{what} cannot be sent: {error}.",
            remedy="Data must be JSON: str, int, finite float, bool, None, list, dict; or bytes.",
        ) from error
    if len(attachments) > MAX_ATTACHMENTS:
        raise InvalidArgumentError(
            f"{what} has {len(attachments)} binary parts, and {MAX_ATTACHMENTS} are allowed.",
            remedy="Join them, or send several messages.",
        )
    size_bytes = text_bytes + sum(map(len, attachments))
    if size_bytes > max_bytes:
        raise InvalidArgumentError(
            f"{what} is {size_bytes} bytes long, and max_message_bytes={max_bytes}.",
            remedy="Send less at a time, or raise the limit here and at the server.",
        )
    return Payload(text, tuple(attachments), size_bytes)


def check_event_name(name: object) -> str:
    """Return the name of an event if it may be emitted or handled.

    Raises:
        InvalidArgumentError: If it is not a string, is empty, or is reserved by Socket.IO.
    """
    if not isinstance(name, str) or not name:
        raise InvalidArgumentError(
            f"event={name!r} is not the name of an event.", remedy="Give a string that is not empty."
        )
    if name in RESERVED_EVENTS:
        raise InvalidArgumentError(
            f"event={name!r} is reserved by Socket.IO.",
            remedy="Choose another name; for the state of the connection use `changes()`.",
        )
    return name
