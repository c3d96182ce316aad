"""One vocabulary of faults: what may happen to a connection, and lists of it that fit on one line.

A schedule is written ``setting:seed/steps/ending``, for example
``reference:7/emit,reset@0.5,black-hole@3/heal``: on the reference dialect, with the jitter of seed 7, a
message is emitted; at once the connection is reset; half a second later the network swallows everything;
three seconds later all is mended, and all must be delivered.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from random import Random
from types import MappingProxyType
from typing import Final, NamedTuple, Self

from attrs import field, frozen

from realtime_fsm.machine.errors import InvalidArgumentError
from realtime_fsm.machine.table import ConnectionStatus


class Setting(StrEnum):
    """The kind of server that a client is connected to."""

    REFERENCE = "reference"
    """The reference dialect, with an outbox on a disk: everything is exactly once."""
    PLAIN = "plain"
    """A Socket.IO server that acknowledges, and replays nothing."""
    NODE = "node"
    """A plain server that recovers the sessions of clients which come back."""


class Action(StrEnum):
    """The things that may happen. Most faults last until ``heal``; ``LASTING`` names them."""

    # What the application does.
    EMIT = "emit"
    EMIT_VOLATILE = "emit-volatile"
    EMIT_AT_MOST_ONCE = "emit-at-most-once"
    CALL = "call"
    CONNECT = "connect"
    DISCONNECT = "disconnect"
    RETRY_NOW = "retry-now"
    FORCE_FALLBACK = "force-fallback"
    RELEASE_FALLBACK = "release-fallback"
    SUBSCRIBE = "subscribe"
    """It wants a second channel."""
    UNSUBSCRIBE = "unsubscribe"
    """It does not want it any more."""
    FLICKER = "flicker"
    """It wants the second channel, and some turns of the loop later does not any more."""
    CRASH = "crash"
    """Its process ends without a goodbye, and starts again."""
    # What the server does.
    PUBLISH = "publish"
    KICK = "kick"
    RESTART = "restart"
    """It loses its connections, and its logs of events; not its data."""
    REVOKE = "revoke"
    """The tokens given so far are good no more."""
    DENY = "deny"
    """No token is good."""
    BANISH = "banish"
    """The namespace is closed."""
    OVERLOAD = "overload"
    """503, with a Retry-After."""
    SILENCE = "silence"
    """Dials are accepted and never answered."""
    SLOW_ACKS = "slow-acks"
    """It thinks for seconds before it acknowledges."""
    LOSE_ACK = "lose-ack"
    LOSE_EVENT = "lose-event"
    # What the network does: the names are Toxiproxy's where it has one.
    RESET_PEER = "reset"
    BLACK_HOLE = "black-hole"
    REFUSE = "refuse"
    STALL = "stall"
    """Nothing that the client writes is taken any more."""
    SLOW = "slow"
    """Latency and jitter of seconds."""
    HTTP_DOWN = "http-down"
    """Nobody answers over HTTP."""
    HTTP_CUT = "http-cut"
    """Requests arrive, and are cut off before their answer."""
    # What else fails.
    DISK_FULL = "disk-full"
    TOKEN_DOWN = "token-down"  # noqa: S105 - the name of a fault
    """The source of tokens fails."""
    HEAL = "heal"
    """Everything that lasts ends."""
    RESTORE = "restore"
    """Its process ends without a goodbye, and starts on a backup of its disk, from before that process."""
    DEAF = "deaf"
    """Nothing that the client sends arrives, and what the server sends still does."""
    SLOW_UP = "slow-up"
    """A second for every message on its way up; they move all the same."""
    HTTP_OVERLOAD = "http-overload"
    """503 over HTTP, with a Retry-After."""
    CLOCK_AHEAD = "clock-ahead"
    """The client's wall clock jumps ahead, by hours."""
    # What the application does, and does not wait for.
    BEGIN_DISCONNECT = "begin-disconnect"
    CANCEL = "cancel"
    """All calls of the client that have not returned are cancelled, wherever they wait."""
    HANDLER_RESTARTS = "handler-restarts"
    """An event, whose handler disconnects in a task of its own, and connects again."""
    EMIT_EXPIRING = "emit-expiring"
    """A message with a time to live of seconds."""
    # What the handlers are put to.
    FLOOD = "flood"
    """The server publishes more at once than the handlers have room for."""
    ASK_BACK = "ask-back"
    """From now on the application's handlers ask the server, and wait for its answer."""

    @property
    def lasts(self) -> bool:
        """True if it is a fault that lasts until it is healed."""
        return self in LASTING


_S = ConnectionStatus

# fmt: off
LASTING: Final[Mapping[Action, frozenset[ConnectionStatus]]] = MappingProxyType({
    Action.DENY:       frozenset({_S.FAILED}),
    Action.BANISH:     frozenset({_S.FAILED, _S.FALLBACK}),
    Action.OVERLOAD:   frozenset({_S.FALLBACK}),
    Action.SILENCE:    frozenset({_S.FALLBACK}),
    Action.SLOW_ACKS:  frozenset({_S.CONNECTED}),
    Action.BLACK_HOLE: frozenset({_S.FALLBACK}),
    Action.REFUSE:     frozenset({_S.FALLBACK}),
    Action.STALL:      frozenset({_S.RECONNECTING}),
    Action.SLOW:       frozenset({_S.CONNECTED}),
    Action.HTTP_DOWN:  frozenset({_S.CONNECTED}),
    Action.HTTP_CUT:   frozenset({_S.CONNECTED}),
    Action.DISK_FULL:  frozenset({_S.CONNECTED}),
    Action.TOKEN_DOWN: frozenset({_S.FAILED, _S.FALLBACK}),
    Action.DEAF:       frozenset({_S.FALLBACK}),
    Action.SLOW_UP:    frozenset({_S.CONNECTED}),
    Action.HTTP_OVERLOAD: frozenset({_S.FALLBACK}),
    Action.CLOCK_AHEAD: frozenset({_S.CONNECTED}),
})
# fmt: on
"""The faults that last, and where each leads when it is the only one and nobody mends it."""

PAUSES: Final = (0.0, 0.004, 0.012, 0.5, 3.0, 12.0)
"""Seconds after a step. They straddle a commit, the latency, the polls, the backoff, and ``stable_after``."""

_WEIGHTS: Final = {
    Action.EMIT: 5,
    Action.PUBLISH: 6,
    Action.HEAL: 4,
    Action.LOSE_EVENT: 3,
    Action.RESET_PEER: 2,
    Action.CRASH: 2,
    Action.RESTORE: 2,
    Action.SUBSCRIBE: 3,
    Action.FLICKER: 3,
    Action.SLOW_UP: 2,
    Action.EMIT_EXPIRING: 2,
    Action.HTTP_OVERLOAD: 2,
}
_MOST_STEPS: Final = 14

EXAMPLE: Final = "reference:7/emit,reset@0.5,black-hole@3/heal"


class Step(NamedTuple):
    """Something that happens, and how long nothing else happens after it.

    Attributes:
        action: What.
        pause: Seconds.
    """

    action: Action
    pause: float = 0.0

    def __str__(self) -> str:
        return f"{self.action}@{self.pause:g}" if self.pause else str(self.action)


def _steps(given: Iterable[Step]) -> tuple[Step, ...]:
    return tuple(Step(*step) for step in given)


@frozen
class Schedule:
    """The things that happen, from the first connect on, and how it ends.

    Attributes:
        steps: In this order.
        seed: Of all jitter.
        setting: What kind of server it is.
        ending: One of ``ENDINGS``.
    """

    steps: tuple[Step, ...] = field(default=(), converter=_steps)
    seed: int = 0
    setting: Setting = Setting.REFERENCE
    ending: Action = Action.HEAL

    def __str__(self) -> str:
        return f"{self.setting}:{self.seed}/{','.join(map(str, self.steps))}/{self.ending}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what ``str()`` wrote.

        Raises:
            InvalidArgumentError: If it is not a schedule. All that is wrong is named.
        """
        problems: list[str] = []
        head, *rest = text.strip().split("/")
        if len(rest) != 2:  # noqa: PLR2004 - the steps and the ending
            raise _wrong(text, ["it must have three parts"])
        setting, _, seed = head.partition(":")
        if setting not in set(Setting):
            problems.append(f"the setting {setting!r} must be one of {', '.join(Setting)}")
        if not seed.isdecimal():
            problems.append(f"the seed {seed!r} must be a whole number")
        if rest[1] not in ENDINGS:
            problems.append(f"the ending {rest[1]!r} must be one of {', '.join(ENDINGS)}")
        steps = [_read_step(word, problems) for word in rest[0].split(",") if word]
        if problems:
            raise _wrong(text, problems)
        return cls(steps, int(seed), Setting(setting), Action(rest[1]))


ENDINGS: Final = (Action.HEAL, Action.DISCONNECT, *LASTING)
"""All endings: everything is mended, the client is disconnected in the middle, or one fault stays."""


def random_schedule(seed: int) -> Schedule:
    """Return the schedule of a seed; the same one every time.

    Args:
        seed: 0 or more. Settings and endings take turns, so that a few seeds have seen each.
    """
    random = Random(seed)  # noqa: S311 - a schedule is no secret
    actions, weights = list(Action), [_WEIGHTS.get(action, 1) for action in Action]
    length = random.randint(0, _MOST_STEPS)
    steps = [Step(action, random.choice(PAUSES)) for action in random.choices(actions, weights, k=length)]
    settings = tuple(Setting)
    healed = random.random() < 0.5  # noqa: PLR2004 - one half
    ending = Action.HEAL if healed else random.choice(ENDINGS[1:])
    return Schedule(steps, seed, settings[seed % len(settings)], ending)


def _read_step(word: str, problems: list[str]) -> Step:
    name, _, pause = word.partition("@")
    try:
        seconds = float(pause or "0")
    except ValueError:
        seconds = -1.0
    if not 0.0 <= seconds < float("inf"):
        problems.append(f"the pause {pause!r} of {word!r} must be seconds, 0 or more")
    if name not in set(Action):
        problems.append(f"the step {name!r} must be one of {', '.join(Action)}")
        return Step(Action.HEAL)
    return Step(Action(name), seconds)


def _wrong(text: str, problems: list[str]) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"{text!r} is not a schedule: {'; '.join(problems)}.",
        remedy=f"Write setting:seed/steps/ending, for example {EXAMPLE}.",
    )
