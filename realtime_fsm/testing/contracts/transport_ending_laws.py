"""The laws of a transport that is lost, or closed."""

import asyncio
from typing import Any

from realtime_fsm.engine.port import Transport
from realtime_fsm.machine.errors import TransportError
from realtime_fsm.testing.contracts.recording_listener import RecordingListener
from realtime_fsm.testing.contracts.transport_hooks import (
    ECHO,
    NOTE,
    TransportHooks,
    numbers,
    payload,
    turns,
)


class TransportEndingLaws(TransportHooks):
    """The end; see ``TransportContract``."""

    # By itself.

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
        """What is sent, answered or pinged after the loss is dropped without a word, and without an error."""

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

    # By the client.

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
        """What is sent after ``close`` is dropped without a word, and never arrives."""

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
        """Where the peer is silent a close without a goodbye takes no time that depends on it."""

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
        transport.ping()


async def _all(*futures: asyncio.Future[Any]) -> None:
    await asyncio.gather(*futures)
