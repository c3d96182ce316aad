"""CONNECTED: resubscribe, receive what was missed, only then let the outbox drain; and keep it so."""

from realtime_fsm.engine.component import Components, Stay


async def catch_up(parts: Components, stay: Stay) -> None:
    """Ask for all subscriptions again, then open the outbox, then ask for whatever comes to be wanted.

    The order matters: a message may make the server publish to a channel, and its sender wants to see that.
    """
    link = stay.link
    if link is None:  # pragma: no cover - the machine enters CONNECTED with a link only
        raise AssertionError("CONNECTED without a link")
    await parts.subscriber.ask(link)
    parts.sender.attach(link)
    while True:
        await parts.subscriptions.due()
        await parts.subscriber.ask(link)
