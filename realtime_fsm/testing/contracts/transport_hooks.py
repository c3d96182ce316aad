"""What the laws of transports need to know of an implementation, and of the server at its other end."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from realtime_fsm.engine.payload import Payload, encode
from realtime_fsm.engine.port import Transport, TransportListener
from realtime_fsm.machine.errors import RealtimeError
from realtime_fsm.testing.contracts.contract import Contract
from realtime_fsm.testing.contracts.recording_listener import RecordingListener

ECHO: Final = "echo"
NOTE: Final = "note"
TICK: Final = "tick"
MAX_BYTES: Final = 1_000_000

SECRET: Final = "contract-token-51d07c0de5ec2e7"  # noqa: S105 - made up, and looked for in errors
"""The token that the laws dial with."""

AUTH: Final[Mapping[str, Any]] = {"token": SECRET}


class TransportHooks(Contract):
    """How a transport is made, and what its server does. Every hook runs on the loop of the law.

    The server lets everybody in who has a token, and emits nothing by itself. It keeps every ``note``, in
    order, and acknowledges every ``echo`` with the event's own arguments.
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
        """Have the server."""
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
