"""Packages of Node, installed outside of the repository and kept for the next run."""

import fcntl
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

_CACHE: Final = Path.home() / ".cache" / "realtime_fsm"
_TIMEOUT: Final = 90


def environment(package: str, version: str) -> dict[str, str]:
    """Return the environment in which Node finds a package; install it where that was not done yet.

    The test is skipped where that is impossible, but never in continuous integration.
    """
    folder = _CACHE / f"{package}-{version}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests that run beside this one want the same package
        problem = _installed(package, version, folder)
    if problem is not None:
        if os.environ.get("CI"):
            pytest.fail(problem)
        pytest.skip(problem)
    return {**os.environ, "NODE_PATH": str(folder / "node_modules")}


def _installed(package: str, version: str, folder: Path) -> str | None:
    """Install a package; return what is wrong, if something is."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return f"node and npm are needed to run {package}"
    manifest = folder / "node_modules" / package / "package.json"
    if manifest.exists() and json.loads(manifest.read_text())["version"] == version:
        return None
    command = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(folder), f"{package}@{version}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        return f"npm did not install {package}@{version} within {_TIMEOUT} s"
    return None if done.returncode == 0 else f"npm could not install {package}@{version}: {done.stderr}"
