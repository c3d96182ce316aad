"""CONNECTED: notice a dead link, whatever the server's own settings."""

import asyncio

from realtime_fsm.engine.component import Components, Stay
from realtime_fsm.engine.link import Link, Probe
from realtime_fsm.machine.errors import DeliveryError, HeartbeatTimeoutError
from realtime_fsm.machine.table import Trigger


async def heartbeat(parts: Components, stay: Stay) -> None:
    """Probe the link when it has been silent, and report it lost when it stays so.

    Any frame from the peer is a sign of life. A link that dies is reported within ``heartbeat_interval +
    heartbeat_timeout``, also when its writer is stalled: nothing here waits for a write. While the handlers
    hold reading back, silence proves nothing and is not judged.
    """
    link = stay.link
    if link is None:  # pragma: no cover - the machine enters CONNECTED with a link only
        raise AssertionError("CONNECTED without a link")
    loop = asyncio.get_running_loop()
    config = parts.config
    while True:
        probe = link.probe()
        await asyncio.sleep(config.heartbeat_timeout)
        if probe.asked and link.quiet_since < probe.sent_at and not link.is_paused:
            silent = loop.time() - link.quiet_since
            stay.report(
                Trigger.CONNECTION_LOST,
                error=HeartbeatTimeoutError(
                    f"Nothing came from the server for {silent:.1f} s, not even an answer to a probe."
                ),
            )
            return
        if link.was_received(probe):
            _report_unacknowledged(parts, probe)
        await _until_due(parts, link, probe)


async def _until_due(parts: Components, link: Link, probe: Probe) -> None:
    """Wait until the next probe is due. Traffic in the meantime puts it off, once the last was answered."""
    time = asyncio.get_running_loop().time
    while (wait := _next_probe_at(parts, link, probe) - time()) > 0:  # noqa: ASYNC110 - no event a frame
        await asyncio.sleep(wait)


def _next_probe_at(parts: Components, link: Link, probe: Probe) -> float:
    """Return when the link will have been silent for long enough, or a message unacknowledged."""
    quiet_since = link.quiet_since if link.unanswered_since is None else probe.sent_at
    silent_at = quiet_since + parts.config.heartbeat_interval
    oldest = parts.sender.oldest_in_flight_at
    if oldest is None:
        return silent_at
    overdue_at = max(oldest, probe.sent_at) + parts.config.ack_timeout
    return min(silent_at, overdue_at)


def _report_unacknowledged(parts: Components, probe: Probe) -> None:
    for message in parts.sender.report_unacknowledged(probe.sent_at):
        parts.recovery.handle(
            DeliveryError(
                f"The server did not acknowledge message {message.receipt.message_id} ({message.event!r}).",
                outcome=message.receipt.outcome.value,
                remedy="Its handler must call back; for one that does not, use AT_MOST_ONCE.",
            )
        )
