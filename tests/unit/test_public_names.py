"""What can be imported from the package itself, and what importing it costs."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import realtime_fsm
import realtime_fsm.export
import realtime_fsm.monitoring
import realtime_fsm.testing
import realtime_fsm.web

SURFACE = [
    realtime_fsm,
    realtime_fsm.export,
    realtime_fsm.monitoring,
    realtime_fsm.testing,
    realtime_fsm.web,
]
MOVED = {
    "realtime_fsm.adapters.health_application": ("realtime_fsm.web", ["health_application", "serve_health"]),
    "realtime_fsm.adapters.webhook": ("realtime_fsm.export", ["WebhookLimits", "WebhookSink"]),
    "realtime_fsm.export.prometheus": ("realtime_fsm.export", ["RealtimeCollector", "metrics_application"]),
    "realtime_fsm.monitoring.alerts": (
        "realtime_fsm.monitoring",
        ["DEFAULT_RULES", "Alert", "AlertRule", "Alerts", "CallbackSink", "LogSink", "Measure"],
    ),
    "realtime_fsm.monitoring.metrics_database": ("realtime_fsm.monitoring", ["MetricsDatabase"]),
}


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
    assert set(table) <= set(dir(package))


@pytest.mark.parametrize("package", SURFACE)
def test_public_names_are_what_their_modules_have(package: Any) -> None:
    """Each name can be had, is the same object every time, and another one is an ``AttributeError``."""
    for name, home in package._HOME.items():
        found = getattr(package, name)
        assert found is getattr(sys.modules[f"{package.__name__}.{home}"], name)
        assert found is getattr(package, name)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = package.nonsense


@pytest.mark.parametrize("old", MOVED)
def test_module_that_has_moved_is_the_new_one_with_a_warning(old: str) -> None:
    """A path that the README once named gives the same objects, and says what to write instead."""
    new, names = MOVED[old]
    module = importlib.import_module(old)
    for name in names:
        told = f"{old} has moved: write `from {new} import {name}`"
        with pytest.warns(DeprecationWarning, match=re.escape(told)) as warned:
            exec(f"from {old} import {name}", scope := {})  # noqa: S102 - it is what users write
        assert scope[name] is getattr(importlib.import_module(new), name)
        assert len(warned) == 1
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = module.nonsense


def test_module_that_has_moved_is_complained_of_where_it_is_used(tmp_path: Path) -> None:
    """The warning names the line of the user's program."""
    program = tmp_path / "old.py"
    program.write_text("\nfrom realtime_fsm.monitoring.alerts import Alerts\n")
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=30, check=True)
    assert done.stderr.startswith(
        f"{program}:2: DeprecationWarning: realtime_fsm.monitoring.alerts has moved"
    )


def test_module_that_is_not_there_stays_unknown() -> None:
    """A path that never was is a ``ModuleNotFoundError``, as ever."""
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("realtime_fsm.adapters.nonsense")


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
