"""Rules for single frames that pass a ``FaultProxy``: what is matched, what is done, and the log of it."""

import asyncio
import re
from collections import deque
from collections.abc import Iterator
from typing import Final

from attrs import define, field, frozen

from realtime_fsm.machine.redaction import MASK, redacted
from realtime_fsm.testing.lane_faults import Direction
from realtime_fsm.testing.proxied_lane import BlockedError

PASSED: Final = "passed"

_LONGEST_LOGGED: Final = 500
_MOST_LOGGED: Final = 10_000
_ACK_ID: Final = re.compile(r"^(4[25](?:\d+-)?(?:/[^,\[]*,)?)\d+(?=\[)")
_TOKEN: Final = re.compile(r"(token\"?\s*[:=]\s*\"?)[^\"&\s]+", re.IGNORECASE)


class ResetError(BlockedError):
    """A rule resets the connection."""


@frozen
class Match:
    """What a rule is for.

    A text is compared with the beginning: of a packet of Engine.IO as it is on the wire (``'42["note"'`` an
    event, ``"43"`` an acknowledgement, ``"b..."`` binary data in base64), or of a request
    (``"POST /realtime/messages"``). The id for an acknowledgement may be left out of it. A regular
    expression is searched for.

    Attributes:
        direction: Which way it goes. Requests go up.
        pattern: What it looks like.
    """

    direction: Direction
    pattern: str | re.Pattern[str]

    def applies(self, direction: Direction, text: str) -> bool:
        """Tell whether a frame is meant."""
        if direction is not self.direction:
            return False
        if isinstance(self.pattern, re.Pattern):
            return self.pattern.search(text) is not None
        return text.startswith(self.pattern) or _ACK_ID.sub(r"\1", text).startswith(self.pattern)


@frozen
class Pass:
    """Only note that it passed."""


@frozen
class Swallow:
    """Forward nothing. A request that is swallowed is never answered."""


@frozen
class Duplicate:
    """Forward it twice. A request that is duplicated is answered once, by the first answer."""


@frozen
class Delay:
    """Forward it late; what comes behind it waits.

    Attributes:
        seconds: By how much.
    """

    seconds: float


@frozen
class Inject:
    """Forward it, and another packet too. For packets, not for requests.

    Attributes:
        packet: On the wire of Engine.IO; ``"b"`` and base64 for binary data.
        is_before: The other one comes first.
    """

    packet: str
    is_before: bool = False


@frozen
class Reset:
    """Reset the connection, and forward nothing."""


Action = Pass | Swallow | Duplicate | Delay | Inject | Reset

_PASS: Final = Pass()


@define(eq=False)
class Rule:
    """A match, and what is done.

    Attributes:
        match: What it is for.
        action: What is done.
        times: How often at most; ``None`` for always.
        skip: So many matches are let pass before.
        applied: How often it was done.
        happened: Set once it was done ``times`` times; once at all where that is ``None``.
    """

    match: Match
    action: Action
    times: int | None = 1
    skip: int = 0
    applied: int = 0
    happened: asyncio.Event = field(factory=asyncio.Event)

    def end(self) -> None:
        """Do it no more."""
        self.times = self.applied

    def claims(self, direction: Direction, text: str) -> bool:
        """Tell whether it decides about a frame, and count it."""
        if self.times is not None and self.applied >= self.times:
            return False
        if not self.match.applies(direction, text):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.applied += 1
        if self.applied >= (1 if self.times is None else self.times):
            self.happened.set()
        return True


@frozen
class Passage:
    """An entry of the log.

    Attributes:
        direction: Which way.
        text: The packet or request, shortened, and without tokens.
        action: What was done, in lower case: ``"passed"``, ``"swallow"``, ...
        at: By the loop's clock.
    """

    direction: Direction
    text: str
    action: str
    at: float


class FrameRules:
    """The rules of a proxy, and its log. Of the rules that match, the one that was added first decides."""

    def __init__(self) -> None:
        self.rules: list[Rule] = []
        self.log = FrameLog()

    def judge(self, direction: Direction, text: str) -> Action:
        """Return what is to be done with a frame, and note it.

        Raises:
            ResetError: If a rule resets the connection.
        """
        action: Action = _PASS
        for rule in self.rules:
            if rule.claims(direction, text):
                action = rule.action
                break
        self.log.add(direction, text, action)
        if isinstance(action, Reset):
            raise ResetError("a rule resets it")
        return action

    def packets(self, direction: Direction, text: str) -> tuple[float, list[str]]:
        """Return what is forwarded in place of a packet, and by how many seconds it is late."""
        match self.judge(direction, text):
            case Swallow():
                return 0.0, []
            case Duplicate():
                return 0.0, [text, text]
            case Delay(seconds=seconds):
                return seconds, [text]
            case Inject(packet=packet, is_before=is_before):
                return 0.0, [packet, text] if is_before else [text, packet]
        return 0.0, [text]


class FrameLog:
    """What passed, and what was done with it: the last 10,000 entries."""

    def __init__(self) -> None:
        self._entries: deque[Passage] = deque(maxlen=_MOST_LOGGED)

    def __iter__(self) -> Iterator[Passage]:
        return iter(tuple(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def matching(self, match: Match, action: str | None = None) -> list[Passage]:
        """Return the entries that a match is for; those of one action only, where it is given."""
        return [
            entry
            for entry in self._entries
            if match.applies(entry.direction, entry.text) and action in (None, entry.action)
        ]

    def add(self, direction: Direction, text: str, action: Action) -> None:
        """Note a frame. For the connections."""
        shown = _TOKEN.sub(rf"\1{MASK}", redacted(text))[:_LONGEST_LOGGED]
        name = PASSED if isinstance(action, Pass) else type(action).__name__.lower()
        at = asyncio.get_running_loop().time()
        self._entries.append(Passage(direction, shown, name, at))
