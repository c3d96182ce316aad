"""The net is fine enough: a bug of each classic kind is planted, found by a sweep, and shrunk."""

import asyncio
import heapq
from collections.abc import Callable
from copy import copy
from typing import Any

import pytest

from realtime_fsm import Outcome, RealtimeError, StatusChange, Trigger
from realtime_fsm.engine import fallback
from realtime_fsm.engine.activities import backoff, establish
from realtime_fsm.engine.component import Components, Stay
from realtime_fsm.engine.fallback import FallbackPollingService
from realtime_fsm.engine.link import Link
from realtime_fsm.engine.manager import ConnectionManager
from realtime_fsm.engine.message import Message
from realtime_fsm.engine.observers import Observers
from realtime_fsm.engine.outbound_queue import OutboundQueue
from realtime_fsm.engine.sender import Sender
from realtime_fsm.engine.token import TokenProvider
from realtime_fsm.testing.fuzz.sweep import sweep

SEEDS = 3000
MOST_STEPS = 4
MOST_STEPS_OF_TWO_FAULTS = 6
"""Where the socket must have failed before a fault of HTTP is felt."""
Patch = pytest.MonkeyPatch


def late_ack_accepted(patch: Patch) -> None:
    """An acknowledgement is matched with whatever waits, and not with what it is for."""

    def on_ack(link: Link, ack_id: int, args: list[Any]) -> None:
        oldest = next(iter(link._acks), ack_id)
        callback = link._acks.pop(oldest, None)
        if callback is not None:
            callback(args)

    def acknowledged(sender: Sender, message: Message, args: list[Any]) -> None:
        sender._in_flight.pop(message, None)
        sender._settle_by_answer(message, args[0] if args else None)

    patch.setattr(Link, "on_ack", on_ack)
    patch.setattr(Sender, "_acknowledged", acknowledged)


def timer_not_cancelled(patch: Patch) -> None:
    """The timer of the backoff goes on when its state has been left."""

    async def immortal(parts: Components, stay: Stay) -> None:
        await asyncio.shield(asyncio.ensure_future(backoff(parts, stay)))

    patch.setattr("realtime_fsm.engine.manager.backoff", immortal)


def epoch_not_checked(patch: Patch) -> None:
    """The result of a dial counts, although its state has been left long ago."""

    async def late(parts: Components, stay: Stay) -> None:
        await asyncio.shield(asyncio.ensure_future(establish(parts, stay)))

    def reported(
        manager: ConnectionManager, _: Stay, trigger: Trigger, error: RealtimeError | None, link: Link | None
    ) -> bool:
        return manager.fire(trigger, error=error, link=link)

    patch.setattr("realtime_fsm.engine.manager.establish", late)
    patch.setattr(ConnectionManager, "_reported", reported)


def removed_before_the_ack(patch: Patch) -> None:
    """A message leaves the outbox when it is sent, and not when it is acknowledged."""
    send = Sender._send

    def and_remove(sender: Sender, link: Link, message: Message) -> None:
        send(sender, link, message)
        sender.queue._outbox.remove(message)

    patch.setattr(Sender, "_send", and_remove)


def fallback_not_stopped(patch: Patch) -> None:
    """Polling goes on when FALLBACK has been left."""
    run = FallbackPollingService.run

    async def immortal(polling: FallbackPollingService, stay: Stay) -> None:
        await asyncio.shield(asyncio.ensure_future(run(polling, stay)))

    patch.setattr(FallbackPollingService, "run", immortal)


def token_refreshed_twice(patch: Patch) -> None:
    """Everybody who needs a token fetches one."""

    async def refresh(provider: TokenProvider) -> Any:
        return None if provider._source is None else await provider._fetch(provider._source)

    patch.setattr(TokenProvider, "refresh", refresh)


def expired_early(patch: Patch) -> None:
    """Beside a message whose time is over, those expire whose time will soon be."""

    def expire(queue: OutboundQueue) -> None:
        queue._expiry_timer = None
        while queue._expiring and queue._expiring[0][0] <= queue._wall() + 5.0:
            message = heapq.heappop(queue._expiring)[2]
            if message in queue.waiting and not message.receipt.is_settled:
                queue.finish(message, Outcome.EXPIRED, reason="its time to live is over")
        queue._set_expiry_timer()

    patch.setattr(OutboundQueue, "_expire", expire)


def retry_after_ignored_in_publishing(patch: Patch) -> None:
    """A server that wants to be left alone for a while is asked again as soon as any other."""

    async def hurried(parts: Components, url: str, batch: list[Message]) -> None:
        try:
            await publish(parts, url, batch)
        except RealtimeError as error:
            other = copy(error)
            other.retry_after = None
            raise other from None

    publish = fallback._publish
    patch.setattr(fallback, "_publish", hurried)


def old_epoch_handled(patch: Patch) -> None:
    """What comes over a connection that was given up reaches the handlers."""

    def on_event(link: Link, name: str, args: list[Any], ack_id: int | None) -> None:
        link._owner.link_event(link, name, args, ack_id)

    patch.setattr(Link, "on_event", on_event)


def observers_not_told_of_the_same_status(patch: Patch) -> None:
    """A change into the same state, FALLBACK entered anew, is told to nobody."""

    def tell_soon(observers: Observers[[Any]], *args: Any) -> None:
        if not (isinstance(args[0], StatusChange) and args[0].previous is args[0].current):
            tell(observers, *args)

    tell = Observers.tell_soon
    patch.setattr(Observers, "tell_soon", tell_soon)


@pytest.mark.timeout(600)  # it is bounded by its work, for which a busy machine needs minutes
@pytest.mark.parametrize(
    "plant",
    [
        late_ack_accepted,
        timer_not_cancelled,
        epoch_not_checked,
        removed_before_the_ack,
        fallback_not_stopped,
        token_refreshed_twice,
        expired_early,
        retry_after_ignored_in_publishing,
        old_epoch_handled,
        observers_not_told_of_the_same_status,
    ],
)
def test_sweep_finds_a_planted_bug_and_shrinks_it(plant: Callable[[Patch], None], monkeypatch: Patch) -> None:
    """A bug of each kind is found within a few hundred schedules, and shown in a few steps."""
    plant(monkeypatch)
    failure = sweep(range(SEEDS)).failure
    assert failure is not None, "the sweep has not found it"
    most = MOST_STEPS_OF_TWO_FAULTS if plant is retry_after_ignored_in_publishing else MOST_STEPS
    assert len(failure.shrunk.steps) <= most, str(failure)
    assert failure.story.violations
    assert failure.is_repeatable, str(failure)
