"""When the next attempt is made, and which one it is: three pure formulas, and the counters around them."""

from collections.abc import Callable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Protocol

from attrs import define, field, frozen

from realtime_fsm.machine.errors import RealtimeError
from realtime_fsm.machine.table import TRAITS, ConnectionStatus, Traits, Trigger

JITTER: Final = 1.0
"""Seconds that the additive jitter of ``exponential`` adds at most, unless the limits say otherwise."""

FLOOR: Final = 0.25
"""Least delay of ``full`` jitter, seconds: without a floor some clients come back at once."""

_MAX_EXPONENT: Final = 62
"""Larger exponents are clamped: 2**62 seconds is past any maximum, and never overflows a float."""


class RandomSource(Protocol):
    """A source of randomness; ``random.Random`` is one."""

    def uniform(self, a: float, b: float, /) -> float:
        """Return a number drawn evenly from ``[a, b]``."""
        ...


class Jitter(StrEnum):
    """The formula that a backoff follows."""

    EXPONENTIAL = "exponential"
    FULL = "full"
    DECORRELATED = "decorrelated"


@frozen(kw_only=True)
class BackoffLimits:
    """The numbers that all formulas share.

    Attributes:
        base: Seconds, ``> 0``; the first delay, before jitter.
        maximum: Seconds, ``>= base``; the cap, before additive jitter.
        jitter: Whether ``exponential`` adds its jitter. The others are nothing without theirs.
        spread: Seconds, ``>= 0``; the most that this jitter adds.
    """

    base: float = 1.0
    maximum: float = 30.0
    jitter: bool = True
    spread: float = JITTER


def exponential(limits: BackoffLimits, attempt: int, previous: float, random: RandomSource) -> float:
    """Return ``min(base * 2 ** attempt, maximum)``, plus ``U(0, spread)`` where jitter is on.

    Args:
        limits: Base, maximum, whether to add jitter, and how much.
        attempt: Failed attempts so far; 0-based, ``>= 0``.
        previous: Not used by this formula.
        random: Source of the jitter.

    Returns:
        Seconds, in ``[base, maximum + spread]``. Large exponents are clamped, never overflow.

    Additive jitter keeps a herd of clients together at the cap: 10,000 clients need 187 s to come back, where
    the two below need 42 s. Prefer those for large fleets.
    """
    del previous
    return _raised(limits, attempt) + (random.uniform(0.0, limits.spread) if limits.jitter else 0.0)


def full(limits: BackoffLimits, attempt: int, previous: float, random: RandomSource) -> float:
    """Return ``U(0, min(base * 2 ** attempt, maximum))``, but at least the floor of 0.25 s.

    Args:
        limits: Base and maximum.
        attempt: Failed attempts so far; 0-based, ``>= 0``.
        previous: Not used by this formula.
        random: Source of the jitter.

    Returns:
        Seconds, in ``[min(0.25, maximum), maximum]``.

    Source:
        "Exponential Backoff And Jitter", AWS Architecture Blog.
    """
    del previous
    return max(min(FLOOR, limits.maximum), random.uniform(0.0, _raised(limits, attempt)))


def decorrelated(limits: BackoffLimits, attempt: int, previous: float, random: RandomSource) -> float:
    """Return ``min(maximum, U(base, 3 * previous))``.

    Args:
        limits: Base and maximum.
        attempt: Not used by this formula.
        previous: The delay before this one, seconds; ``0`` before the first, which counts as ``base``.
        random: Source of the jitter.

    Returns:
        Seconds, in ``[base, maximum]``.

    Source:
        "Exponential Backoff And Jitter", AWS Architecture Blog. The best of the three for a fleet.
    """
    del attempt
    return min(limits.maximum, random.uniform(limits.base, 3.0 * max(previous, limits.base)))


def _raised(limits: BackoffLimits, attempt: int) -> float:
    return min(limits.base * 2.0 ** min(attempt, _MAX_EXPONENT), limits.maximum)


Formula = Callable[[BackoffLimits, int, float, RandomSource], float]

FORMULAS: Final[Mapping[Jitter, Formula]] = MappingProxyType(
    {
        Jitter.EXPONENTIAL: exponential,
        Jitter.FULL: full,
        Jitter.DECORRELATED: decorrelated,
    }
)


@define(kw_only=True)
class ExponentialBackoff:
    """The counter around a formula.

    ``next_delay()`` asks, ``increment()`` counts a failure, ``reset()`` begins anew. The engine resets
    it only after the connection has been stable, or a flapping server would be dialled without pause.

    Attributes:
        random: Source of the jitter.
        limits: What the formula needs.
        strategy: Which formula.
        attempt: Failed attempts counted so far; 0-based.
    """

    random: RandomSource
    limits: BackoffLimits = field(factory=BackoffLimits)
    strategy: Jitter = Jitter.EXPONENTIAL
    attempt: int = field(default=0, init=False)
    _previous: float = field(default=0.0, init=False)

    def next_delay(self) -> float:
        """Return the seconds to wait now. Drawn anew at each call; counts nothing."""
        self._previous = FORMULAS[self.strategy](self.limits, self.attempt, self._previous, self.random)
        return self._previous

    def increment(self) -> None:
        """Count one failed attempt."""
        self.attempt += 1

    def reset(self) -> None:
        """Begin anew, as after a stable connection."""
        self.attempt = 0
        self._previous = 0.0


@define
class Episode:
    """The dials that have been made since the trouble began.

    Attributes:
        dials: Dials made in this episode.
        begun_by_hand: Whether the user began it, so that its first dial is not a reconnection attempt.
        initial: Whether it has not been connected since ``connect()``.
    """

    dials: int = 0
    begun_by_hand: bool = False
    initial: bool = False

    @property
    def reconnects(self) -> int:
        """Reconnection attempts made; the first dial of the user's is not one."""
        return max(0, self.dials - self.begun_by_hand)

    @property
    def next_attempt(self) -> int:
        """Number of the attempt that comes next; 1-based."""
        return self.dials + 1

    def begin(self, *, by_connect: bool = False, by_retry: bool = False) -> None:
        """Begin anew, by the user's connect or manual retry, or by itself."""
        self.dials = 0
        self.begun_by_hand = by_connect or by_retry
        self.initial = by_connect

    def dialled(self) -> None:
        """Count a dial."""
        self.dials += 1

    def connected(self) -> None:
        """Note a success. The count stays until the connection has proved stable."""
        self.initial = False


_EARLIEST_RETRY: Final = 0.1
"""Least pause before the first reconnect, as a fraction of ``first_retry_within``: a server that is to
recover the session needs a moment to notice the loss and store it."""

_RETRY_AFTER_SPREAD: Final = 0.2
"""A server's ``Retry-After`` is stretched by up to this fraction, or all its clients come back at once."""


@define(kw_only=True, eq=False)
class Pace:
    """Keeps the episode and the backoff together: they begin anew at the same moments.

    Attributes:
        backoff: Gives the waits.
        stable_after: Seconds that a connection must have lasted for its loss to begin a new episode.
        first_retry_within: Seconds within which the first dial after such a loss is made.
        episode: Counts the attempts.
    """

    backoff: ExponentialBackoff
    stable_after: float
    first_retry_within: float
    episode: Episode = field(factory=Episode)

    def note(self, trigger: Trigger, traits: Traits, *, connected_for: float | None) -> None:
        """Count what a trigger means for the attempts, before it is fired.

        An episode begins with a connect, a manual retry, or the loss of a connection that was stable.

        Args:
            trigger: The trigger.
            traits: Of the state in which it is fired.
            connected_for: Seconds that the present connection has lasted; ``None`` where there is none.
        """
        stable = connected_for is not None and connected_for >= self.stable_after
        revived = trigger is Trigger.RETRY and not traits.online
        if trigger is Trigger.CONNECT or stable or revived:
            self.episode.begin(by_connect=trigger is Trigger.CONNECT, by_retry=revived)
            self.backoff.reset()
        if trigger in {Trigger.CONNECT, Trigger.RETRY}:
            self.episode.dialled()

    def attempt(self, dest: ConnectionStatus) -> int:
        """Return the number of the attempt under way, or of the next one where the state waits for it."""
        return self.episode.next_attempt if TRAITS[dest].waits else self.episode.dials

    def delay(self, error: RealtimeError | None) -> float:
        """Return how long to wait before the next attempt, and count it.

        After the loss of a stable connection a short time at random; otherwise the backoff; never less than
        the server's ``Retry-After``.
        """
        uniform = self.backoff.random.uniform
        if self.episode.dials == 0:
            delay = uniform(self.first_retry_within * _EARLIEST_RETRY, self.first_retry_within)
        else:
            delay = self.backoff.next_delay()
            self.backoff.increment()
        if error is not None and error.retry_after is not None:
            delay = max(delay, error.retry_after * uniform(1.0, 1.0 + _RETRY_AFTER_SPREAD))
        return delay
