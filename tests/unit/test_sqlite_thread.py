"""When a SQLite thread writes what it was given: in which order, how much at once, and after a failure."""

import pytest

from realtime_fsm.adapters import outbox_schema as schema
from realtime_fsm.adapters.outbox_writer import Operation, OperationKind
from realtime_fsm.adapters.sqlite_thread import MAX_BATCH, Backlog
from realtime_fsm.testing.contracts.outbox_contract import letter, message


@pytest.fixture
def backlog() -> Backlog[Operation]:
    """Return an empty backlog."""
    return Backlog(linger=0.005, longest_pause=5.0)


def append(number: int) -> Operation:
    """Return an append."""
    return Operation(kind=OperationKind.APPEND, rows=(schema.message_row(message(number)),))


def bury(number: int) -> Operation:
    """Return a burial."""
    return Operation(kind=OperationKind.BURY, rows=(schema.letter_row(letter(number)),))


def test_suspended_operations_keep_their_order(backlog: Backlog[Operation]) -> None:
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


def test_batches_are_bounded_and_end_after_the_last(backlog: Backlog[Operation]) -> None:
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
