"""What a link knows of its probes: which answer is whose, and what each proves."""

from recording_transport import Line

from realtime_fsm.engine.link import Probe
from realtime_fsm.engine.payload import encode


def send(line: Line, *, count: int = 1) -> int:
    """Send messages, and return the number of the last one."""
    payload = encode(["n"], what="A message", max_bytes=100)
    return [line.link.send(payload) for _ in range(count)][-1]


def after_the_first(line: Line, *, acknowledged: bool) -> Probe:
    """Have the first probe answered in one way, so that the link knows how; return the next one."""
    line.link.probe()
    line.transport.write()
    if acknowledged:
        line.transport.acknowledge(0, {"ok": True})
    else:
        line.transport.listener.on_pong(line.transport.pings)
    return line.link.probe()


async def test_link_late_pong_is_no_answer_to_a_later_probe() -> None:
    """A pong settles the probe that sent its ping: what was sent in between is not proven by it."""
    line = Line()
    late = after_the_first(line, acknowledged=False)
    between = send(line)
    line.transport.write()
    last = line.link.probe()
    line.transport.listener.on_pong(2)
    assert (line.link.is_unanswered(late), line.link.is_unanswered(last)) == (False, True)
    assert line.link.received_before(last) == 0 < between
    line.transport.listener.on_pong(3)
    assert line.link.received_before(last) == between
    line.transport.listener.on_pong(3)
    line.transport.listener.on_pong(77)  # which nobody has asked for


async def test_link_ping_overtakes_what_has_not_left() -> None:
    """A pong proves what had left when its ping was sent, and nothing that still waited then."""
    line = Line()
    after_the_first(line, acknowledged=False)
    written = send(line)
    line.transport.write()
    send(line, count=3)
    probe = line.link.probe()
    line.transport.write()
    line.transport.listener.on_pong(line.transport.pings)
    assert line.link.received_before(probe) == written


async def test_link_heartbeat_proves_all_before_it_and_a_ping_no_more() -> None:
    """Where heartbeats are acknowledged, that alone counts, on later links too; a pong is a sign of life."""
    line = Line()
    probe = after_the_first(line, acknowledged=True)
    assert line.transport.pings == 1
    line.transport.write()
    assert line.link.is_unanswered(probe)  # although it is written
    assert line.link.received_before(probe) == 0
    line.transport.acknowledge(1, {"ok": True})
    assert line.link.received_before(probe) == probe.number == 2
    other = Line(statistics=line.statistics)
    probe = other.link.probe()
    other.transport.write()
    other.transport.listener.on_pong(1)
    assert (other.link.is_unanswered(probe), other.link.received_before(probe)) == (False, 0)


async def test_link_over_polling_is_answered_by_the_request() -> None:
    """Without pings what is written was answered, and so is the probe with it."""
    line = Line(can_ping=False)
    number = send(line)
    probe = line.link.probe()
    assert line.link.is_unanswered(probe)
    line.transport.write()
    assert not line.link.is_unanswered(probe)
    assert line.link.received_before(probe) > number


async def test_link_answer_to_a_message_behind_a_probe_is_an_answer() -> None:
    """A server that has answered what was sent behind a probe lives; what was sent before it only moves."""
    line = Line()
    before = send(line)
    probe = after_the_first(line, acknowledged=False)
    behind = send(line)
    line.link.heard_of(before)
    assert (line.link.is_unanswered(probe), probe.moved_at) == (True, probe.sent_at)  # in virtual time
    line.link.heard_of(behind)
    assert not line.link.is_unanswered(probe)
    assert line.link.received_before(probe) == 0  # for that, the probe itself must be answered


async def test_link_asks_nothing_where_nothing_can_be_asked() -> None:
    """Where there is neither a ping nor a heartbeat, no answer is owed."""
    line = Line(can_ping=False, heartbeat=False)
    assert not line.link.is_unanswered(line.link.probe())


async def test_link_keeps_one_heartbeat_at_most_of_a_server_that_acknowledges_none() -> None:
    """Heartbeats that nobody will acknowledge do not pile up."""
    line = Line(can_ping=False)
    for _ in range(100):
        line.link.probe()
    assert len(line.link._acks) == 1
