"""Bounds where aiohttp has none: on the size of a body, and on the end of a connection."""

import io
import socket
import sys
import weakref
from collections.abc import Callable
from typing import Any, Final

import aiohttp

_NOT_SENT_LOWAT: Final = 25 if sys.platform == "linux" else None  # which `socket` names from Python 3.12 on
_MAX_NOT_SENT_BYTES: Final = 128 * 1024
"""So much may wait in the kernel before its first transmission: what counts as written has nearly left. A
kernel takes megabytes otherwise, behind which a probe waits without that anything is seen to move."""

_LARGE: Final = 1024 * 1024


def body_to_send(content: bytes) -> bytes | io.BytesIO:
    """Return a body in the form in which aiohttp sends it: a large one in parts, not as a whole."""
    return io.BytesIO(content) if len(content) >= _LARGE else content


async def read_body(
    stream: aiohttp.StreamReader, limit: int, on_chunk: Callable[[], None] | None = None
) -> bytes | None:
    """Return a whole body, of a request or of an answer; ``None`` if it is larger.

    The rest of a larger one is not read: whoever has its connection closes it.

    Args:
        stream: Where it comes from, its head having been read.
        limit: Most bytes, after decompression.
        on_chunk: Called whenever something came.

    Raises:
        aiohttp.ClientError: If the connection fails.
    """
    # `read()` of a response has no limit, and that of a request believes the limit of its application, which
    # need not be ours.
    chunks = []
    size = 0
    async for chunk in stream.iter_any():
        if on_chunk is not None:
            on_chunk()
        size += len(chunk)
        if size > limit:
            return None
        chunks.append(chunk)
    return b"".join(chunks)


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
        if _NOT_SENT_LOWAT is not None:
            made.setsockopt(socket.IPPROTO_TCP, _NOT_SENT_LOWAT, _MAX_NOT_SENT_BYTES)
        self._sockets.add(made)
        return made

    def cut(self) -> None:
        """Shut all sockets down."""
        for made in self._sockets:
            try:
                made.shutdown(socket.SHUT_RDWR)
            except OSError:  # it is closed, or was never connected
                continue
