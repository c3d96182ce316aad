"""Hypothesis strategies: what can happen to a client, and what can be asked of it.

All of them shrink well: sequences are plain lists, and a message shrinks towards a short one.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from attrs import field, frozen

from realtime_fsm.engine.payload import MAX_ATTACHMENTS, encode
from realtime_fsm.machine.delivery import Delivery
from realtime_fsm.machine.dialect import RESERVED_EVENTS
from realtime_fsm.machine.errors import (
    AuthenticationError,
    InternalError,
    InvalidArgumentError,
    MissingExtraError,
    NamespaceRefusedError,
    RealtimeError,
    TransportError,
)
from realtime_fsm.machine.guard import Facts
from realtime_fsm.machine.table import TRANSITIONS
from realtime_fsm.testing.exploration import moves_of

try:
    from hypothesis import strategies as st
    from hypothesis.strategies import SearchStrategy
except ImportError as error:
    raise MissingExtraError(extra="testing", what="The Hypothesis strategies") from error

LEAST_MESSAGE_BYTES: Final = 256
"""Smallest limit of ``messages()``: any event's name has room in it."""

_MAX_DEPTH: Final = 64
_MOST_SHOWN: Final = 2000
_AWKWARD: Final = (
    "",
    " ",
    "\x00",
    "\x7f",
    '"\\/',
    "\u2028\u2029",  # end a line in JavaScript, and not in JSON
    "\ufeff",
    "\u202eabc",  # written from right to left
    "e\u0301",  # two characters that look like one
    "\ufffe\uffff",
    "\U0010ffff",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467",
    "0",
    "null",
    "__proto__",
    "[object Object]",
)
_NUMBERS: Final = (
    2**31,
    2**53 - 1,
    2**53 + 1,  # the first one that JavaScript cannot tell from its neighbour
    -(2**63),
    2**64,
    10**30,
)


def triggers(table: Iterable[Any] | None = None) -> SearchStrategy[Any]:
    """Draw a trigger: one of ours, or one of another table.

    Args:
        table: Rows, or a machine, as ``explore`` takes them; by default the shipped ``TRANSITIONS``.
    """
    return st.sampled_from(list(dict.fromkeys(move.trigger for move in moves_of(_table(table)))))


def trigger_sequences(
    table: Iterable[Any] | None = None, *, min_size: int = 0, max_size: int = 50
) -> SearchStrategy[list[Any]]:
    """Draw a plain list of triggers, in any order: legal, ignored and illegal ones.

    Args:
        table: As for ``triggers``.
        min_size: Fewest triggers.
        max_size: Most triggers.
    """
    return st.lists(triggers(table), min_size=min_size, max_size=max_size)


def failures() -> SearchStrategy[RealtimeError]:
    """Draw an error of each kind that the guards tell apart, worth retrying or not."""
    return st.builds(
        lambda kind, retryable: kind("It broke.", retryable=retryable),
        st.sampled_from([TransportError, AuthenticationError, NamespaceRefusedError, InternalError]),
        st.none() | st.booleans(),
    )


def facts() -> SearchStrategy[Facts]:
    """Draw what the guards of the shipped table look at, the limits of the attempts included."""
    return st.builds(
        Facts,
        reconnects=st.integers(0, 12),
        initial=st.booleans(),
        max_reconnect_attempts=st.integers(0, 12),
        retry_initial=st.booleans(),
        fallback_available=st.booleans(),
        forced=st.booleans(),
        error=st.none() | failures(),
    )


def json_values(*, binary: bool = False, max_leaves: int = MAX_ATTACHMENTS) -> SearchStrategy[Any]:
    """Draw a value that JSON can hold: awkward text, large numbers, nested deeply.

    Args:
        binary: Whether parts of it may be ``bytes``.
        max_leaves: Most values in it that hold no other ones.
    """
    leaves: SearchStrategy[Any] = (
        st.none()
        | st.booleans()
        | st.integers()
        | st.sampled_from(_NUMBERS)
        | st.floats(allow_nan=False, allow_infinity=False)
        | _texts()
    )
    if binary:
        leaves |= st.binary(max_size=20)
    values = st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_texts(), inner, max_size=4),
        max_leaves=max_leaves,
    )
    return values | st.builds(_nested, leaves, st.integers(1, _MAX_DEPTH))


def _shown(args: tuple[Any, ...]) -> str:
    text = repr(args)
    return text if len(text) <= _MOST_SHOWN else f"<{len(text)} characters: {text[:_MOST_SHOWN]}...>"


@frozen(kw_only=True)
class MessageDraft:
    """Something to emit: ``await realtime.emit(draft.event, *draft.args, delivery=draft.delivery)``.

    Attributes:
        event: Name of the event.
        args: Its arguments.
        delivery: What is to be promised.
    """

    event: str
    args: tuple[Any, ...] = field(repr=_shown)
    delivery: Delivery

    def _repr_pretty_(self, printer: Any, _: bool) -> None:
        """Be shown by Hypothesis as elsewhere: it would print the whole megabyte."""
        printer.text(repr(self))


def event_names() -> SearchStrategy[str]:
    """Draw a name that an event may have, awkward ones included."""
    return _texts().filter(lambda name: name and name not in RESERVED_EVENTS)


@st.composite
def messages(
    draw: st.DrawFn,
    /,
    *,
    binary: bool = False,
    deliveries: Sequence[Delivery] = tuple(Delivery),
    max_bytes: int = 1_000_000,
) -> MessageDraft:
    """Draw a message that can be sent, up to the very limit of its size.

    Args:
        draw: Given by Hypothesis.
        binary: Whether its arguments may hold ``bytes``.
        deliveries: What may be promised for it.
        max_bytes: Its largest size, encoded; 256 or more.

    Raises:
        ValueError: If not every name of an event has room in ``max_bytes``.
    """
    if max_bytes < LEAST_MESSAGE_BYTES:
        raise ValueError(f"max_bytes={max_bytes} must be {LEAST_MESSAGE_BYTES} or more")
    event = draw(event_names())
    args = draw(st.lists(json_values(binary=binary), max_size=4))
    while _size(event, args, max_bytes) is None:
        args.pop()
    if draw(st.integers(0, 15)) == 15:  # noqa: PLR2004 - seldom: the largest are slow
        args = _filled(event, args, max_bytes, draw(st.sampled_from(["x", "é", "\U0001f469"])))
    return MessageDraft(event=event, args=tuple(args), delivery=draw(st.sampled_from(deliveries)))


def _texts() -> SearchStrategy[str]:
    # Lone surrogates are left out: they cannot be written in UTF-8, so `emit` refuses them.
    return st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(_AWKWARD)


def _nested(value: Any, depth: int) -> Any:
    for level in range(depth):
        value = [value] if level % 2 else {"inner": value}
    return value


def _size(event: str, args: Sequence[Any], max_bytes: int) -> int | None:
    """Return the encoded size of a message, or ``None`` where it may not be sent."""
    try:
        return encode([event, *args], what="The message", max_bytes=max_bytes).size_bytes
    except InvalidArgumentError:
        return None


def _filled(event: str, args: list[Any], max_bytes: int, character: str) -> list[Any]:
    """Return the arguments with a text at their end that fills the message to its limit."""
    args = [*args, ""]
    size = _size(event, args, max_bytes)
    if size is None:
        return args[:-1]
    count, rest = divmod(max_bytes - size, len(character.encode()))
    return [*args[:-1], character * count + "x" * rest]


def _table(table: Iterable[Any] | None) -> Iterable[Any]:
    return TRANSITIONS if table is None else table
