"""The sockets of a session, so that they can be broken at once."""

import socket
import weakref
from typing import Any

import aiohttp


class SocketRegistry:
    """Makes the sockets of a connector and remembers them.

    A transport that has something to write to a peer that does not read cannot be closed: ``close`` waits for
    the peer, for as long as the kernel does. A socket can be shut down, and then the transport ends.
    """

    def __init__(self) -> None:
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    def connector(self) -> aiohttp.TCPConnector:
        """Return a new connector whose sockets are remembered."""
        return aiohttp.TCPConnector(socket_factory=self._make)

    def _make(self, address: Any) -> socket.socket:
        family, kind, protocol, _, _ = address
        made = socket.socket(family, kind, protocol)
        self._sockets.add(made)
        return made

    def cut(self) -> None:
        """Shut all sockets down."""
        for made in self._sockets:
            try:
                made.shutdown(socket.SHUT_RDWR)
            except OSError:  # it is closed, or was never connected
                continue
