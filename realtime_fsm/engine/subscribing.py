"""Asking the server for what is wanted, over a live link."""

import asyncio
from typing import Any

from attrs import frozen

from realtime_fsm.engine.link import Link
from realtime_fsm.engine.message import refusal_text
from realtime_fsm.engine.payload import encode
from realtime_fsm.engine.recovery import ErrorRecoveryStrategy
from realtime_fsm.engine.subscriptions import Subscription, Subscriptions, SubscriptionState
from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.machine.errors import ConnectionLostError, SubscriptionRefusedError
from realtime_fsm.machine.redaction import redacted


@frozen
class Subscriber:
    """Asks for subscriptions, and notes the answers.

    Attributes:
        config: The dialect's names, and the time-out of a confirmation.
        subscriptions: What is wanted.
        recovery: Told of what could not be subscribed.
    """

    config: RealtimeConfig
    subscriptions: Subscriptions
    recovery: ErrorRecoveryStrategy

    async def ask(self, link: Link) -> None:
        """Ask for all that is wanted and neither asked for nor confirmed yet, and wait for the answers.

        Where the dialect does not confirm, what was asked for counts as active. The wait is bounded by
        ``ack_timeout``; what was not answered by then stays wanted, and is reported.
        """
        dialect = self.config.dialect
        wanted = [s for s in self.subscriptions if s.state is SubscriptionState.WANTED and not s.is_resyncing]
        channels = [s for s in wanted if s.booking_id is None]
        bookings = [s for s in wanted if s.booking_id is not None]
        requests = []
        if channels:
            body = {"channels": [s.channel for s in channels]}
            requests.append(self._ask(link, dialect.subscribe_event, body, channels))
        if bookings:
            body = {"booking_ids": [str(s.booking_id) for s in bookings]}
            requests.append(self._ask(link, dialect.monitor_event, body, bookings))
        await asyncio.gather(*requests)

    async def drop(self, link: Link, channels: list[str]) -> None:
        """Tell the server that channels are no longer wanted. Errors as for ``ask``, reported."""
        try:
            await self._request(link, self.config.dialect.unsubscribe_event, {"channels": channels})
        except ConnectionLostError:
            return  # the next connection does not ask for them any more
        except TimeoutError:
            self.recovery.handle(
                SubscriptionRefusedError("The server did not answer the unsubscribe request in time.")
            )

    async def _ask(
        self, link: Link, event: str, body: dict[str, Any], subscriptions: list[Subscription]
    ) -> None:
        if self.config.dialect.positions:
            body["positions"] = {
                s.channel: {"epoch": s.position.epoch, "offset": s.position.offset}
                for s in subscriptions
                if s.position is not None
            }
        for subscription in subscriptions:
            subscription.state = SubscriptionState.PENDING
        try:
            answer = await self._request(link, event, body)
        except ConnectionLostError:
            return  # asked again on the next connection
        except TimeoutError:
            for subscription in subscriptions:
                subscription.state = SubscriptionState.WANTED
            self.recovery.handle(
                SubscriptionRefusedError(f"The server did not answer the {event} request in time.")
            )
            return
        for subscription in subscriptions:
            self._confirm(link, subscription, answer)
        self.subscriptions.tell()

    async def _request(self, link: Link, event: str, body: dict[str, Any]) -> Any:
        """Send a request; return its answer, or a plain consent where the dialect gives none."""
        payload = encode([event, body], what=f"The {event} request", max_bytes=self.config.max_message_bytes)
        if not self.config.dialect.confirms_subscriptions:
            link.send(payload)
            return {"ok": True}
        async with asyncio.timeout(self.config.ack_timeout):
            args = await link.request(payload)
        return args[0] if args else None

    def _confirm(self, link: Link, subscription: Subscription, answer: Any) -> None:
        if subscription.state is not SubscriptionState.PENDING:
            return  # its connection has ended: the answer came too late
        verdict = answer
        if isinstance(answer, dict) and isinstance(answer.get("channels"), dict):
            verdict = answer["channels"].get(subscription.channel)
        if isinstance(verdict, dict) and verdict.get("ok") is True:
            self.subscriptions.confirm(subscription, verdict)
            return
        subscription.state = SubscriptionState.REFUSED
        said = refusal_text(verdict.get("error") if isinstance(verdict, dict) else None)
        subscription.reason = redacted(said, link.secrets)
        self.recovery.handle(
            SubscriptionRefusedError(f"The server refused {subscription.channel!r}: {subscription.reason}.")
        )
