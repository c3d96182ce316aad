"""One pacing for dialling, probing, polling and publishing, and the fallback in time."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import pytest
from world import World

from realtime_fsm import (
    AuthenticationError,
    ConnectionStatus,
    Delivery,
    Dialect,
    NamespaceRefusedError,
    ServerUnavailableError,
    ServerUnreachableError,
    StatusChange,
)

S = ConnectionStatus
DOWN = ServerUnreachableError("refused.")
HOUR = 3600.0


class Dials(list[Any]):
    """The dials of a server, which notes when each was made."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.at: list[float] = []
        world.server.dials = self

    def append(self, auth: Any) -> None:
        """Note a dial."""
        super().append(auth)
        self.at.append(asyncio.get_running_loop().time())


class PatientWorld(World):
    """A world with something to poll, whose dials are noted."""

    def __init__(self, **config: Any) -> None:
        super().__init__(fallback_endpoints=["news=/news"], **config)
        self.http.resources["/news"] = lambda _: 1
        self.dials = Dials(self)
        self.issues: list[Any] = []
        self.client.recovery.on_connection_issue(self.issues.append)

    def told(self, part: str) -> list[Any]:
        """Return the issues that say something."""
        return [issue for issue in self.issues if part in issue.message]


# The fallback in time.


@pytest.mark.parametrize("first_connect", [True, False])
@pytest.mark.parametrize(
    "config",
    [{}, {"max_reconnect_attempts": None}, {"max_reconnect_attempts": 1000}, {"backoff_base": 30.0}],
    ids=["default", "for ever", "many", "slow"],
)
async def test_fallback_comes_when_the_outage_has_lasted_whatever_attempts_are_left(
    config: dict[str, Any], first_connect: bool
) -> None:
    """Without data for ``fallback_after``, and the attempt that decides, polling takes over; not before."""
    async with PatientWorld(**config) as world:
        if not first_connect:
            await world.client.connect()
            await asyncio.sleep(60)
        began = world.now
        world.server.refusal = DOWN
        if first_connect:
            await world.client.connect()
        else:
            world.server.reset()
        await world.until(S.FALLBACK)
        assert 15.0 <= world.now - began <= 15.0 * 1.2 + 0.1


async def test_fallback_does_not_come_for_a_shorter_outage() -> None:
    """A server that is away for less than ``fallback_after`` is only reconnected to."""
    async with PatientWorld() as world:
        await world.client.connect()
        await asyncio.sleep(60)
        world.server.refusal = DOWN
        world.server.reset()
        await asyncio.sleep(12)
        world.server.refusal = None
        await world.until(S.CONNECTED)
        assert "fallback" not in world.path


async def test_fallback_is_left_to_the_attempts_where_no_time_is_given() -> None:
    """With ``fallback_after=None`` polling takes over only when the attempts have run out."""
    async with PatientWorld(fallback_after=None, max_reconnect_attempts=6) as world:
        world.server.refusal = DOWN
        await world.client.connect()
        assert await world.until(S.FALLBACK) > 60
        assert len(world.dials.at) == 7


async def test_fallback_comes_at_once_where_no_outage_is_suffered() -> None:
    """With ``fallback_after=0`` the first failure leads to polling."""
    async with PatientWorld(fallback_after=0.0) as world:
        world.server.refusal = DOWN
        await world.client.connect()
        assert world.client.status is S.FALLBACK
        assert len(world.dials.at) == 1


async def test_outage_is_counted_on_over_connections_that_do_not_last() -> None:
    """A server that lets the client in for moments only does not keep it from its data for ever."""
    async with PatientWorld(max_reconnect_attempts=None, stable_after=10.0) as world:
        await world.client.connect()
        await asyncio.sleep(60)
        down = 0.0
        while world.client.status is not S.FALLBACK:
            world.server.reset()
            lost_at = world.now
            await world.client.wait_for(S.CONNECTED, S.FALLBACK, timeout=100)
            down += world.now - lost_at
            await asyncio.sleep(1)
            assert down <= 15.0 * 1.2 + 1.0
        assert down >= 15.0


async def test_retry_after_that_is_longer_than_the_fallback_is_waited_for_leads_there_at_once() -> None:
    """Who is told to come back later than polling would begin polls at once, and does not dial before."""
    async with PatientWorld() as world:
        world.server.refusal = ServerUnavailableError("503.", retry_after=300.0)
        await world.client.connect()
        assert world.client.status is S.FALLBACK
        assert len(world.dials.at) == 1
        world.server.refusal = None
        assert 300.0 <= await world.until(S.CONNECTED) <= 360.1


async def test_retry_after_that_is_shorter_is_waited_for_before_the_next_attempt() -> None:
    """A short ``Retry-After`` does not give the socket up."""
    async with PatientWorld() as world:
        world.server.refusal = ServerUnavailableError("503.", retry_after=5.0)
        await world.client.connect()
        assert world.client.status is S.RECONNECTING
        assert 5.0 <= (world.client.next_attempt_in or 0.0) <= 6.0


async def test_attempts_without_a_limit_go_on_for_ever_at_the_pace_of_the_cap() -> None:
    """With ``max_reconnect_attempts=None`` nothing is given up, and the server is not stormed."""
    async with World(max_reconnect_attempts=None) as world:
        dials = Dials(world)
        world.server.refusal = DOWN
        await world.client.connect()
        await asyncio.sleep(24 * HOUR)
        assert world.client.status in {S.RECONNECTING, S.CONNECTING}
        pauses = [later - earlier for earlier, later in pairwise(dials.at)][10:]
        assert all(30.0 <= pause <= 31.1 for pause in pauses)
        world.server.refusal = None
        assert await world.until(S.CONNECTED) <= 31.1


async def test_attempts_that_have_run_out_say_so_and_name_the_ways_out() -> None:
    """Without a fallback the last error promises nothing any more, and says what would help."""
    async with World(max_reconnect_attempts=2) as world:
        world.server.refusal = ServerUnavailableError("503.")
        await world.client.connect()
        await world.until(S.FAILED)
        error = world.client.gave_up
        assert isinstance(error, ServerUnavailableError)
        assert error.message == "503."
        for part in ("Nothing is tried any more", "max_reconnect_attempts=None", "fallback_endpoints"):
            assert part in str(error)
        assert "by itself" not in str(error)
        assert "by itself" in str(world.server.refusal)  # the server's own was left as it is


# One pacing.


async def test_probing_waits_for_what_the_dial_before_the_fallback_was_told() -> None:
    """However FALLBACK is entered, and entered anew, nothing is dialled before the server wants it."""
    async with PatientWorld(fallback_after=1000.0) as world:
        world.server.refusal = ServerUnavailableError("503.", retry_after=300.0)
        await world.client.connect()
        refused_at = world.now
        await asyncio.sleep(10)
        world.client.force_fallback()
        await asyncio.sleep(10)
        world.client.release_fallback()
        world.server.refusal = None
        await world.until(S.CONNECTED)
        assert 300.0 <= world.now - refused_at <= 360.1


async def test_probing_of_an_outage_keeps_its_pace() -> None:
    """A server that nobody reaches is looked for every ``reconnect_interval``, and up to a fifth more."""
    async with PatientWorld(max_reconnect_attempts=0) as world:
        world.server.refusal = DOWN
        await world.client.connect()
        await asyncio.sleep(HOUR)
        pauses = [later - earlier for earlier, later in pairwise(world.dials.at)]
        assert all(5.0 <= pause <= 6.1 for pause in pauses)


@pytest.mark.parametrize("error", [AuthenticationError("who?"), NamespaceRefusedError("no.")])
async def test_probing_of_who_refuses_for_good_becomes_rare_and_is_told(error: Any) -> None:
    """An identity that is refused in FALLBACK is asked some ten times in an hour, and not 1,440 times."""
    async with PatientWorld(max_reconnect_attempts=0, max_retry_after=2 * HOUR) as world:
        world.server.refusal = DOWN
        await world.client.connect()
        await asyncio.sleep(HOUR)  # an outage before says nothing about the refusal after it
        world.server.refusal = error
        world.issues.clear()
        before = len(world.dials.at)
        await asyncio.sleep(HOUR)
        assert world.client.status is S.FALLBACK
        asked = len(world.dials.at) - before
        assert 5 <= asked <= 12
        assert len(world.told(error.message)) == asked
        world.server.refusal = None
        assert world.client.retry_now()
        await world.until(S.CONNECTED)


async def test_polling_never_comes_before_a_retry_after_is_over() -> None:
    """The jitter of a poll goes upwards only."""
    async with PatientWorld(max_reconnect_attempts=0) as world:
        world.server.refusal = DOWN
        world.http.refusal = ServerUnavailableError("503.", retry_after=500.0)
        await world.client.connect()
        await asyncio.sleep(20 * HOUR)
        pauses = [later.at - earlier.at for earlier, later in pairwise(world.http.requests)]
        assert len(pauses) > 50
        assert all(500.0 <= pause <= 600.1 for pause in pauses)


async def test_polling_remembers_a_retry_after_over_the_end_of_the_fallback() -> None:
    """An endpoint that asked for a pause in the last fallback is left alone in the next one, too."""
    async with PatientWorld(max_reconnect_attempts=0) as world:
        world.server.refusal = DOWN
        world.http.refusal = ServerUnavailableError("503.", retry_after=500.0)
        await world.client.connect()
        await asyncio.sleep(1)
        world.server.refusal = None
        await world.until(S.CONNECTED)
        world.client.force_fallback()
        await asyncio.sleep(400)
        assert len(world.http.requests) == 1
        await asyncio.sleep(300)
        assert len(world.http.requests) == 2


async def test_publishing_never_comes_before_a_retry_after_is_over() -> None:
    """Messages wait for what the publishing endpoint asked for, also into the next fallback."""
    async with World(
        dialect=Dialect.REFERENCE, default_delivery=Delivery.AT_LEAST_ONCE, max_reconnect_attempts=0
    ) as world:
        world.http.refusal = ServerUnavailableError("503.", retry_after=500.0)
        world.server.refusal = DOWN
        await world.client.connect()
        await world.client.emit("note", 1)
        await asyncio.sleep(100)
        world.client.force_fallback()
        await asyncio.sleep(HOUR)
        posts = [request.at for request in world.http.requests if request.method == "POST"]
        pauses = [later - earlier for earlier, later in pairwise(posts)]
        assert len(pauses) >= 5
        assert all(500.0 <= pause <= 600.1 for pause in pauses)


Wait = Callable[[PatientWorld], Awaitable[list[float]]]


async def dialling(world: PatientWorld) -> list[float]:
    """Return when the server was dialled while it is overloaded."""
    return world.dials.at


async def polling(world: PatientWorld) -> list[float]:
    """Return when the endpoint was polled while it is overloaded."""
    await world.until(S.FALLBACK)
    await asyncio.sleep(100 * HOUR)
    return [request.at for request in world.http.requests]


@pytest.mark.parametrize("asked", [HOUR * 24 * 365 * 8000, float("inf")])
@pytest.mark.parametrize("wait", [dialling, polling])
async def test_retry_after_has_a_cap_and_is_told_when_it_bites(asked: float, wait: Wait) -> None:
    """However long a server wants to be left alone, ``max_retry_after`` is the most; people are told."""
    async with PatientWorld(max_reconnect_attempts=None, fallback_after=None) as world:
        world.http.refusal = world.server.refusal = ServerUnavailableError("503.", retry_after=asked)
        await world.client.connect()
        if wait is polling:
            world.client.force_fallback()
        else:
            await asyncio.sleep(100 * HOUR)
        pauses = [later - earlier for earlier, later in pairwise(await wait(world))]
        assert len(pauses) > 50
        assert all(HOUR <= pause <= 1.2 * HOUR + 0.1 for pause in pauses)
        assert world.told("max_retry_after")


async def test_retry_after_within_the_cap_is_not_reported() -> None:
    """A pause that is granted is nothing to tell of."""
    async with PatientWorld(fallback_after=None) as world:
        world.server.refusal = ServerUnavailableError("503.", retry_after=HOUR)
        await world.client.connect()
        change: StatusChange = world.changes[-1]
        assert HOUR <= (change.retry_in or 0.0) <= 1.2 * HOUR
        assert not world.told("max_retry_after")


@pytest.mark.parametrize("asked", [float("nan"), -5.0, 0.0])
async def test_retry_after_that_makes_no_sense_asks_for_nothing(asked: float) -> None:
    """What is no time at all is not waited for."""
    async with PatientWorld() as world:
        world.server.refusal = ServerUnavailableError("503.", retry_after=asked)
        await world.client.connect()
        assert world.client.status is S.RECONNECTING
        assert (world.client.next_attempt_in or 99.0) <= 2.0
