"""A client as JSON, for the page: where it stands, how it fares, what has happened. No body, no secret."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from attrs import frozen

from realtime_fsm.machine.delivery import Outcome
from realtime_fsm.machine.errors import RealtimeError
from realtime_fsm.machine.record import AttemptRecord, StatusChange
from realtime_fsm.machine.redaction import redacted
from realtime_fsm.machine.table import TRAITS, ConnectionStatus, Trigger, legal_triggers
from realtime_fsm.monitoring.narration import narrate
from realtime_fsm.service import RealtimeService

LATENCIES: Final = 120
"""Round trips on the page."""

FLEETING: Final = ("at", "connected_for", "next_attempt_in", "oldest_age")
"""What passes by itself: the page counts these on, and needs no telling."""

_PRECISION: Final = 0.5
"""Seconds that the end of a wait may be off on the page."""


@frozen
class _Seen:
    """The facts told in sentences: without figures that move, because the sentences are read aloud."""

    status: ConnectionStatus
    messages_waiting: int = 0


_Json = dict[str, Any]


def view(realtime: RealtimeService, *, now: float) -> _Json:
    """Return where a client stands and how it fares.

    Args:
        realtime: The client.
        now: The wall clock.
    """
    metrics, last = realtime.metrics, realtime.connection_status.last
    traits = TRAITS[realtime.status]
    samples = realtime.latency_samples[-LATENCIES:]
    return {
        "at": now,
        "server": _origin(realtime.config.server_url),
        "status": realtime.status.value,
        "severity": traits.severity.value,
        "words": words(realtime),
        "is_live": traits.sends,
        "forced": is_forced(last),
        "since": None if last is None else last.at,
        "attempt": _attempt(realtime),
        "next_attempt_in": realtime.next_attempt_in,
        "wait": metrics.retry_in,
        "cause": cause(last),
        "connected_for": metrics.uptime,
        "health": realtime.health().to_json(),
        "latency": {
            "samples": [round(seconds, 6) for seconds in samples],
            "last": metrics.last_latency,
            "p50": metrics.latency_p50,
            "p95": metrics.latency_p95,
            "p99": metrics.latency_p99,
        },
        "outbox": {
            "waiting": metrics.messages_waiting,
            "in_flight": metrics.messages_in_flight,
            "oldest_age": metrics.outbox_oldest_age,
            "bytes": metrics.outbox_bytes,
            "is_durable": bool(realtime.config.outbox_path),
        },
        "counts": {
            "accepted": metrics.messages_accepted,
            "delivered": metrics.messages_delivered,
            "undelivered": _undelivered(metrics.messages_by_outcome),
            "received": metrics.events_received,
            "connections": metrics.total_connections,
            "losses": metrics.losses,
        },
        "failures": failures(realtime.connection_status.attempts),
        "outages": outages(realtime.connection_status.history),
        "may": may(realtime, last),
    }


def words(realtime: RealtimeService) -> dict[str, str]:
    """Return the state in sentences, which change with the state and not with the clock."""
    told = narrate(_Seen(realtime.status), realtime.connection_status.last, realtime.config)
    return {"says": redacted(told.headline), "next": told.next, "advice": redacted(told.advice)}


def change_json(change: StatusChange) -> _Json:
    """Return a change of the status as JSON."""
    return {
        "epoch": change.epoch,
        "at": change.at,
        "previous": change.previous.value,
        "current": change.current.value,
        "trigger": change.trigger.value,
        "reason": redacted(change.reason),
        "attempt": change.attempt,
        "retry_in": change.retry_in,
        "cause": _error_json(change.error),
    }


def cause(change: StatusChange | None) -> _Json | None:
    """Return why the present state is no good one, where a failure led to it."""
    return None if change is None else _error_json(change.error)


def is_forced(change: StatusChange | None) -> bool:
    """Tell whether somebody forced the fallback that the client is in."""
    return change is not None and change.trigger is Trigger.FORCE_FALLBACK


def may(realtime: RealtimeService, last: StatusChange | None) -> dict[str, bool]:
    """Return what can be asked for in the present state, by the name of the action."""
    status, forced = realtime.status, is_forced(last)
    legal = legal_triggers(status)
    active = Trigger.DISCONNECT in legal
    return {
        "retry": TRAITS[status].wakes and not forced,
        "fallback": realtime.config.can_poll and Trigger.FORCE_FALLBACK in legal and not forced,
        "release": forced and Trigger.RELEASE_FALLBACK in legal,
        "pause": active,
        "resume": not active,
    }


def failures(attempts: Iterable[AttemptRecord]) -> _Json:
    """Return how many of the remembered attempts failed, and why."""
    made = 0
    causes: dict[str, int] = {}
    for attempt in attempts:
        made += 1
        if attempt.error is not None:
            name = type(attempt.error).__name__
            causes[name] = causes.get(name, 0) + 1
    failed = sum(causes.values())
    return {"attempts": made, "failed": failed, "rate": failed / made if made else None, "causes": causes}


def outages(history: Iterable[StatusChange]) -> list[_Json]:
    """Return the times without a connection that nobody wanted, the oldest first.

    One begins with a failure that ends a connection, or that keeps the first one from being made. It ends
    when a connection is live, or is not wanted any more; ``ended_at`` of one that lasts is ``None``. Data
    came by polling from ``polled_from``, where it did.
    """
    found: list[_Json] = []
    open_one: _Json | None = None
    for change in history:
        if open_one is None and change.error is not None and not TRAITS[change.current].sends:
            reason = redacted(change.reason)
            open_one = {"began_at": change.at, "ended_at": None, "polled_from": None, "reason": reason}
            found.append(open_one)
        elif open_one is not None and (change.is_connected or change.is_goodbye):
            open_one["ended_at"] = change.at
            open_one = None
        if open_one is not None:
            carries = TRAITS[change.current].carries_data
            open_one["polled_from"] = (open_one["polled_from"] or change.at) if carries else None
    return found


def looks_like(one: _Json, other: _Json) -> bool:
    """Tell whether two views look the same, but for what passes by itself, which the page counts on."""
    return _lasting(one) == _lasting(other) and _same_instant(_due_at(one), _due_at(other))


def _lasting(told: _Json) -> _Json:
    kept = {name: value for name, value in told.items() if name not in FLEETING}
    kept["outbox"] = {name: value for name, value in told["outbox"].items() if name not in FLEETING}
    return kept


def _due_at(told: _Json) -> float | None:
    left = told["next_attempt_in"]
    return None if left is None else float(told["at"] + left)


def _same_instant(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return abs(one - other) < _PRECISION


def changes_after(history: Sequence[StatusChange], epoch: int) -> list[StatusChange] | None:
    """Return the changes after an epoch; ``None`` where the history does not reach back so far."""
    if not history or history[-1].epoch < epoch or history[0].epoch > epoch + 1:
        return [] if not history and epoch == 0 else None
    return [change for change in history if change.epoch > epoch]


def _undelivered(outcomes: Mapping[str, int]) -> dict[str, int]:
    """Return how many messages came to an end that is no delivery, by what became of them."""
    return {
        outcome.value: n
        for outcome in Outcome
        if not outcome.is_delivered and (n := outcomes.get(outcome.value))
    }


def _attempt(realtime: RealtimeService) -> _Json | None:
    """Return which attempt is under way or comes next, and of how many; ``None`` where none is.

    The first dial of a person's is one more than the reconnection attempts that are configured: the number of
    the last attempt may exceed them, and ``most`` is ``None`` then, and where any number of them is made.
    """
    last, traits = realtime.connection_status.last, TRAITS[realtime.status]
    if last is None or traits.carries_data or not traits.online:
        return None
    most = realtime.config.max_reconnect_attempts
    return {"number": last.attempt, "most": None if most is None or last.attempt > most else most}


def _error_json(error: RealtimeError | None) -> _Json | None:
    if error is None:
        return None
    return {
        "kind": type(error).__name__,
        "message": redacted(error.message),
        "remedy": redacted(error.remedy or ""),
    }


def _origin(url: str) -> str:
    """Return where a server is, without whatever else its address may hold."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}" + (f":{parts.port}" if parts.port else "")
