"""The answers of the reference dialect: an object that says ``ok``, and why where it is not. Strict JSON."""

from typing import Any

from realtime_fsm.engine.payload import encode
from realtime_fsm.machine.errors import ErrorCategory, InvalidArgumentError

Answer = dict[str, Any]


def problem(category: ErrorCategory, code: str, message: str) -> Answer:
    """Return an ``error`` object.

    Args:
        category: Whose fault it is.
        code: For programs.
        message: For people; never with a secret in it.
    """
    return {"category": category.value, "code": code, "message": message}


def refusal(category: ErrorCategory, code: str, message: str) -> Answer:
    """Return an answer that refuses."""
    return {"ok": False, "error": problem(category, code, message)}


def json_text(value: object, *, what: str, max_bytes: int) -> str:
    """Return a value as strict JSON, fit for the socket and for HTTP alike.

    Raises:
        InvalidArgumentError: If it is not JSON (NaN and binary data included), or too large.
    """
    payload = encode([value], what=what, max_bytes=max_bytes)
    if payload.attachments:
        raise InvalidArgumentError(
            f"{what} holds binary data, which cannot go over HTTP.",
            remedy="Encode it as text, such as base64.",
        )
    return payload.text[1:-1]
