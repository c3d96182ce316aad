"""A server's conventions: how it wants to be talked to, beyond Socket.IO itself."""

import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

from attrs import field, frozen

from realtime_fsm.machine.checks import Problems, checked

RESERVED_EVENTS: Final = frozenset(
    {"connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"}
)
"""Names that Socket.IO keeps for itself; a server closes the connection when a client emits one.

Source: ``RESERVED_EVENTS`` of socket.io-parser.
"""

_PRIVATE_KEYS: Final = frozenset({"pid", "offset"})
"""Keys of the auth object that lead back to a session; the token must not take their place."""


def _token_key(value: object) -> str | None:
    if value not in _PRIVATE_KEYS:
        return None
    return "leads back to sessions, in Socket.IO's connection state recovery: choose another one"


def _offset_pattern(value: str | None) -> str | None:
    try:
        re.compile(value or "")
    except re.error as error:
        return f"is no regular expression: {error}"
    return None


def _payload(value: object) -> str | None:
    return None if value is None or callable(value) else "must be a function of a channel's name, or None"


@frozen(kw_only=True)
class Dialect:
    """A server's conventions. ``Dialect.PLAIN`` assumes nothing; write your own for your server.

    Attributes:
        name: For people.
        token_key: Key of the token in the CONNECT packet's auth object.
        heartbeat_event: Asked with an acknowledgement. A server that has no such handler simply does not
            answer, which the engine finds out by itself; ``None`` never asks.
        subscribe_event: Emitted with ``{"channels": [...]}``; otherwise see ``subscribe_payload``.
        unsubscribe_event: Emitted with ``{"channels": [...]}``; otherwise see ``unsubscribe_payload``.
        monitor_event: Emitted with ``{"booking_ids": [...]}``.
        reauthenticate_event: Emitted with ``{"token": ...}`` to renew the identity of a live connection;
            ``None`` where the server has no such thing: the new token is used at the next connect.
        confirms_subscriptions: The three events above are acknowledged, channel by channel.
        positions: Published events carry their place as a last argument,
            ``{"channel": str, "epoch": str, "offset": int}``, and missed ones are replayed.
        wraps_answers: Acknowledgements are ``{"ok": true, "answer": ...}``, or hold an ``error``.
        message_ids: Messages carry ``{"message_id": str}`` as a last argument.
        deduplicates: They also carry ``client_id`` and ``sequence``, where that is asked for with
            ``EXACTLY_ONCE``, and the server applies each number once.
        recovers_sessions: Ask for Socket.IO's connection state recovery; a server that does not offer it
            takes no notice.
        offset_pattern: What the offsets of that recovery look like, as a regular expression; by default those
            of the known adapters are learnt from the first one.
        events_without_offset: Names of events whose last argument is never an offset, although it looks like
            one: volatile ones.
        poll_path: Where missed events can be fetched over HTTP; ``None`` where they cannot.
        publish_path: Where messages can be published over HTTP; ``None`` where they cannot.
        subscribe_payload: What ``subscribe_event`` is emitted with, for one channel: a function of its name
            and of its position (``{"epoch": ..., "offset": ...}``, or ``None``), whose result is taken as
            ``emit`` takes data. Each channel is then asked for by itself: with
            ``subscribe_event="join", subscribe_payload=lambda room, _: room`` as ``join("room")``.
        unsubscribe_payload: The same for ``unsubscribe_event``: a function of the name alone.
    """

    PLAIN: ClassVar["Dialect"]
    REFERENCE: ClassVar["Dialect"]

    name: str
    token_key: str = checked(_token_key, default="token")
    heartbeat_event: str | None = "heartbeat"
    subscribe_event: str = "subscribe"
    unsubscribe_event: str = "unsubscribe"
    monitor_event: str = "monitor_bookings"
    reauthenticate_event: str | None = None
    confirms_subscriptions: bool = False
    positions: bool = False
    wraps_answers: bool = False
    message_ids: bool = False
    deduplicates: bool = False
    recovers_sessions: bool = True
    offset_pattern: str | None = checked(_offset_pattern, default=None)
    events_without_offset: frozenset[str] = field(default=frozenset(), converter=frozenset)
    poll_path: str | None = None
    publish_path: str | None = None
    subscribe_payload: Callable[[str, Mapping[str, Any] | None], Any] | None = checked(_payload, default=None)
    unsubscribe_payload: Callable[[str], Any] | None = checked(_payload, default=None)

    def __attrs_post_init__(self) -> None:
        Problems(self).refuse()


Dialect.PLAIN = Dialect(name="plain")
Dialect.REFERENCE = Dialect(
    name="reference",
    reauthenticate_event="reauthenticate",
    confirms_subscriptions=True,
    positions=True,
    wraps_answers=True,
    message_ids=True,
    deduplicates=True,
    poll_path="/realtime/events",
    publish_path="/realtime/messages",
)
