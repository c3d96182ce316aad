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
        max_reconnect_attempts: How many reconnection attempts are allowed, ``>= 0``.
        retry_initial: Whether a failed first connect is retried like any other.
        fallback_available: Whether falling back is enabled and there is something to poll.
        forced: Whether the fallback is being forced by the user.
        error: Why the trigger fired, where it reports a failure.
    """

    reconnects: int = 0
    initial: bool = False
    max_reconnect_attempts: int = 10
    retry_initial: bool = True
    fallback_available: bool = False
    forced: bool = False
    error: RealtimeError | None = None

    def __str__(self) -> str:
        said = [f"{self.reconnects} of {self.max_reconnect_attempts} reconnects made"]
        said += ["forced"] * self.forced
        if self.error is not None:
            said.append(f"{type(self.error).__name__}, {'' if self.error.retryable else 'not '}retryable")
        return ", ".join(said)


def may_retry(facts: Facts) -> bool:
    """Tell whether another attempt is allowed, and could help."""
    if facts.error is not None and not facts.error.retryable:
        return False
    if facts.initial and not facts.retry_initial:
        return False
    return facts.reconnects < facts.max_reconnect_attempts


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
