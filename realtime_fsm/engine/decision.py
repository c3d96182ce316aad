"""FAILED: fall back if allowed, otherwise rest until somebody wants another attempt."""

from realtime_fsm.engine.component import Components, Stay
from realtime_fsm.machine.table import Trigger


async def decide(parts: Components, stay: Stay) -> None:
    """Fall back, or rest. Resting is the one wait without a bound: only a person can end it."""
    del parts
    if stay.may(stay, Trigger.FALL_BACK):
        stay.report(Trigger.FALL_BACK, error=stay.change.error)
        return
    await stay.wake.wait()
    stay.report(Trigger.RETRY)
