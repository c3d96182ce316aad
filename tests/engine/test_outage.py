"""Outages that people notice: told in turn, blips hidden."""

import asyncio

import pytest
from world import World

from realtime_fsm import ConnectionStatus, InvalidArgumentError, ServerUnreachableError
from realtime_fsm.engine.status import Outage

S = ConnectionStatus


class Told:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.all: list[tuple[str, Outage]] = []

    def lost(self, outage: Outage) -> None:
        """Note it."""
        self.all.append(("lost", outage))

    def restored(self, outage: Outage) -> None:
        """Note it."""
        self.all.append(("restored", outage))

    @property
    def names(self) -> list[str]:
        """What it was told, in order."""
        return [name for name, _ in self.all]


async def test_outage_is_told_when_it_lasts_and_when_it_ends() -> None:
    """An outage is told once it has lasted long enough, and its end, with how long it was."""
    async with World() as world:
        told = Told()
        world.client.on_outage(told.lost, told.restored, after=2.0)
        await world.client.connect()
        world.server.refusal = ServerUnreachableError("down.")
        world.server.reset()
        await asyncio.sleep(1.9)
        assert told.names == []
        await asyncio.sleep(0.2)
        assert told.names == ["lost"]
        assert told.all[0][1].seconds == pytest.approx(2.0, abs=0.01)
        world.server.refusal = None
        world.client.retry_now()
        await world.until(S.CONNECTED)
        await asyncio.sleep(0)
        assert told.names == ["lost", "restored"]
        outage = told.all[1][1]
        assert outage.is_over
        assert outage.seconds > 2.0
        assert outage.reason.startswith("the connection ended")
        assert outage.began_at == told.all[0][1].began_at


async def test_outage_that_is_short_is_hidden() -> None:
    """A blip is told to nobody, however often it comes."""
    async with World() as world:
        told = Told()
        world.client.on_outage(told.lost, told.restored, after=5.0)
        await world.client.connect()
        for _ in range(3):
            world.server.reset()
            await world.until(S.CONNECTED)
            await asyncio.sleep(20)
        assert told.names == []


async def test_outage_goes_on_through_failed_and_fallback() -> None:
    """It is one outage until the connection is back, whatever states lie between."""
    async with World(max_reconnect_attempts=1, fallback_endpoints=["news=/news"]) as world:
        world.http.resources["/news"] = lambda _: 1
        told = Told()
        world.client.on_outage(told.lost, told.restored)
        await world.client.connect()
        world.server.refusal = ServerUnreachableError("down.")
        world.server.reset()
        await world.until(S.FALLBACK)
        await asyncio.sleep(60)
        assert told.names == ["lost"]
        world.server.refusal = None
        await world.until(S.CONNECTED)
        await asyncio.sleep(0)
        assert told.names == ["lost", "restored"]


async def test_outage_ends_with_a_disconnect_without_being_over() -> None:
    """Disconnecting on purpose is no outage; one that was told ends, and is not said to be over."""
    async with World() as world:
        told = Told()
        world.client.on_outage(told.lost, told.restored, after=0.0)
        await world.client.connect()
        await world.client.disconnect()
        await asyncio.sleep(1)
        assert told.names == []
        await world.client.connect()
        world.server.refusal = ServerUnreachableError("down.")
        world.server.reset()
        await asyncio.sleep(1)
        await world.client.disconnect()
        await asyncio.sleep(0)
        assert told.names == ["lost", "restored"]
        assert not told.all[1][1].is_over


async def test_outage_hooks_can_be_removed_and_cannot_harm() -> None:
    """A hook that raises is counted; after its removal nothing is told, and no timer is left."""
    async with World() as world:

        def broken(_: Outage) -> None:
            raise RuntimeError("a hook fails")

        stop = world.client.on_outage(broken, broken, after=0.5)
        await world.client.connect()
        world.server.refusal = ServerUnreachableError("down.")
        world.server.reset()
        await asyncio.sleep(1)
        assert world.client.metrics.handler_errors == 1
        stop()
        world.server.refusal = None
        world.client.retry_now()
        await world.until(S.CONNECTED)
        assert world.client.metrics.handler_errors == 1
        told = Told()
        world.client.on_outage(told.lost, told.restored, after=100.0)()
        world.server.reset()
        await asyncio.sleep(200)
        assert told.names == []


@pytest.mark.parametrize("after", [-1.0, float("inf"), float("nan")])
async def test_outage_needs_a_time(after: float) -> None:
    """A time that makes no sense is refused by name."""
    async with World() as world:
        with pytest.raises(InvalidArgumentError, match="after="):
            world.client.on_outage(lambda _: None, lambda _: None, after=after)
