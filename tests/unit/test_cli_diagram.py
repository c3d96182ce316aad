"""``realtime-fsm diagram``, as a user types it."""

import io
import json
import os
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from realtime_fsm.cli import main
from realtime_fsm.cli.arguments import EXIT_FAILED, EXIT_OK, EXIT_USAGE
from realtime_fsm.diagram import FORMATS, render, shipped_svg

drawn = pytest.mark.skipif(
    "CI" not in os.environ and any(find_spec(name) is None for name in ("resvg_py", "fontpkg")),
    reason="the extra [render] is not installed",
)
LOST = {
    "kind": "status",
    "at": 1700000000.5,
    "previous": "connected",
    "current": "reconnecting",
    "trigger": "connection_lost",
    "reason": "the peer fell silent",
}


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "png"])
def test_diagram_command_prints_every_format(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is printed is what the library renders, whole."""
    assert main(["diagram", "--format", name]) == EXIT_OK
    assert capsys.readouterr().out == render(format=name)


@drawn
def test_diagram_command_prints_png_into_a_pipe(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """A PNG goes into a pipe as it is."""
    assert main(["diagram", "--format", "png", "--theme", "dark"]) == EXIT_OK
    assert capfdbinary.readouterr().out == render(format="png", theme="dark")


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


def test_diagram_command_prints_no_png_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A terminal is spared a PNG, and the option that helps is named."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    assert main(["diagram", "--format", "png"]) == EXIT_USAGE
    assert terminal.getvalue() == ""
    assert "--output" in capsys.readouterr().err


@pytest.mark.parametrize("direction", ["LR", "TB"])
def test_diagram_command_marks_a_state(direction: str, capsys: pytest.CaptureFixture[str]) -> None:
    """``--highlight`` and ``--direction`` give the shipped picture with that state marked."""
    assert (
        main(["diagram", "--format", "svg", "--direction", direction, "--highlight", "fallback"]) == EXIT_OK
    )
    assert capsys.readouterr().out == shipped_svg(direction, highlight="fallback")


def test_diagram_command_takes_a_state_as_it_is_written_in_the_picture(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Pictures write states in capitals; who copies one from there is understood."""
    assert main(["diagram", "--format", "svg", "--highlight", "FALLBACK"]) == EXIT_OK
    assert capsys.readouterr().out == shipped_svg(highlight="fallback")


@pytest.mark.parametrize(
    ("content", "why"),
    [(None, "No such file or directory"), (b"\xff\xfe", "it is no text"), (b"no\n", "Line 1")],
)
def test_diagram_command_refuses_a_file_that_is_no_history(
    content: bytes | None, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that is not there, no text, or no history is one line that says so, without Python's words."""
    path = tmp_path / "changes.jsonl"
    if content is not None:
        path.write_bytes(content)
    assert main(["diagram", "--history", str(path)]) == EXIT_USAGE
    said = capsys.readouterr()
    assert said.out == ""
    assert why in said.err
    assert "Errno" not in said.err
    assert said.err.count("\n") == 1


def test_diagram_command_draws_a_history(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``--history`` draws what `listen --json` printed."""
    path = tmp_path / "changes.jsonl"
    path.write_text(json.dumps(LOST) + "\n", encoding="utf-8")
    assert main(["diagram", "--format", "svg", "--history", str(path)]) == EXIT_OK
    assert capsys.readouterr().out == render(format="svg", history=path)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--highlight", "asleep"], "disconnected"),
        (["--history", "/nowhere/changes.jsonl"], "/nowhere/changes.jsonl"),
        (["--format", "mermaid", "--theme", "dark"], "--theme"),
        (["--check"], "--output"),
    ],
)
def test_diagram_command_names_what_is_wrong(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wrong usage is one line on stderr that names what helps, nothing on stdout, and exit code 2."""
    assert main(["diagram", *arguments]) == EXIT_USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert named in err
    assert err.count("\n") == 1


def test_diagram_command_that_cannot_write_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that cannot be written is named, in one line, and the command fails."""
    path = tmp_path / "none" / "machine.svg"
    assert main(["diagram", "--format", "svg", "--output", str(path)]) == EXIT_FAILED
    err = capsys.readouterr().err
    assert str(path) in err
    assert err.count("\n") == 1


def test_diagram_command_tells_a_stale_file_and_how_to_renew_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command that a failed check names, typed as it stands, makes the check succeed."""
    path = tmp_path / "my machine.svg"
    asked = ["--format", "svg", "--direction", "TB", "--highlight", "failed", "--theme", "dark"]
    check = ["diagram", *asked, "--output", str(path), "--check"]
    assert main(check) == EXIT_FAILED
    _, _, command = capsys.readouterr().err.strip().partition("renew it: realtime-fsm ")
    assert main(shlex.split(command)) == EXIT_OK
    assert main(check) == EXIT_OK
    path.write_text(path.read_text(encoding="utf-8") + " ", encoding="utf-8")
    assert main(check) == EXIT_FAILED


def test_diagram_command_offers_the_formats_of_the_library(capsys: pytest.CaptureFixture[str]) -> None:
    """The help names every format that there is, and no other is taken."""
    with pytest.raises(SystemExit):
        main(["diagram", "--help"])
    assert "{" + ",".join(FORMATS) + "}" in capsys.readouterr().out


def test_diagram_command_without_the_extra_says_how_to_get_it() -> None:
    """A PNG without the extra is one line on stderr, and exit code 2; SVG needs none."""
    code = (
        "import sys; sys.modules['resvg_py'] = None; from realtime_fsm.cli import main; "
        "sys.exit(main(['diagram', '--format', sys.argv[1]]))"
    )
    runs = {
        name: subprocess.run(
            [sys.executable, "-c", code, name], capture_output=True, text=True, check=False, timeout=60
        )
        for name in ("png", "svg")
    }
    assert runs["svg"].returncode == EXIT_OK
    assert runs["png"].returncode == EXIT_USAGE
    assert runs["png"].stdout == ""
    assert "pip install 'realtime-fsm[render]'" in runs["png"].stderr
    assert runs["png"].stderr.count("\n") == 1
