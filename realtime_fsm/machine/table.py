"""The two tables that are the whole truth about behaviour, and the theory behind them.

Theory of operation
===================

1.  A connection is always in exactly one of six states. It moves only by a row of ``TRANSITIONS``:
    ``(source, trigger, destination, guard)``. Rows of one pair (source, trigger) are tried in the
    order in which they stand here; the first one whose guard holds is taken.

2.  Every pair (state, trigger) is one of three things: it has rows; it is named in ``IGNORED``
    with the reason why nothing happens; or it is illegal, and firing it raises
    ``IllegalTransitionError``. There is no fourth thing, and a test checks every pair.

3.  What the engine does is said by ``ACTIVITIES``: what runs for as long as a state lasts. Entering
    a state starts its activities, leaving it cancels them. What an activity finds out it reports as
    a trigger. Nothing else runs.

4.  A transition is atomic: no callback awaits, performs I/O or runs user code. Entering a state opens
    a new *epoch*; whatever belongs to an older epoch (a late packet, a timer, the result of a dial)
    is dropped and counted. That is the general cure for late events and double reconnects.

5.  What a state means for the rest of the engine (may messages leave? does data flow?) is a row of
    ``TRAITS``. No other module compares a status with a constant: when it wants to, a trait is missing.

Triggers in the past tense are facts reported by activities, imperative ones come from the user.

What does not fit the tables, confessed here
============================================

*   ``retry_now()`` does not fire a trigger itself. It wakes the activity that waits (the backoff, the
    rest in FAILED, the pause between two probes in FALLBACK), and that activity goes on as if its time
    had come. So one call serves every state, and in a state in which nothing waits it does nothing.
*   A token that is refused is refreshed and dialled with once more *inside* CONNECTING: it is the
    same attempt, and no observer has to tell it from a flapping link.
*   FALLBACK is entered anew by ``force_fallback`` and ``release_fallback``: the state stays, its
    activities change (a forced FALLBACK does not probe, or it would end at once).
"""

from collections.abc import Mapping
from enum import Enum, StrEnum
from types import MappingProxyType
from typing import Final

from attrs import field, frozen


class ConnectionStatus(StrEnum):
    """The six states of a connection."""

    DISCONNECTED = "disconnected"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    RECONNECTING = "reconnecting"
    FAILED = "failed"
    FALLBACK = "fallback"


class Trigger(StrEnum):
    """The inputs that move the machine. Facts come from activities, imperatives from the user."""

    CONNECT = "connect"
    ESTABLISHED = "established"
    ATTEMPT_FAILED = "attempt_failed"
    CONNECTION_LOST = "connection_lost"
    RETRY = "retry"
    FALL_BACK = "fall_back"
    POLLING_REFUSED = "polling_refused"
    FORCE_FALLBACK = "force_fallback"
    RELEASE_FALLBACK = "release_fallback"
    DISCONNECT = "disconnect"


class Guard(StrEnum):
    """Names of the guards; the functions stand in ``guard.py``, each a pure one of ``Facts``."""

    MAY_RETRY = "may_retry"
    MAY_FALL_BACK = "may_fall_back"
    MAY_PROBE = "may_probe"


class Activity(StrEnum):
    """All that runs while a state lasts: see ``engine/activities.py`` and ``engine/fallback.py``."""

    ESTABLISH = "establish"
    HEARTBEAT = "heartbeat"
    TOKEN_REFRESH = "token_refresh"  # noqa: S105 - the name of an activity
    CATCH_UP = "catch_up"
    BACKOFF = "backoff"
    DECISION = "decision"
    POLLING = "polling"
    PUBLISHING = "publishing"
    PROBING = "probing"


class Severity(Enum):
    """The degree to which a state should worry the person who watches it."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@frozen
class Row:
    """One legal move. ``guard`` is ``None`` where the move is always allowed."""

    source: ConnectionStatus
    trigger: Trigger
    dest: ConnectionStatus
    guard: Guard | None = None


@frozen
class ActivityRow:
    """One activity of one state. ``guard`` is asked once, when the state is entered."""

    state: ConnectionStatus
    activity: Activity
    guard: Guard | None = None


@frozen(kw_only=True)
class Traits:
    """The meaning of a state for everything that is not the machine.

    Attributes:
        sends: Messages may leave over the socket.
        publishes: Messages may leave over HTTP, where the dialect has an endpoint for it.
        carries_data: Events reach the handlers, over the socket or by polling.
        wanted: Somebody has asked for a connection, and not for its end.
        online: Something is being done about the connection (false only where nothing runs or all rest).
        gives_up: It is entered because the attempts have run out, or could not help.
        settles: ``connect()`` has its answer when this state is reached.
        waits: The state begins with a wait whose length is decided on entry (``retry_in``).
        wakes: ``retry_now()`` has something to wake here.
        on_crash: What an activity's unexpected exception becomes; ``None`` where it can only be reported.
        severity: How much it should worry a person.
        meaning: What it is, and what happens next, in words for people.
    """

    sends: bool = False
    publishes: bool = False
    carries_data: bool = False
    wanted: bool = True
    online: bool = True
    gives_up: bool = False
    settles: bool = False
    waits: bool = False
    wakes: bool = False
    on_crash: Trigger | None = None
    severity: Severity = Severity.INFO
    meaning: str = field()


_S = ConnectionStatus
_T = Trigger
_A = Activity
_G = Guard

# fmt: off
TRANSITIONS: Final[tuple[Row, ...]] = (
    Row(_S.DISCONNECTED, _T.CONNECT,          _S.CONNECTING),
    Row(_S.FAILED,       _T.CONNECT,          _S.CONNECTING),

    Row(_S.CONNECTING,   _T.ESTABLISHED,      _S.CONNECTED),
    Row(_S.CONNECTING,   _T.ATTEMPT_FAILED,   _S.RECONNECTING, _G.MAY_RETRY),
    Row(_S.CONNECTING,   _T.ATTEMPT_FAILED,   _S.FAILED),

    Row(_S.CONNECTED,    _T.CONNECTION_LOST,  _S.RECONNECTING, _G.MAY_RETRY),
    Row(_S.CONNECTED,    _T.CONNECTION_LOST,  _S.FAILED),

    Row(_S.RECONNECTING, _T.RETRY,            _S.CONNECTING),
    Row(_S.FAILED,       _T.RETRY,            _S.CONNECTING),

    Row(_S.FAILED,       _T.FALL_BACK,        _S.FALLBACK,     _G.MAY_FALL_BACK),
    Row(_S.FALLBACK,     _T.ESTABLISHED,      _S.CONNECTED),
    # The HTTP side refused the token twice: to go on polling with it would be a storm of refusals.
    Row(_S.FALLBACK,     _T.POLLING_REFUSED,  _S.FAILED),

    Row(_S.CONNECTING,   _T.FORCE_FALLBACK,   _S.FALLBACK),
    Row(_S.CONNECTED,    _T.FORCE_FALLBACK,   _S.FALLBACK),
    Row(_S.RECONNECTING, _T.FORCE_FALLBACK,   _S.FALLBACK),
    Row(_S.FAILED,       _T.FORCE_FALLBACK,   _S.FALLBACK),
    # Forced while it already polls: entered anew, because the probing that would end it must stop.
    Row(_S.FALLBACK,     _T.FORCE_FALLBACK,   _S.FALLBACK),
    Row(_S.FALLBACK,     _T.RELEASE_FALLBACK, _S.FALLBACK),

    Row(_S.CONNECTING,   _T.DISCONNECT,       _S.DISCONNECTED),
    Row(_S.CONNECTED,    _T.DISCONNECT,       _S.DISCONNECTED),
    Row(_S.RECONNECTING, _T.DISCONNECT,       _S.DISCONNECTED),
    Row(_S.FAILED,       _T.DISCONNECT,       _S.DISCONNECTED),
    Row(_S.FALLBACK,     _T.DISCONNECT,       _S.DISCONNECTED),
)

ACTIVITIES: Final[tuple[ActivityRow, ...]] = (
    ActivityRow(_S.CONNECTING,   _A.ESTABLISH),
    ActivityRow(_S.CONNECTED,    _A.HEARTBEAT),
    ActivityRow(_S.CONNECTED,    _A.TOKEN_REFRESH),
    ActivityRow(_S.CONNECTED,    _A.CATCH_UP),
    ActivityRow(_S.RECONNECTING, _A.BACKOFF),
    ActivityRow(_S.FAILED,       _A.DECISION),
    ActivityRow(_S.FALLBACK,     _A.POLLING),
    ActivityRow(_S.FALLBACK,     _A.PUBLISHING),
    ActivityRow(_S.FALLBACK,     _A.PROBING,    _G.MAY_PROBE),
)
# fmt: on

IGNORED: Final[Mapping[tuple[ConnectionStatus, Trigger], str]] = MappingProxyType(
    {
        (
            _S.DISCONNECTED,
            _T.DISCONNECT,
        ): "It is disconnected already; disconnecting twice is harmless.",
        (_S.CONNECTING, _T.CONNECT): "An attempt is under way; a second caller shares its outcome.",
        (_S.CONNECTED, _T.CONNECT): "It is connected already.",
        (_S.RECONNECTING, _T.CONNECT): "The next attempt is scheduled; `retry_now()` hurries it.",
        (_S.FALLBACK, _T.CONNECT): "Probing looks for the socket; `retry_now()` hurries it.",
        (_S.DISCONNECTED, _T.RELEASE_FALLBACK): "There is no fallback to release.",
        (_S.CONNECTING, _T.RELEASE_FALLBACK): "There is no fallback to release.",
        (
            _S.CONNECTED,
            _T.RELEASE_FALLBACK,
        ): "The socket is back already; there is no fallback to release.",
        (_S.RECONNECTING, _T.RELEASE_FALLBACK): "There is no fallback to release.",
        (_S.FAILED, _T.RELEASE_FALLBACK): "The fallback has ended already.",
    }
)

TRAITS: Final[Mapping[ConnectionStatus, Traits]] = MappingProxyType(
    {
        _S.DISCONNECTED: Traits(
            wanted=False,
            online=False,
            settles=True,
            meaning="Not connected, and nothing is being tried. Messages wait for `connect()`.",
        ),
        _S.CONNECTING: Traits(
            on_crash=_T.ATTEMPT_FAILED,
            meaning="A connection is being opened. Messages wait in the outbox.",
        ),
        _S.CONNECTED: Traits(
            sends=True,
            carries_data=True,
            settles=True,
            on_crash=_T.CONNECTION_LOST,
            meaning="Live: events arrive and messages leave over the socket.",
        ),
        _S.RECONNECTING: Traits(
            settles=True,
            waits=True,
            wakes=True,
            on_crash=_T.RETRY,
            severity=Severity.WARNING,
            meaning="The connection is down; the next attempt follows a pause. `retry_now()` hurries it.",
        ),
        _S.FAILED: Traits(
            online=False,
            gives_up=True,
            settles=True,
            wakes=True,
            severity=Severity.ERROR,
            meaning="Gave up: nothing is tried by itself any more. Mend the cause, then `retry_now()`.",
        ),
        _S.FALLBACK: Traits(
            publishes=True,
            carries_data=True,
            settles=True,
            wakes=True,
            on_crash=_T.POLLING_REFUSED,
            severity=Severity.WARNING,
            meaning="The socket is down; data comes by HTTP polling while the socket is probed for.",
        ),
    }
)


def rows_of(source: ConnectionStatus, trigger: Trigger) -> tuple[Row, ...]:
    """Return the rows for a pair, in the order in which they are tried; empty when there are none."""
    return tuple(row for row in TRANSITIONS if row.source is source and row.trigger is trigger)


def legal_triggers(source: ConnectionStatus) -> tuple[Trigger, ...]:
    """Return the triggers that have a row in a state, in the order of the table, each once."""
    return tuple(dict.fromkeys(row.trigger for row in TRANSITIONS if row.source is source))
