"""The whole engine in virtual time, under any schedule of faults and of what a user does."""

import asyncio
import random
from typing import Any

import pytest
from hypothesis import find, given
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from realtime_fsm import (
    IGNORED,
    TRAITS,
    TRANSITIONS,
    AuthenticationError,
    ConnectionStatus,
    NamespaceRefusedError,
    RealtimeConfig,
    RealtimeError,
    RealtimeService,
)
from realtime_fsm.testing.fuzz.schedule import ENDINGS, Action, Schedule, Setting
from realtime_fsm.testing.fuzz.simulation import play
from realtime_fsm.testing.simulated.http import SimulatedHttp
from realtime_fsm.testing.simulated.server import SimulatedServer
from realtime_fsm.testing.strategies import fault_schedules
from realtime_fsm.testing.virtual_loop import run, wall_clock


@given(fault_schedules(endings=[Action.HEAL]))
def test_engine_loses_nothing_and_repeats_nothing_when_everything_is_healed(schedule: Schedule) -> None:
    """After any faults and crashes a healed network leads to CONNECTED, with all delivered once."""
    assert not play(schedule).violations


@given(fault_schedules(endings=[Action.DISCONNECT]))
def test_engine_closes_in_the_middle_of_anything(schedule: Schedule) -> None:
    """A client that is disconnected in the middle of any trouble leaves nothing, and settles everything."""
    assert not play(schedule).violations


@given(fault_schedules(endings=ENDINGS[2:]))
def test_engine_keeps_its_promises_when_a_fault_is_never_mended(schedule: Schedule) -> None:
    """One fault that stays for ever leads where it must, and the client keeps its promises."""
    assert not play(schedule).violations


@given(fault_schedules())
def test_engine_plays_the_same_schedule_the_same_way(schedule: Schedule) -> None:
    """Two plays of one schedule tell the same, to the instant."""
    assert play(schedule).lines == play(schedule).lines


def test_schedules_shrink_well() -> None:
    """What Hypothesis finds is as short as it can be: two steps without pauses, on the plainest server."""

    def has_both(schedule: Schedule) -> bool:
        actions = [step.action for step in schedule.steps]
        return Action.KICK in actions and Action.CRASH in actions

    found = find(fault_schedules(), has_both)
    assert sorted(step.action for step in found.steps) == [Action.CRASH, Action.KICK]
    assert all(step.pause == 0.0 for step in found.steps)
    assert (found.seed, found.setting, found.ending) == (0, Setting.REFERENCE, Action.HEAL)


def test_schedules_hold_only_what_they_may() -> None:
    """Steps, settings and endings are among those that were asked for."""
    few = fault_schedules(settings=[Setting.NODE], actions=[Action.EMIT], endings=[Action.REFUSE], max_size=2)

    def is_other(schedule: Schedule) -> bool:
        actions = {step.action for step in schedule.steps}
        named = (schedule.setting, schedule.ending) == (Setting.NODE, Action.REFUSE)
        return not (actions <= {Action.EMIT} and named and len(schedule.steps) <= 2)

    with pytest.raises(NoSuchExample):
        find(few, is_other)


@given(
    st.sampled_from([NamespaceRefusedError("no."), AuthenticationError("no.")]),
    st.lists(st.sampled_from(["retry now", "connect", "emit"]), max_size=10),
)
def test_engine_never_storms_a_server_that_refuses_for_good(error: RealtimeError, asked: list[str]) -> None:
    """A refusal that retrying cannot help is dialled at most twice per user's request."""

    async def main() -> None:
        server = SimulatedServer(refusal=error)
        client = RealtimeService(
            RealtimeConfig(max_reconnect_attempts=3),
            token=lambda: "token",
            transport_factory=server,
            http=SimulatedHttp(),
            random=random.Random(0),  # noqa: S311 - jitter, and the same in every run
            wall=wall_clock(),
        )
        calls: list[asyncio.Future[Any]] = [asyncio.ensure_future(client.connect())]
        await asyncio.sleep(1000)
        requests = 1
        for name in asked:
            if name == "emit":
                calls.append(asyncio.ensure_future(client.emit("n", 1)))
            elif name == "connect":
                requests += 1
                calls.append(asyncio.ensure_future(client.connect()))
            else:
                requests += client.retry_now()
            await asyncio.sleep(1000)
        assert client.status is ConnectionStatus.FAILED
        assert len(server.dials) <= 2 * requests
        await client.disconnect()
        await asyncio.gather(*calls, return_exceptions=True)

    run(main())


def test_engine_never_rests_without_something_running() -> None:
    """In every state that is online, the table names an activity that can end it."""
    for status, traits in TRAITS.items():
        assert not traits.online or any(row.source is status for row in TRANSITIONS)
    assert all(reason for reason in IGNORED.values())
