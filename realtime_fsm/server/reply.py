"""What the backend answers: consent with a result, or a refusal with its reason."""

from typing import Any


class Refusal(Exception):  # noqa: N818 - it is what the server says, not an error of its own
    """The backend refuses something.

    Args:
        code: For programs.
        message: For people.
        category: ``connection``, ``authentication``, ``protocol`` or ``application``.
        retry_after: Seconds after which it may be tried again, where that can help.
    """

    def __init__(
        self, code: str, message: str, category: str = "application", *, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.category = category
        self.retry_after = retry_after

    def as_dict(self) -> dict[str, Any]:
        """Return it as it goes over the wire."""
        told = {"category": self.category, "code": self.code, "message": self.message}
        return told if self.retry_after is None else {**told, "retry_after": self.retry_after}


def consent(**result: Any) -> dict[str, Any]:
    """Return a consent as it goes over the wire."""
    return {"ok": True, **result}


def refuse(refusal: Refusal) -> dict[str, Any]:
    """Return a refusal as it goes over the wire."""
    return {"ok": False, "error": refusal.as_dict()}
