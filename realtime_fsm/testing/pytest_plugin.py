"""The plugin of pytest: fixtures, and options for sweeps. Installed with the library, it is always there.

It costs nothing until it is used: whatever a fixture needs is imported by the fixture.
"""

import random
from argparse import ArgumentTypeError
from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from realtime_fsm.server import BackendConfig
    from realtime_fsm.testing.backend_thread import RealtimeBackend, ThreadedProxy
    from realtime_fsm.testing.virtual_loop import VirtualRunner

DEFAULT_SEEDS: Final = 100

pytest.register_assert_rewrite("realtime_fsm.testing.contracts")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that say which schedules are played."""
    group = parser.getgroup("realtime_fsm", "realtime_fsm: sweeps over seeds and schedules of faults")
    group.addoption(
        "--realtime-seeds",
        type=_count,
        default=DEFAULT_SEEDS,
        metavar="N",
        help="how many seeds the fixture `realtime_seeds` gives (default: %(default)s)",
    )
    group.addoption(
        "--realtime-replay",
        default=None,
        metavar="SCHEDULE",
        help="the schedule that the fixture `realtime_replay` gives: one that a failure printed",
    )


@pytest.fixture(scope="session")
def realtime_seeds(pytestconfig: pytest.Config) -> range:
    """The seeds of a sweep: as many as `--realtime-seeds` says, from 0."""
    return range(pytestconfig.getoption("--realtime-seeds"))


@pytest.fixture(scope="session")
def realtime_replay(pytestconfig: pytest.Config) -> str | None:
    """The schedule given by `--realtime-replay`, to be run instead of a sweep; or None."""
    replay: str | None = pytestconfig.getoption("--realtime-replay")
    return replay


@pytest.fixture
def virtual_loop() -> "VirtualRunner":
    """Runs coroutines in virtual time: `virtual_loop.run(main())`. Fails on tasks and errors left behind."""
    runner: VirtualRunner = import_module("realtime_fsm.testing.virtual_loop").VirtualRunner()
    return runner


@pytest.fixture
def memory_network(request: pytest.FixtureRequest) -> Any:
    """A network in memory for the real libraries, in virtual time; its seed is the parameter, or 0."""
    seed = getattr(request, "param", 0)
    source = random.Random(seed)  # noqa: S311 - a run must be repeatable
    return import_module("realtime_fsm.testing").MemoryNetwork(source)


@pytest.fixture
def realtime_backend_config() -> "BackendConfig":
    """The configuration of `realtime_backend`; override it for another one. Use port 0."""
    config: BackendConfig = import_module("realtime_fsm.testing.backend_thread").default_config()
    return config


@pytest.fixture
def realtime_backend(realtime_backend_config: "BackendConfig") -> Iterator["RealtimeBackend"]:
    """A real backend on 127.0.0.1, on a thread of its own: `.url`, `.token()`, `.on()`, `.publish()`."""
    with import_module("realtime_fsm.testing.backend_thread").RealtimeBackend(
        realtime_backend_config
    ) as backend:
        yield backend


@pytest.fixture
def fault_proxy(realtime_backend: "RealtimeBackend") -> Iterator["ThreadedProxy"]:
    """A `FaultProxy` before `realtime_backend`: connect to its `.url`, and call its methods as they are."""
    with realtime_backend.proxy() as proxy:
        yield proxy


def _count(text: str) -> int:
    """Read how many seeds there are: a sweep over none would find nothing."""
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)
