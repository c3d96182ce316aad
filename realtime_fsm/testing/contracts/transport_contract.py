"""What every transport must do: inherit the suite, and override its hooks."""

from realtime_fsm.testing.contracts.transport_ending_laws import TransportEndingLaws
from realtime_fsm.testing.contracts.transport_flow_laws import TransportFlowLaws


class TransportContract(TransportFlowLaws, TransportEndingLaws):
    """The laws of the port ``Transport``.

    A dial ends open or by an error of the tree; events arrive in order, and acknowledgements at their
    messages; a loss is told once, and after it, or after ``close`` began, nothing. ``close`` can be
    repeated, is bounded and can be cancelled. No law leaves a task.

    Override ``make``, ``make_failing``, ``make_hanging``, ``emit``, ``break_connections``, ``silence`` and
    ``notes``, and ``set_up`` and ``tear_down`` where the server has to be started.
    """
