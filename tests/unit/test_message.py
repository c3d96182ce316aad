"""Receipts: what became of a message, for as many waiters as there are."""

import asyncio
import pickle
import traceback
from typing import Any

import pytest

from realtime_fsm.engine.message import Message, Receipt
from realtime_fsm.engine.payload import Payload
from realtime_fsm.machine.delivery import Delivery, Outcome
from realtime_fsm.machine.errors import DeliveryError


async def outcome_of(receipt: Receipt) -> Any:
    """Wait for a receipt."""
    return await receipt


async def test_receipt_wakes_every_waiter_with_the_answer() -> None:
    """All who wait get the answer, and so does everybody who asks later, without waiting."""
    receipt = Receipt("n", "c-1")
    waiters = [asyncio.create_task(outcome_of(receipt)) for _ in range(3)]
    await asyncio.sleep(1)
    assert not any(waiter.done() for waiter in waiters)
    assert receipt.settle(Outcome.ACKNOWLEDGED, answer={"a": 1})
    assert await asyncio.gather(*waiters) == [{"a": 1}] * 3
    assert await receipt == {"a": 1}
    assert await receipt == {"a": 1}


async def test_receipt_survives_a_cancelled_waiter() -> None:
    """Cancelling a waiter cancels that waiter alone: the others get the answer."""
    receipt = Receipt("n", "c-1")
    cancelled, patient = (asyncio.create_task(outcome_of(receipt)) for _ in range(2))
    await asyncio.sleep(1)
    cancelled.cancel()
    await asyncio.wait({cancelled})
    assert cancelled.cancelled()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await receipt
    assert not receipt.is_settled
    receipt.settle(Outcome.ACKNOWLEDGED, answer=1)
    assert await patient == 1


async def test_receipt_settles_after_all_waiters_were_cancelled() -> None:
    """A receipt that nobody waits for any more is settled all the same."""
    receipt = Receipt("n", "c-1")
    waiter = asyncio.create_task(outcome_of(receipt))
    await asyncio.sleep(1)
    waiter.cancel()
    await asyncio.wait({waiter})
    assert receipt.settle(Outcome.LOST, reason="gone")
    assert receipt.outcome is Outcome.LOST


def test_receipt_is_settled_once() -> None:
    """The first decision stands; a later one changes nothing and says so."""
    receipt = Receipt("n", "c-1")
    assert receipt.settle(Outcome.LOST, reason="gone")
    assert not receipt.settle(Outcome.ACKNOWLEDGED, answer=1)
    assert receipt.outcome is Outcome.LOST
    assert receipt.is_settled


@pytest.mark.parametrize("outcome", [o for o in Outcome if not o.is_delivered and o is not Outcome.PENDING])
async def test_receipt_raises_what_became_of_the_message(outcome: Outcome) -> None:
    """Awaiting an undelivered message raises its outcome, the reason and a remedy."""
    receipt = Receipt("note", "c-7")
    waiter = asyncio.create_task(outcome_of(receipt))
    await asyncio.sleep(1)
    receipt.settle(outcome, reason="the dog ate it")
    for waiting in (waiter, receipt):
        with pytest.raises(DeliveryError, match=r"c-7 \('note'\) is .*: the dog ate it") as raised:
            await waiting
        assert raised.value.outcome == outcome.value
        assert raised.value.remedy


@pytest.mark.parametrize("outcome", [Outcome.SENT, Outcome.ACKNOWLEDGED])
async def test_receipt_of_a_delivered_message_raises_nothing(outcome: Outcome) -> None:
    """A message that was delivered without an answer gives ``None``."""
    receipt = Receipt("n", "c-1")
    receipt.settle(outcome)
    assert await receipt is None


async def test_receipt_raises_an_error_that_does_not_grow() -> None:
    """However often a receipt is awaited, its error holds only the frames of the waiter at hand."""
    receipt = Receipt("n", "c-1")
    receipt.settle(Outcome.LOST, reason="gone")
    depths = []
    for _ in range(5):
        with pytest.raises(DeliveryError) as raised:
            await receipt
        depths.append(len(traceback.extract_tb(raised.value.__traceback__)))
    assert depths == [depths[0]] * 5


async def test_receipt_error_can_be_pickled() -> None:
    """The error keeps its fields when it is copied to another process."""
    receipt = Receipt("n", "c-1")
    receipt.settle(Outcome.EXPIRED, reason="late")
    with pytest.raises(DeliveryError) as raised:
        await receipt
    restored = pickle.loads(pickle.dumps(raised.value))  # noqa: S301 - what it reads was written here
    assert (restored.outcome, str(restored)) == ("expired", str(raised.value))


def test_receipt_shows_what_it_is_about() -> None:
    """The repr tells the message, the event and the outcome, and no payload."""
    receipt = Receipt("note", "c-7")
    assert repr(receipt) == "<Receipt c-7 'note' pending>"
    receipt.settle(Outcome.ACKNOWLEDGED, answer="secret")
    assert repr(receipt) == "<Receipt c-7 'note' acknowledged>"


@pytest.mark.parametrize("delivery", list(Delivery))
def test_message_is_resent_where_its_delivery_promises_it(delivery: Delivery) -> None:
    """Only AT_LEAST_ONCE and EXACTLY_ONCE are sent again after a loss."""
    message = Message(
        event="n",
        payload=Payload('["n","é"]', (b"123",)),
        delivery=delivery,
        receipt=Receipt("n", "c-1"),
        wants_ack=False,
    )
    assert message.args == ["é"]
    assert message.is_resent == (delivery in {Delivery.AT_LEAST_ONCE, Delivery.EXACTLY_ONCE})
    assert message.size_bytes == len('["n","é"]'.encode()) + 3
