"""What every test gets: hypothesis profiles, loops that tolerate no leak, and a guard against leftovers."""

import asyncio
import gc
import inspect
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Generator, Iterator
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import canary
import psutil
import pytest
from hypothesis import Phase, settings

from realtime_fsm.testing.virtual_loop import run

T = TypeVar("T")

settings.register_profile("dev", max_examples=50, deadline=None)
settings.register_profile("ci", max_examples=200, deadline=None, derandomize=True, print_blob=True)
settings.register_profile("nightly", max_examples=2000, deadline=None)
settings.register_profile(  # for planted bugs: it is enough to find them
    "mutation",
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
)
_in_ci = os.environ.get("CI", "").lower() in {"1", "true"}
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if _in_ci else "dev"))

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell without job control starts what is in the background so, and every child of ours would
    # inherit it: the commands under test could not be interrupted.
    signal.signal(signal.SIGINT, signal.default_int_handler)

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


_watch = canary.LogWatch()


def pytest_configure() -> None:
    """Search every log record of the whole run for secrets."""
    _watch.start()


def pytest_unconfigure() -> None:
    """End the search."""
    _watch.stop()


@pytest.fixture(autouse=True)
def no_secret_is_logged() -> Iterator[None]:
    """Fail a test during which a secret came into a log record, at whatever level, of whatever logger."""
    kept = canary.watched_for()
    yield
    leaks = _watch.take()
    canary.forget(kept)
    if leaks:
        pytest.fail("a secret was logged: " + "\n".join(leaks))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test that prints a secret; so does one of which a child process does."""
    report = yield
    leaks = canary.found_in(report.capstdout, report.capstderr)
    if leaks and report.passed:
        report.outcome = "failed"
        report.longrepr = "a secret was printed: " + "\n".join(leaks)
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> None:
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


@pytest.fixture
def run_virtual() -> Callable[..., Any]:
    """Run a coroutine in virtual time; fails on tasks left behind and on unhandled errors."""
    return run


@pytest.fixture
def run_async() -> Callable[..., Any]:
    """Run a coroutine on a real loop, bounded; fails on tasks left behind and on unhandled errors."""
    return run_bounded


@pytest.fixture
def run_long() -> Callable[..., Any]:
    """Run a coroutine on a real loop like ``run_async``, with a bound of its own."""
    return run_bounded


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
