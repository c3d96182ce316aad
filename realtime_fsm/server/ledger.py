"""The ledger: which messages have taken effect already, so that a repeat does not take effect again.

A client numbers its messages, and sends again what was not acknowledged: in rising order, from the oldest
one, over a new connection or over HTTP. So the highest number that has taken effect, the *mark*, tells a
repeat from what is new, and no window of time expires. Numbers may be missing.

The mark is kept for a client of a subject, never for a client alone: a client's id is its own claim, and one
subject must not be able to suppress another one's messages by claiming it.
"""

import hashlib
import json
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NamedTuple, Protocol

from attrs import define, field, frozen

from realtime_fsm.machine.errors import ErrorCategory, ServerUnavailableError
from realtime_fsm.server.request import Answer, refusal

DEFAULT_MAX_CLIENTS: Final = 10_000
MAX_KEPT_ANSWERS: Final = 256
"""So many answers of each client are kept, and so many refusals beside them."""

MAX_ANSWER_BYTES: Final = 16_384
"""A larger answer is not kept: its repeat is only told that it is one."""

MAX_KEPT_BYTES: Final = 65_536
"""What the kept answers of one client may take together; refusals, which are small, do not count."""

_DIGEST_BYTES: Final = 16

_logger = logging.getLogger("realtime_fsm.server")


class LedgerUnavailableError(ServerUnavailableError):
    """The ledger cannot keep what happened. The message took no effect, and is not acknowledged."""

    default_remedy = "See to the server's disk and its log; the client sends the message again by itself."


@frozen
class Stamp:
    """The name of a message: its client and its number.

    Attributes:
        subject: Whose token it came with.
        client_id: What the client calls itself; it means nothing beyond the subject.
        sequence: The message's number.
        digest: Of what the message says: two that have the same name must say the same. Empty where that is
            not known.
    """

    subject: str
    client_id: str
    sequence: int
    digest: str = ""


Handle = Callable[[Any], Awaitable[Answer]]
"""``await handle(transaction) -> answer``: calls the application's handler. A failure is an answer too."""


class Ledger(Protocol):
    """The port. An application with a database of its own implements it there.

    ``apply`` is never called again for a subject before its last call has ended; for different subjects it
    is called at the same time.
    """

    async def open(self) -> None:
        """Get ready; called once, before anything else.

        Raises:
            ConfigurationError: If it cannot be used.
        """

    async def apply(self, stamp: Stamp, handle: Handle) -> Answer:
        """Handle a message, unless it or a later one of its client has taken effect already.

        The mark must move together with the effect: where the effect is in a database, in one transaction,
        which ``handle`` is given. An answer that is not ``ok`` moves the mark as well, but without the
        handler's effect. If ``handle`` is cancelled, or if this raises, nothing may have happened.

        Returns:
            What ``handle`` answered; for a repeat what ``repeated`` makes of the first answer; for another
            message by the same name (``is_another``) what ``refused_as_another`` says.

        Raises:
            Exception: Of any kind, if it cannot be done. The message is not acknowledged then, nor is any
                that its connection sends after it.
        """

    async def close(self) -> None:
        """Let go of everything; called once, after all else. What has begun and not ended is undone."""


def digest_of(event: str, args: Sequence[Any]) -> str:
    """Return the digest of a message, the same by whichever way it came; or nothing."""
    try:
        text = json.dumps([event, *args], separators=(",", ":"), default=lambda part: bytes(part).hex())
    except RecursionError:  # as deep as it could be read, and no deeper
        return ""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).hexdigest()


def is_another(stamp: Stamp, kept: str) -> bool:
    """Tell whether a message is another one than that which had its name before.

    Args:
        stamp: Of the message.
        kept: The digest of the other; empty where it is not known.
    """
    return bool(kept and stamp.digest) and stamp.digest != kept


def refused_as_another(stamp: Stamp) -> Answer:
    """Return the answer to a message with the name of another one. It took no effect, and never will."""
    _logger.error(
        "the client %r of %r gave the number %d to two messages: the second one is refused",
        stamp.client_id,
        stamp.subject,
        stamp.sequence,
    )
    return refusal(
        ErrorCategory.APPLICATION,
        "number_reused",
        f"Another message of this client had the number {stamp.sequence}, and took effect; this one did not. "
        "Copies of a running client must not share an identity: emit it anew.",
    )


def kept_text(answer: Answer) -> str | None:
    """Return the text by which an answer is kept; ``None`` if it is too large for it."""
    text = json.dumps(answer, separators=(",", ":"))
    return text if len(text) <= MAX_ANSWER_BYTES else None


def repeated(text: str | None) -> Answer:
    """Return the answer to a repeat.

    Args:
        text: The first answer as it was kept; ``None`` where it was not, or is no longer.
    """
    return {**(json.loads(text) if text is not None else {"ok": True}), "duplicate": True}


def log_given_up(total: int) -> None:
    """Log that clients are given up; not each time, for there can be many.

    Args:
        total: How many were, so far.
    """
    if total & (total - 1) == 0:  # the 1st, 2nd, 4th, 8th ...
        _logger.warning(
            "the ledger is full: %d clients were given up so far, and their repeats would take effect again; "
            "raise max_ledger_clients",
            total,
        )


class _Kept(NamedTuple):
    """An answer as it was kept, ``None`` if it was too large for it, and the digest of its message."""

    text: str | None
    digest: str


@define
class _Record:
    """The mark and the kept answers of one client."""

    mark: int = 0
    answers: OrderedDict[int, _Kept] = field(factory=OrderedDict)
    refusals: OrderedDict[int, _Kept] = field(factory=OrderedDict)
    size: int = 0

    def keep(self, stamp: Stamp, answer: Answer) -> None:
        """Move the mark, and keep the answer, or at least whose it was."""
        self.mark = stamp.sequence
        text = kept_text(answer)
        if answer["ok"] is not True:
            self.refusals[stamp.sequence] = _Kept(text, stamp.digest)
            if len(self.refusals) > MAX_KEPT_ANSWERS:
                self.refusals.popitem(last=False)
            return
        self.answers[stamp.sequence] = _Kept(text, stamp.digest)
        self.size += len(text or "")
        while len(self.answers) > MAX_KEPT_ANSWERS or self.size > MAX_KEPT_BYTES:
            self.size -= len(self.answers.popitem(last=False)[1].text or "")


class MemoryLedger:
    """Keeps the marks in memory: exactly-once for as long as the process lives.

    A message that was in flight when the process ended, and is sent again to the next one, is handled again.

    Args:
        max_clients: Clients whose mark is kept. The one whose last effect is the longest ago is given up
            first; of a subject that has more than half of all, one of its own.
    """

    def __init__(self, max_clients: int = DEFAULT_MAX_CLIENTS) -> None:
        self._max_clients = max_clients
        self._share = (max_clients + 1) // 2
        self._records: OrderedDict[tuple[str, str], _Record] = OrderedDict()
        self._by_subject: dict[str, OrderedDict[str, None]] = {}
        self._given_up = 0

    async def open(self) -> None:
        """Do nothing: it is always ready."""

    async def close(self) -> None:
        """Do nothing: it holds nothing but memory."""

    async def apply(self, stamp: Stamp, handle: Handle) -> Answer:
        """Handle a message unless it is a repeat; there is no transaction to be given."""
        record = self._records.get((stamp.subject, stamp.client_id))
        if record is not None and stamp.sequence <= record.mark:
            kept = record.answers.get(stamp.sequence) or record.refusals.get(stamp.sequence)
            if kept is None:
                return repeated(None)
            return refused_as_another(stamp) if is_another(stamp, kept.digest) else repeated(kept.text)
        answer = await handle(None)
        self._active(stamp).keep(stamp, answer)
        return answer

    def _active(self, stamp: Stamp) -> _Record:
        """Return the record of a client that is the most recently active one from now on."""
        key = (stamp.subject, stamp.client_id)
        record = self._records.setdefault(key, _Record())
        self._records.move_to_end(key)
        own = self._by_subject.setdefault(stamp.subject, OrderedDict())
        own[stamp.client_id] = None
        own.move_to_end(stamp.client_id)
        if len(own) > self._share:
            self._give_up((stamp.subject, next(iter(own))))
        elif len(self._records) > self._max_clients:
            self._give_up(next(iter(self._records)))
        return record

    def _give_up(self, key: tuple[str, str]) -> None:
        del self._records[key]
        own = self._by_subject[key[0]]
        del own[key[1]]
        if not own:
            del self._by_subject[key[0]]
        self._given_up += 1
        log_given_up(self._given_up)
