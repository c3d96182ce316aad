"""CONNECTING: a fresh token, then open and authenticate, bounded by ``connection_timeout``."""

import asyncio

from realtime_fsm.engine.component import Components, Stay
from realtime_fsm.engine.flight_recorder import Kind
from realtime_fsm.engine.link import Link
from realtime_fsm.machine.errors import (
    AuthenticationError,
    ConnectTimeoutError,
    InternalError,
    NamespaceRefusedError,
    RealtimeError,
    TokenSourceError,
)
from realtime_fsm.machine.record import AttemptRecord
from realtime_fsm.machine.table import Trigger


async def establish(parts: Components, stay: Stay) -> None:
    """Make one attempt and report how it ended."""
    try:
        link = await dial(parts, stay)
    except RealtimeError as error:
        stay.report(Trigger.ATTEMPT_FAILED, error=error)
    else:
        if not stay.report(Trigger.ESTABLISHED, link=link):
            stay.dispose(link)


async def dial(parts: Components, stay: Stay) -> Link:
    """Open a connection; where the server refuses the token, once more at once with a new one.

    Raises:
        RealtimeError: Why it failed. Everything that had been opened is being released.
    """
    try:
        return await _dial_once(parts, stay)
    except TokenSourceError:
        raise
    except AuthenticationError:
        if not parts.tokens.can_refresh:
            raise
        parts.tokens.forget()
        return await _dial_once(parts, stay)


async def _dial_once(parts: Components, stay: Stay) -> Link:
    loop = asyncio.get_running_loop()
    started = loop.time()
    parts.statistics.attempts += 1
    error: RealtimeError | None = None
    try:
        return await _open(parts, stay)
    except RealtimeError as failure:
        error = failure
        parts.statistics.failed_attempts += 1
        parts.statistics.causes[type(failure).__name__] += 1
        parts.statistics.last_failure_at = parts.wall()
        parts.statistics.last_failure_reason = str(failure)
        raise
    finally:
        how = "succeeded" if error is None else f"failed: {error.message}"
        parts.recorder.note(Kind.ATTEMPT, f"an attempt of {loop.time() - started:.3f} s {how}")
        parts.status.record(
            AttemptRecord(
                number=max(1, stay.change.attempt),
                duration=loop.time() - started,
                error=error,
                at=parts.wall(),
            )
        )


async def _open(parts: Components, stay: Stay) -> Link:
    limit = parts.config.connection_timeout
    link: Link | None = None
    try:
        async with asyncio.timeout(limit):
            token = await parts.tokens.current()
            auth = None if token is None else {parts.config.dialect.token_key: token.value}
            link = stay.make_link()
            await link.open(parts.session.auth(auth))
            parts.session.joined(link.transport.welcome)
    except BaseException as failure:
        if link is not None:
            stay.dispose(link)
            if isinstance(failure, (AuthenticationError, NamespaceRefusedError)):
                parts.session.forget()  # it was refused with the session; the next attempt begins a new one
        if isinstance(failure, TimeoutError) and not isinstance(failure, RealtimeError):
            raise ConnectTimeoutError(f"The attempt was given up after {limit} s.") from failure
        if isinstance(failure, Exception) and not isinstance(failure, RealtimeError):
            raise InternalError(f"Opening the connection raised {type(failure).__name__}.") from failure
        raise
    return link
