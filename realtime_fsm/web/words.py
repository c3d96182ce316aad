"""The state in words for the page: what is so, what happens next, and what a person can do."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.machine.record import StatusChange
from realtime_fsm.machine.redaction import redacted
from realtime_fsm.machine.table import TRAITS, ConnectionStatus, Trigger
from realtime_fsm.service import RealtimeService

_S = ConnectionStatus

_SAYS: Final[Mapping[ConnectionStatus, str]] = MappingProxyType(
    {
        _S.DISCONNECTED: "Not connected, and nothing is being tried.",
        _S.CONNECTING: "A connection is being opened.",
        _S.CONNECTED: "Live: events arrive and messages leave over the socket.",
        _S.RECONNECTING: "The connection is down, and will be tried again.",
        _S.FAILED: "It gave up: nothing is tried by itself any more.",
        _S.FALLBACK: "The socket is down; data comes by HTTP polling.",
    }
)
_WAIT: Final = "Messages wait meanwhile."


def words(realtime: RealtimeService) -> dict[str, str]:
    """Return the words; they change with the state, and not with the clock."""
    status, last = realtime.status, realtime.connection_status.last
    return {
        "says": _SAYS[status],
        "next": _next(status, last, realtime.config),
        "advice": redacted(_advice(status, last, realtime)),
    }


def is_forced(change: StatusChange | None) -> bool:
    """Tell whether somebody forced the fallback that the client is in."""
    return change is not None and change.trigger is Trigger.FORCE_FALLBACK


def _next(status: ConnectionStatus, last: StatusChange | None, config: RealtimeConfig) -> str:
    gives_up = "polling takes over" if config.fallback_available else "it gives up"
    leave = (
        "Messages leave over HTTP."
        if config.dialect.publish_path is not None
        else "Messages wait for the socket."
    )
    probing = "The fallback is forced: the socket is not looked for until it is released."
    if not is_forced(last):
        probing = f"The socket is looked for about every {config.reconnect_interval:g} s."
    told = {
        _S.DISCONNECTED: "Messages wait until it is connected again.",
        _S.CONNECTING: f"This is decided within {config.connection_timeout:g} s. {_WAIT}",
        _S.CONNECTED: f"The link is tested every {config.heartbeat_interval:g} s.",
        _S.RECONNECTING: f"The next attempt follows a pause; after the last one {gives_up}. {_WAIT}",
        _S.FAILED: "Messages wait until it is connected again.",
        _S.FALLBACK: f"{probing} {leave}",
    }
    return told[status]


def _advice(status: ConnectionStatus, last: StatusChange | None, realtime: RealtimeService) -> str:
    """Return what a person can do; empty where nothing need be done."""
    traits = TRAITS[status]
    if traits.carries_data:
        health = realtime.health()
        found = " ".join(health.reasons if traits.sends or health.deaf else ())
        return found or ("Press Release fallback to look for the socket again." if is_forced(last) else "")
    if not traits.online and not traits.wakes:
        return "Press Resume to connect."
    remedy = "" if last is None or last.error is None else last.error.remedy or ""
    if not traits.wakes:
        return ""
    button = "Press Retry now to end the pause." if traits.waits else "Mend the cause, then press Retry now."
    return f"{remedy} {button}".strip()
