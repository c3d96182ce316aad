"""A transport that can hold writes together: a batch of frames costs one system call, and one packet."""

import asyncio
from typing import Any


class CorkedTransport:
    """Wraps a transport of asyncio; everything but ``write`` is the wrapped one's.

    Args:
        inner: The transport.
    """

    def __init__(self, inner: asyncio.Transport) -> None:
        self._inner = inner
        self._parts: list[bytes | bytearray | memoryview] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write, or keep for later while corked."""
        if self._parts is None:
            self._inner.write(data)
        else:
            self._parts.append(data)

    def cork(self) -> None:
        """Keep what is written from now on."""
        if self._parts is None:
            self._parts = []

    def uncork(self) -> None:
        """Write what was kept, at once.

        Raises:
            ConnectionResetError: If the transport was closed meanwhile.
        """
        parts, self._parts = self._parts, None
        if not parts:
            return
        if self._inner.is_closing():
            raise ConnectionResetError("The transport is closed.")
        self._inner.write(parts[0] if len(parts) == 1 else b"".join(parts))
