"""The net is fine enough: a bug of each classic kind is planted, found by a sweep, and shrunk."""

import asyncio
import heapq
from collections.abc import Callable
from typing import Any

import pytest

from realtime_fsm import Outcome, RealtimeError, RealtimeService, StatusChange, Trigger
from realtime_fsm.engine import fallback
from realtime_fsm.engine.activities import backoff, establish, probing
from realtime_fsm.engine.component import Components, Stay
from realtime_fsm.engine.fallback import FallbackPollingService
from realtime_fsm.engine.link import Link
from realtime_fsm.engine.manager import ConnectionManager
from realtime_fsm.engine.message import Message
from realtime_fsm.engine.observers import Observers
from realtime_fsm.engine.outbound_queue import OutboundQueue
from realtime_fsm.engine.port import HttpAnswer
from realtime_fsm.engine.sender import Sender
from realtime_fsm.engine.subscriptions import Position, Subscription, Subscriptions
from realtime_fsm.engine.token import TokenProvider
from realtime_fsm.machine.backoff import RetryAfter
from realtime_fsm.machine.guard import Facts
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


def numbers_lent_twice(patch: Patch) -> None:
    """An outbox has one identity for ever, and so has each copy of it."""
    patch.setattr("realtime_fsm.testing.simulated.outbox.new_client_id", lambda: "me")


def fallback_waits_for_the_attempts(patch: Patch) -> None:
    """However long nothing comes, polling takes over only when the attempts have run out."""
    patch.setattr(Facts, "is_fallback_due", property(lambda _: False))


def retry_after_ignored(patch: Patch) -> None:
    """Whoever was asked to wait comes back at a pace of their own."""
    patch.setattr(RetryAfter, "left", lambda _, __: 0.0)


def retry_after_ignored_in_publishing(patch: Patch) -> None:
    """Messages are published again before the server wants them."""
    post = fallback._post

    async def hasty(parts: Components, url: str, batch: list[Message]) -> HttpAnswer:
        parts.publishing.floor.most = 0.0
        return await post(parts, url, batch)

    patch.setattr(fallback, "_post", hasty)


def retry_after_forgotten_in_fallback(patch: Patch) -> None:
    """Probing begins without a thought of what the last dial was told."""

    async def forgetful(parts: Components, stay: Stay) -> None:
        parts.pace.floor.forget()
        await probing(parts, stay)

    patch.setattr("realtime_fsm.engine.manager.probing", forgetful)


def token_storm(patch: Patch) -> None:
    """A token that seems to have expired is fetched anew each second."""
    patch.setattr(TokenProvider, "_refreshed_after", lambda _, life, **__: max(1.0, 0.8 * life))


def unsubscribe_overtakes(patch: Patch) -> None:
    """What is asked for is decided in one turn of the loop, and sent in a later one."""

    async def ask(subscriptions: Subscriptions, link: Link) -> None:
        batch = subscriptions._to_be_asked_for()
        await asyncio.sleep(0)
        if batch and (answer := subscriptions._send(link, batch)) is not None:
            await subscriptions._heard(link, batch, answer)

    patch.setattr(Subscriptions, "ask", ask)


def place_not_learnt(patch: Patch) -> None:
    """In FALLBACK a `subscribe` returns before it is known where the channel stands."""
    patch.setattr(RealtimeService, "_polls_channels", lambda _: False)


def poll_begins_late(patch: Patch) -> None:
    """A poll begins although its state has been left."""
    patch.setattr(FallbackPollingService, "_stop_where_it_ended", lambda _: None)


def first_words_are_not_first(patch: Patch) -> None:
    """The outbox is open while the program says its first words."""
    patch.setattr(Sender, "greet", Sender.attach)


def expired_early(patch: Patch) -> None:
    """Beside a message whose time is over, those expire whose time will soon be."""

    def expire(queue: OutboundQueue) -> None:
        queue._expiry_timer = None
        while queue._expiring and queue._expiring[0][0] <= queue._wall() + 5.0:
            message = heapq.heappop(queue._expiring)[2]()
            if message is not None and message in queue.waiting and not message.receipt.is_settled:
                queue.finish(message, Outcome.EXPIRED, reason="its time to live is over")
        queue._set_expiry_timer()

    patch.setattr(OutboundQueue, "_expire", expire)


def old_epoch_handled(patch: Patch) -> None:
    """What comes over a connection that was given up reaches the handlers."""

    def on_event(link: Link, name: str, args: list[Any], ack_id: int | None, size: int = 0) -> None:
        link._owner.link_event(link, name, args, ack_id, size)

    patch.setattr(Link, "on_event", on_event)


def observers_not_told_of_the_same_status(patch: Patch) -> None:
    """A change into the same state, FALLBACK entered anew, is told to nobody."""

    def tell_soon(observers: Observers[[Any]], *args: Any) -> None:
        if not (isinstance(args[0], StatusChange) and args[0].previous is args[0].current):
            tell(observers, *args)

    tell = Observers.tell_soon
    patch.setattr(Observers, "tell_soon", tell_soon)


def answers_wait_for_the_handlers(patch: Patch) -> None:
    """An acknowledgement is heard only when the events before it have been handled."""
    on_ack = Link.on_ack

    def in_turn(link: Link, ack_id: int, args: list[Any]) -> None:
        manager = link._owner
        assert isinstance(manager, ConnectionManager)
        dispatcher = manager._parts.dispatcher
        if not len(dispatcher):
            on_ack(link, ack_id, args)
            return

        async def heard() -> None:
            on_ack(link, ack_id, args)

        dispatcher.run("an acknowledgement", heard)

    patch.setattr(Link, "on_ack", in_turn)


def overflow_is_not_told(patch: Patch) -> None:
    """Events for which there is no room are dropped, and nobody loads anew what they said."""
    patch.setattr(ConnectionManager, "_tell_of_overflow", lambda _: None)


def position_taken_without_room(patch: Patch) -> None:
    """An event that finds no room counts as arrived, so that no replay brings it."""

    def leave(_: Subscriptions, subscription: Subscription, here: Position) -> None:
        subscription.position = here

    patch.setattr(Subscriptions, "_leave_for_room", leave)


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
        numbers_lent_twice,
        fallback_waits_for_the_attempts,
        retry_after_ignored,
        retry_after_ignored_in_publishing,
        retry_after_forgotten_in_fallback,
        token_storm,
        unsubscribe_overtakes,
        place_not_learnt,
        poll_begins_late,
        first_words_are_not_first,
        expired_early,
        old_epoch_handled,
        observers_not_told_of_the_same_status,
        answers_wait_for_the_handlers,
        overflow_is_not_told,
        position_taken_without_room,
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
