"""A server without a network: the engine's transport port, scripted and observed, on any asyncio loop."""

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from attrs import define, field

from realtime_fsm.engine.payload import Payload
from realtime_fsm.engine.port import TransportListener
from realtime_fsm.machine.errors import (
    AuthenticationError,
    ConnectionLostError,
    RealtimeError,
    ServerDisconnectError,
)

_ROOM: Final = 64
_TICK: Final = 1e-7
"""Seconds between two frames at least."""

Acknowledge = Callable[[str, list[Any]], list[Any] | None]
"""What a server answers an event that wants it: the arguments, or ``None`` for no answer."""


def echo(event: str, args: list[Any]) -> list[Any] | None:
    """Acknowledge everything with its own arguments, but the heartbeat, as a plain server would."""
    return None if event == "heartbeat" else args


@define(eq=False)
class SimulatedServer:
    """A scripted server. Use it as the ``transport_factory`` of a client; change its attributes at any time.

    Attributes:
        latency: Seconds each way.
        refusal: Raised by every dial, or ``None``.
        is_silent: Accepts dials and never answers them.
        is_black_hole: Closes nothing and forwards nothing, either way; a healed one forgets what it held.
        is_stalled: Takes nothing from the client any more: what is sent stays unwritten.
        answers_pings: Answers the pings of the transport.
        can_ping: Whether the transport has pings at all; one over polling has not.
        acknowledge: What is answered to events that want it.
        swallow_acks: How many of the next acknowledgements get lost.
        accept_tokens: Tokens that are let in, or ``None`` for everybody.
        token_key: Key of the token in the auth object.
        dials: The auth object of every dial.
        received: Every event that arrived, ``(name, arguments)``, in order.
        answers: Every answer to the server's own questions, ``(id, arguments)``.
        links: The connections that are live now.
        most_links: The most that were live at the same time.
    """

    latency: float = 0.01
    refusal: RealtimeError | None = None
    is_silent: bool = False
    is_black_hole: bool = False
    is_stalled: bool = False
    answers_pings: bool = True
    can_ping: bool = True
    acknowledge: Acknowledge = echo
    swallow_acks: int = 0
    accept_tokens: set[str] | None = None
    token_key: str = "token"  # noqa: S105 - the name of a key
    dials: list[Mapping[str, Any] | None] = field(factory=list)
    received: list[tuple[str, list[Any]]] = field(factory=list)
    answers: list[tuple[int, list[Any]]] = field(factory=list)
    links: "list[SimulatedTransport]" = field(factory=list)
    most_links: int = 0

    def __call__(self, listener: TransportListener) -> "SimulatedTransport":
        """Return an unopened transport: this is the engine's ``TransportFactory``."""
        return SimulatedTransport(self, listener)

    def emit(self, event: str, *args: Any, ack_id: int | None = None) -> None:
        """Send an event to every client that is connected."""
        for link in list(self.links):
            link.deliver(lambda link=link: link.listener.on_event(event, list(args), ack_id))  # type: ignore[misc]

    def reset(self, error: RealtimeError | None = None) -> None:
        """Break every connection, as a TCP reset would."""
        for link in list(self.links):
            link.end(error or ConnectionLostError("The connection was reset."))

    def kick(self) -> None:
        """Disconnect every client on purpose."""
        self.reset(ServerDisconnectError("The server disconnected the client."))

    def received_of(self, event: str) -> list[Any]:
        """Return the first argument of every event of a name that arrived, in order."""
        return [args[0] if args else None for name, args in self.received if name == event]


class SimulatedTransport:
    """One connection to a ``SimulatedServer``: the engine's ``Transport``.

    Args:
        server: What it connects to.
        listener: Told everything.
    """

    name = "simulated"
    is_paused = False

    def __init__(self, server: SimulatedServer, listener: TransportListener) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._handed = 0
        self._last_up = self._last_down = 0.0
        self._is_open = False
        self.listener = listener
        self.last_received = self._loop.time()
        self.written = 0
        self.closed_with_goodbye: bool | None = None

    @property
    def room(self) -> int:
        """How many more messages it takes."""
        return _ROOM - (self._handed - self.written)

    async def open(self, auth: Mapping[str, Any] | None) -> None:
        """Dial: as the server's script says."""
        server = self._server
        server.dials.append(auth)
        await asyncio.sleep(2 * server.latency)
        while server.is_silent or server.is_black_hole:  # noqa: ASYNC110 - a script may change it
            await asyncio.sleep(3600.0)
        if server.refusal is not None:
            raise server.refusal
        token = (auth or {}).get(server.token_key)
        if server.accept_tokens is not None and token not in server.accept_tokens:
            raise AuthenticationError("The server refuses the token.")
        self._is_open = True
        self.last_received = self._loop.time()
        server.links.append(self)
        server.most_links = max(server.most_links, len(server.links))

    def send(self, payload: Payload, ack_id: int | None) -> None:
        """Send an event."""
        self._handed += 1
        self._write(lambda: self._arrive(payload, ack_id), counted=True)

    def answer(self, ack_id: int, payload: Payload) -> None:
        """Answer a question of the server."""
        self._write(lambda: self._server.answers.append((ack_id, json.loads(payload.text))), counted=False)

    def ping(self) -> bool:
        """Ask for a sign of life."""
        if not self._server.can_ping:
            return False
        if self._server.answers_pings and not self._server.is_stalled:
            self._send_up(lambda: self.deliver(self.listener.on_pong))
        return True

    async def close(self, *, goodbye: bool) -> None:
        """End the connection."""
        if self.closed_with_goodbye is None:
            self.closed_with_goodbye = goodbye
        self._is_open = False
        if self in self._server.links:
            self._server.links.remove(self)

    def deliver(self, tell: Callable[[], None]) -> None:
        """Let something reach the client after the latency, unless the path is dead by then."""
        # The loop does not keep the order of timers of the same time; a connection does.
        self._last_down = max(self._loop.time() + self._server.latency, self._last_down + _TICK)
        self._loop.call_at(self._last_down, self._tell, tell)

    def end(self, error: RealtimeError) -> None:
        """Break the connection."""
        if self._is_open:
            self._is_open = False
            self._server.links.remove(self)
            self.listener.on_lost(error)

    def _tell(self, tell: Callable[[], None]) -> None:
        if self._is_open and not self._server.is_black_hole:
            self.last_received = self._loop.time()
            tell()

    def _write(self, arrive: Callable[[], None], *, counted: bool) -> None:
        if self._is_open and not self._server.is_stalled:
            self._loop.call_soon(self._written, counted)
            self._send_up(arrive)

    def _send_up(self, arrive: Callable[[], None]) -> None:
        self._last_up = max(self._loop.time() + self._server.latency, self._last_up + _TICK)
        self._loop.call_at(self._last_up, self._pass, arrive)

    def _written(self, counted: bool) -> None:
        self.written += counted
        if self._is_open and counted:
            self.listener.on_written()

    def _pass(self, arrive: Callable[[], None]) -> None:
        if self._is_open and not self._server.is_black_hole:
            arrive()

    def _arrive(self, payload: Payload, ack_id: int | None) -> None:
        event, *args = json.loads(payload.text)
        server = self._server
        server.received.append((event, args))
        answer = None if ack_id is None else server.acknowledge(event, args)
        if ack_id is None or answer is None:
            return
        if server.swallow_acks > 0:
            server.swallow_acks -= 1
            return
        self.deliver(lambda: self.listener.on_ack(ack_id, answer))
