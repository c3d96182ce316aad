"""The net is fine enough: a bug of each classic kind is planted, found by a sweep, and shrunk."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from realtime_fsm import RealtimeError, Trigger
from realtime_fsm.engine.activities import backoff, establish
from realtime_fsm.engine.component import Components, Stay
from realtime_fsm.engine.fallback import FallbackPollingService
from realtime_fsm.engine.link import Link
from realtime_fsm.engine.manager import ConnectionManager
from realtime_fsm.engine.message import Message
from realtime_fsm.engine.sender import Sender
from realtime_fsm.engine.subscriptions import Position, Subscription, Subscriptions
from realtime_fsm.engine.token import TokenProvider
from realtime_fsm.testing.fuzz.sweep import sweep

SEEDS = 3000
MOST_STEPS = 4
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
        answers_wait_for_the_handlers,
        overflow_is_not_told,
        position_taken_without_room,
    ],
)
def test_sweep_finds_a_planted_bug_and_shrinks_it(plant: Callable[[Patch], None], monkeypatch: Patch) -> None:
    """A bug of each kind is found within a few hundred schedules, and shown in four steps at most."""
    plant(monkeypatch)
    failure = sweep(range(SEEDS)).failure
    assert failure is not None, "the sweep has not found it"
    assert len(failure.shrunk.steps) <= MOST_STEPS, str(failure)
    assert failure.story.violations
    assert failure.is_repeatable, str(failure)
