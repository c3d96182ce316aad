"""Loops that tolerate no leak, and what a test may leave behind."""

import asyncio
import gc
import inspect
import sys
import threading
from collections.abc import Coroutine
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from realtime_fsm.testing.virtual_loop import run

T = TypeVar("T")

INTEGRATION = Path(__file__).parent / "integration"

ENDING = 1.0
"""Seconds that cancelled tasks get to end, after a test on a real loop."""

_process = psutil.Process()
_threads_of_process = Path("/proc/self/task")


class Leftovers:
    """Threads, children and file descriptors of this process, to be compared later."""

    def __init__(self) -> None:
        self.threads = set(threading.enumerate())
        self.children = _children()
        self.descriptors = _process.num_fds()
        base_client = sys.modules.get("engineio.base_client")
        self.clients = 0 if base_client is None else len(base_client.connected_clients)

    def since(self, before: "Leftovers") -> list[str]:
        """Return what is there now and was not before."""
        found = [f"thread {thread.name}" for thread in self.threads - before.threads]
        found += [f"child process {pid}" for pid in self.children - before.children]
        if self.descriptors > before.descriptors:
            count = self.descriptors - before.descriptors
            found.append(f"{count} file descriptors, among {_process.net_connections() or 'no sockets'}")
        if self.clients > before.clients:
            found.append("an entry in engineio's connected_clients")
        return found


def _children() -> set[int]:
    """Return the child processes; from the kernel's own list, where psutil would read every process."""
    try:
        lists = [(thread / "children").read_text() for thread in _threads_of_process.iterdir()]
    except FileNotFoundError:  # another system, or a thread that ended meanwhile
        return {child.pid for child in _process.children()}
    return {int(pid) for text in lists for pid in text.split()}


def make_plain(pyfuncitem: pytest.Function) -> None:
    """Let a test be `async def`: it runs as `run_virtual` runs a coroutine, in virtual time.

    Marked `real_loop`, and everywhere in `integration/`, it runs as `run_async` does, on a real loop; the
    mark's argument is the bound. Under `@given` a test cannot be `async def`.
    """
    test = pyfuncitem.obj
    if inspect.iscoroutinefunction(test):
        implied = pytest.mark.real_loop.mark if pyfuncitem.path.is_relative_to(INTEGRATION) else None
        mark = pyfuncitem.get_closest_marker("real_loop", implied)
        runner = run if mark is None else lambda main: run_bounded(main, *mark.args, **mark.kwargs)
        pyfuncitem.obj = wraps(test)(lambda **given: runner(test(**given)))


def run_bounded(main: Coroutine[Any, Any, T], timeout: float = 60.0) -> T:
    """Run a coroutine on a fresh real loop, as the fixture ``run_async`` says."""
    unhandled: list[dict[str, Any]] = []

    async def bounded() -> T:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
        async with asyncio.timeout(timeout):
            result = await main
        gc.collect(1)  # the test's own objects are young: a task that failed unseen complains now
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if left:  # what was cancelled needs a turn to end
            ended, left = await asyncio.wait(left, timeout=ENDING)
            unhandled.extend(
                {"message": f"{task.get_name()} failed unseen", "exception": task.exception()}
                for task in ended
                if not task.cancelled() and task.exception() is not None
            )
        assert not left, f"tasks left behind: {left}"
        return result

    with asyncio.Runner(debug=False) as runner:
        result = runner.run(bounded())
    assert not unhandled, f"nobody handled: {unhandled}"
    return result
