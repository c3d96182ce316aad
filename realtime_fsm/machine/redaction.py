"""Taking secrets out of what others say: a server may repeat in a refusal the very token that it refuses."""

import re
from collections.abc import Iterable
from itertools import takewhile
from typing import Final

from realtime_fsm.machine.errors import RealtimeError

MASK: Final = "***"

_LEAST: Final = 8
"""Fewer characters are no secret, and may stand in any text; so much of a secret is taken out as well."""

_JSON_WEB_TOKEN: Final = re.compile(r"\beyJ[\w-]{5,}(?:\.[\w-]*){0,2}")
"""Its first part is a JSON object in base64, which begins like this."""


def redacted(text: str, secrets: Iterable[str] = ()) -> str:
    """Return a text without JSON Web Tokens and without the given secrets, whole or cut off at their end.

    Args:
        text: What may hold them.
        secrets: What must not be shown. Ones of less than 8 characters are no secrets.
    """
    known = [secret for secret in secrets if len(secret) >= _LEAST]
    return _JSON_WEB_TOKEN.sub(MASK, _without(text, known) if known else text)


def redact(error: RealtimeError, secrets: Iterable[str]) -> None:
    """Take secrets out of the words of an error."""
    known = tuple(secrets)
    error.message = redacted(error.message, known)
    error.args = tuple(redacted(part, known) if isinstance(part, str) else part for part in error.args)


def _without(text: str, secrets: list[str]) -> str:
    """Mask each place at which secrets begin, as far as the longest of them goes on there.

    All tokens of an issuer begin alike: masked one after the other, one would leave the end of another.
    """
    begin = re.compile("|".join(re.escape(secret[:_LEAST]) for secret in secrets))
    at = 0
    while found := begin.search(text, at):
        length = max(_alike(text[found.start() :], secret) for secret in secrets)
        text = text[: found.start()] + MASK + text[found.start() + length :]
        at = found.start() + len(MASK)
    return text


def _alike(text: str, secret: str) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(text, secret, strict=False)))
