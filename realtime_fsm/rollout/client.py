"""What a rollout runs: a client of either implementation, behind one narrow protocol."""

import asyncio
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Protocol

from attrs import define, frozen

from realtime_fsm.engine.dispatcher import Delivered, Dispatcher, Handler
from realtime_fsm.engine.message import Receipt
from realtime_fsm.engine.payload import check_event_name, encode
from realtime_fsm.engine.subscriptions import Position
from realtime_fsm.machine.errors import RealtimeError
from realtime_fsm.monitoring.metrics_database import MetricsDatabase

Places = Mapping[str, Position]
"""The place of the last event of each channel, where the server numbers them."""

Wanted = Mapping[str, str | None]
"""The channels that are subscribed to; of a monitored booking with its id."""

Sink = Callable[[str, list[Any]], "asyncio.Future[Any]"]
"""Takes an event at once, in its order; the future is resolved with the answer when it was handled."""


class SignalKind(StrEnum):
    """What a client tells of its connection."""

    LIVE = "live"
    """A dial succeeded."""
    FAILED = "failed"
    """A dial failed."""
    LOST = "lost"
    """A live connection ended by itself."""
    GAVE_UP = "gave_up"
    """Nothing is tried any more."""


@frozen(kw_only=True)
class Signal:
    """Something that happened to a connection.

    Attributes:
        kind: What.
        error: Why, of all but ``LIVE``.
        duration: Seconds that the dial took, of ``LIVE`` and ``FAILED``.
        number: Which dial since the last success; 1-based.
    """

    kind: SignalKind
    error: RealtimeError | None = None
    duration: float = 0.0
    number: int = 1


Watcher = Callable[[Signal], object]


@define(eq=False)
class Letter:
    """A message on its way through a rollout, whichever client sends it.

    Attributes:
        event: Name of the event.
        args: Its arguments.
        receipt: What the caller holds.
        identity: What it says of itself on the wire, once a client has numbered it.
        was_sent: Whether the server may have had it already.
    """

    event: str
    args: tuple[Any, ...]
    receipt: Receipt
    identity: dict[str, Any] | None = None
    was_sent: bool = False


class RealtimeClient(Protocol):
    """A client of either implementation, as an application uses it."""

    implementation: str

    @property
    def is_connected(self) -> bool:
        """Whether the socket is live."""

    @property
    def gave_up(self) -> RealtimeError | None:
        """Why nothing is tried any more; ``None`` while something is."""

    async def connect(self) -> None:
        """Begin to connect, and wait until the first attempt is decided.

        Raises:
            RealtimeError: If it gave up.
        """

    async def disconnect(self) -> None:
        """Close everything; safe to call twice."""

    async def emit(self, event: str, data: Any = None) -> Receipt:
        """Accept a message for the server."""

    def on(self, event: str, handler: Handler) -> Handler:
        """Handle an event."""

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """Tell what happens to the connection; return what ends it."""


class RolloutClient(RealtimeClient, Protocol):
    """What a rollout needs beside that, so that it can put one client in the place of another."""

    accepts_identity: bool
    """Whether it can send a message under the identity that another client gave it."""

    def listen(self, sink: Sink | None) -> None:
        """Give every event to ``sink`` from now on; ``None`` drops them."""

    async def subscribe(self, wanted: Wanted, places: Places) -> None:
        """Subscribe to channels, each from behind its place where it has one."""

    async def unsubscribe(self, channels: list[str]) -> None:
        """Forget channels."""

    async def post(self, letter: Letter) -> None:
        """Send a message, after those that were posted before, as soon as that is possible."""

    async def drain(self) -> None:
        """Wait until what was posted has come to its end, or cannot now. The caller bounds it."""

    async def cut(self) -> Places:
        """Stop listening at this moment, and return where that was.

        Everything before that moment has been given to the sink when this returns; nothing after it is.
        """

    async def release(self) -> list[Letter]:
        """Disconnect, and return what was posted and has not come to its end, in its order."""

    def measured_by(self, database: MetricsDatabase) -> Callable[[], None]:
        """Have what happens recorded; return what ends it."""


class Answers:
    """Waits for the answers of handlers, and lets go of them all at once when it must."""

    def __init__(self) -> None:
        self._open: dict[asyncio.Future[Any], None] = {}  # in the order in which they were asked for
        self._is_released = False

    def open(self) -> None:
        """Wait for answers from now on."""
        self._is_released = False

    async def of(self, answer: "asyncio.Future[Any]") -> Any:
        """Return an answer; ``None`` if it does not matter any more."""
        if self._is_released:
            return None
        waiter: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def answered(done: "asyncio.Future[Any]") -> None:
            if not waiter.done():
                waiter.set_result(None if done.cancelled() else done.result())

        self._open[waiter] = None
        answer.add_done_callback(answered)
        try:
            return await waiter
        finally:
            del self._open[waiter]
            answer.remove_done_callback(answered)

    def release(self) -> None:
        """Wait for none any more."""
        self._is_released = True
        for waiter in self._open:
            if not waiter.done():
                waiter.set_result(None)


def letter_of(event: str, data: Any, *, max_bytes: int) -> Letter:
    """Return a message that can be sent.

    Raises:
        InvalidArgumentError: If it cannot be, ever.
    """
    args = data if isinstance(data, tuple) else () if data is None else (data,)
    encode([check_event_name(event), *args], what=f"The event {event!r}", max_bytes=max_bytes)
    return Letter(event, args, Receipt(event))


def post_to(dispatcher: Dispatcher) -> Sink:
    """Return a sink that hands events to the handlers of a dispatcher."""

    def sink(event: str, args: list[Any]) -> "asyncio.Future[Any]":
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def answered(given: Any) -> None:
            if not answer.done():
                answer.set_result(given)

        dispatcher.post(Delivered(event, args, answered))
        return answer

    return sink
