"""The rules of the layout hold for the package, and each of them finds what breaks it."""

import runpy
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = runpy.run_path(str(ROOT / ".ci" / "rules.py"))
LINES = "\n" * 200
"""What makes a file long enough, and a package of few files long enough."""


def layout(folder: Path, **modules: str) -> Any:
    """Return the layout of a package ``p``; ``here`` is an ``__init__``, and ``__`` a dot."""
    for name, text in {"here": "", **modules}.items():
        path = folder / "p" / (name.replace("__", "/").replace("here", "__init__") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text) + LINES)
    return SCRIPT["Layout"](folder, "p")


def problems(found: Any, **tables: Any) -> list[str]:
    """Return what breaks a rule, by default without any excuse."""
    return list(SCRIPT["problems"](found, **{"small": {}, "private": {}, "others": {}, **tables}))


def test_package_obeys_its_rules() -> None:
    """Nothing breaks a rule, and no excuse is stale."""
    done = subprocess.run(
        [sys.executable, str(ROOT / ".ci" / "rules.py")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_package_without_fault_has_no_problem(tmp_path: Path) -> None:
    """Imports that go one way, and files that two others use, break nothing."""
    found = layout(tmp_path, a="import p.c", b="from p import c", c="", d="from p import a, b")
    assert problems(found, private={"p.a": "so it is", "p.b": "so it is"}) == []


@pytest.mark.parametrize(
    "back",
    [
        "from p.a import x",
        "import p.a",
        "from p import a",
        "from .a import x",
        "from . import a",
        "def f():\n    from p.a import x",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p.a import x",
    ],
)
def test_circle_is_found_whatever_the_import(tmp_path: Path, back: str) -> None:
    """An import back is a circle at the top, in a function, for types alone, in full or relative."""
    found = layout(tmp_path, a="from p.b import y", b=back)
    assert list(SCRIPT["circles"](found)) == ["a circle of imports: p.a, p.b"]


def test_circle_by_way_of_a_folder_is_found(tmp_path: Path) -> None:
    """A module that imports its own folder, which imports it, is a circle."""
    found = layout(tmp_path, f__here="from p.f.a import x", f__a="from p.f import x")
    assert list(SCRIPT["circles"](found)) == ["a circle of imports: p.f, p.f.a"]
    relative = layout(tmp_path, f__here="from .a import x", f__a="from . import x")
    assert list(SCRIPT["circles"](relative)) == ["a circle of imports: p.f, p.f.a"]


def test_circles_that_do_not_touch_are_all_found(tmp_path: Path) -> None:
    """Two circles are two problems."""
    found = layout(tmp_path, a="import p.b", b="import p.c", c="import p.a", d="import p.e", e="import p.d")
    assert list(SCRIPT["circles"](found)) == [
        "a circle of imports: p.a, p.b, p.c",
        "a circle of imports: p.d, p.e",
    ]


def test_file_that_one_neighbour_uses_needs_a_reason(tmp_path: Path) -> None:
    """A file whose only importer lies beside it is a part of that one, unless a reason is given."""
    found = layout(tmp_path, a="from p.b import x", b="")
    (problem,) = problems(found)
    assert problem.startswith("p.b is imported by one neighbour alone (imported by p.a)")
    assert problems(found, private={"p.b": "it is a table"}) == []
    assert problems(found, private={"p.b": " "}) == ["p.b stands in PRIVATE without a reason"]


def test_file_that_others_use_needs_no_reason(tmp_path: Path) -> None:
    """A folder that offers a file, another folder, or a second importer makes it nobody's part."""
    assert problems(layout(tmp_path / "1", f__here="from p.f.a import x", f__a="")) == []
    assert problems(layout(tmp_path / "2", f__here="", f__a="", g="from p.f.a import x")) == []
    assert problems(layout(tmp_path / "3", a="import p.c", b="import p.c", c="")) == []


def test_small_file_needs_a_reason(tmp_path: Path) -> None:
    """A file of fewer than 60 lines says why it is one; an ``__init__`` and a ``__main__`` need not."""
    found = layout(tmp_path, a="")
    for name in ("a", "__init__", "__main__"):
        (tmp_path / "p" / f"{name}.py").write_text("\n" * 59)
    (tmp_path / "p" / "long.py").write_text("\n" * 60_000)
    found = SCRIPT["Layout"](tmp_path, "p")
    (problem,) = problems(found)
    assert problem.startswith("p.a has fewer than 60 lines (imported by nobody)")
    assert problems(found, small={"p.a": "a port"}) == []


def test_reason_that_is_stale_is_a_problem(tmp_path: Path) -> None:
    """An entry for a file that is gone, or that needs none, is to be taken out."""
    found = layout(tmp_path, a="")
    assert problems(found, small={"p.a": "was small"}) == ["p.a needs no reason in SMALL any more"]
    assert problems(found, private={"p.b": "is gone"}) == ["p.b needs no reason in PRIVATE any more"]


def test_private_files_are_counted(tmp_path: Path) -> None:
    """With a reason each, 25 files may be private to a neighbour, and not one more."""
    for count, expected in (
        (25, []),
        (26, ["26 files are private to a neighbour; there may be 25"]),
    ):
        names = [f"m{number}" for number in range(count)]
        all_of_them = "\n".join(f"import p.{name}" for name in names)
        found = layout(tmp_path / str(count), a=all_of_them, **dict.fromkeys(names, ""))
        assert problems(found, private={f"p.{name}": "so it is" for name in names}) == expected


def test_shreds_are_counted(tmp_path: Path) -> None:
    """There are no more than 5 files for 1,000 lines."""
    layout(tmp_path, a="", b="", c="", d="")
    for path in (tmp_path / "p").iterdir():
        path.write_text("\n" * 200)
    assert list(SCRIPT["density"](SCRIPT["Layout"](tmp_path, "p"))) == []
    (tmp_path / "p" / "a.py").write_text("\n" * 199)
    assert list(SCRIPT["density"](SCRIPT["Layout"](tmp_path, "p"))) == [
        "5 files for 999 lines are more than 5 for 1,000"
    ]


def test_public_class_that_is_there_twice_is_found(tmp_path: Path) -> None:
    """Two public classes bear one name nowhere in the package; private and inner ones may."""
    found = layout(
        tmp_path,
        a="class Row: ...\nclass _Own: ...",
        b="class Row: ...\nclass _Own: ...",
        c="class Outer:\n    class Row: ...",
    )
    assert problems(found) == ["the class Row is there 2 times: in p.a, p.b"]


@pytest.mark.parametrize(
    "line",
    [
        "status is ConnectionStatus.FAILED",
        "ConnectionStatus.FAILED == change.current",
        "status not in {ConnectionStatus.FAILED, ConnectionStatus.FALLBACK}",
        "status in frozenset((ConnectionStatus.FAILED,))",
        "status is S.FAILED",
        "status is T.FAILED",
        "status is table.ConnectionStatus.FAILED",
        "status.value != ConnectionStatus.FAILED.value",
        "status is ConnectionStatus('failed')",
        "status is ConnectionStatus['FAILED']",
        "status == 'connected'",
        "status.name == 'CONNECTED'",
        "status in ('connecting', 'connected')",
        "status in DEAD",
        "status in self.dead",
        "status is END",
    ],
)
def test_status_that_is_compared_is_found(tmp_path: Path, line: str) -> None:
    """A status is compared by no way of writing it: by alias, in a collection, by a constant, by its text."""
    text = f"""
    from realtime_fsm import ConnectionStatus
    from realtime_fsm import ConnectionStatus as S
    from realtime_fsm.machine import table

    T = ConnectionStatus
    DEAD = (T.FAILED, T.DISCONNECTED)
    END: object = S.FAILED

    class Asking:
        dead = frozenset({{S.FAILED}})

        def ask(self, status, change):
            return {line}
    """
    (problem,) = problems(layout(tmp_path, a=text))
    assert problem.startswith("p.a:14 compares a status: ")


def test_status_that_is_matched_is_found(tmp_path: Path) -> None:
    """A case of a ``match`` compares as well."""
    text = """
    from realtime_fsm import ConnectionStatus

    match status:
        case ConnectionStatus.FAILED | ConnectionStatus.FALLBACK:
            pass
        case "connected":
            pass
    """
    assert [problem.partition(" ")[0] for problem in problems(layout(tmp_path, a=text))] == [
        "p.a:5",
        "p.a:5",
        "p.a:7",
    ]


def test_status_that_is_not_compared_is_no_problem(tmp_path: Path) -> None:
    """To name a state, to look something up by it, and to compare what is none, is nobody's secret."""
    text = """
    from realtime_fsm import ConnectionStatus

    SIGNS = {ConnectionStatus.FAILED: "x"}

    class Watcher:
        status: ConnectionStatus = ConnectionStatus.DISCONNECTED

        def ask(self, status, trigger):
            wait_for(ConnectionStatus.CONNECTED)
            return TRAITS[status].sends and SIGNS[status] == "x" and status is not self.status
    """
    assert problems(layout(tmp_path, a=text)) == []


def test_comparison_that_only_looks_like_one_needs_a_reason(tmp_path: Path) -> None:
    """The same words of another library are excused by name, and no longer than they are there."""
    found = layout(tmp_path, a="ok = engine.state == 'connected'")
    excuse = {("p.a", "engine.state == 'connected'"): "python-engineio's own word"}
    assert len(problems(found)) == 1
    assert problems(found, others=excuse) == []
    stale = {**excuse, ("p.a", "other == 'failed'"): "gone"}
    assert problems(found, others=stale) == [
        "p.a compares nothing by \"other == 'failed'\" any more: take it out of OTHER_STATES"
    ]


def test_machine_may_compare(tmp_path: Path) -> None:
    """The machine knows its states."""
    folder = tmp_path / "realtime_fsm" / "machine"
    folder.mkdir(parents=True)
    for path in (folder.parent / "__init__.py", folder / "__init__.py", folder / "guard.py"):
        path.write_text("may = status is ConnectionStatus.FAILED\n")
    found = list(SCRIPT["comparisons"](SCRIPT["Layout"](tmp_path), {}))
    assert [problem.partition(" ")[0] for problem in found] == ["realtime_fsm:1"]
