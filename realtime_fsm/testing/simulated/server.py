"""A server without a network: what the engine's transports connect to, scripted and observed."""

import asyncio
import copy
import json
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from random import Random
from typing import Any, Final

from attrs import define, field, frozen

from realtime_fsm.engine.payload import Payload
from realtime_fsm.engine.port import TransportListener
from realtime_fsm.machine.dialect import Dialect
from realtime_fsm.machine.errors import (
    AuthenticationError,
    ConnectionLostError,
    RealtimeError,
    ServerDisconnectError,
)
from realtime_fsm.testing.simulated.backend import SimulatedBackend
from realtime_fsm.testing.simulated.sessions import SimulatedSessions

MAX_FRAMES: Final = 100_000
"""Frames under way at most: a program that goes on sending into a dead connection is told so."""

_FRAME_BYTES: Final = 8
"""What a frame has beside its payload."""


class Wire:
    """Carries frames one way: each comes out after its delay, never before the one in front of it.

    A frame is a callable, and its arrival is the call. While nothing may pass, all wait.

    Args:
        may_pass: Whether frames come out now; ask for another look by ``resume``.
    """

    def __init__(self, may_pass: Callable[[], bool]) -> None:
        self._loop = asyncio.get_running_loop()
        self._may_pass = may_pass
        self._frames: deque[tuple[float, Callable[[], None]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def put(self, frame: Callable[[], None], delay: float) -> None:
        """Send a frame, to arrive in ``delay`` seconds.

        Raises:
            RuntimeError: If too many are under way already.
        """
        if len(self._frames) >= MAX_FRAMES:
            raise RuntimeError(f"{MAX_FRAMES} frames are under way on a connection that does not move.")
        self._frames.append((self._loop.time() + delay, frame))
        self.resume()

    def resume(self) -> None:
        """Go on, if frames may pass again: the ones that are overdue come out at once."""
        if self._timer is None and self._frames and self._may_pass():
            self._timer = self._loop.call_at(self._frames[0][0], self._run)

    def cut(self) -> None:
        """Lose everything that is under way."""
        self._frames.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _run(self) -> None:
        self._timer = None
        now = self._loop.time()
        try:
            while self._frames and self._frames[0][0] <= now and self._may_pass():
                self._frames.popleft()[1]()
        finally:
            self.resume()


class SimulatedTransport:
    """One connection to a ``SimulatedServer``: the engine's ``Transport``.

    What is sent waits to be written, is written in the loop's next turn, and arrives after the latency. On a
    connection without pings, which is one over polling, it counts as written once that has been answered.

    Args:
        server: What it connects to.
        listener: Told everything.

    Attributes:
        listener: Told everything.
        last_received: When anything last came, on the loop's clock.
        written: How many messages have left for the network.
        welcome: What the server let the client in with.
        closed_with_goodbye: How it was closed; ``None`` while it was not.
        has_spoken: Whether any event of the program has arrived over it.
    """

    name = "simulated"

    def __init__(self, server: "SimulatedServer", listener: TransportListener) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._unwritten: deque[tuple[Callable[[], None], bool, int]] = deque()
        self._flushing: asyncio.Handle | None = None
        self._busy_until = 0.0  # the time that a slow way up needs for what was written
        self._up = Wire(lambda: not (server.is_black_hole or server.is_deaf))
        self._down = Wire(lambda: not server.is_black_hole)
        self._thinking = Wire(lambda: True)  # acknowledgements that the server delays
        self._handed = 0
        self._is_open = False
        self.has_spoken = False
        self.listener = listener
        self.last_received = self._loop.time()
        self.written = 0
        self.closed_with_goodbye: bool | None = None
        self.welcome: Mapping[str, Any] = {}

    @property
    def room(self) -> int:
        """The number of messages that it still takes."""
        return self._server.queue_limit - (self._handed - self.written)

    # For the engine.

    async def open(self, auth: Mapping[str, Any] | None) -> None:
        """Dial: as the server's script says."""
        await self._server.admit(auth)
        self._is_open = True
        self.last_received = self._loop.time()
        self.welcome = self._server.joined(self, auth)

    def send(self, payload: Payload, ack_id: int | None) -> None:
        """Send an event in the loop's next turn."""
        self._handed += 1
        self._queue(partial(self._arrive, payload, ack_id), counted=True, size=payload.size_bytes)

    def answer(self, ack_id: int, payload: Payload) -> None:
        """Answer a question of the server."""
        self._queue(lambda: self._server.answers.append((ack_id, decoded(payload))), counted=False)

    def ping(self, number: int) -> bool:
        """Ask for a sign of life."""
        if not self._server.can_ping:
            return False
        self._queue(partial(self._pong, number), counted=False)
        return True

    async def close(self, *, goodbye: bool) -> None:
        """End the connection. A goodbye waits until everything is written; the caller bounds it."""
        if self.closed_with_goodbye is not None:
            return
        self.closed_with_goodbye = goodbye
        was_open = self._is_open
        self._stop_listening(lingers=self._server.lingers)
        delivered = False
        try:
            while goodbye and was_open and self._unwritten:
                self._flush()
                if self._unwritten:
                    await self._server.changed()
            delivered = goodbye and was_open and not (self._server.is_black_hole or self._server.is_deaf)
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
        size = len(repr(given))  # about what it would take on a wire
        self.deliver(partial(self._tell_event, event, given, ack_id, size))

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

    def _queue(self, arrive: Callable[[], None], *, counted: bool, size: int = 0) -> None:
        if self._is_open:
            self._unwritten.append((arrive, counted, size))
            self._flush_soon()

    def _flush_soon(self) -> None:
        if self._unwritten and self._flushing is None:
            self._flushing = self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Write what waits, unless the path takes nothing."""
        self._flushing = None
        before, now, rate = self.written, self._loop.time(), self._server.uplink_rate
        while self._unwritten and not self._server.is_stalled:
            if rate is not None and self._busy_until > now:
                self._flushing = self._loop.call_at(self._busy_until, self._flush)
                break
            arrive, counted, size = self._unwritten.popleft()
            if rate is not None:
                self._busy_until = now + (size + _FRAME_BYTES) / rate
            taken = max(0.0, self._busy_until - now) + self._server.delay()
            if self._server.can_ping:
                self.written += counted
                self._up.put(arrive, taken)
            else:
                self._up.put(partial(self._post, arrive, counted), taken)
        if self._is_open and self.written > before:
            self.listener.on_written()

    def _post(self, arrive: Callable[[], None], counted: bool) -> None:
        """Let the body of a request arrive, and answer it."""
        arrive()
        if counted:
            self.deliver(self._posted)

    def _posted(self) -> None:
        self.written += 1
        self.listener.on_written()

    def _arrive(self, payload: Payload, ack_id: int | None) -> None:
        event, *args = decoded(payload)
        self._server.take(self, event, args, ack_id)

    def _pong(self, number: int) -> None:
        if self._server.answers_pings:
            self.deliver(partial(self.listener.on_pong, number))

    # Down: arrived.

    def _receive(self, tell: Callable[[], None]) -> None:
        self.last_received = self._loop.time()
        tell()

    def _tell_event(self, event: str, args: list[Any], ack_id: int | None, size: int) -> None:
        if self._is_open:
            self._server.told.append((event, args))
        self.listener.on_event(event, args, ack_id, size)

    def _stop_listening(self, *, lingers: bool = False) -> None:
        """Let nothing reach the client any more, unless it lingers: what is on its way arrives then."""
        if self._is_open:
            self._is_open = False
            self._server.left(self)
        if not lingers:
            self._down.cut()
        self._thinking.cut()
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None


def decoded(payload: Payload) -> list[Any]:
    """Return what a payload holds, binary parts included."""

    def restored(value: dict[str, Any]) -> Any:
        return payload.attachments[value["num"]] if value.get("_placeholder") is True else value

    args: list[Any] = json.loads(payload.text, object_hook=restored)
    return args


Acknowledge = Callable[[str, list[Any]], list[Any] | None]
"""The answer of a server to an event that wants one: the arguments, or ``None`` for no answer."""


def echo(event: str, args: list[Any]) -> list[Any] | None:
    """Acknowledge everything with its own arguments, but the heartbeat, as a plain server would."""
    return None if event == Dialect.PLAIN.heartbeat_event else args


def echo_only(*events: str) -> Acknowledge:
    """Return a rule that acknowledges these events with their own arguments, and no others."""
    return lambda event, args: args if event in events else None


silence: Final = echo_only()
"""Acknowledge nothing, as a server whose handlers never call back."""


@frozen(kw_only=True)
class Accept:
    """A dial succeeds, if its token is accepted.

    Attributes:
        after: Seconds it takes; by default the server's latency, both ways.
    """

    after: float | None = None


@frozen
class Refuse:
    """A dial fails.

    Attributes:
        error: Why.
    """

    error: RealtimeError


@frozen
class Hang:
    """A dial is accepted, and never answered."""


DialOutcome = Accept | Refuse | Hang


@define(eq=False)
class SimulatedServer:
    """A scripted server. Use it as the ``transport_factory`` of a client; change its attributes at any time.

    Attributes:
        latency: Seconds each way.
        jitter: Up to so many seconds more, at random; the order is kept.
        random: Where the jitter comes from.
        script: Outcomes of the next dials, used up one by one; then ``refusal`` and ``is_silent`` decide.
        refusal: Raised by every dial that is not scripted, or ``None``.
        is_silent: Accepts dials that are not scripted, and does not answer them until it is ``False`` again.
        is_black_hole: Closes nothing and forwards nothing, either way. What is on its way waits: healed, it
            arrives; where the connection is given up meanwhile, it is lost.
        is_stalled: Takes nothing from the client any more: what is sent stays unwritten until it does again.
        is_deaf: Hears nothing of the client any more, while what it says still arrives: the way up is dead.
            What is on its way up waits, as in a black hole; dials get no answer.
        uplink_rate: Bytes that the way up of each connection takes in a second; ``None`` for any number.
        lingers: Tells what was on its way also on a connection that the client has closed meanwhile.
        queue_limit: Messages that may be unwritten on one connection.
        answers_pings: Answers the pings of the transport.
        can_ping: Whether the transport has pings at all; one over polling has not.
        acknowledge: What is answered to events that want it, where there is no ``backend``.
        acks_heartbeat: Whether the heartbeat event is answered; ``None`` leaves it to ``acknowledge``.
        ack_delay: Seconds the server thinks before it acknowledges anything but the heartbeat.
        swallow_acks: How many of the next acknowledgements get lost.
        accept_tokens: Tokens that are let in, or ``None`` for everybody.
        token_key: Key of the token in the auth object.
        sessions: Recovers the sessions of clients that come back; ``None`` for a server that does not.
        backend: Answers events as the reference backend does; ``None`` for a plain server.
        dials: The auth object of every dial.
        received: Every event that arrived, ``(name, arguments)``, in order.
        told: Every event that has reached a client over a live connection, ``(name, arguments)``, in order.
        answers: Every answer to the server's own questions, ``(id, arguments)``.
        first_heard: The first event of every connection but heartbeats and renewed tokens, in order.
        links: The connections that are live now.
        most_links: The most that were live at the same time.
    """

    latency: float = 0.01
    jitter: float = 0.0
    random: Random | None = None
    script: deque[DialOutcome] = field(factory=deque, converter=deque)
    refusal: RealtimeError | None = None
    _is_silent: bool = False
    _is_black_hole: bool = False
    _is_stalled: bool = False
    lingers: bool = field(default=False, kw_only=True)
    _is_deaf: bool = field(default=False, kw_only=True)
    _uplink_rate: float | None = field(default=None, kw_only=True)
    queue_limit: int = 64
    answers_pings: bool = True
    can_ping: bool = True
    acknowledge: Acknowledge = echo
    acks_heartbeat: bool | None = None
    ack_delay: float = 0.0
    swallow_acks: int = 0
    accept_tokens: set[str] | None = None
    token_key: str = "token"  # noqa: S105 - the name of a key
    sessions: SimulatedSessions | None = None
    backend: SimulatedBackend | None = None
    dials: list[Mapping[str, Any] | None] = field(factory=list)
    received: list[tuple[str, list[Any]]] = field(factory=list)
    told: list[tuple[str, list[Any]]] = field(factory=list)
    answers: list[tuple[int, list[Any]]] = field(factory=list)
    first_heard: list[str] = field(factory=list)
    links: list[SimulatedTransport] = field(factory=list)
    most_links: int = 0
    _waiting: dict["asyncio.Future[None]", None] = field(factory=dict, init=False)  # in order

    def __call__(self, listener: TransportListener) -> SimulatedTransport:
        """Return an unopened transport: this is the engine's ``TransportFactory``."""
        return SimulatedTransport(self, listener)

    # Faults that can end, and then set free what waits.

    @property
    def is_silent(self) -> bool:
        """True while dials that are not scripted are accepted, and not answered."""
        return self._is_silent

    @is_silent.setter
    def is_silent(self, enabled: bool) -> None:
        self._is_silent = enabled
        self._tell_change()

    @property
    def is_black_hole(self) -> bool:
        """True while nothing is closed and nothing forwarded, either way."""
        return self._is_black_hole

    @is_black_hole.setter
    def is_black_hole(self, enabled: bool) -> None:
        self._is_black_hole = enabled
        self._tell_change()

    @property
    def is_stalled(self) -> bool:
        """True while nothing is taken from the client."""
        return self._is_stalled

    @is_stalled.setter
    def is_stalled(self, enabled: bool) -> None:
        self._is_stalled = enabled
        self._tell_change()

    @property
    def is_deaf(self) -> bool:
        """True while nothing of the client arrives any more, and what the server says still does."""
        return self._is_deaf

    @is_deaf.setter
    def is_deaf(self, enabled: bool) -> None:
        self._is_deaf = enabled
        self._tell_change()

    @property
    def uplink_rate(self) -> float | None:
        """The bytes that the way up takes in a second; ``None`` for any number."""
        return self._uplink_rate

    @uplink_rate.setter
    def uplink_rate(self, rate: float | None) -> None:
        self._uplink_rate = rate
        self._tell_change()

    # What a test does with it.

    @property
    def live_links(self) -> int:
        """The number of connections that are live now."""
        return len(self.links)

    def emit(self, event: str, *args: Any, ack_id: int | None = None, volatile: bool = False) -> None:
        """Send an event to every client; what is volatile or wants an answer is not kept for a recovery."""
        given = list(args)
        if self.sessions is not None and ack_id is None and not volatile:
            given = self.sessions.store(event, given)
        for link in list(self.links):
            link.deliver_event(event, given, ack_id)

    def reset(self, error: RealtimeError | None = None) -> None:
        """Break every connection at once, as a TCP reset would: what is under way is lost."""
        for link in list(self.links):
            link.end(error or ConnectionLostError("The connection was reset."))

    def kick(self) -> None:
        """Disconnect every client on purpose, as the last thing that they are told."""
        for link in list(self.links):
            link.deliver(lambda link=link: link.end(_kicked()))  # type: ignore[misc]

    def received_of(self, event: str) -> list[Any]:
        """Return the first argument of every event of a name that arrived, in order."""
        return [args[0] if args else None for name, args in self.received if name == event]

    # For its connections.

    async def admit(self, auth: Mapping[str, Any] | None) -> None:
        """Let somebody in, as the script says.

        Raises:
            RealtimeError: As scripted, or because the token is not accepted.
        """
        self.dials.append(auth)
        outcome = self.script.popleft() if self.script else None
        after = outcome.after if isinstance(outcome, Accept) else None
        await asyncio.sleep(self.delay() + self.delay() if after is None else after)
        hangs = isinstance(outcome, Hang)
        while hangs or self.is_black_hole or self.is_deaf or (self.is_silent and outcome is None):
            await self.changed()
        error = outcome.error if isinstance(outcome, Refuse) else self.refusal if outcome is None else None
        if error is not None:
            raise error.with_traceback(None)  # or the traceback would grow with every dial
        if not self.admits((auth or {}).get(self.token_key)):
            raise AuthenticationError("The server refuses the token.")

    def admits(self, token: object) -> bool:
        """Tell whether somebody is let in who has this token."""
        return self.accept_tokens is None or token in self.accept_tokens

    def joined(self, link: SimulatedTransport, auth: Mapping[str, Any] | None) -> dict[str, str]:
        """Note a connection, and send what it has missed; return what it is welcomed with."""
        self.links.append(link)
        self.most_links = max(self.most_links, len(self.links))
        if self.sessions is None:
            return {"sid": f"sid-{len(self.dials)}"}
        welcome, missed = self.sessions.join(auth)
        for event, args in missed:
            link.deliver_event(event, args)
        return welcome

    def left(self, link: SimulatedTransport) -> None:
        """Forget a connection that has ended."""
        self.links.remove(link)
        if self.backend is not None:
            self.backend.left(link)

    def delay(self) -> float:
        """Return how long the next frame takes."""
        if not self.jitter:
            return self.latency
        if self.random is None:
            raise ValueError("jitter needs `random`, a seeded random.Random: a run must be repeatable")
        return self.latency + self.random.uniform(0.0, self.jitter)

    def take(self, link: SimulatedTransport, event: str, args: list[Any], ack_id: int | None) -> None:
        """Receive an event, and acknowledge it if that is wanted."""
        self.received.append((event, args))
        is_heartbeat = event == Dialect.REFERENCE.heartbeat_event
        if not (link.has_spoken or is_heartbeat or event == Dialect.REFERENCE.reauthenticate_event):
            link.has_spoken = True
            self.first_heard.append(event)
        answer = self._answer(link, event, args, is_heartbeat=is_heartbeat, wanted=ack_id is not None)
        if ack_id is None or answer is None:
            return
        if self.swallow_acks > 0:
            self.swallow_acks -= 1
            return
        link.acknowledge(ack_id, answer, after=0.0 if is_heartbeat else self.ack_delay)

    async def changed(self) -> None:
        """Wait until a fault begins or ends. The caller bounds it."""
        change: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[change] = None
        try:
            await change
        finally:
            del self._waiting[change]

    def _answer(
        self, link: SimulatedTransport, event: str, args: list[Any], *, is_heartbeat: bool, wanted: bool
    ) -> list[Any] | None:
        if is_heartbeat and self.acks_heartbeat is not None:
            return [{"ok": True}] if self.acks_heartbeat else None
        if self.backend is not None:  # its handlers run, wanted or not
            return [self.backend.answer(link, event, args)]
        return self.acknowledge(event, args) if wanted else None

    def _tell_change(self) -> None:
        for change in self._waiting:
            if not change.done():
                change.set_result(None)
        for link in list(self.links):
            link.path_changed()


def _kicked() -> RealtimeError:
    return ServerDisconnectError("The server disconnected the client.")
