"""The laws of every transport: inherit the suite, and override its hooks."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from realtime_fsm.engine.payload import Payload, encode
from realtime_fsm.engine.port import Transport, TransportListener
from realtime_fsm.machine.errors import AuthenticationError, ProtocolError, RealtimeError, TransportError
from realtime_fsm.testing.contracts.contract import Contract, texts_of

ECHO: Final = "echo"
NOTE: Final = "note"
TICK: Final = "tick"
MAX_BYTES: Final = 1_000_000

SECRET: Final = "contract-token-51d07c0de5ec2e7"  # noqa: S105 - made up, and looked for in errors
"""The token that the laws dial with."""

AUTH: Final[Mapping[str, Any]] = {"token": SECRET}


class RecordingListener:
    """A ``TransportListener`` that keeps what it is told, and what it should not have been told.

    Attributes:
        told: Everything, in order: ``("event", name, args, ack_id)``, ``("ack", ack_id, args)``,
            ``("pong",)``, ``("written",)``, ``("malformed", error)``, ``("lost", error)``.
        sizes: How large the events were.
        offences: What no transport may do, whatever the law: tell something on another thread, or after the
            loss.
    """

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.sizes: list[int] = []
        self.offences: list[str] = []
        self._loop = asyncio.get_running_loop()

    def on_event(self, name: str, args: list[Any], ack_id: int | None, size: int = 0) -> None:
        """Keep what an event says."""
        self.sizes.append(size)
        self._note("event", name, args, ack_id)

    def on_ack(self, ack_id: int, args: list[Any]) -> None:
        """Keep what an acknowledgement says."""
        self._note("ack", ack_id, args)

    def on_pong(self, number: int) -> None:
        """Keep which ping was answered."""
        self._note("pong", number)

    def on_written(self) -> None:
        """Keep that something was written."""
        self._note("written")

    def on_malformed(self, error: RealtimeError) -> None:
        """Keep a frame that could not be decoded."""
        self._note("malformed", error)

    def on_lost(self, error: RealtimeError) -> None:
        """Keep the loss of the connection."""
        self._note("lost", error)

    def of(self, kind: str) -> list[tuple[Any, ...]]:
        """Return what was told of one kind, in order."""
        return [what[1:] for what in self.told if what[0] == kind]

    def _note(self, *what: Any) -> None:
        if self.of("lost"):
            self.offences.append(f"{what[0]} is told after the loss")
        try:
            here: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is not self._loop:
            self.offences.append(f"{what[0]} is not told on the loop's thread")
        self.told.append(what)


class TransportContract(Contract):
    """The laws of the port ``Transport``.

    A dial ends open or by an error of the tree; events arrive in order, and acknowledgements at their
    messages; a loss is told once, and after it, or after ``close`` began, nothing. ``close`` can be
    repeated, is bounded and can be cancelled. No law leaves a task.

    Override ``make``, ``make_failing``, ``make_hanging``, ``emit``, ``break_connections``, ``silence`` and
    ``notes``, and ``set_up`` and ``tear_down`` where the server has to be started.

    Every hook runs on the loop of the law. The server lets everybody in who has a token, and emits nothing by
    itself. It keeps every ``note``, in order, and acknowledges every ``echo`` with the event's own arguments.
    """

    async def set_up(self) -> None:
        """Start the server, where it is not there already. Called first in every law."""

    async def tear_down(self) -> None:
        """Stop it. Called last in every law, whatever came of it."""

    async def make(self, listener: TransportListener) -> Transport:
        """Return an unopened transport to the server."""
        raise NotImplementedError

    async def make_failing(self, listener: TransportListener, kind: type[RealtimeError]) -> Transport:
        """Return an unopened transport whose ``open`` must fail by this kind of error.

        Args:
            listener: Of the transport.
            kind: ``TransportError``: nobody is there, or not available. ``AuthenticationError``: the server
                refuses the identity. ``ProtocolError``: it is no Socket.IO server. Skip what cannot be
                brought about.
        """
        raise NotImplementedError

    async def make_hanging(self, listener: TransportListener) -> Transport:
        """Return an unopened transport whose ``open`` gets no answer for as long as the law lasts."""
        raise NotImplementedError

    async def emit(self, event: str, *args: Any) -> None:
        """Let the server emit an event to every client."""
        raise NotImplementedError

    async def break_connections(self) -> None:
        """Break every connection abruptly, from the other end or in between. Harmless where there is none."""
        raise NotImplementedError

    async def silence(self) -> None:
        """Let nothing pass any more, either way, without closing anything: a dead network."""
        raise NotImplementedError

    def notes(self) -> list[Any]:
        """Return the first argument of every ``note`` that the server got, in order."""
        raise NotImplementedError

    # For the laws.

    @asynccontextmanager
    async def server(self) -> AsyncIterator[None]:
        """Have the server for as long as a law lasts."""
        try:
            await self.set_up()
            yield
        finally:
            await self.tear_down()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[tuple[Transport, RecordingListener]]:
        """Have a transport that is open, with its server; afterwards close it, and look for offences."""
        async with self.server():
            listener = RecordingListener()
            transport = await self.make(listener)
            try:
                await self.within_bound(transport.open(AUTH), "the transport is open")
                yield transport, listener
            finally:
                await self.closed(transport)
            assert listener.offences == []

    async def closed(self, transport: Transport) -> None:
        """Close a transport at once, as after a loss."""
        await self.within_bound(transport.close(goodbye=False), "the transport is closed")

    async def tick(self, count: int) -> None:
        """Let the server emit numbered events."""
        for number in range(count):
            await self.emit(TICK, number)

    async def echoed(self, transport: Transport, listener: RecordingListener, ack_id: int) -> None:
        """Send something, and wait until the server has acknowledged it: everything before has arrived."""
        transport.send(payload(ECHO), ack_id)
        await self.eventually(
            lambda: ack_id in [acked for acked, _ in listener.of("ack")], f"acknowledgement {ack_id}"
        )

    # The dial.

    def test_open_transport_is_ready(self) -> None:
        """An open transport has a name, room and a sign of life, has written nothing and told nothing."""

        async def main() -> None:
            began = asyncio.get_running_loop().time()
            async with self.opened() as (transport, listener):
                assert transport.name
                assert isinstance(transport.welcome, Mapping)
                assert transport.written == 0
                assert transport.room > 0
                assert began <= transport.last_received <= asyncio.get_running_loop().time()
                assert listener.told == []

        self.run(main())

    def test_dial_to_nobody_is_a_transport_error(self) -> None:
        """The dial fails as ``TransportError`` where nobody answers, or not now."""
        self.run(self._dial_fails(TransportError))

    def test_dial_that_is_refused_is_an_authentication_error(self) -> None:
        """The dial fails as ``AuthenticationError`` where the identity is refused."""
        self.run(self._dial_fails(AuthenticationError))

    def test_dial_to_a_stranger_is_a_protocol_error(self) -> None:
        """The dial fails as ``ProtocolError`` where something else answers than a Socket.IO server."""
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

    # While it is open.

    def test_events_arrive_in_wire_order(self) -> None:
        """Events arrive once, in the order in which the server emitted them."""

        async def main() -> None:
            async with self.opened() as (_, listener):
                await self.tick(200)
                await self.eventually(lambda: len(listener.of("event")) >= 200, "200 events")
                assert numbers(listener) == list(range(200))
                assert [(name, ack_id) for name, _, ack_id in listener.of("event")] == [("tick", None)] * 200
                await self.emit(TICK, "x" * 1000)
                await self.eventually(lambda: len(listener.sizes) > 200, "a large event")
                assert listener.sizes[-1] >= 1000 > max(listener.sizes[:-1]) > 0, "sizes are not told"

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

    def test_wire_is_read_however_much_comes(self) -> None:
        """Reading is never held back: all events are told, in order, and the answer that lies behind them."""

        async def main() -> None:
            async with self.opened() as (transport, listener):
                await self.tick(1500)
                await self.echoed(transport, listener, 1)
                await self.eventually(lambda: len(listener.of("event")) >= 1500, "1500 events")
                assert numbers(listener) == list(range(1500))

        self.run(main())

    def test_ping_is_answered_where_there_is_one(self) -> None:
        """A ping brings a pong and a newer sign of life; a transport without one says so and tells none."""

        async def main() -> None:
            async with self.opened() as (transport, listener):
                before = transport.last_received
                if transport.ping(1):
                    await self.eventually(lambda: listener.of("pong"), "the pong")
                    assert transport.ping(2)
                    await self.eventually(lambda: len(listener.of("pong")) > 1, "the second pong")
                    assert listener.of("pong") == [(1,), (2,)]
                    assert transport.last_received > before
                else:
                    await self.echoed(transport, listener, 1)
                    assert listener.of("pong") == []

        self.run(main())

    # Lost by itself.

    def test_loss_is_told_once(self) -> None:
        """A connection that breaks is told once, as ``TransportError``, and nothing is told after it."""

        async def main() -> None:
            async with self.opened() as (transport, listener):
                transport.send(payload(ECHO), 1)
                await self.break_connections()
                await self._lost(listener)
                await self.break_connections()
                await self.closed(transport)
                await turns()
                errors = [error for (error,) in listener.of("lost")]
                assert len(errors) == 1, f"the loss is told {len(errors)} times"
                assert isinstance(errors[0], TransportError), repr(errors[0])
                assert listener.told[-1][0] == "lost"

        self.run(main())

    def test_what_came_before_the_loss_is_told_before_it(self) -> None:
        """Of what was emitted before a loss a gapless beginning is told, and all of it before the loss."""

        async def main() -> None:
            async with self.opened() as (_, listener):
                await self.tick(50)
                await self.eventually(lambda: listener.of("event"), "the first event")
                await self.break_connections()
                await self._lost(listener)
                assert numbers(listener) == list(range(len(numbers(listener))))

        self.run(main())

    def test_sending_after_the_loss_does_nothing(self) -> None:
        """Sending, answering and pinging after the loss do nothing, without a word and without an error."""

        async def main() -> None:
            async with self.opened() as (transport, listener):
                await self.break_connections()
                await self._lost(listener)
                told, written = len(listener.told), transport.written
                self._use(transport)
                await turns()
                assert (len(listener.told), transport.written, self.notes()) == (told, written, [])

        self.run(main())

    async def _lost(self, listener: RecordingListener) -> None:
        await self.eventually(lambda: listener.of("lost"), "the loss")

    # Closed by the client.

    def test_nothing_is_told_after_close_began(self) -> None:
        """From the moment that ``close`` is called the listener hears nothing, not even of a loss."""

        async def main() -> None:
            for goodbye in (False, True):
                async with self.opened() as (transport, listener):
                    await self.tick(100)
                    await self.eventually(lambda: listener.of("event"), "the first event")
                    closing = asyncio.ensure_future(transport.close(goodbye=goodbye))
                    await asyncio.sleep(0)
                    told = list(listener.told)
                    await self.within_bound(_all(closing), "it is closed")
                    await self.break_connections()
                    self._use(transport)
                    await turns()
                    assert listener.told == told

        self.run(main())

    def test_close_may_be_repeated(self) -> None:
        """Closing twice at once, and again afterwards, with and without a goodbye, does nothing more."""

        async def main() -> None:
            async with self.opened() as (transport, listener):
                both = [asyncio.ensure_future(transport.close(goodbye=goodbye)) for goodbye in (True, False)]
                await self.within_bound(_all(*both), "it is closed")
                for goodbye in (True, False):
                    await self.within_bound(transport.close(goodbye=goodbye), "it is closed again")
                assert listener.of("lost") == []

        self.run(main())

    def test_close_with_goodbye_delivers_what_was_sent(self) -> None:
        """A goodbye on a connection that lives comes after everything that was sent before it."""

        async def main() -> None:
            async with self.opened() as (transport, _):
                for number in range(50):
                    transport.send(payload(NOTE, number), None)
                await self.within_bound(transport.close(goodbye=True), "it is closed")
                await self.eventually(lambda: len(self.notes()) >= 50, "the messages arrive")
                assert self.notes() == list(range(50))

        self.run(main())

    def test_sending_after_close_does_nothing(self) -> None:
        """Messages that are sent after ``close`` are dropped without a word, and never arrive."""

        async def main() -> None:
            async with self.opened() as (transport, listener):
                await self.echoed(transport, listener, 1)
                written = transport.written
                await self.closed(transport)
                told = list(listener.told)
                self._use(transport)
                await turns()
                assert (listener.told, self.notes()) == (told, [])
                assert transport.written <= written

        self.run(main())

    def test_close_of_a_dead_connection_is_bounded(self) -> None:
        """A close without a goodbye takes no time that depends on the peer, which may be silent."""

        async def main() -> None:
            async with self.opened() as (transport, listener):
                await self.silence()
                transport.send(payload(NOTE, 1), None)
                await self.closed(transport)
                assert listener.of("lost") == []

        self.run(main())

    def test_goodbye_can_be_given_up(self) -> None:
        """A goodbye that is cancelled, at once or after a while, ends soon, and everything is released."""

        async def main() -> None:
            for patience in (0.0, self.bound / 50):
                async with self.opened() as (transport, listener):
                    await self.silence()
                    for number in range(10):
                        transport.send(payload(NOTE, number), None)
                    goodbye = asyncio.ensure_future(transport.close(goodbye=True))
                    await asyncio.wait({goodbye}, timeout=patience)
                    goodbye.cancel()
                    await asyncio.wait({goodbye}, timeout=self.bound)
                    assert goodbye.done(), "a goodbye does not end when it is cancelled"
                    assert goodbye.cancelled() or goodbye.exception() is None, repr(goodbye.exception())
                    await self.closed(transport)
                    assert listener.of("lost") == []

        self.run(main())

    def _use(self, transport: Transport) -> None:
        """Do what does nothing after the end."""
        transport.send(payload(NOTE, "too late"), 99)
        transport.answer(1, payload("too late"))
        transport.ping(1)


def payload(event: str, *args: Any) -> Payload:
    """Return an encoded event."""
    return encode([event, *args], what="The event of a law", max_bytes=MAX_BYTES)


def numbers(listener: RecordingListener) -> list[Any]:
    """Return the first arguments of the events that a listener was told."""
    return [args[0] for _, args, _ in listener.of("event")]


async def turns(count: int = 20) -> None:
    """Let the loop go round."""
    for _ in range(count):
        await asyncio.sleep(0)


async def _all(*futures: asyncio.Future[Any]) -> None:
    await asyncio.gather(*futures)
