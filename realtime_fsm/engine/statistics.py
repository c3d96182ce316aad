"""The engine's counters: plain numbers, so that counting costs nothing; monitoring reads them."""

from collections import Counter, deque
from collections.abc import Callable
from typing import Final

from attrs import define, field

from realtime_fsm.machine.figures import quantile
from realtime_fsm.machine.table import TRAITS, ConnectionStatus, Trigger

RECENT: Final = 512
"""Round trips that percentiles are of."""


@define(kw_only=True)
class Latency:
    """Round trips of probes, in bounded memory.

    Attributes:
        last: Seconds, or ``None`` before the first.
        total: Sum of all, seconds.
        count: How many.
        listeners: Told of each, at once; they are the library's own, and never raise.
        recent: The last of them, for percentiles.
    """

    last: float | None = None
    total: float = 0.0
    count: int = 0
    listeners: list[Callable[[float], object]] = field(factory=list, repr=False)
    recent: deque[float] = field(factory=lambda: deque(maxlen=RECENT))

    def add(self, seconds: float) -> None:
        """Count one round trip."""
        self.last = seconds
        self.total += seconds
        self.count += 1
        for listener in self.listeners:
            listener(seconds)
        self.recent.append(seconds)

    @property
    def average(self) -> float | None:
        """Mean of all round trips in seconds, or ``None`` before the first."""
        return self.total / self.count if self.count else None

    def percentiles(self, *percents: int) -> tuple[float | None, ...]:
        """Return percentiles of the recent round trips: the smallest that so many percent do not exceed.

        Args:
            percents: From 1 to 100.

        Returns:
            Seconds; ``None`` for each before the first round trip.
        """
        ordered = sorted(self.recent)
        return tuple(quantile(ordered, percent / 100) for percent in percents)


@define(kw_only=True)
class Stays:
    """The time that each state has lasted altogether, without the time in which no connection is wanted.

    Attributes:
        seconds: Of the stays that have ended, by state.
        status: The present one.
        since: When it was entered, on the loop's clock; ``None`` while no connection is wanted.
    """

    seconds: dict[ConnectionStatus, float] = field(factory=dict)
    status: ConnectionStatus = ConnectionStatus.DISCONNECTED
    since: float | None = None

    def enter(self, status: ConnectionStatus, now: float) -> None:
        """Note that a state was entered."""
        if self.since is not None:
            self.seconds[self.status] = self.seconds.get(self.status, 0.0) + now - self.since
        self.status = status
        self.since = now if TRAITS[status].wanted else None

    def totals(self, time: Callable[[], float]) -> dict[ConnectionStatus, float]:
        """Return the seconds of each state up to now; 0 for one that was never entered."""
        totals = {status: self.seconds.get(status, 0.0) for status in ConnectionStatus}
        if self.since is not None:
            totals[self.status] += time() - self.since
        return totals


@define(kw_only=True)
class Statistics:
    """Counters of one client since it was made. Only ever rise, but for the times.

    Attributes:
        changes: Transitions taken, by (source, trigger, destination).
        stays: Time spent in each state.
        causes: Failed attempts and losses, by the name of their error.
        attempts: Dials, probes for the socket included.
        failed_attempts: Of them, the ones that failed.
        connections: Times the connection became live.
        losses: Times a live connection ended by itself.
        connected_seconds: Time spent live, without the present connection.
        connected_at: When the present connection became live, on the loop's clock; ``None`` while it is not.
        last_connected_at: Wall-clock time of the last time it became live.
        last_failure_at: Wall-clock time of the last failed attempt or loss.
        last_failure_reason: Its words.
        latency: Round trips of heartbeats.
        heartbeats: Probes sent.
        acknowledged_heartbeats: Heartbeat events that were acknowledged.
        accepted: Messages taken by ``emit`` and ``call``.
        restored: Messages that a durable outbox had kept, and gave back when it was opened.
        sent: Messages handed to the network, repeats included.
        resent: Of them, the repeats after a loss.
        published: Messages published over HTTP.
        repeated: Messages that the server had applied before, and said so.
        settled: Messages by what became of them (value of ``Outcome``).
        buried: Messages put among the dead letters.
        events: Events that arrived, over the socket or by polling.
        dispatched: Events that reached at least one handler.
        duplicates: Events that were dropped because they had arrived before.
        gaps: Times that offsets of a channel did not follow one another; a replay closed them.
        unrecovered: Times that events were missed which the server could not replay.
        resyncs: Times that the resync hook was called.
        handler_errors: Exceptions raised by handlers and callbacks of the user.
        dropped: What else was dropped, by reason.
        stale: Results, packets and timers of an older epoch that were dropped.
        malformed: Frames that could not be decoded.
        token_refreshes: Tokens fetched.
        polls: HTTP polls made.
        failed_polls: Of them, the ones that failed.
        failed_publishes: Requests with messages that failed, or did not answer for all of them.
        ack_ids: Acknowledgements asked for; the last one's number on the wire.
        crashes: Activities that ended by an unexpected exception.
    """

    changes: Counter[tuple[ConnectionStatus, Trigger, ConnectionStatus]] = field(factory=Counter)
    stays: Stays = field(factory=Stays)
    causes: Counter[str] = field(factory=Counter)
    attempts: int = 0
    failed_attempts: int = 0
    connections: int = 0
    losses: int = 0
    connected_seconds: float = 0.0
    connected_at: float | None = None
    last_connected_at: float | None = None
    last_failure_at: float | None = None
    last_failure_reason: str | None = None
    latency: Latency = field(factory=Latency)
    heartbeats: int = 0
    acknowledged_heartbeats: int = 0
    accepted: int = 0
    restored: int = 0
    sent: int = 0
    resent: int = 0
    published: int = 0
    repeated: int = 0
    settled: Counter[str] = field(factory=Counter)
    buried: int = 0
    events: int = 0
    dispatched: int = 0
    duplicates: int = 0
    gaps: int = 0
    unrecovered: int = 0
    resyncs: int = 0
    handler_errors: int = 0
    dropped: Counter[str] = field(factory=Counter)
    stale: int = 0
    malformed: int = 0
    token_refreshes: int = 0
    polls: int = 0
    failed_polls: int = 0
    failed_publishes: int = 0
    ack_ids: int = 0
    crashes: int = 0
