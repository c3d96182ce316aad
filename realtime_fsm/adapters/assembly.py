"""Binary packets, whose attachments come in frames of their own."""

from typing import Any

from realtime_fsm.adapters import frame
from realtime_fsm.adapters.frame import Packet
from realtime_fsm.machine.errors import MalformedFrameError


class Assembly:
    """Collects the attachments of one packet at a time.

    Attributes:
        packet: The packet whose attachments are due, if there is one.
    """

    def __init__(self) -> None:
        self.packet: Packet | None = None
        self._attachments: list[bytes] = []

    def clear(self) -> None:
        """Forget what is incomplete."""
        self.packet = None
        self._attachments = []

    def add(self, attachment: bytes) -> tuple[Packet, Any] | None:
        """Take an attachment, and return the packet with its data once that is complete.

        Raises:
            MalformedFrameError: If none is due, or it does not fit into the packet, which is dropped then.
        """
        packet = self.packet
        if packet is None:
            raise MalformedFrameError("An attachment came without its packet.")
        self._attachments.append(attachment)
        if len(self._attachments) < packet.attachment_count:
            return None
        attachments = self._attachments
        self.clear()
        return packet, frame.reconstruct(packet.data, attachments)
