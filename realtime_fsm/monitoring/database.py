"""The metrics database: what happened to a connection, kept in a file for reports and comparisons."""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from socket import gethostname
from typing import Final, Protocol, Self

from realtime_fsm.adapters.metrics_file import CLOSE_TIMEOUT, SqliteMetrics, WriterCounters
from realtime_fsm.engine.recovery import ErrorRecoveryStrategy
from realtime_fsm.engine.status import ConnectionStatusManager
from realtime_fsm.machine.errors import ClosedError, InvalidArgumentError, MetricsStorageError
from realtime_fsm.machine.record import AttemptRecord, StatusChange
from realtime_fsm.machine.table import TRAITS, Trigger
from realtime_fsm.monitoring.records import Level

_MAX_TEXT: Final = 500

_DAY: Final = 24 * 3600.0


class Observed(Protocol):
    """The part of a ``RealtimeService`` that a database is attached to."""

    recovery: ErrorRecoveryStrategy

    @property
    def connection_status(self) -> ConnectionStatusManager:
        """The source of changes, attempts and round trips."""


class MetricsDatabase:
    """Records what happens to a connection in a SQLite file.

    ::

        async with MetricsDatabase("metrics.db", version="2.1") as database:
            database.attach(realtime)

    It never waits for the disk, and nothing that happens to the file reaches the connection: a full disk, a
    lock or a corrupt file is told once (to the log, ``on_problem``, and the connection issues of the client
    it is attached to), counted, and over by itself when its cause is. What does not fit into the queue in
    the meantime is lost and counted. What is not a ``RealtimeService`` uses the ``record_...`` methods, from
    any thread. Several of these may share a file, in one process or many.

    Args:
        path: The file; created if it is missing, set aside and begun anew if it is corrupt.
        implementation: What reports compare: ``new``, ``legacy``.
        version: Of the software.
        instance: Which of several; by default the host's name.
        max_age: Seconds after which records are deleted; by default 30 days.
        max_rows: Records of each kind that are kept.
        max_queued: Records that may wait for the disk.
        on_problem: Called on the loop when the file stops being usable.
        wall: The wall clock; the writer's thread asks it as well.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        implementation: str = "new",
        *,
        version: str = "",
        instance: str | None = None,
        max_age: float = 30 * _DAY,
        max_rows: int = 500_000,
        max_queued: int = 10_000,
        on_problem: Callable[[MetricsStorageError], object] | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        if not implementation:
            raise InvalidArgumentError("A metrics database needs the name of an implementation.")
        if max_age <= 0 or max_rows < 1 or max_queued < 1:
            raise InvalidArgumentError("max_age, max_rows and max_queued must be positive.")
        self._wall = wall
        self._on_problem = on_problem
        self._detach: list[Callable[[], None]] = []
        self._observed: Observed | None = None
        self._outage_began: tuple[float, str] | None = None
        self._is_open = False
        self._is_closed = False
        self._writer = SqliteMetrics(
            Path(os.path.realpath(path)),
            labels={
                "implementation": _storable(implementation),
                "version": _storable(version),
                "instance": _storable(gethostname() if instance is None else instance),
            },
            max_age=max_age,
            max_rows=max_rows,
            max_queued=max_queued,
            wall=wall,
            report=self._problem,
        )

    async def __aenter__(self) -> Self:
        self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def counters(self) -> WriterCounters:
        """Counts of records so far, by their fate."""
        return self._writer.counters

    def open(self) -> None:
        """Begin to write, in a thread. Returns at once, whatever is the matter with the file.

        Raises:
            ClosedError: If it was closed. Make another one.
        """
        if self._is_closed:
            raise ClosedError("The metrics database was closed.", remedy="Make another one.")
        if not self._is_open:
            self._is_open = True
            self._writer.start()

    async def close(self) -> None:
        """Detach, write what is queued, and release the file; within about 3 s. Safe to call twice."""
        self.detach()
        self._is_closed = True
        self._writer.stop()
        if self._is_open:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(None, self._writer.join, CLOSE_TIMEOUT)

    def attach(self, realtime: Observed) -> None:
        """Record what happens to a client from now on, beginning with the state that it is in.

        Args:
            realtime: The client. One at a time.

        Raises:
            InvalidArgumentError: If a client is attached already.
        """
        if self._observed is not None:
            raise InvalidArgumentError(
                "The metrics database is attached already.", remedy="Detach it, or make one for each client."
            )
        self._observed = realtime
        status = realtime.connection_status
        traits = TRAITS[status.get()]
        last = status.last
        is_wanted = last is not None and last.trigger is not Trigger.DISCONNECT
        level = _level(sends=traits.sends, carries_data=traits.carries_data, is_wanted=is_wanted)
        self.record_change(level, current=status.get().value, reason="recording begins")
        self._detach = [
            status.subscribe(self._changed),
            status.subscribe_attempts(self._attempted),
            status.subscribe_latency(self.record_latency),
        ]

    def detach(self) -> None:
        """Stop recording the client, if one is attached. An outage that goes on is left without an end."""
        for end in self._detach:
            end()
        self._detach = []
        self._observed = None
        self._outage_began = None

    # Records. Each returns whether there was room for it.

    def record_change(
        self,
        level: Level | str,
        *,
        current: str,
        previous: str = "",
        trigger: str = "",
        cause: str | BaseException | None = None,
        reason: str = "",
        at: float | None = None,
    ) -> bool:
        """Record a change of the state.

        Args:
            level: How well the client is served from now on; what availability is counted in.
            current: Name of the state that was entered.
            previous: Name of the one that was left.
            trigger: What moved it.
            cause: What failed: a word, or an error, of which the class is kept and no text.
            reason: In words for people. Must hold no secret.
            at: Unix time; by default now.

        Raises:
            ValueError: If it is no level.
        """
        row = (Level(level).value, previous, current, trigger, _word(cause), reason[:_MAX_TEXT])
        return self._writer.put("change", (self._time(at), *row))

    def record_attempt(
        self,
        duration: float,
        *,
        cause: str | BaseException | None = None,
        number: int = 1,
        at: float | None = None,
    ) -> bool:
        """Record the end of a dial.

        Args:
            duration: Seconds that it took.
            cause: Why it failed, as above; ``None`` if it succeeded.
            number: Which attempt of its episode; 1-based.
            at: When it ended, Unix time; by default now.
        """
        return self._writer.put("attempt", (self._time(at), float(duration), int(number), _word(cause)))

    def record_outage(
        self,
        began_at: float,
        *,
        cause: str | BaseException,
        ended_at: float | None = None,
        recovered: bool = True,
    ) -> bool:
        """Record an outage: once it is over, or when it begins and again, with the same begin, when it ends.

        Args:
            began_at: Unix time.
            cause: What began it, as above.
            ended_at: Unix time; ``None`` while it lasts.
            recovered: Whether it ended in a live connection, rather than because nobody wanted one any more.
        """
        has_recovered = recovered and ended_at is not None
        row = (float(began_at), ended_at, _word(cause) or "unknown", int(has_recovered))
        return self._writer.put("outage", row)

    def record_latency(self, seconds: float, *, at: float | None = None) -> bool:
        """Record a round trip.

        Args:
            seconds: How long it took.
            at: Unix time; by default now.
        """
        return self._writer.put("latency", (self._time(at), float(seconds)))

    # What the client tells.

    def _changed(self, change: StatusChange) -> None:
        traits = TRAITS[change.current]
        is_wanted = change.trigger is not Trigger.DISCONNECT
        level = _level(sends=traits.sends, carries_data=traits.carries_data, is_wanted=is_wanted)
        self.record_change(
            level,
            current=change.current.value,
            previous=change.previous.value,
            trigger=change.trigger.value,
            cause=change.error,
            reason=change.reason,
            at=change.at,
        )
        if self._outage_began is not None and level in {Level.LIVE, Level.OFF}:
            began_at, cause = self._outage_began
            self._outage_began = None
            self.record_outage(began_at, cause=cause, ended_at=change.at, recovered=level is Level.LIVE)
        elif self._outage_began is None and is_wanted and not traits.sends:
            if change.trigger is Trigger.CONNECT:  # it has not failed yet
                return
            self._outage_began = (change.at, _word(change.error) or change.trigger.value)
            self.record_outage(change.at, cause=self._outage_began[1])

    def _attempted(self, attempt: AttemptRecord) -> None:
        self.record_attempt(attempt.duration, cause=attempt.error, number=attempt.number, at=attempt.at)

    def _problem(self, error: MetricsStorageError) -> None:
        if self._on_problem is not None:
            self._on_problem(error)
        if self._observed is not None:
            self._observed.recovery.handle(error, log=False)  # the writer has logged it

    def _time(self, at: float | None) -> float:
        return self._wall() if at is None else float(at)


def _level(*, sends: bool, carries_data: bool, is_wanted: bool) -> Level:
    if not is_wanted:
        return Level.OFF
    if sends:
        return Level.LIVE
    return Level.DEGRADED if carries_data else Level.DOWN


def _word(cause: str | BaseException | None) -> str | None:
    """Return a cause as one word; of an error never its text, which somebody else may have written."""
    return type(cause).__name__ if isinstance(cause, BaseException) else cause


def _storable(label: str) -> str:
    """Return a label as a file can hold it; the environment may bring bytes that are no text."""
    return label.encode("utf-8", "replace").decode("utf-8")
