"""Answers of a server that wraps them: ``{"ok": true, "answer": ...}``, or ``"error"`` where it refuses."""

from typing import Any

from realtime_fsm.machine.delivery import Outcome
from realtime_fsm.machine.errors import DeliveryError
from realtime_fsm.machine.redaction import redacted


def unwrap(answer: object) -> Any:
    """Return what a wrapped answer holds.

    Raises:
        DeliveryError: If the server refused, or if this is not a wrapped answer.
    """
    if not isinstance(answer, dict) or "ok" not in answer:
        raise DeliveryError(
            "the server's answer is not of its dialect",
            outcome=Outcome.REFUSED.value,
            remedy="Check that `dialect` is the server's.",
        )
    if answer["ok"] is True:
        return answer.get("answer")
    raise DeliveryError(refusal_text(answer.get("error")), outcome=Outcome.REFUSED.value)


def refusal_text(error: object) -> str:
    """Return the words of a server's ``error`` object, bounded in length, and without JSON Web Tokens."""
    if isinstance(error, dict):
        error = error.get("message") or error.get("code")
    return redacted(str(error or "no reason given"))[:200]
