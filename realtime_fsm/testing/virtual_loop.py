"""An asyncio event loop in virtual time: an hour takes milliseconds, and is the same every time.

Nothing ever sleeps: when nothing is ready, the clock jumps to the next timer. When there is no timer either,
whatever the program waits for can never happen: that is a ``Deadlock``, which names who waits.
"""

import asyncio
import contextvars
import selectors
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Executor
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, Final, Self, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

START: Final = 1_000_000.0
"""The start of the clock: far from 0 and from the real one, so that code which goes round it fails."""

_DISCARD_TIMEOUT: Final = 60.0
"""Virtual seconds that cancelled tasks get to end."""

NEAR: Final = 0.02
"""Virtual seconds that one turn of the loop may take; timers that are due by then go off after it."""

_WEEK: Final = 7 * 24 * 3600.0


class Deadlock(RuntimeError):  # noqa: N818 - it is what happened
    """Nothing is ready and no timer is set: a wake-up was lost."""


class LimitError(TimeoutError):
    """The program took more virtual time than it may."""


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

    Args:
        seed: Timers that are due at the same instant run in an order that follows from it: asyncio promises
            none. ``None`` leaves it to asyncio's heap.
        preempt: How likely a turn of the loop takes time, 0 to 1, decided by the seed: the clock moves to the
            next timer, if that is ``NEAR``, although callbacks are ready. So a timer goes off in the middle
            of a chain of them, as it does on a machine where callbacks take time; with 0 only when all have
            run, which a program may come to rely on.

    Nothing in it depends on when garbage is collected, on addresses, or on other loops of the process: it
    holds its tasks itself, and numbers them itself where they have no name.

    What is no ``Exception`` (the time-out of a test, which a signal raises in whatever code happens to run)
    ends the run at once: in a task or a callback asyncio would keep it, and the program would seem to have
    failed by itself. Seen: a sweep that outlasted its test's time-out told of a broken promise.

    It leans on private names of asyncio (``_selector``, ``_scheduled``, ``_clock_resolution`` of the loop,
    ``_log_traceback`` and ``_exception`` of a task), the same from Python 3.11 to 3.13, and pinned by the
    tests.

    Attributes:
        unhandled: Contexts of errors that nobody handled, as the loop's exception handler gets them.
        limit: When the program must have ended, on this clock; ``None`` where that does not matter.
    """

    def __init__(self, seed: int | None = None, *, preempt: float = 0.0) -> None:
        super().__init__()
        self._random = None if seed is None else Random(seed)  # noqa: S311 - a run must be repeatable
        self._preempt = preempt
        self._turns = Random(f"turns:{seed}")  # noqa: S311 - another one: the order of timers stays the same
        self._now = START
        self._clock_resolution = 1e-6  # must be more than the spacing of floats that large
        self._selector = _ClockSelector(self)
        self._numbers = count(1)
        self._pending: dict[asyncio.Task[Any], None] = {}  # held, in order: the garbage collector ends none
        self._failed: list[asyncio.Task[Any]] = []
        self._interruption: BaseException | None = None
        self.unhandled: list[dict[str, Any]] = []
        self.limit: float | None = None
        self.set_exception_handler(self._note_unhandled)

    def time(self) -> float:
        """Return the virtual time, seconds."""
        return self._now

    def advance(self, timeout: float | None) -> None:
        """Move the clock to the next timer, unless callbacks are ready and take no time. For the selector.

        Raises:
            Deadlock: If there is none.
            LimitError: If it is beyond the limit.
            BaseException: What interrupted a task or a callback.
        """
        if self._interruption is not None:
            interruption, self._interruption = self._interruption, None
            raise interruption
        if timeout is None:
            raise Deadlock(f"Nothing is scheduled, and these wait for ever: {self.waiting()}")
        if timeout > 0 or self._takes_time():
            scheduled: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
            due = max(self._now + timeout, scheduled[0].when())  # asyncio never waits more than a day at once
            if self.limit is not None and due > self.limit:
                raise LimitError(f"It is not over after {self.limit - START} s: {self.waiting()}")
            self._now = due

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call at a time; where it is the same for several, in an order that follows from the seed."""
        if self._random is not None:
            when += self._random.random() * self._clock_resolution / 2
        return super().call_at(when, callback, *args, context=context)

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        """Create a task, and hold it until it has ended; where it failed, until somebody has looked."""
        if options.get("name") is None:  # asyncio counts all tasks of the process
            options["name"] = f"Task-{next(self._numbers)}"
        task = super().create_task(coro, **options)
        self._pending[task] = None
        task.add_done_callback(self._ended)
        return task

    def collect_unretrieved(self) -> None:
        """Add to ``unhandled`` the error of every task that has failed without anybody looking.

        asyncio reports those only when the garbage collector finds the task, which may be much later.
        """
        for task in _unseen(self._failed):
            self.unhandled.append(
                {"message": f"{task.get_name()} failed unseen:", "exception": task.exception()}
            )
        self._failed.clear()

    def forget_interruption(self) -> None:
        """Go on, because what interrupted the run has ended it: a skipped test, raised by its main task."""
        self._interruption = None

    def tasks(self) -> list[asyncio.Task[Any]]:
        """Return the tasks that have not ended, in the order in which they were created."""
        alive = asyncio.all_tasks(self)
        others = sorted(alive - self._pending.keys(), key=lambda task: task.get_name())  # not made by it
        return [*(task for task in self._pending if task in alive), *others]

    def waiting(self) -> str:
        """Return who waits, and where, one task a line."""
        lines = sorted(f"  {described(task)}" for task in self.tasks())
        return "\n".join(["", *lines]) if lines else "nobody."

    def timers(self) -> list[str]:
        """Return what is scheduled for later, and was not cancelled."""
        scheduled: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        return [repr(timer) for timer in scheduled if not timer.cancelled()]

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Run ``func`` in the loop's next turn: a thread would not be deterministic."""
        del executor
        future: asyncio.Future[T] = self.create_future()
        self.call_soon(_resolve, future, func, *args)
        return future

    def _takes_time(self) -> bool:
        """Decide whether the turn that has just ended took until the next timer."""
        scheduled: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        if not self._preempt or not scheduled or scheduled[0].when() > self._now + NEAR:
            return False
        return self._turns.random() < self._preempt

    def _note_unhandled(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.unhandled.append(context)
        self._mind(context.get("exception"))

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._pending.pop(task, None)
        if task.cancelled():
            return
        error = task._exception  # noqa: SLF001 - `exception()` would mark it as seen
        if error is not None:
            self._failed = [*_unseen(self._failed), task]
            self._mind(error)

    def _mind(self, error: BaseException | None) -> None:
        """Let what is no error of the program end the run in the loop's next turn."""
        if not (error is None or isinstance(error, (Exception, asyncio.CancelledError, GeneratorExit))):
            self._interruption = error

    def _process_events(self, event_list: Any) -> None:
        """Do nothing: no socket of this loop ever has an event."""

    def _write_to_self(self) -> None:
        """There is nobody to be woken: it never waits."""


class VirtualSession:
    """A fresh loop in virtual time, that runs one coroutine after another; what they leave lives on.

    Use it as a context manager. Its end fails when a task, or an error that nobody handled, was left.

    Args:
        limit: Virtual seconds that all of it may take.
        seed: As for ``VirtualLoop``.
        preempt: As for ``VirtualLoop``.
    """

    def __init__(self, *, limit: float = _WEEK, seed: int | None = None, preempt: float = 0.0) -> None:
        self.loop = VirtualLoop(seed, preempt=preempt)
        self.loop.limit = START + limit

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Close the loop.

        Raises:
            LeakError: If something was left behind, and nothing else is wrong.
        """
        try:
            if error is None:
                self.loop.run_until_complete(asyncio.sleep(0))  # callbacks of the last turn
                _check(self.loop)
        finally:
            _discard(self.loop)

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end.

        Raises:
            Deadlock: If it waits for something that can never happen.
            LimitError: If it takes too long; a ``TimeoutError``.
        """
        try:
            return self.loop.run_until_complete(main)
        except BaseException as error:
            for context in self.loop.unhandled:  # they are likely to be the reason
                error.add_note(f"Unhandled before: {_explained(context)}")
            raise


def run(
    main: Coroutine[Any, Any, T], *, limit: float = _WEEK, seed: int | None = None, preempt: float = 0.0
) -> T:
    """Run a coroutine on a fresh loop in virtual time.

    Args:
        main: What to run.
        limit: Virtual seconds that it may take.
        seed: As for ``VirtualLoop``.
        preempt: As for ``VirtualLoop``.

    Raises:
        Deadlock: If it waits for something that can never happen.
        LeakError: If it left a task behind, or an error that nobody handled.
        LimitError: If it took longer than ``limit``; a ``TimeoutError``.
    """
    with VirtualSession(limit=limit, seed=seed, preempt=preempt) as session:
        return session.run(main)


class VirtualRunner:
    """Runs coroutines in virtual time, as an object: the fixture ``virtual_loop``."""

    def run(self, main: Coroutine[Any, Any, T], *, limit: float = _WEEK) -> T:
        """Run a coroutine on a fresh loop in virtual time; see ``run`` of this module."""
        return run(main, limit=limit)


def wall_clock(
    loop: asyncio.AbstractEventLoop | None = None, *, epoch: float = 1_700_000_000.0
) -> Callable[[], float]:
    """Return a wall clock that moves with a loop: the engine's ``WallClock``.

    Args:
        loop: Whose time it tells; by default that of the loop which runs when it is asked.
        epoch: Seconds since the Unix epoch at which a ``VirtualLoop`` starts.
    """
    offset = epoch - START
    return lambda: offset + (asyncio.get_running_loop() if loop is None else loop).time()


def described(task: asyncio.Task[Any]) -> str:
    """Return a task's name, the calls that it waits in, outermost first, and what it awaits there."""
    calls = []
    coroutine: Any = task.get_coro()
    while getattr(coroutine, "cr_frame", None) is not None:
        code = coroutine.cr_code
        calls.append(f"{code.co_qualname} ({Path(code.co_filename).name}:{coroutine.cr_frame.f_lineno})")
        coroutine = coroutine.cr_await
    awaited = getattr(task, "_fut_waiter", None)  # only for people: without it, less is told
    where = " > ".join(calls) or repr(coroutine)
    return f"{task.get_name()} in {where}" + ("" if awaited is None else f", awaiting {awaited!r}")


def _check(loop: VirtualLoop) -> None:
    """Complain of everything that a program which has ended left behind."""
    loop.collect_unretrieved()
    left = [f"left behind: {described(task)}" for task in loop.tasks()]
    errors = [f"unhandled: {_explained(context)}" for context in loop.unhandled]
    if left or errors:
        raise LeakError("; ".join(left + errors))


def _resolve(future: asyncio.Future[T], func: Callable[[*Ts], T], *args: *Ts) -> None:
    if future.cancelled():
        return
    try:
        future.set_result(func(*args))
    except Exception as error:  # noqa: BLE001 - it is passed on, whatever it is
        future.set_exception(error)


def _discard(loop: VirtualLoop) -> None:
    """Cancel what is left and close the loop, so that nothing is reported twice when it is collected.

    Raises:
        LeakError: If a task does not end when it is cancelled.
    """
    loop.limit = None
    loop.forget_interruption()
    tasks = loop.tasks()
    for task in tasks:
        task.cancel()
    try:
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks, timeout=_DISCARD_TIMEOUT))
        loop.run_until_complete(loop.shutdown_asyncgens())
        stubborn = [described(task) for task in tasks if not task.done()]
        if stubborn:
            raise LeakError("does not end when it is cancelled: " + "; ".join(stubborn))
        loop.collect_unretrieved()  # seen: what failed while it was cancelled is told no second time
    finally:
        loop.close()


def _unseen(tasks: list[asyncio.Task[Any]]) -> list[asyncio.Task[Any]]:
    """Return those whose errors nobody has looked at."""
    return [task for task in tasks if task._log_traceback]  # noqa: SLF001 - asyncio's own mark, and there is no public one


def _explained(context: dict[str, Any]) -> str:
    error = context.get("exception")
    return f"{context.get('message')} {error!r}" if error is not None else str(context.get("message"))
