"""The graph of any machine: one of ``transitions``, flat or nested, or a table of rows."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from functools import partial
from typing import Any, Final

from transitions import Machine

from realtime_fsm.diagram.graph import OTHERWISE, Edge, Graph, Node, build_graph
from realtime_fsm.machine.connection_machine import ConnectionMachine
from realtime_fsm.machine.errors import InvalidArgumentError
from realtime_fsm.machine.table import Row

RowLike = Row | tuple[Any, ...] | Sequence[Any] | Mapping[str, Any]
"""A move: ``Row``; a tuple ``(source, trigger, destination[, guard])`` as in ``TRANSITIONS``; or a list
``[trigger, source, destination, ...]`` or a mapping, as ``transitions`` takes them."""

MachineLike = ConnectionMachine | Machine | Iterable[RowLike]
"""What can be drawn."""

_REMEDY: Final = (
    "A row is a tuple (source, trigger, destination[, guard]), or a list [trigger, source, destination, ...] "
    "or a mapping as `transitions` takes them."
)
_ROW_LENGTHS: Final = (3, 4)
_POSITIONS: Final = ("trigger", "source", "dest", "conditions", "unless")
_Move = tuple[str, str, str, str | None]


def graph_of(machine: MachineLike, *, activities: Mapping[Any, Sequence[str]] | None = None) -> Graph:
    """Return the graph of a machine or a table.

    Moves that ``transitions`` makes by itself (``to_STATE``) are left out; a move that stays inside its
    state is drawn as a loop. Without a machine, the initial state is the source of the first row.

    Args:
        machine: See ``MachineLike``.
        activities: What is written into each state, by its name; by default the callbacks of a machine.

    Raises:
        InvalidArgumentError: If it is none of them, or a row cannot be understood.
    """
    if isinstance(machine, ConnectionMachine):
        return build_graph()
    if isinstance(machine, Machine):
        return _of_machine(machine, activities)
    if isinstance(machine, str | bytes) or not isinstance(machine, Iterable):
        raise InvalidArgumentError(
            f"{machine!r} is neither a machine nor a table.", remedy="Pass a `transitions.Machine`, or rows."
        )
    rows = list(machine)
    moves = [move for row in rows for move in _moves_of_row(row, _states_of(rows))]
    if not moves:
        raise InvalidArgumentError("The table has no row.", remedy=_REMEDY)
    names = dict.fromkeys(name for move in moves for name in (move[0], move[2]))
    return _graph(moves[0][0], dict.fromkeys(names, ()), moves, activities)


def _graph(
    initial: str,
    states: Mapping[str, Sequence[str]],
    moves: Sequence[_Move],
    activities: Mapping[Any, Sequence[str]] | None,
) -> Graph:
    shown = dict(states)
    for state, texts in (activities or {}).items():
        if _name(state) not in shown:
            raise InvalidArgumentError(
                f"activities name {state!r}, which is no state.", remedy=f"The states are {', '.join(shown)}."
            )
        shown[_name(state)] = tuple(texts)
    return Graph(
        initial=initial,
        nodes=tuple(
            Node(name=name, activities=tuple(texts), severity="", meaning="") for name, texts in shown.items()
        ),
        triggers=tuple(dict.fromkeys(trigger for _, trigger, _, _ in moves)),
        edges=tuple(_edges(moves)),
        ignored=(),
    )


def _edges(moves: Sequence[_Move]) -> Iterator[Edge]:
    """Yield the edges, those that follow a guarded one of their pair as its ``else``, each once."""
    guarded: set[tuple[str, str]] = set()
    seen: set[Edge] = set()
    for source, trigger, dest, guard in moves:
        follows = guard is None and (source, trigger) in guarded
        edge = Edge(source=source, trigger=trigger, dest=dest, guard=OTHERWISE if follows else guard)
        if guard is not None:
            guarded.add((source, trigger))
        if edge not in seen:
            seen.add(edge)
            yield edge


def _of_machine(machine: Machine, activities: Mapping[Any, Sequence[str]] | None) -> Graph:
    nested = hasattr(machine, "get_nested_state_names")
    names = machine.get_nested_state_names() if nested else list(machine.states)
    states = {name: _callbacks(machine.get_state(name)) for name in names}
    initial = machine.initial
    automatic = {f"to_{name}" for name in names} if machine.auto_transitions else set()
    moves = [move for move in _moves_of(machine, "") if move[1] not in automatic]
    return _graph(
        "" if initial is None or isinstance(initial, list) else _name(initial), states, moves, activities
    )


def _moves_of(scope: Any, prefix: str) -> Iterator[_Move]:
    """Yield the moves of a machine, and of the machines nested in its states."""
    for trigger, event in scope.events.items():
        for found in event.transitions.values():
            for move in found:
                dest = move.source if move.dest is None else move.dest
                yield prefix + move.source, trigger, prefix + dest, _guards(move.conditions)
    if hasattr(scope, "get_nested_state_names"):
        separator = scope.state_cls.separator
        for name in list(scope.states):
            with scope(name):
                yield from _moves_of(scope, f"{prefix}{name}{separator}")


def _callbacks(state: Any) -> tuple[str, ...]:
    """Return what a state calls, in the words of UML."""
    pairs = (("entry", state.on_enter), ("exit", state.on_exit))
    return tuple(f"{word} / {_name(callback)}" for word, found in pairs for callback in found)


def _guards(conditions: Iterable[Any]) -> str | None:
    guards = [_name(check.func) if check.target else f"not {_name(check.func)}" for check in conditions]
    return " & ".join(guards) or None


def _states_of(rows: Iterable[RowLike]) -> tuple[str, ...]:
    """Return the states that rows name; what ``*`` stands for."""
    names: dict[str, None] = {}
    for row in rows:
        source, _, dest, _ = _parts(row)
        for name in (*_several(source), dest):
            if name is not None and _name(name) not in {"*", "="}:
                names[_name(name)] = None
    return tuple(names)


def _moves_of_row(row: RowLike, states: Sequence[str]) -> Iterator[_Move]:
    source, trigger, dest, guard = _parts(row)
    for item in _several(source):
        for name in states if _name(item) == "*" else (_name(item),):
            yield name, _name(trigger), name if dest is None or dest == "=" else _name(dest), guard


def _parts(row: RowLike) -> tuple[Any, Any, Any, str | None]:
    """Return source, trigger, destination and guard of a row."""
    if isinstance(row, Row):
        return row.source, row.trigger, row.dest, row.guard
    if isinstance(row, tuple):
        if len(row) not in _ROW_LENGTHS:
            raise InvalidArgumentError(f"{row!r} is no row.", remedy=_REMEDY)
        return row[0], row[1], row[2], None if row[3:] in {(), (None,)} else _name(row[3])
    if isinstance(row, list):
        row = dict(zip(_POSITIONS, row, strict=False))
    if not isinstance(row, Mapping) or not {"trigger", "source", "dest"} <= set(row):
        raise InvalidArgumentError(f"{row!r} is no row.", remedy=_REMEDY)
    checks = [_name(check) for check in _several(row.get("conditions"))]
    checks += [f"not {_name(check)}" for check in _several(row.get("unless"))]
    return row["source"], row["trigger"], row["dest"], " & ".join(checks) or None


def _several(value: Any) -> Sequence[Any]:
    if value is None:
        return ()
    return value if isinstance(value, list | tuple) else (value,)


def _name(value: Any) -> str:
    """Return the name of a state, a trigger or a function."""
    if isinstance(value, partial):
        return _name(value.func)
    if isinstance(value, Enum):
        return value.value if isinstance(value, str) else value.name
    if isinstance(value, str):
        return value
    return str(getattr(value, "name", None) or getattr(value, "__name__", None) or type(value).__name__)
