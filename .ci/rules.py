"""Checks the rules of the layout that import-linter does not know; prints what breaks one, and exits 1.

- **Circles.** No module leads back to itself: imports in functions and for types alone count, and so does the
  ``__init__`` of a folder, which the contract of import-linter on circles between siblings does not see.
- **Small and private files.** A file of fewer than 60 lines, or one that a single neighbour in its folder
  imports, is a part of that neighbour, unless it stands in one of the tables below with its reason.
- **Names.** A public class is called like no other one in the package.
- **States.** What a state means is a trait: nobody but the machine asks which state it is.
"""

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[1]
PACKAGE: Final = "realtime_fsm"
MACHINE: Final = "realtime_fsm.machine"

SMALLEST: Final = 60
"""Lines below which a file has to say why it is one."""

MOST_PRIVATE: Final = 25
MOST_PER_THOUSAND: Final = 5
"""Files for 1,000 lines."""

STATES: Final = frozenset({"disconnected", "connecting", "connected", "reconnecting", "failed", "fallback"})

SMALL: Final[Mapping[str, str]] = {
    "realtime_fsm.adapters.library_check": "refuses faulty versions of libraries; client and doctor ask it",
    "realtime_fsm.machine.redaction": "one rule for all that is shown, from the wire to the pages",
}
"""The files of fewer than 60 lines, each with the reason why it is not a part of another one."""

PRIVATE: Final[Mapping[str, str]] = {
    "realtime_fsm.adapters.client_connection": "one dial through python-socketio, apart from its port",
    "realtime_fsm.assembly": "the only place that wires things together, apart from what users call",
    "realtime_fsm.engine.activities": "a table as code; the manager only starts and cancels what is there",
    "realtime_fsm.cli.demo_backend": "what runs in another process than the demo",
    "realtime_fsm.cli.watch_view": "a snapshot as lines of text: pure, and tested without a terminal",
    "realtime_fsm.doctor.session": "the checks of an open connection, as transport has those before it",
    "realtime_fsm.doctor.transport": "the checks up to the handshake, as session has those after it",
    "realtime_fsm.migration.async_session": "the engine under the drop-in, apart from what users call",
    "realtime_fsm.rollout.plain_socket": "one connection of the old client, without its pace and its books",
    "realtime_fsm.rollout.stage": "which client runs now; the rollout only decides",
    "realtime_fsm.server.http_routes": "HTTP for those who cannot connect; the service only mounts it",
    "realtime_fsm.server.socket_events": "the dialect over the socket; the service only mounts it",
    "realtime_fsm.web.actions": "who may act, to be read by itself by who checks the security of the page",
    "realtime_fsm.web.events": "server-sent events with their replay, which know nothing of the page",
}
"""The files with one importer, a neighbour: each with the reason why it is not a part of that one."""

OTHER_STATES: Final[Mapping[tuple[str, str], str]] = {
    ("realtime_fsm.adapters.client_connection", "engine.state == 'connected'"): "python-engineio's own word",
}
"""Comparisons with the name of a state that is not one of ours, each with the reason."""


class Module(NamedTuple):
    """A file of the package.

    Attributes:
        name: As it is imported.
        is_folder: Whether it is the ``__init__`` of a folder.
        line_count: Its lines.
        tree: What stands in it.
    """

    name: str
    is_folder: bool
    line_count: int
    tree: ast.Module

    @property
    def folder(self) -> str:
        """The package that it lies in; of an ``__init__``, that which its folder lies in."""
        return self.name.rpartition(".")[0]

    @property
    def is_entry(self) -> bool:
        """Whether Python itself looks for it under this name."""
        return self.is_folder or self.name.endswith(".__main__")


class Layout:
    """The modules of a package, and who imports whom.

    Args:
        root: The folder that the package lies in.
        package: Its name.
    """

    def __init__(self, root: Path, package: str = PACKAGE) -> None:
        self.modules: dict[str, Module] = {}
        for path in sorted((root / package).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            parts = path.relative_to(root).with_suffix("").parts
            is_folder = parts[-1] == "__init__"
            name = ".".join(parts[:-1] if is_folder else parts)
            self.modules[name] = Module(name, is_folder, len(text.splitlines()), ast.parse(text))
        self.imports = {name: set(self._imported(module)) for name, module in self.modules.items()}
        self.importers: dict[str, set[str]] = defaultdict(set)
        for importer, imported in self.imports.items():
            for name in imported:
                self.importers[name].add(importer)

    def _imported(self, module: Module) -> Iterator[str]:
        """Yield the modules of the package that a module names in an import, wherever it stands."""
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Import):
                named = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = self._base(module, node)
                named = [f"{base}.{alias.name}" for alias in node.names]
                named = [name if name in self.modules else base for name in named]
            else:
                continue
            yield from (name for name in named if name in self.modules and name != module.name)

    @staticmethod
    def _base(module: Module, node: ast.ImportFrom) -> str:
        """Return what ``from`` names in full, dots and all."""
        if not node.level:
            return node.module or ""
        start = module.name if module.is_folder else module.folder
        parts = start.split(".")
        above = parts[: len(parts) - node.level + 1]
        return ".".join([*above, *([node.module] if node.module else [])])

    def is_private(self, module: Module) -> bool:
        """Tell whether the only importer of a module is a neighbour in its folder.

        The ``__init__`` of the folder is none: what it imports is public.
        """
        importers = self.importers[module.name]
        if module.is_entry or len(importers) != 1:
            return False
        (only,) = (self.modules[name] for name in importers)
        return not only.is_folder and only.folder == module.folder


def circles(layout: Layout) -> Iterator[str]:
    """Yield each set of modules that lead to one another."""
    reached = {name: _reached(layout, name) for name in layout.modules}
    found = {
        frozenset(other for other in reached[name] if name in reached[other])
        for name in layout.modules
        if name in reached[name]
    }
    for circle in sorted(map(sorted, found)):
        yield f"a circle of imports: {', '.join(circle)}"


def _reached(layout: Layout, start: str) -> set[str]:
    """Return the modules that a module imports, and those that they import."""
    found: set[str] = set()
    left = [start]
    while left:
        new = layout.imports[left.pop()] - found
        found |= new
        left += new
    return found


def crumbs(layout: Layout, small: Mapping[str, str], private: Mapping[str, str]) -> Iterator[str]:
    """Yield the files that should be a part of another one, and the excuses that are none.

    Args:
        layout: The package.
        small: Reasons, by the names of small files.
        private: Reasons, by the names of private files.
    """
    own = {name for name, module in layout.modules.items() if layout.is_private(module)}
    short = {
        name
        for name, module in layout.modules.items()
        if module.line_count < SMALLEST and not module.is_entry and name not in own
    }
    for found, excused, table, what in (
        (own, private, "PRIVATE", "is imported by one neighbour alone"),
        (short, small, "SMALL", f"has fewer than {SMALLEST} lines"),
    ):
        for name in sorted(found - set(excused)):
            beside = ", ".join(sorted(layout.importers[name])) or "nobody"
            yield f"{name} {what} (imported by {beside}): fold it, or give the reason in {table}"
        for name in sorted(set(excused) - found):
            yield f"{name} needs no reason in {table} any more"
        for name in sorted(name for name, reason in excused.items() if not reason.strip()):
            yield f"{name} stands in {table} without a reason"
    if len(own) > MOST_PRIVATE:
        yield f"{len(own)} files are private to a neighbour; there may be {MOST_PRIVATE}"


def density(layout: Layout) -> Iterator[str]:
    """Yield that there are too many files, if there are."""
    lines = sum(module.line_count for module in layout.modules.values())
    if len(layout.modules) * 1000 > lines * MOST_PER_THOUSAND:
        yield f"{len(layout.modules)} files for {lines} lines are more than {MOST_PER_THOUSAND} for 1,000"


def namesakes(layout: Layout) -> Iterator[str]:
    """Yield the names that more than one public class bears."""
    homes: dict[str, list[str]] = defaultdict(list)
    for name, module in layout.modules.items():
        for node in module.tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(name)
    for name, modules in sorted(homes.items()):
        if len(modules) > 1:
            yield f"the class {name} is there {len(modules)} times: in {', '.join(modules)}"


class _StateSearch(ast.NodeVisitor):
    """Finds where a module compares a status with a constant.

    Args:
        module: Where to look.
    """

    def __init__(self, module: Module) -> None:
        self.found: list[ast.expr] = []
        self._enums = {"ConnectionStatus"}
        self._constants: set[str] = set()
        # A name may be given to a constant below the place where it is used, and to another name.
        for _ in range(2):
            for node in ast.walk(module.tree):
                self._learn(node)
        self.visit(module.tree)

    def _learn(self, node: ast.AST) -> None:
        """Note what else a state, a collection of them, or their enum is called."""
        if isinstance(node, ast.ImportFrom):
            self._enums |= {a.asname for a in node.names if a.name == "ConnectionStatus" and a.asname}
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = {
                target.id if isinstance(target, ast.Name) else target.attr
                for target in targets
                if isinstance(target, ast.Name | ast.Attribute)
            }
            if self._is_enum(node.value):
                self._enums |= names
            elif self._is_constant(node.value, texts=False):
                # One state under a name in small letters is where something stands at first.
                is_many = not isinstance(node.value, ast.Attribute | ast.Name)
                self._constants |= {name for name in names if is_many or name.isupper()}

    def _is_enum(self, node: ast.expr) -> bool:
        return (isinstance(node, ast.Name) and node.id in self._enums) or (
            isinstance(node, ast.Attribute) and node.attr in self._enums
        )

    def _is_constant(self, node: ast.expr, *, texts: bool = True) -> bool:
        """Tell whether an expression is a state, its text, or a collection with one in it."""
        match node:
            case ast.Attribute(value=value, attr=attr):
                if attr in {"value", "name"}:
                    return self._is_constant(value, texts=texts)
                return (self._is_enum(value) and attr.lower() in STATES) or attr in self._constants
            case ast.Subscript(value=value):
                return self._is_enum(value)
            case ast.Name(id=name):
                return name in self._constants
            case ast.Constant(value=str(text)):
                return texts and text.lower() in STATES
            case ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.Set(elts=parts):
                return any(self._is_constant(part, texts=texts) for part in parts)
            case ast.Call(func=ast.Name(id="frozenset" | "set" | "tuple" | "list"), args=[only]):
                return self._is_constant(only, texts=texts)
            case ast.Call(func=func, args=[ast.Constant()]):
                return self._is_enum(func)
        return False

    def visit_Compare(self, node: ast.Compare) -> None:
        """Look at both sides."""
        if any(self._is_constant(side) for side in (node.left, *node.comparators)):
            self.found.append(node)
        self.generic_visit(node)

    def visit_MatchValue(self, node: ast.MatchValue) -> None:
        """Look at a case."""
        if self._is_constant(node.value):
            self.found.append(node.value)


def comparisons(layout: Layout, others: Mapping[tuple[str, str], str]) -> Iterator[str]:
    """Yield where a status is compared outside of the machine.

    Args:
        layout: The package.
        others: What only looks like it, by module and expression.
    """
    met: set[tuple[str, str]] = set()
    for name, module in layout.modules.items():
        if name == MACHINE or name.startswith(f"{MACHINE}."):
            continue
        for node in _StateSearch(module).found:
            said = ast.unparse(node)
            if (name, said) in others:
                met.add((name, said))
            else:
                yield f"{name}:{node.lineno} compares a status: {said}; ask for a trait of it (TRAITS)"
    for name, said in sorted(set(others) - met):
        yield f"{name} compares nothing by {said!r} any more: take it out of OTHER_STATES"


def problems(
    layout: Layout,
    *,
    small: Mapping[str, str] = SMALL,
    private: Mapping[str, str] = PRIVATE,
    others: Mapping[tuple[str, str], str] = OTHER_STATES,
) -> list[str]:
    """Return everything that breaks a rule."""
    return [
        *circles(layout),
        *crumbs(layout, small, private),
        *density(layout),
        *namesakes(layout),
        *comparisons(layout, others),
    ]


def main() -> int:
    """Check the package; return the exit code."""
    layout = Layout(ROOT)
    found = problems(layout)
    for problem in found:
        sys.stderr.write(problem + "\n")
    lines = sum(module.line_count for module in layout.modules.values())
    private = sum(layout.is_private(module) for module in layout.modules.values())
    print(
        f"{len(layout.modules)} files, {lines} lines: {len(layout.modules) * 1000 / lines:.1f} for 1,000; "
        f"{private} private to a neighbour"
    )
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
