"""A client, a simulated server and a simulated HTTP side, in virtual time."""

import asyncio
import random
from typing import Any, Final, Self

import canary

from realtime_fsm import ConnectionStatus, Outbox, RealtimeConfig, RealtimeService, StatusChange, TokenSource
from realtime_fsm.testing.simulated.http import SimulatedHttp
from realtime_fsm.testing.simulated.server import SimulatedServer
from realtime_fsm.testing.virtual_loop import wall_clock

TOKEN: Final = canary.token("world")


class World:
    """Everything a test of the engine needs; leaving it disconnects the client.

    Args:
        token: Where tokens come from; by default always the same one, which must never be seen.
        outbox: Where messages are kept; by default in memory.
        ahead: Seconds by which the client's wall clock is ahead.
        config: Fields of the configuration.
    """

    def __init__(
        self,
        *,
        token: TokenSource | None = TOKEN,
        outbox: Outbox | None = None,
        ahead: float = 0.0,
        **config: Any,
    ) -> None:
        true = wall_clock()
        self.server = SimulatedServer()
        self.http = SimulatedHttp()
        self.config = RealtimeConfig(**config)
        self.client = RealtimeService(
            self.config,
            token=token,
            transport_factory=self.server,
            http=self.http,
            outbox=outbox,
            random=random.Random(7),  # noqa: S311 - jitter, and the same in every run
            wall=lambda: true() + ahead,
        )
        self.changes: list[StatusChange] = []
        self.client.connection_status.subscribe(self.changes.append)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.disconnect(drain=False)
        await asyncio.sleep(0)  # callbacks run in the loop's next turn

    @property
    def now(self) -> float:
        """The loop's clock."""
        return asyncio.get_running_loop().time()

    @property
    def path(self) -> list[str]:
        """The states that were entered, in order."""
        return [str(change.current) for change in self.changes]

    async def until(self, status: ConnectionStatus, within: float = 1000.0) -> float:
        """Wait for a status; return how long it took."""
        began = self.now
        await self.client.wait_for(status, timeout=within)
        await asyncio.sleep(0)
        return self.now - began
