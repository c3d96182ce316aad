"""The laws of every token source: inherit the suite, and override its hooks."""

import asyncio
import inspect
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

from realtime_fsm.engine.flight_recorder import FlightRecorder
from realtime_fsm.engine.port import Token, TokenSource
from realtime_fsm.engine.statistics import Statistics
from realtime_fsm.engine.token import TokenProvider
from realtime_fsm.machine.errors import AuthenticationError
from realtime_fsm.testing.contracts.contract import Contract, skip, texts_of


class TokenSourceContract(Contract):
    """The laws of a ``TokenSource``, as the engine uses it: through its ``TokenProvider``.

    Override ``make``; and what is skipped otherwise, where it can be brought about: ``fail`` and ``hang``.
    """

    async def set_up(self) -> None:
        """Start what the source asks, where it is not there already. Called first in every law."""

    async def tear_down(self) -> None:
        """Stop it. Called last in every law, whatever came of it."""

    async def make(self) -> TokenSource:
        """Return the source: a string, a ``Token``, or what is called for one."""
        raise NotImplementedError

    async def fail(self, failing: bool) -> None:
        """Let the source fail from now on, as it would where its server is down; or mend it."""
        skip(f"it is not known how to let this source {'fail' if failing else 'recover'}")

    async def hang(self) -> None:
        """Let the source get no answer from now on."""
        skip("it is not known how to let this source hang")

    def wall(self) -> float:
        """Tell the time in which tokens expire, seconds since the Unix epoch."""
        return time.time()

    # For the laws.

    @asynccontextmanager
    async def source(self) -> AsyncIterator[tuple[TokenSource, TokenProvider]]:
        """Have the source, and the engine's provider of what it gives; afterwards close that."""
        try:
            await self.set_up()
            source = await self.make()
            secrets: deque[str] = deque()
            provider = TokenProvider(
                source,
                statistics=Statistics(),
                recorder=FlightRecorder(self.wall, secrets),
                wall=self.wall,
                random=Random(0),  # noqa: S311 - it spreads refreshes
                timeout=self.bound / 2,
                secrets=secrets,
            )
            try:
                yield source, provider
            finally:
                await self.within_bound(provider.close(), "the fetch is ended")
        finally:
            await self.tear_down()

    async def fetched(self, provider: TokenProvider) -> Token:
        """Return a token, within the bound."""
        token = await self.within_bound(provider.refresh(), "a token is fetched")
        assert isinstance(token, Token)
        return token

    async def failure(self, provider: TokenProvider) -> AuthenticationError:
        """Return the error by which a fetch fails."""
        try:
            token = await self.fetched(provider)
        except AuthenticationError as error:
            return error
        raise AssertionError(f"the source was to fail, and gives {token}")

    def test_one_fetch_gives_a_token(self) -> None:
        """One fetch gives a token that can be sent: bare, without spaces and without a prefix."""

        async def main() -> None:
            async with self.source() as (_, provider):
                token = await self.fetched(provider)
                assert token.value.isascii(), "a token travels in a header"
                assert not token.value.lower().startswith("bearer")

        self.run(main())

    def test_token_is_not_expired_yet(self) -> None:
        """A token whose expiry is known is still good when it is fetched."""

        async def main() -> None:
            async with self.source() as (_, provider):
                token = await self.fetched(provider)
                assert token.expires_at is None or token.expires_at > self.wall(), "it has expired"

        self.run(main())

    def test_source_can_be_asked_again(self) -> None:
        """Every fetch gives a token: a refresh too, and several at once, as several clients would."""

        async def main() -> None:
            async with self.source() as (source, provider):
                for _ in range(3):
                    await self.fetched(provider)
                given = await asyncio.gather(*(_given(source) for _ in range(3)))
                assert all(isinstance(one, (str, Token)) for one in given)

        self.run(main())

    def test_source_shows_no_token(self) -> None:
        """Neither a source nor its token shows the token itself."""

        async def main() -> None:
            async with self.source() as (source, provider):
                token = await self.fetched(provider)
                assert token.value not in repr(token)
                if not isinstance(source, str):  # a string is its own secret
                    assert token.value not in repr(source), "the source shows its token"

        self.run(main())

    def test_failure_is_an_authentication_error_without_a_secret(self) -> None:
        """A failing source is an ``AuthenticationError`` that shows no token, and is asked again later."""

        async def main() -> None:
            async with self.source() as (source, provider):
                self._must_be_called(source)
                first = await self.fetched(provider)
                await self.fail(True)
                error = await self.failure(provider)
                assert first.value not in texts_of(error), "the error shows the last token"
                await self.fail(False)
                await self.fetched(provider)

        self.run(main())

    def test_source_that_hangs_is_given_up(self) -> None:
        """A source that gets no answer is an error in time: it does not block the loop."""

        async def main() -> None:
            async with self.source() as (source, provider):
                self._must_be_called(source)
                await self.hang()
                await self.failure(provider)

        self.run(main())

    def test_fetch_can_be_given_up(self) -> None:
        """A fetch that is cancelled ends by the cancellation, soon, and leaves nothing behind."""

        async def main() -> None:
            async with self.source() as (source, _):
                self._must_be_called(source)
                await self.hang()
                fetch = asyncio.ensure_future(_given(source))
                done, _ = await asyncio.wait({fetch}, timeout=self.bound / 50)
                assert not done, "the source was to hang"
                fetch.cancel()
                await asyncio.wait({fetch}, timeout=self.bound)
                assert fetch.cancelled(), "the source does not pass on its cancellation"

        self.run(main())

    def _must_be_called(self, source: TokenSource) -> None:
        if not callable(source):
            skip("a fixed token cannot fail")


async def _given(source: TokenSource) -> object:
    """Return what a source gives, asked directly."""
    given: object = source() if callable(source) else source
    return await given if inspect.isawaitable(given) else given
