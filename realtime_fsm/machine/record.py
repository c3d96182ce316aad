"""The records that observers are given: frozen, keyword-only."""

from attrs import field, frozen

from realtime_fsm.machine.errors import RealtimeError
from realtime_fsm.machine.table import TRAITS, ConnectionStatus, Trigger


@frozen(kw_only=True)
class StatusChange:
    """One transition, as every observer sees it, in order and with none skipped.

    ``previous`` of a change is always ``current`` of the one before it.

    Attributes:
        previous: The state that was left.
        current: The state that was entered; equal to ``previous`` where FALLBACK was entered anew.
        trigger: What moved the machine.
        reason: Why, in words for people. Never holds a secret.
        error: The cause, where the trigger reports a failure.
        attempt: The connection attempt under way or about to be made; 1-based, 0 where none is.
        retry_in: Seconds until the next attempt, where the state waits for one; otherwise ``None``.
        at: Wall-clock time of the change, seconds since the Unix epoch.
        epoch: Number of the entry into ``current``; strictly increasing.
    """

    previous: ConnectionStatus
    current: ConnectionStatus
    trigger: Trigger
    reason: str
    error: RealtimeError | None = None
    attempt: int = 0
    retry_in: float | None = None
    at: float = 0.0
    epoch: int = 0

    @property
    def is_connected(self) -> bool:
        """True if this change made the connection live."""
        return TRAITS[self.current].sends and not TRAITS[self.previous].sends

    @property
    def is_lost(self) -> bool:
        """True if this change ended a live connection. Comes strictly in turn with ``is_connected``."""
        return TRAITS[self.previous].sends and not TRAITS[self.current].sends

    @property
    def is_goodbye(self) -> bool:
        """True if somebody wanted it to end."""
        return self.trigger is Trigger.DISCONNECT


@frozen(kw_only=True)
class AttemptRecord:
    """The end of one dial, good or bad.

    Attributes:
        number: Which attempt of its episode; 1-based.
        duration: Seconds from the start of the dial to its end.
        error: Why it failed, or ``None`` when it succeeded.
        at: Wall-clock time of its end, seconds since the Unix epoch.
    """

    number: int
    duration: float
    error: RealtimeError | None = field(default=None)
    at: float = 0.0

    @property
    def succeeded(self) -> bool:
        """True if the dial ended in a live connection."""
        return self.error is None
