"""Every guarantee and every requirement has tests that exist, and the README shows them."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = runpy.run_path(str(ROOT / ".ci" / "proofs.py"))
TABLES = SCRIPT["TABLES"]
Row = SCRIPT["Row"]


def test_proofs_hold_and_the_readme_says_so() -> None:
    """Nothing promised or asked for lacks a test, no test is made up, and the README's tables are fresh."""
    done = subprocess.run(
        [sys.executable, str(ROOT / ".ci" / "proofs.py"), "--check"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_proofs_cover_every_requirement() -> None:
    """Every row that was asked for, A to I, is in the table, once and in order."""
    counts = {"A": 5, "B": 4, "C": 4, "D": 4, "E": 1, "F": 1, "G": 3, "H": 4, "I": 5}
    asked = [f"{letter}{number}" for letter, count in counts.items() for number in range(1, count + 1)]
    by_mark = {table.mark: table for table in TABLES}
    assert [row.name for row in by_mark["requirements"].rows] == asked
    assert len(by_mark["guarantees"].rows) > 30


def test_proof_that_is_none_is_found(tmp_path: Path) -> None:
    """A row is named that has no test, one that does not exist, a file without any, or a double."""
    (tmp_path / "test_a.py").write_text("def test_x() -> None: ...\n")
    (tmp_path / "test_b.py").write_text("VALUE = 1\n")
    right = [Row("A1", "holds", ("test_a.py::test_x", "test_a.py::*"))]
    wrong = [
        Row("A2", "has none", ()),
        Row("A3", "is made up", ("test_a.py::test_y",)),
        Row("A4", "is empty", ("test_b.py::*",)),
        Row("A5", "is missing", ("test_c.py::*",)),
        *right * 2,
    ]
    found = list(SCRIPT["problems"](wrong, tmp_path))
    assert [problem.split()[0] for problem in found] == ["A2", "A3", "A4", "A5", "A1", "A1"]
    assert list(SCRIPT["problems"](right, tmp_path)) == []


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.mark)
def test_row_that_is_new_makes_the_readme_stale(table: object) -> None:
    """A table changes with its rows, and stays between its marks."""
    readme = "before\n" + SCRIPT["rendered"](table) + "\nafter\n"
    assert SCRIPT["renewed"](readme, table) == readme
    longer = table._replace(rows=(*table.rows, Row("Z1", "one more", ("unit/test_a.py::*",))))  # type: ignore[attr-defined]
    more = SCRIPT["renewed"](readme, longer)
    assert more != readme
    assert more.startswith("before\n")
    assert more.endswith("\nafter\n")
