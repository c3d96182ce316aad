"""A loop on a thread of its own, for servers that tests use from plain functions and from any loop."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, ParamSpec, Self, TypeVar

T = TypeVar("T")
P = ParamSpec("P")

_BOUND: Final = 10.0
"""Seconds that anything on the thread may take."""


class LoopThread:
    """Runs an event loop on a thread.

    ::

        with LoopThread("my server") as thread:
            server = thread.wait(start())

    Args:
        name: Of the thread.
    """

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Cancel what still runs, and end the thread, within some seconds.

        Raises:
            RuntimeError: If a task or the thread does not end.
        """
        try:
            stubborn = self.wait(_cancel_tasks())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_BOUND)
        if stubborn or self._thread.is_alive():
            raise RuntimeError(
                f"the thread {self._thread.name!r} does not end: {stubborn or 'it is blocked'}"
            )

    def call(self, function: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
        """Call a plain function on the thread, and return its result; from the thread itself at once.

        Raises:
            TimeoutError: If it takes too long.
        """
        if threading.current_thread() is self._thread:
            return function(*args, **options)

        async def called() -> T:
            return function(*args, **options)

        return self.wait(called())

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the thread's loop, and wait for its result.

        Raises:
            TimeoutError: If it takes too long; it is cancelled then.
            RuntimeError: If the thread does not run, or would wait for itself.
        """
        name = self._thread.name
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError(f"the thread {name!r} would wait for itself")
        if not self._thread.is_alive():
            work.close()
            raise RuntimeError(f"the thread {name!r} is not running")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(_BOUND)
        finally:
            future.cancel()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()


async def _cancel_tasks() -> str:
    """Cancel everything else on the loop; return what does not end."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        _, tasks = await asyncio.wait(tasks, timeout=_BOUND / 2)
    loop = asyncio.get_running_loop()
    await loop.shutdown_asyncgens()
    await loop.shutdown_default_executor()
    return ", ".join(task.get_name() for task in tasks)
