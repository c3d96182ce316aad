"""What every test gets: hypothesis profiles, loops that tolerate no leak, and a guard against leftovers."""

import asyncio
import gc
import os
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import psutil
import pytest
from hypothesis import settings

from realtime_fsm.testing.virtual_loop import run

T = TypeVar("T")

settings.register_profile("dev", max_examples=50, deadline=None)
settings.register_profile("ci", max_examples=200, deadline=None, derandomize=True, print_blob=True)
settings.register_profile("nightly", max_examples=2000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))

_process = psutil.Process()


class Leftovers:
    """Threads, children and file descriptors of this process, to be compared later."""

    def __init__(self) -> None:
        self.threads = set(threading.enumerate())
        self.children = {child.pid for child in _process.children()}
        self.descriptors = _process.num_fds()
        base_client = sys.modules.get("engineio.base_client")
        self.clients = 0 if base_client is None else len(base_client.connected_clients)

    def since(self, before: "Leftovers") -> list[str]:
        """Return what is there now and was not before."""
        found = [f"thread {thread.name}" for thread in self.threads - before.threads]
        found += [f"child process {pid}" for pid in self.children - before.children]
        if self.descriptors > before.descriptors:
            found.append(f"{self.descriptors - before.descriptors} file descriptors")
        if self.clients > before.clients:
            found.append("an entry in engineio's connected_clients")
        return found


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """Fail a test that leaves a thread, a process, a file descriptor or a registered client behind."""
    before = Leftovers()
    yield
    if Leftovers().since(before):
        gc.collect()  # what only garbage holds is released by the time that it matters
        left = Leftovers().since(before)
        if left:
            pytest.fail("left behind: " + ", ".join(left))


@pytest.fixture
def run_virtual() -> Callable[[Coroutine[Any, Any, T]], T]:
    """Run a coroutine in virtual time; fails on tasks left behind and on unhandled errors."""
    return run


@pytest.fixture
def run_async() -> Callable[..., Any]:
    """Run a coroutine on a real loop, bounded; fails on tasks left behind and on unhandled errors."""

    def run_bounded(main: Coroutine[Any, Any, T], timeout: float = 30.0) -> T:
        unhandled: list[dict[str, Any]] = []

        async def bounded() -> T:
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, context: unhandled.append(context))
            async with asyncio.timeout(timeout):
                result = await main
            left = asyncio.all_tasks() - {asyncio.current_task()}
            if left:  # what was cancelled needs a turn to end
                _, left = await asyncio.wait(left, timeout=1.0)
            assert not left, f"tasks left behind: {left}"
            return result

        result = asyncio.run(bounded())
        assert not unhandled, f"nobody handled: {unhandled}"
        return result

    return run_bounded
