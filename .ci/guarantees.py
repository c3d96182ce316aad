"""Writes the README's table of guarantees and the tests that hold them; ``--check`` only compares.

A guarantee without a test, or a test that does not exist, is an error either way.
"""

import ast
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- guarantees:begin -->", "<!-- guarantees:end -->"

sys.path.insert(0, str(ROOT / "tests"))
from guarantees import GUARANTEES, Guarantee  # noqa: E402 - it lies beside the tests


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


def problems(guarantees: Sequence[Guarantee], tests: Path) -> Iterator[str]:
    """Yield what is wrong with the guarantees."""
    for number, guarantee in enumerate(guarantees, start=1):
        if not guarantee.tests:
            yield f"G{number} has no test: {guarantee.promise}"
        for name in guarantee.tests:
            path, _, function = name.partition("::")
            found = tests_of(tests / path)
            if not found or (function != "*" and function not in found):
                yield f"G{number} names a test that does not exist: {name}"


def table(guarantees: Sequence[Guarantee]) -> str:
    """Return the table as Markdown."""
    lines = [BEGIN, "<details><summary>All guarantees, each with the tests that hold it</summary>", ""]
    lines += ["| | guarantee | held by |", "|---|---|---|"]
    for number, (subject, promise, tests) in enumerate(guarantees, start=1):
        held = "<br/>".join(f"`{name.replace('::*', '')}`" for name in tests)
        lines.append(f"| G{number} | **{subject}.** {promise} | {held} |")
    return "\n".join([*lines, "", "</details>", END])


def renewed(readme: str, guarantees: Sequence[Guarantee]) -> str:
    """Return the README with a fresh table.

    Raises:
        ValueError: If the README has no place for it.
    """
    begin, end = readme.find(BEGIN), readme.find(END)
    if not 0 <= begin < end:
        raise ValueError(f"the README must hold {BEGIN} and {END}")
    return readme[:begin] + table(guarantees) + readme[end + len(END) :]


def main(arguments: Sequence[str]) -> int:
    """Write or check the table; return the exit code."""
    found = list(problems(GUARANTEES, ROOT / "tests"))
    path = ROOT / "README.md"
    old = path.read_text(encoding="utf-8")
    new = renewed(old, GUARANTEES)
    if "--check" in arguments:
        if new != old:
            found.append("README.md is stale; renew it: python3 .ci/guarantees.py")
    else:
        path.write_text(new, encoding="utf-8")
    for problem in found:
        sys.stderr.write(problem + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
