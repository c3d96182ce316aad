"""python-socketio's server, fenced in: what it lets through, and what it logs.

Four things that it does not do by itself, each found by a test:

- A client may emit an event called ``connect`` or ``disconnect``, and its handlers run with what the client
  made up. ``CheckedPacket`` turns such an event into one without a name.
- What cannot be read is passed over. A message that came after it would take effect, and if the client
  sent the other one again, it would be taken for a repeat of what took effect before. So the connection ends.
- A polling client that sends more than 16 packets at once loses all of them, and is told that all is well.
- Its log records hold whole packets, tokens included. Only its errors are passed on.
"""

import logging
from typing import Any, Final

import socketio
from engineio.packet import MESSAGE
from engineio.packet import Packet as EnginePacket
from engineio.payload import Payload
from socketio.packet import BINARY_EVENT, EVENT
from socketio.packet import Packet as SocketPacket

from realtime_fsm.engine.payload import MAX_ATTACHMENTS
from realtime_fsm.machine.dialect import RESERVED_EVENTS
from realtime_fsm.server.config import BackendConfig
from realtime_fsm.server.engine_server import EngineServer

NAMELESS: Final = ""
"""The name of an event that came without a proper one."""

_MAX_PACKETS: Final = 1000
"""Most packets of one polling request; its size is limited all the same."""

_HEADROOM: Final = 100
"""Connections beyond ``max_clients``, so that those can be told why they are refused."""

_logger = logging.getLogger("realtime_fsm.server")


class _ErrorsOnly(logging.Handler):
    """Passes on that something went wrong inside the library, without what it was about."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log the message of an error, and the kind of its exception."""
        kind = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else "no exception"
        _logger.warning("the Socket.IO library reports: %s (%s)", record.getMessage(), kind)


def _quiet_logger() -> logging.Logger:
    """Return a logger that no configuration reaches, because the library logs tokens at its lower levels."""
    logger = logging.Logger("realtime_fsm.server.library", logging.ERROR)  # noqa: LOG001 - that is how
    logger.propagate = False
    logger.addHandler(_ErrorsOnly())
    return logger


class CheckedPacket(SocketPacket):  # type: ignore[misc]
    """A packet whose event, where it is one, has a name that a client may use."""

    data: Any

    def decode(self, encoded_packet: Any) -> int:
        """Decode a packet that came in; return how many binary parts follow it."""
        attachments: int = super().decode(encoded_packet)
        if (self.packet_type == BINARY_EVENT) != (0 < attachments <= MAX_ATTACHMENTS):
            raise ValueError("wrong number of attachments")
        if self.packet_type in {EVENT, BINARY_EVENT} and not _is_event(self.data):
            self.data = [NAMELESS]
        return attachments


def _is_event(data: object) -> bool:
    return (
        isinstance(data, list) and bool(data) and isinstance(data[0], str) and data[0] not in RESERVED_EVENTS
    )


class SocketIOServer(socketio.AsyncServer):  # type: ignore[misc]
    """The Socket.IO server, as the backend's configuration wants it."""

    eio: EngineServer

    def __init__(self, config: BackendConfig) -> None:
        logger = _quiet_logger()
        # Process-wide, as python-engineio offers nothing else; never lowered.
        Payload.max_decode_packets = max(Payload.max_decode_packets, _MAX_PACKETS)
        super().__init__(
            async_mode="aiohttp",
            serializer=CheckedPacket,
            # Each event in a task of its own, begun in wire order: a slow handler must not keep its client's
            # pongs and heartbeats from being read. `MessageRouter` puts the messages back in line.
            async_handlers=True,
            cors_allowed_origins=list(config.origins),
            cors_credentials=True,
            transports=list(config.transports),
            ping_interval=config.ping_interval,
            ping_timeout=config.ping_timeout,
            max_http_buffer_size=config.max_message_bytes,
            max_sessions=config.max_clients + _HEADROOM,
            logger=logger,
            engineio_logger=logger,
        )

    def _engineio_server_class(self) -> type[EngineServer]:
        return EngineServer

    async def _handle_eio_message(self, eio_sid: str, data: Any) -> None:
        """Handle a frame; end a connection that sends one which cannot be read."""
        try:
            if eio_sid in self._binary_packet and not isinstance(data, bytes):
                raise TypeError("an attachment is due")  # noqa: TRY301 - treated as what the library raises
            await super()._handle_eio_message(eio_sid, data)
        except Exception as error:  # noqa: BLE001 - of any kind: the library raises what its parts do
            _logger.warning("a connection ends: what it sent cannot be read (%s)", type(error).__name__)
            self._binary_packet.pop(eio_sid, None)
            await self.eio.say_goodbye(eio_sid)

    def engine_sid(self, sid: str) -> str:
        """Return the Engine.IO id of a session that is connected or about to be."""
        return str(self.manager.eio_sid_from_sid(sid, "/"))


def message(text: str) -> EnginePacket:
    """Return a packet for ``enqueue``, which any number of connections can share.

    Args:
        text: An encoded Socket.IO packet.
    """
    return EnginePacket(MESSAGE, text)
