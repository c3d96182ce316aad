"""What a message carries beside its arguments: its id and its number. Read without trust.

Over the socket it is the last argument, over HTTP it stands beside the event::

    {"message_id": "..."}                                       an id, for the application
    {"message_id": "...", "client_id": "...", "sequence": 17}   handled once, however often it comes
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from attrs import frozen

from realtime_fsm.server.channel_request import RequestError

MAX_ID_LENGTH: Final = 200
MAX_SEQUENCE: Final = 2**53 - 1
"""The largest whole number that JavaScript tells from its neighbours."""

_KEYS: Final = frozenset({"message_id", "client_id", "sequence"})
_KEY_SETS: Final = (frozenset({"message_id"}), _KEYS)


@frozen(kw_only=True)
class Envelope:
    """What was read; ``client_id`` and ``sequence`` are both given, or neither is.

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
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_ID_LENGTH:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair: JSON lets it through, a database does not
        return False
    return True
