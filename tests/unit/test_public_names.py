"""What can be imported from the package itself, and what importing it costs."""

import ast
import inspect
import subprocess
import sys

import pytest

import realtime_fsm
import realtime_fsm.testing

SURFACE = [realtime_fsm, realtime_fsm.testing]


@pytest.mark.parametrize("package", SURFACE)
def test_public_names_lead_to_what_the_types_say(package: object) -> None:
    """The table, the list of names and the imports for type checkers agree."""
    imported = {
        alias.name: node.module
        for node in ast.walk(ast.parse(inspect.getsource(package)))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("realtime_fsm.")
        for alias in node.names
    }
    table = {name: f"{package.__name__}.{home}" for name, home in package._HOME.items()}
    assert imported == table
    assert sorted(package.__all__) == sorted(table)
    assert set(table) <= set(dir(package)) or package is realtime_fsm.testing


def test_public_names_are_what_their_modules_have() -> None:
    """Each name can be had, is the same object every time, and another one is an ``AttributeError``."""
    for name, home in realtime_fsm._HOME.items():
        found = getattr(realtime_fsm, name)
        assert found is getattr(sys.modules[f"realtime_fsm.{home}"], name)
        assert found is getattr(realtime_fsm, name)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = realtime_fsm.nonsense


def test_importing_the_package_imports_nothing_of_it() -> None:
    """A program that imports the package pays for what it asks for, and only then."""
    program = (
        "import sys, realtime_fsm as r; "
        "own = lambda: sum(n.startswith('realtime_fsm.') for n in sys.modules); "
        "print(own(), 'asyncio' in sys.modules); r.RealtimeService; print(own() > 20)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.split() == ["0", "False", "True"]


def test_star_import_brings_every_public_name() -> None:
    """``from realtime_fsm import *`` gives all of it."""
    scope: dict[str, object] = {}
    exec("from realtime_fsm import *", scope)  # noqa: S102 - it is what is tested
    assert set(realtime_fsm.__all__) <= set(scope)
