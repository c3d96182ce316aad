"""The metrics of a connection, as one frozen picture."""

from collections.abc import Callable, Mapping

from attrs import frozen

from realtime_fsm.engine.sender import Sender
from realtime_fsm.engine.statistics import Statistics
from realtime_fsm.machine.delivery import Outcome
from realtime_fsm.machine.table import ConnectionStatus


@frozen(kw_only=True)
class ConnectionMetrics:
    """A picture of one client, taken when ``metrics`` was read. Times are seconds, instants Unix time.

    Attributes:
        status: The state.
        uptime: Seconds that the present connection has lasted; 0 while there is none.
        connected_seconds: Seconds spent connected altogether.
        total_connections: Times the connection became live.
        failed_connections: Attempts that failed.
        attempts: Attempts made.
        losses: Times a live connection ended by itself.
        average_latency: Mean round trip of the heartbeats, or ``None`` before the first.
        last_latency: The last one.
        latency_count: Round trips measured.
        latency_p50: Median of the last 512 round trips, or ``None`` before the first.
        latency_p95: Their 95th percentile.
        latency_p99: Their 99th.
        heartbeats: Probes of the link.
        seconds_by_status: Time spent in each state, by its value.
        failures_by_cause: Failed attempts and losses, by the name of their error.
        retry_in: Seconds that the present wait for the next attempt was given; ``None`` while none is.
        last_connected_at: When it last became live.
        last_failure_at: When an attempt last failed or the connection was last lost.
        last_failure_reason: Why.
        messages_accepted: Taken by ``emit`` and ``call``.
        messages_restored: That a durable outbox had kept, and gave back at a connect.
        messages_delivered: Sent without, or with, the acknowledgement that was asked for.
        messages_waiting: In the outbox, the ones in flight included.
        messages_in_flight: Sent and not acknowledged yet.
        messages_resent: Repeats after a loss.
        messages_published: Published over HTTP.
        messages_repeated: That the server had applied before, and said so.
        messages_buried: Put among the dead letters.
        messages_by_outcome: What became of messages, by the value of ``Outcome``.
        outbox_bytes: Bytes in the outbox.
        outbox_oldest_age: Seconds since the oldest message in it was accepted; 0 where it is empty.
        events_received: Over the socket or by polling.
        events_dispatched: Handed to at least one handler.
        events_pending: Waiting for their handlers.
        duplicates_dropped: Events that had arrived before.
        gaps: Times that events of a channel did not follow one another; a replay closed them.
        unrecovered: Times that events were missed which the server could not replay.
        resyncs: Times that the resync hook was called.
        handler_errors: Raised by handlers and callbacks.
        malformed_frames: That could not be decoded.
        stale_dropped: Results, packets and timers of an older epoch.
        dropped: What else was dropped, by reason.
        token_refreshes: Tokens fetched.
        polls: HTTP polls made.
        failed_polls: Of them, the ones that failed.
        failed_publishes: Requests with messages that failed, or did not answer for all of them.
        activity_crashes: Activities that ended by a bug.
        transitions: Transitions taken, by ``"source trigger destination"``.
    """

    status: ConnectionStatus
    uptime: float
    connected_seconds: float
    total_connections: int
    failed_connections: int
    attempts: int
    losses: int
    average_latency: float | None
    last_latency: float | None
    latency_count: int
    latency_p50: float | None
    latency_p95: float | None
    latency_p99: float | None
    heartbeats: int
    seconds_by_status: Mapping[str, float]
    failures_by_cause: Mapping[str, int]
    retry_in: float | None
    last_connected_at: float | None
    last_failure_at: float | None
    last_failure_reason: str | None
    messages_accepted: int
    messages_restored: int
    messages_delivered: int
    messages_waiting: int
    messages_in_flight: int
    messages_resent: int
    messages_published: int
    messages_repeated: int
    messages_buried: int
    messages_by_outcome: Mapping[str, int]
    outbox_bytes: int
    outbox_oldest_age: float
    events_received: int
    events_dispatched: int
    events_pending: int
    duplicates_dropped: int
    gaps: int
    unrecovered: int
    resyncs: int
    handler_errors: int
    malformed_frames: int
    stale_dropped: int
    dropped: Mapping[str, int]
    token_refreshes: int
    polls: int
    failed_polls: int
    failed_publishes: int
    activity_crashes: int
    transitions: Mapping[str, int]


def measure(
    statistics: Statistics,
    *,
    status: ConnectionStatus,
    retry_in: float | None,
    sender: Sender,
    pending: int,
    time: Callable[[], float],
    wall: Callable[[], float],
) -> ConnectionMetrics:
    """Return the metrics as they are now.

    Args:
        statistics: What the engine counted.
        status: The state.
        retry_in: Of the last change.
        sender: Messages on their way out.
        pending: Events waiting for their handlers.
        time: The loop's clock.
        wall: The wall clock.
    """
    uptime = 0.0 if statistics.connected_at is None else time() - statistics.connected_at
    settled = dict(statistics.settled)
    oldest = sender.oldest_accepted_at
    p50, p95, p99 = statistics.latency.percentiles(50, 95, 99)
    return ConnectionMetrics(
        status=status,
        uptime=uptime,
        connected_seconds=statistics.connected_seconds + uptime,
        total_connections=statistics.connections,
        failed_connections=statistics.failed_attempts,
        attempts=statistics.attempts,
        losses=statistics.losses,
        average_latency=statistics.latency.average,
        last_latency=statistics.latency.last,
        latency_count=statistics.latency.count,
        latency_p50=p50,
        latency_p95=p95,
        latency_p99=p99,
        heartbeats=statistics.heartbeats,
        seconds_by_status={status.value: s for status, s in statistics.stays.totals(time).items()},
        failures_by_cause=dict(statistics.causes),
        retry_in=retry_in,
        last_connected_at=statistics.last_connected_at,
        last_failure_at=statistics.last_failure_at,
        last_failure_reason=statistics.last_failure_reason,
        messages_accepted=statistics.accepted,
        messages_restored=statistics.restored,
        messages_delivered=sum(settled.get(o.value, 0) for o in Outcome if o.is_delivered),
        messages_waiting=len(sender.queue),
        messages_in_flight=sender.in_flight_count,
        messages_resent=statistics.resent,
        messages_published=statistics.published,
        messages_repeated=statistics.repeated,
        messages_buried=statistics.buried,
        messages_by_outcome=settled,
        outbox_bytes=sender.queue.size_bytes,
        outbox_oldest_age=0.0 if oldest is None else max(0.0, wall() - oldest),
        events_received=statistics.events,
        events_dispatched=statistics.dispatched,
        events_pending=pending,
        duplicates_dropped=statistics.duplicates,
        gaps=statistics.gaps,
        unrecovered=statistics.unrecovered,
        resyncs=statistics.resyncs,
        handler_errors=statistics.handler_errors,
        malformed_frames=statistics.malformed,
        stale_dropped=statistics.stale,
        dropped=dict(statistics.dropped),
        token_refreshes=statistics.token_refreshes,
        polls=statistics.polls,
        failed_polls=statistics.failed_polls,
        failed_publishes=statistics.failed_publishes,
        activity_crashes=statistics.crashes,
        transitions={f"{s} {t} {d}": n for (s, t, d), n in statistics.changes.items()},
    )
