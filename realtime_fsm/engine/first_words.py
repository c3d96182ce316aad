"""The program's own first words on a connection: a hook, and the lane in which what it sends overtakes all.

A login or a join is of one connection: it must be there before the channels are asked for again, and before
what waited in the outbox while nobody was connected. Which messages are first words is told by a context
variable, so that the program's own functions, and tasks that they start, need not know of it.
"""

import asyncio
import inspect
import logging
import uuid
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Final

from attrs import define, field

from realtime_fsm.engine.dispatcher import UserCode
from realtime_fsm.machine.errors import ApplicationError, RealtimeError

ConnectHook = Callable[[], Awaitable[Any] | Any]
"""Says the first words on a connection: plain, or a coroutine function."""

_logger = logging.getLogger("realtime_fsm.connection")


@define(eq=False)
class Greeting:
    """One run of a hook.

    Attributes:
        owner: Whose hook it is: what it sends by another client is nothing special there.
        client_id: Who numbers its messages. They overtake others, and a server that drops repeats by number
            would take those for repeats: each run is a client of its own.
        count: Messages numbered so far.
        is_over: Whether the hook has ended; what tasks send that it has left behind is nothing special.
    """

    owner: object
    client_id: str = field(factory=lambda: uuid.uuid4().hex[:12])
    count: int = 0
    is_over: bool = False

    def number(self) -> tuple[str, int]:
        """Return the identity of the next message."""
        self.count += 1
        return self.client_id, self.count


GREETING: Final[ContextVar[Greeting | None]] = ContextVar("realtime_fsm_greeting", default=None)
"""The run of a hook from within which something is called; of whatever client, and over or not."""


def greeting_of(owner: object) -> Greeting | None:
    """Return the run of an owner's hook from within which this is called, if it is."""
    greeting = GREETING.get()
    return None if greeting is None or greeting.owner is not owner or greeting.is_over else greeting


class FirstWords:
    """Runs the user's hook on every connection.

    Args:
        owner: Where its messages are queued.
        limit: Seconds that the hook may take.

    Attributes:
        hook: The user's; ``None`` where there is none.
    """

    def __init__(self, owner: object, limit: float) -> None:
        self._owner = owner
        self._limit = limit
        self.hook: ConnectHook | None = None

    async def say(self) -> None:
        """Run the hook to its end.

        Raises:
            RealtimeError: Why the connection is of no use without its first words.
        """
        if self.hook is None:
            return
        greeting = Greeting(self._owner)
        # The variable is of this task alone, and of those that the hook starts; it is set back because this
        # task goes on.
        token = GREETING.set(greeting)
        bound = asyncio.timeout(self._limit)
        try:
            async with bound:
                with UserCode():  # an ending that the hook asks for must not wait for the hook
                    result = self.hook()
                    if inspect.isawaitable(result):
                        await result
        except RealtimeError:
            raise
        except (Exception, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise  # the connection has ended; otherwise something inside the hook was cancelled
            if bound.expired() and isinstance(error, TimeoutError):
                raise ApplicationError(
                    f"The on_connect hook did not end within {self._limit} s.",
                    remedy="See what it waits for, or raise `connection_timeout`.",
                    retryable=True,
                ) from None
            _logger.exception("the on_connect hook raised %s", type(error).__name__)
            raise ApplicationError(
                f"The on_connect hook raised {type(error).__name__}.",
                remedy="See the log for where; the connection is tried again.",
                retryable=True,
            ) from error
        finally:
            greeting.is_over = True
            GREETING.reset(token)
