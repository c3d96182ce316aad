"""A transport that records what it is told to do, and the owner of a link that records what it is told."""

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

from attrs import define, field, frozen

from realtime_fsm.engine.link import Link
from realtime_fsm.engine.payload import Payload, encode
from realtime_fsm.engine.port import TransportListener
from realtime_fsm.engine.statistics import Statistics
from realtime_fsm.machine.errors import RealtimeError


@frozen
class Sent:
    """A message that was handed to the transport.

    Attributes:
        args: Its arguments, the event's name first.
        ack_id: Set where an acknowledgement was asked for.
    """

    args: list[Any]
    ack_id: int | None


class RecordingTransport:
    """A connection whose writes, acknowledgements and end are made by the test, one by one.

    Args:
        listener: Told everything.
        capacity: Messages that may wait to be written.
        can_ping: Whether there is a sign of life below the application, as over a websocket.

    Attributes:
        sent: Everything that was sent, in order.
        answers: What events of the server were answered with, as ``(ack_id, arguments)``.
        pings: How often it was asked for a sign of life.
        opened_with: The auth object of ``open``, in a list that is empty before.
        closings: The goodbyes of each ``close``.
    """

    name = "recording"

    def __init__(self, listener: TransportListener, *, capacity: int = 1000, can_ping: bool = True) -> None:
        self.listener = listener
        self.capacity = capacity
        self.can_ping = can_ping
        self.last_received = asyncio.get_running_loop().time()
        self.written = 0
        self.sent: list[Sent] = []
        self.answers: list[tuple[int, list[Any]]] = []
        self.pings = 0
        self.opened_with: list[Mapping[str, Any] | None] = []
        self.closings: list[bool] = []

    @property
    def room(self) -> int:
        """How many more messages it takes."""
        return self.capacity - (len(self.sent) - self.written)

    async def open(self, auth: Mapping[str, Any] | None) -> None:
        """Open at once."""
        self.opened_with.append(auth)

    def send(self, payload: Payload, ack_id: int | None) -> None:
        """Record a message; it waits for ``write``."""
        self.sent.append(Sent(json.loads(payload.text), ack_id))

    def answer(self, ack_id: int, payload: Payload) -> None:
        """Record an answer."""
        self.answers.append((ack_id, json.loads(payload.text)))

    def ping(self, number: int) -> bool:
        """Record a ping."""
        self.pings += self.can_ping
        return self.can_ping

    async def close(self, *, goodbye: bool) -> None:
        """Record the end."""
        self.closings.append(goodbye)

    # For the test.

    def sent_of(self, event: str) -> list[Any]:
        """Return the first argument of each message of one name, in the order of sending."""
        return [message.args[1] for message in self.sent if message.args[0] == event]

    def write(self, count: int | None = None) -> None:
        """Let the next ``count`` messages (by default all) leave for the network."""
        waiting = len(self.sent) - self.written
        self.written += waiting if count is None else min(count, waiting)
        self.listener.on_written()

    def acknowledge(self, index: int, *args: Any) -> None:
        """Let the server acknowledge the message that was sent at an index."""
        ack_id = self.sent[index].ack_id
        assert ack_id is not None, "a server acknowledges only what asked for it"
        self.listener.on_ack(ack_id, list(args))


@define(eq=False)
class RecordingOwner:
    """The owner of links: records what they tell.

    Attributes:
        events: As ``(name, args, ack_id)``.
        malformed: Errors of frames that could not be decoded.
        losses: Why links ended.
        on_written: Called with the number of written messages.
    """

    events: list[tuple[str, list[Any], int | None]] = field(factory=list)
    malformed: list[RealtimeError] = field(factory=list)
    losses: list[RealtimeError] = field(factory=list)
    on_written: Callable[[int], None] = lambda _: None

    def link_event(self, link: Link, name: str, args: list[Any], ack_id: int | None, size: int) -> None:
        """Record an event."""
        self.events.append((name, args, ack_id))

    def link_written(self, link: Link) -> None:
        """Pass it on."""
        self.on_written(link.transport.written)

    def link_malformed(self, error: RealtimeError) -> None:
        """Record it."""
        self.malformed.append(error)

    def link_lost(self, link: Link, error: RealtimeError) -> None:
        """Record it."""
        self.losses.append(error)


@define(eq=False)
class Line:
    """A link over a recording transport, with its owner and its statistics.

    Attributes:
        heartbeat: Whether the dialect has a heartbeat event.
        capacity: Messages that may wait to be written.
        can_ping: Whether the transport can ping.
        statistics: What it counts into.
        owner: Told what happens.
        link: The link.
    """

    heartbeat: bool = True
    capacity: int = 1000
    can_ping: bool = True
    statistics: Statistics = field(factory=Statistics)
    owner: RecordingOwner = field(factory=RecordingOwner)
    link: Link = field(init=False)

    def __attrs_post_init__(self) -> None:
        beat = encode(["heartbeat"], what="The heartbeat", max_bytes=1000) if self.heartbeat else None
        self.link = Link(self._make_transport, self.owner, self.statistics, beat)

    @property
    def transport(self) -> RecordingTransport:
        """What it goes over."""
        assert isinstance(self.link.transport, RecordingTransport)
        return self.link.transport

    def _make_transport(self, listener: TransportListener) -> RecordingTransport:
        return RecordingTransport(listener, capacity=self.capacity, can_ping=self.can_ping)
