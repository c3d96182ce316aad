"""The body of an HTTP answer, read with a bound."""

from collections.abc import Callable

import aiohttp

from realtime_fsm.adapters import error_translation


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
