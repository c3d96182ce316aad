"""A story depends on its schedule alone: not on its process, on garbage, addresses, or the real clock."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from realtime_fsm.testing.fuzz.full_stack import FullStackEnvironment
from realtime_fsm.testing.fuzz.simulation import INTERLEAVED, EnvironmentFactory
from realtime_fsm.testing.fuzz.sweep import sweep
from realtime_fsm.testing.fuzz.world import SimulatedEnvironment

SCRIPT = Path(__file__).with_name("disturbed_sweep.py")


@pytest.mark.timeout(600)  # it is bounded by its work, for which a busy machine needs minutes
@pytest.mark.parametrize(
    ("seeds", "environment", "flags"),
    [
        (100, SimulatedEnvironment, ()),
        (10, FullStackEnvironment, ("--full-stack",)),
        (60, SimulatedEnvironment, ("--interleave",)),
        (6, FullStackEnvironment, ("--full-stack", "--interleave")),
    ],
    ids=["engine", "full stack", "engine, interleaved", "full stack, interleaved"],
)
def test_stories_are_the_same_in_every_process(
    seeds: int, environment: EnvironmentFactory, flags: tuple[str, ...]
) -> None:
    """Two disturbed processes with other hash seeds take the same steps, and tell what this one tells."""
    command = [sys.executable, str(SCRIPT), "--seeds", str(seeds), *flags]
    processes = [
        subprocess.Popen(
            [*command, "--disturb", number],
            env={**os.environ, "PYTHONHASHSEED": number},
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in ("1", "2")
    ]
    try:
        first, second = [process.communicate(timeout=500)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert first == second
    preempt = INTERLEAVED if "--interleave" in flags else 0.0
    here = sweep(range(seeds), environment, preempt=preempt)
    assert first.startswith(f"stories {here.digest} steps ")
