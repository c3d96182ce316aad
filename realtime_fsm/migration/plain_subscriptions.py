"""What the old client is subscribed to, and how far it has come in each channel."""

import logging
from typing import Any

import socketio

from realtime_fsm.engine.answer import refusal_text
from realtime_fsm.engine.subscription import Position, read_position
from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.machine.errors import SubscriptionRefusedError
from realtime_fsm.migration.plain_socket import PlainSocket
from realtime_fsm.migration.rollout_client import Places, Wanted

_logger = logging.getLogger("realtime_fsm.migration")


class PlainSubscriptions:
    """Asked for again on each connection, from behind the last event where the server numbers them.

    Args:
        config: The dialect, and how long an answer may take.
    """

    def __init__(self, config: RealtimeConfig) -> None:
        self._config = config
        self._wanted: dict[str, str | None] = {}
        self._places: dict[str, Position] = {}

    @property
    def wanted(self) -> Wanted:
        """What is wanted; a copy."""
        return dict(self._wanted)

    @property
    def places(self) -> Places:
        """The place of the last event of each channel; a copy."""
        return dict(self._places)

    def want(self, wanted: Wanted, places: Places) -> None:
        """Want channels, from behind their places."""
        self._wanted.update(wanted)
        self._places.update({channel: place for channel, place in places.items() if channel in wanted})

    def forget(self, channels: list[str]) -> None:
        """Want channels no longer."""
        for channel in channels:
            self._wanted.pop(channel, None)
            self._places.pop(channel, None)

    def take(self, args: list[Any]) -> list[Any] | None:
        """Return the arguments of an event without its place; ``None`` if it has been here before."""
        if not (self._config.dialect.positions and args and isinstance(args[-1], dict)):
            return args
        here, channel = read_position(args[-1]), args[-1].get("channel")
        if here is None or not isinstance(channel, str):
            return args
        last = self._places.get(channel)
        if last is not None and last.epoch == here.epoch and here.offset <= last.offset:
            return None
        if channel in self._wanted:
            self._places[channel] = here
        return args[:-1]

    async def ask(self, socket: PlainSocket, wanted: Wanted) -> None:
        """Ask the server for channels, and wait for its answer where it gives one.

        Raises:
            SubscriptionRefusedError: If it refused some, or did not answer in time.
        """
        dialect = self._config.dialect
        channels = [channel for channel, booking_id in wanted.items() if booking_id is None]
        bookings = {channel: one for channel, one in wanted.items() if one is not None}
        refused = []
        if channels:
            body = {"channels": channels}
            refused += await self._request(socket, dialect.subscribe_event, body, channels)
        if bookings:
            body = {"booking_ids": list(bookings.values())}
            refused += await self._request(socket, dialect.monitor_event, body, list(bookings))
        if refused:
            raise SubscriptionRefusedError(f"The server refused {', '.join(refused)}.")

    async def drop(self, socket: PlainSocket, channels: list[str]) -> None:
        """Tell the server that channels are no longer wanted; it need not answer."""
        await socket.emit(self._config.dialect.unsubscribe_event, ({"channels": channels},))

    async def _request(
        self, socket: PlainSocket, event: str, body: dict[str, Any], channels: list[str]
    ) -> list[str]:
        """Ask; return which channels were refused, and why."""
        config = self._config
        if config.dialect.positions:
            known = {channel: self._places[channel] for channel in channels if channel in self._places}
            body["positions"] = {
                channel: {"epoch": place.epoch, "offset": place.offset} for channel, place in known.items()
            }
        if not config.dialect.confirms_subscriptions:
            await socket.emit(event, (body,))
            return []
        try:
            args = await socket.ask(event, body, timeout=config.ack_timeout)
        except TimeoutError:
            told = f"The server did not answer for {', '.join(channels)} within {config.ack_timeout} s."
            raise SubscriptionRefusedError(told, remedy="They are asked for again on reconnecting.") from None
        except socketio.exceptions.SocketIOError:
            return []  # the connection is lost: asked again on the next one
        return self._confirm(args[0] if args else None, channels)

    def _confirm(self, answer: Any, channels: list[str]) -> list[str]:
        told = answer.get("channels") if isinstance(answer, dict) else None
        refused = []
        for channel in channels:
            verdict = told.get(channel) if isinstance(told, dict) else answer
            if not isinstance(verdict, dict) or verdict.get("ok") is not True:
                error = verdict.get("error") if isinstance(verdict, dict) else None
                refused.append(f"{channel!r} ({refusal_text(error)})")
                continue
            here = read_position(verdict)
            if verdict.get("recovered") is False:
                _logger.warning("events of channel %r were missed: its log does not reach back", channel)
                self._places.pop(channel, None)
            if here is not None:
                self._places.setdefault(channel, here)
        return refused
