"""Hypothesis strategies: what can happen to a client, and what can be asked of it.

All of them shrink well: sequences are plain lists, and a message shrinks towards a short one.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any, Final

from attrs import Attribute, field, fields, frozen

from realtime_fsm.engine.payload import MAX_ATTACHMENTS, encode
from realtime_fsm.machine.backoff import Jitter
from realtime_fsm.machine.config import LOG_LEVELS, TRANSPORTS, Endpoint, RealtimeConfig
from realtime_fsm.machine.delivery import Delivery, Durability, InboundOverflow, Overflow
from realtime_fsm.machine.dialect import RESERVED_EVENTS, Dialect
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
from realtime_fsm.testing.fuzz.schedule import ENDINGS, PAUSES, Action, Schedule, Setting, Step

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

_ORDERED: Final = (
    ("heartbeat_timeout", "heartbeat_interval"),
    ("backoff_base", "backoff_maximum"),
    ("max_message_bytes", "outbox_max_bytes"),
)
"""Fields of which the first must not be more than the second; the configuration itself says why."""

_WORDS: Final = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_~.é日", min_size=1, max_size=8)
_HOSTS: Final = (
    st.sampled_from(["localhost", "127.0.0.1", "[::1]", "example.org"])
    | st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?\.example", fullmatch=True)
)  # fmt: skip
_OWN_DIALECTS: Final = st.builds(
    Dialect,
    name=_WORDS,
    token_key=st.just("token") | st.just("jwt"),
    heartbeat_event=st.none() | st.just("ping_me"),
    positions=st.booleans(),
    message_ids=st.booleans(),
    deduplicates=st.booleans(),
    recovers_sessions=st.booleans(),
    poll_path=st.none() | st.just("/poll"),
    publish_path=st.none() | st.just("/publish"),
)
_BY_TYPE: Final[Mapping[Any, SearchStrategy[Any]]] = MappingProxyType(
    {
        bool: st.booleans(),
        Jitter: st.sampled_from(Jitter),
        Durability: st.sampled_from(Durability),
        Overflow: st.sampled_from(Overflow),
        InboundOverflow: st.sampled_from(InboundOverflow),
        Dialect: st.sampled_from([Dialect.PLAIN, Dialect.REFERENCE]) | _OWN_DIALECTS,
    }
)
_BY_NAME: Final[Mapping[str, SearchStrategy[Any]]] = MappingProxyType(
    {
        "server_url": st.builds(
            "{}://{}{}{}".format,
            st.sampled_from(["http", "https"]),
            _HOSTS,
            st.just("") | st.integers(1, 65535).map(":{}".format) | st.sampled_from([":1", ":65535"]),
            st.sampled_from(["", "/", "/a/b"]),
        ),
        "namespace": st.just("/") | _WORDS.map("/{}".format),
        "socketio_path": _WORDS | _WORDS.map("/{}/".format),
        "transports": st.permutations(TRANSPORTS).map(tuple)
        | st.sampled_from([(one,) for one in TRANSPORTS]),
        "fallback_endpoints": st.lists(
            st.builds(
                lambda event, root, path: Endpoint(url=f"{root}/{path}", event=event),
                _WORDS,
                st.sampled_from(["", "https://other.example"]),
                _WORDS,
            ),
            max_size=3,
        ).map(tuple),
        "outbox_path": st.none() | _WORDS.map("{}.db".format),
        "log_level": st.sampled_from(LOG_LEVELS),
    }
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


def fault_schedules(
    *,
    settings: Sequence[Setting] = tuple(Setting),
    actions: Sequence[Action] = tuple(Action),
    endings: Sequence[Action] = ENDINGS,
    max_size: int = 20,
) -> SearchStrategy[Schedule]:
    """Draw a schedule of faults: what may happen to a connection, and how it ends.

    They shrink to few steps without pauses, on the reference dialect, that end with everything mended.

    Args:
        settings: Kinds of servers.
        actions: What may happen.
        endings: How it may end.
        max_size: Steps at most.
    """
    steps = st.builds(Step, st.sampled_from(list(actions)), st.sampled_from(PAUSES))
    return st.builds(
        Schedule,
        st.lists(steps, max_size=max_size),
        seed=st.integers(0, 2**32),
        setting=st.sampled_from(list(settings)),
        ending=st.sampled_from(list(endings)),
    )


def facts() -> SearchStrategy[Facts]:
    """Draw what the guards of the shipped table look at, the limits of the attempts included."""
    return st.builds(
        Facts,
        reconnects=st.integers(0, 12),
        initial=st.booleans(),
        max_reconnect_attempts=st.integers(0, 12) | st.none(),
        retry_initial=st.booleans(),
        fallback_available=st.booleans(),
        forced=st.booleans(),
        error=st.none() | failures(),
        outage=st.floats(0.0, 30.0),
        fallback_after=st.none() | st.floats(0.0, 30.0),
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
    return _event_names()


@cache
def _event_names() -> SearchStrategy[str]:
    return _texts().filter(lambda name: name and name not in RESERVED_EVENTS)


@cache
def _arguments(binary: bool) -> SearchStrategy[list[Any]]:
    return st.lists(json_values(binary=binary), max_size=4)


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
    event = draw(_event_names())
    args = draw(_arguments(binary))
    while _size(event, args, max_bytes) is None:
        args.pop()
    if draw(st.integers(0, 15)) == 15:  # noqa: PLR2004 - seldom: the largest are slow
        args = _filled(event, args, max_bytes, draw(st.sampled_from(["x", "é", "\U0001f469"])))
    return MessageDraft(event=event, args=tuple(args), delivery=draw(st.sampled_from(deliveries)))


@cache
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


@st.composite
def configs(draw: st.DrawFn, /, **given: Any) -> RealtimeConfig:
    """Draw a configuration that is legal, each field up to the ends of its range.

    It shrinks field by field towards the defaults: what is left is what matters.

    Args:
        draw: Given by Hypothesis.
        given: Fields that are fixed: a value, or a strategy that draws it. What is drawn is made to fit; that
            fixed fields fit together is on the caller, also that ``EXACTLY_ONCE`` has a dialect for it.

    Raises:
        TypeError: If there is no field of such a name.
    """
    unknown = given.keys() - {attribute.name for attribute in fields(RealtimeConfig)}
    if unknown:
        raise TypeError(f"RealtimeConfig has no field named {', '.join(sorted(unknown))}")
    drawn: dict[str, Any] = {}
    for attribute in fields(RealtimeConfig):
        name = attribute.name
        value = given[name] if name in given else _field(name, drawn)
        drawn[name] = draw(value, label=name) if isinstance(value, SearchStrategy) else value
    for shorter, longer in _ORDERED:
        if drawn[shorter] > drawn[longer] and not {shorter, longer} <= given.keys():
            raises = longer not in given and (shorter in given or draw(st.booleans()))
            drawn.update({longer: drawn[shorter]} if raises else {shorter: drawn[longer]})
    return RealtimeConfig(**drawn)


def _field(name: str, drawn: Mapping[str, Any]) -> SearchStrategy[Any]:
    """Return what draws a field; its default comes first, so that it shrinks towards it."""
    if name == "default_delivery":  # what is allowed, and the default, hang on the dialect
        least = Delivery.EXACTLY_ONCE if drawn["dialect"].deduplicates else Delivery.AT_MOST_ONCE
        offered = [one for one in Delivery if one is not Delivery.EXACTLY_ONCE or one is least]
        return st.just(least) | st.sampled_from(offered)
    return _independent(name)


@cache  # a strategy that is made anew for each draw is checked anew: that took most of the time
def _independent(name: str) -> SearchStrategy[Any]:
    attribute: Attribute[Any] = getattr(fields(RealtimeConfig), name)
    if attribute.name in _BY_NAME:
        values = _BY_NAME[attribute.name]
    elif attribute.type in _BY_TYPE:
        values = _BY_TYPE[attribute.type]
    else:
        values = _numbers(attribute)
    return st.just(attribute.default) | values


def _numbers(attribute: "Attribute[Any]") -> SearchStrategy[Any]:
    """Return what draws a count or a duration, from the least that the field's own check allows."""
    check = attribute.metadata["check"]
    if attribute.type in {int, int | None}:
        least = 0 if check(0) is None else 1
        counts = st.just(least) | st.integers(least, 2**63) | st.integers(least, 100)
        return st.none() | counts if check(None) is None else counts
    durations = (
        st.floats(0.0, sys.float_info.max, exclude_min=check(0.0) is not None)
        | st.floats(0.001, 3600.0)
        | st.just(sys.float_info.max)
    )
    return st.none() | durations if check(None) is None else durations
