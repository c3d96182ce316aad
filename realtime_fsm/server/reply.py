"""What the backend answers: consent with a result, or a refusal with its reason."""

from typing import Any


class Refusal(Exception):  # noqa: N818 - it is what the server says, not an error of its own
    """The backend refuses something.

    Args:
        code: For programs.
        message: For people.
        category: ``authentication``, ``protocol`` or ``application``.
    """

    def __init__(self, code: str, message: str, category: str = "application") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.category = category

    def as_dict(self) -> dict[str, Any]:
        """Return it as it goes over the wire."""
        return {"category": self.category, "code": self.code, "message": self.message}


def consent(**result: Any) -> dict[str, Any]:
    """Return a consent as it goes over the wire."""
    return {"ok": True, **result}


def refuse(refusal: Refusal) -> dict[str, Any]:
    """Return a refusal as it goes over the wire."""
    return {"ok": False, "error": refusal.as_dict()}
