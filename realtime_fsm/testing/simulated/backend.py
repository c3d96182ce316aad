"""The behaviour of the reference backend, in memory: channels with a log, messages, and both over HTTP too.

Not simulated: sessions that end when their token expires (use ``SimulatedServer.kick``), and limits.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol
from urllib.parse import parse_qs, urlsplit

from attrs import define, field, frozen

from realtime_fsm.engine.port import WallClock
from realtime_fsm.machine.dialect import Dialect
from realtime_fsm.machine.errors import ErrorCategory, ProtocolError, RealtimeError
from realtime_fsm.testing.virtual_loop import wall_clock

MAX_EVENTS: Final = 500
"""Events of one channel in one answer over HTTP."""

MAX_MESSAGES: Final = 100
"""Messages in one request over HTTP."""

_IDENTITIES: Final = ({"message_id"}, {"message_id", "client_id", "sequence"})
_BOOKING: Final = "booking:"
_DIALECT: Final = Dialect.REFERENCE

Answer = dict[str, Any]


class BackendSession(Protocol):
    """A client's connection, as a ``SimulatedBackend`` sees it."""

    def deliver_event(self, event: str, args: list[Any], ack_id: int | None = None) -> None:
        """Send an event to the client."""

    def admits(self, token: object) -> bool:
        """Tell whether a token would be let in."""


@frozen(kw_only=True)
class Handled:
    """A message that took effect.

    Attributes:
        event: Its name.
        args: Its arguments, without the id.
        message_id: Its identity, or ``None`` where the client gave none.
        over: ``socket`` or ``http``.
        client_id: Whose message it is, where it is to take effect once.
        sequence: Its number among them.
    """

    event: str
    args: list[Any]
    message_id: str | None
    over: str
    client_id: str | None = None
    sequence: int = 0


@define
class _Channel:
    entries: deque[tuple[int, str, Any]]
    offset: int = 0
    lost: int = 0


@define(eq=False)
class SimulatedBackend:
    """The reference dialect. Give the same one to a ``SimulatedServer`` and to a ``SimulatedHttp``.

    Attributes:
        handlers: The application: what is called with an event's arguments; what it returns is the answer.
            A ``RealtimeError`` that it raises is a refusal; any other error fails the test.
        log_size: Events kept per channel.
        forbidden: Channels that are refused.
        token_lifetime: Seconds that a renewed identity is good for.
        wall: Tells the time for that.
        epoch: Identity of the log.
        handled: Every message that took effect, in order; a repeat is there twice, unless it came with a
            number.
        repeats: Numbered messages that came again, and took no effect.
    """

    handlers: dict[str, Callable[..., Any]] = field(factory=dict)
    log_size: int = 1000
    forbidden: set[str] = field(factory=set)
    token_lifetime: float = 3600.0
    wall: WallClock = field(factory=wall_clock)
    epoch: str = "e1"
    handled: list[Handled] = field(factory=list)
    repeats: int = 0
    _marks: dict[str, int] = field(factory=dict, init=False)
    _answers: dict[tuple[str, int], Answer] = field(factory=dict, init=False)
    _channels: dict[str, _Channel] = field(factory=dict, init=False)
    _members: dict[BackendSession, set[str]] = field(factory=dict, init=False)
    _starts: int = field(default=1, init=False)

    def publish(self, channel: str, event: str, data: Any = None) -> int:
        """Publish an event, to who is subscribed and into the log; return its offset."""
        log = self._open(channel)
        log.offset += 1
        log.entries.append((log.offset, event, data))
        for session, channels in list(self._members.items()):
            if channel in channels:
                self._deliver(session, channel, log.entries[-1])
        return log.offset

    def position(self, channel: str) -> dict[str, Any]:
        """Return where a channel stands: its ``epoch`` and ``offset``."""
        return {"epoch": self.epoch, "offset": self._open(channel).offset}

    def lose_next(self, channel: str, count: int) -> None:
        """Lose the next events of a channel on their way to whoever is subscribed; the log has them."""
        self._open(channel).lost = count

    def restart(self) -> None:
        """Lose the log, as a process does that is started anew; its connections are yours to reset."""
        self._starts += 1
        self.epoch = f"e{self._starts}"
        self._channels.clear()
        self._members.clear()

    # Over the socket.

    def answer(self, session: BackendSession, event: str, args: list[Any]) -> Answer:
        """Return the acknowledgement of a client's event."""
        if event == _DIALECT.heartbeat_event:
            return {"ok": True}
        body = args[0] if args and isinstance(args[0], dict) else {}
        if event == _DIALECT.reauthenticate_event:
            return self._reauthenticate(session, body)
        if event == _DIALECT.subscribe_event:
            return self._subscribe(session, body.get("channels", ()), body)
        if event == _DIALECT.monitor_event:
            bookings = [f"{_BOOKING}{booking}" for booking in body.get("booking_ids", ())]
            return self._subscribe(session, bookings, body)
        if event == _DIALECT.unsubscribe_event:
            self._members.get(session, set()).difference_update(body.get("channels", ()))
            return {"ok": True}
        last = args[-1] if args else None
        if not (isinstance(last, dict) and last.keys() in _IDENTITIES):
            return self._handle(Handled(event=event, args=args, message_id=None, over="socket"))
        return self._handle(Handled(event=event, args=args[:-1], over="socket", **last))

    def left(self, session: BackendSession) -> None:
        """Forget a connection that has ended."""
        self._members.pop(session, None)

    # Over HTTP.

    def poll(self, url: str) -> Answer:
        """Answer what each channel has beyond the position that the client knows."""
        query = parse_qs(urlsplit(url).query)
        positions = [text.rsplit(":", 2) for text in query.get("position", [])]
        known = {channel: (epoch, int(offset)) for channel, epoch, offset in positions}
        return {"channels": {name: self._stream(name, known.get(name)) for name in query.get("channel", [])}}

    def receive(self, body: Any) -> Answer:
        """Handle messages in their order, as if they had come over the socket.

        Raises:
            ProtocolError: If there are too many.
        """
        messages = body["messages"]
        if len(messages) > MAX_MESSAGES:
            raise ProtocolError("The server refuses the request (HTTP 413).")
        return {"results": [self._take(message) for message in messages]}

    def _take(self, message: Mapping[str, Any]) -> Answer:
        args = list(message["args"]) if "args" in message else [message["data"]]
        identity = {key: message[key] for key in ("message_id", "client_id", "sequence") if key in message}
        answer = self._handle(Handled(event=message["event"], args=args, over="http", **identity))
        return {"message_id": message["message_id"], **answer}

    def _stream(self, channel: str, known: tuple[str, int] | None) -> Answer:
        if channel in self.forbidden:
            return _forbidden(channel)
        log = self._open(channel)
        here = {"ok": True, "epoch": self.epoch, "offset": log.offset}
        if known is None:
            return {**here, "recovered": True, "events": []}
        missed = self._missed(channel, *known)
        if missed is None:
            return {**here, "recovered": False, "events": []}
        events = [{"event": e, "data": data, "offset": at} for at, e, data in missed[:MAX_EVENTS]]
        if len(missed) > MAX_EVENTS:
            here |= {"offset": events[-1]["offset"], "more": True}
        return {**here, "recovered": True, "events": events}

    # Inside.

    def _handle(self, message: Handled) -> Answer:
        """Let a message take effect, unless its number says that it did before."""
        if message.client_id is None:
            return self._apply(message)
        if message.sequence <= self._marks.get(message.client_id, 0):
            self.repeats += 1
            first = self._answers.get((message.client_id, message.sequence), {"ok": True})
            return {**first, "duplicate": True}
        self._marks[message.client_id] = message.sequence
        answer = self._answers[message.client_id, message.sequence] = self._apply(message)
        return answer

    def _apply(self, message: Handled) -> Answer:
        handler = self.handlers.get(message.event)
        if handler is None:
            return _refusal(
                ErrorCategory.APPLICATION, "unknown_event", f"There is no handler for {message.event!r}."
            )
        try:
            answer = handler(*message.args)
        except RealtimeError as error:
            return _refusal(error.category, "refused", error.message)
        self.handled.append(message)
        return {"ok": True, "answer": answer}

    def _reauthenticate(self, session: BackendSession, body: Mapping[str, Any]) -> Answer:
        if not session.admits(body.get(_DIALECT.token_key)):
            return _refusal(ErrorCategory.AUTHENTICATION, "token_invalid", "The token is not accepted.")
        return {"ok": True, "expires_at": self.wall() + self.token_lifetime}

    def _subscribe(self, session: BackendSession, channels: Iterable[str], body: Mapping[str, Any]) -> Answer:
        """Replay and join in one step: nothing can be published in between, or overtake what is replayed."""
        positions = body.get("positions") or {}
        return {
            "ok": True,
            "channels": {name: self._join(session, name, positions.get(name)) for name in channels},
        }

    def _join(self, session: BackendSession, channel: str, position: Mapping[str, Any] | None) -> Answer:
        if channel in self.forbidden:
            return _forbidden(channel)
        self._members.setdefault(session, set()).add(channel)
        missed = None if position is None else self._missed(channel, position["epoch"], position["offset"])
        for entry in missed or ():
            self._deliver(session, channel, entry)
        return {
            "ok": True,
            "epoch": self.epoch,
            "offset": self._open(channel).offset,
            "recovered": position is None or missed is not None,
        }

    def _missed(self, channel: str, epoch: str, offset: int) -> list[tuple[int, str, Any]] | None:
        """Return what came after a position; ``None`` where the log does not tell."""
        log = self._open(channel)
        missed = [entry for entry in log.entries if entry[0] > offset]
        known = epoch == self.epoch and 0 <= offset <= log.offset and len(missed) == log.offset - offset
        return missed if known else None

    def _deliver(self, session: BackendSession, channel: str, entry: tuple[int, str, Any]) -> None:
        offset, event, data = entry
        log = self._open(channel)
        if log.lost:
            log.lost -= 1
            return
        session.deliver_event(event, [data, {"channel": channel, "epoch": self.epoch, "offset": offset}])

    def _open(self, channel: str) -> _Channel:
        return self._channels.setdefault(channel, _Channel(deque(maxlen=self.log_size)))


def _refusal(category: ErrorCategory, code: str, message: str) -> Answer:
    return {"ok": False, "error": {"category": category.value, "code": code, "message": message}}


def _forbidden(channel: str) -> Answer:
    return _refusal(ErrorCategory.APPLICATION, "forbidden", f"The channel {channel!r} is not for you.")
