"""Socket.IO and HTTP servers that do one hostile thing, and are what they should be before and after it."""

import asyncio
import base64
import contextlib
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import attrs
from aiohttp import web
from hostile_server import BOUND, CONNECT, OPEN, Handler, Server, http

Frame = str | bytes


class Session:
    """One Engine.IO session, over either transport.

    Args:
        number: Of the session at its server; 1-based.
        socket: The websocket; ``None`` over polling.
        request: What opened it.
    """

    def __init__(self, number: int, socket: web.WebSocketResponse | None, request: web.Request) -> None:
        self.number = number
        self.socket = socket
        self.request = request
        self.instead: Handler | None = None
        self._waiting: list[str] = []
        self._changed = asyncio.Event()

    async def send(self, *frames: Frame) -> None:
        """Send frames; over polling all of them in one payload."""
        for frame in frames:
            if self.socket is None:
                text = frame if isinstance(frame, str) else "b" + base64.b64encode(frame).decode()
                self._waiting.append(text)
            elif isinstance(frame, str):
                await self.socket.send_str(frame)
            else:
                await self.socket.send_bytes(frame)
        self._changed.set()

    def answer_by(self, handler: Handler) -> None:
        """Let a handler answer the next poll of the client."""
        self.instead = handler
        self._changed.set()

    async def poll(self, request: web.Request) -> web.StreamResponse:
        """Answer a poll, as soon as there is something to be said."""
        while self.instead is None and not self._waiting:
            self._changed.clear()
            await self._changed.wait()
        if self.instead is not None:
            handler, self.instead = self.instead, None
            return await handler(request)
        payload, self._waiting = "\x1e".join(self._waiting), []
        return web.Response(text=payload)


Act = Callable[[Session], Awaitable[None]]
"""What a hostile server does in a session."""


@attrs.define(eq=False)
class Peer:
    """A Socket.IO server that acknowledges every event, and is hostile in its first sessions.

    Attributes:
        act: Done at the first event of the client, before it is acknowledged.
        at_join: Done where the client is let in otherwise.
        at_dial: Answers the first request instead.
        at_message: Answers a request with a message of the client instead (over polling).
        only_at: The one event to which it is hostile; by default the first one of a session.
        times: In how many sessions, or at how many requests, it is hostile.
        sessions: How many were opened.
        dials: How many requests for one came.
        received: ``(session, name of the event)``.
        ack_ids: The numbers by which their acknowledgements were asked for.
    """

    act: Act | None = None
    at_join: Act | None = None
    at_dial: Handler | None = None
    at_message: Handler | None = None
    only_at: str | None = None
    times: int = 1
    sessions: int = 0
    dials: int = 0
    received: list[tuple[int, str]] = attrs.field(factory=list)
    ack_ids: list[str] = attrs.field(factory=list)
    _polling: dict[str, Session] = attrs.field(factory=dict)

    @contextlib.contextmanager
    def serving(self) -> Iterator[Server]:
        """Run it."""
        with http(self._handle) as server:
            yield server

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        sid = request.query.get("sid")
        if sid is not None:
            return await self._in_session(self._polling.get(sid), request)
        self.dials += 1
        if self.at_dial is not None and self.dials <= self.times:
            return await self.at_dial(request)
        self.sessions += 1
        if request.query["transport"] == "websocket":
            return await self._over_websocket(request)
        sid = f"s{self.sessions}"
        self._polling[sid] = Session(self.sessions, None, request)
        return web.Response(text=OPEN.replace('"s1"', f'"{sid}"'))

    async def _over_websocket(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(max_msg_size=0)
        await socket.prepare(request)
        session = Session(self.sessions, socket, request)
        await socket.send_str(OPEN)
        async for message in socket:
            await self._take(session, message.data)
        return socket

    async def _in_session(self, session: Session | None, request: web.Request) -> web.StreamResponse:
        if session is None:
            return web.json_response({"code": 1, "message": "Session ID unknown"}, status=400)
        if request.method == "GET":
            return await session.poll(request)
        packets = (await request.text()).split("\x1e")
        if self.at_message is not None and session.number <= self.times and packets[0].startswith("42"):
            return await self.at_message(request)
        for packet in packets:
            await self._take(session, packet)
        return web.Response(text="ok")

    async def _take(self, session: Session, packet: str) -> None:
        """Take a packet of the client."""
        if packet.startswith("40"):
            if self.at_join is not None and session.number <= self.times:
                await self.at_join(session)
            else:
                await session.send(CONNECT)
        elif packet.startswith("42"):
            ack_id, _, rest = packet[2:].partition("[")
            name = json.loads("[" + rest)[0]
            is_first = not any(number == session.number for number, _ in self.received)
            self.received.append((session.number, name))
            self.ack_ids.append(ack_id)
            is_due = is_first if self.only_at is None else name == self.only_at
            if self.act is not None and session.number <= self.times and is_due:
                await self.act(session)
            if ack_id:
                await session.send(f"43{ack_id}[]")


EVENTS: Final = "/realtime/events"
MESSAGES: Final = "/realtime/messages"


@attrs.define(eq=False)
class FallbackPeer:
    """The HTTP side of a reference backend whose sockets are down, hostile in its first answer of a kind.

    Attributes:
        path: At which it is hostile, ``EVENTS`` or ``MESSAGES``.
        answer: The hostile answer.
        times: How often it is given.
        requests: The paths that were asked for.
        received: The ids of the messages that it took.
        last: Number of the last event that is published; all answers but the hostile ones tell of it.
    """

    path: str
    answer: Handler
    times: int = 1
    requests: list[str] = attrs.field(factory=list)
    received: list[str] = attrs.field(factory=list)
    last: int = 3

    @contextlib.contextmanager
    def serving(self) -> Iterator[Server]:
        """Run it."""
        with http(self._handle) as server:
            yield server

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request.path)
        if request.path == self.path and self.requests.count(self.path) <= self.times:
            return await self.answer(request)
        if request.path == EVENTS:
            return web.json_response(stream_of(self.last))
        if request.path == MESSAGES:
            messages = (await request.json())["messages"]
            self.received += [message["message_id"] for message in messages]
            return web.json_response(
                {"results": [{"message_id": m["message_id"], "ok": True, "answer": 1} for m in messages]}
            )
        return web.Response(status=503)


def stream_of(last: int, **fields: Any) -> dict[str, Any]:
    """Return what polling answers: the events of the channel ``ticks`` up to a number."""
    events = [{"event": "tick", "data": number, "offset": number} for number in range(1, last + 1)]
    stream = {"ok": True, "epoch": "e", "offset": last, "recovered": True, "events": events}
    return {"channels": {"ticks": stream | fields}}


async def silent(_: web.Request) -> web.StreamResponse:
    """Say nothing, for longer than any client waits."""
    await asyncio.sleep(BOUND)
    return web.Response()
