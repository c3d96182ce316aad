"""Events to handlers: in wire order, one at a time, bounded; no handler can stop or break the engine."""

import asyncio
import inspect
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from functools import partial
from typing import Any, Final

from attrs import define, frozen

from realtime_fsm.engine.observers import Stream, Streams
from realtime_fsm.engine.statistics import Statistics
from realtime_fsm.machine.delivery import InboundOverflow

Handler = Callable[..., Any]
"""A function or coroutine function of an event's arguments. What it returns answers the server, if asked."""

ANY_EVENT: Final = "*"
"""Handlers of this name get every event, its name first."""

_TURN: Final = 64
"""Events handled before the loop gets a turn: handlers that never await must not starve the network."""

_SAME_SPELL: Final = 1.0
"""Seconds within which handlers that are behind again have not really caught up in between."""

# Why an event is dropped that found no room.
NO_ROOM: Final = "event without room"
NO_ROOM_FOR_QUESTION: Final = "question without room"
"""It wanted an answer, which the server does not get."""
SUPERSEDED: Final = "superseded event"
"""A later one of its name has come, and ``inbound_overflow`` is ``latest``."""

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


@define(eq=False)
class Delivered:
    """An event on its way to the handlers.

    Attributes:
        name: Of the event.
        args: Its arguments.
        answer: Called with what the handlers returned, where the server wants an answer.
        is_wanted: Tells, when its turn has come, whether anybody still wants it: its channel may have been
            unsubscribed while it waited. ``None`` where nothing is known of a channel.
        size: About what it took on the wire.
        is_kept: Whether it must not make room for others: its position in its channel was taken, so that
            nobody would send it again.
        give_back: Called where it is dropped all the same, at the end: whoever is asked anew is asked for it.
    """

    name: str
    args: list[Any]
    answer: Callable[[Any], None] | None = None
    is_wanted: Callable[[], bool] | None = None
    size: int = 0
    is_kept: bool = False
    give_back: Callable[[], None] | None = None


@define(eq=False)
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

    Back-pressure: ``limit`` events and ``max_bytes`` of them may wait; an event that is larger waits alone.
    The wire is read all the same, so that the answers a handler waits for are not behind the events that wait
    for the handler. Who can have an event sent again asks ``admits`` first, and leaves it where there is no
    room; for all others ``post`` makes room as ``overflow`` says. A spell of being behind begins with the
    first event without room, and ends when half of the room is free again.

    Args:
        statistics: What it counts into.
        limit: Events that may wait.
        on_error: Told when a handler raises: ``(event, error)``.
        max_bytes: Their size together.
        overflow: What makes room; ``None`` where who posts waits for the handlers, and nothing is dropped.

    Attributes:
        handling: The event whose handler runs; ``None`` while none is awaited.
        handling_since: Since when, on the loop's clock.
        waiting_bytes: The size of all that waits.
        on_room: Called when a spell of being behind has ended.
        spells: How many have begun.
    """

    def __init__(
        self,
        *,
        statistics: Statistics,
        limit: int,
        on_error: Callable[[str, BaseException], None],
        max_bytes: int | None = None,
        overflow: InboundOverflow | None = None,
    ) -> None:
        self._statistics = statistics
        self._limit = limit
        self._max_bytes = max_bytes
        self._overflow = overflow
        self._on_error = on_error
        self._handlers: dict[str, tuple[Handler, ...]] = {}
        self._streams: dict[str, Streams[Event]] = {}
        # Ordered by arrival, and anything of them can be taken out at no cost.
        self._queue: OrderedDict[Delivered | Errand, None] = OrderedDict()
        self._losable: OrderedDict[Delivered, None] = OrderedDict()  # may make room: the oldest does so first
        self._latest: OrderedDict[str, Delivered] = (
            OrderedDict()
        )  # with `latest`: no later one has superseded
        self._events = 0
        self.waiting_bytes = 0
        self._arrived = asyncio.Event()
        self._relieved = asyncio.Event()
        self._relieved.set()
        self._behind_since = 0.0
        self._relieved_at = 0.0
        self._task: asyncio.Task[None] | None = None
        self.handling: str | None = None
        self.handling_since = 0.0
        self.on_room: Callable[[], None] = lambda: None
        self.spells = 0

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
    def is_behind(self) -> bool:
        """True from the first event that found no room until half of the room is free again."""
        return not self._relieved.is_set()

    def behind_for(self, now: float) -> float:
        """Return for how many seconds the handlers have been behind; 0 where they are not.

        Spells with less than a second between them are one: handlers that never catch up do not look as if
        they did whenever a few more events are fetched.

        Args:
            now: The loop's clock.
        """
        goes_on = self.is_behind or (self.spells > 0 and now - self._relieved_at < _SAME_SPELL)
        return max(0.0, now - self._behind_since) if goes_on else 0.0

    @property
    def has_ended(self) -> bool:
        """True where it was started, and handles nothing any more although nobody has closed it."""
        return self._task is not None and self._task.done()

    async def relieved(self) -> None:
        """Wait until the handlers are not behind."""
        await self._relieved.wait()

    def has_room_for(self, name: str, size: int) -> bool:
        """Tell whether an event could be posted without making room; one that nobody wants always can."""
        return not self._wants(name) or self._fits(size)

    def admits(self, name: str, size: int) -> bool:
        """Tell whether there is room for an event; where there is none, ``on_room`` will tell when to ask."""
        if self.has_room_for(name, size):
            return True
        self.fall_behind()
        return False

    def post(self, event: Delivered) -> bool:
        """Queue an event. Never waits.

        Returns:
            Whether there was room: if not, some event was dropped and counted, this one or others.
        """
        self._statistics.events += 1
        if event.answer is None and not self._wants(event.name):
            self._statistics.dropped["event without a handler"] += 1
            return True
        has_room = self._overflow is None or self._fits(event.size) or event.is_kept
        if not has_room and not self._make_room(event):
            return False
        self._queue[event] = None
        self._events += 1
        self.waiting_bytes += event.size
        if not event.is_kept:
            self._note_losable(event)
        self._arrived.set()
        return has_room

    def run(self, what: str, errand: Callable[[], Awaitable[None]]) -> None:
        """Queue something that is to be done after the events before it, and before those after it."""
        self._queue[Errand(what, errand)] = None
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
            for event in reversed(self._queue):  # so that the first one has the last word
                if isinstance(event, Delivered) and event.give_back is not None:
                    event.give_back()
            self._queue.clear()
            self._losable.clear()
            self._latest.clear()
            self._events = self.waiting_bytes = 0
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

    # Room.

    def fall_behind(self) -> None:
        """Begin a spell of being behind, unless one lasts."""
        if self.is_behind:
            return
        now = asyncio.get_running_loop().time()
        if not self.spells or now - self._relieved_at >= _SAME_SPELL:
            self._behind_since = now
            _logger.warning("the handlers are behind: there is no room for more events")
        self.spells += 1
        self._relieved.clear()

    def _catch_up(self) -> None:
        """End a spell of being behind, once half of the room is free."""
        too_many = self._events * 2 > self._limit
        if too_many or (self._max_bytes is not None and self.waiting_bytes * 2 > self._max_bytes):
            return
        self._relieved_at = asyncio.get_running_loop().time()
        self._relieved.set()
        self.on_room()

    def _fits(self, size: int) -> bool:
        if not self._events:
            return True  # whatever its size, or it could never be handled
        return self._events < self._limit and (
            self._max_bytes is None or self.waiting_bytes + size <= self._max_bytes
        )

    def _note_losable(self, event: Delivered) -> None:
        """Remember what may make room, and in which order."""
        if self._overflow is not InboundOverflow.LATEST:
            self._losable[event] = None
            return
        before = self._latest.pop(event.name, None)
        self._latest[event.name] = event
        if before is not None:
            self._losable[before] = None

    def _make_room(self, event: Delivered) -> bool:
        """Drop what the policy says until an event fits; tell whether it does, or was dropped itself."""
        superseded = self._overflow is InboundOverflow.LATEST
        if superseded and (before := self._latest.pop(event.name, None)) is not None:
            self._losable[before] = None
        while self._losable and not self._fits(event.size):
            self._drop(next(iter(self._losable)), SUPERSEDED if superseded else None)
        while self._latest and not self._fits(event.size):
            self._drop(next(iter(self._latest.values())))
        if self._fits(event.size):
            return True
        self._count_dropped(event)
        return False

    def _drop(self, event: Delivered, reason: str | None = None) -> None:
        del self._queue[event]
        self._release(event)
        self._count_dropped(event, reason)

    def _count_dropped(self, event: Delivered, reason: str | None = None) -> None:
        if reason is None:
            self.fall_behind()
        if event.answer is not None:
            reason = NO_ROOM_FOR_QUESTION
        self._statistics.dropped[reason or NO_ROOM] += 1

    def _release(self, event: Delivered) -> None:
        """Give the room of an event free, that waits no more."""
        self._events -= 1
        self.waiting_bytes -= event.size
        self._losable.pop(event, None)
        if self._latest.get(event.name) is event:
            del self._latest[event.name]

    # Handling.

    async def _run(self) -> None:
        me = asyncio.current_task()
        turn = 0
        while self._task is me:
            if not self._queue:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            event, _ = self._queue.popitem(last=False)
            if isinstance(event, Errand):
                await self._call(event.what, event.run)
            else:
                self._release(event)
                if self.is_behind:
                    self._catch_up()
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
