"""The laws of a transport that is being opened, and while it is open."""

import asyncio
from collections.abc import Mapping
from typing import Any

from realtime_fsm.machine.errors import AuthenticationError, ProtocolError, RealtimeError, TransportError
from realtime_fsm.testing.contracts.contract import texts_of
from realtime_fsm.testing.contracts.recording_listener import RecordingListener
from realtime_fsm.testing.contracts.transport_hooks import (
    AUTH,
    ECHO,
    NOTE,
    SECRET,
    TransportHooks,
    numbers,
    payload,
    turns,
)


class TransportFlowLaws(TransportHooks):
    """From the dial to the last message; see ``TransportContract``."""

    # The dial.

    def test_open_transport_is_ready(self) -> None:
        """An open transport has a name, room and a sign of life, has written nothing and told nothing."""

        async def main() -> None:
            began = asyncio.get_running_loop().time()
            async with self.opened() as (transport, listener):
                assert transport.name
                assert isinstance(transport.welcome, Mapping)
                assert (transport.written, transport.is_paused) == (0, False)
                assert transport.room > 0
                assert began <= transport.last_received <= asyncio.get_running_loop().time()
                assert listener.told == []

        self.run(main())

    def test_dial_to_nobody_is_a_transport_error(self) -> None:
        """Where nobody answers, or not now, the dial fails as ``TransportError``."""
        self.run(self._dial_fails(TransportError))

    def test_dial_that_is_refused_is_an_authentication_error(self) -> None:
        """Where the identity is refused the dial fails as ``AuthenticationError``."""
        self.run(self._dial_fails(AuthenticationError))

    def test_dial_to_a_stranger_is_a_protocol_error(self) -> None:
        """Where something else answers than a Socket.IO server the dial fails as ``ProtocolError``."""
        self.run(self._dial_fails(ProtocolError))

    async def _dial_fails(self, kind: type[RealtimeError]) -> None:
        async with self.server():
            listener = RecordingListener()
            transport = await self.make_failing(listener, kind)
            error: Exception | None = None
            try:
                await self.within_bound(transport.open(AUTH), "the dial fails")
            except Exception as raised:  # noqa: BLE001 - which one it is is what the law is about
                error = raised
            finally:
                await self.closed(transport)
            assert isinstance(error, kind), f"the dial ended by {error!r}, not by {kind.__name__}"
            assert SECRET not in texts_of(error), "the error shows the token"
            await turns()
            assert listener.told == [], "a dial that failed told its listener something"

    def test_dial_can_be_given_up(self) -> None:
        """A dial that is cancelled ends by the cancellation; ``close`` releases all, and nothing is told."""

        async def main() -> None:
            async with self.server():
                listener = RecordingListener()
                transport = await self.make_hanging(listener)
                dial = asyncio.ensure_future(transport.open(AUTH))
                done, _ = await asyncio.wait({dial}, timeout=self.bound / 50)
                assert not done, "the dial was to hang"
                dial.cancel()
                await asyncio.wait({dial}, timeout=self.bound)
                assert dial.cancelled(), "the dial does not pass on its cancellation"
                await self.closed(transport)
                assert listener.told == []

        self.run(main())

    def test_transport_that_was_never_opened_can_be_closed(self) -> None:
        """Before ``open`` sending does nothing, and closing is safe, also twice."""

        async def main() -> None:
            async with self.server():
                listener = RecordingListener()
                transport = await self.make(listener)
                transport.send(payload(NOTE, 1), None)
                await self.closed(transport)
                await self.within_bound(transport.close(goodbye=True), "it is closed again")
                assert (listener.told, transport.written, self.notes()) == ([], 0, [])

        self.run(main())

    # Messages.

    def test_events_arrive_in_wire_order(self) -> None:
        """What the server emits arrives once, in the order in which it was emitted."""

        async def main() -> None:
            async with self.opened() as (_, listener):
                await self.tick(200)
                await self.eventually(lambda: len(listener.of("event")) >= 200, "200 events")
                assert numbers(listener) == list(range(200))
                assert [(name, ack_id) for name, _, ack_id in listener.of("event")] == [("tick", None)] * 200

        self.run(main())

    def test_data_arrives_as_it_was_sent(self) -> None:
        """JSON of all kinds, text of all scripts, and bytes within it come back from the server unchanged."""
        data: list[Any] = [None, True, -1.5, "ž☃ \u2028", {"a": [b"\x00\xff", {"b": b""}], "": {}}, b"end"]

        async def main() -> None:
            async with self.opened() as (transport, listener):
                transport.send(payload(ECHO, *data), 7)
                await self.eventually(lambda: listener.of("ack"), "the acknowledgement")
                assert listener.of("ack") == [(7, data)]
                assert listener.of("malformed") == []

        self.run(main())

    def test_acknowledgements_find_their_messages(self) -> None:
        """Each message that asked for it is acknowledged once, by its own number; others are not."""

        async def main() -> None:
            async with self.opened() as (transport, listener):
                for number in range(1, 51):
                    transport.send(payload(ECHO, number), 1000 + number if number % 2 else None)
                await self.echoed(transport, listener, 2000)
                acked = sorted(listener.of("ack"))
                assert acked == [*[(1000 + n, [n]) for n in range(1, 51, 2)], (2000, [])]

        self.run(main())

    def test_messages_leave_in_the_order_of_sending(self) -> None:
        """Sending never waits; what was sent arrives once and in order, also beyond the room there was."""

        async def main() -> None:
            async with self.opened() as (transport, listener):
                room = transport.room
                for number in range(room + 100 if room < 1000 else 1000):
                    transport.send(payload(NOTE, number), None)
                    assert transport.room == room - number - 1 or transport.room == 0
                sent = number + 1
                await self.eventually(lambda: transport.written == sent, "all is written")
                await self.echoed(transport, listener, 1)
                assert self.notes() == list(range(sent))
                assert (transport.written, transport.room) == (sent + 1, room)
                assert listener.of("written"), "nobody was told that there is room again"

        self.run(main())

    def test_congested_listener_holds_reading_back(self) -> None:
        """While the listener is congested reading pauses; once it is relieved all arrives in order."""

        async def main() -> None:
            async with self.opened() as (transport, listener):
                listener.is_congested = True
                await self.tick(200)
                await self.eventually(lambda: transport.is_paused, "reading is held back")
                held = len(listener.of("event"))
                await turns()
                assert len(listener.of("event")) == held, "events are told while reading is held back"
                listener.relieve()
                await self.eventually(lambda: len(listener.of("event")) >= 200, "200 events")
                assert numbers(listener) == list(range(200))
                assert not transport.is_paused

        self.run(main())

    def test_ping_is_answered_where_there_is_one(self) -> None:
        """A ping brings a pong and a newer sign of life; a transport without one says so and tells none."""

        async def main() -> None:
            async with self.opened() as (transport, listener):
                before = transport.last_received
                if transport.ping():
                    await self.eventually(lambda: listener.of("pong"), "the pong")
                    assert transport.last_received > before
                else:
                    await self.echoed(transport, listener, 1)
                    assert listener.of("pong") == []

        self.run(main())
