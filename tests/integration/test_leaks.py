import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from server_process import ENVIRONMENT, HERE, running

WARM_UP = 250  # more than the 200 records that the histories of a client hold, so that they are full by then
CYCLES = 1000
MOST_OBJECTS = 200
MOST_SESSIONS = 2  # of a live connection, and of the HTTP side
MOST_MEMORY_BYTES = 2 * 1024 * 1024


@pytest.fixture
def server_port() -> Iterator[int]:
    """Run a server that resets connections."""
    with running([sys.executable, str(HERE / "dropping_server.py")]) as port:
        yield port


@pytest.fixture
def free_port() -> Iterator[int]:
    """Give a port at which nobody listens."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets it, and dials are refused
        yield holder.getsockname()[1]


def grown(scenario: str, port: int) -> dict[str, Any]:
    """Go through the cycles in a fresh process, and return by how much it grew; by type for a failure."""
    options = {"--port": port, "--warm-up": WARM_UP, "--cycles": CYCLES}
    words = [str(word) for pair in options.items() for word in pair]
    done = subprocess.run(
        [sys.executable, str(HERE / "leak_probe.py"), scenario, *words],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        env=ENVIRONMENT,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def assert_within_budget(report: dict[str, Any]) -> None:
    """Compare the growth over all cycles with what is allowed."""
    growth = report["growth"]
    assert {name: growth[name] for name in ("tasks", "descriptors", "clients")} == {
        "tasks": 0,
        "descriptors": 0,
        "clients": 0,
    }, report
    # Also what is bounded may be too much: a history of errors must not hold the connections they broke.
    assert report["held"]["sessions"] <= MOST_SESSIONS, report
    assert growth["objects"] <= MOST_OBJECTS, report
    assert growth["memory_bytes"] <= MOST_MEMORY_BYTES, report


def test_reconnecting_a_thousand_times_leaves_nothing_behind(server_port: int) -> None:
    """A client whose connection is reset a thousand times, with messages in flight, holds what it held."""
    assert_within_budget(grown("reconnects", server_port))


def test_failing_to_connect_a_thousand_times_leaves_nothing_behind(free_port: int) -> None:
    """A client whose dials are refused a thousand times holds what it held."""
    assert_within_budget(grown("failed_dials", free_port))


def test_a_thousand_clients_one_after_the_other_leave_nothing_behind(server_port: int) -> None:
    """A process in which a thousand clients have connected and disconnected holds what it held."""
    assert_within_budget(grown("stays", server_port))
