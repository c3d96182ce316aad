"""The outboxes of the library keep the laws of their port."""

from pathlib import Path

from outbox_contract import OutboxContract

from realtime_fsm.adapters.sqlite_outbox import SqliteOutbox
from realtime_fsm.engine.outbox import MemoryOutbox, Outbox
from realtime_fsm.machine.errors import RealtimeError


def refuse(error: RealtimeError) -> None:
    """Fail on an error that nobody awaits: none is expected."""
    raise error


class TestMemoryOutbox(OutboxContract):
    """The one in memory."""

    def make(self, folder: Path, *, max_dead_letters: int = 1000) -> Outbox:
        """Return one."""
        return MemoryOutbox(max_dead_letters=max_dead_letters)


class TestSqliteOutbox(OutboxContract):
    """The one in a file, as durable as can be."""

    def make(self, folder: Path, *, max_dead_letters: int = 1000) -> Outbox:
        """Return one."""
        return SqliteOutbox(folder / "outbox.db", max_dead_letters=max_dead_letters, report=refuse)


class TestSqliteOutboxOfProcess(OutboxContract):
    """The one in a file that survives the process only."""

    def make(self, folder: Path, *, max_dead_letters: int = 1000) -> Outbox:
        """Return one."""
        return SqliteOutbox(
            folder / "outbox.db", durability="process", max_dead_letters=max_dead_letters, report=refuse
        )
