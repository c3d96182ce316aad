import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import soak

SCRIPT = Path(__file__).with_name("soak.py")
CYCLES = 320
WARM_UP = 240  # more than a client's histories hold


def test_soak_of_some_hundred_reconnects_leaves_nothing_behind() -> None:
    """Reconnecting after every fault in turn leaves nothing behind, and loses and doubles nothing."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--cycles", str(CYCLES), "--warm-up", str(WARM_UP)],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        env={**os.environ, "PYTHONPATH": str(SCRIPT.parents[2])},  # this checkout, installed or not
    )
    assert done.returncode == 0, done.stderr + done.stdout
    report = json.loads(done.stdout)
    assert report["cycles"] == CYCLES
    assert report["losses"] >= CYCLES + WARM_UP
    assert report["failed_dials"] >= (CYCLES + WARM_UP) // 4
    assert report["connections"] >= CYCLES + WARM_UP


@pytest.mark.parametrize("name", ["tasks", "descriptors", "threads", "clients", "memory_bytes"])
def test_soak_reports_whatever_grows(name: str) -> None:
    """Each thing that may leak is a problem as soon as there is more of it than is allowed."""
    growth = dict.fromkeys(("tasks", "descriptors", "threads", "clients"), 0)
    allowed = {**growth, "memory_bytes": soak.MOST_MEMORY_BYTES}
    assert soak.problems({"growth": allowed}) == []
    assert soak.problems({"growth": {**allowed, name: allowed[name] + 1}}) == [name]
