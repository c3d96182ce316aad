"""The tokens: JSON Web Tokens that a shared secret signs, issued and verified."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from attrs import frozen

from realtime_fsm.machine.errors import AuthenticationError, MissingExtraError
from realtime_fsm.server.config import BackendConfig
from realtime_fsm.server.request import is_text

try:
    import jwt
except ModuleNotFoundError as error:
    raise MissingExtraError(extra="server", what="The reference backend") from error

TOKEN_MISSING: Final = "token_missing"  # noqa: S105 - the name of a refusal
TOKEN_EXPIRED: Final = "token_expired"  # noqa: S105 - the name of a refusal
TOKEN_INVALID: Final = "token_invalid"  # noqa: S105 - the name of a refusal

_MAX_TOKEN_LENGTH: Final = 8192
"""More characters than headers allow; so that nobody makes us decode what cannot be a token."""


class TokenRefusedError(AuthenticationError):
    """A token is not accepted. Its message never holds the token.

    Args:
        code: ``token_missing``, ``token_expired`` or ``token_invalid``.
        message: Why, for people.
    """

    default_remedy = ""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(message)


@frozen(kw_only=True)
class Identity:
    """The content of a valid token.

    Attributes:
        subject: Whose it is, its ``sub``.
        expires_at: Seconds since the Unix epoch, its ``exp``.
        ends_at: When it is no longer accepted: ``expires_at`` and the leeway.
        claims: All that it says.
    """

    subject: str
    expires_at: float
    ends_at: float
    claims: Mapping[str, Any]


def issue_token(
    secret: str | bytes,
    subject: str,
    lifetime: float,
    *,
    issuer: str | None = None,
    audience: str | None = None,
    algorithm: str = "HS256",
    claims: Mapping[str, Any] | None = None,
    now: float | None = None,
) -> str:
    """Return a token for a subject.

    Args:
        secret: The one that the backend is configured with.
        subject: Whose it is.
        lifetime: Seconds until it expires.
        issuer: Its ``iss``.
        audience: Its ``aud``.
        algorithm: What it is signed with.
        claims: What else it says.
        now: Seconds since the Unix epoch; by default the present.
    """
    now = time.time() if now is None else now
    said: dict[str, Any] = {**(claims or {}), "sub": subject, "iat": int(now), "exp": now + lifetime}
    said |= {} if issuer is None else {"iss": issuer}
    said |= {} if audience is None else {"aud": audience}
    return jwt.encode(said, secret, algorithm=algorithm)


class Verifier(Protocol):
    """Says whose a token is: for a backend whose tokens are not signed with its own secret."""

    def verify(self, token: object) -> Identity:
        """Return what a token says. It is called on the loop's thread, and must not wait.

        Args:
            token: What the client gave; ``None`` where it gave none.

        Raises:
            TokenRefusedError: With the code that says why.
        """


class TokenVerifier:
    """Says whose a token is, or why it is refused.

    Args:
        config: The secret, and what a token must say.
        clock: Seconds since the Unix epoch.
    """

    def __init__(self, config: BackendConfig, *, clock: Callable[[], float] = time.time) -> None:
        self._config = config
        self._clock = clock

    def verify(self, token: object) -> Identity:
        """Return what a token says.

        Raises:
            TokenRefusedError: If it is missing, expired, or not one of ours.
        """
        if token is None or token == "":
            raise TokenRefusedError(TOKEN_MISSING, "A token is needed.")
        if not isinstance(token, str) or len(token) > _MAX_TOKEN_LENGTH:
            raise TokenRefusedError(TOKEN_INVALID, "The token is not one of this server's.")
        claims = self._decoded(token)
        expires_at, subject = claims["exp"], claims["sub"]
        if type(expires_at) not in {int, float} or not math.isfinite(expires_at) or not is_text(subject):
            raise TokenRefusedError(TOKEN_INVALID, "The token's exp or sub cannot be read.")
        ends_at = expires_at + self._config.leeway
        if ends_at <= self._clock():
            raise TokenRefusedError(TOKEN_EXPIRED, "The token has expired.")
        return Identity(subject=subject, expires_at=float(expires_at), ends_at=float(ends_at), claims=claims)

    def _decoded(self, token: str) -> dict[str, Any]:
        """Check the signature and all claims but the expiry, which PyJWT cuts to whole seconds."""
        config = self._config
        try:
            return jwt.decode(
                token,
                config.secret,
                algorithms=list(config.algorithms),
                issuer=config.issuer,
                audience=config.audience,
                leeway=config.leeway,
                options={
                    "require": ["exp", "sub"],
                    "verify_exp": False,
                    "verify_aud": config.audience is not None,
                },
            )
        # A forged token can hold any JSON: nested too deeply, or numbers that are no dates.
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
            # Not chained: the original may quote the token.
            raise TokenRefusedError(TOKEN_INVALID, "The token is not one of this server's.") from None
