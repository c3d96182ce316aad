"""What comes in on the live link: events to the handlers, room to the sender, a loss to the manager."""

from collections.abc import Callable
from functools import partial
from typing import Any

from realtime_fsm.engine.component import Components
from realtime_fsm.engine.dispatcher import Delivered
from realtime_fsm.engine.flight_recorder import Kind
from realtime_fsm.engine.link import Link
from realtime_fsm.engine.payload import encode
from realtime_fsm.engine.subscription import read_position
from realtime_fsm.machine.errors import InvalidArgumentError, RealtimeError


class Inbound:
    """Told by the links, and tells the parts whom it concerns.

    Args:
        parts: The client's components.
        live_link: Gives the link that is live now, if one is. A link that only dials is not.
        on_lost: Told when the live link has ended by itself.
    """

    def __init__(
        self,
        parts: Components,
        *,
        live_link: Callable[[], Link | None],
        on_lost: Callable[[RealtimeError], None],
    ) -> None:
        self._parts = parts
        self._live_link = live_link
        self._on_lost = on_lost

    def begin(self) -> None:
        """Prepare for a link that becomes live, before anything that comes over it is passed on."""
        parts = self._parts
        statistics = parts.statistics
        is_first = statistics.connections == 1 and statistics.polls == statistics.failed_polls
        is_whole = parts.session.began()
        if not (is_first or is_whole or parts.config.dialect.positions):
            parts.statistics.unrecovered += 1
            parts.resync.begin_for_all("the server does not replay what it sent while the client was away")

    def link_event(self, link: Link, name: str, args: list[Any], ack_id: int | None) -> None:
        """Pass an event to the handlers, unless it is a repeat."""
        if not self._parts.session.take(name, args, ack_id):
            return
        if self._parts.config.dialect.positions and args and isinstance(args[-1], dict):
            here, channel = read_position(args[-1]), args[-1].get("channel")
            if here is not None and isinstance(channel, str):
                args = args[:-1]
                if not self._parts.subscriptions.take_place(channel, here):
                    return
        if self._parts.recorder.is_tracing:
            self._parts.recorder.note(Kind.EVENT, f"{name!r} with {len(args)} arguments")
        answer = None if ack_id is None else partial(self._answer, link, name, ack_id)
        self._parts.dispatcher.post(Delivered(name, args, answer))

    def link_written(self, link: Link) -> None:
        """Send on."""
        if link is self._live_link():
            self._parts.sender.on_written(link.transport.written)

    def link_malformed(self, error: RealtimeError) -> None:
        """Report it."""
        self._parts.recovery.handle(error)

    def link_lost(self, link: Link, error: RealtimeError) -> None:
        """Report the loss, if the link is the live one; one that only dials tells its dialler."""
        if link is self._live_link():
            self._on_lost(error)

    async def link_relieved(self) -> None:
        """Wait for the handlers."""
        await self._parts.dispatcher.relieved()

    @property
    def link_congested(self) -> bool:
        """Whether the handlers are behind."""
        return self._parts.dispatcher.is_congested

    def _answer(self, link: Link, event: str, ack_id: int, answer: Any) -> None:
        """Answer an event of the server with what its handlers returned."""
        args = [] if answer is None else list(answer) if isinstance(answer, tuple) else [answer]
        what = f"The answer to {event!r}"
        try:
            payload = encode(args, what=what, max_bytes=self._parts.config.max_message_bytes)
        except InvalidArgumentError as error:
            self._parts.recovery.handle(error)
            return
        link.answer(ack_id, payload)
