"""Each law of ``PollerContract`` and ``TokenSourceContract`` can fail: for every one something breaks it."""

import asyncio
from functools import cached_property, partial
from typing import Any

import canary
import pytest
import test_contracts as sound

from realtime_fsm.engine.port import HttpAnswer, Token
from realtime_fsm.machine.errors import (
    AuthenticationError,
    ConnectionLostError,
    ProtocolError,
    ServerUnavailableError,
    ServerUnreachableError,
    TransportError,
)
from realtime_fsm.testing import (
    Contract,
    LeakError,
    LimitError,
    PollerContract,
    SimulatedHttp,
    TokenSourceContract,
    run_in_real_time,
)

# HTTP clients.


class Muddled(SimulatedHttp):
    """Answers the third request by what the second one got."""

    async def get(self, url: str, *, token: str | None, etag: str | None) -> HttpAnswer:
        """Keep an answer too long."""
        answer = await super().get(url, token=token, etag=etag)
        return HttpAnswer(status=200, body=2, size_bytes=1) if answer.body == 3 else answer


class Crossed(SimulatedHttp):
    """Gives the answers to requests that are made at once to the wrong ones."""

    async def post(self, url: str, body: object, *, token: str | None, idempotency_key: str) -> HttpAnswer:
        """Answer all by the last one."""
        await asyncio.sleep(0)
        self.last = body
        await asyncio.sleep(0.01)
        return await super().post(url, self.last, token=token, idempotency_key=idempotency_key)


class Keyless(SimulatedHttp):
    """Sends no key."""

    async def post(self, url: str, body: object, *, token: str | None, idempotency_key: str) -> HttpAnswer:
        """Send another key each time."""
        return await super().post(url, body, token=token, idempotency_key="")


class Wasteful(SimulatedHttp):
    """Does not say what it knows already."""

    async def get(self, url: str, *, token: str | None, etag: str | None) -> HttpAnswer:
        """Leave the tag out."""
        return await super().get(url, token=token, etag=None)


class Crude(SimulatedHttp):
    """Takes every refusal for one of the protocol."""

    async def get(self, url: str, *, token: str | None, etag: str | None) -> HttpAnswer:
        """Translate everything alike."""
        try:
            return await super().get(url, token=token, etag=etag)
        except AuthenticationError as error:
            raise ProtocolError("It is refused.") from error


class Impatient(SimulatedHttp):
    """Does not tell how long to wait."""

    async def get(self, url: str, *, token: str | None, etag: str | None) -> HttpAnswer:
        """Forget the header."""
        try:
            return await super().get(url, token=token, etag=etag)
        except ServerUnavailableError as error:
            raise ServerUnavailableError(error.message) from error


class Doubtful(SimulatedHttp):
    """Says that what was never sent may have been heeded."""

    async def post(self, url: str, body: object, *, token: str | None, idempotency_key: str) -> HttpAnswer:
        """Doubt."""
        raise ConnectionLostError("Who knows?")


class Enduring(SimulatedHttp):
    """Waits for ever."""

    async def get(self, url: str, *, token: str | None, etag: str | None) -> HttpAnswer:
        """Have no time-out."""
        self.timeout = 1e6
        return await super().get(url, token=token, etag=etag)


class Headstrong(SimulatedHttp):
    """Makes an error of its own of a cancellation."""

    async def get(self, url: str, *, token: str | None, etag: str | None) -> HttpAnswer:
        """Swallow the cancellation."""
        try:
            return await super().get(url, token=token, etag=etag)
        except asyncio.CancelledError:
            raise TransportError("It was cancelled.") from None


class Everlasting(SimulatedHttp):
    """Serves after it was closed."""

    async def close(self) -> None:
        """Do nothing."""


class Open(SimulatedHttp):
    """Shows the token that it has."""

    def __repr__(self) -> str:
        return f"<Open {[request.token for request in self.requests]}>"


class Chatty(SimulatedHttp):
    """Shows the address of what failed, with its query."""

    async def get(self, url: str, *, token: str | None, etag: str | None) -> HttpAnswer:
        """Say too much."""
        try:
            return await super().get(url, token=token, etag=etag)
        except ProtocolError as error:
            raise ProtocolError(f"{url} failed.") from error


POLLERS: list[tuple[str, type[SimulatedHttp]]] = [
    ("test_answers_come_in_order", Muddled),
    ("test_answers_find_their_requests", Crossed),
    ("test_message_is_sent_whole", Keyless),
    ("test_unchanged_answer_is_not_sent_again", Wasteful),
    ("test_refusals_are_told_by_their_kind", Crude),
    ("test_refusals_are_told_by_their_kind", Chatty),
    ("test_retry_after_is_told", Impatient),
    ("test_nobody_there_is_told_as_such", Doubtful),
    ("test_silent_server_is_given_up_in_time", Enduring),
    ("test_request_can_be_given_up", Headstrong),
    ("test_close_releases_requests_that_wait", Enduring),
    ("test_close_may_be_repeated_and_ends_the_client", Everlasting),
    ("test_client_shows_no_token", Open),
]


class PollerSuite(sound.TestSimulatedHttp):
    """The laws, of a kind of client."""

    kind: type[SimulatedHttp]

    @cached_property
    def http(self) -> SimulatedHttp:
        """The client."""
        return self.kind()

    async def make_unreachable(self) -> tuple[SimulatedHttp, str]:
        """Return one that reaches nobody."""
        return self.kind(refusal=ServerUnreachableError("Nobody.")), self.url("/")


@pytest.mark.parametrize(("law", "kind"), POLLERS)
def test_defect_of_an_http_client_is_caught(law: str, kind: type[SimulatedHttp]) -> None:
    """The law fails for a client that breaks it."""
    suite = PollerSuite()
    suite.kind = kind
    with pytest.raises(AssertionError):
        getattr(suite, law)()


def test_every_law_of_an_http_client_is_broken_once() -> None:
    """There is a defect for each law, so that none is vacuous."""
    assert {law for law, _ in POLLERS} == {name for name in dir(PollerContract) if name.startswith("test_")}


# Token sources.


class Prefixed(sound.TestCoroutineFunction):
    """Gives the token with a prefix that the engine adds itself."""

    async def fetch(self) -> str:
        """Say what it is."""
        return "Bearer-" + await super().fetch()


class Expired(sound.TestCoroutineFunction):
    """Gives a token that has expired."""

    async def fetch(self) -> str:
        """Give an old one."""
        return canary.jwt("contract", -60.0)


class Single(sound.TestCoroutineFunction):
    """Gives one token, and then something else."""

    is_used = False

    async def fetch(self) -> Any:
        """Give nothing the second time."""
        if self.is_used:
            return None
        self.is_used = True
        return await super().fetch()


class Shown:
    """A source that shows what it gives."""

    def __init__(self) -> None:
        self.token = canary.token("shown")

    def __call__(self) -> Token:
        """Give it."""
        return Token(value=self.token)

    def __repr__(self) -> str:
        return f"<Shown {self.token}>"


class Showing(sound.TestPlainFunction):
    """A source that shows what it gives."""

    async def make(self) -> Shown:
        """Return one."""
        return Shown()


class Leaky(sound.TestPlainFunction):
    """Fails by an error of the tree, which is passed on, and holds the token."""

    def give(self) -> Token:
        """Say too much."""
        token = Token(value=canary.token("leaky"))
        if self.is_failing:
            raise AuthenticationError(f"{token.value} is refused.")
        return token


class Foreign(sound.TestPlainFunction):
    """Fails by an error that is not one of the identity."""

    def give(self) -> Token:
        """Fail by the network, as it were."""
        if self.is_failing:
            raise TransportError("It is down.")
        return super().give()


class Caching(sound.TestCoroutineFunction):
    """Gives an old token rather than none, and does so where it should wait."""

    async def fetch(self) -> str:
        """Ask nobody."""
        return canary.token("cached")


class Unstoppable(sound.TestCoroutineFunction):
    """Makes an error of its own of a cancellation."""

    async def fetch(self) -> str:
        """Swallow the cancellation."""
        try:
            return await super().fetch()
        except asyncio.CancelledError:
            raise OSError("It was cancelled.") from None


SOURCES: list[tuple[str, type[TokenSourceContract]]] = [
    ("test_one_fetch_gives_a_token", Prefixed),
    ("test_token_is_not_expired_yet", Expired),
    ("test_source_can_be_asked_again", Single),
    ("test_source_shows_no_token", Showing),
    ("test_failure_is_an_authentication_error_without_a_secret", Leaky),
    ("test_failure_is_an_authentication_error_without_a_secret", Foreign),
    ("test_failure_is_an_authentication_error_without_a_secret", Caching),
    ("test_source_that_hangs_is_given_up", Caching),
    ("test_fetch_can_be_given_up", Unstoppable),
]


@pytest.mark.parametrize(("law", "suite"), SOURCES)
def test_defect_of_a_token_source_is_caught(law: str, suite: type[TokenSourceContract]) -> None:
    """The law fails for a source that breaks it."""
    with pytest.raises((AssertionError, AuthenticationError, TransportError)) as caught:
        getattr(suite(), law)()
    assert "was never awaited" not in str(caught.value)


def test_every_law_of_a_token_source_is_broken_once() -> None:
    """There is a defect for each law, so that none is vacuous."""
    laws = {name for name in dir(TokenSourceContract) if name.startswith("test_")}
    assert {law for law, _ in SOURCES} == laws


# What all have in common.


def test_law_that_leaves_a_task_fails() -> None:
    """A task that is left behind fails the law, in virtual and in real time."""

    async def main() -> None:
        left.append(asyncio.ensure_future(asyncio.sleep(1e6)))

    left: list[Any] = []
    for run in (Contract().run, partial(run_in_real_time, limit=5.0)):
        with pytest.raises(LeakError, match="sleep"):
            run(main())
        assert left.pop().cancelled()


def test_law_that_leaves_an_error_fails() -> None:
    """An error that nobody handled fails the law, in virtual and in real time."""

    async def main() -> None:
        asyncio.get_running_loop().call_soon(int, "x")
        await asyncio.sleep(0.01)

    for run in (Contract().run, run_in_real_time):
        with pytest.raises(LeakError, match="invalid literal"):
            run(main())


def test_law_that_does_not_end_fails_in_real_time() -> None:
    """A law on a real loop is bounded, and the error says where it waits."""

    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(LimitError, match="main"):
        run_in_real_time(main(), limit=0.05)


def test_law_fails_by_its_own_error() -> None:
    """What a law raises comes out as it is, from a real loop too."""

    async def main() -> None:
        raise LookupError("this")

    for run in (Contract().run, run_in_real_time):
        with pytest.raises(LookupError, match="this"):
            run(main())


def test_condition_that_never_comes_true_is_told_in_words() -> None:
    """Waiting in vain says what was waited for."""
    contract = Contract()

    async def main() -> None:
        await contract.eventually(lambda: False, "the impossible")

    with pytest.raises(AssertionError, match="the impossible"):
        contract.run(main())
