"""What a client wants to hear of, and how far it has come: the records."""

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, Final

from attrs import define, frozen

from realtime_fsm.machine.errors import InvalidArgumentError

BOOKING_PREFIX: Final = "booking:"
"""A monitored booking is a channel of this prefix, where the dialect knows positions."""


class SubscriptionState(Enum):
    """How far a subscription has come on the present connection."""

    WANTED = "wanted"
    """It is to be asked for: as soon as there is a connection, or because something of it was missed."""
    PENDING = "pending"
    """It was asked for, and not answered yet."""
    ACTIVE = "active"
    """The server has confirmed it, or was told where it does not confirm."""
    REFUSED = "refused"
    """The server said no; see ``reason``. The next connection asks again."""

    @property
    def is_decided(self) -> bool:
        """Whether the present connection has nothing more to say about it."""
        return self in {SubscriptionState.ACTIVE, SubscriptionState.REFUSED}


@frozen(kw_only=True)
class Position:
    """A place in a channel's log.

    Attributes:
        epoch: Identity of the log; another one means that the old log is lost.
        offset: Number of the last event; they rise by one.
    """

    epoch: str
    offset: int


@define(eq=False, kw_only=True)
class Subscription:
    """One channel or booking that is wanted.

    Attributes:
        channel: Name under which its events arrive.
        booking_id: Set where it was asked for by ``monitor_bookings``.
        state: How far it has come on the present connection.
        reason: Why it was refused.
        position: Place of the last event that arrived, where the dialect tells.
        left_at: Place of the last event that was left to a replay, which must close the gap before it.
        is_resyncing: Whether its state is being loaded anew; until then its events are left to the replay
            that follows.
    """

    channel: str
    booking_id: str | None = None
    state: SubscriptionState = SubscriptionState.WANTED
    reason: str | None = None
    position: Position | None = None
    left_at: Position | None = None
    is_resyncing: bool = False


def read_position(answer: Mapping[str, Any]) -> Position | None:
    """Return the position that a server's object holds, or ``None`` where it holds none."""
    epoch, offset = answer.get("epoch"), answer.get("offset")
    return Position(epoch=epoch, offset=offset) if isinstance(epoch, str) and type(offset) is int else None


def check_names(names: Iterable[str], *, what: str) -> list[str]:
    """Return the names of channels (or bookings) if they may be asked for, each once, in order.

    Raises:
        InvalidArgumentError: For all names that are not a string or are blank, or if a bare string was given.
    """
    if isinstance(names, (str, bytes)):
        raise InvalidArgumentError(
            f"{what}={names!r} is one name, not several.", remedy=f"Give a list: [{names!r}]."
        )
    given = list(names)
    wrong = [name for name in given if not isinstance(name, str) or not name.strip()]
    if wrong or not given:
        raise InvalidArgumentError(
            f"{what}={given!r} holds {wrong!r}." if wrong else f"{what} is empty.",
            remedy="Give a list of names that are not blank.",
        )
    return list(dict.fromkeys(given))
