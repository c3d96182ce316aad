"""What must hold: always, whatever happens; and in the end, when all is mended or one fault stays."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Final

from realtime_fsm.engine.message import RESENT
from realtime_fsm.machine.delivery import Delivery, Outcome
from realtime_fsm.machine.record import StatusChange
from realtime_fsm.machine.table import TRAITS, TRANSITIONS
from realtime_fsm.service import RealtimeService
from realtime_fsm.testing.application import Application, Emitted
from realtime_fsm.testing.environment import NUMBER, Environment

_ROWS: Final = {(row.source, row.trigger, row.dest) for row in TRANSITIONS}
_TOLD: Final = frozenset(Outcome) - {Outcome.PENDING, Outcome.SENT, Outcome.ACKNOWLEDGED, Outcome.STORED}
"""Outcomes by which the application knows that a message may not have arrived."""


class Violation(AssertionError):  # noqa: N818 - it is what was found
    """A promise was broken."""


def violations_now(application: Application, environment: Environment) -> Iterator[str]:
    """Yield what must not be at any moment, and is."""
    client, config = application.client, application.config
    metrics = client.metrics
    yield from application.violations
    yield from environment.complaints
    settled = sum(metrics.messages_by_outcome.values())
    taken = metrics.messages_accepted + metrics.messages_restored
    if taken != settled + metrics.messages_waiting:
        yield f"{taken} messages were taken, but {settled} are settled and {metrics.messages_waiting} wait"
    if metrics.messages_in_flight > config.max_in_flight:
        yield f"{metrics.messages_in_flight} messages are in flight"
    if metrics.messages_waiting > config.outbox_max_messages:
        yield f"{metrics.messages_waiting} messages wait"
    if metrics.activity_crashes:
        yield f"{metrics.activity_crashes} activities crashed"
    if metrics.handler_errors:
        yield f"{metrics.handler_errors} handlers failed"
    if application.identity.most > 1:
        yield f"{application.identity.most} tokens were fetched at the same time"
    yield from _idle(client, application)


def violations_of_changes(changes: Iterable[StatusChange]) -> Iterator[str]:
    """Yield what is wrong with the story of one client."""
    story = list(changes)
    for change in story:
        row = (change.previous, change.trigger, change.current)
        if row not in _ROWS:
            yield f"{' '.join(map(str, row))} is no row of the table"
    for before, after in pairwise(story):
        if after.previous is not before.current:
            yield f"{after.previous} followed {before.current}"
        if after.epoch <= before.epoch:
            yield f"epoch {after.epoch} followed epoch {before.epoch}"
    turns = [change.is_connected for change in story if change.is_connected or change.is_lost]
    if turns and (not turns[0] or any(first is second for first, second in pairwise(turns))):
        yield "connected and lost did not take turns"


def violations_of_books(application: Application, environment: Environment) -> Iterator[str]:
    """Yield what is wrong with the messages, once the client is disconnected."""
    applied = [number for event, number in environment.applied if event == NUMBER]
    times = Counter(applied)
    disk = application.disk
    kept = {message.args[0] for message in (*disk.waiting.values(), *(d.message for d in disk.dead.values()))}
    for message in application.emitted:
        if message.event == NUMBER:
            yield from _of_message(message, times[message.number], kept=message.number in kept)
    lines: dict[tuple[Delivery, int], set[int]] = {}
    for message in application.emitted:
        # What a process that crashed has sent may arrive late; only the outbox numbers across processes.
        process = 0 if message.delivery is Delivery.EXACTLY_ONCE else message.process
        lines.setdefault((message.delivery, process), set()).add(message.number)
    for (delivery, _), line in lines.items():
        seen = [number for number in dict.fromkeys(applied) if number in line]
        if seen != sorted(seen):
            yield f"messages {delivery.value} took effect in the order {seen}"


def violations_of_rest(application: Application, environment: Environment) -> Iterator[str]:
    """Yield what is missing after everything was mended, and before the client is disconnected."""
    applied = {number for event, number in environment.applied if event == NUMBER}
    applied |= {letter.message.args[0] for letter in application.disk.dead.values()}  # given up, and told
    for message in application.emitted:
        if message.event == NUMBER and _is_due(message) and message.number not in applied:
            yield f"message {message.number} ({message.delivery.value}) was accepted, and never arrived"
    if application.last is not None and application.last != application.published:
        yield f"the last tick is {application.last}, of {application.published}"
    if application.client.metrics.messages_waiting:
        yield f"{application.client.metrics.messages_waiting} messages still wait"


def violations_of_silence(application: Application, environment: Environment, since: float) -> Iterator[str]:
    """Yield it when a connection passes for live on which nothing has come for longer than may be.

    Args:
        application: Its client.
        environment: Its server.
        since: When the connection became dead, or live if that was later, on the loop's clock.
    """
    config = application.config
    limit = config.heartbeat_interval + config.heartbeat_timeout + 0.1
    silent = asyncio.get_running_loop().time() - since
    if environment.is_dead and TRAITS[application.client.status].sends and silent > limit:
        yield f"nothing comes for {silent:.1f} s, and the status is {application.client.status}"


def _idle(client: RealtimeService, application: Application) -> Iterator[str]:
    """Yield it when nothing runs that could end the state, where something must."""
    manager = client._manager  # noqa: SLF001 - how many tasks it runs is nobody else's business
    if manager is not None and TRAITS[client.status].online and not manager.task_count:
        yield f"nothing runs in {client.status}, which {len(application.changes)} changes led to"


def _of_message(message: Emitted, times: int, *, kept: bool) -> Iterator[str]:
    what = f"message {message.number} ({message.delivery.value})"
    if times > 1 and message.delivery is not Delivery.AT_LEAST_ONCE:
        yield f"{what} took effect {times} times"
    receipt = message.receipt
    if receipt is None:
        return
    if not receipt.is_settled and not message.is_forgotten:
        yield f"{what} was never settled"
    if receipt.outcome is Outcome.ACKNOWLEDGED and not times:
        yield f"{what} is acknowledged, and never arrived"
    # One AT_MOST_ONCE may be lost by the process that found it on the disk.
    is_resent = message.delivery in RESENT
    if receipt.outcome is Outcome.STORED and is_resent and not times and not kept:
        yield f"{what} is stored, and is not on the disk"


def _is_due(message: Emitted) -> bool:
    """Tell whether a message must have arrived once all is well: nobody was told otherwise."""
    if message.receipt is None or message.is_forgotten or message.delivery not in RESENT:
        return False
    return message.receipt.outcome not in _TOLD
