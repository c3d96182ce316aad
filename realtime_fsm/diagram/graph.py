"""The neutral graph between any machine and its renderers: plain strings, nothing to look up."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from functools import partial
from typing import Any, Final

from attrs import frozen
from transitions import Machine

from realtime_fsm.machine.connection_machine import ConnectionMachine
from realtime_fsm.machine.errors import InvalidArgumentError
from realtime_fsm.machine.table import ACTIVITIES, IGNORED, TRAITS, ConnectionStatus, Row, Trigger, rows_of

TIMES: Final = "\N{MULTIPLICATION SIGN}"
DOT: Final = "\N{MIDDLE DOT}"
OTHERWISE: Final = "else"
"""UML's word for the branch that is taken when no guard before it holds."""

RowLike = Row | tuple[Any, ...] | Sequence[Any] | Mapping[str, Any]
"""A move: ``Row``; a tuple ``(source, trigger, destination[, guard])`` as in ``TRANSITIONS``; or a list
``[trigger, source, destination, ...]`` or a mapping, as ``transitions`` takes them."""

MachineLike = ConnectionMachine | Machine | Iterable[RowLike]
"""A machine, or a table of its rows, that can be drawn."""

_REMEDY: Final = (
    "A row is a tuple (source, trigger, destination[, guard]), or a list [trigger, source, destination, ...] "
    "or a mapping as `transitions` takes them."
)
_ROW_LENGTHS: Final = (3, 4)
_LIST_FIELDS: Final = ("trigger", "source", "dest", "conditions", "unless")
_Move = tuple[str, str, str, str | None]


@frozen(kw_only=True)
class Node:
    """One state.

    Attributes:
        name: Its value.
        activities: What runs while it lasts, each with its guard: ``probing [may_probe]``.
        severity: How much it should worry a person; empty where nobody has said.
        meaning: What it is, in words for people.
        current: Whether it is marked as the current one.
        note: How often a history entered it, and for how long.
    """

    name: str
    activities: tuple[str, ...]
    severity: str
    meaning: str
    current: bool = False
    note: str = ""

    @property
    def heading(self) -> str:
        """The name as it is shown: ours in capitals, those of other machines as they call them."""
        return self.name.upper() if self.severity else self.name

    @property
    def title(self) -> str:
        """The text at its head, in words alone."""
        return f"{self.heading} (now)" if self.current else self.heading

    @property
    def lines(self) -> tuple[str, ...]:
        """The texts below its title."""
        return (*self.activities, self.note) if self.note else self.activities


@frozen(kw_only=True)
class Edge:
    """One legal move.

    Attributes:
        source: The state that is left.
        trigger: What fires it.
        dest: The state that is entered.
        guard: What must hold; ``else`` for the branch after guarded ones, ``None`` where nothing must.
        count: How often a history has taken it.
    """

    source: str
    trigger: str
    dest: str
    guard: str | None = None
    count: int = 0

    @property
    def label(self) -> str:
        """The text of an arrow: ``trigger [guard]``, and how often it was taken."""
        return _counted(_guarded(self.trigger, self.guard), self.count)


@frozen(kw_only=True)
class Arrow:
    """All moves from one state to another, drawn as one arrow with one label a line."""

    source: str
    dest: str
    labels: tuple[str, ...]


@frozen(kw_only=True)
class IgnoredPair:
    """A trigger that does nothing in a state, and why."""

    state: str
    trigger: str
    reason: str


@frozen(kw_only=True)
class Graph:
    """The machine, ready to be drawn.

    Attributes:
        initial: The state in which it begins; empty where there is none.
        nodes: Its states.
        triggers: What can be fired.
        edges: Its moves; those of one pair stand in the order in which they are tried.
        ignored: What does nothing.
    """

    initial: str
    nodes: tuple[Node, ...]
    triggers: tuple[str, ...]
    edges: tuple[Edge, ...]
    ignored: tuple[IgnoredPair, ...]

    @property
    def endings(self) -> tuple[str, ...]:
        """The triggers that lead from every other state back to the initial one, whatever holds.

        Drawn as one arrow out of a frame around all those states: five arrows that say the same hide the
        rest.
        """
        others = {node.name for node in self.nodes} - {self.initial}

        def ends(trigger: str) -> bool:
            edges = [edge for edge in self.edges if edge.trigger == trigger]
            plain = all(edge.dest == self.initial and edge.guard is None for edge in edges)
            return plain and {edge.source for edge in edges} == others != set()

        return tuple(trigger for trigger in self.triggers if ends(trigger))

    @property
    def ending_labels(self) -> tuple[str, ...]:
        """The text of the arrow out of the frame: every ending, and how often it was taken."""
        counts = {
            trigger: sum(edge.count for edge in self.edges if edge.trigger == trigger)
            for trigger in self.endings
        }
        return tuple(_counted(trigger, count) for trigger, count in counts.items())

    @property
    def arrows(self) -> tuple[Arrow, ...]:
        """The edges but the endings, those between the same two states merged; in the order of the edges."""
        labels: dict[tuple[str, str], list[str]] = {}
        endings = self.endings
        for edge in self.edges:
            if edge.trigger not in endings:
                labels.setdefault((edge.source, edge.dest), []).append(edge.label)
        return tuple(
            Arrow(source=source, dest=dest, labels=tuple(texts)) for (source, dest), texts in labels.items()
        )


def build_graph() -> Graph:
    """Return the graph of a freshly built machine: what is drawn is what runs."""
    machine = ConnectionMachine()
    return Graph(
        initial=machine.status.value,
        nodes=tuple(_node(status) for status in ConnectionStatus),
        triggers=tuple(trigger.value for trigger in Trigger),
        edges=tuple(_edge(row) for row in machine.rows()),
        ignored=tuple(
            IgnoredPair(state=state.value, trigger=trigger.value, reason=reason)
            for (state, trigger), reason in IGNORED.items()
        ),
    )


def _node(status: ConnectionStatus) -> Node:
    traits = TRAITS[status]
    return Node(
        name=status.value,
        activities=tuple(_guarded(row.activity, row.guard) for row in ACTIVITIES if row.state is status),
        severity=traits.severity.value,
        meaning=traits.meaning,
    )


def _edge(row: Row) -> Edge:
    follows_guarded = row.guard is None and len(rows_of(row.source, row.trigger)) > 1
    guard = OTHERWISE if follows_guarded else row.guard
    return Edge(
        source=row.source.value,
        trigger=row.trigger.value,
        dest=row.dest.value,
        guard=None if guard is None else str(guard),
    )


def _guarded(name: str, guard: str | None) -> str:
    return str(name) if guard is None else f"{name} [{guard}]"


def _counted(text: str, count: int) -> str:
    return f"{text} {TIMES}{count}" if count else text


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
        row = dict(zip(_LIST_FIELDS, row, strict=False))
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
