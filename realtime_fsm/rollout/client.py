"""The client that a rollout runs, of either implementation, behind one narrow protocol."""

import asyncio
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import partial
from typing import Any, Protocol

from attrs import define, frozen

from realtime_fsm.engine.dispatcher import Delivered, Dispatcher, Handler
from realtime_fsm.engine.message import Receipt
from realtime_fsm.engine.payload import check_event_name, encode
from realtime_fsm.engine.subscriptions import Position
from realtime_fsm.machine.errors import RealtimeError
from realtime_fsm.monitoring.database import MetricsDatabase

Positions = Mapping[str, Position]
"""The position of the last event of each channel, where the server numbers them."""

Wanted = Mapping[str, str | None]
"""The channels that are subscribed to; of a monitored booking with its id."""

Sink = Callable[[str, list[Any]], "asyncio.Future[Any]"]
"""Takes an event at once, in its order; the future is resolved with the answer when it was handled."""


class SignalKind(StrEnum):
    """The events of a connection that a client tells of."""

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
        """True while the socket is live."""

    @property
    def gave_up(self) -> RealtimeError | None:
        """The reason why nothing is tried any more; ``None`` while something is."""

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
        """Have an event handled by a function."""

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """Tell what happens to the connection; return what ends it."""


class RolloutClient(RealtimeClient, Protocol):
    """A client that a rollout can put in the place of another one."""

    accepts_identity: bool
    """Whether it can send a message under the identity that another client gave it."""

    def listen(self, sink: Sink | None) -> None:
        """Give every event to ``sink`` from now on; ``None`` drops them."""

    async def subscribe(self, wanted: Wanted, positions: Positions) -> None:
        """Subscribe to channels, each from behind its position where it has one."""

    async def unsubscribe(self, channels: list[str]) -> None:
        """Unsubscribe from channels, and forget them."""

    async def post(self, letter: Letter) -> None:
        """Send a message, after those that were posted before, as soon as that is possible."""

    async def drain(self) -> None:
        """Wait until what was posted has come to its end, or cannot now. The caller bounds it."""

    async def cut(self) -> Positions:
        """Stop listening at this moment, and return where that was.

        Everything before that moment has been given to the sink when this returns; nothing after it is.
        """

    async def release(self) -> list[Letter]:
        """Disconnect, and return what was posted and has not come to its end, in its order."""

    def measured_by(self, database: MetricsDatabase) -> Callable[[], None]:
        """Have what happens recorded; return what ends it."""


class Running:
    """One client, begun and measured.

    Args:
        client: The client.
        database: Where it is recorded, if anywhere.
        watcher: Told of its signals.

    Attributes:
        lost_at: Since when it has no connection, on the loop's clock; ``None`` while it has one.
    """

    def __init__(self, client: RolloutClient, database: MetricsDatabase | None, watcher: Watcher) -> None:
        self.client = client
        self.lost_at: float | None = asyncio.get_running_loop().time()
        self._signalled = asyncio.Event()
        self._stops = [client.watch(self._signal), client.watch(watcher)]
        if database is not None:
            self._stops.append(client.measured_by(database))
        self._task: asyncio.Task[None] | None = None

    async def bring_up(self, limit: float, *, until_live: bool = True) -> RealtimeError | None:
        """Begin to connect, and wait until it is live; it goes on trying after that.

        Args:
            limit: Seconds.
            until_live: Whether to wait on when the first attempt has failed.

        Returns:
            Why it gave up; ``None`` if it did not: see ``client.is_connected``.
        """
        task = self._task = asyncio.create_task(self.client.connect(), name="realtime_fsm rollout connect")
        try:
            async with asyncio.timeout(limit):
                await asyncio.wait({task})
                while until_live and not self.client.is_connected and self.client.gave_up is None:
                    self._signalled.clear()
                    await self._signalled.wait()
        except TimeoutError:
            pass  # it is told by what the client is
        failure = task.exception() if task.done() and not task.cancelled() else None
        if failure is not None and not isinstance(failure, RealtimeError):
            raise failure
        return failure

    async def release(self) -> list[Letter]:
        """End it; return what it has not sent."""
        task, self._task = self._task, None
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait({task})
        left = await self.client.release()
        await asyncio.sleep(0)  # what it tells of its end is told in the loop's next turn
        for stop in self._stops:
            stop()
        return left

    def _signal(self, signal: Signal) -> None:
        if signal.kind is SignalKind.LIVE:
            self.lost_at = None
        elif self.lost_at is None:
            self.lost_at = asyncio.get_running_loop().time()
        self._signalled.set()


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
            resolve(waiter, None if done.cancelled() else done.result())

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
            resolve(waiter, None)


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
        dispatcher.post(Delivered(event, args, partial(resolve, answer)))
        return answer

    return sink


def resolve(answer: "asyncio.Future[Any]", given: Any) -> None:
    """Resolve a future, unless it is done: whoever waited for it may have given up."""
    if not answer.done():
        answer.set_result(given)
