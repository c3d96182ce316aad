"""The port ``Transport``, by python-socketio and aiohttp."""

import asyncio
from collections.abc import Mapping
from typing import Any

from realtime_fsm.adapters import frame
from realtime_fsm.adapters.client_connection import ClientConnection
from realtime_fsm.adapters.frame import PacketType
from realtime_fsm.adapters.library_check import check_libraries
from realtime_fsm.adapters.link_session import ConnectorFactory
from realtime_fsm.adapters.outflow import Parcel
from realtime_fsm.engine.payload import Payload
from realtime_fsm.engine.port import TransportListener
from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.machine.errors import (
    AuthenticationError,
    NamespaceRefusedError,
    RealtimeError,
    RedirectRefusedError,
    ServerUnavailableError,
)

_CLEAR = (AuthenticationError, NamespaceRefusedError, RedirectRefusedError)


class SocketIOTransport:
    """A connection to a Socket.IO server, over the first of the configured transports that works.

    Args:
        config: Where to connect, and the limits.
        listener: Told everything, from the turn of the loop after ``open`` has returned.
        connector_factory: Makes the aiohttp connector, once per transport that is tried.
        headers: Sent with every HTTP request, the one that opens a websocket included.
    """

    def __init__(
        self,
        config: RealtimeConfig,
        listener: TransportListener,
        connector_factory: ConnectorFactory | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._config = config
        self._listener = listener
        self._connector_factory = connector_factory
        self._headers = headers
        self._event_head = frame.head(PacketType.EVENT, config.namespace)
        self._ack_head = frame.head(PacketType.ACK, config.namespace)
        self._connection: ClientConnection | None = None
        self._release: asyncio.Task[None] | None = None
        self._closed = False

    # What it looks like.

    @property
    def last_received(self) -> float:
        """When anything last came from the peer, on the loop's clock."""
        return 0.0 if self._connection is None else self._connection.tap.last_received

    @property
    def room(self) -> int:
        """How many more messages may be sent before the queue to the network is full."""
        return 0 if self._connection is None else self._connection.outflow.room

    @property
    def written(self) -> int:
        """How many of the messages given to ``send`` have left for the network."""
        return 0 if self._connection is None else self._connection.outflow.written

    @property
    def welcome(self) -> Mapping[str, Any]:
        """The data of the CONNECT packet that let the client in."""
        return {} if self._connection is None else self._connection.tap.welcome

    @property
    def refusal(self) -> tuple[Any] | None:
        """The data of the CONNECT_ERROR packet that kept the client out, alone in a tuple."""
        return None if self._connection is None else self._connection.tap.refusal

    @property
    def is_dismissed(self) -> bool:
        """Whether the server ended the connection by a packet that says so."""
        return self._connection is not None and self._connection.tap.is_dismissed

    @property
    def session_id(self) -> str | None:
        """The identity of the Engine.IO session."""
        return None if self._connection is None else self._connection.session_id

    @property
    def name(self) -> str:
        """What carries it; before ``open``, what is tried first."""
        return self._config.transports[0] if self._connection is None else self._connection.name

    # What it does.

    async def open(self, auth: Mapping[str, Any] | None) -> None:
        """Open the connection and join the namespace; see ``Transport.open``.

        The transports are tried in their order. The next one is tried only after a failure that may be the
        transport's own; each but the last gets half of the time to open a session, so that a proxy which
        swallows websockets does not keep the client from polling.
        """
        check_libraries()
        failures: list[RealtimeError] = []
        for left, name in zip(
            reversed(range(len(self._config.transports))), self._config.transports, strict=True
        ):
            connection = ClientConnection(
                name, self._config, self._listener, self._connector_factory, self._headers
            )
            self._connection = connection
            try:
                await connection.open(auth, self._config.connection_timeout / 2 if left else None)
            except RealtimeError as error:
                failures.append(error)
            else:
                return
            if not left or self._closed or not connection.tap.is_specific:
                break
            await connection.release()
        raise max(failures, key=_clarity)  # the first one of several

    def send(self, payload: Payload, ack_id: int | None) -> None:
        """Queue an event for the network; dropped silently once the connection is lost."""
        connection = self._connection
        if connection is None or not connection.tap.is_usable:
            return
        if payload.attachments:
            text = frame.encode_binary(PacketType.BINARY_EVENT, self._config.namespace, ack_id, payload)
            connection.outflow.put(Parcel(text, payload.attachments, counted=True))
        elif ack_id is None:
            connection.outflow.put(self._event_head + payload.text)
        else:
            connection.outflow.put(f"{self._event_head}{ack_id}{payload.text}")

    def answer(self, ack_id: int, payload: Payload) -> None:
        """Queue the acknowledgement of an event that wanted one."""
        connection = self._connection
        if connection is None or not connection.tap.is_usable:
            return
        if payload.attachments:
            text = frame.encode_binary(PacketType.BINARY_ACK, self._config.namespace, ack_id, payload)
        else:
            text = f"{self._ack_head}{ack_id}{payload.text}"
        connection.outflow.put(Parcel(text, payload.attachments))

    def ping(self, number: int) -> bool:
        """Ask the peer for a sign of life; ``False`` over polling."""
        return self._connection is not None and self._connection.ping(number)

    async def close(self, *, goodbye: bool) -> None:
        """Release everything; see ``Transport.close``.

        Cancelling it ends the goodbye, not the release, which takes no time that depends on the peer.
        """
        self._closed = True
        connection = self._connection
        if connection is None:
            return
        try:
            if goodbye and self._release is None:
                await connection.say_goodbye()
        finally:
            connection.cut()
            if self._release is None:
                self._release = asyncio.get_running_loop().create_task(connection.release())
            await asyncio.wait({self._release})


def _clarity(error: RealtimeError) -> int:
    """Rank failures by how much they tell."""
    if isinstance(error, _CLEAR):
        return 2
    return 1 if isinstance(error, ServerUnavailableError) else 0


class SocketIOTransportFactory:
    """Makes a fresh transport for every attempt: the port ``TransportFactory``.

    Args:
        config: As for ``SocketIOTransport``.
        connector_factory: As for ``SocketIOTransport``.
    """

    def __init__(self, config: RealtimeConfig, connector_factory: ConnectorFactory | None = None) -> None:
        self._config = config
        self._connector_factory = connector_factory

    def __call__(self, listener: TransportListener) -> SocketIOTransport:
        """Return an unopened transport."""
        return SocketIOTransport(self._config, listener, self._connector_factory)
