import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime_fsm.engine.subscriptions import Position
from realtime_fsm.server.channels import ChannelLog, ChannelLogs


def at(offset: int, epoch: str = "e") -> Position:
    """Return a position."""
    return Position(epoch=epoch, offset=offset)


def logs(max_channels: int) -> ChannelLogs:
    """Return logs whose epochs are counted."""
    epochs = iter(range(1000))
    return ChannelLogs(max_channels=max_channels, log_size=3, new_epoch=lambda: f"e{next(epochs)}")


@given(
    size=st.integers(1, 8),
    count=st.integers(0, 20),
    offset=st.integers(-2, 22),
    limit=st.none() | st.integers(1, 10),
)
def test_channel_log_gives_all_that_was_missed_or_says_that_it_cannot(
    size: int, count: int, offset: int, limit: int | None
) -> None:
    """A replay is exactly what came after the position, oldest first, or is not recovered and empty."""
    log = ChannelLog(size, "e")
    for n in range(1, count + 1):
        assert log.append("x", n) == at(n)
    replay = log.since(at(offset), limit)
    missed = list(range(offset + 1, count + 1))
    if 0 <= offset <= count and len(missed) <= size:
        assert replay.recovered
        assert [event.data for event in replay.events] == missed[:limit]
        assert [event.offset for event in replay.events] == missed[:limit]
        assert replay.position == at((missed[:limit] or [offset])[-1])
        assert replay.more is (len(missed[:limit]) < len(missed))
    else:
        assert (replay.recovered, replay.events, replay.position) == (False, [], at(count))


@pytest.mark.parametrize("position", [None, at(2, "other")])
def test_channel_log_replays_nothing_for_a_position_that_is_not_its_own(position: Position | None) -> None:
    """Without a position the live stream is joined; with one of another epoch nothing is recovered."""
    log = ChannelLog(5, "e")
    for n in range(3):
        log.append("x", n)
    replay = log.since(position)
    assert (replay.recovered, replay.events, replay.position) == (position is None, [], at(3))


def test_channel_logs_give_up_the_one_published_to_longest_ago() -> None:
    """Beyond the bound the stalest log goes, and a position of it is never taken for one of its successor."""
    kept = logs(2)
    old = kept.append("a", "x", 1)
    kept.append("b", "x", 1)
    kept.append("a", "x", 2)
    kept.append("c", "x", 1)  # b goes
    assert len(kept) == 2
    assert kept.since("a", old).recovered
    assert not kept.since("b", Position(epoch=old.epoch, offset=1)).recovered
    again = kept.append("b", "x", 9)
    assert again.offset == 1
    assert again.epoch != old.epoch


def test_channel_logs_are_made_by_publishing_alone() -> None:
    """Asking for channels makes no log, and where an empty one stands is a position that holds later."""
    kept = logs(2)
    stands = kept.since("a", None).position
    for n in range(100):
        kept.since(f"asked {n}", None)
    assert len(kept) == 0
    kept.append("a", "x", 1)
    replay = kept.since("a", stands)
    assert replay.recovered
    assert [event.data for event in replay.events] == [1]
