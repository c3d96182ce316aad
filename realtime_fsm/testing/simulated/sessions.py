"""Socket.IO's connection state recovery as a Node server does it, in memory."""

from collections.abc import Mapping
from typing import Any, Final

from attrs import define, field

_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_"
_BEGIN: Final = 1_700_000_000_000
"""Milliseconds since the Unix epoch at which the offsets begin."""


@define(eq=False)
class SimulatedSessions:
    """The sessions of a ``SimulatedServer``, and a log of what it sent.

    Attributes:
        log_size: Events that are kept.
        log: Offset, name and arguments of each.
        known: The private ids of sessions that can be recovered.
    """

    log_size: int = 1000
    log: list[tuple[str, str, list[Any]]] = field(factory=list)
    known: set[str] = field(factory=set)
    _made: int = field(default=0, init=False)
    _logged: int = field(default=0, init=False)

    def store(self, event: str, args: list[Any]) -> list[Any]:
        """Keep an event; return its arguments with the offset."""
        self._logged += 1
        offset = _written(_BEGIN + self._logged)
        self.log.append((offset, event, list(args)))
        del self.log[: -self.log_size]
        return [*args, offset]

    def join(self, auth: Mapping[str, Any] | None) -> tuple[dict[str, str], list[tuple[str, list[Any]]]]:
        """Let a client in.

        Args:
            auth: Of its CONNECT packet.

        Returns:
            What the server welcomes it with, and what it has missed, where the session is recovered.
        """
        given = auth or {}
        offsets = [offset for offset, _, _ in self.log]
        if given.get("pid") in self.known and given.get("offset") in offsets:
            missed = self.log[offsets.index(given["offset"]) + 1 :]
            return self._welcome(given["pid"]), [(event, [*args, at]) for at, event, args in missed]
        self._made += 1
        pid = f"pid-{self._made}"
        self.known.add(pid)
        return self._welcome(pid), []

    def forget(self) -> None:
        """Lose everything, as a process does that is started anew."""
        self.known.clear()
        self.log.clear()

    def _welcome(self, pid: str) -> dict[str, str]:
        return {"sid": pid.replace("pid", "sid"), "pid": pid}


def _written(milliseconds: int) -> str:
    """Return a time as the in-memory adapter writes it: 7 digits to the base of 64."""
    digits = []
    for _ in range(7):
        milliseconds, digit = divmod(milliseconds, 64)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))
