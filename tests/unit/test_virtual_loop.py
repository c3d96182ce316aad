"""Virtual time: exact, immediate, and intolerant of leftovers."""

import asyncio
import socket
import time

import pytest

from realtime_fsm.testing.virtual_loop import START, Deadlock, LeakError, VirtualLoop, run, wall_clock


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


def test_virtual_loop_names_who_waits_in_a_deadlock() -> None:
    """A lost wake-up is an error that names the task and the line at which it waits."""

    async def waits_for_ever() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        task = asyncio.create_task(waits_for_ever(), name="the sleeper")
        asyncio.get_running_loop().call_soon(lambda: None)
        await task

    with pytest.raises(TimeoutError):  # the limit is a timer as well, so it comes first
        run(main(), limit=10.0)
    loop = VirtualLoop()
    task = loop.create_task(waits_for_ever(), name="the sleeper")
    try:
        with pytest.raises(Deadlock, match=r"the sleeper in Event\.wait"):
            loop.run_until_complete(task)
    finally:
        task.cancel()
        loop.run_until_complete(asyncio.wait({task}, timeout=1))
        loop.close()


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
    """The wall clock of a run begins where it was told to, and moves with virtual time."""

    async def main() -> tuple[float, float]:
        wall = wall_clock(5000.0)
        first = wall()
        await asyncio.sleep(7)
        return first, wall()

    assert run(main()) == (5000.0, 5007.0)
