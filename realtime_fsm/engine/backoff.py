"""RECONNECTING: wait, then try again."""

import asyncio

from realtime_fsm.engine.component import Components, Stay
from realtime_fsm.machine.table import Trigger


async def backoff(parts: Components, stay: Stay) -> None:
    """Wait for the time that the change announced, or until somebody says that it is time."""
    del parts
    due_at = stay.entered_at + (stay.change.retry_in or 0.0)
    await stay.pause(due_at - asyncio.get_running_loop().time())
    stay.report(Trigger.RETRY)
