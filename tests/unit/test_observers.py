"""Observers and streams: everybody is told, in order, and nobody can disturb it."""

import asyncio
import gc
import logging

import pytest

from realtime_fsm.engine.observers import Observers, Streams
from realtime_fsm.engine.statistics import Statistics

_logger = logging.getLogger("realtime_fsm.test")


def broken(_: int) -> None:
    """Raise, as user code does."""
    raise RuntimeError("broken")


def test_observer_that_raises_is_logged_and_counted_and_disturbs_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The ones after it are told all the same."""
    statistics, told = Statistics(), list[int]()
    observers: Observers[[int]] = Observers("a test", _logger, statistics)
    observers.add(broken)
    observers.add(told.append)
    observers.tell(1)
    assert (told, statistics.handler_errors) == ([1], 1)
    assert [record.getMessage() for record in caplog.records] == ["a test raised"]


def test_each_end_ends_its_own_observer_once() -> None:
    """A function that was added twice is told twice, until both were ended; to end one twice is harmless."""
    told = list[int]()
    observers: Observers[[int]] = Observers("a test", _logger)
    first, second = observers.add(told.append), observers.add(told.append)
    observers.tell(1)
    first()
    first()
    observers.tell(2)
    second()
    observers.tell(3)
    assert (told, len(observers)) == ([1, 1, 2], 0)


async def test_telling_soon_is_in_the_next_turn_of_the_loop() -> None:
    """User code never runs within what it is told of; who was there by then is told."""
    told = list[int]()
    observers: Observers[[int]] = Observers("a test", _logger)
    end = observers.add(told.append)
    observers.tell_soon(1)
    end()
    assert told == []
    await asyncio.sleep(0)
    assert told == [1]


async def test_streams_are_told_in_the_order_in_which_they_were_opened() -> None:
    """Whatever their addresses; one that overflows ends alone, and one that nobody holds is forgotten."""
    streams: Streams[int] = Streams(limit=1, what="numbers")
    read = list[int]()
    opened = [streams.open() for _ in range(20)]

    async def reader(number: int) -> None:
        await anext(opened[number])
        read.append(number)

    readers = [asyncio.create_task(reader(number)) for number in reversed(range(20))]
    await asyncio.sleep(0)
    assert streams.push(1) == 0
    await asyncio.gather(*readers)
    assert read == list(range(20))
    assert (streams.push(2), streams.push(3)) == (0, 20)
    del opened[5:]
    readers.clear()
    gc.collect()
    assert len(streams) == 5
