import itertools

import attrs
import pytest

from realtime_fsm.machine.backoff import Episode
from realtime_fsm.machine.errors import TransportError
from realtime_fsm.machine.record import AttemptRecord, StatusChange
from realtime_fsm.machine.table import TRANSITIONS, ConnectionStatus, Row, Trigger


def change(previous: ConnectionStatus, current: ConnectionStatus) -> StatusChange:
    """Return a change between two states."""
    return StatusChange(previous=previous, current=current, trigger=Trigger.CONNECT, reason="A test.")


@pytest.mark.parametrize("row", TRANSITIONS, ids=lambda row: f"{row.source}-{row.trigger}-{row.dest}")
def test_status_change_is_connected_or_lost_only_around_connected(row: Row) -> None:
    """A change into CONNECTED connects, one out of it loses, and no other does either."""
    moved = change(row.source, row.dest)
    assert moved.is_connected is (moved.current is ConnectionStatus.CONNECTED)
    assert moved.is_lost is (moved.previous is ConnectionStatus.CONNECTED)
    assert not (moved.is_connected and moved.is_lost)


def test_status_change_into_the_same_state_is_neither() -> None:
    """Entering a state anew neither connects nor loses."""
    for status in ConnectionStatus:
        assert not change(status, status).is_connected
        assert not change(status, status).is_lost


def test_status_change_pairs_connected_with_lost_along_every_path() -> None:
    """Along every path of seven moves, connected and lost come strictly in turn."""
    moves = sorted({(row.source, row.dest) for row in TRANSITIONS})
    ends = {(ConnectionStatus.DISCONNECTED, False)}
    for _, (source, dest) in itertools.product(range(7), moves):
        for state, live in [end for end in ends if end[0] is source]:
            moved = change(state, dest)
            assert moved.is_connected <= (not live)
            assert moved.is_lost <= live
            ends.add((dest, moved.is_connected or (live and not moved.is_lost)))
    assert {state for state, live in ends if live} == {ConnectionStatus.CONNECTED}
    assert len(ends) == len(ConnectionStatus)


def test_records_are_frozen_and_keyword_only() -> None:
    """An observer cannot change what the next one sees, nor mix up the fields."""
    record = change(ConnectionStatus.DISCONNECTED, ConnectionStatus.CONNECTING)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        record.reason = "Another."  # type: ignore[misc]
    with pytest.raises(TypeError):
        AttemptRecord(1, 2.0)  # type: ignore[misc]


def test_attempt_record_succeeded_where_there_is_no_error() -> None:
    """An attempt without an error succeeded."""
    assert AttemptRecord(number=1, duration=0.1).succeeded
    assert not AttemptRecord(number=1, duration=0.1, error=TransportError("It broke.")).succeeded


def test_episode_first_dial_of_connect_is_no_reconnection() -> None:
    """After `connect()` the first dial is not counted as a reconnection; the ones after it are."""
    episode = Episode()
    episode.begin(by_connect=True)
    counts = []
    for _ in range(3):
        episode.dialled()
        counts.append((episode.reconnects, episode.next_attempt))
    assert counts == [(0, 2), (1, 3), (2, 4)]


def test_episode_every_dial_after_a_loss_is_a_reconnection() -> None:
    """After a loss every dial counts; before any, none does."""
    episode = Episode()
    episode.begin(by_connect=True)
    episode.dialled()
    episode.begin()
    assert (episode.reconnects, episode.next_attempt, episode.initial) == (0, 1, False)
    episode.dialled()
    assert (episode.reconnects, episode.next_attempt) == (1, 2)


def test_episode_first_dial_of_a_manual_retry_is_no_reconnection() -> None:
    """A manual retry begins anew like a connect, but it is not the first connect."""
    episode = Episode()
    episode.begin(by_retry=True)
    assert not episode.initial
    episode.dialled()
    assert episode.reconnects == 0


def test_episode_connected_ends_initial_but_keeps_the_count() -> None:
    """A success ends the initial phase; the attempts count on until the connection is stable."""
    episode = Episode()
    episode.begin(by_connect=True)
    episode.dialled()
    episode.dialled()
    assert episode.initial
    episode.connected()
    assert (episode.initial, episode.reconnects) == (False, 1)


def test_episode_never_counts_below_zero() -> None:
    """Before the first dial there is no reconnection, whoever began the episode."""
    episode = Episode()
    episode.begin(by_connect=True)
    assert episode.reconnects == 0


def test_records_say_nothing_unless_told() -> None:
    """What is not given is none: no error, no attempt, no wait, no time."""
    bare = change(ConnectionStatus.DISCONNECTED, ConnectionStatus.CONNECTING)
    assert (bare.error, bare.attempt, bare.retry_in, bare.at, bare.epoch) == (None, 0, None, 0.0, 0)
    record = AttemptRecord(number=1, duration=0.1)
    assert (record.error, record.at) == (None, 0.0)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        record.number = 2  # type: ignore[misc]
    with pytest.raises(TypeError):
        StatusChange(ConnectionStatus.FAILED, ConnectionStatus.FAILED, Trigger.RETRY, "No.")  # type: ignore[misc]


def test_episode_begins_from_nothing() -> None:
    """A new episode has no dial, is nobody's, and is no first connect; it is begun by name only."""
    episode = Episode()
    assert (episode.dials, episode.begun_by_hand, episode.initial) == (0, False, False)
    assert (episode.reconnects, episode.next_attempt) == (0, 1)
    assert Episode(dials=3, begun_by_hand=True).reconnects == 2
    assert Episode(1) == Episode(dials=1) != Episode(dials=2)
    with pytest.raises(AttributeError):
        episode.dialed = 1  # type: ignore[attr-defined]
    with pytest.raises(TypeError):
        episode.begin(True)  # type: ignore[misc]
