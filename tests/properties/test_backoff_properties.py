import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime_fsm.machine.backoff import (
    FLOOR,
    FORMULAS,
    JITTER,
    BackoffLimits,
    ExponentialBackoff,
    Jitter,
    decorrelated,
    exponential,
    full,
)


@st.composite
def all_limits(draw: st.DrawFn) -> BackoffLimits:
    """Draw every base and maximum that a configuration can hold."""
    base = draw(st.floats(0.001, 1e6))
    return BackoffLimits(base=base, maximum=draw(st.floats(base, 1e9)), jitter=draw(st.booleans()))


LIMITS = all_limits()
ATTEMPTS = st.integers(0, 100) | st.integers(0, 10**6) | st.just(10**6)
PREVIOUS = st.floats(0.0, 1e9)
RANDOMS = st.randoms(use_true_random=False)


@given(LIMITS, ATTEMPTS, PREVIOUS, RANDOMS)
def test_exponential_stays_in_its_bounds(
    limits: BackoffLimits, attempt: int, previous: float, random: Random
) -> None:
    """The delay is in [base, maximum], and at most one second of jitter more."""
    delay = exponential(limits, attempt, previous, random)
    assert limits.base <= delay <= limits.maximum + (JITTER if limits.jitter else 0.0)


@given(LIMITS, st.integers(0, 60), RANDOMS)
def test_exponential_follows_the_formula(limits: BackoffLimits, attempt: int, random: Random) -> None:
    """The delay is `min(base * 2 ** attempt, maximum)` plus a draw from [0, 1 s] where jitter is on."""
    plain = min(limits.base * 2**attempt, limits.maximum)
    delay = exponential(limits, attempt, 0.0, random)
    if limits.jitter:
        assert plain <= delay <= plain + JITTER
    else:
        assert delay == plain


@given(LIMITS, ATTEMPTS, RANDOMS)
def test_exponential_never_shrinks_as_attempts_grow(
    limits: BackoffLimits, attempt: int, random: Random
) -> None:
    """Without jitter a later attempt never waits less."""
    plain = BackoffLimits(base=limits.base, maximum=limits.maximum, jitter=False)
    assert exponential(plain, attempt, 0.0, random) <= exponential(plain, attempt + 1, 0.0, random)


@given(LIMITS, ATTEMPTS, PREVIOUS, RANDOMS)
def test_full_stays_in_its_bounds(
    limits: BackoffLimits, attempt: int, previous: float, random: Random
) -> None:
    """The delay is never below the floor, nor above what the attempt allows."""
    delay = full(limits, attempt, previous, random)
    floor = min(FLOOR, limits.maximum)
    assert floor <= delay <= limits.maximum
    assert delay <= max(floor, limits.base * 2.0 ** min(attempt, 62))


@given(LIMITS, ATTEMPTS, PREVIOUS, RANDOMS)
def test_decorrelated_stays_in_its_bounds(
    limits: BackoffLimits, attempt: int, previous: float, random: Random
) -> None:
    """The delay is in [base, maximum], and at most three times the one before."""
    delay = decorrelated(limits, attempt, previous, random)
    assert limits.base <= delay <= limits.maximum
    assert delay <= 3.0 * max(previous, limits.base) * (1 + 1e-12)


@pytest.mark.parametrize("strategy", Jitter)
@given(limits=LIMITS, seed=st.integers(), steps=st.lists(st.sampled_from("nir"), max_size=60))
def test_backoff_counts_and_stays_finite(
    strategy: Jitter, limits: BackoffLimits, seed: int, steps: list[str]
) -> None:
    """Whatever is asked in whatever order, the count is right and every delay positive and finite."""
    random = Random(seed)  # noqa: S311 - jitter is no secret
    backoff = ExponentialBackoff(random=random, limits=limits, strategy=strategy)
    attempt = 0
    for step in steps:
        if step == "n":
            delay = backoff.next_delay()
            assert math.isfinite(delay)
            assert 0 < delay <= limits.maximum + JITTER
        elif step == "i":
            backoff.increment()
            attempt += 1
        else:
            backoff.reset()
            attempt = 0
        assert backoff.attempt == attempt


@pytest.mark.parametrize("strategy", Jitter)
@given(limits=LIMITS, seed=st.integers(), failures=st.integers(0, 20))
def test_backoff_reset_makes_it_as_new(
    strategy: Jitter, limits: BackoffLimits, seed: int, failures: int
) -> None:
    """After `reset` it waits exactly as one that has never failed."""
    used = ExponentialBackoff(random=Random(0), limits=limits, strategy=strategy)  # noqa: S311 - as above
    for _ in range(failures):
        used.next_delay()
        used.increment()
    used.reset()
    used.random = Random(seed)  # noqa: S311 - as above
    fresh = ExponentialBackoff(random=Random(seed), limits=limits, strategy=strategy)  # noqa: S311 - as above
    assert used.next_delay() == fresh.next_delay()


@pytest.mark.parametrize("formula", FORMULAS.values(), ids=FORMULAS)
def test_backoff_formula_never_overflows(formula: object) -> None:
    """A million failures, or more than any counter holds, give a delay like any other."""
    for attempt in (10**6, 10**30):
        delay = formula(BackoffLimits(), attempt, 30.0, Random(1))  # type: ignore[operator]  # noqa: S311
        assert 0.25 <= delay <= 31.0
