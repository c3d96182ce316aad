"""What happens to the old client, in the terms of the metrics database."""

import time
from collections.abc import Callable

from realtime_fsm.migration.rollout_client import Signal, SignalKind
from realtime_fsm.monitoring.metrics_database import MetricsDatabase
from realtime_fsm.monitoring.report_data import Level

_CONNECTING = "connecting"
_CONNECTED = "connected"
_OFF = "disconnected"


class PlainRecorder:
    """Records as the new client is recorded, so that the two can be compared.

    Args:
        database: Where; its implementation is ``legacy``.
        wall: The wall clock.
    """

    def __init__(self, database: MetricsDatabase, wall: Callable[[], float] = time.time) -> None:
        self._database = database
        self._wall = wall
        self._state = _OFF
        self._outage: tuple[float, str] | None = None

    def begin(self, *, is_connected: bool, is_wanted: bool) -> None:
        """Record the state that it is in."""
        state = _CONNECTED if is_connected else _CONNECTING if is_wanted else _OFF
        self._enter(state, trigger="", reason="recording begins")

    def connecting(self) -> None:
        """Record that a connection is wanted."""
        self._enter(_CONNECTING, trigger="connect")

    def disconnected(self) -> None:
        """Record that none is wanted any more."""
        self._end_outage(recovered=False)
        self._enter(_OFF, trigger="disconnect")

    def latency(self, seconds: float) -> None:
        """Record a round trip."""
        self._database.record_latency(seconds)

    def signal(self, signal: Signal) -> None:
        """Record what the client tells."""
        if signal.kind is SignalKind.LIVE:
            self._database.record_attempt(signal.duration, number=signal.number)
            self._end_outage(recovered=True)
            self._enter(_CONNECTED, trigger="connected")
        elif signal.kind is SignalKind.FAILED:
            self._database.record_attempt(signal.duration, number=signal.number, cause=signal.error)
            self._begin_outage(signal)
        elif signal.kind is SignalKind.LOST:
            self._begin_outage(signal)
            self._enter(_CONNECTING, trigger="connection_lost", cause=signal.error)

    def _enter(
        self, state: str, *, trigger: str, cause: BaseException | None = None, reason: str = ""
    ) -> None:
        level = {_CONNECTED: Level.LIVE, _CONNECTING: Level.DOWN, _OFF: Level.OFF}[state]
        self._database.record_change(
            level, current=state, previous=self._state, trigger=trigger, cause=cause, reason=reason
        )
        self._state = state

    def _begin_outage(self, signal: Signal) -> None:
        if self._outage is None:
            cause = "unknown" if signal.error is None else type(signal.error).__name__
            self._outage = (self._wall(), cause)
            self._database.record_outage(self._outage[0], cause=cause)

    def _end_outage(self, *, recovered: bool) -> None:
        if self._outage is not None:
            (began_at, cause), self._outage = self._outage, None
            self._database.record_outage(began_at, cause=cause, ended_at=self._wall(), recovered=recovered)
