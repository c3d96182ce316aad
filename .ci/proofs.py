"""Writes the README's tables of guarantees and requirements, each with its tests; ``--check`` only compares.

A row without a test, or a test that does not exist, is an error either way.
"""

import ast
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]

sys.path.insert(0, str(ROOT / "tests"))
from guarantees import GUARANTEES  # noqa: E402 - it lies beside the tests
from requirements import REQUIREMENTS  # noqa: E402


class Row(NamedTuple):
    """A line of a table.

    Attributes:
        name: What it is called elsewhere: ``G1``, ``A1``.
        promise: In Markdown.
        tests: The tests that hold it, ``path::function`` below ``tests/``; ``*`` for all of a file.
    """

    name: str
    promise: str
    tests: tuple[str, ...]


class Table(NamedTuple):
    """A table of the README.

    Attributes:
        mark: Its place in the README: between ``<!-- mark:begin -->`` and ``<!-- mark:end -->``.
        title: What is seen of it while it is folded.
        column: The head of its second column.
        rows: Its lines.
    """

    mark: str
    title: str
    column: str
    rows: tuple[Row, ...]

    @property
    def begin(self) -> str:
        """The line before it."""
        return f"<!-- {self.mark}:begin -->"

    @property
    def end(self) -> str:
        """The line after it."""
        return f"<!-- {self.mark}:end -->"


TABLES = (
    Table(
        "guarantees",
        "All guarantees, each with the tests that hold it",
        "guarantee",
        tuple(
            Row(f"G{number}", f"**{one.subject}.** {one.promise}", one.tests)
            for number, one in enumerate(GUARANTEES, start=1)
        ),
    ),
    Table(
        "requirements",
        "All that was asked for, each with the tests that show it",
        "requirement",
        tuple(Row(one.row, one.demand, one.tests) for one in REQUIREMENTS),
    ),
)


@cache  # most rows name tests of a few files
def tests_of(path: Path) -> set[str]:
    """Return the names of the tests of a module."""
    if not path.is_file():
        return set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def problems(rows: Sequence[Row], tests: Path) -> Iterator[str]:
    """Yield what is wrong with the rows."""
    names = [row.name for row in rows]
    for row in rows:
        if names.count(row.name) > 1:
            yield f"{row.name} is there more than once"
        if not row.tests:
            yield f"{row.name} has no test: {row.promise}"
        for name in row.tests:
            path, _, function = name.partition("::")
            found = tests_of(tests / path)
            if not found or (function != "*" and function not in found):
                yield f"{row.name} names a test that does not exist: {name}"


def rendered(table: Table) -> str:
    """Return a table as Markdown, with its marks."""
    lines = [table.begin, f"<details><summary>{table.title}</summary>", ""]
    lines += [f"| | {table.column} | held by |", "|---|---|---|"]
    for name, promise, tests in table.rows:
        held = "<br/>".join(f"`{test.replace('::*', '')}`" for test in tests)
        lines.append(f"| {name} | {promise} | {held} |")
    return "\n".join([*lines, "", "</details>", table.end])


def renewed(readme: str, table: Table) -> str:
    """Return the README with a fresh table.

    Raises:
        ValueError: If the README has no place for it.
    """
    begin, end = readme.find(table.begin), readme.find(table.end)
    if not 0 <= begin < end:
        raise ValueError(f"the README must hold {table.begin} and {table.end}")
    return readme[:begin] + rendered(table) + readme[end + len(table.end) :]


def main(arguments: Sequence[str]) -> int:
    """Write or check the tables; return the exit code."""
    found = [problem for table in TABLES for problem in problems(table.rows, ROOT / "tests")]
    path = ROOT / "README.md"
    old = new = path.read_text(encoding="utf-8")
    for table in TABLES:
        new = renewed(new, table)
    if "--check" in arguments:
        if new != old:
            found.append("README.md is stale; renew it: python3 .ci/proofs.py")
    else:
        path.write_text(new, encoding="utf-8")
    for problem in found:
        sys.stderr.write(problem + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
