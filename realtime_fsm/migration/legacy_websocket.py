"""The old client's interface, on the new engine."""

import asyncio
import inspect
import logging
import sys
import warnings
from collections import deque
from collections.abc import Callable, Coroutine
from enum import IntEnum
from typing import Any, Final, TypeVar

from realtime_fsm.engine.message import Message
from realtime_fsm.machine.errors import (
    ClosedError,
    DeliveryError,
    InvalidArgumentError,
    OutboxFullError,
    RealtimeError,
)
from realtime_fsm.machine.record import StatusChange
from realtime_fsm.machine.table import TRAITS
from realtime_fsm.service import RealtimeService

# Warns of an old name once per place in the code that uses it, and says what stands for it.

_MOST: Final = 10_000
"""Places that are remembered: programs that write themselves anew have no end of them."""

_seen: set[tuple[str, int, str]] = set()


def warn_once(name: str, replacement: str, *, depth: int = 2) -> None:
    """Warn that a name is deprecated, where this is the first call from its line.

    It does not lean on Python's own registry, which forgets whenever a filter changes.

    Args:
        name: What was used.
        replacement: What to use instead.
        depth: Which caller is meant: 1 is who calls this function.
    """
    frame = sys._getframe(depth)  # noqa: SLF001 - the only way to the caller's line
    place = (frame.f_code.co_filename, frame.f_lineno, name)
    if place in _seen or len(_seen) >= _MOST:
        return
    _seen.add(place)
    warnings.warn_explicit(
        f"{name} is deprecated; use {replacement}",
        DeprecationWarning,
        filename=frame.f_code.co_filename,
        lineno=frame.f_lineno,
        module=frame.f_globals.get("__name__", "<unknown>"),
    )


C = TypeVar("C", bound=Callable[..., object])

_MESSAGE: Final = "message"
"""The event that ``send`` makes, as Socket.IO's own ``send`` does."""

_GONE_AWAY: Final = 1001
_ABNORMAL: Final = 1006
_NORMAL: Final = 1000

_logger = logging.getLogger("realtime_fsm.migration")


class ReadyState(IntEnum):
    """The numbers of a browser's ``WebSocket.readyState``."""

    CONNECTING = 0
    """There is no socket, and one is being looked for: retrying and the fallback included."""
    OPEN = 1
    CLOSING = 2
    CLOSED = 3


class LegacyWebSocket:
    """The interface that ``useWebSocket`` gave to its users, kept alive by a ``RealtimeService``.

    ::

        socket = LegacyWebSocket(RealtimeService(config, token=fetch_token))
        socket.on_message(lambda message: print(message["event"], message["data"]))
        await socket.connect()
        socket.emit("note", {"text": "hi"})

    Events keep their names and their data. Every use is deprecated, and warns once per line of code with what
    stands for it. Two things are better than they were: ``send`` and ``emit`` lose nothing when there is no
    socket (what they take is delivered later, in order), and nobody has to connect again by hand.

    It belongs to the event loop on which it connects, and is not thread-safe.

    Args:
        realtime: The client underneath. It is this one's: it is connected and disconnected by it.
        max_pending: Messages that may wait to be taken by the client's outbox.
    """

    def __init__(self, realtime: RealtimeService, *, max_pending: int = 10_000) -> None:
        if max_pending < 1:
            raise InvalidArgumentError(f"max_pending={max_pending!r} must be 1 or more.")
        self._realtime = realtime
        self._max_pending = max_pending
        self._pending: deque[tuple[str, Any]] = deque()
        self._pump: asyncio.Task[None] | None = None
        self._is_closing = False
        self._last: dict[str, Any] | None = None
        self._on_open: list[Callable[..., object]] = []
        self._on_close: list[Callable[..., object]] = []
        self._on_error: list[Callable[..., object]] = []
        realtime.on("*", self._heard)
        realtime.connection_status.subscribe(self._changed)
        realtime.on_settled(self._settled)

    # The old names.

    def connect(self) -> Coroutine[Any, Any, None]:
        """Connect; failures go to ``on_error``, and what may pass is retried in the background."""
        warn_once("LegacyWebSocket.connect", "RealtimeService.connect")
        return self._connect()

    def disconnect(self) -> Coroutine[Any, Any, None]:
        """Send what waits, and disconnect, within the client's ``close_timeout`` for each."""
        warn_once("LegacyWebSocket.disconnect", "RealtimeService.disconnect")
        return self._disconnect()

    def send(self, data: Any) -> None:
        """Send data as the event ``message``, now or later; returns at once.

        Raises:
            OutboxFullError: If ``max_pending`` messages wait. It was not taken.
            ClosedError: If it is being disconnected. It was not taken.
        """
        warn_once("LegacyWebSocket.send", "RealtimeService.emit('message', data)")
        self._take(_MESSAGE, data)

    def emit(self, event: str, data: Any = None) -> None:
        """Send an event, now or later; returns at once. What cannot be sent, ever, goes to ``on_error``.

        Raises:
            OutboxFullError: If ``max_pending`` messages wait. It was not taken.
            ClosedError: If it is being disconnected. It was not taken.
        """
        warn_once("LegacyWebSocket.emit", "RealtimeService.emit")
        self._take(event, data)

    def on_message(self, handler: C) -> C:
        """Call ``handler({"event": name, "data": data})`` with every event; also a decorator.

        It may be a coroutine function: the next event waits for it.
        """
        warn_once("LegacyWebSocket.on_message", "RealtimeService.on")

        async def handle(event: str, *args: Any) -> None:
            done = handler(_message(event, args))
            if inspect.isawaitable(done):
                await done

        self._realtime.on("*", handle)
        return handler

    def on_open(self, handler: C) -> C:
        """Call ``handler()`` whenever the socket is live; also a decorator."""
        warn_once("LegacyWebSocket.on_open", "RealtimeService.connection_status.subscribe")
        return _added(self._on_open, handler)

    def on_close(self, handler: C) -> C:
        """Call ``handler({"code": ..., "reason": ..., "was_clean": ...})`` when the socket is lost or closed.

        Also a decorator.
        """
        warn_once("LegacyWebSocket.on_close", "RealtimeService.connection_status.subscribe")
        return _added(self._on_close, handler)

    def on_error(self, handler: C) -> C:
        """Call ``handler(error)`` with what goes wrong, the loss of the socket included; also a decorator.

        Without a handler it is logged.
        """
        warn_once("LegacyWebSocket.on_error", "RealtimeService.recovery")
        return _added(self._on_error, handler)

    @property
    def last_message(self) -> dict[str, Any] | None:
        """The last event, ``{"event": name, "data": data}``; ``None`` before the first."""
        warn_once("LegacyWebSocket.last_message", "RealtimeService.on")
        return self._last

    @property
    def ready_state(self) -> ReadyState:
        """As a browser's ``WebSocket`` would say it; equal to the old numbers."""
        warn_once("LegacyWebSocket.ready_state", "RealtimeService.status")
        if self._is_closing:
            return ReadyState.CLOSING
        traits = TRAITS[self._realtime.status]
        if traits.sends:
            return ReadyState.OPEN
        return ReadyState.CONNECTING if traits.online else ReadyState.CLOSED

    @property
    def is_connected(self) -> bool:
        """True while the socket is live."""
        warn_once("LegacyWebSocket.is_connected", "RealtimeService.is_connected")
        return self._realtime.is_connected

    # Inside.

    async def _connect(self) -> None:
        try:
            await self._realtime.connect()
        except RealtimeError as error:
            self._failed(error)
        self._wake()

    async def _disconnect(self) -> None:
        self._is_closing = True
        try:
            await self._flush()
            await self._realtime.disconnect()
        finally:
            self._is_closing = False

    async def _flush(self) -> None:
        """Have the outbox take what it has not yet taken, in bounded time; say what it did not."""
        if (pump := self._pump) is not None:
            await asyncio.wait({pump}, timeout=self._realtime.config.close_timeout)
            if not pump.done():
                pump.cancel()
                await asyncio.wait({pump})
        left = list(self._pending)
        self._pending.clear()
        for event, _ in left:
            self._failed(ClosedError(f"It was disconnected before {event!r} could be accepted."))

    def _take(self, event: str, data: Any) -> None:
        if self._is_closing:
            raise ClosedError("It is being disconnected.")
        if len(self._pending) >= self._max_pending:
            raise OutboxFullError(f"{self._max_pending} messages wait to be taken: max_pending.")
        self._pending.append((event, data))
        self._wake()

    def _wake(self) -> None:
        """Have the outbox take what waits; before there is a loop, it waits for ``connect``."""
        if not self._pending or self._pump is not None:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        self._pump = loop.create_task(self._emit_pending(), name="realtime_fsm LegacyWebSocket")

    async def _emit_pending(self) -> None:
        try:
            while self._pending:
                event, data = self._pending[0]
                try:
                    await self._realtime.emit(event, data)
                except RealtimeError as error:
                    self._failed(error)
                self._pending.popleft()
        finally:
            self._pump = None

    def _heard(self, event: str, *args: Any) -> None:
        self._last = _message(event, args)

    def _settled(self, message: Message, _: float) -> None:
        outcome = message.receipt.outcome
        if not outcome.is_delivered:
            self._failed(
                DeliveryError(
                    f"{message.event!r} is {outcome.value}, and not delivered.", outcome=outcome.value
                )
            )

    def _changed(self, change: StatusChange) -> None:
        if change.error is not None:
            self._failed(change.error)
        if change.is_connected:
            _tell(self._on_open)
        elif change.is_lost:
            code = _NORMAL if change.is_goodbye else _ABNORMAL if change.error is not None else _GONE_AWAY
            told = {"code": code, "reason": change.reason, "was_clean": change.is_goodbye}
            _tell(self._on_close, told)

    def _failed(self, error: RealtimeError) -> None:
        if self._on_error:
            _tell(self._on_error, error)
        else:
            _logger.error("%s", error)


def _message(event: str, args: tuple[Any, ...]) -> dict[str, Any]:
    """Return an event in the old form: one argument is the data, several are a list of it."""
    return {"event": event, "data": args[0] if len(args) == 1 else list(args) or None}


def _added(handlers: list[Callable[..., object]], handler: C) -> C:
    if inspect.iscoroutinefunction(handler):
        raise InvalidArgumentError(
            f"{handler!r} must be a plain function: nobody waits for it.",
            remedy="Start a task in it, or use `RealtimeService.changes()`.",
        )
    handlers.append(handler)
    return handler


def _tell(handlers: list[Callable[..., object]], *args: Any) -> None:
    for handler in list(handlers):
        try:
            handler(*args)
        except Exception:
            _logger.exception("a handler of LegacyWebSocket failed")
