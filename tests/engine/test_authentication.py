"""Tokens: fetched first, renewed early, and never a storm with a stale one (SPEC A3, A4)."""

import asyncio
from collections.abc import Callable, Coroutine
from itertools import pairwise
from typing import Any

import canary
import jwt
import pytest
from world import TOKEN, World

from realtime_fsm import (
    AuthenticationError,
    ConnectionStatus,
    DeliveryError,
    Dialect,
    SubscriptionRefusedError,
    Token,
    TokenSourceError,
)
from realtime_fsm.testing.virtual_loop import wall_clock

Run = Callable[[Coroutine[Any, Any, None]], None]
S = ConnectionStatus


def numbered(number: int) -> str:
    """Return one of the tokens that differ."""
    return canary.token(f"number-{number}")


def counted() -> Callable[[], str]:
    """Return a source of tokens that differ."""
    numbers = iter(range(1000))
    return lambda: numbered(next(numbers))


async def test_token_travels_in_the_connect_packet() -> None:
    """The token is in the auth object of the dial, under the dialect's key."""
    async with World(token=canary.token("fixed")) as world:
        await world.client.connect()
        assert world.server.dials == [{"token": canary.token("fixed")}]
    async with World(token=None) as world:
        await world.client.connect()
        assert world.server.dials == [None]


@pytest.mark.parametrize("kind", ["callable", "coroutine function", "object with an async call"])
async def test_token_is_fetched_anew_for_every_dial(kind: str) -> None:
    """A token of unknown expiry is fetched for every dial, from any kind of source."""
    source = counted()

    class Source:
        async def __call__(self) -> str:
            return source()

    async def fetch() -> str:
        await asyncio.sleep(1)
        return source()

    given: Any = {"callable": source, "coroutine function": fetch}.get(kind) or Source()
    async with World(token=given) as world:
        await world.client.connect()
        world.server.reset()
        await world.until(S.CONNECTED)
        assert world.server.dials == [{"token": numbered(0)}, {"token": numbered(1)}]


async def test_token_that_is_refused_is_renewed_and_retried_once_at_once() -> None:
    """One refusal costs no attempt and no pause: a fresh token is dialled with at once."""
    async with World(token=counted()) as world:
        world.server.accept_tokens = {numbered(1)}
        began = world.now
        assert await world.client.connect() is S.CONNECTED
        assert world.now - began < 1
        assert len(world.server.dials) == 2


async def test_token_refused_twice_is_failed_until_a_new_one_is_tried_by_hand() -> None:
    """Refused again it is FAILED: no retry, no fallback; ``retry_now()`` with a good token works."""
    async with World(token=counted(), fallback_endpoints=["/news"]) as world:
        world.server.accept_tokens = set()
        with pytest.raises(AuthenticationError):
            await world.client.connect()
        await asyncio.sleep(10_000)
        assert len(world.server.dials) == 2
        assert (world.path[-1], world.http.requests) == ("failed", [])
        world.server.accept_tokens = {numbered(2)}
        assert world.client.retry_now()
        await world.until(S.CONNECTED)


async def test_token_source_that_fails_is_tried_again_with_the_backoff() -> None:
    """A source that raises or hangs makes the attempt fail, and is asked again."""
    answers: list[Any] = [OSError(canary.token("in-error")), "hang", canary.token("good")]

    async def fetch() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        if answer == "hang":
            await asyncio.sleep(10_000)
        return str(answer)

    async with World(token=fetch) as world:
        await world.client.connect()
        assert isinstance(world.changes[-1].error, TokenSourceError)
        assert not canary.found_in_error(world.changes[-1].error)
        await world.until(S.CONNECTED)
        assert world.server.dials == [{"token": canary.token("good")}]


@pytest.mark.parametrize("rubbish", [None, 5, b"bytes", "", "Bearer abc", "line\nbreak", Token(value="")])
async def test_token_source_that_gives_rubbish_is_failed_with_a_clear_error(rubbish: Any) -> None:
    """What is not a token is an error of the source, named by its type and never repeated."""
    async with World(token=lambda: rubbish) as world:
        with pytest.raises(AuthenticationError) as caught:
            await world.client.connect()
        assert "abc" not in str(caught.value)
        assert caught.value.remedy
        assert world.server.dials == []


async def test_token_is_renewed_before_it_expires_on_the_live_connection() -> None:
    """A token of known expiry is renewed in the last 10 to 30 % of its life, without a reconnect."""
    fetched: list[float] = []
    wall = wall_clock()

    def fetch() -> Token:
        fetched.append(wall())
        return Token(value=numbered(len(fetched)), expires_at=wall() + 1000)

    async with World(token=fetch, dialect=Dialect.REFERENCE) as world:
        world.server.acknowledge = lambda *_: [{"ok": True}]
        await world.client.connect()
        await asyncio.sleep(5000)
        pauses = [b - a for a, b in pairwise(fetched)]
        assert all(700 <= pause <= 901 for pause in pauses)
        assert world.path == ["connecting", "connected"]
        told = [args[0]["token"] for name, args in world.server.received if name == "reauthenticate"]
        assert told == [numbered(n) for n in range(2, len(fetched) + 1)]


async def test_token_expiry_is_read_from_a_json_web_token() -> None:
    """The ``exp`` of a JSON Web Token drives the renewal by itself."""
    wall = wall_clock()
    fetched: list[float] = []

    def fetch() -> str:
        fetched.append(wall())
        return canary.secret(jwt.encode({"exp": wall() + 100}, canary.SIGNING, algorithm="HS256"))

    async with World(token=fetch) as world:
        await world.client.connect()
        await asyncio.sleep(95)
        assert len(fetched) == 2


async def test_token_renewal_that_fails_keeps_the_connection() -> None:
    """While the source is down the live connection stays; renewing is tried again."""
    wall = wall_clock()
    calls = 0

    def fetch() -> Token:
        nonlocal calls
        calls += 1
        if 1 < calls < 5:
            raise OSError
        return Token(value=numbered(calls), expires_at=wall() + 1000)

    async with World(token=fetch) as world:
        await world.client.connect()
        await asyncio.sleep(1000)
        assert world.path == ["connecting", "connected"]
        assert calls == 5


def test_token_never_shows_in_what_people_see(run_virtual: Run, caplog: pytest.LogCaptureFixture) -> None:
    """A token is in no log record, error, change, metric or ``repr``."""

    async def main() -> None:
        token = canary.token()
        async with World(token=lambda: token, debug_mode=True) as world:
            world.server.accept_tokens = set()
            with pytest.raises(AuthenticationError) as caught:
                await world.client.connect()
            seen = [
                repr(caught.value),
                str(caught.value),
                repr(world.changes),
                repr(world.client.metrics),
                repr(world.client.health()),
                repr(world.config),
                repr(Token(value=token)),
                repr(vars(world.client)),
            ]
            assert canary.found_in(*seen) == []

    caplog.set_level("DEBUG")
    run_virtual(main())
    assert canary.found_in(caplog.text) == []


async def test_token_that_a_server_repeats_in_an_answer_is_not_shown() -> None:
    """A token that is no JSON Web Token is masked in the error of a refused message, too."""
    async with World(dialect=Dialect.REFERENCE) as world:
        refusal = {"ok": False, "error": {"message": f"bad token {TOKEN}"}}
        world.server.acknowledge = lambda *_: [refusal]
        await world.client.connect()
        with pytest.raises(DeliveryError) as caught:
            await world.client.call("note")
        assert canary.found_in_error(caught.value) == []


async def test_token_that_a_server_repeats_in_the_refusal_of_a_channel_is_not_shown() -> None:
    """A token is masked in the error of a refused channel, in what is reported, and in what is kept of it."""
    async with World(dialect=Dialect.REFERENCE) as world:
        refusal = {"ok": False, "error": {"message": f"bad token {TOKEN}"}}
        world.server.acknowledge = lambda *_: [refusal]
        issues: list[Any] = []
        world.client.recovery.on_connection_issue(issues.append)
        await world.client.connect()
        with pytest.raises(SubscriptionRefusedError, match="bad token") as caught:
            await world.client.subscribe(["ticks"])
        await asyncio.sleep(0)
        assert canary.found_in_error(caught.value) == []
        assert issues
        assert canary.found_in(repr(issues)) == []
