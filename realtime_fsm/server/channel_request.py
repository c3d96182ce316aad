"""What clients ask for, read without trust: names of channels, and positions in them."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from attrs import frozen

from realtime_fsm.engine.subscription import BOOKING_PREFIX, Position
from realtime_fsm.machine.errors import ErrorCategory
from realtime_fsm.server.answer import Answer, problem

MAX_NAME_LENGTH: Final = 200
_MAX_NAMES: Final = 10_000
"""Most names of one request; those beyond the client's own limit are refused one by one."""


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


def _request(name: str, channel: str, place: object) -> ChannelRequest:
    if not is_channel_name(name) or not is_channel_name(channel):
        told = "A name must not be blank, nor longer than 200 characters."
        return ChannelRequest(
            channel=channel, problem=problem(ErrorCategory.PROTOCOL, "invalid_channel", told)
        )
    if place is None:
        return ChannelRequest(channel=channel)
    epoch, offset = (place.get("epoch"), place.get("offset")) if isinstance(place, Mapping) else (None, None)
    if not isinstance(epoch, str) or type(offset) is not int:
        told = "A position is an object with epoch and offset."
        return ChannelRequest(
            channel=channel, problem=problem(ErrorCategory.PROTOCOL, "invalid_position", told)
        )
    return ChannelRequest(channel=channel, position=Position(epoch=epoch, offset=offset))
