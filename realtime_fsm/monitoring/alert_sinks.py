"""Where alerts go: a sink sends one alert, and a lane brings it the alerts in turn.

A sink that fails, hangs or is slow delays nothing but itself: each has a lane of its own, with a bounded
queue and a task.
"""

import asyncio
import inspect
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from realtime_fsm.machine.errors import InvalidArgumentError, RealtimeError
from realtime_fsm.machine.table import Severity
from realtime_fsm.monitoring.alert_record import Alert, AlertState

QUEUE_FULL: Final = "queue full"
CLOSED: Final = "closed before it was sent"

_CANCEL_TIMEOUT: Final = 1.0
"""Seconds that a sink gets to end once it is cancelled."""

_LEVELS: Final = {
    Severity.INFO: logging.INFO,
    Severity.WARNING: logging.WARNING,
    Severity.ERROR: logging.ERROR,
}

_logger = logging.getLogger("realtime_fsm.alerts")


class AlertSink(Protocol):
    """Sends alerts somewhere."""

    async def send(self, alert: Alert) -> None:
        """Send one; called with the next one only when this has returned. May be cancelled.

        Raises:
            Exception: If it cannot be sent. It is counted and logged, and not tried again.
        """


class LogSink:
    """Logs alerts: at the level of their severity, resolutions at INFO; the alert is in ``extra``.

    Args:
        logger: By default ``realtime_fsm.alerts``.
    """

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._logger = _logger if logger is None else logger

    async def send(self, alert: Alert) -> None:
        """Log one alert."""
        is_over = alert.state is AlertState.RESOLVED
        self._logger.log(
            logging.INFO if is_over else _LEVELS[alert.severity],
            "%s alert %s: %s",
            "✔" if is_over else "▲",
            alert.rule,
            f"{alert.sentence} {alert.remedy}".strip(),
            extra={"alert": alert.to_json()},
        )


class CallbackSink:
    """Calls a function, or a coroutine function, with every alert.

    Args:
        callback: What it returns is awaited, if it can be.
        timeout: Seconds that a coroutine function may take.
    """

    def __init__(self, callback: Callable[[Alert], object], *, timeout: float = 30.0) -> None:
        if not callable(callback):
            raise InvalidArgumentError(f"{callback!r} cannot be called.", remedy="Give a function.")
        if not 0.0 < timeout < float("inf"):
            raise InvalidArgumentError(f"timeout={timeout!r} must be finite, and more than 0 s.")
        self._callback = callback
        self._timeout = timeout

    async def send(self, alert: Alert) -> None:
        """Call it, and wait for it; for no longer than the timeout."""
        returned = self._callback(alert)
        if inspect.isawaitable(returned):
            async with asyncio.timeout(self._timeout):
                await _awaited(returned)


async def _awaited(returned: Awaitable[object]) -> None:
    await returned


class Lane:
    """Brings alerts to one sink, in their order; must be made on a running loop.

    Args:
        sink: Where they go.
        limit: Alerts that may wait; beyond it the oldest makes room, and is counted.
    """

    def __init__(self, sink: AlertSink, limit: int) -> None:
        self._sink = sink
        self._limit = limit
        self._waiting: deque[Alert] = deque()
        self._wake = asyncio.Event()
        self._is_closing = False
        self._sending = False
        self.sent = 0
        self.failed = 0
        self.dropped: Counter[str] = Counter()
        self._task = asyncio.create_task(self._run(), name=f"alerts to {type(sink).__name__}")

    def __len__(self) -> int:
        return len(self._waiting) + self._sending

    def put(self, alert: Alert) -> None:
        """Queue an alert. Never waits."""
        if len(self._waiting) >= self._limit:
            lost = self._waiting.popleft()
            self.dropped[QUEUE_FULL] += 1
            _logger.warning("%s falls behind: the alert %s was dropped", self._name, lost.id)
        self._waiting.append(alert)
        self._wake.set()

    async def close(self, within: float) -> None:
        """Send what waits, for as long as is allowed; then drop the rest, and count it. Never raises.

        Args:
            within: Seconds. Ending a sink that hangs takes up to a second more.
        """
        self._is_closing = True
        self._wake.set()
        try:
            await asyncio.wait({self._task}, timeout=within)
        finally:
            self._task.cancel()
            left = len(self)
            if left:
                self.dropped[CLOSED] += left
                _logger.warning("%s: %d alerts were dropped, %s", self._name, left, CLOSED)
            self._waiting.clear()
        _, hanging = await asyncio.wait({self._task}, timeout=_CANCEL_TIMEOUT)
        if hanging:
            _logger.error("%s does not end although it was cancelled", self._name)

    @property
    def _name(self) -> str:
        return type(self._sink).__name__

    async def _run(self) -> None:
        while self._waiting or not self._is_closing:
            self._wake.clear()
            while self._waiting:
                alert = self._waiting.popleft()
                self._sending = True
                await self._send(alert)
                self._sending = False
            if not self._is_closing:
                await self._wake.wait()

    async def _send(self, alert: Alert) -> None:
        try:
            await self._sink.send(alert)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Something that the sink waited for was cancelled; the lane was not.
            self._failed(alert, "what it waited for was cancelled")
        except RealtimeError as error:
            self._failed(alert, str(error))  # without its cause, which may hold an address
        except Exception:
            self.failed += 1
            _logger.exception("%s failed to send the alert %s", self._name, alert.id)
        else:
            self.sent += 1

    def _failed(self, alert: Alert, why: str) -> None:
        self.failed += 1
        _logger.error("%s failed to send the alert %s: %s", self._name, alert.id, why)
