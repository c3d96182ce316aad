"""Events that nobody can replay: the user's hook loads the state anew, and the stream goes on from there."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from functools import partial

from attrs import frozen

from realtime_fsm.engine.dispatcher import Dispatcher
from realtime_fsm.engine.statistics import Statistics
from realtime_fsm.engine.subscription import Position
from realtime_fsm.machine.errors import InvalidArgumentError


@frozen(kw_only=True)
class Missed:
    """What a resync hook is told.

    Attributes:
        channel: Whose events were missed; ``None`` for all that the server sends.
        position: Where the channel's stream goes on, if the hook gives no other place; ``None`` where the
            server tells none.
        reason: Why they cannot be replayed.
    """

    channel: str | None
    position: Position | None
    reason: str


ResyncHook = Callable[[Missed], "Position | Awaitable[Position | None] | None"]
"""Loads a snapshot, and returns its place in the channel: what was published after it is delivered next."""


class Resync:
    """Runs the hook among the handlers: after the events before the gap, and before those after it.

    Args:
        dispatcher: Runs it.
        statistics: What it counts into.
    """

    def __init__(self, dispatcher: Dispatcher, statistics: Statistics) -> None:
        self._dispatcher = dispatcher
        self._statistics = statistics
        self._waits_for_all = False
        self.hook: ResyncHook | None = None

    def begin(self, missed: Missed, done: Callable[[Missed, Position | None], None]) -> bool:
        """Have the state of a channel loaded anew.

        Args:
            missed: What the hook is told.
            done: Called with the place from which to go on.

        Returns:
            Whether there is a hook.
        """
        if self.hook is None:
            return False
        self._dispatcher.run(f"resync of {missed.channel!r}", partial(self._load, self.hook, missed, done))
        return True

    def begin_for_all(self, reason: str) -> None:
        """Have everything loaded anew, where the server tells no places. One that waits already is enough."""
        if self.hook is None or self._waits_for_all:
            return
        self._waits_for_all = True
        missed = Missed(channel=None, position=None, reason=reason)
        self._dispatcher.run("resync", partial(self._load, self.hook, missed, None))

    def reset(self) -> None:
        """Forget what waits: the dispatcher has dropped it."""
        self._waits_for_all = False

    async def _load(
        self,
        hook: ResyncHook,
        missed: Missed,
        done: Callable[[Missed, Position | None], None] | None,
    ) -> None:
        if missed.channel is None:
            self._waits_for_all = False  # a connection that is lost from here on needs another one
        self._statistics.resyncs += 1
        position = missed.position
        try:
            result = hook(missed)
            given = await result if inspect.isawaitable(result) else result
            if isinstance(given, Position):
                position = given
            elif given is not None:
                raise InvalidArgumentError(
                    f"The resync hook returned a {type(given).__name__}.",
                    remedy="Return the Position of what it has loaded, or None.",
                )
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                done = None  # the client is being disconnected: the channel stands where it stood
            raise
        finally:
            if done is not None:
                done(missed, position)
