"""The application's messages: from whichever connection they come, to the one handler of their event."""

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Self

from attrs import define, evolve, field, frozen

from realtime_fsm.engine.payload import check_event_name
from realtime_fsm.machine.errors import ErrorCategory, InvalidArgumentError, ServerUnavailableError
from realtime_fsm.server.config import BackendConfig
from realtime_fsm.server.ledger import Ledger, LedgerUnavailableError, Stamp, digest_of
from realtime_fsm.server.request import Answer, Envelope, json_text, refusal
from realtime_fsm.server.token import Identity

CONTROL_EVENTS: Final = frozenset(
    {"heartbeat", "reauthenticate", "subscribe", "unsubscribe", "monitor_bookings"}
)
"""The events that the backend itself answers."""

_logger = logging.getLogger("realtime_fsm.server")


@frozen(kw_only=True)
class Client:
    """The sender of a message, as its handler sees it.

    Attributes:
        subject: Whose token it came with.
        claims: All that the token says.
        sid: The Socket.IO id of the connection; ``None`` over HTTP.
        message_id: The id that the client gave the message, the same when it sends it again.
        client_id: What the client calls itself; its own claim, which means nothing beyond the subject.
        sequence: The message's number, where it is to be handled once. A repeat does not reach a handler.
        transaction: Of such a message, what its ledger commits together with it: a ``sqlite3.Connection`` of
            the ``SqliteLedger``, ``None`` of the ledger in memory.
    """

    subject: str
    claims: Mapping[str, Any] = field(repr=False)
    sid: str | None = None
    message_id: str | None = None
    client_id: str | None = None
    sequence: int | None = None
    transaction: Any = field(default=None, repr=False)

    @classmethod
    def of(cls, identity: Identity, envelope: Envelope | None = None, *, sid: str | None = None) -> Self:
        """Return who sent a message."""
        envelope = envelope or Envelope()
        return cls(
            subject=identity.subject,
            claims=identity.claims,
            sid=sid,
            message_id=envelope.message_id,
            client_id=envelope.client_id,
            sequence=envelope.sequence,
        )


Handler = Callable[..., Any]
"""``handler(client, *args) -> answer``, plain or a coroutine function. The answer must be JSON."""


@define(eq=False)
class _Line:
    """The messages of one subject: one is handled, the others wait."""

    lock: asyncio.Lock = field(factory=asyncio.Lock)
    length: int = 0


class MessageRouter:
    """Calls the handlers: for one client in order, one at a time, over whichever connections it comes.

    A client is a subject. So a message that comes over HTTP waits for those that came over the socket
    before it was lost.

    Args:
        config: The limits.
        ledger: Knows which messages have taken effect already.
    """

    def __init__(self, config: BackendConfig, ledger: Ledger) -> None:
        self._config = config
        self._ledger = ledger
        self._handlers: dict[str, Handler] = {}
        self._lines: dict[str, _Line] = {}
        self._is_closed = False
        self._working: dict[asyncio.Task[Any], None] = {}  # in order: who is cut off first ends first
        self._idle = asyncio.Event()
        self._duplicates = 0

    @property
    def duplicates(self) -> int:
        """The number of messages that came again, and were not handled again."""
        return self._duplicates

    def on(self, event: str, handler: Handler) -> None:
        """Register the handler of an event.

        Raises:
            InvalidArgumentError: If the name is not one, is the backend's own, or has a handler already.
        """
        check_event_name(event)
        if event in CONTROL_EVENTS or event in self._handlers:
            whose = "the backend's own" if event in CONTROL_EVENTS else "handled already"
            raise InvalidArgumentError(f"event={event!r} is {whose}.", remedy="Choose another name.")
        self._handlers[event] = handler

    @asynccontextmanager
    async def turn(self, subject: str) -> AsyncIterator[None]:
        """Wait until it is the turn of a client's next message, and keep the others out meanwhile.

        Raises:
            ServerUnavailableError: If too many wait already, or if the backend stops. Nothing was handled.
        """
        line = self._lines.setdefault(subject, _Line())
        line.length += 1
        try:
            if line.length > self._config.max_pending_messages:
                raise ServerUnavailableError("Too many messages of this client wait.", retry_after=1.0)
            async with line.lock:
                if self._is_closed:
                    raise ServerUnavailableError("The server stops.", retry_after=1.0)
                task = asyncio.current_task()
                if task is None:  # pragma: no cover - a context manager of a coroutine has one
                    raise AssertionError("a turn outside of a task")
                self._working[task] = None
                try:
                    yield
                finally:
                    self._working.pop(task, None)
                    if not self._working:
                        self._idle.set()
        finally:
            line.length -= 1
            if not line.length:
                del self._lines[subject]

    async def handle(self, client: Client, event: str, args: Sequence[Any]) -> Answer:
        """Handle one message; return the answer for the wire. Called in the client's turn.

        The only way to a handler, for the socket and for HTTP alike. A message with a sequence goes through
        the ledger, so that a repeat is answered without being handled.

        Raises:
            LedgerUnavailableError: If the ledger cannot keep it. It took no effect. Nothing that was sent
                after it may be handled before it: its repeat would be taken for one that has taken effect.
        """
        if client.client_id is None or client.sequence is None:
            return await self._called(client, event, args)

        async def handle(transaction: Any) -> Answer:
            return await self._called(evolve(client, transaction=transaction), event, args)

        try:
            stamp = Stamp(client.subject, client.client_id, client.sequence, digest_of(event, args))
            answer = await self._ledger.apply(stamp, handle)
        except Exception as error:
            _logger.exception("the ledger failed, so %r is not acknowledged", event)
            raise LedgerUnavailableError("The ledger is not available.", retry_after=1.0) from error
        if answer.get("duplicate"):
            self._duplicates += 1
        return answer

    async def _called(self, client: Client, event: str, args: Sequence[Any]) -> Answer:
        """Call the handler; whatever becomes of it is an answer."""
        handler = self._handlers.get(event)
        if handler is None:
            return refusal(ErrorCategory.APPLICATION, "unknown_event", f"No handler for {event[:100]!r}.")
        try:
            async with asyncio.timeout(self._config.handler_timeout) as limit:
                answer = await call(handler, client, *args)
            json_text(answer, what="The answer", max_bytes=self._config.max_message_bytes)
        except Exception as error:
            if isinstance(error, TimeoutError) and limit.expired():
                _logger.error("the handler of %r took more than handler_timeout", event)  # noqa: TRY400 - no bug
                return refusal(ErrorCategory.APPLICATION, "handler_timeout", "The handler took too long.")
            _logger.exception("the handler of %r failed", event)
            return refusal(ErrorCategory.APPLICATION, "handler_failed", "The handler failed.")
        return {"ok": True, "answer": answer}

    async def close(self, patience: float) -> None:
        """Begin no more messages, and wait for those that have begun; cut off those that take too long.

        One whose client has gone meanwhile would otherwise go on, and take effect after the end. What waits
        in line is never acknowledged, so that its sender sends it again to the next server.
        """
        self._is_closed = True
        self._idle.clear()
        if self._working:
            try:
                async with asyncio.timeout(patience):
                    await self._idle.wait()
            except TimeoutError:
                _logger.warning(
                    "%d handlers are cut off: they took more than %.1f s", len(self._working), patience
                )
                for task in self._working:
                    task.cancel()


async def call(function: Callable[..., Any], *args: Any) -> Any:
    """Call a plain or a coroutine function of the application's.

    Raises:
        RuntimeError: If it ended by a cancellation of its own making, which must not look like ours.
    """
    try:
        result = function(*args)
        return await result if inspect.isawaitable(result) else result
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise RuntimeError("It was cancelled from within.") from error
