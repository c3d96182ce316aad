"""What a rollout sends: one queue, to whichever client runs, in order, and held during a switch."""

import asyncio
import logging
from collections import deque

from realtime_fsm.machine.delivery import Outcome
from realtime_fsm.machine.errors import OutboxFullError, RealtimeError
from realtime_fsm.migration.rollout_client import Letter, RolloutClient

_logger = logging.getLogger("realtime_fsm.migration")


class RolloutOutflow:
    """The gate between the application and the client that runs.

    Args:
        limit: Messages that may be on their way, at most.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: deque[Letter] = deque()
        self._open: set[Letter] = set()
        self._client: RolloutClient | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def accept(self, letter: Letter) -> None:
        """Take a message.

        Raises:
            OutboxFullError: If there is no room. Nothing was accepted.
        """
        self._open = (
            {one for one in self._open if not one.receipt.is_settled} if self._is_full else self._open
        )
        if self._is_full:
            raise OutboxFullError(f"The rollout holds {self._limit} messages that are on their way.")
        self._open.add(letter)
        self._waiting.append(letter)
        self._woken.set()

    def start(self) -> None:
        """Begin to hand messages on."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="realtime_fsm rollout outflow")

    def resume(self, client: RolloutClient, left: list[Letter]) -> None:
        """Hand messages to a client from now on, first those that another one has left.

        Args:
            client: Who sends them.
            left: What the one before it had taken and not brought to its end, in order. What the server may
                have had already, and could not tell from a new one, is given up: it must not happen twice.
        """
        again = []
        for letter in left:
            if letter.was_sent and (letter.identity is None or not client.accepts_identity):
                reason = "whether it arrived was not known when another client took over"
                letter.receipt.settle(Outcome.LOST, reason=reason)
            else:
                again.append(letter)
        self._waiting.extendleft(reversed(again))
        self._client = client
        self._woken.set()

    async def hold(self, limit: float) -> None:
        """Hand nothing on from now on.

        Args:
            limit: Seconds that a client has to take the message that is being handed to it. What it has not
                taken by then is among what it leaves when it is released.
        """
        self._client = None
        try:
            async with asyncio.timeout(limit):
                await self._idle.wait()
        except TimeoutError:
            await self._stop()
            self.start()

    async def handed_on(self) -> None:
        """Wait until the client has taken everything that was accepted. The caller bounds it."""
        while self._waiting or not self._idle.is_set():
            self._idle.clear()
            self._woken.set()
            await self._idle.wait()

    async def close(self) -> None:
        """End, and give up what waits."""
        self._client = None
        await self._stop()
        self.abandon(list(self._waiting))
        self._waiting.clear()
        self._open.clear()

    def abandon(self, left: list[Letter]) -> None:
        """Settle messages that nobody will send."""
        for letter in left:
            outcome = Outcome.LOST if letter.was_sent else Outcome.DROPPED
            letter.receipt.settle(outcome, reason="the client was disconnected")

    @property
    def _is_full(self) -> bool:
        return len(self._open) >= self._limit

    async def _stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
        self._idle.set()

    async def _run(self) -> None:
        while True:
            client = self._client
            if client is None or not self._waiting:
                self._idle.set()
                self._woken.clear()
                await self._woken.wait()
                continue
            self._idle.clear()
            letter = self._waiting.popleft()
            try:
                await client.post(letter)
            except RealtimeError as error:
                _logger.warning("%r could not be sent: %s", letter.event, error)
                letter.receipt.settle(Outcome.DROPPED, reason=error.message.removesuffix("."))
