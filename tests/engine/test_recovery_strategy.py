"""``ErrorRecoveryStrategy``: counts, logs, and tells the people who asked to be told (SPEC A4)."""

import asyncio
import logging

import pytest
from world import World

from realtime_fsm import (
    AuthenticationError,
    ConnectionLostError,
    ConnectionStatus,
    DeliveryError,
    ErrorCategory,
    ServerUnreachableError,
)
from realtime_fsm.machine.recovery import ConnectionIssue, Recovery
from realtime_fsm.machine.table import Severity


async def test_strategy_counts_logs_and_tells(caplog: pytest.LogCaptureFixture) -> None:
    """An error is counted, logged by its severity, told to the hooks in the next turn, and decided."""
    async with World() as world:
        recovery, told = world.client.recovery, list[ConnectionIssue]()
        recovery.on_connection_issue(told.append)
        with caplog.at_level(logging.WARNING):
            assert recovery.handle(ConnectionLostError("gone away.")) is Recovery.RETRY
            assert recovery.handle(AuthenticationError("not you.")) is Recovery.REFRESH_TOKEN
        assert told == []
        await asyncio.sleep(0)
        assert [issue.severity for issue in told] == [Severity.WARNING, Severity.ERROR]
        assert "gone away." in told[0].message
        assert recovery.errors == {ErrorCategory.CONNECTION: 1, ErrorCategory.AUTHENTICATION: 1}
        levels = {r.levelno: r.getMessage() for r in caplog.records if r.name == "realtime_fsm.recovery"}
        assert "gone away." in levels[logging.WARNING]
        assert "not you." in levels[logging.ERROR]


async def test_strategy_logs_nothing_where_somebody_else_has(caplog: pytest.LogCaptureFixture) -> None:
    """A cause that the line of a change has told is not logged twice, but it is told."""
    async with World() as world:
        told: list[ConnectionIssue] = []
        world.client.recovery.on_connection_issue(told.append)
        world.client.recovery.handle(ConnectionLostError("gone away."), log=False)
        await asyncio.sleep(0)
        assert len(told) == 1
        assert not [r for r in caplog.records if r.name == "realtime_fsm.recovery"]


async def test_strategy_hook_can_be_removed_and_cannot_harm(caplog: pytest.LogCaptureFixture) -> None:
    """A hook that raises is counted and logged; one that was removed, even twice, is told nothing."""
    async with World() as world:
        recovery, told = world.client.recovery, list[ConnectionIssue]()

        def broken(_: ConnectionIssue) -> None:
            raise RuntimeError("a hook fails")

        remove_broken = recovery.on_connection_issue(broken)
        remove = recovery.on_connection_issue(told.append)
        recovery.handle(DeliveryError("lost.", outcome="lost"))
        await asyncio.sleep(0)
        assert (len(told), world.client.metrics.handler_errors) == (1, 1)
        assert "a hook fails" in caplog.text
        remove()
        remove()
        remove_broken()
        recovery.handle(DeliveryError("lost.", outcome="lost"))
        await asyncio.sleep(0)
        assert (len(told), world.client.metrics.handler_errors) == (1, 1)


async def test_strategy_switches_the_fallback() -> None:
    """The fallback can be switched on and off through the strategy, as through the client."""
    async with World(fallback_endpoints=["news=/news"]) as world:
        world.http.resources["/news"] = lambda _: 1
        await world.client.connect()
        assert world.client.recovery.activate_fallback()
        assert world.client.status is ConnectionStatus.FALLBACK
        await asyncio.sleep(100)
        assert world.client.status is ConnectionStatus.FALLBACK
        assert world.client.recovery.deactivate_fallback()
        await world.until(ConnectionStatus.CONNECTED)


def gathered(world: World) -> list[ConnectionIssue]:
    """Return what people are told from now on."""
    issues: list[ConnectionIssue] = []
    world.client.recovery.on_connection_issue(issues.append)
    return issues


async def test_issues_tell_an_outage_from_its_end() -> None:
    """An outage that ends in FAILED warns as long as it is tried, and in the end says that nothing is."""
    async with World(enable_fallback=False, max_reconnect_attempts=2) as world:
        issues = gathered(world)
        await world.client.connect()
        world.server.refusal = ServerUnreachableError("Nobody is there.")
        world.server.reset()
        await world.until(ConnectionStatus.FAILED)
        *before, last = issues
        assert before
        for issue in before:
            assert (issue.severity, issue.status) == (Severity.WARNING, ConnectionStatus.RECONNECTING)
            assert "the next attempt follows" in issue.message
        assert (last.severity, last.status) == (Severity.ERROR, ConnectionStatus.FAILED)
        assert "nothing is tried by itself any more" in last.message
        assert "Check that the server runs" in last.message


async def test_issues_that_polling_makes_good_are_no_errors() -> None:
    """FAILED that is left for FALLBACK at once is told as FALLBACK: data comes by polling."""
    async with World(fallback_endpoints=["/api/a"], max_reconnect_attempts=1) as world:
        world.http.resources["/api/a"] = lambda _: 1
        issues = gathered(world)
        await world.client.connect()
        world.server.refusal = ServerUnreachableError("Nobody is there.")
        world.server.reset()
        await world.until(ConnectionStatus.FALLBACK)
        assert "failed" in world.path
        assert (issues[-1].severity, issues[-1].status) == (Severity.WARNING, ConnectionStatus.FALLBACK)
        assert "data comes by HTTP polling" in issues[-1].message
        assert {issue.severity for issue in issues} == {Severity.WARNING}


async def test_application_can_tell_people_of_its_own() -> None:
    """`notify_connection_issue` passes any issue to the same hooks, of any severity, and counts no error."""
    async with World() as world:
        issues = gathered(world)
        mine = ConnectionIssue(
            severity=Severity.INFO, message="Maintenance at noon.", error=ConnectionLostError("planned.")
        )
        world.client.recovery.notify_connection_issue(mine)
        await asyncio.sleep(0)
        assert issues == [mine]
        assert not world.client.recovery.errors
