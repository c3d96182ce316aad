"""What every test gets: hypothesis profiles, loops that tolerate no leak, and a guard against leftovers."""

import gc
import os
import signal
from collections.abc import Callable, Generator, Iterator
from typing import Any

import canary
import pytest
from hypothesis import Phase, settings
from isolation import Leftovers, make_plain, run_bounded

from realtime_fsm.testing.virtual_loop import run

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
    """Let a test be `async def`."""
    make_plain(pyfuncitem)


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
