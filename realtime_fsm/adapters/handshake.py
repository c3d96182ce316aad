"""What an Engine.IO server announces when a session opens."""

import json
from typing import Any, Final, Self

from attrs import frozen

_MAX_MILLISECONDS: Final = 24 * 3600 * 1000


@frozen(kw_only=True)
class Handshake:
    """The parts of the OPEN packet that are used here; python-socketio reads the packet itself as well.

    Attributes:
        ping_interval: Seconds between two pings of the server.
        ping_timeout: Seconds that it waits for an answer.
    """

    ping_interval: float
    ping_timeout: float

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read the JSON of an OPEN packet; ``None`` if python-socketio could not use it.

        Source: the Engine.IO protocol, revision 4; intervals are milliseconds on the wire.
        """
        try:
            announced = json.loads(text)
        except (ValueError, RecursionError):
            return None
        if not isinstance(announced, dict):
            return None
        interval = _seconds(announced.get("pingInterval"))
        timeout = _seconds(announced.get("pingTimeout"))
        if interval is None or timeout is None:
            return None
        if not isinstance(announced.get("sid"), str) or not isinstance(announced.get("upgrades"), list):
            return None
        return cls(ping_interval=interval, ping_timeout=timeout)


def _seconds(milliseconds: Any) -> float | None:
    if isinstance(milliseconds, bool) or not isinstance(milliseconds, (int, float)):
        return None
    return milliseconds / 1000 if 0 <= milliseconds <= _MAX_MILLISECONDS else None
