"""A connection of the client's own transport, and what comes over it."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from attrs import evolve

from realtime_fsm.adapters.socketio_transport import SocketIOTransport
from realtime_fsm.doctor.patient import Patient
from realtime_fsm.engine.payload import encode
from realtime_fsm.machine.errors import ConnectTimeoutError, InternalError, RealtimeError

_GOODBYE: Final = 1.0


class Visit:
    """Opens the namespace and keeps it open, until it is ended: the listener of its transport.

    Args:
        patient: Whom to visit, over the transports that were seen to work.

    Attributes:
        error: Why the namespace could not be joined; ``None`` where it was.
        lost: Resolved with the reason when the open connection ends.
        malformed: The last frame that could not be decoded, in words.
        acknowledges: Whether the server has acknowledged the heartbeat.
        pongs: Whether the peer has answered a ping of the websocket.
    """

    def __init__(self, patient: Patient) -> None:
        self._patient = patient
        self._loop = asyncio.get_running_loop()
        self._ack_id = 0
        self._acks: dict[int, asyncio.Future[list[Any]]] = {}
        self._pong: asyncio.Future[None] | None = None
        self.error: RealtimeError | None = None
        self.lost: asyncio.Future[RealtimeError] = self._loop.create_future()
        self.malformed: str | None = None
        self.acknowledges = False
        self.pongs = False
        config = evolve(
            patient.config, transports=tuple(patient.transports), connection_timeout=patient.timeout
        )
        self._transport = SocketIOTransport(config, self, patient.connector)

    # What the transport tells.

    is_congested: Final = False

    def on_event(self, name: str, args: list[Any], ack_id: int | None) -> None:
        """Take no notice: what the server says to everybody is no concern of a doctor."""

    def on_ack(self, ack_id: int, args: list[Any]) -> None:
        """Give an acknowledgement to who waits for it."""
        waiting = self._acks.pop(ack_id, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(args)

    def on_pong(self) -> None:
        """Note that the peer is there."""
        self.pongs = True
        if self._pong is not None and not self._pong.done():
            self._pong.set_result(None)

    def on_written(self) -> None:
        """Take no notice."""

    def on_malformed(self, error: RealtimeError) -> None:
        """Remember it."""
        self.malformed = error.message

    def on_lost(self, error: RealtimeError) -> None:
        """Remember why."""
        if not self.lost.done():
            self.lost.set_result(error)

    async def relieved(self) -> None:
        """Wait for nothing."""

    # What is asked of it.

    @property
    def welcome(self) -> Mapping[str, Any]:
        """The data of the CONNECT packet that let the client in."""
        return self._transport.welcome

    @property
    def transport(self) -> str:
        """What carries it."""
        return self._transport.name

    @property
    def is_open(self) -> bool:
        """Whether the namespace was joined, and not been lost."""
        return self.error is None and not self.lost.done()

    async def begin(self) -> None:
        """Join the namespace; ``error`` says how that went."""
        patient = self._patient
        auth = None if patient.token is None else {patient.config.dialect.token_key: patient.token}
        try:
            async with asyncio.timeout(patient.timeout):
                await self._transport.open(auth)
        except TimeoutError:
            self.error = ConnectTimeoutError(
                f"The session opens, but nothing answers for the namespace {patient.config.namespace} within "
                f"{patient.timeout:g} s.",
                remedy="Its connection handler hangs: look at what it waits for, and at the server's log.",
            )
        except RealtimeError as error:
            self.error = error
        except Exception as error:  # noqa: BLE001 - of the libraries below; it is told, whatever it is
            self.error = InternalError(f"Opening the connection raised {type(error).__name__}.")

    async def ask(self, event: str, *args: Any) -> list[Any] | None:
        """Emit an event, and return the arguments of its acknowledgement; ``None`` where none comes."""
        self._ack_id += 1
        answer = self._acks[self._ack_id] = self._loop.create_future()
        payload = encode(
            [event, *args], what=f"The event {event!r}", max_bytes=self._patient.config.max_message_bytes
        )
        self._transport.send(payload, self._ack_id)
        await self._first(answer)
        return answer.result() if answer.done() else None

    async def ping(self) -> bool:
        """Tell whether the peer answers a ping of the websocket; never over polling."""
        self._pong = self._loop.create_future()
        if not self._transport.ping():
            return False
        await self._first(self._pong)
        return self._pong.done()

    async def _first(self, answer: asyncio.Future[Any]) -> None:
        await asyncio.wait(
            {answer, self.lost}, timeout=self._patient.timeout, return_when=asyncio.FIRST_COMPLETED
        )

    async def stay_silent(self, seconds: float) -> None:
        """Send nothing for a time, or until the connection is lost. Pings of the server are answered."""
        await asyncio.wait({self.lost}, timeout=seconds)

    async def end(self) -> None:
        """Say goodbye, and release everything. Bounded."""
        try:
            async with asyncio.timeout(_GOODBYE):
                await self._transport.close(goodbye=self.is_open)
        except TimeoutError:  # it has been released all the same
            return
