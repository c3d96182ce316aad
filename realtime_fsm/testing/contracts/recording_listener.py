"""Who listens to a transport under test: keeps what it is told, and what it should not have been told."""

import asyncio
from typing import Any

from realtime_fsm.machine.errors import RealtimeError


class RecordingListener:
    """The port ``TransportListener``.

    Attributes:
        told: Everything, in order: ``("event", name, args, ack_id)``, ``("ack", ack_id, args)``,
            ``("pong",)``, ``("written",)``, ``("malformed", error)``, ``("lost", error)``.
        is_congested: Whether nothing more may be read from the network.
        offences: What no transport may do, whatever the law: tell something on another thread, or after the
            loss.
    """

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.is_congested = False
        self.offences: list[str] = []
        self._loop = asyncio.get_running_loop()
        self._relief = asyncio.Event()

    def on_event(self, name: str, args: list[Any], ack_id: int | None) -> None:
        """Keep it."""
        self._note("event", name, args, ack_id)

    def on_ack(self, ack_id: int, args: list[Any]) -> None:
        """Keep it."""
        self._note("ack", ack_id, args)

    def on_pong(self) -> None:
        """Keep it."""
        self._note("pong")

    def on_written(self) -> None:
        """Keep it."""
        self._note("written")

    def on_malformed(self, error: RealtimeError) -> None:
        """Keep it."""
        self._note("malformed", error)

    def on_lost(self, error: RealtimeError) -> None:
        """Keep it."""
        self._note("lost", error)

    async def relieved(self) -> None:
        """Wait for ``relieve``."""
        await self._relief.wait()

    def relieve(self) -> None:
        """End the congestion."""
        self.is_congested = False
        self._relief.set()

    def of(self, kind: str) -> list[tuple[Any, ...]]:
        """Return what was told of one kind, in order."""
        return [what[1:] for what in self.told if what[0] == kind]

    def _note(self, *what: Any) -> None:
        if self.of("lost"):
            self.offences.append(f"{what[0]} is told after the loss")
        try:
            here: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is not self._loop:
            self.offences.append(f"{what[0]} is not told on the loop's thread")
        self.told.append(what)
