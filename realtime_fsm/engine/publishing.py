"""FALLBACK: publish the outbox over HTTP, with the same ids as over the socket."""

import asyncio
from typing import Final

from realtime_fsm.engine.component import Components, Stay
from realtime_fsm.engine.envelope import published
from realtime_fsm.engine.message import Message
from realtime_fsm.engine.polling import bearer
from realtime_fsm.engine.port import HttpAnswer
from realtime_fsm.machine.errors import (
    AuthenticationError,
    ErrorCategory,
    ProtocolError,
    RealtimeError,
    ServerUnavailableError,
    ServerUnreachableError,
)
from realtime_fsm.machine.table import Trigger

_BATCH: Final = 50
_SLOWEST: Final = 30.0
"""Seconds between two tries at most, while publishing fails."""


async def publishing(parts: Components, stay: Stay) -> None:
    """Publish what waits, in order, batch by batch. Without an endpoint for it all waits for the socket."""
    path = parts.config.dialect.publish_path
    if path is None:
        return
    url = parts.config.absolute(path)
    failures = 0
    while True:
        batch = await parts.sender.next_batch(_BATCH)
        try:
            await _publish(parts, url, batch)
        except AuthenticationError as error:
            stay.report(Trigger.POLLING_REFUSED, error=error)
            return
        except RealtimeError as error:
            failures += 1
            parts.statistics.failed_publishes += 1
            pause = min(2.0**failures * parts.random.uniform(0.5, 1.0), _SLOWEST)
            parts.recovery.handle(error)
            await asyncio.sleep(max(pause, error.retry_after or 0.0))
        else:
            failures = 0


async def _publish(parts: Components, url: str, batch: list[Message]) -> None:
    """Publish one batch; every message of it is settled or given back, whatever happens."""
    open_ = {message.receipt.message_id: message for message in batch}
    arrived, failed = True, False  # unless it is known that nothing did
    try:
        answer = await _post(parts, url, batch)
        results = answer.body.get("results") if isinstance(answer.body, dict) else None
        for result in results if isinstance(results, list) else ():
            message = open_.pop(str(result.get("message_id")), None) if isinstance(result, dict) else None
            if message is not None:
                parts.sender.published(message, result)
        if open_:  # reported and waited for, because a server that does it once may do it every time
            raise ProtocolError(
                f"The publishing endpoint answers for {len(batch) - len(open_)} of {len(batch)} messages.",
                remedy="Check `dialect`: the server must answer for each message.",
            )
    except (ServerUnreachableError, ServerUnavailableError, AuthenticationError):
        arrived = False
        raise
    except RealtimeError as error:
        # The network's faults are not the message's; nor is it where others of the batch were taken.
        failed = error.category is ErrorCategory.PROTOCOL and len(open_) == len(batch)
        raise
    finally:
        parts.sender.unpublished(list(open_.values()), maybe_arrived=arrived, failed=failed)


async def _post(parts: Components, url: str, batch: list[Message]) -> HttpAnswer:
    body = {"messages": [published(message) for message in batch]}
    key = f"{batch[0].receipt.message_id}+{len(batch)}"
    try:
        return await parts.http.post(url, body, token=await bearer(parts, own=True), idempotency_key=key)
    except AuthenticationError:
        if not parts.tokens.can_refresh:
            raise
        parts.tokens.forget()
        return await parts.http.post(url, body, token=await bearer(parts, own=True), idempotency_key=key)
