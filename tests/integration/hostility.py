"""What hostile peers do: in a Socket.IO session, and in an HTTP answer."""

import asyncio
import gzip
import json
import socket as sockets
from typing import Any

from aiohttp import web
from hostile_peer import Act, Frame, Session
from hostile_server import CONNECT, Handler, event

# In a session.


def frames(*given: Frame) -> Act:
    """Send frames."""

    async def act(session: Session) -> None:
        await session.send(*given)

    return act


def hangs_up(code: int, reason: str = "") -> Act:
    """Close the websocket with a code."""

    async def act(session: Session) -> None:
        assert session.socket is not None
        await session.socket.close(code=code, message=reason.encode())

    return act


def writes(raw: bytes) -> Act:
    """Write bytes below the websocket's framing."""

    async def act(session: Session) -> None:
        assert session.request.transport is not None
        session.request.transport.write(raw)

    return act


def polled(handler: Handler) -> Act:
    """Answer the next poll by a handler."""

    async def act(session: Session) -> None:
        session.answer_by(handler)

    return act


async def resets(session: Session) -> None:
    """Reset the connection."""
    transport = session.request.transport
    assert transport is not None
    raw = transport.get_extra_info("socket")
    raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    transport.abort()


def fragments(count: int, size: int) -> bytes:
    """Return one websocket message in parts, unfinished, so that no single frame is too large."""
    length = size.to_bytes(2, "big")
    return b"".join(bytes([0x01 if n == 0 else 0x00, 126]) + length + b"x" * size for n in range(count))


def many_events(count: int) -> Act:
    """Send many events at once; over polling in one payload."""
    return frames(*(event("tick", number) for number in range(count)))


def lets_in_and(*then: str) -> Act:
    """Let the client in, and go on in the same batch: over a websocket all frames are of one write."""

    async def act(session: Session) -> None:
        if session.socket is None:
            await session.send(CONNECT, *then)
            return
        texts = [text.encode() for text in (CONNECT, *then)]
        await writes(b"".join(bytes([0x81, len(text)]) + text for text in texts))(session)

    return act


# In an HTTP answer.


def says(body: str | bytes | object, *, status: int = 200, kind: str = "application/json") -> Handler:
    """Answer with a body: as it is if it is text or bytes, as JSON otherwise."""
    content = body if isinstance(body, (str, bytes)) else json.dumps(body)

    async def handle(_: web.Request) -> web.StreamResponse:
        return web.Response(body=content, status=status, content_type=kind)

    return handle


def redirects(status: int = 302) -> Handler:
    """Send the client to another place."""

    async def handle(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, headers={"Location": "http://127.0.0.1:9/elsewhere"})

    return handle


def raw(answer: bytes) -> Handler:
    """Write bytes instead of an HTTP answer, and hang up."""

    async def handle(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.write(answer)
        request.transport.close()
        await asyncio.sleep(1)  # cancelled, because the connection has ended
        return web.Response()

    return handle


async def never_ends(request: web.Request) -> web.StreamResponse:
    """Answer with a body without an end."""
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b"1" * 65536)


async def drips(request: web.Request) -> web.StreamResponse:
    """Answer a byte at a time."""
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.02)


async def bomb(_: web.Request) -> web.StreamResponse:
    """Answer with little that becomes much when it is decompressed."""
    body = gzip.compress(json.dumps("x" * 20_000_000).encode(), 1)
    return web.Response(body=body, headers={"Content-Encoding": "gzip"})


async def not_gzip(_: web.Request) -> web.StreamResponse:
    """Answer with something that is not compressed as it says."""
    return web.Response(body=b"{}", headers={"Content-Encoding": "gzip"})


def nested(depth: int) -> str:
    """Return JSON of a depth."""
    return "[" * depth + "]" * depth


def results(*given: Any) -> Handler:
    """Answer as to published messages."""
    return says({"results": list(given)})
