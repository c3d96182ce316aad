"""Looks through a table of transitions to its end: what can be reached, what cannot, and what is missing."""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final

from attrs import field, frozen
from transitions import Machine

_STEP: Final = " --{}--> "


@frozen
class Move:
    """A row of a table.

    Attributes:
        source: Where it begins.
        trigger: What makes it.
        dest: Where it leads.
        is_guarded: Whether it depends on a guard, so that it may also not be taken.
        guard: The guard as it stands in the table; ``None`` where there is none, or it cannot be asked alone.
    """

    source: Any
    trigger: Any
    dest: Any
    is_guarded: bool = False
    guard: Any = field(default=None, eq=False, repr=False)

    def __str__(self) -> str:
        return (
            f"{self.source}{_STEP.format(self.trigger)}{self.dest}{' [guarded]' if self.is_guarded else ''}"
        )


@frozen(kw_only=True)
class Exploration:
    """The findings of a search. Guarded rows count as possible, and as avoidable.

    Attributes:
        initial: Where it began.
        paths: For each state that can be reached, a shortest way to it.
        unreachable_states: States of the table that cannot be reached.
        unreachable_moves: Rows whose source cannot be reached.
        shadowed_moves: Rows that are never taken, because one before them always is.
        dead_ends: States that can be reached and never left, though they are not final.
        missing: Pairs of a reachable state and a trigger that are neither a row nor ignored.
    """

    initial: Any
    paths: Mapping[Any, tuple[Move, ...]]
    unreachable_states: tuple[Any, ...]
    unreachable_moves: tuple[Move, ...]
    shadowed_moves: tuple[Move, ...]
    dead_ends: tuple[Any, ...]
    missing: tuple[tuple[Any, Any], ...]
    _moves: tuple[Move, ...]

    @property
    def is_sound(self) -> bool:
        """True if nothing is wrong. Missing pairs are not: they may be illegal on purpose."""
        return not self.findings

    def cannot_reach(self, *goals: Any) -> tuple[Any, ...]:
        """Return the reachable states from which no way leads to any of the goals."""
        arrived = set(goals)
        grown = True
        while grown:
            before = len(arrived)
            arrived |= {move.source for move in self._moves if move.dest in arrived}
            grown = len(arrived) > before
        return tuple(state for state in self.paths if state not in arrived)

    def way_to(self, state: Any) -> str:
        """Return a shortest way to a state, for people.

        Raises:
            KeyError: If there is none.
        """
        return str(self.initial) + "".join(
            f"{_STEP.format(move.trigger)}{move.dest}" for move in self.paths[state]
        )

    @property
    def findings(self) -> tuple[str, ...]:
        """All that is wrong, each in words for people."""
        return (
            *(f"unreachable state: {state}" for state in self.unreachable_states),
            *(f"unreachable row: {move}" for move in self.unreachable_moves),
            *(f"row that is never taken: {move}" for move in self.shadowed_moves),
            *(f"dead end: {state}, reached by {self.way_to(state)}" for state in self.dead_ends),
        )

    def __str__(self) -> str:
        head = f"{len(self.paths)} states can be reached from {self.initial}"
        return "\n".join([f"{head}; {'found:' if self.findings else 'nothing is wrong'}", *self.findings])


def explore(
    machine: Machine | Iterable[Any],
    *,
    initial: Any = None,
    ignored: Iterable[tuple[Any, Any]] = (),
    final: Iterable[Any] = (),
) -> Exploration:
    """Look through a machine to its end.

    Args:
        machine: A ``transitions.Machine``, or rows, as ``moves_of`` takes them. Where several rows have the
            same source and trigger, the first one whose guard holds is taken.
        initial: Where it begins; by default the machine's initial state, or the source of the first row.
        ignored: Pairs ``(state, trigger)`` that are ignored on purpose.
        final: States that need not be left.

    Returns:
        What was found.

    Raises:
        ValueError: If there is no row.
    """
    moves = moves_of(machine)
    if not moves:
        raise ValueError("There are no rows to be looked through.")
    if initial is None:
        initial = _value(machine, machine.initial) if isinstance(machine, Machine) else moves[0].source
    shadowed = tuple(_shadowed(moves))
    taken = tuple(move for move in moves if move not in shadowed)
    paths = _paths(taken, initial)
    states = dict.fromkeys(state for move in moves for state in (move.source, move.dest))
    triggers = dict.fromkeys(move.trigger for move in moves)
    known = {(move.source, move.trigger) for move in moves} | set(ignored)
    left = {move.source for move in taken if move.dest != move.source} | set(final)
    return Exploration(
        initial=initial,
        paths=paths,
        unreachable_states=tuple(state for state in states if state not in paths),
        unreachable_moves=tuple(move for move in taken if move.source not in paths),
        shadowed_moves=shadowed,
        dead_ends=tuple(state for state in paths if state not in left),
        missing=tuple((s, t) for s in paths for t in triggers if (s, t) not in known),
        moves=taken,
    )


def _paths(moves: Iterable[Move], initial: Any) -> dict[Any, tuple[Move, ...]]:
    """Return a shortest way to each state that can be reached: breadth first."""
    outgoing: dict[Any, list[Move]] = {}
    for move in moves:
        outgoing.setdefault(move.source, []).append(move)
    paths: dict[Any, tuple[Move, ...]] = {initial: ()}
    frontier = deque([initial])
    while frontier:
        state = frontier.popleft()
        for move in outgoing.get(state, ()):
            if move.dest not in paths:
                paths[move.dest] = (*paths[state], move)
                frontier.append(move.dest)
    return paths


def _shadowed(moves: Iterable[Move]) -> Iterable[Move]:
    decided: set[tuple[Any, Any]] = set()
    for move in moves:
        pair = (move.source, move.trigger)
        if pair in decided:
            yield move
        elif not move.is_guarded:
            decided.add(pair)


def moves_of(machine: Machine | Iterable[Any]) -> tuple[Move, ...]:
    """Return the rows of a machine or of a table, in the order in which they are tried.

    Args:
        machine: A ``transitions.Machine``, or rows: anything with ``source``, ``trigger``, ``dest`` and,
            where there is one, ``guard``; or tuples of three or four of these, in this order; or the
            dictionaries that ``transitions`` takes, whose ``source`` may be a list or ``"*"``.
    """
    if isinstance(machine, Machine):
        return tuple(_moves_of_machine(machine))
    rows = tuple(machine)
    states = dict.fromkeys(
        state
        for row in rows
        if isinstance(row, Mapping)
        for state in (*_listed(row["source"]), row["dest"])
        if state not in ("*", "=", None)
    )
    return tuple(move for row in rows for move in _moves_of_row(row, tuple(states)))


def _moves_of_row(row: Any, states: tuple[Any, ...]) -> Iterable[Move]:
    if isinstance(row, Mapping):
        is_guarded = bool(row.get("conditions") or row.get("unless"))
        for source in states if row["source"] == "*" else _listed(row["source"]):
            dest = source if row["dest"] in ("=", None) else row["dest"]
            yield Move(source, row["trigger"], dest, is_guarded)
    elif isinstance(row, tuple):
        source, trigger, dest, *given = row
        guard = given[0] if given else None
        yield Move(source, trigger, dest, guard is not None, guard)
    else:
        guard = getattr(row, "guard", None)
        yield Move(row.source, row.trigger, row.dest, guard is not None, guard)


def _listed(value: Any) -> Iterable[Any]:
    return value if isinstance(value, (list, tuple, set, frozenset)) else (value,)


def _moves_of_machine(machine: Machine) -> Iterable[Move]:
    """Return the rows of a machine of the library, with the states as they were given to it."""
    for event in machine.events.values():
        for transitions in event.transitions.values():
            for one in transitions:
                source = _value(machine, one.source)
                dest = source if one.dest is None else _value(machine, one.dest)
                yield Move(source, event.name, dest, bool(one.conditions))


def _value(machine: Machine, name: Any) -> Any:
    """Return a state as it was given to a machine, which itself knows it by its name."""
    return machine.get_state(name).value
