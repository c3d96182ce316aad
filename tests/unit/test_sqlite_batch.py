"""How operations become transactions: in which order, and what is kept of those that could not."""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from realtime_fsm.adapters import outbox_schema as schema
from realtime_fsm.adapters.outbox_writer import MAX_BATCH, Backlog, Kind, Operation, write
from realtime_fsm.testing.contracts.outbox_contract import letter, message


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    """Return a new outbox in memory."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        schema.migrate(connection, 0)
        yield connection


@pytest.fixture
def backlog() -> Iterator[Backlog]:
    """Return an empty backlog."""
    loop = asyncio.new_event_loop()
    yield Backlog(loop)
    loop.close()


def append(number: int) -> Operation:
    """Return an append."""
    return Operation(kind=Kind.APPEND, rows=(schema.message_row(message(number)),))


def remove(number: int) -> Operation:
    """Return a removal."""
    return Operation(kind=Kind.REMOVE, rows=((number,),))


def bury(number: int) -> Operation:
    """Return a burial."""
    return Operation(kind=Kind.BURY, rows=(schema.letter_row(letter(number)),))


def numbers(connection: sqlite3.Connection, table: str = "message") -> list[int]:
    """Return the numbers in a table."""
    return [row[0] for row in connection.execute(f"SELECT sequence FROM {table} ORDER BY rowid")]  # noqa: S608


def test_message_that_was_claimed_may_be_kept_again_at_once(connection: sqlite3.Connection) -> None:
    """Within one transaction the last word on a message counts: claimed and kept again, it is there."""
    write(connection, [append(1), append(2), remove(1), append(1), append(3), remove(3)], 10)
    assert numbers(connection) == [1, 2]
    write(connection, [remove(2), append(2), remove(2)], 10)
    assert numbers(connection) == [1]


def test_question_sees_what_was_asked_before_it_alone(connection: sqlite3.Connection) -> None:
    """A question between other operations of a transaction sees those before it, and none after it."""
    question = Operation(kind=Kind.CALL, call=lambda inner: (numbers(inner), numbers(inner, "dead_letter")))
    write(connection, [append(1), append(2), bury(2), question, bury(1), append(4)], 10)
    assert question.result == ([1], [2])
    assert numbers(connection) == [4]


@pytest.mark.parametrize("count", [1, 7, 8, 63, 64, 65, 137, 500])
def test_any_number_of_rows_is_written(connection: sqlite3.Connection, count: int) -> None:
    """However many rows there are to insert and delete, each is, once."""
    write(connection, map(append, range(1, count + 1)), 10)
    assert numbers(connection) == list(range(1, count + 1))
    write(connection, map(remove, range(2, count + 1)), 10)
    assert numbers(connection) == [1]
    assert schema.last_sequence(connection) == count


def test_transaction_is_written_whole_or_not_at_all(connection: sqlite3.Connection) -> None:
    """If one operation is impossible nothing of its transaction is there, and the next one works."""
    write(connection, [append(1)], 10)
    with pytest.raises(sqlite3.IntegrityError):
        write(connection, [append(2), bury(3), remove(1), append(2)], 10)
    assert (numbers(connection), numbers(connection, "dead_letter")) == ([1], [])
    assert schema.last_sequence(connection) == 1
    assert not connection.in_transaction
    write(connection, [append(4)], 10)
    assert numbers(connection) == [1, 4]


def test_dead_letters_beyond_the_bound_are_counted(connection: sqlite3.Connection) -> None:
    """The oldest dead letters go, and the transaction says how many; a bound of zero keeps none."""
    assert write(connection, map(bury, (3, 1, 2)), 2) == 1
    assert numbers(connection, "dead_letter") == [1, 2]
    assert write(connection, [bury(9)], 0) == 3
    assert numbers(connection, "dead_letter") == []


def test_suspended_operations_keep_their_order(backlog: Backlog) -> None:
    """What could not be written comes again in its order, before everything that was asked for later."""
    operations = [bury(number) for number in range(5)]
    for operation in operations[:3]:
        backlog.put(operation)
    assert list(backlog.next_batch()) == operations[:3]
    backlog.put(operations[3])
    assert backlog.suspend(operations[:3]) == ([], 4)
    assert backlog.is_interrupted
    backlog.resume()
    backlog.put(operations[4])
    assert list(backlog.next_batch()) == operations


def test_batches_are_bounded_and_end_after_the_last(backlog: Backlog) -> None:
    """No batch holds more than its bound, nothing is lost between two, and the end comes after all."""
    operations = [append(number) for number in range(1, 2 * MAX_BATCH + 8)]
    for operation in operations:
        backlog.put(operation)
    backlog.stop()
    batches = []
    while not backlog.is_at_end:
        batches.append(list(backlog.next_batch()))
    assert [len(batch) for batch in batches] == [MAX_BATCH, MAX_BATCH, 7]
    assert sum(batches, []) == operations  # noqa: RUF017 - three of them
