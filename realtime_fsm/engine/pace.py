"""How many attempts have been made, and how long to wait before the next one."""

from typing import Final

from realtime_fsm.engine.component import Components
from realtime_fsm.machine.episode import Episode
from realtime_fsm.machine.errors import RealtimeError
from realtime_fsm.machine.table import TRAITS, ConnectionStatus, Traits, Trigger

_EARLIEST_RETRY: Final = 0.1
"""Least pause before the first reconnect, as a fraction of ``first_retry_within``: a server that is to
recover the session needs a moment to notice the loss and store it."""

_RETRY_AFTER_SPREAD: Final = 0.2
"""A server's ``Retry-After`` is stretched by up to this fraction, or all its clients come back at once."""


class Pace:
    """Keeps the episode and the backoff together: they begin anew at the same moments.

    Args:
        parts: The client's components.
    """

    def __init__(self, parts: Components) -> None:
        self._parts = parts
        self.episode = Episode()

    def note(self, trigger: Trigger, traits: Traits, *, connected_for: float | None) -> None:
        """Count what a trigger means for the attempts, before it is fired.

        An episode begins with a connect, a manual retry, or the loss of a connection that was stable.

        Args:
            trigger: The trigger.
            traits: Of the state in which it is fired.
            connected_for: Seconds that the present connection has lasted; ``None`` where there is none.
        """
        stable = connected_for is not None and connected_for >= self._parts.config.stable_after
        revived = trigger is Trigger.RETRY and not traits.online
        if trigger is Trigger.CONNECT or stable or revived:
            self.episode.begin(by_connect=trigger is Trigger.CONNECT, by_retry=revived)
            self._parts.backoff.reset()
        if trigger in {Trigger.CONNECT, Trigger.RETRY}:
            self.episode.dialled()

    def attempt(self, dest: ConnectionStatus) -> int:
        """Return the number of the attempt under way, or of the next one where the state waits for it."""
        return self.episode.next_attempt if TRAITS[dest].waits else self.episode.dials

    def delay(self, error: RealtimeError | None) -> float:
        """Return how long to wait before the next attempt, and count it.

        After the loss of a stable connection a short time at random; otherwise the backoff (SPEC B1); never
        less than the server's ``Retry-After``.
        """
        config, uniform = self._parts.config, self._parts.random.uniform
        if self.episode.dials == 0:
            delay = uniform(config.first_retry_within * _EARLIEST_RETRY, config.first_retry_within)
        else:
            delay = self._parts.backoff.next_delay()
            self._parts.backoff.increment()
        if error is not None and error.retry_after is not None:
            delay = max(delay, error.retry_after * uniform(1.0, 1.0 + _RETRY_AFTER_SPREAD))
        return delay
