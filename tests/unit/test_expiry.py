"""The time to live: one timer, set for the message that expires next."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from realtime_fsm.engine.message import Message, Receipt
from realtime_fsm.engine.outbound_queue import Expiry
from realtime_fsm.engine.payload import Payload
from realtime_fsm.machine.delivery import Delivery, Outcome
from realtime_fsm.testing.virtual_loop import wall_clock

Run = Callable[[Coroutine[Any, Any, None]], None]


def message(expires_at: float | None) -> Message:
    """Return a message that expires at a time."""
    return Message(
        event="n",
        payload=Payload('["n"]'),
        delivery=Delivery.AT_LEAST_ONCE,
        wants_ack=True,
        receipt=Receipt("n", "c-1"),
        expires_at=expires_at,
    )


def timers() -> int:
    """Return how many timers of the loop are set."""
    loop = asyncio.get_running_loop()
    return sum(not handle.cancelled() for handle in loop._scheduled)  # type: ignore[attr-defined]


def test_expiry_tells_each_message_when_its_time_has_come(run_virtual: Run) -> None:
    """Messages are told in the order of their times, each at its time, whatever the order of the watching."""

    async def main() -> None:
        wall = wall_clock()
        began = wall()
        told: list[tuple[float, Message]] = []
        expiry = Expiry(wall, lambda one: told.append((round(wall() - began, 6), one)))
        late, soon, never = message(began + 30.0), message(began + 10.0), message(None)
        for one in (late, soon, never):
            expiry.watch(one)
        assert timers() == 1
        await asyncio.sleep(100)
        assert told == [(10.0, soon), (30.0, late)]
        assert timers() == 0

    run_virtual(main())


def test_expiry_of_a_message_is_the_moment_itself(run_virtual: Run) -> None:
    """A message has expired from its moment on, and not before; one without a time never does."""

    async def main() -> None:
        expiry = Expiry(lambda: 100.0, lambda _: None)
        assert [expiry.has_expired(message(at)) for at in (99.0, 100.0, 101.0, None)] == [
            True, True, False, False,
        ]  # fmt: skip

    run_virtual(main())


def test_expiry_does_not_tell_what_has_come_to_its_end(run_virtual: Run) -> None:
    """A message that was settled before its time is not told."""

    async def main() -> None:
        wall, told = wall_clock(), []
        expiry = Expiry(wall, told.append)
        one = message(wall() + 5.0)
        expiry.watch(one)
        one.receipt.settle(Outcome.ACKNOWLEDGED)
        await asyncio.sleep(10)
        assert told == []

    run_virtual(main())


def test_expiry_that_was_stopped_leaves_no_timer_and_tells_nothing(run_virtual: Run) -> None:
    """After the stop no timer is set; what is watched afterwards is told, what was before is not."""

    async def main() -> None:
        wall, told = wall_clock(), []
        expiry = Expiry(wall, told.append)
        expiry.watch(message(wall() + 5.0))
        expiry.stop()
        assert timers() == 0
        after = message(wall() + 7.0)
        expiry.watch(after)
        assert timers() == 1
        await asyncio.sleep(10)
        assert told == [after]

    run_virtual(main())
