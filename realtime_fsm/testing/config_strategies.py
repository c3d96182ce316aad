"""The Hypothesis strategy for configurations: every legal one, each field up to the ends of its range."""

import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from attrs import Attribute, fields

from realtime_fsm.machine.backoff import Jitter
from realtime_fsm.machine.config import LOG_LEVELS, TRANSPORTS, Endpoint, RealtimeConfig
from realtime_fsm.machine.delivery import Delivery, Durability, Overflow
from realtime_fsm.machine.dialect import Dialect
from realtime_fsm.machine.errors import MissingExtraError

try:
    from hypothesis import strategies as st
    from hypothesis.strategies import SearchStrategy
except ImportError as error:
    raise MissingExtraError(extra="testing", what="The Hypothesis strategies") from error


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
        value = given[name] if name in given else _field(attribute, drawn)
        drawn[name] = draw(value, label=name) if isinstance(value, SearchStrategy) else value
    for shorter, longer in _ORDERED:
        if drawn[shorter] > drawn[longer] and not {shorter, longer} <= given.keys():
            raises = longer not in given and (shorter in given or draw(st.booleans()))
            drawn.update({longer: drawn[shorter]} if raises else {shorter: drawn[longer]})
    return RealtimeConfig(**drawn)


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


def _field(attribute: "Attribute[Any]", drawn: Mapping[str, Any]) -> SearchStrategy[Any]:
    """Return what draws a field; its default comes first, so that it shrinks towards it."""
    if attribute.name == "default_delivery":  # what is allowed, and the default, hang on the dialect
        least = Delivery.EXACTLY_ONCE if drawn["dialect"].deduplicates else Delivery.AT_MOST_ONCE
        offered = [one for one in Delivery if one is not Delivery.EXACTLY_ONCE or one is least]
        return st.just(least) | st.sampled_from(offered)
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
    if attribute.type is int:
        least = 0 if check(0) is None else 1
        return st.just(least) | st.integers(least, 2**63) | st.integers(least, 100)
    durations = (
        st.floats(0.0, sys.float_info.max, exclude_min=check(0.0) is not None)
        | st.floats(0.001, 3600.0)
        | st.just(sys.float_info.max)
    )
    return st.none() | durations if check(None) is None else durations
