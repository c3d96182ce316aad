"""The guards of the table: pure functions of what is known when a trigger fires."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from attrs import frozen

from realtime_fsm.machine.errors import ErrorCategory, RealtimeError
from realtime_fsm.machine.table import Guard


@frozen(kw_only=True)
class Facts:
    """All that a guard may look at.

    Attributes:
        reconnects: Reconnection attempts made since the episode began, ``>= 0``. An episode begins with
            ``connect()`` or with the loss of a stable connection.
        initial: Whether the episode began with ``connect()`` and has not been connected since.
        max_reconnect_attempts: How many reconnection attempts are allowed, ``>= 0``; ``None`` for any number.
        retry_initial: Whether a failed first connect is retried like any other.
        fallback_available: Whether falling back is enabled and there is something to poll.
        forced: Whether the fallback is being forced by the user.
        error: Why the trigger fired, where it reports a failure.
        outage: Seconds for which no data could come since the episode began, ``>= 0``.
        fallback_after: Seconds of outage after which a fallback that there is takes over, ``>= 0``; ``None``
            where the attempts alone decide.
    """

    reconnects: int = 0
    initial: bool = False
    max_reconnect_attempts: int | None = 10
    retry_initial: bool = True
    fallback_available: bool = False
    forced: bool = False
    error: RealtimeError | None = None
    outage: float = 0.0
    fallback_after: float | None = None

    @property
    def is_out_of_attempts(self) -> bool:
        """True once all reconnection attempts that are allowed have been made."""
        return self.max_reconnect_attempts is not None and self.reconnects >= self.max_reconnect_attempts

    @property
    def is_fallback_due(self) -> bool:
        """True once an outage has lasted for so long that a fallback takes over, or will before a retry."""
        if not self.fallback_available or self.fallback_after is None:
            return False
        asked = 0.0 if self.error is None or self.error.retry_after is None else self.error.retry_after
        return self.outage >= self.fallback_after or self.outage + asked > self.fallback_after

    def __str__(self) -> str:
        most = "any" if self.max_reconnect_attempts is None else self.max_reconnect_attempts
        said = [f"{self.reconnects} of {most} reconnects made"]
        said += [f"down for {self.outage:.1f} s"] * (self.outage > 0)
        said += ["forced"] * self.forced
        if self.error is not None:
            said.append(f"{type(self.error).__name__}, {'' if self.error.retryable else 'not '}retryable")
        return ", ".join(said)


def may_retry(facts: Facts) -> bool:
    """Tell whether another attempt is allowed, and could help, and nobody waits for polling instead."""
    if facts.error is not None and not facts.error.retryable:
        return False
    if facts.initial and not facts.retry_initial:
        return False
    return not facts.is_out_of_attempts and not facts.is_fallback_due


def may_fall_back(facts: Facts) -> bool:
    """Tell whether polling may take over: not for a refused identity, which HTTP would refuse as well."""
    refused = facts.error is not None and facts.error.category is ErrorCategory.AUTHENTICATION
    return facts.fallback_available and not refused


def may_probe(facts: Facts) -> bool:
    """Tell whether FALLBACK looks for the socket: not while it is forced, or it would end at once."""
    return not facts.forced


GUARDS: Final[Mapping[Guard, Callable[[Facts], bool]]] = MappingProxyType(
    {
        Guard.MAY_RETRY: may_retry,
        Guard.MAY_FALL_BACK: may_fall_back,
        Guard.MAY_PROBE: may_probe,
    }
)
