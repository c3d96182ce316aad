"""The token provider: one fetch at a time, shared, early and spread out (SPEC A3)."""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from world import World

from realtime_fsm import ConnectionStatus, Dialect, Token, TokenSourceError
from realtime_fsm.engine.flight_recorder import FlightRecorder
from realtime_fsm.engine.statistics import Statistics
from realtime_fsm.engine.token import TokenProvider
from realtime_fsm.testing.virtual_loop import wall_clock

Run = Callable[[Coroutine[Any, Any, None]], None]
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


def test_token_fetch_is_shared_by_all_who_wait(run_virtual: Run) -> None:
    """However many want a token at the same time, the source is asked once, and all get the same."""

    async def main() -> None:
        source = SlowSource()
        tokens = provider(source)
        given = await asyncio.gather(*(tokens.refresh() for _ in range(10)), tokens.current())
        assert {token.value for token in given if token} == {"t1"}
        assert source.fetches == 1

    run_virtual(main())


def test_token_fetch_survives_the_cancelling_of_who_asked_first(run_virtual: Run) -> None:
    """Cancelling one who waits leaves the fetch to the others, also if it was he who began it."""

    async def main() -> None:
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

    run_virtual(main())


def test_token_fetch_that_fails_fails_all_who_wait_and_the_next_one_asks_again(run_virtual: Run) -> None:
    """An error of the source reaches everybody who waited for it; it is not remembered."""

    async def main() -> None:
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

    run_virtual(main())


def test_token_refresh_that_spans_a_reconnect_is_not_made_twice(run_virtual: Run) -> None:
    """A refresh that is under way when the link is lost serves the next dial."""

    async def main() -> None:
        source = SlowSource(takes=3.0, life=100.0)
        async with World(token=source, dialect=Dialect.REFERENCE, first_retry_within=0.1) as world:
            await world.client.connect()
            while source.fetches < 2:  # noqa: ASYNC110 - the early refresh has begun then
                await asyncio.sleep(0.5)
            world.server.reset()
            await world.until(S.CONNECTED)
            assert source.fetches == 2
            assert world.server.dials[-1] == {"token": "t2"}

    run_virtual(main())


def test_token_refreshes_of_a_fleet_are_spread(run_virtual: Run) -> None:
    """A token is refreshed at random within the last 10 to 30 % of its life, and not before."""

    async def main() -> None:
        moments = []
        for seed in range(200):
            tokens = provider(SlowSource(takes=0.0, life=1000.0), seed=seed)
            await tokens.current()
            moments.append(tokens.refresh_in)
            assert moments[-1] is not None
            assert moments[-1] == pytest.approx(800.0, abs=100.0)
        spread = [moment for moment in moments if moment is not None]
        assert max(spread) - min(spread) > 150.0

    run_virtual(main())


def test_token_source_that_hangs_is_bounded(run_virtual: Run) -> None:
    """A source that gives nothing in time is an error that says so; it is asked again the next time."""

    async def main() -> None:
        source = SlowSource(takes=60.0)
        tokens = provider(source, timeout=10.0)
        began = asyncio.get_running_loop().time()
        with pytest.raises(TokenSourceError, match="10"):
            await tokens.refresh()
        assert asyncio.get_running_loop().time() - began == pytest.approx(10.0)

    run_virtual(main())


def test_refused_renewal_on_the_live_connection_is_reported_and_the_connection_lives(
    run_virtual: Run,
) -> None:
    """A token that the server refuses in-band is reported; the connection goes on with the old identity."""

    async def main() -> None:
        source = SlowSource(takes=0.0, life=100.0)
        async with World(token=source, dialect=Dialect.REFERENCE) as world:
            refusal = {"ok": False, "error": {"message": "not this one"}}
            world.server.acknowledge = lambda event, _: [
                refusal if event == "reauthenticate" else {"ok": True}
            ]
            issues: list[Any] = []
            world.client.recovery.on_connection_issue(issues.append)
            await world.client.connect()
            await asyncio.sleep(95)
            assert [issue.error.category.value for issue in issues] == ["authentication"]
            assert "not this one" in issues[0].message
            assert world.client.status is S.CONNECTED

    run_virtual(main())
