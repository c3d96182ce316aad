"""A connection without a network: the engine's transport port, on any asyncio loop."""

import asyncio
import copy
import json
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from realtime_fsm.engine.payload import Payload
from realtime_fsm.engine.port import TransportListener
from realtime_fsm.machine.errors import RealtimeError
from realtime_fsm.testing.simulated_wire import Wire

if TYPE_CHECKING:
    from realtime_fsm.testing.simulated_server import SimulatedServer

_CLOSE_TIMEOUT: Final = 1.0
"""Seconds that a cancelled wait for the handlers gets to end."""


class SimulatedTransport:
    """One connection to a ``SimulatedServer``: the engine's ``Transport``.

    What is sent waits to be written, is written in the loop's next turn, and arrives after the latency.

    Args:
        server: What it connects to.
        listener: Told everything.

    Attributes:
        listener: Told everything.
        last_received: When anything last came, on the loop's clock.
        written: How many messages have left for the network.
        welcome: What the server let the client in with.
        closed_with_goodbye: How it was closed; ``None`` while it was not.
    """

    name = "simulated"

    def __init__(self, server: "SimulatedServer", listener: TransportListener) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._unwritten: deque[tuple[Callable[[], None], bool]] = deque()
        self._flushing: asyncio.Handle | None = None
        self._up = Wire(lambda: not server.is_black_hole)
        self._down = Wire(self._may_receive)
        self._thinking = Wire(lambda: True)  # acknowledgements that the server delays
        self._handed = 0
        self._is_open = False
        self._is_paused = False
        self._relief: asyncio.Task[None] | None = None
        self.listener = listener
        self.last_received = self._loop.time()
        self.written = 0
        self.closed_with_goodbye: bool | None = None
        self.welcome: Mapping[str, Any] = {}

    @property
    def room(self) -> int:
        """How many more messages it takes."""
        return self._server.queue_limit - (self._handed - self.written)

    @property
    def is_paused(self) -> bool:
        """Whether reading is held back; a test may set it."""
        return self._is_paused

    @is_paused.setter
    def is_paused(self, paused: bool) -> None:
        self._is_paused = paused
        self._down.resume()

    # For the engine.

    async def open(self, auth: Mapping[str, Any] | None) -> None:
        """Dial: as the server's script says."""
        await self._server.admit(auth)
        self._is_open = True
        self.last_received = self._loop.time()
        self.welcome = self._server.joined(self, auth)

    def send(self, payload: Payload, ack_id: int | None) -> None:
        """Send an event."""
        self._handed += 1
        self._queue(partial(self._arrive, payload, ack_id), counted=True)

    def answer(self, ack_id: int, payload: Payload) -> None:
        """Answer a question of the server."""
        self._queue(lambda: self._server.answers.append((ack_id, decoded(payload))), counted=False)

    def ping(self) -> bool:
        """Ask for a sign of life."""
        if not self._server.can_ping:
            return False
        self._queue(self._pong, counted=False)
        return True

    async def close(self, *, goodbye: bool) -> None:
        """End the connection. A goodbye waits until everything is written; the caller bounds it."""
        if self.closed_with_goodbye is not None:
            return
        self.closed_with_goodbye = goodbye
        was_open = self._is_open
        self._stop_listening()
        delivered = False
        try:
            while goodbye and was_open and self._unwritten:
                self._flush()
                if self._unwritten:
                    await self._server.changed()
            if self._relief is not None:
                await asyncio.wait({self._relief}, timeout=_CLOSE_TIMEOUT)
            delivered = goodbye and was_open and not self._server.is_black_hole
        finally:
            if not delivered:  # what is on its way gets lost, as when a socket is aborted
                self._unwritten.clear()
                self._up.cut()

    # For the server.

    def deliver(self, tell: Callable[[], None]) -> None:
        """Let something reach the client, after the latency and after all that was sent before."""
        if self._is_open:
            self._down.put(partial(self._receive, tell), self._server.delay())

    def deliver_event(self, event: str, args: list[Any], ack_id: int | None = None) -> None:
        """Let an event reach the client; it gets a copy of the arguments."""
        given = copy.deepcopy(args)
        self.deliver(lambda: self.listener.on_event(event, given, ack_id))

    def acknowledge(self, ack_id: int, args: list[Any], *, after: float = 0.0) -> None:
        """Let an acknowledgement reach the client; the server thinks for ``after`` seconds first."""
        if not self._is_open:
            return  # what a client said last is still heard, and its answer has nowhere to go
        given = copy.deepcopy(args)
        tell = partial(self.deliver, lambda: self.listener.on_ack(ack_id, given))
        if after > 0.0:
            self._thinking.put(tell, after)
        else:
            tell()

    def admits(self, token: object) -> bool:
        """Tell whether the server lets somebody in who has this token."""
        return self._server.admits(token)

    def end(self, error: RealtimeError) -> None:
        """Break the connection at once, with all that is under way."""
        if self._is_open:
            self._stop_listening()
            self._unwritten.clear()
            self._up.cut()
            self.listener.on_lost(error)

    def path_changed(self) -> None:
        """Look again at what may pass, because the server's faults have changed."""
        self._up.resume()
        self._down.resume()
        self._flush_soon()

    # Up: queued, written, arrived.

    def _queue(self, arrive: Callable[[], None], *, counted: bool) -> None:
        if self._is_open:
            self._unwritten.append((arrive, counted))
            self._flush_soon()

    def _flush_soon(self) -> None:
        if self._unwritten and self._flushing is None:
            self._flushing = self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Write what waits, unless the path takes nothing."""
        self._flushing = None
        before = self.written
        while self._unwritten and not self._server.is_stalled:
            arrive, counted = self._unwritten.popleft()
            self.written += counted
            self._up.put(arrive, self._server.delay())
        if self._is_open and self.written > before:
            self.listener.on_written()

    def _arrive(self, payload: Payload, ack_id: int | None) -> None:
        event, *args = decoded(payload)
        self._server.take(self, event, args, ack_id)

    def _pong(self) -> None:
        if self._server.answers_pings:
            self.deliver(self.listener.on_pong)

    # Down: arrived, unless reading is held back.

    def _may_receive(self) -> bool:
        if self._is_paused or self._server.is_black_hole:
            return False
        if self.listener.is_congested:
            self._is_paused = True
            self._relief = self._loop.create_task(self._wait_for_relief(), name="simulated transport: relief")
            return False
        return True

    async def _wait_for_relief(self) -> None:
        await self.listener.relieved()
        self.is_paused = False

    def _receive(self, tell: Callable[[], None]) -> None:
        self.last_received = self._loop.time()
        tell()

    def _stop_listening(self) -> None:
        """Let nothing reach the client any more."""
        if self._is_open:
            self._is_open = False
            self._server.left(self)
        self._down.cut()
        self._thinking.cut()
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        if self._relief is not None:
            self._relief.cancel()


def decoded(payload: Payload) -> list[Any]:
    """Return what a payload holds, binary parts included."""

    def restored(value: dict[str, Any]) -> Any:
        return payload.attachments[value["num"]] if value.get("_placeholder") is True else value

    args: list[Any] = json.loads(payload.text, object_hook=restored)
    return args
