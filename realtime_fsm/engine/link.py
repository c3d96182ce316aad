"""A connection as the engine sees it: a transport, its acknowledgements, and whether it still counts."""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

from attrs import define

from realtime_fsm.engine.payload import Payload
from realtime_fsm.engine.port import Transport, TransportFactory
from realtime_fsm.engine.statistics import Statistics
from realtime_fsm.machine.errors import ConnectionLostError, RealtimeError
from realtime_fsm.machine.redaction import redact

AckCallback = Callable[[list[Any]], None]


class LinkOwner(Protocol):
    """The listener of all links of a client: the one that lives, and those that only dial."""

    def link_event(self, link: "Link", name: str, args: list[Any], ack_id: int | None, size: int) -> None:
        """Take an event that arrived."""

    def link_written(self, link: "Link") -> None:
        """Take note that messages left for the network."""

    def link_malformed(self, error: RealtimeError) -> None:
        """Take note that a frame could not be decoded."""

    def link_lost(self, link: "Link", error: RealtimeError) -> None:
        """Take note that the connection ended by itself."""


@define(eq=False, kw_only=True)
class Probe:
    """A question that only the server can answer: it proves both ways, and what was sent before it.

    Attributes:
        sent_at: When it was asked, on the loop's clock.
        number: Of the heartbeat message on its link, or 0 where none was sent.
        behind: How many messages of its link were handed over before it, or with it.
        pinged: How many of them had left when it was asked below the application; ``None`` where it was not.
        proven: How many messages the server must have had, by its answer; 0 until then.
        answered: Whether the server has answered it, or something that was sent behind it.
        moved_at: When what was handed over before it was last seen to move, on the loop's clock.
        has_left: Whether all of that has left, so that no more of it can be seen to leave.
        measured: Whether its round trip has been counted.
    """

    sent_at: float
    number: int = 0
    behind: int = 0
    pinged: int | None = None
    proven: int = 0
    answered: bool = False
    moved_at: float = 0.0
    has_left: bool = False
    measured: bool = False


class Link:
    """One connection, from its dial to its disposal; listens to the transport.

    Everything that reaches a link after ``detach`` is of an older epoch: it is dropped and counted.

    Args:
        factory: Makes the transport.
        owner: Told what happens.
        statistics: What it counts into.
        heartbeat: The encoded heartbeat event, or ``None`` where the dialect has none.

    Attributes:
        proven: The number of the last message that the server has been seen to have read.
        secrets: Tokens that the server was told: errors do not repeat them, though a server may.
        lost: Whether it ended by itself, or by the peer.
        transport: What carries it.
    """

    def __init__(
        self,
        factory: TransportFactory,
        owner: LinkOwner,
        statistics: Statistics,
        heartbeat: Payload | None,
    ) -> None:
        self._owner = owner
        self._statistics = statistics
        self._heartbeat = heartbeat
        self._time = asyncio.get_running_loop().time
        self._acks: dict[int, AckCallback] = {}
        self._handed = 0
        self._detached = False
        self._requests: dict[int, asyncio.Future[list[Any]]] = {}  # by the numbers of their acknowledgements
        self._pings = 0
        self._has_pings = False
        self._pinged: dict[int, Probe] = {}  # by the numbers of the pings that are not answered
        self._heartbeat_ack = 0
        self._probe: Probe | None = None  # the last one, until it is answered
        self._received = 0  # so many messages the server is known to have had
        self._acks_heartbeat: bool | None = None  # found out by the first probe
        self._unanswered_since: float | None = None
        self._reading: asyncio.Future[None] | None = None  # stirred by whatever may prove that the peer reads
        self._flushed: dict[int, int] = {}  # by the numbers of their pings, what was written before
        self.secrets: set[str] = set()
        self.lost = False
        self.transport: Transport = factory(self)

    @property
    def has_ended(self) -> bool:
        """True once it is no longer the client's connection."""
        return self._detached or self.lost

    @property
    def unanswered_since(self) -> float | None:
        """The moment of the first probe that the server has not answered, with none answered since.

        ``None`` where there is no such probe, or where nothing is known of how this server answers.
        """
        return self._unanswered_since

    async def open(self, auth: Mapping[str, Any] | None) -> None:
        """Open the transport; errors as for ``Transport.open``, without what ``auth`` holds."""
        self.secrets.update(value for value in (auth or {}).values() if isinstance(value, str))
        try:
            await self.transport.open(auth)
        except RealtimeError as error:
            redact(error, self.secrets)
            raise

    def send(self, payload: Payload, on_ack: AckCallback | None = None) -> int:
        """Queue a message, and return its number on this link (compare with ``transport.written``)."""
        ack_id = None
        if on_ack is not None:
            # A number that no link of this client has used: a late acknowledgement finds nobody. The first
            # one is 1: 0 would confuse python-socketio's own counter.
            self._statistics.ack_ids += 1
            ack_id = self._statistics.ack_ids
            self._acks[ack_id] = on_ack
        self._handed += 1
        self.transport.send(payload, ack_id)
        return self._handed

    async def request(self, payload: Payload) -> list[Any]:
        """Send an event and return the arguments of its acknowledgement. The caller bounds it.

        Raises:
            ConnectionLostError: If the connection ends first.
        """
        return await self.ask(payload)

    def ask(self, payload: Payload) -> "asyncio.Future[list[Any]]":
        """Send an event now, and return its acknowledgement to come, as ``request`` does."""
        answered: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self.send(payload, partial(_resolve, answered))
        number = self._statistics.ack_ids
        self._requests[number] = answered
        answered.add_done_callback(partial(self._forget_request, number))
        return answered

    def forget(self, ack_id: int) -> None:
        """Wait no longer for an acknowledgement: who waited, and its message, are let go."""
        self._acks.pop(ack_id, None)

    # Whether the way there and back is alive, and what has come by it.

    def probe(self) -> Probe:
        """Ask the server for an answer, in the way that it has.

        The first probe asks both by a ping of the websocket and by a heartbeat event with an acknowledgement.
        Later ones use the event alone where the server acknowledged it (so that they prove that the
        application lives), and the ping where it did not.
        """
        written = self.transport.written
        probe = Probe(sent_at=self._time())
        self._statistics.heartbeats += 1
        self._pings += 1
        if self._acks_heartbeat is not True and self.transport.ping(self._pings):
            self._has_pings = True
            probe.pinged = written
            self._pinged[self._pings] = probe
        if self._heartbeat is not None and (self._acks_heartbeat is not False or probe.pinged is None):
            self.forget(self._heartbeat_ack)  # or a server that never acknowledges one would collect them
            probe.number = self.send(self._heartbeat, partial(self._heartbeat_acknowledged, probe))
            self._heartbeat_ack = self._statistics.ack_ids
        probe.behind = self._handed
        probe.has_left = written >= probe.behind
        if self._unanswered_since is None and (probe.pinged is not None or self._acks_heartbeat):
            self._unanswered_since = probe.sent_at
        if self._acks_heartbeat is None:
            self._acks_heartbeat = False  # until the acknowledgement says otherwise
        self._probe = probe
        return probe

    def is_unanswered(self, probe: Probe) -> bool:
        """Tell whether the server owes an answer to a probe, and has not given it.

        Whatever else comes from it proves the way down alone. Where nothing could be asked, nothing is owed.
        """
        return not (probe.answered or self._is_posted(probe))

    def received_before(self, probe: Probe) -> int:
        """Return how many messages the server must have had, by its answer to a probe; 0 without one."""
        if not self._statistics.acknowledged_heartbeats and self._is_posted(probe):
            return probe.number
        return probe.proven

    def _is_posted(self, probe: Probe) -> bool:
        """Tell whether the server has answered the request with a probe: over HTTP polling, it is written."""
        return not self._has_pings and probe.number <= self.transport.written

    def overdue_at(self, probe: Probe, patience: float) -> float:
        """Return when an answer to a probe is overdue: ``patience`` after the line before it last moved."""
        return max(probe.sent_at, probe.moved_at) + patience

    def heard_of(self, number: int) -> None:
        """Take note that the server has answered a message: it has had that one, and all before it."""
        if number <= self._received:
            return  # which was known, so that it says nothing of how the way there is now
        self.note_read(number)
        probe = self._probe
        if probe is None:
            return
        if number > probe.behind:
            probe.answered = True
            self._probe = None
        else:
            probe.moved_at = self._time()

    async def read_by_peer(self) -> bool:
        """Wait until the server has been seen to have read all that was sent so far. The caller bounds it.

        The proof is a pong to a ping behind the last message; where there is no ping (over HTTP polling), the
        answer to the request with it. That a message was written proves nothing: it may lie in a buffer.

        Returns:
            ``False`` where the connection ends first.
        """
        last, asked = self._handed, False
        while self._received < last and not self.has_ended:
            if not asked and self.transport.written >= last:
                asked = True
                self._pings += 1
                if not self.transport.ping(self._pings):
                    self.note_read(last)
                    break
                self._flushed[self._pings] = last
            self._reading = asyncio.get_running_loop().create_future()
            await self._reading
        return self._received >= last

    @property
    def proven(self) -> int:
        """The number of the last message that the server is known to have read, and so all before it."""
        return self._received

    def note_read(self, number: int) -> None:
        """Take note that the server has read the message of a number, and so all before it."""
        if number > self._received:
            self._received = number
            self._stir()

    def answer(self, ack_id: int, payload: Payload) -> None:
        """Acknowledge an event of the server; dropped and counted when its connection has ended."""
        if self._detached:
            self._statistics.stale += 1
            return
        self.transport.answer(ack_id, payload)

    def detach(self) -> None:
        """Stop listening: from now on all that comes is stale."""
        self._detached = True
        self._stir()
        self._pinged.clear()  # a pong on a connection that was given up is no measure of anything
        self._acks.clear()
        self._fail_requests()

    async def close(self, *, goodbye: bool) -> None:
        """Release the transport. Never raises."""
        self.detach()
        await self.transport.close(goodbye=goodbye)

    # What the transport tells.

    def on_event(self, name: str, args: list[Any], ack_id: int | None, size: int = 0) -> None:
        """Pass an event on."""
        if self._detached:
            self._statistics.stale += 1
            return
        self._owner.link_event(self, name, args, ack_id, size)

    def on_ack(self, ack_id: int, args: list[Any]) -> None:
        """Pass an acknowledgement to who waits for it."""
        callback = self._acks.pop(ack_id, None)
        if callback is not None:
            callback(args)
        elif self._detached:
            self._statistics.stale += 1
        else:
            self._statistics.dropped["unknown acknowledgement"] += 1

    def on_pong(self, number: int) -> None:
        """Settle the probe that sent this ping; one that came late is no answer to a later probe."""
        self.note_read(self._flushed.pop(number, 0))
        probe = self._pinged.pop(number, None)
        if probe is None or probe.pinged is None:
            return
        for older in [known for known in self._pinged if known < number]:
            del self._pinged[older]  # a peer need not answer each (RFC 6455, 5.5.3)
        # Whatever stands between may answer a ping. What a server has had is told by the heartbeat event,
        # where any link of this client has seen one acknowledged.
        self._answered(probe, 0 if self._statistics.acknowledged_heartbeats else probe.pinged)

    def on_written(self) -> None:
        """Tell the owner that messages have left."""
        probe = self._probe
        if probe is not None and not probe.has_left:
            probe.moved_at = self._time()
            probe.has_left = self.transport.written >= probe.behind
        if not self._detached:
            self._owner.link_written(self)
        self._stir()

    def on_malformed(self, error: RealtimeError) -> None:
        """Count it, and pass it on, without the error that it came from: that one holds the frame."""
        error.__cause__ = error.__context__ = None
        self._statistics.malformed += 1
        self._owner.link_malformed(error)

    def on_lost(self, error: RealtimeError) -> None:
        """Pass it on, unless nobody counts on this link any more.

        Whatever it was, another dial is worth it: the server was right a moment ago. If it refuses the dial
        too (with a fresh token, where one can be had), that is final.
        """
        self.lost = True
        self._stir()
        error.retryable = True
        redact(error, self.secrets)
        self._fail_requests()
        if self._detached:
            self._statistics.stale += 1
            return
        self._owner.link_lost(self, error)

    def _forget_request(self, number: int, answered: "asyncio.Future[list[Any]]") -> None:
        del self._requests[number]
        self._acks.pop(number, None)
        if not answered.cancelled():
            answered.exception()  # whoever waits for it hears of it; where nobody does, it is nobody's error

    def _stir(self) -> None:
        if self._reading is not None and not self._reading.done():
            self._reading.set_result(None)

    def _fail_requests(self) -> None:
        for request in self._requests.values():
            if not request.done():
                request.set_exception(ConnectionLostError("The connection ended before the server answered."))

    def _heartbeat_acknowledged(self, probe: Probe, _: list[Any]) -> None:
        self._acks_heartbeat = True
        self._statistics.acknowledged_heartbeats += 1
        self._answered(probe, probe.number)

    def _answered(self, probe: Probe, proven: int) -> None:
        """Note the answer to a probe, and that the server has had so many messages."""
        self._unanswered_since = None
        if not probe.measured:
            probe.measured = True
            self._statistics.latency.add(self._time() - probe.sent_at)
        probe.proven = max(probe.proven, proven)
        probe.answered = True
        self.note_read(proven)
        last = self._probe
        if last is probe:
            self._probe = None
        elif last is not None:
            last.moved_at = self._time()


def _resolve(future: asyncio.Future[list[Any]], args: list[Any]) -> None:
    if not future.done():
        future.set_result(args)
