"""The activities: what runs for as long as a state lasts, in the order of the table that they mirror.

Each row of ``ACTIVITIES`` (``machine/table.py``) names one function here; polling and publishing, which speak
HTTP, stand in ``fallback.py``. The connection manager starts the rows of a state when it is entered, and
cancels them when it is left; so an activity holds nothing that a cancellation would leave open.

An activity is given the client's parts and its ``Stay``. It changes no state itself: what it finds out it
reports to the stay as a trigger, and the table says where that leads. A report that comes too late, because
the stay has ended, is dropped and counted. An exception that no activity expects becomes the trigger
``Traits.on_crash`` of the state: an activity never ends in silence.

=============  ===========================================================================================
CONNECTING     ``establish``: one attempt, bounded by ``connection_timeout``
CONNECTED      ``heartbeat``: notice a dead link; ``token_refresh``: renew the token before it expires;
               ``catch_up``: say the first words, subscribe, receive what was missed, and then let the
               outbox drain
RECONNECTING   ``backoff``: wait, then try again
FAILED         ``decide``: fall back where that is allowed, otherwise rest
FALLBACK       ``polling`` and ``publishing`` over HTTP, and ``probing``: look for the socket
=============  ===========================================================================================
"""

import asyncio
import logging
from typing import Final

from realtime_fsm.engine.component import Components, Stay
from realtime_fsm.engine.flight_recorder import Kind
from realtime_fsm.engine.link import Link, Probe
from realtime_fsm.engine.message import refusal_text
from realtime_fsm.engine.payload import encode
from realtime_fsm.engine.port import Token
from realtime_fsm.engine.token import LEAST_REFRESH
from realtime_fsm.machine.backoff import Pacer
from realtime_fsm.machine.errors import (
    AuthenticationError,
    ConnectionLostError,
    ConnectTimeoutError,
    DeliveryError,
    HeartbeatTimeoutError,
    InternalError,
    NamespaceRefusedError,
    RealtimeError,
    TokenSourceError,
)
from realtime_fsm.machine.record import AttemptRecord
from realtime_fsm.machine.redaction import redacted
from realtime_fsm.machine.table import Trigger

_logger = logging.getLogger("realtime_fsm.activity")


# CONNECTING


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
        # The bound is ours. python-socketio's `wait_timeout` covers the wait for the namespace alone, and its
        # websocket waits for the OPEN packet for ever.
        async with asyncio.timeout(limit):
            # Before the transport opens: python-socketio calls an `auth` function between the opening and its
            # first read, where a slow one lets the server's pings time out.
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
        # Whatever the user's header and cookie functions raise, or a library on an answer that it did not
        # expect: aiohttp and python-engineio let TypeError, IndexError and JSONDecodeError through.
        if isinstance(failure, Exception) and not isinstance(failure, RealtimeError):
            raise InternalError(f"Opening the connection raised {type(failure).__name__}.") from failure
        raise
    return link


# CONNECTED


async def heartbeat(parts: Components, stay: Stay) -> None:
    """Probe the link every ``heartbeat_interval``, and report it lost when a probe is not answered in time.

    Only an answer proves both ways: on a link whose way up is dead events may go on coming down. So a link
    that dies, either way, is reported within ``heartbeat_interval + heartbeat_timeout``, also when its writer
    is stalled: nothing here waits for a write. A slow way up is not a dead one: while what stands before the
    probe is seen to leave or to arrive, its answer is not overdue. Who has overslept asks once more, because
    the answer may lie in the socket.
    """
    # python-engineio never pings by itself: its client is told of a dead link by the server's own settings
    # alone, which is 45 s by default (30 s on the way out, in which what is emitted is stranded).
    link = stay.live_link
    loop = asyncio.get_running_loop()
    patience = parts.config.heartbeat_timeout
    excuses = _EXCUSES
    while True:
        probe = link.probe()
        overslept = await _answer(stay, probe, patience)
        if not link.is_unanswered(probe):
            excuses = _EXCUSES
            _report_unacknowledged(parts, link, probe)
            await _until_due(parts, stay, probe)
        elif overslept > patience * _TOLERANCE and excuses > 0:
            excuses -= 1
            parts.recorder.note(Kind.DECISION, f"the loop was {overslept:.3f} s late: a probe is asked again")
        else:
            silent = loop.time() - link.transport.last_received
            error = HeartbeatTimeoutError(
                f"The server has not answered a probe within {loop.time() - probe.sent_at:.1f} s, "
                f"and nothing came from it for {silent:.1f} s."
            )
            stay.report(Trigger.CONNECTION_LOST, error=error)
            return


_LOOKS: Final = 4
"""How often an answer is looked for while it is not overdue; an own stall shows by any that is late."""

_TOLERANCE: Final = 0.1
"""The part of ``heartbeat_timeout`` by which looks may be late: it takes nothing away from the answer."""

_EXCUSES: Final = 2
"""Probes in a row that are not judged because of own stalls: a loop that always stalls must judge as well."""


async def _answer(stay: Stay, probe: Probe, patience: float) -> float:
    """Wait for the answer to a probe until it is overdue; return by how much the loop was late meanwhile."""
    link, time = stay.live_link, asyncio.get_running_loop().time
    late, woken = 0.0, False
    while link.is_unanswered(probe) and (left := link.overdue_at(probe, patience) - time()) > 0:
        step = min(left, patience / _LOOKS)  # a short one: a stall in the middle is seen as well
        due_at = time() + step
        woken |= await stay.woken_within(step)
        late += max(0.0, time() - due_at)
    if woken:
        stay.wake.set()  # who asks for a probe now does not mean the one that was under way
    return late


async def _until_due(parts: Components, stay: Stay, probe: Probe) -> None:
    """Wait until the next probe is due, or is asked for."""
    time = asyncio.get_running_loop().time
    while (wait := _next_probe_at(parts, probe) - time()) > 0:
        if await stay.woken_within(wait):
            return


def _next_probe_at(parts: Components, probe: Probe) -> float:
    """Return when the way up will have been unproven for long enough, or a message unacknowledged."""
    due_at = probe.sent_at + parts.config.heartbeat_interval
    oldest = parts.sender.oldest_in_flight_at
    if oldest is None:
        return due_at
    overdue_at = oldest + parts.config.ack_timeout
    if overdue_at <= probe.sent_at:  # that was asked about already
        overdue_at = probe.sent_at + parts.config.ack_timeout
    return min(due_at, overdue_at)


def _report_unacknowledged(parts: Components, link: Link, probe: Probe) -> None:
    received = link.received_before(probe)
    for message in parts.sender.report_unacknowledged(received=received, asked_at=probe.sent_at):
        parts.recovery.handle(
            DeliveryError(
                f"The server did not acknowledge message {message.receipt.message_id} ({message.event!r}).",
                outcome=message.receipt.outcome.value,
                remedy="Its handler must call back; for one that does not, use AT_MOST_ONCE.",
            )
        )


_MOST_DOUBLINGS: Final = 5
"""While the source fails the pause doubles, up to half a minute."""


async def token_refresh(parts: Components, stay: Stay) -> None:
    """Refresh early; where the dialect can, tell the server at once, otherwise at the next connect.

    A refresh that fails is reported and tried again; the connection lives on until the server ends it.
    """
    failures = 0
    while (delay := parts.tokens.refresh_in) is not None:
        await asyncio.sleep(max(delay, LEAST_REFRESH * 2 ** min(failures, _MOST_DOUBLINGS)))
        try:
            token = await parts.tokens.refresh()
        except RealtimeError as error:
            failures += 1
            parts.recovery.handle(error)
            continue
        failures = 0
        _logger.debug("the token was refreshed")
        if token is not None:
            await _reauthenticate(parts, stay.live_link, token)


async def _reauthenticate(parts: Components, link: Link, token: Token) -> None:
    dialect = parts.config.dialect
    if dialect.reauthenticate_event is None:
        return
    body = [dialect.reauthenticate_event, {dialect.token_key: token.value}]
    link.secrets.add(token.value)
    payload = encode(body, what="The token", max_bytes=parts.config.max_message_bytes)
    try:
        async with asyncio.timeout(parts.config.ack_timeout):
            args = await link.request(payload)
    except (TimeoutError, ConnectionLostError):
        return  # the new token is used at the next connect
    answer = args[0] if args else None
    if isinstance(answer, dict) and answer.get("ok") is False:
        said = redacted(refusal_text(answer.get("error")), link.secrets)
        parts.recovery.handle(AuthenticationError(f"The server refused the refreshed token: {said}."))


async def catch_up(parts: Components, stay: Stay) -> None:
    """Let the program say its first words, ask for all subscriptions again, and open the outbox.

    Then it asks for whatever comes to be wanted. The order matters: a server may serve nobody who has not
    logged in, and a message may make it publish to a channel, which its sender wants to see.
    """
    link = stay.live_link
    parts.sender.greet(link)
    try:
        await parts.first_words.say()
    except RealtimeError as error:
        stay.report(Trigger.CONNECTION_LOST, error=error)
        return
    await parts.subscriptions.leave(link)
    await parts.subscriptions.ask(link)
    parts.sender.attach(link)
    while True:
        await parts.subscriptions.due()
        await parts.subscriptions.ask(link)


# RECONNECTING


async def backoff(_: Components, stay: Stay) -> None:
    """Wait for the time that the change announced, or until somebody says that it is time."""
    due_at = stay.entered_at + (stay.change.retry_in or 0.0)
    await stay.pause(due_at - asyncio.get_running_loop().time())
    stay.report(Trigger.RETRY)


# FAILED


async def decide(_: Components, stay: Stay) -> None:
    """Fall back, or rest. Resting is the one wait without a bound: only a person can end it."""
    if stay.may(Trigger.FALL_BACK):
        stay.report(Trigger.FALL_BACK, error=stay.change.error)
        return
    await stay.wake.wait()
    stay.report(Trigger.RETRY)


# FALLBACK


async def probing(parts: Components, stay: Stay) -> None:
    """Dial every ``reconnect_interval``; polling goes on until a dial has succeeded.

    A dial that cannot help by being repeated, because the identity is refused, is told, and repeated ever
    more rarely. What a server asked for when it refused the last dial holds here as well.
    """
    interval = parts.config.reconnect_interval
    pacer = Pacer(
        floor=parts.pace.floor, base=interval, maximum=interval, longest=parts.config.max_retry_after
    )
    loop = asyncio.get_running_loop()
    while True:
        await stay.pause(pacer.pause(loop.time()))
        try:
            link = await dial(parts, stay)
        except RealtimeError as error:
            if pacer.failed(error, loop.time()):
                parts.report_long_retry_after(error)
            if error.retryable:
                _logger.debug("the socket is not back yet: %s", error)
            else:
                parts.recovery.handle(error)
            continue
        if not stay.report(Trigger.ESTABLISHED, link=link):
            stay.dispose(link)
        return
