"""The tap on the wire: messages go straight to the engine, python-socketio sees only what it must.

Whoever finds out that the connection is lost says so with ``lose``; the first one counts. Only Engine.IO's
OPEN, PING, PONG and NOOP and Socket.IO's CONNECT are passed on to python-socketio. CLOSE, DISCONNECT and
CONNECT_ERROR are not: they end the connection here, and python-socketio would begin a clean-up of its own.
"""

import asyncio
import base64
from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import Any, Final

from realtime_fsm.adapters import error_translation, frame
from realtime_fsm.adapters.frame import ExcessiveAttachmentsError, Handshake, Packet, PacketType
from realtime_fsm.engine.port import TransportListener
from realtime_fsm.machine.dialect import RESERVED_EVENTS
from realtime_fsm.machine.errors import (
    MalformedFrameError,
    NotSocketIOError,
    RealtimeError,
    ServerDisconnectError,
)

_PASSED_ON: Final = frozenset({frame.PING, frame.PONG, frame.NOOP})
_MAX_BACKLOG: Final = 64
"""Most packets of python-socketio's own that may wait to be sent; there is no more than a pong or two."""
_MAX_CONTROL_LENGTH: Final = 128
_MAX_PING_LENGTH: Final = 18  # digits
_MAX_HELD: Final = 256  # then no more is read, until they have been delivered
_MAX_EARLY: Final = 1024  # more than that before the CONNECT packet is no server's doing


class Phase(Enum):
    """Stages of a connection, as told by the frames that pass through its tap.

    ::

        OPENING   until the Engine.IO OPEN packet
        JOINING   until the Socket.IO CONNECT packet; messages may come before it, and are held
        HELD      messages are held, in order, until the caller of ``open`` has learnt that it succeeded
        LIVE      messages are decoded and told to the listener, synchronously
        LEAVING   a goodbye is being said: what still comes is read, and dropped
        ENDED     the connection is lost, or was given up
    """

    OPENING = auto()
    JOINING = auto()
    HELD = auto()
    LIVE = auto()
    LEAVING = auto()
    ENDED = auto()


_LIVE: Final = Phase.LIVE  # read once per event
_HOLDING: Final = frozenset({Phase.JOINING, Phase.HELD})
_ABOUT_NAMESPACE: Final = frozenset({"0", "1", "4"})
"""The Socket.IO types that say whether the client is in the namespace: they are never held."""


class Attachments:
    """Collects the attachments of one binary packet at a time; they come in frames of their own.

    Attributes:
        packet: The packet whose attachments are due, if there is one.
        size: Of it and of the attachments that have come.
    """

    def __init__(self) -> None:
        self.packet: Packet | None = None
        self.size = 0
        self._attachments: list[bytes] = []

    def clear(self) -> None:
        """Forget what is incomplete."""
        self.packet = None
        self._attachments = []

    def begin(self, packet: Packet, size: int) -> None:
        """Wait for the attachments of a packet, whose text had this size."""
        self.packet = packet
        self.size = size

    def add(self, attachment: bytes) -> tuple[Packet, Any] | None:
        """Take an attachment, and return the packet with its data once that is complete.

        Raises:
            MalformedFrameError: If none is due, or it does not fit into the packet, which is dropped then.
        """
        packet = self.packet
        if packet is None:
            raise MalformedFrameError("An attachment came without its packet.")
        self._attachments.append(attachment)
        self.size += len(attachment)
        if len(self._attachments) < packet.attachment_count:
            return None
        attachments = self._attachments
        self.clear()
        return packet, frame.reconstruct(packet.data, attachments)


class FrameTap:
    """Decodes what comes in and tells the listener, in wire order.

    Args:
        listener: Told everything.
        namespace: Frames of any other one are malformed.
        loop: On which all of this happens.
        backlog: Tells how many packets of its own python-socketio has not yet sent.

    Attributes:
        phase: How far the connection has come.
        last_received: When anything last came, on the loop's clock.
        welcome: The data of the CONNECT packet that let the client in.
        refusal: The data of the CONNECT_ERROR packet that did not, alone in a tuple; ``None`` without one.
        is_dismissed: Whether the server ended it by a packet that says so, and not by closing the socket.
        handshake: What the server announced, once it did; see ``opened``.
        opened: Resolved when the Engine.IO session is open.
        failed: Resolved with the reason when the connection ends before it is ``LIVE``.
        is_specific: Whether that failure may be the transport's own, so that another one may work.
    """

    def __init__(
        self,
        listener: TransportListener,
        namespace: str,
        loop: asyncio.AbstractEventLoop,
        backlog: Callable[[], int],
    ) -> None:
        self._backlog = backlog
        self._listener = listener
        self._namespace = namespace
        self._event_head = frame.head(PacketType.EVENT, namespace) + "["
        self._array_start = len(self._event_head) - 1
        self._attachments = Attachments()
        self._held: list[str | bytes] = []
        self._unheld: asyncio.Future[None] = loop.create_future()
        self.phase = Phase.OPENING
        self.last_received = loop.time()
        self.welcome: Mapping[str, Any] = {}
        self.refusal: tuple[Any] | None = None
        self.is_dismissed = False
        self.handshake: Handshake | None = None
        self.opened: asyncio.Future[None] = loop.create_future()
        self.failed: asyncio.Future[RealtimeError] = loop.create_future()
        self.is_specific = False

    # The life cycle.

    @property
    def must_wait(self) -> bool:
        """Whether nothing may be read before ``wait`` has returned; never once it is live."""
        return self.phase is Phase.HELD and len(self._held) >= _MAX_HELD

    async def wait(self) -> None:
        """Wait until more may be read: until the caller of ``open`` has learnt that it succeeded."""
        await self._unheld

    def go_live(self) -> None:
        """Deliver what was held, and from now on everything at once."""
        if self.phase is not Phase.HELD:
            return
        self.phase = Phase.LIVE
        self._stop_holding()
        held, self._held = self._held, []
        for message in held:
            if isinstance(message, str):
                self.take_text(message)
            else:
                self.take_binary(message)
        if self.failed.done():  # lost in the meantime, after what was held
            self.lose(self.failed.result())

    def lose(self, error: RealtimeError, *, specific: bool = False) -> None:
        """Note that the connection is lost; only the first time counts.

        Args:
            error: Why.
            specific: Whether the reason may be the transport's own.
        """
        if self.phase is Phase.LIVE:
            self.silence()
            self._listener.on_lost(error_translation.as_loss(error))
        elif self.phase is Phase.LEAVING:
            self.silence()
        elif self.phase is not Phase.ENDED and not self.failed.done():
            self.is_specific = specific
            self.failed.set_result(error_translation.as_loss(error) if self.opened.done() else error)

    def leave(self) -> None:
        """Tell the listener nothing any more, but let the wire be read while a goodbye is said."""
        self.silence()
        self.phase = Phase.LEAVING

    def silence(self) -> None:
        """Tell the listener nothing any more, and end."""
        self.phase = Phase.ENDED
        self._attachments.clear()
        self._held.clear()
        self._stop_holding()

    @property
    def is_usable(self) -> bool:
        """Whether the namespace has been joined, and not been lost."""
        return self.phase is _LIVE or (self.phase is Phase.HELD and not self.failed.done())

    @property
    def has_ended(self) -> bool:
        """Whether nothing more need be read."""
        return self.phase is Phase.ENDED or (self.phase is not _LIVE and self.failed.done())

    # What comes in.

    def take_text(self, text: str) -> bool:
        """Take a text frame: one Engine.IO packet.

        Returns:
            Whether it was consumed; if not, python-socketio must see it.
        """
        # The fast path: a plain event on a live connection. Whatever is odd is left to the other path.
        if self.phase is _LIVE and self._attachments.packet is None and text.startswith(self._event_head):
            try:
                args, end = frame.decode_array(text, self._array_start)
            except (ValueError, RecursionError):
                return self._take_packet(text)
            if end == len(text) and args:
                name = args.pop(0)
                if type(name) is str and name not in RESERVED_EVENTS:
                    self._listener.on_event(name, args, None, end)
                    return True
        return self._take_packet(text)

    def take_binary(self, data: bytes) -> None:
        """Take a binary frame: an attachment."""
        if self.has_ended or self.phase is Phase.LEAVING:
            return
        if self.phase is Phase.OPENING:
            self._refuse_opening()
        elif self.phase in _HOLDING:
            self._hold(data)
        else:
            try:
                complete = self._attachments.add(data)
            except MalformedFrameError as error:
                self._malformed(error)
            else:
                if complete is not None:
                    self._tell(*complete, self._attachments.size)

    def take_pong(self, data: bytes) -> None:
        """Take the answer to a ping of the websocket; one that answers none of ours proves nothing."""
        if self.phase is _LIVE and data.isdigit() and len(data) <= _MAX_PING_LENGTH:
            self._listener.on_pong(int(data))

    def take_payload(self, body: str) -> str:
        """Take a polling payload, and return what of it python-socketio must see: a valid payload again."""
        kept = []
        for packet in body.split(frame.SEPARATOR):
            if packet[:1] == "b":
                try:
                    self.take_binary(base64.b64decode(packet[1:], validate=True))
                except ValueError:
                    self._malformed(MalformedFrameError("An attachment is not base64."))
            elif not self.take_text(packet):
                kept.append(packet)
        return frame.SEPARATOR.join(kept) or frame.NOOP

    def _take_packet(self, text: str) -> bool:
        if self.has_ended:
            return True
        kind = text[:1]
        if self.phase is Phase.OPENING:
            return self._take_open(text)
        if kind == frame.MESSAGE:
            return self.phase is Phase.LEAVING or self._take_message(text)
        if kind == frame.PING and self._backlog() > _MAX_BACKLOG:
            self.lose(MalformedFrameError("The server pings without reading the answers."))
            return True
        if kind in _PASSED_ON and len(text) <= _MAX_CONTROL_LENGTH:
            return False
        if kind == frame.CLOSE:
            self.is_dismissed = True
            self.lose(ServerDisconnectError("The server closed the session."))
        else:
            self._malformed(MalformedFrameError("A frame is no Engine.IO packet that may come now."))
        return True

    def _take_open(self, text: str) -> bool:
        self.handshake = Handshake.parse(text[1:]) if text[:1] == frame.OPEN else None
        if self.handshake is None:
            self._refuse_opening()
            return True
        self.phase = Phase.JOINING
        self.opened.set_result(None)
        return False

    def _take_message(self, text: str) -> bool:
        """Take a Socket.IO packet; ``False`` if it is the CONNECT that python-socketio waits for."""
        if self._attachments.packet is not None:
            self.lose(MalformedFrameError("A packet came where attachments were due."))
            return True
        if self.phase in _HOLDING and text[1:2] not in _ABOUT_NAMESPACE:
            self._hold(text)
            return True
        try:
            packet = frame.decode(text, 1)
        except ExcessiveAttachmentsError as error:
            self.lose(MalformedFrameError(str(error)))
            return True
        except MalformedFrameError as error:
            self._malformed(error)
            return True
        if packet.namespace != self._namespace:
            self._malformed(MalformedFrameError(f"A {packet.type.name} packet is of another namespace."))
            return True
        return self._take_decoded(packet, len(text))

    def _take_decoded(self, packet: Packet, size: int) -> bool:
        if packet.type is PacketType.DISCONNECT:
            self.is_dismissed = True
            self.lose(ServerDisconnectError("The server disconnected the client."))
        elif packet.type is PacketType.CONNECT_ERROR:
            self.refusal = (packet.data,)
            self.lose(error_translation.from_refusal(packet.data))
        elif packet.type is PacketType.CONNECT and self.phase is Phase.JOINING:
            self.phase = Phase.HELD
            self.welcome = packet.data if isinstance(packet.data, dict) else {}
            return False
        elif packet.type is PacketType.CONNECT:
            self._malformed(MalformedFrameError("A CONNECT packet came out of turn."))
        elif packet.attachment_count:
            self._attachments.begin(packet, size)
        else:
            self._tell(packet, packet.data, size)
        return True

    def _tell(self, packet: Packet, args: list[Any], size: int) -> None:
        if packet.type in {PacketType.EVENT, PacketType.BINARY_EVENT}:
            name = args.pop(0)
            self._listener.on_event(name, args, packet.ack_id, size)
        elif packet.ack_id is not None:  # `frame` refuses an acknowledgement without
            self._listener.on_ack(packet.ack_id, args)

    def _refuse_opening(self) -> None:
        error = NotSocketIOError("The server does not begin with an Engine.IO OPEN packet.")
        self.lose(error, specific=True)

    def _hold(self, message: str | bytes) -> None:
        self._held.append(message)
        if self.phase is Phase.JOINING and len(self._held) > _MAX_EARLY:
            self.lose(MalformedFrameError("The server sends events without letting the client in."))

    def _malformed(self, error: MalformedFrameError) -> None:
        if not self.has_ended and self.phase is not Phase.LEAVING:
            self._listener.on_malformed(error)

    def _stop_holding(self) -> None:
        if not self._unheld.done():
            self._unheld.set_result(None)
