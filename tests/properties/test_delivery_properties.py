"""Nothing lost, nothing twice, in order: the whole engine under random faults and crashes of its process."""

import asyncio
import random
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from realtime_fsm import (
    ConnectionLostError,
    ConnectionStatus,
    Dialect,
    Missed,
    OutboxStorageError,
    Position,
    RealtimeConfig,
    RealtimeService,
    ServerUnreachableError,
)
from realtime_fsm.testing.simulated_backend import SimulatedBackend
from realtime_fsm.testing.simulated_http import SimulatedHttp
from realtime_fsm.testing.simulated_outbox import SimulatedDisk, SimulatedOutbox
from realtime_fsm.testing.simulated_server import SimulatedServer
from realtime_fsm.testing.virtual_loop import run, wall_clock

PAUSES = st.sampled_from([0.0, 0.004, 0.012, 0.5, 3.0, 12.0])
"""They straddle a commit, the latency, the polls, the backoff and ``stable_after``."""


class Application:
    """What a user builds on the client: it emits numbers, and mirrors the numbers of a channel."""

    def __init__(self) -> None:
        self.server = SimulatedServer()
        self.backend = SimulatedBackend(handlers={"n": lambda n: n, "snapshot": self.snapshot}, log_size=6)
        self.http = SimulatedHttp()
        self.server.backend = self.http.backend = self.backend
        self.disk = SimulatedDisk()
        self.accepted: list[int] = []
        self.emitting: set[asyncio.Task[None]] = set()
        self.published = 0
        self.next_number = 0
        self.start()

    def start(self) -> None:
        """Start the process: a new client on the old disk, with a mirror that is empty."""
        self.mirror: list[int] | None = None  # until the first snapshot
        self.outbox = SimulatedOutbox(self.disk)
        self.client = RealtimeService(
            RealtimeConfig(
                dialect=Dialect.REFERENCE,
                max_reconnect_attempts=2,
                backoff_base=0.3,
                backoff_maximum=1.0,
                stable_after=2.0,
                heartbeat_interval=5.0,
                heartbeat_timeout=2.0,
                connection_timeout=3.0,
                fallback_polling_interval=1.0,
                reconnect_interval=2.0,
                request_timeout=3.0,
                ack_timeout=60.0,
                max_in_flight=4,
                max_delivery_attempts=1000,
            ),
            transport_factory=self.server,
            http=self.http,
            outbox=self.outbox,
            random=random.Random(0),  # noqa: S311 - jitter, and the same in every run
            wall=wall_clock(),
        )
        self.client.on("tick", self.hear)
        self.client.on_resync(self.load)

    def hear(self, number: int) -> None:
        """Mirror a number; it must be the next one."""
        assert self.mirror is not None
        assert number == (self.mirror[-1] if self.mirror else 0) + 1, (number, self.mirror)
        self.mirror.append(number)

    def snapshot(self) -> dict[str, Any]:
        """Return what the mirror should hold, and its place."""
        return {"numbers": list(range(1, self.published + 1)), **self.backend.position("ticks")}

    async def load(self, _: Missed) -> Position:
        """Load the mirror anew."""
        answer = await self.client.call("snapshot", timeout=10_000.0)
        self.mirror = answer["numbers"]
        return Position(epoch=answer["epoch"], offset=answer["offset"])

    async def step(self, name: str) -> None:
        """Do one step."""
        if name == "emit":
            task = asyncio.create_task(self.emit())
            self.emitting.add(task)
            task.add_done_callback(self.emitting.discard)
        elif name == "publish":
            self.published += 1
            self.backend.publish("ticks", "tick", self.published)
        elif name == "crash":
            await self.crash()
        else:
            FAULTS[name](self)

    async def emit(self) -> None:
        """Emit the next number; note it when it was accepted."""
        self.next_number += 1
        number = self.next_number
        try:
            await self.client.emit("n", number)
        except OutboxStorageError:
            return
        self.accepted.append(number)

    async def crash(self) -> None:
        """End the process without a goodbye, and start it again."""
        self.disk.crash()
        for task in (*self.emitting, self.connecting):
            task.cancel()
        await asyncio.wait({*self.emitting, self.connecting})
        self.server.reset()
        await self.client.disconnect(drain=False)  # what is left of the old process: nobody counts on it
        self.start()
        await self.begin()

    async def begin(self) -> None:
        """Do what the application does first: subscribe, and connect in the background."""
        self.mirror = None
        await self.client.subscribe(["ticks"])
        self.connecting = asyncio.create_task(self.client.connect())
        self.connecting.add_done_callback(_retrieve)
        # The first snapshot: the place that it stands for is where the channel is to go on.
        self.mirror = list(range(1, self.published + 1))
        place = self.backend.position("ticks")
        self.client._subscriptions.get("ticks").position = Position(**place)  # type: ignore[union-attr]

    async def heal(self) -> None:
        """Mend everything, and wait until all is delivered."""
        for name in ("accept", "heal", "flow", "http up", "disk free"):
            await self.step(name)
        self.server.swallow_acks = 0
        self.backend.lose_next("ticks", 0)  # a lost event shows when another one follows
        if self.client.gave_up is not None:
            self.client.retry_now()
        await self.client.wait_for(ConnectionStatus.CONNECTED, timeout=300.0)
        await self.step("emit")
        await self.step("publish")
        async with asyncio.timeout(600.0):
            while self.client.metrics.messages_waiting or self.emitting or self.is_behind:  # noqa: ASYNC110
                await asyncio.sleep(0.5)

    @property
    def is_behind(self) -> bool:
        """Whether the mirror lacks something."""
        return self.mirror is None or len(self.mirror) < self.published

    def check(self) -> None:
        """Check the promises."""
        applied = [message.args[0] for message in self.backend.handled if message.event == "n"]
        assert set(self.accepted) <= set(applied), "lost"
        assert applied == sorted(set(applied)), "repeated or out of order"
        assert self.mirror == list(range(1, self.published + 1))


def _retrieve(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()


def switch(**state: Any) -> Callable[[Application], None]:
    """Return a step that changes the simulated server."""

    def do(app: Application) -> None:
        for name, value in state.items():
            setattr(app.server, name, value)

    return do


def lose_an_ack(app: Application) -> None:
    """Let the next acknowledgement get lost."""
    app.server.swallow_acks += 1


def lose_an_event(app: Application) -> None:
    """Let the next event get lost on the way."""
    app.backend.lose_next("ticks", 1)


def lose_the_log(app: Application) -> None:
    """Let the backend start anew without its log, but with its application's data and marks."""
    app.backend.restart()
    app.server.reset()


FAULTS: dict[str, Callable[[Application], object]] = {
    "reset": lambda app: app.server.reset(),
    "kick": lambda app: app.server.kick(),
    "hole": switch(is_black_hole=True),
    "heal": switch(is_black_hole=False),
    "stall": switch(is_stalled=True),
    "flow": switch(is_stalled=False),
    "refuse": switch(refusal=ServerUnreachableError("refused.")),
    "accept": switch(refusal=None),
    "lose an ack": lose_an_ack,
    "lose an event": lose_an_event,
    "lose the log": lose_the_log,
    "http down": lambda app: setattr(app.http, "refusal", ServerUnreachableError("gone.")),
    "http cut": lambda app: setattr(app.http, "refusal", ConnectionLostError("cut off.")),
    "http up": lambda app: setattr(app.http, "refusal", None),
    "disk full": lambda app: setattr(app.outbox, "is_full", True),
    "disk free": lambda app: setattr(app.outbox, "is_full", False),
}
STEPS = st.sampled_from([*FAULTS, *["emit"] * 6, *["publish"] * 6, "crash"])
SCHEDULES = st.lists(st.tuples(PAUSES, STEPS), max_size=40)


@given(SCHEDULES)
def test_delivery_loses_nothing_and_repeats_nothing(schedule: list[tuple[float, str]]) -> None:
    """Whatever happens, accepted messages take effect once, in order, and the mirror is complete."""

    async def main() -> None:
        app = Application()
        await app.begin()
        for pause, name in schedule:
            await app.step(name)
            await asyncio.sleep(pause)
        await app.heal()
        app.check()
        await app.client.disconnect()
        assert not app.disk.waiting

    run(main())
