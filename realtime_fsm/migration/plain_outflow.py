"""What the old client sends: in order, within a window, and after a loss again where that is safe."""

import asyncio
import uuid
from collections import deque
from functools import partial
from typing import Any

import socketio
from attrs import define

from realtime_fsm.engine.answer import unwrap
from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.machine.delivery import Outcome
from realtime_fsm.machine.errors import DeliveryError
from realtime_fsm.migration.plain_socket import PlainSocket
from realtime_fsm.migration.rollout_client import Letter


@define(eq=False)
class _Flight:
    """A message that was sent, and when."""

    letter: Letter
    sent_at: float


class PlainOutflow:
    """Sends over whichever connection there is, and keeps what waits for one.

    Where the server drops repeats, what a loss left unacknowledged is sent again under the same identity;
    elsewhere it is lost, and its receipt says so: as it always was with the old client.

    Args:
        config: The dialect, the window, the time-out of an acknowledgement.
    """

    def __init__(self, config: RealtimeConfig) -> None:
        self._config = config
        self._client_id = f"legacy-{uuid.uuid4().hex[:12]}"
        self._sequence = 0
        self._flights = 0
        self._waiting: deque[Letter] = deque()
        self._in_flight: dict[int, _Flight] = {}
        self._woken = asyncio.Event()
        self._progress = asyncio.Event()
        self._socket: PlainSocket | None = None
        self._task: asyncio.Task[None] | None = None

    def post(self, letter: Letter) -> None:
        """Take a message."""
        self._waiting.append(letter)
        self._woken.set()

    def attach(self, socket: PlainSocket) -> None:
        """Begin to send over a connection."""
        self._socket = socket
        self._task = asyncio.create_task(self._send_all(socket), name="realtime_fsm plain outflow")

    async def detach(self) -> None:
        """Stop sending, because the connection has ended. What may be sent again goes back in order."""
        self._socket = None
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
        flights, self._in_flight = list(self._in_flight.values()), {}
        if self._config.dialect.deduplicates:
            self._waiting.extendleft(flight.letter for flight in reversed(flights))
        else:
            for flight in flights:
                reason = "the connection ended while it was under way"
                flight.letter.receipt.settle(Outcome.LOST, reason=reason)
        self._progress.set()

    async def drain(self) -> None:
        """Wait until everything has been acknowledged, or written; or the connection has ended.

        For what was sent and may be sent again it waits over a reconnect: nobody else can tell whether the
        server has had it.
        """
        while self._is_unsure or (self._socket is not None and (self._waiting or self._in_flight)):
            self._progress.clear()
            await self._progress.wait()
        if self._socket is not None:
            await self._socket.written()

    def expire(self) -> None:
        """Give up waiting for acknowledgements that a live server does not send."""
        limit = asyncio.get_running_loop().time() - self._config.ack_timeout
        for number, flight in list(self._in_flight.items()):
            if flight.sent_at <= limit:
                del self._in_flight[number]
                reason = f"the server did not acknowledge it within {self._config.ack_timeout} s"
                flight.letter.receipt.settle(Outcome.UNACKNOWLEDGED, reason=reason)
        self._moved()

    def take(self) -> list[Letter]:
        """Give up what is left, and return it."""
        left = [*(flight.letter for flight in self._in_flight.values()), *self._waiting]
        self._in_flight.clear()
        self._waiting.clear()
        return left

    # Inside.

    @property
    def _is_unsure(self) -> bool:
        return bool(self._in_flight) or any(letter.was_sent for letter in self._waiting)

    async def _send_all(self, socket: PlainSocket) -> None:
        window = self._config.max_in_flight
        while True:
            while not self._waiting or len(self._in_flight) >= window:
                self._woken.clear()
                await self._woken.wait()
            letter = self._waiting.popleft()
            try:
                await self._send(socket, letter)
            except socketio.exceptions.SocketIOError:
                self._waiting.appendleft(letter)  # it was not sent; the loss is told elsewhere
                return

    async def _send(self, socket: PlainSocket, letter: Letter) -> None:
        dialect = self._config.dialect
        self._flights += 1
        number = self._flights
        args = letter.args
        if dialect.message_ids:
            letter.identity = self._identity() if letter.identity is None else letter.identity
            args = (*args, letter.identity)
        had_been_sent, letter.was_sent = letter.was_sent, True
        self._in_flight[number] = _Flight(letter, asyncio.get_running_loop().time())
        try:
            on_ack = partial(self._acknowledged, number) if dialect.wraps_answers else None
            await socket.emit(letter.event, args, on_ack)
        except socketio.exceptions.SocketIOError:
            del self._in_flight[number]
            letter.was_sent = had_been_sent
            raise
        if not dialect.wraps_answers:
            self._in_flight.pop(number, None)
            letter.receipt.settle(Outcome.SENT)
            self._moved()

    def _identity(self) -> dict[str, Any]:
        self._sequence += 1
        identity: dict[str, Any] = {"message_id": f"{self._client_id}-{self._sequence}"}
        if self._config.dialect.deduplicates:
            identity |= {"client_id": self._client_id, "sequence": self._sequence}
        return identity

    def _acknowledged(self, number: int, *args: Any) -> None:
        flight = self._in_flight.pop(number, None)
        if flight is None:
            return
        try:
            answer = unwrap(args[0] if args else None)
        except DeliveryError as error:
            flight.letter.receipt.settle(Outcome.REFUSED, reason=error.message)
        else:
            flight.letter.receipt.settle(Outcome.ACKNOWLEDGED, answer=answer)
        self._moved()

    def _moved(self) -> None:
        self._woken.set()
        self._progress.set()
