"""Every guarantee has tests that exist, and the README shows them."""

import runpy
import subprocess
import sys
from pathlib import Path

from guarantees import GUARANTEES, Guarantee

ROOT = Path(__file__).parents[2]
SCRIPT = runpy.run_path(str(ROOT / ".ci" / "guarantees.py"))


def test_guarantees_are_held_and_the_readme_says_so() -> None:
    """No guarantee is without a test, no test is made up, and the README's table is fresh."""
    done = subprocess.run(
        [sys.executable, str(ROOT / ".ci" / "guarantees.py"), "--check"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(GUARANTEES) > 30


def test_guarantee_without_a_test_is_found(tmp_path: Path) -> None:
    """A guarantee without a test, with one that does not exist, or in a file without any, is named."""
    (tmp_path / "test_a.py").write_text("def test_x() -> None: ...\n")
    (tmp_path / "test_b.py").write_text("VALUE = 1\n")
    wrong = [
        Guarantee("A", "has none", ()),
        Guarantee("A", "is made up", ("test_a.py::test_y",)),
        Guarantee("A", "is empty", ("test_b.py::*",)),
        Guarantee("A", "is missing", ("test_c.py::*",)),
    ]
    right = [Guarantee("A", "holds", ("test_a.py::test_x", "test_a.py::*"))]
    found = list(SCRIPT["problems"](wrong, tmp_path))
    assert [problem.split()[0] for problem in found] == ["G1", "G2", "G3", "G4"]
    assert list(SCRIPT["problems"](right, tmp_path)) == []


def test_guarantee_that_is_new_makes_the_readme_stale() -> None:
    """The table changes with the guarantees, and stays between its marks."""
    readme = "before\n" + SCRIPT["table"](GUARANTEES) + "\nafter\n"
    assert SCRIPT["renewed"](readme, GUARANTEES) == readme
    more = SCRIPT["renewed"](readme, (*GUARANTEES, Guarantee("A", "one more", ("unit/test_a.py::*",))))
    assert more != readme
    assert more.startswith("before\n")
    assert more.endswith("\nafter\n")
