"""The README keeps what it promises: its snippets run, its commands are the ones that CI runs."""

import json
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from realtime_fsm import RealtimeService
from realtime_fsm.cli import main
from realtime_fsm.cli.arguments import EXIT_UNREACHABLE
from realtime_fsm.machine.config import OLD_NAMES, PREFIX, RealtimeConfig

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def shown(default: object) -> str:
    """Return a default as the README writes it."""
    if default == ():
        return "none"
    return f"{default:g}" if isinstance(default, float) else str(default).lower()


def complaints(stderr: str) -> str:
    """Return what a program said on stderr, but for asyncio's remarks on how slow the machine is."""
    return "".join(line for line in stderr.splitlines(True) if not line.startswith("Executing <"))


def test_readme_example_runs_and_prints_what_it_says() -> None:
    """The example runs as it stands, in a fresh interpreter, and leaves nothing on stderr."""
    run = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", PYTHON[0]],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (run.returncode, complaints(run.stderr)) == (0, "")
    assert run.stdout == "{'apple': 1.25} 6\n"


def test_readme_exactly_once_example_runs_and_prints_what_it_says() -> None:
    """The example of a durable, exactly-once message runs as it stands, and leaves nothing on stderr."""
    run = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", PYTHON[2]],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (run.stdout, complaints(run.stderr), run.returncode) == ("booked\n", "", 0)


def snippet(marker: str) -> str:
    """Return the snippet of the README that holds something."""
    (found,) = [text for text in PYTHON if marker in text]
    return found


DOOR = """# Every state, every trigger

A cell names the state that is entered, with the guard that must hold; branches are tried
from top to bottom.

| trigger | open | closed (now) | locked |
| --- | --- | --- | --- |
| `shut` | closed |  |  |
| `pull` |  | open |  |
| `lock` |  | locked |  |

## What a state means

| state | runs while it lasts |
| --- | --- |
| open | nothing |
| closed (now) | nothing |
| locked | nothing |

"""


@pytest.mark.parametrize(
    ("marker", "printed"),
    [
        ("print(explore(", re.findall(r"^```text\n(.*?)^```", README, re.MULTILINE | re.DOTALL)[0]),
        ("server.is_black_hole", "noticed after 35 s of virtual time\n"),
        ("FullStackEnvironment", ""),
        ('subscribe_event="join"', "login join note\n"),
        ("serve_status_page", "connected\n"),
        ("LegacyWebSocket(", "open\nCLOSED\n"),
        ("sio = socketio.AsyncClient()", "connected\n{'sum': 3}\n"),
        ("CollectorRegistry()", "1\n"),
        ("door = Machine(", DOOR),
        (
            "DEFAULT_RULES",
            """fired failure_rate
fired time_to_recover
active: failure_rate time_to_recover
resolved time_to_recover
""",
        ),
    ],
)
def test_readme_snippets_in_virtual_time_run_and_print_what_they_say(marker: str, printed: str) -> None:
    """The snippets on alerts and testing run as they stand, in a fresh interpreter; stderr stays empty."""
    run = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", snippet(marker)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (run.stdout, complaints(run.stderr), run.returncode) == (printed, "", 0)


@pytest.mark.parametrize(
    ("marker", "printed"),
    [
        ("serve_health(realtime)", "200 True ok\n503 False unavailable\n"),
        ("await examine(Target(", "name unreachable\n"),
    ],
)
def test_readme_health_and_doctor_run_and_print_what_they_say(marker: str, printed: str) -> None:
    """The snippets on health and on the doctor run as they stand, and leave nothing on stderr."""
    run = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", snippet(marker)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (run.stdout, complaints(run.stderr), run.returncode) == (printed, "", 0)


def test_readme_lines_of_the_doctor_are_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the README shows of the doctor is what it says of a server without TLS that is asked for it."""
    lines = README.partition("$ realtime-fsm doctor https://localhost:3001\n")[2].partition("```")[0]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        place = f"localhost:{listener.getsockname()[1]}"
        known = socket.getaddrinfo("127.0.0.1", listener.getsockname()[1], type=socket.SOCK_STREAM)
        monkeypatch.setattr("realtime_fsm.doctor.network.socket.getaddrinfo", lambda *_, **__: known)
        answering = threading.Thread(target=answer_without_tls, args=(listener,))
        answering.start()
        try:
            assert main(["doctor", f"https://{place}", "--timeout", "10"]) == EXIT_UNREACHABLE
        finally:
            listener.close()
            answering.join(10)
    said = capsys.readouterr().out.replace(place, "localhost:3001")
    assert re.sub(r"\(\d+ ms\)", "(0 ms)", said) == lines


def answer_without_tls(listener: socket.socket) -> None:
    """Answer in HTTP to whoever connects, twice: once the doctor looks at TCP, once at TLS."""
    for _ in range(2):
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")


def test_readme_report_snippet_writes_what_can_be_reported_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The snippet on reports runs as it stands, and the report on its file has the attempt that it made."""
    run = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", snippet("MetricsDatabase(")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
    )
    assert (run.stdout, complaints(run.stderr), run.returncode) == ("", "", 0)
    monkeypatch.chdir(tmp_path)
    assert main(["report", "metrics.db", "--since", "1h", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["implementations"]
    assert (found["implementation"], found["versions"]) == ("new", ["2.1"])
    assert (found["attempts"]["count"], found["attempts"]["failures"]) == (1, 0)
    assert found["availability"]["live_seconds"] > 0


FEWER_EXAMPLES = """
from hypothesis import settings
settings.register_profile("fewer", max_examples=15, stateful_step_count=15, deadline=None)
settings.load_profile("fewer")
"""


@pytest.mark.parametrize("marker", ["class TickerRules", "class PauseRules"])
def test_readme_rules_run_under_pytest(marker: str, tmp_path: Path) -> None:
    """The state machines of the README are tests that pass."""
    path = tmp_path / "test_rules.py"
    path.write_text(snippet(marker), encoding="utf-8")
    path.with_name("conftest.py").write_text(FEWER_EXAMPLES, encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(path)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=tmp_path,
    )
    assert "1 passed" in run.stdout, run.stdout + run.stderr


def test_readme_second_snippet_is_valid_and_uses_what_exists() -> None:
    """The tour of the surface compiles, and every method that it calls exists."""
    compile(PYTHON[1], "README", "exec")
    for name in re.findall(r"realtime\.(\w+)\(", PYTHON[1]):
        assert hasattr(RealtimeService, name), name


def test_readme_quick_start_holds_exactly_two_commands() -> None:
    """The Quick start holds two commands: the first ends with the demo, the second with the tests."""
    script = str(ROOT / ".ci" / "quick_start.py")
    first, second = (
        subprocess.run(
            [sys.executable, script, number], capture_output=True, text=True, check=True, timeout=30
        ).stdout.strip()
        for number in "12"
    )
    assert first.endswith("realtime-fsm demo")
    assert re.search(r"\.venv/bin/pytest [-\w ]*$", second)


@pytest.mark.parametrize("line", re.findall(r"^\$ (realtime-fsm .*)$", README, re.MULTILINE))
def test_readme_commands_and_options_exist(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command of the README exists, and its help knows every option that the README shows."""
    words = re.sub(r"#.*", "", line).split()
    with pytest.raises(SystemExit):
        main([words[1], "--help"])
    said = capsys.readouterr().out
    for option in re.findall(r"--[a-z-]+", line):
        assert option in said


def test_readme_configuration_table_agrees_with_the_code() -> None:
    """Defaults and environment names in the README are the ones of the code."""
    rows = re.findall(r"^\| `(\w+)` \| (\S+) \| `(\w+)` \| (?:`(\w+)` )?\|$", README, re.MULTILINE)
    assert len(rows) >= 9
    config = RealtimeConfig()
    for name, default, variable, old in rows:
        assert variable == PREFIX + name.upper()
        value = getattr(config, name)
        shown = default.strip("`")
        assert shown == (
            "none" if value == () else f"{value:g}" if isinstance(value, float) else str(value).lower()
        )
        assert not old or OLD_NAMES[old][0] == name
