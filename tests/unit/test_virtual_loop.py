"""Virtual time is exact, immediate and intolerant of leftovers; so are real loops and the tests."""

import asyncio
import gc
import re
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from isolation import INTEGRATION, Leftovers, make_plain

import realtime_fsm.testing
from realtime_fsm.testing.virtual_loop import (
    NEAR,
    START,
    Deadlock,
    LeakError,
    LimitError,
    VirtualLoop,
    run,
    wall_clock,
)

Run = Callable[..., Any]


def test_virtual_loop_takes_no_real_time_and_is_exact() -> None:
    """A wait of a year ends at exactly the right virtual time, at once."""

    async def main() -> float:
        await asyncio.sleep(365 * 24 * 3600)
        return asyncio.get_running_loop().time()

    began = time.monotonic()
    assert run(main(), limit=1e9) == START + 365 * 24 * 3600
    assert time.monotonic() - began < 60  # that it is no year, not how fast it is


def test_virtual_loop_runs_timers_in_their_order() -> None:
    """Timers run in the order of their time, whatever the order in which they were set."""

    async def main() -> list[int]:
        order: list[int] = []
        loop = asyncio.get_running_loop()
        for delay in (3, 1, 2):
            loop.call_later(delay, order.append, delay)
        await asyncio.sleep(4)
        return order

    assert run(main()) == [1, 2, 3]


async def _cut_in(delay: float) -> int:
    """Set a timer, and return how many turns of the loop passed before it went off, of 1,000."""
    went_off = asyncio.Event()
    asyncio.get_running_loop().call_later(delay, went_off.set)
    for turn in range(1_000):
        if went_off.is_set():
            return turn
        await asyncio.sleep(0)
    return 1_000


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_virtual_loop_lets_near_timers_cut_in_where_turns_take_time(seed: int | None) -> None:
    """A near timer goes off while callbacks are ready, as the seed says; a far one, or by default, never."""
    turns = run(_cut_in(NEAR / 2), seed=seed, preempt=0.1)
    assert turns < 1_000
    assert run(_cut_in(NEAR / 2), seed=seed, preempt=0.1) == turns
    assert run(_cut_in(NEAR * 2), seed=seed, preempt=0.1) == 1_000
    assert run(_cut_in(NEAR / 2), seed=seed) == 1_000


def test_virtual_loop_is_exact_where_turns_take_time() -> None:
    """The clock moves to timers only, never back and never past one, so all go off when they are due."""

    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        late: list[float] = []

        def tell(due: float) -> None:
            late.append(loop.time() - due)

        for number in range(100):
            due = loop.time() + number / 1_000
            loop.call_at(due, tell, due)
        for _ in range(100_000):
            if len(late) == 100:
                break
            await asyncio.sleep(0)
        return late

    late = run(main(), seed=3, preempt=0.5)
    assert len(late) == 100
    assert max(map(abs, late)) < 1e-5


def test_virtual_loop_names_who_waits_in_a_deadlock() -> None:
    """A lost wake-up is an error that names each task, the line at which it waits, and what it awaits."""

    async def waits_for_ever() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        await asyncio.create_task(waits_for_ever(), name="the sleeper")

    with pytest.raises(Deadlock) as caught:
        run(main(), limit=10.0)
    lines = str(caught.value).splitlines()[1:]
    assert len(lines) == 2
    sleeper = re.compile(r"the sleeper in .*waits_for_ever .*> Event\.wait .*awaiting <Future pending")
    assert any(sleeper.search(line) for line in lines)
    assert any("main" in line and "awaiting <Task pending name='the sleeper'" in line for line in lines)


def test_virtual_loop_cleans_up_after_a_deadlock() -> None:
    """Whoever waited in a deadlock is cancelled, so that its own cleaning up still happens."""
    cleaned: list[str] = []

    async def main() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(5)
            cleaned.append("up")

    with pytest.raises(Deadlock):
        run(main())
    assert cleaned == ["up"]


def test_virtual_loop_limit_names_who_is_not_done() -> None:
    """A program that takes longer than its limit ends with an error that names who still waits."""

    async def main() -> None:
        await asyncio.sleep(10.0)
        await asyncio.sleep(0.001)

    with pytest.raises(LimitError, match=r"10\.0 s(.|\n)*main") as caught:
        run(main(), limit=10.0)
    assert isinstance(caught.value, TimeoutError)
    run(asyncio.sleep(10.0), limit=10.0)


def test_virtual_loop_reports_a_task_left_behind() -> None:
    """A program that ends before its tasks do is told which ones."""

    async def main() -> None:
        main.task = asyncio.create_task(asyncio.sleep(100), name="forgotten")  # type: ignore[attr-defined]

    with pytest.raises(LeakError, match="forgotten"):
        run(main())


def test_virtual_loop_reports_errors_that_nobody_handled() -> None:
    """An exception in a callback fails the run."""

    async def main() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await asyncio.sleep(0)

    with pytest.raises(LeakError, match="ZeroDivisionError"):
        run(main())


def test_virtual_loop_reports_a_task_that_failed_unseen() -> None:
    """An error in a task that nobody looks at fails the run, even while something still holds the task."""
    held: list[asyncio.Task[None]] = []

    async def fails() -> None:
        raise ZeroDivisionError

    async def main() -> None:
        held.append(asyncio.create_task(fails(), name="the unlucky"))
        await asyncio.sleep(1)

    with pytest.raises(LeakError, match=r"the unlucky failed unseen: ZeroDivisionError"):
        run(main())
    assert held[0].done()


class Interruption(BaseException):
    """As the time-out of a test: raised by a signal, in whatever code happens to run."""


@pytest.mark.parametrize("where", ["task", "callback"])
def test_virtual_loop_ends_at_once_by_what_is_no_error_of_the_program(where: str) -> None:
    """An interruption ends the run, although asyncio keeps it where it came, and the program swallows it."""
    went_on: list[bool] = []

    async def main() -> None:
        def interrupt() -> None:
            raise Interruption

        async def interrupted() -> None:
            interrupt()

        if where == "task":
            await asyncio.gather(interrupted(), return_exceptions=True)
        else:
            asyncio.get_running_loop().call_soon(interrupt)
        await asyncio.sleep(1)
        went_on.append(True)

    with pytest.raises(Interruption):
        run(main())
    assert not went_on


def test_virtual_loop_does_not_depend_on_the_garbage_collector() -> None:
    """A task that nobody holds is left behind; it is not ended whenever garbage is collected."""

    async def main() -> None:
        async def waits() -> None:
            await asyncio.get_running_loop().create_future()

        asyncio.get_running_loop().create_task(waits(), name="lost")
        await asyncio.sleep(0)
        gc.collect()
        assert not asyncio.get_running_loop().unhandled  # type: ignore[attr-defined]

    with pytest.raises(LeakError, match=r"^left behind: lost in .*waits"):
        run(main())


def test_virtual_loop_names_tasks_the_same_in_every_run() -> None:
    """A task without a name gets one that counts the tasks of its own loop."""

    async def main() -> list[str]:
        async def name() -> str:
            task = asyncio.current_task()
            assert task is not None
            return task.get_name()

        return [await name(), *await asyncio.gather(name(), name())]

    assert run(main()) == run(main()) == ["Task-1", "Task-2", "Task-3"]


def test_virtual_loop_tells_of_unhandled_errors_beside_the_failure() -> None:
    """Where the program fails by itself, what nobody handled before is noted on its error."""

    async def main() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await asyncio.sleep(1)
        raise LookupError

    with pytest.raises(LookupError) as caught:
        run(main())
    assert any("ZeroDivisionError" in note for note in caught.value.__notes__)


def test_virtual_loop_reports_a_task_that_ignores_its_cancellation() -> None:
    """A task that goes on after it was cancelled is an error, and does not hang the run."""

    async def stubborn() -> None:
        while True:
            try:
                await asyncio.sleep(10_000)
            except asyncio.CancelledError:
                continue  # what no program should do

    async def main() -> None:
        main.task = asyncio.create_task(stubborn(), name="the mule")  # type: ignore[attr-defined]
        await asyncio.sleep(1)

    with pytest.raises(LeakError, match="does not end when it is cancelled: the mule"):
        run(main())


def test_virtual_loop_refuses_real_input_and_output() -> None:
    """A socket in virtual time is an error, not a hang."""

    async def main() -> None:
        left, right = socket.socketpair()
        with left, right:
            left.setblocking(False)
            await asyncio.get_running_loop().sock_recv(left, 1)

    with pytest.raises((RuntimeError, NotImplementedError)):
        run(main())


def test_virtual_loop_runs_executor_jobs_inline() -> None:
    """Work for a thread runs on the loop's own, and passes results and errors on."""

    async def main() -> int:
        loop = asyncio.get_running_loop()
        with pytest.raises(ZeroDivisionError):
            await loop.run_in_executor(None, lambda: 1 // 0)
        return await loop.run_in_executor(None, sum, [1, 2])

    assert run(main()) == 3


def test_virtual_loop_wall_clock_moves_with_it() -> None:
    """A wall clock begins where it was told to and moves with virtual time, asked on its loop or not."""
    loop = VirtualLoop()
    wall, same = wall_clock(loop, epoch=5000.0), wall_clock(epoch=5000.0)

    async def main() -> tuple[float, float, float]:
        first = wall()
        await asyncio.sleep(7)
        return first, wall(), same()

    try:
        assert loop.run_until_complete(main()) == (5000.0, 5007.0, 5007.0)
        assert wall() == 5007.0
    finally:
        loop.close()


def test_virtual_loop_leaves_no_loop_open() -> None:
    """Every run closes its loop, whether it succeeded or not."""
    loops: list[asyncio.AbstractEventLoop] = []

    async def main(error: Exception | None) -> None:
        loops.append(asyncio.get_running_loop())
        if error is not None:
            raise error

    run(main(None))
    with pytest.raises(LookupError):
        run(main(LookupError()))
    assert [loop.is_closed() for loop in loops] == [True, True]


def test_testing_names_are_all_importable_from_the_package() -> None:
    """Each public name of the package leads to its module; another one is an ``AttributeError``."""
    assert sorted(realtime_fsm.testing._HOME) == sorted(realtime_fsm.testing.__all__)
    for name in realtime_fsm.testing.__all__:
        assert getattr(realtime_fsm.testing, name).__name__ in {name, "<lambda>"}
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = realtime_fsm.testing.nonsense


def test_testing_import_brings_nothing_heavy() -> None:
    """Importing the package and its simulations brings in no network library."""
    program = (
        "import sys, realtime_fsm.testing as t; t.SimulatedServer; t.SimulatedHttp; t.FaultProxy; t.run; "
        "print([m for m in ('socketio', 'engineio', 'aiohttp', 'hypothesis', 'pytest') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.strip() == "[]"


def test_run_async_returns_the_result(run_async: Run) -> None:
    """A program on a real loop gives its result, with the loop's debug mode off."""

    async def main() -> bool:
        await asyncio.sleep(0)
        return asyncio.get_running_loop().get_debug()

    assert run_async(main()) is False


def test_run_async_is_bounded(run_async: Run) -> None:
    """A program that hangs is ended by its timeout."""
    with pytest.raises(TimeoutError):
        run_async(asyncio.Event().wait(), timeout=0.01)


def test_run_async_fails_on_a_task_left_behind(run_async: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that ends before its tasks do is told which ones."""
    monkeypatch.setattr("isolation.ENDING", 0.01)

    async def main() -> None:
        main.task = asyncio.create_task(asyncio.sleep(100), name="forgotten")  # type: ignore[attr-defined]

    with pytest.raises(AssertionError, match="forgotten"):
        run_async(main())


@pytest.mark.parametrize("held", [True, False])
def test_run_async_fails_on_errors_that_nobody_handled(run_async: Run, held: bool) -> None:
    """An exception in a callback, or in a task that nobody looks at, fails the run."""

    async def fails() -> None:
        raise ZeroDivisionError

    async def main() -> None:
        if held:
            main.task = asyncio.create_task(fails())  # type: ignore[attr-defined]
        else:
            asyncio.get_running_loop().call_soon(lambda: 1 / 0)
            await asyncio.sleep(0)

    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        run_async(main())


@pytest.mark.parametrize("hours", [1, 100])
async def test_async_test_runs_in_virtual_time(hours: int) -> None:
    """A test may be a coroutine: it gets its arguments, and hours of waiting take no time."""
    await asyncio.sleep(hours * 3600)
    assert asyncio.get_running_loop().time() == START + hours * 3600


@pytest.mark.real_loop(timeout=20)
async def test_async_test_runs_on_a_real_loop_where_it_is_marked_so() -> None:
    """The mark `real_loop` gives the loop of `run_async`."""
    assert not isinstance(asyncio.get_running_loop(), VirtualLoop)


@pytest.mark.parametrize(
    ("folder", "mark", "error"),
    [
        ("engine", None, Deadlock),
        ("engine", pytest.mark.real_loop(timeout=0.01), TimeoutError),
        ("integration", pytest.mark.real_loop(0.01), TimeoutError),
    ],
)
def test_async_test_is_bounded(folder: str, mark: pytest.MarkDecorator | None, error: type) -> None:
    """A test that hangs is ended by the loop that its folder or its mark gives it."""
    item: Any = SimpleNamespace(
        obj=asyncio.Event().wait,
        path=INTEGRATION.parent / folder / "test_it.py",
        get_closest_marker=lambda name, default: mark.mark if mark else default,
    )
    make_plain(item)
    with pytest.raises(error):
        item.obj()


@pytest.mark.parametrize(("folder", "error"), [("engine", LeakError), ("integration", AssertionError)])
def test_async_test_may_leave_nothing_behind(
    folder: str, error: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that outlives its test fails it, on whichever loop."""
    monkeypatch.setattr("isolation.ENDING", 0.01)

    async def test() -> None:
        item.task = asyncio.create_task(asyncio.sleep(100), name="forgotten")

    item: Any = SimpleNamespace(
        obj=test,
        path=INTEGRATION.parent / folder / "test_it.py",
        get_closest_marker=lambda name, default: default,
    )
    make_plain(item)
    with pytest.raises(error, match="forgotten"):
        item.obj()


def test_leftovers_name_threads_processes_and_descriptors() -> None:
    """What a test leaves behind is found, each by its kind, and no more once it is gone."""
    before = Leftovers()
    done = threading.Event()
    thread = threading.Thread(target=done.wait, args=(30,), name="a straggler")
    thread.start()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        found = ", ".join(Leftovers().since(before))
    finally:
        done.set()
        thread.join(30)
        child.communicate(b"\n", timeout=30)
    assert "thread a straggler" in found
    assert f"child process {child.pid}" in found
    assert "1 file descriptors" in found
    gc.collect()
    assert Leftovers().since(before) == []


def test_virtual_loop_that_a_skip_has_ended_leaves_nothing() -> None:
    """A test that skips itself has ended its run: nothing of the loop is left for the garbage collector."""

    async def main() -> None:
        pytest.skip("nothing to see")

    with warnings.catch_warnings(record=True, action="always") as told:
        with pytest.raises(pytest.skip.Exception):
            run(main())
        gc.collect()
    assert told == []
