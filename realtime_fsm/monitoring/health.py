"""Whether the client is well, in the terms of a health check (SPEC D3)."""

from collections.abc import Callable

from attrs import frozen

from realtime_fsm.engine.dispatcher import Dispatcher
from realtime_fsm.machine.record import StatusChange
from realtime_fsm.machine.table import TRAITS, ConnectionStatus


@frozen(kw_only=True)
class Health:
    """The state of health, with reasons for whatever is not perfect. Holds no secret.

    Attributes:
        live: The engine works; ``False`` only where a restart of the process could help.
        ready: Data flows, over the socket or by polling.
        degraded: It works, but not as it should.
        reasons: Why it is not ready, or degraded.
    """

    live: bool
    ready: bool
    degraded: bool
    reasons: tuple[str, ...]


def examine(
    status: ConnectionStatus,
    last: StatusChange | None,
    dispatcher: Dispatcher,
    *,
    time: Callable[[], float],
    patience: float,
) -> Health:
    """Examine a client.

    Args:
        status: The state.
        last: The last change.
        dispatcher: Whether handlers keep up: connected but deaf is not healthy.
        time: The loop's clock.
        patience: Seconds that one handler may take before it counts as stuck.
    """
    traits = TRAITS[status]
    reasons: list[str] = []
    if not traits.sends:
        why = "" if last is None else f" ({last.reason})"
        reasons.append(f"{status}{why}: {traits.meaning}")
    since = 0.0 if dispatcher.handling is None else time() - dispatcher.handling_since
    stuck = since > patience
    if stuck:
        reasons.append(f"A handler of {dispatcher.handling!r} has been running for {since:.0f} s.")
    if dispatcher.is_congested:
        reasons.append("The handlers are behind; reading from the network is held back.")
    return Health(
        live=True,
        ready=traits.carries_data and not (stuck and dispatcher.is_congested),
        degraded=bool(reasons),
        reasons=tuple(reasons),
    )
