"""Plays schedules while everything is disturbed that must not matter.

It prints two hashes: of the stories, and of every single step that the loops took. By hand, for as many
schedules as you like, on an idle machine or a busy one: the same stories everywhere, and the same steps::

    PYTHONHASHSEED=1 python tests/simulation/disturbed_sweep.py --seeds 20000 --disturb 1
    PYTHONHASHSEED=2 python tests/simulation/disturbed_sweep.py --seeds 20000 --disturb 2
    realtime-fsm fuzz --seeds 20000
"""

import argparse
import asyncio
import gc
import hashlib
import logging
import sys
import time
from collections.abc import Callable
from random import Random
from typing import Any

BLOCK = 100
"""Schedules whose order is shuffled together."""

JUMPS = (0.01, 1.0, 7.0, 100.0)
"""Seconds by which the real clock jumps."""


class Steps:
    """A hash of what the loops did: each callback, with the moment for which it was scheduled."""

    def __init__(self) -> None:
        self.taken = hashlib.sha256()

    def add(self, when: float, callback: Callable[..., object]) -> None:
        """Note that a callback is scheduled."""
        function = getattr(callback, "func", callback)
        task = getattr(function, "__self__", None)
        owner = getattr(task.get_coro(), "__qualname__", "") if isinstance(task, asyncio.Task) else ""
        name = getattr(function, "__qualname__", type(function).__name__)
        self.taken.update(f"{when!r} {name} {owner}\n".encode())

    def take(self) -> str:
        """Return the hash, and begin anew."""
        taken, self.taken = self.taken, hashlib.sha256()
        return taken.hexdigest()


def disturb_clock(random: Random) -> None:
    """Let the real clocks jump, as they do for a process that gets no turn."""
    behind = 0.0

    def jumping(clock: Callable[[], float]) -> Callable[[], float]:
        def told() -> float:
            nonlocal behind
            behind += random.choice(JUMPS) if random.random() < 0.3 else 0.0
            return clock() + behind

        return told

    for name in ("time", "monotonic", "perf_counter"):
        setattr(time, name, jumping(getattr(time, name)))


def disturb_loop(random: Random, steps: Steps) -> None:
    """Let virtual loops collect garbage at any moment, and let sets of tasks and futures have any order."""
    from realtime_fsm.testing import virtual_loop  # noqa: PLC0415 - see `main`

    class Task(asyncio.Task[Any]):
        def __init__(self, *args: Any, **options: Any) -> None:
            self.place = random.getrandbits(40)
            super().__init__(*args, **options)

        def __hash__(self) -> int:
            return self.place

    class Future(asyncio.Future[Any]):
        def __init__(self, *args: Any, **options: Any) -> None:
            self.place = random.getrandbits(40)
            super().__init__(*args, **options)

        def __hash__(self) -> int:
            return self.place

    class DisturbedLoop(virtual_loop.VirtualLoop):
        def __init__(self, seed: int | None = None, *, preempt: float = 0.0) -> None:
            super().__init__(seed, preempt=preempt)
            self.set_task_factory(lambda loop, coro, **options: Task(coro, loop=loop, **options))

        def create_future(self) -> asyncio.Future[Any]:
            return Future(loop=self)

        def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:  # type: ignore[override]
            if random.random() < 0.003:
                gc.collect()
            steps.add(self.time(), callback)
            return super().call_soon(callback, *args, context=context)

        def call_at(self, when: Any, callback: Any, *args: Any, context: Any = None) -> Any:  # type: ignore[override]
            timer = super().call_at(when, callback, *args, context=context)
            steps.add(timer.when(), callback)
            return timer

    virtual_loop.VirtualLoop = DisturbedLoop  # type: ignore[misc]


def litter(random: Random) -> list[bytearray]:
    """Return objects that lie about in memory, so that what is made next has other addresses."""
    gc.set_threshold(random.choice((50, 700, 5000)), random.choice((2, 10)), random.choice((2, 10)))
    made = [bytearray(random.randrange(600)) for _ in range(random.randrange(500))]
    return random.sample(made, len(made) // 2)


def main() -> int:
    """Play; return 1 where a promise was broken."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--disturb", type=int, default=0, help="seed of what is disturbed (default: 0)")
    parser.add_argument("--full-stack", action="store_true")
    parser.add_argument("--interleave", action="store_true")
    parsed = parser.parse_args()
    random, steps = Random(parsed.disturb), Steps()  # noqa: S311 - a run must be repeatable
    disturb_clock(random)  # before anything is imported that binds it
    disturb_loop(random, steps)
    from realtime_fsm.testing import FullStackEnvironment, SimulatedEnvironment, Sweep, play  # noqa: PLC0415
    from realtime_fsm.testing.fuzz.schedule import random_schedule  # noqa: PLC0415
    from realtime_fsm.testing.fuzz.simulation import INTERLEAVED  # noqa: PLC0415

    environment = FullStackEnvironment if parsed.full_stack else SimulatedEnvironment
    preempt = INTERLEAVED if parsed.interleave else 0.0
    logging.disable()
    gc.collect()
    gc.freeze()  # what lives for ever need not be looked at in each collection
    result, taken = Sweep(), hashlib.sha256()
    end = parsed.first + parsed.seeds
    for first in range(parsed.first, end, BLOCK):
        seeds = range(first, min(first + BLOCK, end))
        played = {}
        for seed in random.sample(seeds, len(seeds)):
            rubbish = litter(random)
            played[seed] = (play(random_schedule(seed), environment, preempt), steps.take())
            del rubbish
        for seed in seeds:
            story, digest = played[seed]
            result.add(story)
            taken.update(digest.encode())
            if story.violations:
                sys.stderr.write(f"{story}\n{story.schedule}\n")
                return 1
    sys.stdout.write(f"stories {result.digest} steps {taken.hexdigest()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
