"""The state in sentences for people: what is so, what happens next, what they can do."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Protocol

from attrs import frozen

from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.machine.figures import duration
from realtime_fsm.machine.record import StatusChange
from realtime_fsm.machine.redaction import redacted
from realtime_fsm.machine.table import TRAITS, ConnectionStatus, Trigger


class Observable(Protocol):
    """The part of a client that is told of; its metrics will do."""

    @property
    def status(self) -> ConnectionStatus:
        """The present state of the connection."""

    @property
    def messages_waiting(self) -> int:
        """Messages in the outbox."""


@frozen(kw_only=True)
class Narration:
    """A state in sentences. None holds a secret; each can be shown to whoever uses the application.

    Attributes:
        headline: What is so, and why.
        next: What happens next by itself.
        advice: What a person can do about it; empty where there is nothing to be done.
    """

    headline: str
    next: str
    advice: str = ""


@frozen
class _Words:
    """The sentences of a state; ``{...}`` is filled in."""

    headline: str
    next: str
    advice: str = ""


_S: Final = ConnectionStatus

_WORDS: Final[Mapping[ConnectionStatus, _Words]] = MappingProxyType(
    {
        _S.DISCONNECTED: _Words(
            "Not connected.",
            "Nothing is being tried until somebody connects.",
            "Connect to receive data.",
        ),
        _S.CONNECTING: _Words(
            "Connecting{attempt}.",
            "It takes {timeout} at most; then it is connected, or tries again.",
        ),
        _S.CONNECTED: _Words(
            "Connected.",
            "Data arrives as it happens.",
        ),
        _S.RECONNECTING: _Words(
            "The connection is down{cause}.",
            "Attempt{attempt_of} follows{soon}.",
            "Wait, or retry now.",
        ),
        _S.FAILED: _Words(
            "No connection{cause}.",
            "Nothing is tried any more by itself.",
            "{remedy}",
        ),
        _S.FALLBACK: _Words(
            "The live connection is down{cause}. Data comes by polling, and is somewhat late.",
            "The live connection is looked for every {probe}, and taken as soon as it is back.",
            "Nothing need be done; retry now to look for it at once.",
        ),
    }
)

_FORCED: Final = _Words(
    "The live connection is switched off by hand. Data comes by polling, and is somewhat late.",
    "It stays so until somebody releases it.",
    "Release the fallback to go back to the live connection.",
)
_NO_REMEDY: Final = "Mend the cause, then retry."


def narrate(
    seen: Observable,
    last: StatusChange | None,
    config: RealtimeConfig,
    *,
    next_attempt_in: float | None = None,
) -> Narration:
    """Return a state in sentences.

    Args:
        seen: The client's metrics.
        last: The last change; ``None`` where there was none.
        config: The client's configuration.
        next_attempt_in: Seconds until the next attempt, where it waits for one.
    """
    words = _WORDS[seen.status]
    if TRAITS[seen.status].publishes and last is not None and last.trigger is Trigger.FORCE_FALLBACK:
        words = _FORCED
    filled = {
        "attempt": _attempt(last, config, before=" (attempt ", after=")"),
        "attempt_of": _attempt(last, config, before=" ", after=""),
        "cause": _cause(last),
        "soon": "" if next_attempt_in is None else f" {_in(next_attempt_in)}",
        "timeout": duration(config.connection_timeout),
        "probe": duration(config.reconnect_interval),
        "remedy": _remedy(last),
    }
    return Narration(
        headline=words.headline.format_map(filled),
        next=words.next.format_map(filled) + _waiting(seen),
        advice=words.advice.format_map(filled),
    )


def _attempt(last: StatusChange | None, config: RealtimeConfig, *, before: str, after: str) -> str:
    if last is None or last.attempt < 1:
        return ""
    most = config.max_reconnect_attempts
    told = f"{last.attempt}" if most is None or last.attempt > most else f"{last.attempt} of {most}"
    return f"{before}{told}{after}"


def _cause(last: StatusChange | None) -> str:
    """Return why, as the rest of a sentence that ends with a full stop of its own."""
    if last is None or last.error is None:
        return ""
    said = redacted(last.error.message).strip().rstrip(".")
    if said[1:2].islower():  # a sentence of its own there, the rest of one here; not an acronym
        said = said[0].lower() + said[1:]
    return f": {said}" if said else ""


def _remedy(last: StatusChange | None) -> str:
    if last is None or last.error is None or not last.error.remedy:
        return _NO_REMEDY
    return redacted(last.error.remedy)


def _waiting(seen: Observable) -> str:
    """Return what becomes of the messages, where some wait and cannot leave over the socket."""
    count = seen.messages_waiting
    if not count or TRAITS[seen.status].sends:
        return ""
    noun, are = ("message is", "it") if count == 1 else (f"{count:,} messages are", "they")
    return f" {'1 ' if count == 1 else ''}{noun} kept; {are} will be delivered."


def _in(seconds: float) -> str:
    return "at once" if seconds < 1 else f"in {duration(round(seconds))}"
