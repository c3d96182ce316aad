"""The health of a client, in the terms of a health check."""

from typing import Any, Final

from attrs import frozen

from realtime_fsm.engine.dispatcher import Dispatcher
from realtime_fsm.machine.record import StatusChange
from realtime_fsm.machine.table import TRAITS, ConnectionStatus

_HOPELESS: Final = 10
"""Times the patience after which a handler that holds everything up is not waited for any more."""


@frozen(kw_only=True)
class Health:
    """The state of health, with reasons for whatever is not perfect. Holds no secret.

    Attributes:
        live: The engine works; ``False`` only where a restart of the process could help.
        ready: Data flows, over the socket or by polling, and what is emitted can be kept.
        degraded: It works, but not as it should.
        reasons: Why it is not live, not ready, or degraded.
        deaf: The state says that data flows, and it does not: nobody answers, or nobody listens.
        status: The state of the connection.
    """

    live: bool
    ready: bool
    degraded: bool
    reasons: tuple[str, ...]
    deaf: bool = False
    status: ConnectionStatus = ConnectionStatus.DISCONNECTED

    @property
    def summary(self) -> str:
        """All of it in one word: ``ok``, ``degraded`` or ``unavailable``."""
        if not (self.live and self.ready):
            return "unavailable"
        return "degraded" if self.degraded else "ok"

    def to_json(self) -> dict[str, Any]:
        """Return it as what ``json.dumps`` takes."""
        return {
            "status": self.summary,
            "live": self.live,
            "ready": self.ready,
            "degraded": self.degraded,
            "deaf": self.deaf,
            "connection": self.status.value,
            "reasons": list(self.reasons),
        }


@frozen(kw_only=True)
class Signs:
    """Signs of life of the peer. Instants are on the loop's clock.

    Attributes:
        unanswered_since: When the first probe was sent that was not answered, with none answered since.
        answer_within: Seconds that an answer may take.
        unacknowledged_since: When the oldest message was sent that is not acknowledged.
        acknowledge_within: Seconds that an acknowledgement may take.
        polls_fail: Whether data should come by polling, and every poll fails.
        refused_channels: How many of the wanted channels the server refuses.
        storage_error: Why the outbox keeps nothing, so that ``emit`` is refused; ``None`` while it does.
        is_ending: Whether it is being disconnected, so that no message is accepted.
    """

    unanswered_since: float | None = None
    answer_within: float = 10.0
    unacknowledged_since: float | None = None
    acknowledge_within: float = 30.0
    polls_fail: bool = False
    refused_channels: int = 0
    storage_error: BaseException | None = None
    is_ending: bool = False


def examine(
    status: ConnectionStatus,
    last: StatusChange | None,
    signs: Signs,
    dispatcher: Dispatcher,
    *,
    now: float,
    patience: float,
) -> Health:
    """Return the health of a client, as it is now.

    Args:
        status: The state.
        last: The last change.
        signs: Whether the peer is there: connected but deaf is not healthy.
        dispatcher: Whether handlers keep up: that is deafness too.
        now: The loop's clock.
        patience: Seconds that one handler may take, or all may be behind, before that counts.
    """
    traits = TRAITS[status]
    dead = _dead(dispatcher, now, patience)
    deaf = [*_unheard(signs, now), *_unread(dispatcher, now, patience)] if traits.carries_data else []
    mild = _mild(dispatcher, signs, now, patience) if not deaf else []
    full = [] if signs.storage_error is None else [f"Messages are refused: {signs.storage_error}"]
    ending = ["It is being disconnected, and accepts no messages."] if signs.is_ending else []
    reasons = [*dead, *_state(status, last), *ending, *deaf, *full, *mild]
    return Health(
        live=not dead,
        ready=traits.carries_data and not (deaf or dead or full or ending),
        degraded=bool(reasons),
        reasons=tuple(reasons),
        deaf=bool(deaf),
        status=status,
    )


def _state(status: ConnectionStatus, last: StatusChange | None) -> list[str]:
    """Return why the state itself is not perfect."""
    traits = TRAITS[status]
    if traits.sends:
        return []
    why = "" if last is None else f" ({last.reason})"
    return [f"{status}{why}: {traits.meaning}"]


def _dead(dispatcher: Dispatcher, now: float, patience: float) -> list[str]:
    """Return what only a restart could mend."""
    if dispatcher.has_ended:
        return ["The events are handed to nobody any more: the task that does it has ended."]
    busy = _busy(dispatcher, now)
    if dispatcher.is_behind and busy > patience * _HOPELESS:
        return [f"A handler of {dispatcher.handling!r} has held everything up for {busy:.0f} s."]
    return []


def _unheard(signs: Signs, now: float) -> list[str]:
    """Return how it shows that nobody answers."""
    reasons = []
    if signs.unanswered_since is not None and now - signs.unanswered_since > signs.answer_within:
        reasons.append(f"The server has not answered a heartbeat for {now - signs.unanswered_since:.0f} s.")
    if signs.polls_fail:
        reasons.append("The last poll of everything that is polled has failed.")
    return reasons


def _unread(dispatcher: Dispatcher, now: float, patience: float) -> list[str]:
    """Return how it shows that nobody listens."""
    reasons = []
    busy, behind = _busy(dispatcher, now), dispatcher.behind_for(now)
    if busy > patience and len(dispatcher):
        reasons.append(
            f"A handler of {dispatcher.handling!r} has been running for {busy:.0f} s; "
            f"{len(dispatcher)} events wait behind it."
        )
    if behind > patience:
        reasons.append(f"The handlers are behind: for {behind:.0f} s there was no room for all events.")
    return reasons


def _mild(dispatcher: Dispatcher, signs: Signs, now: float, patience: float) -> list[str]:
    """Return what is not as it should be, while data flows all the same."""
    reasons = []
    busy = _busy(dispatcher, now)
    if busy > patience:
        reasons.append(f"A handler of {dispatcher.handling!r} has been running for {busy:.0f} s.")
    if dispatcher.behind_for(now) > 0 or dispatcher.is_behind:
        which = "" if dispatcher.handling is None else f", one of {dispatcher.handling!r} now"
        reasons.append(f"The handlers are behind{which}: there is no room for all events.")
    sent = signs.unacknowledged_since
    if sent is not None and now - sent > signs.acknowledge_within:
        reasons.append(f"The server has not acknowledged a message for {now - sent:.0f} s.")
    if signs.refused_channels:
        reasons.append(f"The server refuses {signs.refused_channels} of the channels.")
    return reasons


def _busy(dispatcher: Dispatcher, now: float) -> float:
    return 0.0 if dispatcher.handling is None else now - dispatcher.handling_since
