"""An asyncio event loop in virtual time: an hour takes milliseconds, and is the same every time.

Nothing ever sleeps: when nothing is ready, the clock jumps to the next timer. When there is no timer either,
whatever the program waits for can never happen: that is a ``Deadlock``, which names who waits.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Executor
from typing import Any, Final, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

START: Final = 1_000_000.0
"""Where the clock starts: far from 0 and from the real one, so that code which goes round it fails."""


class Deadlock(RuntimeError):  # noqa: N818 - it is what happened
    """Nothing is ready and no timer is set: a wake-up was lost."""


class LeakError(AssertionError):
    """The program ended and left something behind."""


class _ClockSelector(selectors.BaseSelector):
    """A selector that selects nothing, and moves the clock instead of waiting."""

    def __init__(self, loop: "VirtualLoop") -> None:
        self._loop = loop

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        del events, data
        raise RuntimeError(f"Real I/O in virtual time: {fileobj!r} was to be watched.")

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        raise RuntimeError(f"Real I/O in virtual time: {fileobj!r} was to be forgotten.")

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._loop.advance(timeout)
        return []

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return {}


class VirtualLoop(asyncio.BaseEventLoop):
    """The loop. Ready callbacks run in the order in which they were scheduled, as on any asyncio loop.

    It leans on three private names of ``asyncio.BaseEventLoop`` (``_selector``, ``_scheduled``,
    ``_clock_resolution``), stable from Python 3.11 to 3.13, and pinned by a test.

    Attributes:
        unhandled: Contexts of errors that nobody handled, as the loop's exception handler gets them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._now = START
        self._clock_resolution = 1e-6  # must be more than the spacing of floats that large
        self._selector = _ClockSelector(self)
        self.unhandled: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.unhandled.append(context))

    def time(self) -> float:
        """Return the virtual time, seconds."""
        return self._now

    def advance(self, timeout: float | None) -> None:
        """Move the clock to the next timer. For the selector.

        Raises:
            Deadlock: If there is none.
        """
        if timeout is None:
            raise Deadlock("Nothing is scheduled, and these wait for ever: " + "; ".join(_waiting(self)))
        if timeout > 0:
            scheduled: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
            self._now = max(self._now + timeout, scheduled[0].when())

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Run ``func`` in the loop's next turn: a thread would not be deterministic."""
        del executor
        future: asyncio.Future[T] = self.create_future()
        self.call_soon(_resolve, future, func, *args)
        return future

    def _process_events(self, event_list: Any) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """There is nobody to be woken: it never waits."""


def run(main: Coroutine[Any, Any, T], *, limit: float = 7 * 24 * 3600.0) -> T:
    """Run a coroutine on a fresh loop in virtual time.

    Args:
        main: What to run.
        limit: Virtual seconds that it may take.

    Raises:
        Deadlock: If it waits for something that can never happen.
        LeakError: If it left a task behind, or an error that nobody handled.
        TimeoutError: If it took longer than ``limit``.
    """
    loop = VirtualLoop()

    async def bounded() -> T:
        async with asyncio.timeout(limit):
            return await main

    try:
        result = loop.run_until_complete(bounded())
        loop.run_until_complete(asyncio.sleep(0))  # callbacks of the last turn
        left = [_described(task) for task in asyncio.all_tasks(loop)]
        errors = [_explained(context) for context in loop.unhandled]
        if left or errors:
            raise LeakError(
                "; ".join([*(f"left behind: {t}" for t in left), *(f"unhandled: {e}" for e in errors)])
            )
        return result
    finally:
        _discard(loop)


def wall_clock(epoch: float = 1_700_000_000.0) -> Callable[[], float]:
    """Return a wall clock that moves with the running loop: ``epoch`` is where a ``VirtualLoop`` starts."""
    return lambda: epoch + asyncio.get_running_loop().time() - START


def _resolve(future: asyncio.Future[T], func: Callable[[*Ts], T], *args: *Ts) -> None:
    if future.cancelled():
        return
    try:
        future.set_result(func(*args))
    except Exception as error:  # noqa: BLE001 - it is passed on, whatever it is
        future.set_exception(error)


def _discard(loop: VirtualLoop) -> None:
    """Cancel what is left and close the loop, so that nothing is reported twice when it is collected."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    try:
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks, timeout=60.0))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


def _waiting(loop: VirtualLoop) -> list[str]:
    return [_described(task) for task in asyncio.all_tasks(loop)] or ["nothing"]


def _described(task: asyncio.Task[Any]) -> str:
    """Return a task's name and the innermost line at which it waits."""
    stack = task.get_stack()
    where = f"{stack[-1].f_code.co_filename}:{stack[-1].f_lineno}" if stack else "its first line"
    coroutine: Any = task.get_coro()
    while getattr(coroutine, "cr_await", None) is not None and hasattr(coroutine.cr_await, "cr_frame"):
        coroutine = coroutine.cr_await
    if getattr(coroutine, "cr_frame", None) is not None:
        where = (
            f"{coroutine.cr_code.co_qualname} ({coroutine.cr_code.co_filename}:{coroutine.cr_frame.f_lineno})"
        )
    return f"{task.get_name()} in {where}"


def _explained(context: dict[str, Any]) -> str:
    error = context.get("exception")
    return f"{context.get('message')} {error!r}" if error is not None else str(context.get("message"))
