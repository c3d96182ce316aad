"""CONNECTED: resubscribe, receive what was missed, and only then let the outbox drain."""

from realtime_fsm.engine.component import Components, Stay


async def catch_up(parts: Components, stay: Stay) -> None:
    """Ask for all subscriptions again, then open the outbox.

    The order matters: a message may make the server publish to a channel, and its sender wants to see that.
    """
    if stay.link is not None:
        parts.subscriptions.restart()
        await parts.subscriptions.ask(stay.link)
        parts.sender.attach(stay.link)
