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


@define(eq=False)
class Probe:
    """A question for a sign of life.

    Attributes:
        sent_at: When it was asked, on the loop's clock.
        pinged: Whether it was asked below the application.
        number: Of the heartbeat message on its link, or 0 where none was sent.
        answered: Whether the server answered it.
    """

    sent_at: float
    pinged: bool = False
    number: int = 0
    answered: bool = False

    @property
    def asked(self) -> bool:
        """True where anything could be asked at all; if not, silence proves nothing."""
        return self.pinged or self.number > 0


class Link:
    """One connection, from its dial to its disposal; listens to the transport.

    Everything that reaches a link after ``detach`` is of an older epoch: it is dropped and counted.

    Args:
        factory: Makes the transport.
        owner: Told what happens.
        statistics: What it counts into.
        heartbeat: The encoded heartbeat event, or ``None`` where the dialect has none.

    Attributes:
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
        self._pong: AckCallback | None = None
        self._acks_heartbeat: bool | None = None  # found out by the first probe
        self._unanswered_since: float | None = None
        self.secrets: set[str] = set()
        self.lost = False
        self.transport: Transport = factory(self)

    @property
    def has_ended(self) -> bool:
        """True once it is no longer the client's connection."""
        return self._detached or self.lost

    @property
    def quiet_since(self) -> float:
        """Since when nothing has come from the peer, on the loop's clock."""
        return self.transport.last_received

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
        answered: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self.send(payload, partial(_resolve, answered))
        number = self._statistics.ack_ids
        self._requests[number] = answered
        try:
            return await answered
        finally:
            del self._requests[number]
            self._acks.pop(number, None)

    def probe(self) -> Probe:
        """Ask for a sign of life, in the way that this server answers.

        The first probe asks both by a ping of the websocket and by a heartbeat event with an acknowledgement.
        Later ones use the event alone where the server acknowledged it (so that they prove that the
        application lives), and the ping where it did not.
        """
        probe = Probe(self._time())
        self._statistics.heartbeats += 1
        if self._acks_heartbeat is not True:
            self._pong = partial(self._answered, probe)
            probe.pinged = self.transport.ping()
        if self._heartbeat is not None and (self._acks_heartbeat is not False or not probe.pinged):
            probe.number = self.send(self._heartbeat, partial(self._heartbeat_acknowledged, probe))
        if self._unanswered_since is None and (probe.pinged or self._acks_heartbeat):
            self._unanswered_since = probe.sent_at
        if self._acks_heartbeat is None:
            self._acks_heartbeat = False  # until the acknowledgement says otherwise
        return probe

    def was_received(self, probe: Probe) -> bool:
        """Tell whether the server must have had all that was sent before a probe.

        Where there is no ping (over HTTP polling), what counts as written has been answered by the server.
        """
        return probe.answered or (not probe.pinged and 0 < probe.number <= self.transport.written)

    def answer(self, ack_id: int, payload: Payload) -> None:
        """Acknowledge an event of the server; dropped and counted when its connection has ended."""
        if self._detached:
            self._statistics.stale += 1
            return
        self.transport.answer(ack_id, payload)

    def detach(self) -> None:
        """Stop listening: from now on all that comes is stale."""
        self._detached = True
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

    def on_pong(self) -> None:
        """Settle the probe that pinged."""
        if self._pong is not None:
            pong, self._pong = self._pong, None
            pong([])

    def on_written(self) -> None:
        """Tell the owner that messages have left."""
        if not self._detached:
            self._owner.link_written(self)

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
        error.retryable = True
        redact(error, self.secrets)
        self._fail_requests()
        if self._detached:
            self._statistics.stale += 1
            return
        self._owner.link_lost(self, error)

    def _fail_requests(self) -> None:
        for request in self._requests.values():
            if not request.done():
                request.set_exception(ConnectionLostError("The connection ended before the server answered."))

    def _heartbeat_acknowledged(self, probe: Probe, args: list[Any]) -> None:
        self._acks_heartbeat = True
        self._answered(probe, args)

    def _answered(self, probe: Probe, _: list[Any]) -> None:
        self._unanswered_since = None
        if not probe.answered:
            probe.answered = True
            self._statistics.latency.add(self._time() - probe.sent_at)


def _resolve(future: asyncio.Future[list[Any]], args: list[Any]) -> None:
    if not future.done():
        future.set_result(args)
