"""The connected clients, and the channels that each is subscribed to."""

import asyncio
import math
from collections.abc import Iterator

from aiohttp import web
from attrs import define, field

from realtime_fsm.server.request import Envelope
from realtime_fsm.server.router import Client
from realtime_fsm.server.token import Identity


@define(eq=False, kw_only=True)
class Session:
    """A client that is connected.

    Attributes:
        sid: Its Socket.IO id.
        engine_sid: The id of the Engine.IO connection below it.
        request: The request that opened that connection.
        identity: What its last valid token says.
        channels: What it is subscribed to.
        turn: Held while its subscriptions change, so that they change in the order of its requests.
        is_open: Whether it is still connected.
        messages: How many have come.
        refused_from: Number of the first one that could not be handled. None after it is handled either,
            though it may wait in line by then: the client sends them all again, and in order.
    """

    sid: str
    engine_sid: str
    request: web.Request
    identity: Identity
    channels: set[str] = field(factory=set)
    turn: asyncio.Lock = field(factory=asyncio.Lock)
    is_open: bool = True
    messages: int = 0
    refused_from: float = math.inf

    def client(self, envelope: Envelope | None = None) -> Client:
        """Return what a handler is told of it."""
        return Client.of(self.identity, envelope, sid=self.sid)


class Sessions:
    """All sessions, and who among them is in which channel."""

    def __init__(self) -> None:
        self._by_sid: dict[str, Session] = {}
        self._members: dict[str, dict[str, Session]] = {}

    def __len__(self) -> int:
        return len(self._by_sid)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._by_sid.values()))

    def get(self, sid: str) -> Session | None:
        """Return the session of a Socket.IO id, if it is connected."""
        return self._by_sid.get(sid)

    def add(self, session: Session) -> None:
        """Take a session in."""
        self._by_sid[session.sid] = session

    def remove(self, sid: str) -> Session | None:
        """Forget a session, and all that it was subscribed to."""
        session = self._by_sid.pop(sid, None)
        if session is not None:
            session.is_open = False
            for channel in list(session.channels):
                self.leave(session, channel)
        return session

    def join(self, session: Session, channel: str) -> None:
        """Put an open session into a channel."""
        session.channels.add(channel)
        self._members.setdefault(channel, {})[session.sid] = session

    def leave(self, session: Session, channel: str) -> None:
        """Take a session out of a channel, if it is in it."""
        session.channels.discard(channel)
        members = self._members.get(channel, {})
        members.pop(session.sid, None)
        if not members:
            self._members.pop(channel, None)

    def members(self, channel: str) -> list[Session]:
        """Return who is in a channel."""
        return list(self._members.get(channel, {}).values())
