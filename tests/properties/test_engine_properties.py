"""The whole engine in virtual time, under random schedules of faults and of what a user does."""

import asyncio
import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import canary
from hypothesis import given
from hypothesis import strategies as st

from realtime_fsm import (
    IGNORED,
    TRAITS,
    TRANSITIONS,
    AuthenticationError,
    ConnectionLostError,
    ConnectionStatus,
    Delivery,
    NamespaceRefusedError,
    OutboxFullError,
    RealtimeConfig,
    RealtimeError,
    RealtimeService,
    ServerUnavailableError,
    ServerUnreachableError,
    StatusChange,
)
from realtime_fsm.testing.simulated_http import SimulatedHttp
from realtime_fsm.testing.simulated_server import SimulatedServer
from realtime_fsm.testing.virtual_loop import run, wall_clock

S = ConnectionStatus
ROWS = {(row.source, row.trigger, row.dest) for row in TRANSITIONS}

PAUSES = st.sampled_from([0.0, 0.005, 0.5, 3.0, 12.0, 36.0])
"""They straddle the latency, the backoff, ``stable_after`` and the heartbeat."""


class Play:
    """One run of a schedule, with everything that must hold in the end."""

    def __init__(self) -> None:
        self.server = SimulatedServer()
        self.http = SimulatedHttp(resources={"/news": lambda _: 1})
        self.config = RealtimeConfig(
            max_reconnect_attempts=3, fallback_endpoints=["news=/news"], outbox_max_messages=50
        )
        self.client = RealtimeService(
            self.config,
            token=canary.token,
            transport_factory=self.server,
            http=self.http,
            random=random.Random(0),  # noqa: S311 - jitter, and the same in every run
            wall=wall_clock(),
        )
        self.changes: list[StatusChange] = []
        self.client.connection_status.subscribe(self.changes.append)
        self.receipts: list[Any] = []
        self.resent: list[int] = []
        self.calls: list[asyncio.Task[Any]] = []

    async def step(self, name: str) -> None:
        """Do one step."""
        if name in SWITCHES:
            SWITCHES[name](self)
        elif name == "disconnect":
            await self.client.disconnect()
        elif name == "subscribe":
            await self.client.subscribe(["news"])
        elif name == "call":
            self.calls.append(asyncio.ensure_future(self.client.call("ask", 1, timeout=20.0)))
        elif name == "connect":
            self.calls.append(asyncio.ensure_future(self.client.connect()))
        else:
            await self.emit(name)

    def switch(self, **state: Any) -> None:
        """Change the simulated server."""
        for name, value in state.items():
            setattr(self.server, name, value)

    def lose_an_ack(self) -> None:
        """Let the next acknowledgement get lost."""
        self.server.swallow_acks += 1

    def fall_back(self, *, forced: bool) -> None:
        """Force or release the fallback, where there is a connection."""
        if self.client.status is not S.DISCONNECTED:
            _ = self.client.force_fallback() if forced else self.client.release_fallback()

    async def emit(self, kind: str) -> None:
        """Emit the next number."""
        delivery = {
            "emit": Delivery.AT_LEAST_ONCE,
            "emit volatile": Delivery.VOLATILE,
            "emit at most once": Delivery.AT_MOST_ONCE,
        }[kind]
        number = len(self.receipts)
        try:
            receipt = await self.client.emit("n", number, delivery=delivery)
        except OutboxFullError:
            return
        self.receipts.append(receipt)
        if delivery is Delivery.AT_LEAST_ONCE:
            self.resent.append(number)

    async def heal(self) -> None:
        """Mend everything, and connect again if it is not tried by itself."""
        for name in ("heal", "speak", "accept", "allow", "flow", "http up"):
            await self.step(name)
        self.server.swallow_acks = 0
        if self.client.status is S.DISCONNECTED:
            await self.client.connect()
        self.client.release_fallback()
        if self.client.gave_up is not None:
            self.client.retry_now()
        await self.client.wait_for(S.CONNECTED, timeout=300.0)

    def check_always(self) -> None:
        """Check what must hold at any moment."""
        metrics = self.client.metrics
        settled = sum(metrics.messages_by_outcome.values())
        assert metrics.messages_accepted == settled + metrics.messages_waiting
        assert metrics.messages_in_flight <= self.config.max_in_flight
        assert self.server.most_links <= 1
        assert metrics.activity_crashes == 0

    def check_changes(self) -> None:
        """Check the whole story."""
        for change in self.changes:
            assert (change.previous, change.trigger, change.current) in ROWS
        for before, after in pairwise(self.changes):
            assert after.previous is before.current
            assert after.epoch > before.epoch
        turns = [change.is_connected for change in self.changes if change.is_connected or change.is_lost]
        assert all(first is not second for first, second in pairwise(turns))
        assert turns[:1] in ([], [True])


SWITCHES: dict[str, Callable[[Play], object]] = {
    "reset": lambda play: play.server.reset(),
    "kick": lambda play: play.server.kick(),
    "hole": lambda play: play.switch(is_black_hole=True),
    "heal": lambda play: play.switch(is_black_hole=False),
    "silence": lambda play: play.switch(is_silent=True),
    "speak": lambda play: play.switch(is_silent=False),
    "stall": lambda play: play.switch(is_stalled=True),
    "flow": lambda play: play.switch(is_stalled=False),
    "refuse": lambda play: play.switch(refusal=ServerUnreachableError("refused.")),
    "overload": lambda play: play.switch(refusal=ServerUnavailableError("503.", retry_after=7.0)),
    "accept": lambda play: play.switch(refusal=None),
    "deny": lambda play: play.switch(accept_tokens=set()),
    "allow": lambda play: play.switch(accept_tokens=None),
    "lose an ack": Play.lose_an_ack,
    "http down": lambda play: setattr(play.http, "refusal", ConnectionLostError("gone.")),
    "http up": lambda play: setattr(play.http, "refusal", None),
    "retry now": lambda play: play.client.retry_now(),
    "force": lambda play: play.fall_back(forced=True),
    "release": lambda play: play.fall_back(forced=False),
}
EMITS = ["emit", "emit volatile", "emit at most once"]
STEPS = st.sampled_from([*SWITCHES, *EMITS, "call", "connect", "disconnect", "subscribe"])
SCHEDULES = st.lists(st.tuples(PAUSES, STEPS), max_size=25)


def play(schedule: list[tuple[float, str]], *, healed: bool) -> Play:
    """Play a schedule to its end in virtual time."""

    async def main() -> Play:
        show = Play()
        for pause, name in [(0.0, "connect"), *schedule]:
            await show.step(name)
            await asyncio.sleep(pause)
            show.check_always()
        if healed:
            await show.heal()
            pending = [receipt for receipt in show.receipts if not receipt.is_settled]
            async with asyncio.timeout(300.0):
                await asyncio.gather(*pending, *show.calls, return_exceptions=True)
            show.check_always()
            assert show.client.metrics.messages_waiting == 0
        await show.client.disconnect()
        await asyncio.gather(*show.calls, return_exceptions=True)
        await asyncio.sleep(0)
        assert not show.server.links
        assert all(receipt.is_settled for receipt in show.receipts)
        show.check_changes()
        return show

    return run(main())


@given(SCHEDULES)
def test_engine_comes_back_and_drains_when_everything_is_healed(schedule: list[tuple[float, str]]) -> None:
    """After any schedule of faults a healed network leads to CONNECTED with an empty outbox."""
    play(schedule, healed=True)


@given(SCHEDULES)
def test_engine_closes_in_the_middle_of_anything(schedule: list[tuple[float, str]]) -> None:
    """A client that is disconnected in the middle of any trouble leaves nothing, and settles everything."""
    play(schedule, healed=False)


@given(SCHEDULES)
def test_engine_plays_the_same_schedule_the_same_way(schedule: list[tuple[float, str]]) -> None:
    """Two plays of one schedule give the same changes, to the instant."""
    first, second = play(schedule, healed=True), play(schedule, healed=True)
    assert [_told(change) for change in first.changes] == [_told(change) for change in second.changes]


@given(st.lists(PAUSES, min_size=1, max_size=40), st.sampled_from(["reset", "kick", "hole"]))
def test_engine_delivers_at_least_once_in_order_through_any_losses(pauses: list[float], fault: str) -> None:
    """What was emitted AT_LEAST_ONCE on a server that acknowledges arrives, first in order of emit."""

    async def main() -> None:
        show = Play()
        await show.client.connect()
        for index, pause in enumerate(pauses):
            await show.step("emit")
            await asyncio.sleep(pause)
            if index % 3 == 2:
                await show.step(fault)
        await show.heal()
        await asyncio.gather(*show.receipts)
        seen = list(dict.fromkeys(show.server.received_of("n")))
        assert seen == list(range(len(show.receipts)))
        await show.client.disconnect()

    run(main())


@given(st.sampled_from([NamespaceRefusedError("no."), AuthenticationError("no.")]), SCHEDULES)
def test_engine_never_storms_a_server_that_refuses_for_good(
    error: RealtimeError, schedule: list[tuple[float, str]]
) -> None:
    """A refusal that retrying cannot help is dialled at most twice per user's request."""

    async def main() -> None:
        show = Play()
        show.server.refusal = error
        asked = 1
        show.calls.append(asyncio.ensure_future(show.client.connect()))
        await asyncio.sleep(1000)
        for _, name in schedule:
            if name in {"retry now", "connect"}:
                asked += 1
                await show.step(name)
                await asyncio.sleep(1000)
        probes = sum(1 for change in show.changes if change.current is S.FALLBACK)
        assert probes == 0 or not isinstance(error, AuthenticationError)
        if not probes:
            assert len(show.server.dials) <= 2 * asked
        await show.client.disconnect()
        await asyncio.gather(*show.calls, return_exceptions=True)

    run(main())


def _told(change: StatusChange) -> tuple[Any, ...]:
    return change.previous, change.trigger, change.current, change.at, change.retry_in, change.reason


def test_engine_never_rests_without_something_running() -> None:
    """In every state that is online, the table names an activity that can end it."""
    for status, traits in TRAITS.items():
        assert not traits.online or any(row.source is status for row in TRANSITIONS)
    assert all(reason for reason in IGNORED.values())
