"""The token provider: one fetch at a time, shared, early and spread out (SPEC A3)."""

import asyncio
import base64
import itertools
import json
import random
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from world import World

from realtime_fsm import AuthenticationError, ConnectionStatus, Dialect, Token, TokenSourceError
from realtime_fsm.engine.flight_recorder import FlightRecorder
from realtime_fsm.engine.statistics import Statistics
from realtime_fsm.engine.token import TokenProvider, jwt_expiry
from realtime_fsm.testing.virtual_loop import wall_clock

S = ConnectionStatus


class SlowSource:
    """A source whose fetches take time, counted; each gives another token."""

    def __init__(self, *, takes: float = 5.0, life: float | None = None) -> None:
        self.takes = takes
        self.life = life
        self.fetches = 0
        self.wall = wall_clock()

    async def __call__(self) -> Token:
        """Give the next token."""
        self.fetches += 1
        number = self.fetches
        await asyncio.sleep(self.takes)
        return Token(value=f"t{number}", expires_at=None if self.life is None else self.wall() + self.life)


def provider(source: Any, *, seed: int = 0, timeout: float = 10.0) -> TokenProvider:
    """Return a provider in virtual time."""
    secrets: deque[str] = deque()
    return TokenProvider(
        source,
        statistics=Statistics(),
        recorder=FlightRecorder(wall_clock(), secrets),
        wall=wall_clock(),
        random=random.Random(seed),  # noqa: S311 - jitter, and the same in every run
        timeout=timeout,
        secrets=secrets,
    )


async def test_token_fetch_is_shared_by_all_who_wait() -> None:
    """However many want a token at the same time, the source is asked once, and all get the same."""
    source = SlowSource()
    tokens = provider(source)
    given = await asyncio.gather(*(tokens.refresh() for _ in range(10)), tokens.current())
    assert {token.value for token in given if token} == {"t1"}
    assert source.fetches == 1


async def test_token_fetch_survives_the_cancelling_of_who_asked_first() -> None:
    """Cancelling one who waits leaves the fetch to the others, also if it was he who began it."""
    source = SlowSource()
    tokens = provider(source)
    first = asyncio.create_task(tokens.refresh())
    await asyncio.sleep(1)
    second = asyncio.create_task(tokens.refresh())
    await asyncio.sleep(1)
    first.cancel()
    token = await second
    assert token is not None
    assert token.value == "t1"
    assert source.fetches == 1


async def test_token_fetch_that_fails_fails_all_who_wait_and_the_next_one_asks_again() -> None:
    """An error of the source reaches everybody who waited for it; it is not remembered."""
    answers: list[Any] = [OSError("down"), "good"]

    async def source() -> Any:
        await asyncio.sleep(1)
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    tokens = provider(source)
    results = await asyncio.gather(tokens.refresh(), tokens.refresh(), return_exceptions=True)
    assert [type(result) for result in results] == [TokenSourceError] * 2
    token = await tokens.refresh()
    assert token is not None
    assert token.value == "good"


async def test_token_refresh_that_spans_a_reconnect_is_not_made_twice() -> None:
    """A refresh that is under way when the link is lost serves the next dial."""
    source = SlowSource(takes=3.0, life=100.0)
    async with World(token=source, dialect=Dialect.REFERENCE, first_retry_within=0.1) as world:
        await world.client.connect()
        while source.fetches < 2:  # noqa: ASYNC110 - the early refresh has begun then
            await asyncio.sleep(0.5)
        world.server.reset()
        await world.until(S.CONNECTED)
        assert source.fetches == 2
        assert world.server.dials[-1] == {"token": "t2"}


async def test_token_refreshes_of_a_fleet_are_spread() -> None:
    """A token is refreshed at random within the last 10 to 30 % of its life, and not before."""
    moments = []
    for seed in range(200):
        tokens = provider(SlowSource(takes=0.0, life=1000.0), seed=seed)
        await tokens.current()
        moments.append(tokens.refresh_in)
        assert moments[-1] is not None
        assert moments[-1] == pytest.approx(800.0, abs=100.0)
    spread = [moment for moment in moments if moment is not None]
    assert max(spread) - min(spread) > 150.0


async def test_token_source_that_hangs_is_bounded() -> None:
    """A source that gives nothing in time is an error that says so; it is asked again the next time."""
    source = SlowSource(takes=60.0)
    tokens = provider(source, timeout=10.0)
    began = asyncio.get_running_loop().time()
    with pytest.raises(TokenSourceError, match="10"):
        await tokens.refresh()
    assert asyncio.get_running_loop().time() - began == pytest.approx(10.0)


async def test_refused_renewal_on_the_live_connection_is_reported_and_the_connection_lives() -> None:
    """A token that the server refuses in-band is reported; the connection goes on with the old identity."""
    source = SlowSource(takes=0.0, life=100.0)
    async with World(token=source, dialect=Dialect.REFERENCE) as world:
        refusal = {"ok": False, "error": {"message": "not this one"}}
        world.server.acknowledge = lambda event, _: [refusal if event == "reauthenticate" else {"ok": True}]
        issues: list[Any] = []
        world.client.recovery.on_connection_issue(issues.append)
        await world.client.connect()
        await asyncio.sleep(95)
        assert [issue.error.category.value for issue in issues] == ["authentication"]
        assert "not this one" in issues[0].message
        assert world.client.status is S.CONNECTED


async def test_token_with_a_known_end_is_kept_until_it_is_due() -> None:
    """A token whose expiry is known is fetched once for all who ask before its time, and anew after it."""
    source = SlowSource(takes=0.1, life=100.0)
    tokens = provider(source)
    first = await tokens.current()
    await asyncio.sleep(60)
    assert await tokens.current() is first
    assert source.fetches == 1
    await asyncio.sleep(31)
    assert await tokens.current() is not first
    assert source.fetches == 2


async def test_token_without_a_known_end_is_fetched_every_time() -> None:
    """A token that does not tell its expiry is not trusted for a second dial."""
    source = SlowSource(takes=0.1)
    tokens = provider(source)
    assert tokens.refresh_in is None
    await tokens.current()
    await tokens.current()
    assert source.fetches == 2


async def test_token_that_was_forgotten_is_not_given_again() -> None:
    """A refused token is fetched anew, however long it would have lived."""
    source = SlowSource(takes=0.1, life=100.0)
    tokens = provider(source)
    first = await tokens.current()
    tokens.forget()
    assert tokens.refresh_in is None
    assert await tokens.current() is not first


async def test_token_fetch_has_ended_when_the_provider_is_closed() -> None:
    """Closing ends a running fetch, and waits until it has."""
    ended: list[float] = []

    async def source() -> Token:
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(1)
            ended.append(asyncio.get_running_loop().time())
        raise AssertionError("it is cancelled")

    tokens = provider(source)
    waiting = asyncio.ensure_future(tokens.refresh())
    await asyncio.sleep(1)
    await tokens.close()
    assert len(ended) == 1
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_token_refresh_that_fails_is_tried_ever_more_slowly() -> None:
    """While the source fails the pause between two tries doubles, up to half a minute."""
    at: list[float] = []

    async def source() -> Token:
        at.append(asyncio.get_running_loop().time())
        if len(at) == 1:
            return Token(value="t1", expires_at=wall_clock()() + 10.0)
        raise OSError("down")

    async with World(token=source) as world:
        await world.client.connect()
        await asyncio.sleep(300)
        pauses = [round(later - earlier) for earlier, later in itertools.pairwise(at[1:])]
        assert pauses[:6] == [2, 4, 8, 16, 32, 32]
        assert world.client.status is S.CONNECTED


async def test_polling_service_says_whether_it_polls() -> None:
    """It polls for as long as FALLBACK lasts, and no longer."""
    async with World(fallback_endpoints=["news=/news"]) as world:
        world.http.resources["/news"] = lambda _: 1
        await world.client.connect()
        manager = world.client._manager
        assert manager is not None
        polling = manager.polling
        assert not polling.is_polling
        world.client.force_fallback()
        await asyncio.sleep(1)
        assert polling.is_polling
        world.client.release_fallback()
        await world.until(S.CONNECTED)
        await asyncio.sleep(1)
        assert not polling.is_polling


@pytest.mark.parametrize(
    ("claims", "expiry"),
    [('{"exp": 12.5}', 12.5), ('{"exp": 12}', 12.0)]
    + [(f'{{"exp": {exp}}}', None) for exp in ("9" * 400, "9" * 5000, "true", '"soon"', "[]", "null")]
    + [("[" * 100_000, None), ("[12]", None), ("exp", None)],
    ids=lambda value: repr(value)[:24],
)
def test_expiry_is_read_without_trust(claims: str, expiry: float | None) -> None:
    """Whatever the claims of a token are, its expiry is a number of seconds or unknown, never an error."""
    part = base64.urlsafe_b64encode(claims.encode()).rstrip(b"=").decode()
    assert jwt_expiry(f"head.{part}.signature") == expiry
    assert jwt_expiry(part) is None


def jwt_of(**claims: Any) -> str:
    """Return a token that looks like a JSON Web Token; nobody checks its signature here."""
    part = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"head.{part}.{next(_NUMBERS)}"


_NUMBERS = itertools.count()


async def fetches_in_an_hour(make: Callable[[float], Any], *, ahead: float) -> int:
    """Return how many tokens a client with a wrong clock fetches in an hour on one connection."""
    fetched = 0
    true = wall_clock()

    def source() -> Any:
        nonlocal fetched
        fetched += 1
        return make(true())

    async with World(token=source, ahead=ahead) as world:
        await world.client.connect()
        await asyncio.sleep(3600)
        assert world.path == ["connecting", "connected"]
        assert world.client.metrics.activity_crashes == 0
    return fetched


@pytest.mark.parametrize("ahead", [7200.0, 310.0, 299.0, 290.0])
async def test_token_of_a_clock_that_is_ahead_is_not_fetched_all_the_time(ahead: float) -> None:
    """Tokens that seem to have expired, or nearly so, are fetched ever more slowly, not each second."""
    assert await fetches_in_an_hour(lambda now: Token(value="t", expires_at=now + 300), ahead=ahead) <= 70
    assert await fetches_in_an_hour(lambda now: jwt_of(exp=now + 300), ahead=ahead) <= 70


@pytest.mark.parametrize("ahead", [7200.0, 310.0, 150.0, 0.0, -100_000.0])
async def test_token_that_tells_its_beginning_lives_as_long_as_it_says(ahead: float) -> None:
    """The life of a token is ``exp - iat``, whatever the clock of the client says."""
    for make in (
        lambda now: jwt_of(iat=now, exp=now + 300),
        lambda now: Token(value="t", issued_at=now, expires_at=now + 300),
    ):
        assert 3600 / 270 - 1 <= await fetches_in_an_hour(make, ahead=ahead) <= 3600 / 210 + 2


@pytest.mark.parametrize(
    "expiry", [float("nan"), float("inf"), -float("inf"), 10**400, -(10**400), -5.0, 0, 1e300, 2.5]
)
async def test_token_with_an_end_that_makes_no_sense_is_no_storm_and_no_bug(expiry: float) -> None:
    """Whatever a source says of a token's end, the connection lives on it, and the source is left alone."""
    assert await fetches_in_an_hour(lambda _: Token(value="t", expires_at=expiry), ahead=0.0) <= 70
    assert await fetches_in_an_hour(lambda _: jwt_of(exp=expiry), ahead=0.0) <= 70
    assert await fetches_in_an_hour(lambda _: jwt_of(exp=expiry, iat=expiry), ahead=0.0) <= 70


@pytest.mark.parametrize("moment", ["soon", True, [1]])
@pytest.mark.parametrize("name", ["expires_at", "issued_at"])
async def test_token_with_an_end_that_is_no_number_is_the_sources_mistake(name: str, moment: Any) -> None:
    """A moment that is no number is refused with words for whoever wrote the source."""
    async with World(token=lambda: Token(value="t", **{name: moment})) as world:
        with pytest.raises(AuthenticationError, match=name):
            await world.client.connect()


async def test_token_that_is_fixed_is_never_renewed() -> None:
    """A fixed token cannot be renewed, so that nobody tries when it expires."""
    async with World(token=jwt_of(exp=5.0), dialect=Dialect.REFERENCE) as world:
        world.server.acknowledge = lambda *_: [{"ok": True}]
        await world.client.connect()
        await asyncio.sleep(3600)
        assert "reauthenticate" not in [name for name, _ in world.server.received]


async def test_token_is_not_renewed_because_the_clock_jumps() -> None:
    """When a token is due is measured from when it was fetched."""
    jumped = 0.0
    true = wall_clock()
    source = SlowSource(takes=0.0, life=1000.0)
    secrets: deque[str] = deque()
    tokens = TokenProvider(
        source,
        statistics=Statistics(),
        recorder=FlightRecorder(wall_clock(), secrets),
        wall=lambda: true() + jumped,
        random=random.Random(0),  # noqa: S311 - jitter
        timeout=10.0,
        secrets=secrets,
    )
    await tokens.current()
    before = tokens.refresh_in
    jumped = 7200.0
    assert tokens.refresh_in == before
