"""Events to handlers: in wire order, one at a time, bounded; no handler can stop or break the engine."""

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from functools import partial
from typing import Any, Final

from attrs import frozen

from realtime_fsm.engine.observers import Stream, Streams
from realtime_fsm.engine.statistics import Statistics

Handler = Callable[..., Any]
"""A function or coroutine function of an event's arguments. What it returns answers the server, if asked."""

ANY_EVENT: Final = "*"
"""Handlers of this name get every event, its name first."""

_TURN: Final = 64
"""Events handled before the loop gets a turn: handlers that never await must not starve the network."""

_SAME_HOLD: Final = 1.0
"""Seconds within which reading that is held back again has not really gone on in between."""

_logger = logging.getLogger("realtime_fsm.dispatcher")


@frozen
class Event:
    """An event as ``events()`` yields it.

    Attributes:
        name: Of the event.
        args: Its arguments.
    """

    name: str
    args: tuple[Any, ...]

    @property
    def data(self) -> Any:
        """The argument, where there is just one; ``None`` where there is none, else all of them."""
        return self.args[0] if len(self.args) == 1 else (self.args or None)


@frozen
class Delivered:
    """An event on its way to the handlers.

    Attributes:
        name: Of the event.
        args: Its arguments.
        answer: Called with what the handlers returned, where the server wants an answer.
        is_wanted: Tells, when its turn has come, whether anybody still wants it: its channel may have been
            unsubscribed while it waited. ``None`` where nothing is known of a channel.
    """

    name: str
    args: list[Any]
    answer: Callable[[Any], None] | None = None
    is_wanted: Callable[[], bool] | None = None


@frozen
class Errand:
    """Something else that is to be done among the handlers, in its turn.

    Attributes:
        what: For the log.
        run: Does it.
    """

    what: str
    run: Callable[[], Awaitable[None]]


class UserCode:
    """A stretch of the user's code, and the mark of all that it starts; entered by the task that runs it.

    Tasks inherit the mark by their context. So an ending that somebody asked for knows which of the code that
    runs waits for it, directly or through a task, ``gather``, ``shield`` or ``wait_for``, and lets it go.
    """

    __slots__ = ("task",)

    def __init__(self) -> None:
        self.task: asyncio.Task[Any] | None = None

    def __enter__(self) -> None:
        self.task = asyncio.current_task()
        _above.set((*(one for one in _above.get() if one.task is not None), self))

    def __exit__(self, *_: object) -> None:
        self.task = None

    @staticmethod
    def tasks_above() -> set[asyncio.Task[Any]]:
        """Return the tasks that run user code from which the present code was started."""
        return {one.task for one in _above.get() if one.task is not None}


_above: ContextVar[tuple[UserCode, ...]] = ContextVar("realtime_fsm user code", default=())


class Dispatcher:
    """Hands events to the handlers of the user, in one task.

    Back-pressure: when ``limit`` events wait, ``is_congested`` becomes true and the transport stops reading,
    until half of them are done. Nothing is dropped for want of room.

    Args:
        statistics: What it counts into.
        limit: Events that may wait.
        on_error: Told when a handler raises: ``(event, error)``.
    """

    def __init__(
        self, *, statistics: Statistics, limit: int, on_error: Callable[[str, BaseException], None]
    ) -> None:
        self._statistics = statistics
        self._limit = limit
        self._on_error = on_error
        self._handlers: dict[str, tuple[Handler, ...]] = {}
        self._streams: dict[str, Streams[Event]] = {}
        self._queue: deque[Delivered | Errand] = deque()
        self._arrived = asyncio.Event()
        self._relieved = asyncio.Event()
        self._relieved.set()
        self._held_since = 0.0
        self._relieved_at = 0.0
        self._held_before = 0.0
        self._task: asyncio.Task[None] | None = None
        self.handling: str | None = None
        self.handling_since = 0.0

    def on(self, event: str, handler: Handler) -> None:
        """Add a handler. Several of one event run in the order in which they were added."""
        self._handlers[event] = (*self._handlers.get(event, ()), handler)

    def off(self, event: str, handler: Handler | None = None) -> int:
        """Remove a handler, or all of an event; return how many were removed."""
        before = self._handlers.pop(event, ())
        after = () if handler is None else tuple(h for h in before if h != handler)
        if after:
            self._handlers[event] = after
        return len(before) - len(after)

    def events(self, event: str) -> Stream[Event]:
        """Return a stream of the events of one name. A slow reader never holds the handlers up."""
        if event not in self._streams:
            self._streams[event] = Streams(limit=self._limit, what=f"{event!r} events")
        return self._streams[event].open()

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def is_congested(self) -> bool:
        """True while no more should be read from the network."""
        return len(self._queue) >= self._limit

    def held_back_for(self, now: float) -> float:
        """Return how many seconds somebody has waited to be ``relieved``; 0 where nobody waits.

        Where the wait before ended a moment ago, that one counts if it was longer: handlers that never
        catch up do not look as if they did whenever a few more events are read.

        Args:
            now: The loop's clock.
        """
        return 0.0 if self._relieved.is_set() else max(now - self._held_since, self._held_before)

    @property
    def has_ended(self) -> bool:
        """True where it was started, and handles nothing any more although nobody has closed it."""
        return self._task is not None and self._task.done()

    async def relieved(self) -> None:
        """Wait until half of the room is free again."""
        if self.is_congested:
            self._hold()
        await self._relieved.wait()

    def post(self, event: Delivered) -> None:
        """Queue an event. Never waits."""
        self._statistics.events += 1
        if event.answer is None and not self._wants(event.name):
            self._statistics.dropped["event without a handler"] += 1
            return
        self._queue.append(event)
        self._arrived.set()

    def run(self, what: str, errand: Callable[[], Awaitable[None]]) -> None:
        """Queue something that is to be done after the events before it, and before those after it."""
        self._queue.append(Errand(what, errand))
        self._arrived.set()

    def start(self) -> None:
        """Begin to handle events; a second call changes nothing."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="realtime_fsm dispatcher")

    def stop(self) -> asyncio.Task[None] | None:
        """Drop what waits, end the streams, and begin no other handler.

        Returns:
            The task that ends when the handler that is running has; where none is, it ends at once.
        """
        if self._queue:
            self._statistics.dropped["event after disconnect"] += len(self._queue)
            self._queue.clear()
        self._relieved.set()
        for streams in self._streams.values():
            streams.end()
        self._streams.clear()
        task, self._task = self._task, None
        if task is not None and self.handling is None and task is not asyncio.current_task():
            task.cancel()
        return task

    async def close(self) -> None:
        """Stop after the running handler was cancelled, and drop what waits. The caller bounds it.

        Called from within a handler, it lets that handler finish by itself.
        """
        task = self.stop()
        if task is not None and task not in UserCode.tasks_above():
            task.cancel()
            await asyncio.wait({task})

    def leave_loop(self) -> None:
        """Forget the event loop, with the task that ran on it, and what waited there."""
        if self._queue:
            self._statistics.dropped["event after disconnect"] += len(self._queue)
            self._queue.clear()
        self._arrived, self._relieved = asyncio.Event(), asyncio.Event()
        self._relieved.set()
        for streams in self._streams.values():
            streams.leave_loop()
        self._streams.clear()
        self._task = self.handling = None

    def _hold(self) -> None:
        """Begin to let those wait who want to be ``relieved``."""
        if not self._relieved.is_set():
            return
        now = asyncio.get_running_loop().time()
        goes_on = now - self._relieved_at < _SAME_HOLD
        self._held_before = self._relieved_at - self._held_since if goes_on else 0.0
        self._held_since = now
        self._relieved.clear()

    async def _run(self) -> None:
        me = asyncio.current_task()
        turn = 0
        while self._task is me:
            if not self._queue:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            event = self._queue.popleft()
            if len(self._queue) * 2 <= self._limit and not self._relieved.is_set():
                self._relieved_at = asyncio.get_running_loop().time()
                self._relieved.set()
            if isinstance(event, Errand):
                await self._call(event.what, event.run)
            else:
                await self._handle(event)
            turn += 1
            if turn % _TURN == 0:
                await asyncio.sleep(0)

    async def _handle(self, event: Delivered) -> None:
        if event.is_wanted is not None and not event.is_wanted():
            self._statistics.dropped["event of an unsubscribed channel"] += 1
            return
        self._statistics.dispatched += self._wants(event.name)
        if (streams := self._streams.get(event.name)) and (
            lagging := streams.push(Event(event.name, tuple(event.args)))
        ):
            self._statistics.dropped["unread event"] += lagging
        answer = None
        for handler in self._handlers_of(event):
            result = await self._call(event.name, handler)
            answer = result if answer is None else answer
        if event.answer is not None:
            event.answer(answer)

    async def _call(self, what: str, function: Callable[[], Any]) -> Any:
        """Call the user's code; return what it gives, or ``None`` where it fails."""
        try:
            with UserCode():
                result = function()
                if inspect.isawaitable(result):
                    self.handling, self.handling_since = what, asyncio.get_running_loop().time()
                    result = await result
        except asyncio.CancelledError as error:
            if _is_being_cancelled():
                raise
            self._failed(what, error)  # something inside the handler was cancelled, not we
        except Exception as error:  # noqa: BLE001 - the user's code; it is reported, whatever it is
            self._failed(what, error)
        else:
            return result
        finally:
            self.handling = None
        return None

    def _wants(self, event: str) -> bool:
        return event in self._handlers or ANY_EVENT in self._handlers or bool(self._streams.get(event))

    def _handlers_of(self, event: Delivered) -> list[Callable[[], Any]]:
        """Return what is to be called for an event, with its arguments."""
        return [
            *(partial(handler, *event.args) for handler in self._handlers.get(event.name, ())),
            *(partial(handler, event.name, *event.args) for handler in self._handlers.get(ANY_EVENT, ())),
        ]

    def _failed(self, event: str, error: BaseException) -> None:
        self._statistics.handler_errors += 1
        _logger.error("a handler of %r raised %s", event, type(error).__name__, exc_info=error)
        self._on_error(event, error)


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
