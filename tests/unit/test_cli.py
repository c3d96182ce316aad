"""The command line, as far as it needs no network."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from realtime_fsm.cli import main
from realtime_fsm.cli.arguments import EXIT_FAILED, EXIT_OK, EXIT_USAGE

COMMANDS = ["demo", "listen", "report", "diagram", "serve", "outbox"]
HEAVY = {"socketio", "engineio", "aiohttp"}


def modules_loaded_by(*arguments: str) -> set[str]:
    """Run a command in a fresh interpreter and return the top-level modules that it loaded."""
    program = (
        "import sys\nfrom realtime_fsm.cli import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit: pass\n"
        "sys.stderr.write(' '.join({name.partition('.')[0] for name in sys.modules}))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True, timeout=60
    )
    return set(run.stderr.split())


@pytest.mark.parametrize("arguments", [["--help"], ["diagram"], ["demo", "--help"], ["--version"]])
def test_cli_light_commands_load_no_network_library(arguments: list[str]) -> None:
    """Help, version and diagrams never pay for the import of the network libraries."""
    assert not HEAVY & modules_loaded_by(*arguments)


@pytest.mark.parametrize("command", COMMANDS)
def test_cli_help_has_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command's help ends in examples that name it."""
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == EXIT_OK
    examples = capsys.readouterr().out.partition("examples:")[2]
    assert f"realtime-fsm {command}" in examples


def test_cli_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    """``--version`` prints the version of the installed package."""
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == EXIT_OK
    assert capsys.readouterr().out == f"realtime-fsm {version('realtime-fsm')}\n"


@pytest.mark.parametrize("arguments", [[], ["fly"], ["listen"], ["diagram", "--format", "gif"]])
def test_cli_wrong_usage_exits_with_two(arguments: list[str]) -> None:
    """Wrong usage is told on stderr and exits with 2."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == EXIT_USAGE


def test_cli_diagram_check_tells_stale_from_fresh(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``--check`` exits with 1 for a missing or stale file and names the command that renews it."""
    output = tmp_path / "machine.mmd"
    check = ["diagram", "--output", str(output), "--check"]
    assert main(check) == EXIT_FAILED
    assert f"realtime-fsm diagram --format mermaid --output {output}" in capsys.readouterr().err
    assert main(["diagram", "--output", str(output)]) == EXIT_OK
    assert main(check) == EXIT_OK
    output.write_text(output.read_text() + "x")
    assert main(check) == EXIT_FAILED


def test_cli_diagram_check_needs_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    """``--check`` without a file is wrong usage, not a success."""
    assert main(["diagram", "--check"]) == EXIT_USAGE
    assert "--output" in capsys.readouterr().err


def test_cli_listen_refuses_a_raw_websocket_address(capsys: pytest.CaptureFixture[str]) -> None:
    """A ws:// address is refused in one line that names the address to use instead."""
    assert main(["listen", "ws://example.org/live"]) == EXIT_USAGE
    said = capsys.readouterr().err
    assert "http://example.org/live" in said
    assert "Traceback" not in said


def test_cli_listen_names_a_missing_token_variable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A token variable that is not set is named, before anything is dialled."""
    monkeypatch.delenv("NO_SUCH_TOKEN", raising=False)
    assert main(["listen", "http://127.0.0.1:9", "--token-env", "NO_SUCH_TOKEN"]) == EXIT_USAGE
    assert "NO_SUCH_TOKEN" in capsys.readouterr().err
