"""The tables, built into a synchronous ``transitions.Machine`` on a private model."""

from collections.abc import Callable, Sequence
from typing import cast

from attrs import define
from transitions import EventData, Machine, State, Transition

from realtime_fsm.machine.errors import IllegalTransitionError
from realtime_fsm.machine.guard import GUARDS, Facts
from realtime_fsm.machine.table import (
    ACTIVITIES,
    IGNORED,
    TRANSITIONS,
    Activity,
    ConnectionStatus,
    Guard,
    Row,
    Trigger,
    legal_triggers,
    rows_of,
)

EnterCallback = Callable[[ConnectionStatus, Trigger, Facts], None]
"""Called on every entry into a state: ``(state, trigger, facts)``. Must not await, block or raise."""


@define(slots=False)  # `transitions` binds a method per trigger to it
class _Model:
    """Where ``transitions`` keeps the state. Private, so that no one can assign to it."""

    state: ConnectionStatus = ConnectionStatus.DISCONNECTED


class ConnectionMachine:
    """The shipped machine: fires triggers, and refuses what is not in the table.

    It is synchronous on purpose: ``AsyncMachine`` cancels its callers, answers before it has acted, and
    swallows cancellation. Here a transition is atomic, and ``fire`` returns when it has happened.

    Args:
        on_enter: Attached to the entry of every state.
    """

    def __init__(self, on_enter: EnterCallback | None = None) -> None:
        self._model = _Model()
        self._on_enter = on_enter
        self._machine = Machine(
            model=self._model,
            # The callbacks are passed explicitly: one found by its name is silent when it is misspelt.
            states=[State(status, on_enter=[self._entered]) for status in ConnectionStatus],
            initial=ConnectionStatus.DISCONNECTED,
            auto_transitions=False,
            send_event=True,
            queued=True,
        )
        for row in TRANSITIONS:
            self._machine.add_transition(
                row.trigger.value,
                row.source,
                row.dest,
                conditions=[] if row.guard is None else [_condition(row.guard)],
            )

    @property
    def status(self) -> ConnectionStatus:
        """The state it is in."""
        return self._model.state

    def destination(self, trigger: Trigger, facts: Facts) -> ConnectionStatus | None:
        """Tell where ``fire`` would lead, without firing.

        Returns:
            The state that would be entered, or ``None`` when the pair is ignored or its guards refuse.

        Raises:
            IllegalTransitionError: If the pair is neither in the table nor ignored.
        """
        row = self._row(trigger, facts)
        return None if row is None else row.dest

    def may(self, trigger: Trigger, facts: Facts) -> bool:
        """Tell whether ``fire`` would move the machine; ``False`` also where the trigger is illegal."""
        rows = rows_of(self.status, trigger)
        return any(row.guard is None or GUARDS[row.guard](facts) for row in rows)

    def fire(self, trigger: Trigger, facts: Facts | None = None) -> bool:
        """Take the first row of (current state, ``trigger``) whose guard holds.

        Returns:
            Whether a transition happened. ``False`` when the pair is ignored, or no guard holds.

        Raises:
            IllegalTransitionError: If the pair is neither in the table nor ignored.
        """
        facts = facts or Facts()
        if self._row(trigger, facts) is None:
            return False
        return self._machine.events[trigger.value].trigger(self._model, facts=facts, cause=trigger)

    def activities(self, facts: Facts) -> Sequence[Activity]:
        """Return what runs in the current state, in the order of the table."""
        return [
            row.activity
            for row in ACTIVITIES
            if row.state is self.status and (row.guard is None or GUARDS[row.guard](facts))
        ]

    def rows(self) -> tuple[Row, ...]:
        """Return the rows as they were built, read back out of ``transitions``.

        Sorted by source and trigger; rows of one pair stand in the order in which they are tried. The
        diagrams are drawn from these, and not from the table that they should equal.
        """
        return tuple(
            _read(source, trigger, transition)
            for source in ConnectionStatus
            for trigger in Trigger
            for transition in self._machine.events[trigger.value].transitions.get(source.name, ())
        )

    def _row(self, trigger: Trigger, facts: Facts) -> Row | None:
        rows = rows_of(self.status, trigger)
        if not rows and (self.status, trigger) not in IGNORED:
            raise IllegalTransitionError(
                state=self.status.value,
                trigger=trigger.value,
                legal=tuple(t.value for t in legal_triggers(self.status)),
            )
        return next((row for row in rows if row.guard is None or GUARDS[row.guard](facts)), None)

    def _entered(self, event: EventData) -> None:
        if self._on_enter is not None:
            self._on_enter(self.status, event.kwargs["cause"], event.kwargs["facts"])


def _condition(guard: Guard) -> Callable[[EventData], bool]:
    def condition(event: EventData) -> bool:
        return GUARDS[guard](event.kwargs["facts"])

    condition.__name__ = guard.value  # what diagrams and logs of `transitions` show
    return condition


def _read(source: ConnectionStatus, trigger: Trigger, transition: Transition) -> Row:
    guards = [Guard(cast(Callable[..., bool], check.func).__name__) for check in transition.conditions]
    return Row(source, trigger, ConnectionStatus[cast(str, transition.dest)], *guards)
