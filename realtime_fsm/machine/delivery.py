"""The promises of ``emit``, and the ends that a message can come to."""

from enum import Enum, StrEnum


class Delivery(StrEnum):
    """The lengths to which the library goes to deliver a message.

    ==================  ==========  ==================================  ==================
    delivery            offline     in flight at a loss                 duplicates
    ==================  ==========  ==================================  ==================
    ``VOLATILE``        dropped     may be lost                         never
    ``AT_MOST_ONCE``    queued      may be lost, the receipt says so    never
    ``AT_LEAST_ONCE``   queued      sent again until acknowledged       possible
    ``EXACTLY_ONCE``    queued      sent again until acknowledged       the server drops them
    ==================  ==========  ==================================  ==================
    """

    VOLATILE = "volatile"
    AT_MOST_ONCE = "at_most_once"
    AT_LEAST_ONCE = "at_least_once"
    EXACTLY_ONCE = "exactly_once"


class Outcome(Enum):
    """The end of a message. All but ``PENDING`` are final."""

    PENDING = "pending"
    SENT = "sent"
    """Written to the socket; no acknowledgement was asked for."""
    ACKNOWLEDGED = "acknowledged"
    """The server answered."""
    DROPPED = "dropped"
    """Never sent: volatile and offline, pushed out of a full outbox, or the client was closed."""
    LOST = "lost"
    """In flight when the connection ended; whether it arrived is not known, and it is not sent again."""
    UNACKNOWLEDGED = "unacknowledged"
    """Delivered over a live connection, but the server's handler never called back."""
    EXPIRED = "expired"
    """Its time to live, or the caller's timeout, ended first."""
    REFUSED = "refused"
    """The server answered that it will not take it."""
    DEAD = "dead"
    """Too many connections ended while it waited for its acknowledgement; it is among the dead letters."""
    STORED = "stored"
    """The client was closed first; the durable outbox keeps it for the next start."""

    @property
    def is_delivered(self) -> bool:
        """True if the message reached the socket or the server, as far as its delivery can tell."""
        return self in {Outcome.SENT, Outcome.ACKNOWLEDGED}


class Overflow(StrEnum):
    """The fate of a message for which the outbox has no room."""

    REJECT = "reject"
    """``emit`` raises ``OutboxFullError``."""
    DROP_OLDEST = "drop_oldest"
    """The messages that have waited longest make room; their receipts say so."""
    BLOCK = "block"
    """``emit`` waits until there is room, or the client is disconnected. Bound it with a timeout."""


class InboundOverflow(StrEnum):
    """What happens when more events come than the handlers keep up with, on channels without positions.

    ``max_pending_events`` and ``max_pending_bytes`` bound what waits. On a channel with positions nothing is
    decided: what finds no room is fetched again when there is some. Whatever is dropped is counted, and the
    resync hook is called for it.
    """

    DROP_OLDEST = "drop_oldest"
    """The events that have waited longest make room."""
    LATEST = "latest"
    """Of what waits, only the latest event of each name is kept: what a later one of its name follows makes
    room."""
    CLOSE = "close"
    """The connection is closed, and opened again like a lost one: a server that recovers sessions sends what
    did not fit once more."""


class Durability(StrEnum):
    """The losses that a message in the durable outbox survives once ``emit`` has returned."""

    POWER = "power"
    """The loss of power: every message is on the disk."""
    PROCESS = "process"
    """The end of the process, however it comes; the loss of power may take the last ones. Faster."""
