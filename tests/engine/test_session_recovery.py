"""Connection state recovery: the frames of a Node server, and what the engine makes of them.

The first part feeds text frames to the tap, as a server sends them; the second runs a whole client.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from world import World

from realtime_fsm import (
    AuthenticationError,
    ConfigurationError,
    ConnectionStatus,
    Dialect,
    HeartbeatTimeoutError,
    Missed,
    RealtimeError,
    ServerUnreachableError,
)
from realtime_fsm.adapters.tap import FrameTap
from realtime_fsm.engine.session_recovery import SessionRecovery
from realtime_fsm.engine.statistics import Statistics
from realtime_fsm.testing.simulated.sessions import SimulatedSessions

S = ConnectionStatus
JANUARY_2020 = 1_578_000_000.0  # about when the offsets of these frames were made
OPEN = '0{"sid":"e","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}'


def session(dialect: Dialect = Dialect.PLAIN) -> SessionRecovery:
    """Return a session recovery that knows nothing yet."""
    return SessionRecovery(dialect, Statistics(), lambda: JANUARY_2020)


class Connection:
    """One connection: what the server sends goes through the tap, and events through the session."""

    def __init__(self, recovery: SessionRecovery, auth: dict[str, Any] | None = None) -> None:
        self.recovery = recovery
        self.tap = FrameTap(self, "/", asyncio.get_running_loop(), lambda: 0)
        self.connect_auth = recovery.auth(auth)
        self.heard: list[tuple[Any, ...]] = []
        self.is_recovered: bool | None = None
        self.feed(OPEN)

    def feed(self, *frames: str) -> "Connection":
        """Take frames of the server; once it has let the client in, events are delivered."""
        for text in frames:
            self.tap.take_text(text)
            if self.tap.is_usable and self.is_recovered is None:
                self.is_recovered = self.recovery.joined(self.tap.welcome)
                self.tap.go_live()
        return self

    def on_event(self, name: str, args: list[Any], ack_id: int | None, size: int = 0) -> None:
        """Pass an event to the handler, as the engine does."""
        if self.recovery.take(name, args, ack_id):
            self.heard.append((name, *args))

    def on_ack(self, ack_id: int, args: list[Any]) -> None:
        """Take no notice: nothing was asked."""

    def on_pong(self, number: int) -> None:
        """Take no notice."""

    def on_written(self) -> None:
        """Take no notice."""

    def on_malformed(self, error: RealtimeError) -> None:
        """Fail: all of these frames are sound."""
        raise error

    def on_lost(self, error: RealtimeError) -> None:
        """Take no notice."""


def on_wire(test: Callable[[], None]) -> None:
    """Run a test on a loop, which the tap wants."""

    async def main() -> None:
        test()

    asyncio.run(main())


def test_recovery_takes_the_offset_off_and_comes_back_with_it() -> None:
    """Vectors 1 to 3: handlers never see the offset; coming back, what was missed is heard once."""

    def test() -> None:
        recovery = session()
        first = Connection(recovery, {"token": "T"})
        assert first.connect_auth == {"token": "T"}
        first.feed('40{"sid":"a","pid":"p"}', '42["e",1,"MzUPkW0"]')
        assert first.heard == [("e", 1)]
        second = Connection(recovery, {"token": "T2"})
        assert second.connect_auth == {"pid": "p", "offset": "MzUPkW0", "token": "T2"}
        second.feed('42["e",2,"MzUPkW1"]')
        assert second.heard == []
        second.feed('40{"sid":"a","pid":"p"}')
        assert second.is_recovered is True
        assert second.heard == [("e", 2)]
        assert (Connection(recovery).connect_auth or {})["offset"] == "MzUPkW1"

    on_wire(test)


def test_recovery_that_is_refused_delivers_nothing() -> None:
    """Vector 4: events before a CONNECT_ERROR are never heard, and it is an authentication error."""

    def test() -> None:
        recovery = session()
        Connection(recovery).feed('40{"sid":"a","pid":"p"}', '42["e",1,"MzUPkW0"]')
        refused = Connection(recovery).feed('42["e",2,"MzUPkW1"]', '44{"message":"no"}')
        assert isinstance(refused.tap.failed.result(), AuthenticationError)
        refused.tap.go_live()
        assert refused.heard == []

    on_wire(test)


def test_new_session_forgets_the_old_offset() -> None:
    """Vectors 5 and 11: another pid is not recovered, and the next CONNECT has no old offset."""

    def test() -> None:
        recovery = session()
        Connection(recovery).feed('40{"sid":"a","pid":"p"}', '42["e",1,"MzUPkW0"]')
        assert recovery.began() is False
        assert Connection(recovery).feed('40{"sid":"b","pid":"q"}').is_recovered is False
        assert recovery.began() is False
        assert Connection(recovery).connect_auth == {"pid": "q"}

    on_wire(test)


@pytest.mark.parametrize(
    ("text", "heard"),
    [
        ('420["ask","MzUPkW9"]', ("ask", "MzUPkW9")),  # vector 6: an event that wants an answer has none
        ('42["tick","hello"]', ("tick", "hello")),  # vector 7: volatile
        ('42["tick","success"]', ("tick", "success")),  # as long as an offset, but of the year 2087
        ('42["tick",7]', ("tick", 7)),
        ('42["tick"]', ("tick",)),
        ('42["tick","1526919030474-55"]', ("tick", "1526919030474-55")),  # of another adapter
    ],
)
def test_arguments_that_are_no_offset_are_kept(text: str, heard: tuple[Any, ...]) -> None:
    """What is no offset of this session stays where it is, and the next recovery is not spoiled by it."""

    def test() -> None:
        recovery = session()
        connection = Connection(recovery).feed('40{"sid":"a","pid":"p"}', '42["e",1,"MzUPkW0"]', text)
        assert connection.heard == [("e", 1), heard]
        assert (Connection(recovery).connect_auth or {})["offset"] == "MzUPkW0"

    on_wire(test)


def test_first_argument_like_a_word_does_not_spoil_the_offsets() -> None:
    """A volatile word before the first offset is not taken for the kind of the offsets."""

    def test() -> None:
        connection = Connection(session()).feed(
            '40{"sid":"a","pid":"p"}', '42["tick","success"]', '42["e",1,"MzUPkW0"]', '42["e",2,"MzUPkW0.1"]'
        )
        assert connection.heard == [("tick", "success"), ("e", 1), ("e", 2)]

    on_wire(test)


@pytest.mark.parametrize("offset", ["1526919030474-55", "5f3e8b0c9d1a2b3c4d5e6f70", "MzUPkW0", "MzUPkW0.a"])
def test_offsets_of_every_known_adapter_are_learnt(offset: str) -> None:
    """The offsets of the adapters for memory, Redis streams and MongoDB are told by their looks."""

    def test() -> None:
        recovery = session()
        connection = Connection(recovery).feed('40{"sid":"a","pid":"p"}', f'42["e",1,"{offset}"]')
        assert connection.heard == [("e", 1)]
        assert (Connection(recovery).connect_auth or {})["offset"] == offset

    on_wire(test)


def test_binary_events_have_offsets_too() -> None:
    """The offset of an event with an attachment is taken off when it is complete."""

    def test() -> None:
        recovery = session()
        connection = Connection(recovery).feed('40{"sid":"a","pid":"p"}')
        connection.feed('451-["blob",{"_placeholder":true,"num":0},"MzUPkW1"]')
        connection.tap.take_binary(b"123")
        assert connection.heard == [("blob", b"123")]
        assert (Connection(recovery).connect_auth or {})["offset"] == "MzUPkW1"

    on_wire(test)


def test_without_a_session_nothing_is_taken_off() -> None:
    """Vector 8: a server that gives no pid appends no offsets."""

    def test() -> None:
        connection = Connection(session()).feed('40{"sid":"a"}', '42["e",1,"MzUPkW0"]')
        assert connection.heard == [("e", 1, "MzUPkW0")]
        assert connection.is_recovered is False

    on_wire(test)


def test_sessions_are_not_mixed() -> None:
    """Vector 9: two clients, of two namespaces, have two sessions."""

    def test() -> None:
        one, other = session(), session()
        Connection(one).feed('40{"sid":"a","pid":"p"}', '42["e",1,"MzUPkW0"]')
        Connection(other).feed('40{"sid":"b","pid":"q"}')
        assert Connection(one).connect_auth == {"pid": "p", "offset": "MzUPkW0"}
        assert Connection(other).connect_auth == {"pid": "q"}

    on_wire(test)


@pytest.mark.parametrize("key", ["pid", "offset"])
def test_token_cannot_take_the_place_of_a_session(key: str) -> None:
    """Vector 10: a token under a key of the recovery is refused, with what to do."""
    with pytest.raises(ConfigurationError, match=f"token_key='{key}'.*choose another"):
        Dialect(name="mine", token_key=key)


def test_offset_is_noted_before_the_handler_runs() -> None:
    """Vector 12: of two events in one payload the second one's offset counts, in wire order."""

    def test() -> None:
        recovery = session()
        connection = Connection(recovery).feed('40{"sid":"a","pid":"p"}')
        connection.tap.take_payload('42["a","MzUPkW0"]\x1e42["b","MzUPkW1"]')
        assert connection.heard == [("a",), ("b",)]
        assert (Connection(recovery).connect_auth or {})["offset"] == "MzUPkW1"

    on_wire(test)


def test_repeated_offset_is_a_repeated_event() -> None:
    """An adapter that replays too much is heard once."""

    def test() -> None:
        recovery = session()
        Connection(recovery).feed('40{"sid":"a","pid":"p"}', '42["e",1,"MzUPkW0"]', '42["e",2,"MzUPkW1"]')
        again = Connection(recovery).feed(
            '42["e",1,"MzUPkW0"]', '42["e",3,"MzUPkW2"]', '40{"sid":"a","pid":"p"}'
        )
        assert again.heard == [("e", 3)]
        assert recovery._statistics.duplicates == 1

    on_wire(test)


def test_session_whose_dead_connection_may_come_back_is_given_up() -> None:
    """A session that was recovered, and then fell silent, is not asked for again: it would be deaf."""

    def test() -> None:
        recovery = session()
        silence = HeartbeatTimeoutError("silent")
        Connection(recovery).feed('40{"sid":"a","pid":"p"}', '42["e",1,"MzUPkW0"]')
        recovery.lost(silence)
        second = Connection(recovery)
        assert (second.connect_auth or {})["pid"] == "p"
        second.feed('40{"sid":"a","pid":"p"}')
        recovery.lost(silence)
        assert Connection(recovery).connect_auth is None

    on_wire(test)


def test_options_of_the_dialect_are_heeded() -> None:
    """Recovery can be switched off, offsets can be described, and events can be exempted."""

    def test() -> None:
        off = Connection(session(Dialect(name="mine", recovers_sessions=False)))
        off.feed('40{"sid":"a","pid":"p"}', '42["e",1,"MzUPkW0"]')
        assert off.heard == [("e", 1, "MzUPkW0")]
        own = Connection(session(Dialect(name="mine", offset_pattern="at-[0-9]+")))
        own.feed('40{"sid":"a","pid":"p"}', '42["e",1,"at-7"]', '42["e",2,"MzUPkW0"]')
        assert own.heard == [("e", 1), ("e", 2, "MzUPkW0")]
        exempt = Connection(session(Dialect(name="mine", events_without_offset={"tick"})))
        exempt.feed('40{"sid":"a","pid":"p"}', '42["tick","MzUPkW0"]')
        assert exempt.heard == [("tick", "MzUPkW0")]

    on_wire(test)


def test_session_is_not_shown() -> None:
    """The private id and the offset are in no repr; a pattern that is none is refused."""
    recovery = session()
    recovery.joined({"pid": "private-id"})
    recovery.take("e", ["MzUPkW0"], None)
    assert "private" not in repr(recovery)
    assert "MzUP" not in repr(recovery)
    with pytest.raises(ConfigurationError, match="offset_pattern"):
        Dialect(name="mine", offset_pattern="(")


@given(st.lists(st.tuples(st.text(max_size=9), st.none() | st.integers(0, 9))))
def test_without_a_session_arguments_are_whatever_they_are(events: list[tuple[str, int | None]]) -> None:
    """Property: on a server that gives no pid nothing is ever stripped or dropped."""
    recovery = session()
    recovery.joined({"sid": "a"})
    for text, ack_id in events:
        args = [1, text]
        assert recovery.take("e", args, ack_id)
        assert args == [1, text]


# A whole client.


async def test_client_hears_what_it_missed_and_loads_nothing() -> None:
    """A recovered session needs no resync: each event is heard once, in order, without its offset."""
    async with World() as world:
        world.server.sessions = SimulatedSessions()
        heard: list[tuple[Any, ...]] = []
        calls: list[Missed] = []
        world.client.on("n", lambda *args: heard.append(args))
        world.client.on_resync(calls.append)
        await world.client.connect()
        world.server.emit("n", 1)
        await asyncio.sleep(1)
        world.server.refusal = ServerUnreachableError("refused.")
        world.server.reset()
        world.server.emit("n", 2)
        world.server.emit("n", 3)
        await asyncio.sleep(3)
        world.server.refusal = None
        await world.until(S.CONNECTED)
        world.server.emit("n", 4)
        await asyncio.sleep(1)
        assert heard == [(1,), (2,), (3,), (4,)]
        assert calls == []


async def test_client_loads_anew_once_when_its_session_is_gone() -> None:
    """A server that does not know the session any more is no error; the hook is called once, first."""
    async with World() as world:
        world.server.sessions = SimulatedSessions()
        story: list[Any] = []
        world.client.on("n", story.append)
        world.client.on_resync(lambda missed: story.append(missed.channel))
        await world.client.connect()
        world.server.emit("n", 1)
        await asyncio.sleep(1)
        world.server.sessions.forget()
        world.server.reset()
        await world.until(S.CONNECTED)
        world.server.emit("n", 2)
        await asyncio.sleep(1)
        assert story == [1, None, 2]
        assert world.client.metrics.unrecovered == 1


async def test_client_that_leaves_for_good_begins_a_new_session() -> None:
    """After `disconnect()` the old session is not asked for; going over to the fallback keeps it."""
    async with World(fallback_endpoints=["/news"]) as world:
        world.http.resources["/news"] = lambda _: 1
        world.server.sessions = SimulatedSessions()
        await world.client.connect()
        world.server.emit("n", 1)
        await asyncio.sleep(1)
        world.client.force_fallback()
        await asyncio.sleep(1)
        world.client.release_fallback()
        await world.until(S.CONNECTED)
        assert (world.server.dials[-1] or {})["pid"] == "pid-1"
        await world.client.disconnect()
        await world.client.connect()
        assert "pid" not in (world.server.dials[-1] or {})
