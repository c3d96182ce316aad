"""The bodies of HTTP requests and answers."""

import io
from collections.abc import Callable
from typing import Final

import aiohttp

from realtime_fsm.adapters import error_translation

_LARGE: Final = 1024 * 1024


def to_send(content: bytes) -> bytes | io.BytesIO:
    """Return a body in the form in which aiohttp sends it: a large one in parts, not as a whole."""
    return io.BytesIO(content) if len(content) >= _LARGE else content


async def read(response: aiohttp.ClientResponse, limit: int, on_chunk: Callable[[], None]) -> bytes:
    """Return the whole body.

    Args:
        response: Whose head has been read.
        limit: Most bytes, after decompression.
        on_chunk: Called whenever something came.

    Raises:
        PayloadTooLargeError: If it is longer; the connection is closed then, without reading the rest.
        aiohttp.ClientError: If the connection fails.
    """
    chunks = []
    size = 0
    async for chunk in response.content.iter_any():
        on_chunk()
        size += len(chunk)
        if size > limit:
            response.close()
            raise error_translation.too_large(limit)
        chunks.append(chunk)
    return b"".join(chunks)
