"""When the next attempt is made, and which one it is: three pure formulas, and the counters around them."""

import math
from collections.abc import Callable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Protocol

from attrs import Factory, define, field, frozen

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

_EARLIEST_FALLBACK: Final = 0.05
"""The attempt that decides on the fallback comes by at least this fraction of ``fallback_after`` after it, so
that the outage has lasted for long enough then, whatever a clock rounds."""

SPREAD: Final = 0.2
"""A pause that others begin at the same time is stretched by up to this fraction, or all come back at once.
Never shortened: what a server asked for would be broken by those who come early."""


@define(kw_only=True, eq=False)
class RetryAfter:
    """The times that a server asked to be left alone: the floor under every pause, whatever it is for.

    Attributes:
        random: Source of the jitter, which goes upwards only.
        most: Seconds; no server is granted more, or one bad header would park a client for years.
        until: When the last one is over, on the loop's clock.
    """

    random: RandomSource
    most: float
    until: float = field(default=-math.inf, init=False)

    def heed(self, error: RealtimeError | None, now: float) -> bool:
        """Note what an error asks for; return whether more was asked for than is granted."""
        asked = 0.0 if error is None or error.retry_after is None else error.retry_after
        if not asked > 0.0:  # no number at all, neither
            return False
        granted = min(asked, self.most) * self.random.uniform(1.0, 1.0 + SPREAD)
        self.until = max(self.until, now + granted)
        return asked > self.most

    def forget(self) -> None:
        """Note that the server does not want to be left alone any more."""
        self.until = -math.inf

    def left(self, now: float) -> float:
        """Return the seconds for which the server is still to be left alone."""
        return max(0.0, self.until - now)


@define(kw_only=True, eq=False)
class Pacer:
    """Says when something is tried again that failed: a probe, a poll, a publication.

    ``min(base * 2 ** failures, maximum)``, stretched by up to a fifth, and never before a ``Retry-After`` is
    over. Where trying again cannot help, as with a refused identity, the cap is ``longest``: nobody is to be
    asked for ever at a pace that was meant for an outage.

    Attributes:
        floor: What the server asked for.
        base: Seconds, before anything has failed.
        maximum: Its cap while trying again may help.
        longest: Its cap while it cannot, until a person or the server changes something.
        failures: In a row, of the same kind.
    """

    floor: RetryAfter
    base: float
    maximum: float
    longest: float
    failures: int = field(default=0, init=False)
    _may_help: bool = field(default=True, init=False)

    def succeeded(self) -> None:
        """Begin anew."""
        self.failures, self._may_help = 0, True

    def failed(self, error: RealtimeError, now: float) -> bool:
        """Count a failure; return whether its ``Retry-After`` asked for more than is granted."""
        if (
            error.retryable is not self._may_help
        ):  # an outage of an hour says nothing about the refusal after it
            self.failures, self._may_help = 0, error.retryable
        self.failures += 1
        return self.floor.heed(error, now)

    def pause(self, now: float) -> float:
        """Return the seconds in which nothing may be asked, from now on; drawn anew at each call."""
        maximum = self.maximum if self._may_help else max(self.maximum, self.longest)
        raised = min(self.base * 2.0 ** min(self.failures, _MAX_EXPONENT), max(self.base, maximum))
        return max(raised * self.floor.random.uniform(1.0, 1.0 + SPREAD), self.floor.left(now))


@define(kw_only=True, eq=False)
class Pace:
    """Keeps the episode and the backoff together: they begin anew at the same moments.

    Attributes:
        backoff: Gives the waits.
        stable_after: Seconds that a connection must have lasted for its loss to begin a new episode.
        first_retry_within: Seconds within which the first dial after such a loss is made.
        fallback_after: Seconds of outage after which a fallback takes over; ``None`` where none does.
        floor: What the server asked of those who dial, shared by all who do.
        episode: Counts the attempts.
    """

    backoff: ExponentialBackoff
    stable_after: float
    first_retry_within: float
    fallback_after: float | None = None
    floor: RetryAfter = field(
        default=Factory(lambda self: RetryAfter(random=self.backoff.random, most=math.inf), takes_self=True)
    )
    episode: Episode = field(factory=Episode)
    _down_before: float = field(
        default=0.0, init=False
    )  # of this episode, up to the last time it carried data
    _down_since: float | None = field(default=None, init=False)

    def note(self, trigger: Trigger, traits: Traits, *, connected_for: float | None, now: float) -> None:
        """Count what a trigger means for the attempts and the outage, before it is fired.

        An episode begins with a connect, a manual retry, or the loss of a connection that was stable.

        Args:
            trigger: The trigger.
            traits: Of the state in which it is fired.
            connected_for: Seconds that the present connection has lasted; ``None`` where there is none.
            now: On the loop's clock.
        """
        stable = connected_for is not None and connected_for >= self.stable_after
        revived = trigger is Trigger.RETRY and not traits.online
        if trigger is Trigger.CONNECT or stable or revived:
            self.episode.begin(by_connect=trigger is Trigger.CONNECT, by_retry=revived)
            self.backoff.reset()
            self._down_before, self._down_since = 0.0, now
        if trigger in {Trigger.CONNECT, Trigger.RETRY}:
            self.episode.dialled()
        if traits.carries_data:  # it is about to be left
            self._down_since = now

    def entered(self, traits: Traits, now: float) -> None:
        """Note that a state was entered: data may come now, and who was let in has waited for long enough."""
        if traits.sends:
            self.floor.forget()
        if traits.carries_data and self._down_since is not None:
            self._down_before += now - self._down_since
            self._down_since = None

    def outage(self, now: float) -> float:
        """Return the seconds of this episode for which no data could come."""
        return self._down_before + (0.0 if self._down_since is None else now - self._down_since)

    def attempt(self, dest: ConnectionStatus) -> int:
        """Return the number of the attempt under way, or of the next one where the state waits for it."""
        return self.episode.next_attempt if TRAITS[dest].waits else self.episode.dials

    def delay(self, now: float) -> float:
        """Return how long to wait before the next attempt, and count it.

        After the loss of a stable connection a short time at random; otherwise the backoff, but for no longer
        than the fallback is waited for: an attempt decides then. Never less than the server's
        ``Retry-After``.

        Args:
            now: On the loop's clock.
        """
        uniform = self.backoff.random.uniform
        if self.episode.dials == 0:
            delay = uniform(self.first_retry_within * _EARLIEST_RETRY, self.first_retry_within)
        else:
            delay = self.backoff.next_delay()
            self.backoff.increment()
        if self.fallback_after is not None:
            left = self.fallback_after - self.outage(now)
            delay = min(delay, left + self.fallback_after * uniform(_EARLIEST_FALLBACK, SPREAD))
        return max(delay, self.floor.left(now))
