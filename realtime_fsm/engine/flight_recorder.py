"""The last doings of a client: a ring of records, logged in debug mode, written out after a crash."""

import logging
from collections import deque
from collections.abc import Collection, Mapping
from enum import StrEnum
from functools import partial
from types import MappingProxyType
from typing import Any, Final

from attrs import frozen

from realtime_fsm.engine.port import WallClock
from realtime_fsm.machine.redaction import redacted

RECORDS: Final = 500
"""Records that are kept."""

_CRASH_LINES: Final = 50

_logger = logging.getLogger("realtime_fsm.trace")


class Kind(StrEnum):
    """The subject of a record. Those after ``EVENT`` are kept in debug mode only: there are many."""

    CHANGE = "change"
    DECISION = "decision"
    ATTEMPT = "attempt"
    ISSUE = "issue"
    TOKEN = "token"  # noqa: S105 - a kind of record
    POLL = "poll"
    EVENT = "event"
    MESSAGE = "message"
    ACK = "ack"
    HEARTBEAT = "heartbeat"


GLYPHS: Final[Mapping[Kind, str]] = MappingProxyType(
    {
        Kind.CHANGE: "●",
        Kind.DECISION: "◆",
        Kind.ATTEMPT: "↗",
        Kind.ISSUE: "✗",
        Kind.TOKEN: "⚿",
        Kind.POLL: "⟳",
        Kind.EVENT: "←",
        Kind.MESSAGE: "→",
        Kind.ACK: "✓",
        Kind.HEARTBEAT: "♥",
    }
)
"""One glyph per kind."""


@frozen(kw_only=True)
class Record:
    """One thing that a client did or met.

    Attributes:
        at: Seconds since the Unix epoch.
        kind: What it is about.
        epoch: Number of the state's entry.
        attempt: The connection attempt under way; 0 where none is.
        text: What it was. No body of a message, and no secret.
    """

    at: float
    kind: Kind
    epoch: int
    attempt: int
    text: str

    def __str__(self) -> str:
        return f"{self.at:.3f} {GLYPHS[self.kind]} [{self.epoch}] {self.text}"


class FlightRecorder:
    """Keeps the last records of one client.

    Args:
        wall: The wall clock.
        secrets: What must not be shown.

    Attributes:
        records: The last of them, the oldest first.
        epoch: The present one; set at every change.
        attempt: The present one.
        is_tracing: Tells whether the debug mode is on. It is asked on the path of every message, before a
            record is made: as a method it would cost a frame more.
    """

    def __init__(self, wall: WallClock, secrets: Collection[str]) -> None:
        self._wall = wall
        self._secrets = secrets
        self.records: deque[Record] = deque(maxlen=RECORDS)
        self.epoch = 0
        self.attempt = 0
        self.is_tracing = partial(_logger.isEnabledFor, logging.DEBUG)

    def note(self, kind: Kind, text: str) -> None:
        """Keep a record, and log it in debug mode."""
        shown = redacted(text, self._secrets)
        record = Record(at=self._wall(), kind=kind, epoch=self.epoch, attempt=self.attempt, text=shown)
        self.records.append(record)
        if self.is_tracing():
            extra = {"kind": kind.value, "epoch": self.epoch, "attempt": self.attempt}
            _logger.debug("%s %s", GLYPHS[kind], shown, extra=extra)

    def as_json(self) -> list[dict[str, Any]]:
        """Return the records as JSON."""
        return [
            {
                "at": round(record.at, 6),
                "kind": record.kind.value,
                "epoch": record.epoch,
                "attempt": record.attempt,
                "text": record.text,
            }
            for record in self.records
        ]

    def write_out(self, why: str) -> None:
        """Log the last records as one error: for a crash, of which somebody will want to know the way."""
        last = list(self.records)[-_CRASH_LINES:]
        _logger.error("%s; what came before:\n%s", why, "\n".join(f"  {record}" for record in last))
