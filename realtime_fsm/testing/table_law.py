"""What a table of transitions says, worked out once; and a machine that runs a table as it stands."""

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from typing import Any

from attrs import define, field, frozen
from transitions import Machine

from realtime_fsm.machine.errors import IllegalTransitionError
from realtime_fsm.testing.exploration import Exploration, Move, explore, moves_of

Pair = tuple[Any, Any]
"""A state and a trigger."""

GuardFunctions = Mapping[Any, Callable[[Any], object]]


@frozen
class TableLaw:
    """What the table of a class says, worked out once.

    Attributes:
        moves: The rows.
        exploration: What was found in them.
        states: All states: those of the rows, and those that were declared.
        triggers: All triggers.
        findings: What is wrong, in words for people.
    """

    moves: tuple[Move, ...]
    exploration: Exploration
    states: tuple[Any, ...]
    triggers: tuple[Any, ...]
    findings: tuple[str, ...]


@define
class TableMachine:
    """Runs a table as it stands: the first row whose guard holds. Where there is no machine but the table.

    Attributes:
        state: The state it is in.
    """

    state: Any
    _moves: tuple[Move, ...]
    _ignored: Collection[Pair] = ()
    _guards: GuardFunctions = field(factory=dict)

    def fire(self, trigger: Any, facts: Any) -> bool:
        """Take the first row of the pair whose guard holds.

        Returns:
            Whether a transition happened.

        Raises:
            IllegalTransitionError: If the pair is neither in the table nor ignored.
        """
        rows = [move for move in self._moves if (move.source, move.trigger) == (self.state, trigger)]
        if not rows and (self.state, trigger) not in self._ignored:
            legal = tuple(str(move.trigger) for move in self._moves if move.source == self.state)
            raise IllegalTransitionError(state=str(self.state), trigger=str(trigger), legal=legal)
        for row in rows:
            if not row.is_guarded or self._guard(row)(facts):
                self.state = row.dest
                return True
        return False

    def _guard(self, row: Move) -> Callable[[Any], object]:
        guard = guard_function(row.guard, self._guards)
        if guard is None:
            raise LookupError(f"`guards` does not say what the guard {row.guard!r} of {row} is")
        return guard


def read_table(
    table: Any,
    *,
    initial: Any = None,
    states: Iterable[Any] = (),
    ignored: Collection[Pair] = (),
    final: Collection[Any] = (),
    goals: Collection[Any] = (),
    is_complete: bool = False,
) -> TableLaw:
    """Work out what a table says, and all that is wrong with it.

    Args:
        table: As ``explore`` takes it.
        initial: As there.
        states: States that it must know.
        ignored: Pairs that do nothing, on purpose.
        final: States that need not be left.
        goals: States of which one must be reachable from every state that is not final.
        is_complete: Whether every pair must be a row or ignored.
    """
    moves = moves_of(table)
    found = explore(table, initial=initial, ignored=ignored, final=final)
    declared = [*states]
    if isinstance(table, Machine):
        declared += [state.value for state in table.states.values()]
    of_rows = dict.fromkeys([found.initial, *(state for move in moves for state in (move.source, move.dest))])
    lonely = [state for state in dict.fromkeys(declared) if state not in of_rows]
    return TableLaw(
        moves=moves,
        exploration=found,
        states=(*of_rows, *lonely),
        triggers=tuple(dict.fromkeys(move.trigger for move in moves)),
        findings=(
            *found.findings,
            *(f"unreachable state: {state}, which is in no row" for state in lonely),
            *_contradictions(moves, ignored),
            *_without_goal(found, goals, final),
            *(f"neither a row nor ignored: {s} --{t}-->" for s, t in found.missing if is_complete),
        ),
    )


def _contradictions(moves: Iterable[Move], ignored: Collection[Pair]) -> Iterable[str]:
    pairs = {(move.source, move.trigger) for move in moves}
    for state, trigger in ignored:
        if (state, trigger) in pairs:
            yield f"contradiction: {state} --{trigger}--> is a row, and is ignored"


def _without_goal(found: Exploration, goals: Collection[Any], final: Collection[Any]) -> Iterable[str]:
    """Tell from where no goal can be reached; dead ends are told of elsewhere."""
    for state in found.cannot_reach(*goals, *final) if goals else ():
        if state not in found.dead_ends:
            yield f"no way to {' or '.join(map(str, goals))} from {state}, reached by {found.way_to(state)}"


def guard_function(guard: Any, guards: GuardFunctions) -> Callable[[Any], object] | None:
    """Return the function of a guard; ``None`` where it is not known."""
    if isinstance(guard, Hashable) and guard in guards:
        return guards[guard]
    return guard if callable(guard) else None
