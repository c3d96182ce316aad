from random import Random

import attrs
import pytest
from attrs import define, field

from realtime_fsm.machine.backoff import (
    FLOOR,
    FORMULAS,
    JITTER,
    BackoffLimits,
    ExponentialBackoff,
    Jitter,
    Pace,
    Pacer,
    RetryAfter,
    decorrelated,
    exponential,
    full,
)
from realtime_fsm.machine.errors import AuthenticationError, ServerUnavailableError, TransportError
from realtime_fsm.machine.table import TRAITS, ConnectionStatus, Trigger

LIMITS = BackoffLimits()
PLAIN = BackoffLimits(jitter=False)


@define
class ScriptedRandom:
    """Draws the given fraction of each range, and remembers the ranges."""

    fraction: float
    ranges: list[tuple[float, float]] = field(factory=list)

    def uniform(self, a: float, b: float, /) -> float:
        """Return the point at the fraction of the way."""
        self.ranges.append((a, b))
        return a + (b - a) * self.fraction


def test_backoff_defaults_are_those_of_the_specification() -> None:
    """Base 1 s, maximum 30 s, jitter on, exponential."""
    assert BackoffLimits(base=1.0, maximum=30.0, jitter=True) == LIMITS
    assert ExponentialBackoff(random=ScriptedRandom(0.5)).strategy is Jitter.EXPONENTIAL
    assert JITTER == 1.0


@pytest.mark.parametrize(
    ("attempt", "seconds"),
    [(0, 1.0), (1, 2.0), (2, 4.0), (3, 8.0), (4, 16.0), (5, 30.0), (6, 30.0), (10**6, 30.0)],
)
def test_exponential_without_jitter_is_exact(attempt: int, seconds: float) -> None:
    """Without jitter the delay is `min(base * 2 ** attempt, maximum)`, and nothing is drawn."""
    random = ScriptedRandom(0.5)
    assert exponential(PLAIN, attempt, 0.0, random) == seconds
    assert random.ranges == []


def test_exponential_draws_its_jitter_as_wide_as_the_limits_say() -> None:
    """The width of the jitter is one of the limits, and the draw knows it from nothing else."""
    random = ScriptedRandom(0.5)
    assert exponential(BackoffLimits(spread=6.0), 0, 0.0, random) == 4.0
    assert random.ranges == [(0.0, 6.0)]


@pytest.mark.parametrize("attempt", [0, 1, 4, 5, 10**6])
def test_exponential_adds_up_to_one_second_past_the_cap(attempt: int) -> None:
    """Jitter adds a draw from [0, 1 s], after the cap."""
    plain = exponential(PLAIN, attempt, 0.0, ScriptedRandom(0.5))
    for fraction in (0.0, 0.25, 1.0):
        random = ScriptedRandom(fraction)
        assert exponential(LIMITS, attempt, 0.0, random) == plain + fraction
        assert random.ranges == [(0.0, 1.0)]


@pytest.mark.parametrize(("attempt", "cap"), [(0, 1.0), (3, 8.0), (5, 30.0), (10**6, 30.0)])
def test_full_draws_from_nothing_to_the_exponential_delay(attempt: int, cap: float) -> None:
    """Full jitter draws from [0, min(base * 2 ** attempt, maximum)], but not below its floor."""
    random = ScriptedRandom(1.0)
    assert full(LIMITS, attempt, 0.0, random) == cap
    assert random.ranges == [(0.0, cap)]
    assert full(LIMITS, attempt, 0.0, ScriptedRandom(0.0)) == FLOOR


def test_full_floor_yields_to_a_smaller_maximum() -> None:
    """Where the maximum is below the floor, the maximum wins."""
    limits = BackoffLimits(base=0.01, maximum=0.1)
    assert full(limits, 0, 0.0, ScriptedRandom(0.0)) == 0.1


@pytest.mark.parametrize(
    ("previous", "upper", "longest"),
    [(0.0, 3.0, 3.0), (1.0, 3.0, 3.0), (4.0, 12.0, 12.0), (30.0, 90.0, 30.0)],
)
def test_decorrelated_draws_up_to_three_times_the_delay_before(
    previous: float, upper: float, longest: float
) -> None:
    """Decorrelated jitter draws from [base, 3 * previous], capped; nothing before counts as the base."""
    random = ScriptedRandom(1.0)
    assert decorrelated(LIMITS, 7, previous, random) == longest
    assert random.ranges == [(1.0, upper)]
    assert decorrelated(LIMITS, 7, previous, ScriptedRandom(0.0)) == 1.0


def test_backoff_every_jitter_has_a_formula() -> None:
    """Every name that can be configured has its own formula."""
    assert set(FORMULAS) == set(Jitter)
    assert len(set(FORMULAS.values())) == len(Jitter)


def test_backoff_counts_failures_and_begins_anew() -> None:
    """`increment` doubles, `next_delay` counts nothing, `reset` goes back to the base."""
    backoff = ExponentialBackoff(random=ScriptedRandom(0.5), limits=PLAIN)
    assert [backoff.next_delay(), backoff.next_delay()] == [1.0, 1.0]
    backoff.increment()
    backoff.increment()
    assert (backoff.attempt, backoff.next_delay()) == (2, 4.0)
    backoff.reset()
    assert (backoff.attempt, backoff.next_delay()) == (0, 1.0)


def test_backoff_remembers_the_delay_before_until_reset() -> None:
    """Decorrelated delays grow from the one before, and `reset` forgets it."""
    backoff = ExponentialBackoff(random=ScriptedRandom(1.0), strategy=Jitter.DECORRELATED)
    assert [backoff.next_delay() for _ in range(4)] == [3.0, 9.0, 27.0, 30.0]
    backoff.reset()
    assert backoff.next_delay() == 3.0


def test_backoff_same_seed_gives_the_same_delays() -> None:
    """Randomness comes from the given source alone."""
    first, second = (
        ExponentialBackoff(random=Random(7))  # noqa: S311 - jitter is no secret
        for _ in range(2)
    )
    assert [first.next_delay() for _ in range(5)] == [second.next_delay() for _ in range(5)]


def test_exponential_clamps_its_exponent_at_62() -> None:
    """Up to 62 attempts double the delay, and no later one does, so that no float overflows."""
    limits = BackoffLimits(base=1.0, maximum=1e300, jitter=False)
    delays = [exponential(limits, attempt, 0.0, ScriptedRandom(0.0)) for attempt in (61, 62, 63, 10_000)]
    assert delays == [2.0**61, 2.0**62, 2.0**62, 2.0**62]


def test_backoff_records_take_names_only() -> None:
    """Base and maximum cannot be mixed up, nor can the counter be given a start."""
    with pytest.raises(TypeError):
        BackoffLimits(1.0, 30.0)  # type: ignore[misc]
    with pytest.raises(TypeError):
        ExponentialBackoff(ScriptedRandom(0.0))  # type: ignore[misc]
    for hidden in ("attempt", "previous"):
        with pytest.raises(TypeError):
            ExponentialBackoff(random=ScriptedRandom(0.0), **{hidden: 1})
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        BackoffLimits().base = 2.0  # type: ignore[misc]


DOWN = TransportError("Down.")
REFUSED = AuthenticationError("Who?")


def pacer(fraction: float = 0.0, *, most: float = 3600.0) -> Pacer:
    """Return a pacer of 5 s to 20 s, and to 100 s for what cannot help."""
    floor = RetryAfter(random=ScriptedRandom(fraction), most=most)
    return Pacer(floor=floor, base=5.0, maximum=20.0, longest=100.0)


def test_pacer_doubles_up_to_its_cap_and_begins_anew() -> None:
    """Failures double the pause up to the maximum, a success begins anew."""
    one = pacer()
    pauses = [one.pause(0.0)]
    for _ in range(4):
        one.failed(DOWN, 0.0)
        pauses.append(one.pause(0.0))
    assert pauses == [5.0, 10.0, 20.0, 20.0, 20.0]
    one.succeeded()
    assert one.pause(0.0) == 5.0


def test_pacer_goes_further_where_trying_again_cannot_help() -> None:
    """What is refused for good is asked up to `longest`, counted from the first refusal."""
    one = pacer()
    for _ in range(50):
        one.failed(DOWN, 0.0)
    pauses = []
    for _ in range(6):
        one.failed(REFUSED, 0.0)
        pauses.append(one.pause(0.0))
    assert pauses == [10.0, 20.0, 40.0, 80.0, 100.0, 100.0]
    one.failed(DOWN, 0.0)
    assert one.pause(0.0) == 10.0


@pytest.mark.parametrize("fraction", [0.0, 0.5, 1.0])
def test_pacer_jitter_goes_upwards_by_a_fifth_at_most(fraction: float) -> None:
    """No pause is shorter than the formula says, and none is longer by more than a fifth."""
    assert pacer(fraction).pause(0.0) == pytest.approx(5.0 * (1 + 0.2 * fraction))


@pytest.mark.parametrize(("asked", "granted", "is_capped"), [(50.0, 50.0, False), (1e12, 3600.0, True)])
def test_pacer_waits_for_what_a_server_asks_for(asked: float, granted: float, is_capped: bool) -> None:
    """A `Retry-After` is a floor, up to the most that is granted; what is left of it counts at each pause."""
    one = pacer()
    assert one.failed(ServerUnavailableError("503.", retry_after=asked), 1000.0) is is_capped
    assert one.pause(1000.0) == granted
    assert one.pause(1000.0 + granted - 30.0) == 30.0
    assert one.pause(1000.0 + granted) == 10.0
    assert not one.failed(DOWN, 1001.0)
    assert one.floor.left(1001.0) == granted - 1.0  # no other failure shortens it


def test_pace_cuts_a_pause_at_the_time_of_the_fallback() -> None:
    """An attempt that decides is made soon after the time of the fallback, not when the backoff would end."""
    backoff = ExponentialBackoff(random=ScriptedRandom(0.0), limits=BackoffLimits(base=60.0, maximum=60.0))
    pace = Pace(backoff=backoff, stable_after=10.0, first_retry_within=1.0, fallback_after=15.0)
    pace.note(Trigger.CONNECT, TRAITS[ConnectionStatus.DISCONNECTED], connected_for=None, now=100.0)
    assert pace.outage(104.0) == 4.0
    assert pace.delay(104.0) == pytest.approx(11.0 + 0.05 * 15.0)


def test_pace_counts_the_outage_over_connections_that_do_not_last() -> None:
    """Only a connection that lasted begins anew; while data comes there is no outage."""
    backoff = ExponentialBackoff(random=ScriptedRandom(0.0))
    pace = Pace(backoff=backoff, stable_after=10.0, first_retry_within=1.0, fallback_after=15.0)
    pace.note(Trigger.CONNECT, TRAITS[ConnectionStatus.DISCONNECTED], connected_for=None, now=0.0)
    connected = TRAITS[ConnectionStatus.CONNECTED]
    pace.entered(connected, 3.0)
    assert pace.outage(8.0) == 3.0
    pace.note(Trigger.CONNECTION_LOST, connected, connected_for=5.0, now=8.0)
    assert pace.outage(10.0) == 5.0
    pace.entered(connected, 10.0)
    pace.note(Trigger.CONNECTION_LOST, connected, connected_for=50.0, now=60.0)
    assert pace.outage(61.0) == 1.0
