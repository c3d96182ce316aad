"""The part that all contracts have in common: how their laws run, and how they wait."""

import asyncio
import sys
import unittest
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar, Final, NoReturn

from realtime_fsm.testing import virtual_loop

_ENDING: Final = 1.0
"""Seconds that cancelled tasks get to end, after a law on a real loop."""

_LOOK_AGAIN: Final = 0.005
"""Pause between two looks at something that happens elsewhere, and of which nobody tells."""


class Contract:
    """Laws of a port. A subclass says how an implementation is made, and may say how its laws are run.

    Attributes:
        bound: Seconds, on the clock of the loop, in which everything that is waited for must have happened.
    """

    bound: ClassVar[float] = 5.0

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        """Run a law: in virtual time. Override it by ``run_in_real_time`` for what does real I/O.

        Raises:
            AssertionError: If the law is broken, or something is left behind.
            Deadlock: If it waits for something that can never happen.
        """
        virtual_loop.run(main)

    async def eventually(self, condition: Callable[[], Any], what: str) -> None:
        """Wait until a condition is true.

        Args:
            condition: Looked at again and again.
            what: What is waited for, for the error.

        Raises:
            AssertionError: If it is not true within ``bound``.
        """
        due = asyncio.get_running_loop().time() + self.bound
        while not condition():
            assert asyncio.get_running_loop().time() < due, f"not within {self.bound} s: {what}"
            await asyncio.sleep(_LOOK_AGAIN)

    async def within_bound(self, work: Coroutine[Any, Any, Any], what: str) -> Any:
        """Return the result of something that must not take longer than ``bound``.

        Args:
            work: What is done.
            what: The same in words, for the error.

        Raises:
            AssertionError: If it takes longer; it was cancelled then.
        """
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait({task}, timeout=self.bound)
            assert task.done(), f"not within {self.bound} s: {what}"
        finally:
            task.cancel()  # also when the law itself is given up
        return await task


def run_in_real_time(main: Coroutine[Any, Any, None], *, limit: float = 30.0) -> None:
    """Run a coroutine on a fresh real loop, as ``run`` does in virtual time.

    Args:
        main: What to run.
        limit: Seconds that it may take.

    Raises:
        LeakError: If it left a task behind, or an error that nobody handled.
        LimitError: If it took longer than ``limit``; a ``TimeoutError``.
    """
    unhandled: list[dict[str, Any]] = []

    async def bounded() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
        task = asyncio.ensure_future(main)
        await asyncio.wait({task}, timeout=limit)
        if not task.done():
            where = virtual_loop.described(task)
            task.cancel()
            await asyncio.wait({task}, timeout=_ENDING)
            raise virtual_loop.LimitError(f"It is not over after {limit} s: {where}")
        await task
        await _check_tasks()

    with asyncio.Runner() as runner:
        runner.run(bounded())
    if unhandled:
        told = "; ".join(f"{context.get('message')} {context.get('exception')!r}" for context in unhandled)
        raise virtual_loop.LeakError(f"unhandled: {told}")


async def _check_tasks() -> None:
    """Complain of tasks that are left; one that was cancelled gets a moment to end."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if not left:
        return
    ended, left = await asyncio.wait(left, timeout=_ENDING)
    errors = [task.exception() for task in ended if not task.cancelled()]
    told = [f"left behind: {virtual_loop.described(task)}" for task in left]
    told += [f"failed unseen: {error!r}" for error in errors if error is not None]
    if told:
        raise virtual_loop.LeakError("; ".join(told))


def skip(reason: str) -> NoReturn:
    """Skip a law that an implementation does not claim to keep: as pytest does, where it runs the law."""
    runner = sys.modules.get("pytest")
    if runner is not None:
        runner.skip(reason)
    raise unittest.SkipTest(reason)


def texts_of(error: BaseException | None) -> str:
    """Return all that an error shows, with everything that it came from: where a secret would be found."""
    seen: set[int] = set()
    waiting, texts = [error], []
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            texts += [str(one), repr(one), repr(getattr(one, "__notes__", ""))]
            waiting += [one.__cause__, one.__context__]
    return "\n".join(texts)
