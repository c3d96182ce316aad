"""The requests of clients, read without trust, and the answers of the reference dialect.

Read are the channels that a client asks for, the positions in them, and the *envelope* of a message. Over
the socket the envelope is the message's last argument, over HTTP it stands beside the event::

    {"message_id": "..."}                                       an id, for the application
    {"message_id": "...", "client_id": "...", "sequence": 17}   handled once, however often it comes

An answer is an object in strict JSON that says ``ok``, and why where it is not.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from attrs import frozen

from realtime_fsm.engine.payload import encode, is_encodable
from realtime_fsm.engine.subscriptions import BOOKING_PREFIX, Position
from realtime_fsm.machine.errors import ErrorCategory, InvalidArgumentError

MAX_NAME_LENGTH: Final = 200
_MAX_NAMES: Final = 10_000
"""Most names of one request; those beyond the client's own limit are refused one by one."""

MAX_ID_LENGTH: Final = 200
MAX_SEQUENCE: Final = 2**53 - 1
"""The largest whole number that JavaScript tells from its neighbours."""

_KEYS: Final = frozenset({"message_id", "client_id", "sequence"})
_KEY_SETS: Final = (frozenset({"message_id"}), _KEYS)

Answer = dict[str, Any]


def problem(category: ErrorCategory, code: str, message: str) -> Answer:
    """Return an ``error`` object.

    Args:
        category: Whose fault it is.
        code: For programs.
        message: For people; never with a secret in it.
    """
    return {"category": category.value, "code": code, "message": message}


def refusal(category: ErrorCategory, code: str, message: str) -> Answer:
    """Return an answer that refuses."""
    return {"ok": False, "error": problem(category, code, message)}


def json_text(value: object, *, what: str, max_bytes: int) -> str:
    """Return a value as strict JSON, fit for the socket and for HTTP alike.

    Raises:
        InvalidArgumentError: If it is not JSON (NaN and binary data included), or too large.
    """
    payload = encode([value], what=what, max_bytes=max_bytes)
    if payload.attachments:
        raise InvalidArgumentError(
            f"{what} holds binary data, which cannot go over HTTP.",
            remedy="Encode it as text, such as base64.",
        )
    return payload.text[1:-1]


class RequestError(Exception):
    """A request cannot be read.

    Args:
        code: For programs.
        message: For people.
    """

    def __init__(self, code: str, message: str) -> None:
        self.problem = problem(ErrorCategory.PROTOCOL, code, message)
        super().__init__(message)


@frozen(kw_only=True)
class ChannelRequest:
    """A channel that a client asks for.

    Attributes:
        channel: Its name.
        position: The last event that the client has of it.
        problem: Why it is refused before anything else is looked at.
    """

    channel: str
    position: Position | None = None
    problem: Answer | None = None


def is_channel_name(name: object) -> bool:
    """Tell whether this can be the name of a channel."""
    return isinstance(name, str) and bool(name.strip()) and len(name) <= MAX_NAME_LENGTH


def read_names(body: object, key: str) -> list[str]:
    """Return the names that a request holds under ``key``, each once, in order.

    Raises:
        RequestError: If they are not a list of strings.
    """
    names = body.get(key) if isinstance(body, Mapping) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RequestError("invalid_channel", f"{key} must be a list of strings.")
    if len(names) > _MAX_NAMES:
        raise RequestError("too_many_channels", f"{key} holds more than {_MAX_NAMES} names.")
    return list(dict.fromkeys(names))


def read_requests(body: object, key: str) -> list[ChannelRequest]:
    """Return what a ``subscribe`` or a ``monitor_bookings`` request asks for.

    Args:
        body: The request.
        key: ``channels`` or ``booking_ids``.

    Raises:
        RequestError: If it cannot be read at all.
    """
    prefix = BOOKING_PREFIX if key == "booking_ids" else ""
    names = read_names(body, key)
    positions = body.get("positions") if isinstance(body, Mapping) else None
    if positions is not None and not isinstance(positions, Mapping):
        raise RequestError("invalid_position", "positions must be an object.")
    return [_request(name, prefix + name, (positions or {}).get(prefix + name)) for name in names]


def read_query(channels: Iterable[str], positions: Iterable[str]) -> list[ChannelRequest]:
    """Return what a poll asks for.

    Args:
        channels: Names.
        positions: ``channel:epoch:offset``, split from the right.

    Raises:
        RequestError: If a position cannot be read, or is of a channel that is not asked for.
    """
    names = list(dict.fromkeys(channels))
    if not names:
        raise RequestError("invalid_channel", "Name at least one channel: ?channel=...")
    found: dict[str, Any] = {}
    for text in positions:
        channel, _, rest = text.rpartition(":")[0].rpartition(":")
        offset = text.rpartition(":")[2]
        if channel not in names or not (
            offset.isascii() and offset.isdigit() and len(offset) < len("1" * 19)
        ):
            raise RequestError(
                "invalid_position", "A position is channel:epoch:offset, of a channel that is asked for."
            )
        found[channel] = {"epoch": rest, "offset": int(offset)}
    return [_request(name, name, found.get(name)) for name in names]


def _request(name: str, channel: str, position: object) -> ChannelRequest:
    if not is_channel_name(name) or not is_channel_name(channel):
        told = "A name must not be blank, nor longer than 200 characters."
        return ChannelRequest(
            channel=channel, problem=problem(ErrorCategory.PROTOCOL, "invalid_channel", told)
        )
    if position is None:
        return ChannelRequest(channel=channel)
    given = position if isinstance(position, Mapping) else {}
    epoch, offset = given.get("epoch"), given.get("offset")
    if not isinstance(epoch, str) or type(offset) is not int:
        told = "A position is an object with epoch and offset."
        return ChannelRequest(
            channel=channel, problem=problem(ErrorCategory.PROTOCOL, "invalid_position", told)
        )
    return ChannelRequest(channel=channel, position=Position(epoch=epoch, offset=offset))


@frozen(kw_only=True)
class Envelope:
    """The identity of a message, as it was read; ``client_id`` and ``sequence`` come together, or neither.

    Attributes:
        message_id: The id that the client gave the message.
        client_id: The id that the client gave itself.
        sequence: The message's number; a client's numbers rise, with gaps or without.
    """

    message_id: str | None = None
    client_id: str | None = None
    sequence: int | None = None


def split_arguments(args: Sequence[Any]) -> tuple[Envelope, Sequence[Any]]:
    """Take the envelope from the end of a message's arguments, where there is one.

    Only an object with exactly the keys of an envelope is one; any other is an ordinary argument.

    Returns:
        The envelope, and the arguments without it.

    Raises:
        RequestError: If it is malformed.
    """
    last = args[-1] if args else None
    if not isinstance(last, Mapping) or last.keys() not in _KEY_SETS:
        return Envelope(), args
    return _checked(last), args[:-1]


def read_envelope(message: Mapping[str, Any]) -> Envelope:
    """Return the envelope of a message that came over HTTP. Its ``message_id`` may be missing or null.

    Raises:
        RequestError: If it is malformed.
    """
    given = {key: message[key] for key in _KEYS if key in message}
    if given.keys() <= {"message_id"} and given.get("message_id") is None:
        return Envelope()
    if given.keys() not in _KEY_SETS:
        raise RequestError("invalid_message", "client_id and sequence go together, and with a message_id.")
    return _checked(given)


def _checked(given: Mapping[str, Any]) -> Envelope:
    for key in given.keys() & {"message_id", "client_id"}:
        if not _is_id(given[key]):
            told = f"{key} must be a text of 1 to {MAX_ID_LENGTH} characters."
            raise RequestError("invalid_message", told)
    # Not `isinstance`: true is an int in Python.
    if "sequence" in given and not (
        type(given["sequence"]) is int and 1 <= given["sequence"] <= MAX_SEQUENCE
    ):
        raise RequestError("invalid_message", f"sequence must be a whole number from 1 to {MAX_SEQUENCE}.")
    return Envelope(**given)


def _is_id(value: object) -> bool:
    return isinstance(value, str) and len(value) <= MAX_ID_LENGTH and is_text(value)


def is_text(value: object) -> bool:
    """Tell whether a value is a text, not an empty one, that can be logged and stored."""
    return isinstance(value, str) and value != "" and is_encodable(value)
