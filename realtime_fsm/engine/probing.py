"""FALLBACK: look for the socket, and end the fallback when it is there."""

import logging
from typing import Final

from realtime_fsm.engine.component import Components, Stay
from realtime_fsm.engine.establish import dial
from realtime_fsm.machine.errors import RealtimeError
from realtime_fsm.machine.table import Trigger

_SPREAD: Final = 0.2
"""Pauses differ by up to this fraction, so that a fleet that fell together does not knock together."""

_logger = logging.getLogger("realtime_fsm.probing")


async def probing(parts: Components, stay: Stay) -> None:
    """Dial every ``reconnect_interval``; polling goes on until a dial has succeeded."""
    while True:
        pause = parts.config.reconnect_interval * parts.random.uniform(1 - _SPREAD, 1 + _SPREAD)
        await stay.pause(pause)
        try:
            link = await dial(parts, stay)
        except RealtimeError as error:
            _logger.debug("the socket is not back yet: %s", error)
            continue
        if not stay.report(Trigger.ESTABLISHED, link=link):
            stay.dispose(link)
        return
