"""The plugin of pytest: what it costs, its options, and its fixtures, each in a pytest of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

LOADED = """
import sys
import pytest
before = set(sys.modules)  # who measures the tests may have loaded something
code = pytest.main(["-p", "realtime_fsm.testing.pytest_plugin", "--help"])
heavy = ("aiohttp", "socketio", "engineio", "hypothesis", "sqlite3", "transitions", "attr", "jwt")
print([name for name in sys.modules if name in heavy and name not in before])
print(sorted(name for name in sys.modules if name.split(".")[0] == "realtime_fsm"))
sys.exit(code)
"""


def run_pytest(folder: Path, text: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a file of tests in a pytest with no other plugin than this one."""
    (folder / "test_inner.py").write_text(text)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "realtime_fsm.testing.pytest_plugin",
        "-q",
        "-W",
        "error",
    ]
    command += ["--rootdir", str(folder), "-p", "no:cacheprovider", "-p", "no:realtime_fsm", *options]
    command += [str(folder / "test_inner.py")]
    environ = {**_environ(), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, cwd=folder, env=environ
    )


def _environ() -> dict[str, str]:
    """Return the environment, without what the outer pytest put there."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}


def outcome(done: subprocess.CompletedProcess[str]) -> str:
    """Return the last line of a run: how many tests passed and failed."""
    return done.stdout.strip().splitlines()[-1]


def test_plugin_brings_nothing_heavy(tmp_path: Path) -> None:
    """Loading the plugin imports no network library, and nothing of the library but the way to it."""
    environ = {**_environ(), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        [sys.executable, "-c", LOADED],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        env=environ,
        cwd=tmp_path,  # where no other conftest is
    )
    *_, heavy, own = done.stdout.strip().splitlines()
    assert heavy == "[]"
    assert own == "['realtime_fsm', 'realtime_fsm.testing', 'realtime_fsm.testing.pytest_plugin']"


def test_plugin_tells_of_itself(tmp_path: Path) -> None:
    """Options have a group and help, and every fixture says what it is."""
    told = run_pytest(tmp_path, "", "--help").stdout
    group = told[told.index("realtime_fsm:") :]
    assert "--realtime-seeds=N" in group
    assert "--realtime-replay=SCHEDULE" in group
    assert "(default: 100)" in " ".join(group.split())
    fixtures = run_pytest(tmp_path, "", "--fixtures").stdout
    for name in ("virtual_loop", "memory_network", "realtime_backend", "fault_proxy", "realtime_seeds"):
        line = next(line for line in fixtures.splitlines() if line.startswith(name))
        assert "no docstring" not in fixtures[fixtures.index(line) :].splitlines()[1]


SEEDS = """
def test_seeds(realtime_seeds, realtime_replay):
    print(f"{realtime_seeds!r} {realtime_replay!r}")
"""


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), "range(0, 100) None"),
        (("--realtime-seeds", "7"), "range(0, 7) None"),
        (("--realtime-replay", "0.5:reset 1:heal"), "range(0, 100) '0.5:reset 1:heal'"),
    ],
)
def test_options_reach_their_fixtures(tmp_path: Path, options: tuple[str, ...], told: str) -> None:
    """The number of seeds and the schedule are what the command line says; 100 and none without it."""
    done = run_pytest(tmp_path, SEEDS, "-s", *options)
    assert done.returncode == 0, done.stdout
    assert told in done.stdout


@pytest.mark.parametrize("count", ["0", "-1", "many", "1.5"])
def test_sweep_over_nothing_is_refused(tmp_path: Path, count: str) -> None:
    """A number of seeds that is none is an error of usage, and no test runs."""
    done = run_pytest(tmp_path, SEEDS, f"--realtime-seeds={count}")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert f"{count!r} is not a whole number of 1 or more" in done.stderr


VIRTUAL = """
import asyncio, time

def test_that_passes(virtual_loop):
    async def main():
        began = asyncio.get_running_loop().time()
        await asyncio.sleep(3600)
        return asyncio.get_running_loop().time() - began

    began = time.monotonic()
    assert virtual_loop.run(main()) == 3600
    assert time.monotonic() - began < 60

def test_that_leaks(virtual_loop):
    async def main():
        asyncio.create_task(asyncio.sleep(5), name="forgotten")

    virtual_loop.run(main())

def test_that_waits_for_ever(virtual_loop):
    async def main():
        await asyncio.Event().wait()

    virtual_loop.run(main())

def test_that_is_slow(virtual_loop):
    virtual_loop.run(asyncio.sleep(11), limit=10)
"""


def test_virtual_loop_runs_an_hour_at_once_and_finds_leaks(tmp_path: Path) -> None:
    """An hour passes at once; a task left behind, a deadlock and too long a run fail the test."""
    done = run_pytest(tmp_path, VIRTUAL)
    assert outcome(done).startswith("3 failed, 1 passed"), done.stdout
    for error in (
        "LeakError: left behind: forgotten",
        "Deadlock: Nothing is scheduled",
        "LimitError: It is not",
    ):
        assert error in done.stdout


BACKEND = """
import asyncio, threading, time
import pytest
from realtime_fsm import ConnectionStatus, Dialect, RealtimeConfig, RealtimeService
from realtime_fsm.server import WebSocketService

def client(url, backend, **options):
    config = RealtimeConfig(server_url=url, dialect=Dialect.REFERENCE, first_retry_within=0.05, **options)
    return RealtimeService(config, token=backend.token)

def test_plain(realtime_backend):
    assert isinstance(realtime_backend.server, WebSocketService)
    assert realtime_backend.url.startswith("http://127.0.0.1:")
    assert [one.name for one in threading.enumerate()][1:] == ["realtime_fsm backend"]

def test_client(realtime_backend):
    async def main():
        realtime_backend.on("add", lambda client, numbers: sum(numbers))
        got = asyncio.Event()
        async with client(realtime_backend.url, realtime_backend) as realtime:
            realtime.on("tick", lambda data: got.set())
            await realtime.wait_for(ConnectionStatus.CONNECTED, timeout=20)
            assert await realtime.call("add", [1, 2], timeout=20) == 3
            await realtime.subscribe(["news"])
            assert realtime_backend.call(realtime_backend.server.subscriber_count, "news") == 1
            realtime_backend.publish("news", "tick", {"n": 1})
            async with asyncio.timeout(20):
                await got.wait()

    asyncio.run(main())

def test_faults(realtime_backend, fault_proxy):
    async def main():
        changes = []
        async with client(fault_proxy.url, realtime_backend) as realtime:
            await realtime.wait_for(ConnectionStatus.CONNECTED, timeout=20)
            realtime.connection_status.subscribe(lambda change: changes.append(change.current))
            fault_proxy.reset_peer()
            await realtime.wait_for(ConnectionStatus.RECONNECTING, timeout=20)
            await realtime.wait_for(ConnectionStatus.CONNECTED, timeout=20)
        assert fault_proxy.counters.accepted >= 2
        assert fault_proxy.counters.reset >= 1
        fault_proxy.latency = 0.25
        assert fault_proxy.latency == 0.25
        with pytest.raises(AttributeError, match="latncy"):
            fault_proxy.latncy = 1

    asyncio.run(main())

@pytest.mark.xfail(strict=True, raises=LookupError)
def test_that_fails_in_the_middle(realtime_backend):
    async def main():
        async with client(realtime_backend.url, realtime_backend) as realtime:
            await realtime.wait_for(ConnectionStatus.CONNECTED, timeout=20)
            raise LookupError

    asyncio.run(main())

def test_nothing_is_left():
    assert threading.active_count() == 1
"""


def test_backend_and_proxy_serve_tests_of_any_kind(tmp_path: Path) -> None:
    """A real backend, with and without a proxy before it, serves plain tests, and leaves no thread behind."""
    done = run_pytest(tmp_path, BACKEND)
    assert outcome(done).startswith("4 passed, 1 xfailed"), done.stdout


CONFIGURED = """
import pytest
from realtime_fsm.server import BackendConfig

@pytest.fixture
def realtime_backend_config():
    return BackendConfig(port=0, secret="x" * 32, issuer="me", log_size=3)

def test_config(realtime_backend):
    assert realtime_backend.config.log_size == 3
    realtime_backend.publish("news", "tick")
"""


def test_backend_can_be_configured(tmp_path: Path) -> None:
    """A fixture of the user's own says how the backend is configured."""
    done = run_pytest(tmp_path, CONFIGURED)
    assert outcome(done).startswith("1 passed"), done.stdout


CONTRACT = """
from realtime_fsm.engine.outbox import MemoryOutbox
from realtime_fsm.testing import OutboxContract

class Broken(MemoryOutbox):
    async def dead_letters(self):
        return []

class TestBroken(OutboxContract):
    def make(self, folder, *, max_dead_letters=1000):
        return Broken(max_dead_letters=max_dead_letters)
"""


def test_contract_is_run_as_tests_and_explains_itself(tmp_path: Path) -> None:
    """A subclass's laws are collected, a broken one shows both values, and what cannot be kept is skipped."""
    done = run_pytest(tmp_path, CONTRACT)
    assert outcome(done).startswith("3 failed, 5 passed, 8 skipped"), done.stdout
    assert "assert [] == [3, 2, 5]" in done.stdout
