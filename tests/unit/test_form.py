"""The form of the project: what it needs, and what lies at its top level."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_core_needs_four_libraries_and_extras_the_rest() -> None:
    """The core installs python-socketio and its engine, transitions, aiohttp and attrs: nothing else."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needs = {re.split(r"[\[<>=!~;]", need)[0].strip(): need for need in project["dependencies"]}
    assert set(needs) == {"python-socketio", "python-engineio", "transitions", "aiohttp", "attrs"}
    assert all(">=" in need for need in needs.values())
    assert "<0.10" in needs["transitions"]
    assert {"hypothesis", "pytest"} <= {
        re.split(r"[\[<>=]", need)[0] for need in project["optional-dependencies"]["testing"]
    }


def test_top_level_holds_only_what_was_asked_for() -> None:
    """Beside the five asked for there are a license, a lock file, and files that begin with a dot."""
    listed = subprocess.run(
        [shutil.which("git") or "git", "-C", str(ROOT), "ls-files"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if listed.returncode == 0:
        names = {line.split("/")[0] for line in listed.stdout.splitlines()}
    else:  # an archive of the sources, without their history
        names = {path.name for path in ROOT.iterdir()}
    seen = {name for name in names if not name.startswith(".")}
    asked = {"pyproject.toml", "realtime_fsm", "tests", "diagrams", "README.md"}
    assert asked <= seen <= asked | {"LICENSE", "requirements.lock"}
