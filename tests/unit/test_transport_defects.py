"""Each law of ``TransportContract`` can fail: for every one there is a transport that breaks it."""

import asyncio
from functools import partial
from typing import Any

import pytest
import test_contracts as sound

from realtime_fsm.engine.payload import Payload
from realtime_fsm.machine.errors import (
    AuthenticationError,
    ConnectionLostError,
    InternalError,
    ProtocolError,
    TransportError,
)
from realtime_fsm.testing import (
    SimulatedTransport,
    TransportContract,
)


class Mute(SimulatedTransport):
    """Has no name."""

    name = ""


class Untold(SimulatedTransport):
    """Fails by whatever comes first."""

    async def open(self, auth: Any) -> None:
        """Translate nothing."""
        try:
            await super().open(auth)
        except Exception as error:
            raise OSError from error


class Gossip(SimulatedTransport):
    """Shows the token in its errors."""

    async def open(self, auth: Any) -> None:
        """Say too much."""
        try:
            await super().open(auth)
        except AuthenticationError as error:
            raise AuthenticationError(f"{auth} is refused.") from error


class Confused(SimulatedTransport):
    """Takes every failure for one of the network."""

    async def open(self, auth: Any) -> None:
        """Translate everything alike."""
        try:
            await super().open(auth)
        except ProtocolError as error:
            raise TransportError("It failed.") from error


class Obstinate(SimulatedTransport):
    """Makes an error of its own of a cancellation."""

    async def open(self, auth: Any) -> None:
        """Swallow the cancellation."""
        try:
            await super().open(auth)
        except asyncio.CancelledError:
            raise TransportError("It was cancelled.") from None


class Eager(SimulatedTransport):
    """Sends before it is open."""

    def send(self, payload: Payload, ack_id: int | None) -> None:
        """Do not look."""
        self._server.received.append(("note", [1]))


class Disorderly(SimulatedTransport):
    """Delivers some events late."""

    count = 0

    def deliver_event(self, event: str, args: list[Any], ack_id: int | None = None) -> None:
        """Let every tenth come later."""
        self.count += 1
        tell = partial(super().deliver_event, event, args, ack_id)
        if self.count % 10 == 3:
            self._loop.call_later(0.5, tell)
        else:
            tell()


class Textual(SimulatedTransport):
    """Makes text of bytes."""

    def acknowledge(self, ack_id: int, args: list[Any], *, after: float = 0.0) -> None:
        """Decode them."""
        texts = [arg.decode("latin-1") if isinstance(arg, bytes) else arg for arg in args]
        super().acknowledge(ack_id, texts, after=after)


class Repeating(SimulatedTransport):
    """Tells acknowledgements twice."""

    def acknowledge(self, ack_id: int, args: list[Any], *, after: float = 0.0) -> None:
        """Tell it again."""
        super().acknowledge(ack_id, args, after=after)
        super().acknowledge(ack_id, args, after=after)


class Narrow(SimulatedTransport):
    """Drops what there is no room for."""

    def send(self, payload: Payload, ack_id: int | None) -> None:
        """Look at the room."""
        if self.room > 0:
            super().send(payload, ack_id)


class Choosy(SimulatedTransport):
    """Reads a thousand frames, and no more."""

    read = 0

    def _receive(self, tell: Any) -> None:
        self.read += 1
        if self.read <= 1000:
            super()._receive(tell)


class Stale(SimulatedTransport):
    """Does not take a pong for a sign of life."""

    def _receive(self, tell: Any) -> None:
        tell()


class Stammering(SimulatedTransport):
    """Tells a loss twice."""

    def end(self, error: Any) -> None:
        """Tell it again."""
        super().end(error)
        self.listener.on_lost(error)


class Gappy(SimulatedTransport):
    """Loses events while the connection lives."""

    def deliver_event(self, event: str, args: list[Any], ack_id: int | None = None) -> None:
        """Lose the second one."""
        if args != [1]:
            super().deliver_event(event, args, ack_id)


class Strict(SimulatedTransport):
    """Raises where it should be silent."""

    def send(self, payload: Payload, ack_id: int | None) -> None:
        """Complain when the connection has ended."""
        if not self._is_open:
            raise ConnectionLostError("It is closed.")
        super().send(payload, ack_id)


class Talkative(SimulatedTransport):
    """Tells its own close as a loss."""

    async def close(self, *, goodbye: bool) -> None:
        """Tell it."""
        if self._is_open:
            self._loop.call_soon(self.listener.on_lost, ConnectionLostError("It was closed."))
        await super().close(goodbye=goodbye)


class Once(SimulatedTransport):
    """Can be closed once."""

    async def close(self, *, goodbye: bool) -> None:
        """Complain the second time."""
        if self.closed_with_goodbye is not None:
            raise InternalError("It is closed.")
        await super().close(goodbye=goodbye)


class Hasty(SimulatedTransport):
    """Says no goodbye."""

    async def close(self, *, goodbye: bool) -> None:
        """Abort."""
        await super().close(goodbye=False)


class Posthumous(SimulatedTransport):
    """Delivers what is sent after the close."""

    def send(self, payload: Payload, ack_id: int | None) -> None:
        """Do not look."""
        self._arrive(payload, ack_id)


class Patient(SimulatedTransport):
    """Waits for a dead peer, whether it says goodbye or not."""

    async def close(self, *, goodbye: bool) -> None:
        """Wait for a while."""
        await super().close(goodbye=goodbye)
        if self._server.is_black_hole:
            await asyncio.sleep(100)


class Stubborn(SimulatedTransport):
    """Does not let a goodbye be given up."""

    async def close(self, *, goodbye: bool) -> None:
        """Shield it."""
        rest = asyncio.ensure_future(asyncio.sleep(100 if goodbye else 0))
        try:
            await asyncio.shield(rest)
        except asyncio.CancelledError:
            await rest
        await super().close(goodbye=False)


TRANSPORTS: dict[str, type[SimulatedTransport]] = {
    "test_open_transport_is_ready": Mute,
    "test_dial_to_nobody_is_a_transport_error": Untold,
    "test_dial_that_is_refused_is_an_authentication_error": Gossip,
    "test_dial_to_a_stranger_is_a_protocol_error": Confused,
    "test_dial_can_be_given_up": Obstinate,
    "test_transport_that_was_never_opened_can_be_closed": Eager,
    "test_events_arrive_in_wire_order": Disorderly,
    "test_data_arrives_as_it_was_sent": Textual,
    "test_acknowledgements_find_their_messages": Repeating,
    "test_messages_leave_in_the_order_of_sending": Narrow,
    "test_wire_is_read_however_much_comes": Choosy,
    "test_ping_is_answered_where_there_is_one": Stale,
    "test_loss_is_told_once": Stammering,
    "test_what_came_before_the_loss_is_told_before_it": Gappy,
    "test_sending_after_the_loss_does_nothing": Posthumous,
    "test_nothing_is_told_after_close_began": Talkative,
    "test_close_may_be_repeated": Once,
    "test_close_with_goodbye_delivers_what_was_sent": Hasty,
    "test_sending_after_close_does_nothing": Posthumous,
    "test_close_of_a_dead_connection_is_bounded": Patient,
    "test_goodbye_can_be_given_up": Stubborn,
}


class TransportSuite(sound.TestSimulatedTransport):
    """The laws, of a kind of transport."""

    kind: type[SimulatedTransport]

    async def make(self, listener: Any) -> SimulatedTransport:
        """Return one."""
        return self.kind(self.simulated, listener)


@pytest.mark.parametrize("law", TRANSPORTS)
def test_defect_of_a_transport_is_caught(law: str) -> None:
    """The law fails for a transport that breaks it."""
    suite = TransportSuite()
    suite.kind = TRANSPORTS[law]
    with pytest.raises((AssertionError, InternalError)):
        getattr(suite, law)()


def test_transport_that_raises_where_it_must_not_is_caught() -> None:
    """An error of a method that may not raise fails the law, and comes out as it is."""
    suite = TransportSuite()
    suite.kind = Strict
    for law in ("test_sending_after_close_does_nothing", "test_sending_after_the_loss_does_nothing"):
        with pytest.raises(ConnectionLostError, match="It is closed"):
            getattr(suite, law)()


def test_every_law_of_a_transport_is_broken_once() -> None:
    """There is a defect for each law, so that none is vacuous."""
    assert set(TRANSPORTS) == {name for name in dir(TransportContract) if name.startswith("test_")}
