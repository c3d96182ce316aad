"""Who a client is: JSON Web Tokens, issued and verified."""

import time
from typing import Any

import jwt
from attrs import frozen

from realtime_fsm.server.config import BackendConfig
from realtime_fsm.server.reply import Refusal


@frozen(kw_only=True)
class Identity:
    """What a valid token says.

    Attributes:
        subject: Whom it was issued to.
        expires_at: When it ends, seconds since the Unix epoch.
    """

    subject: str
    expires_at: float


def issue_token(secret: str, subject: str, lifetime: float, **claims: Any) -> str:
    """Issue a token.

    Args:
        secret: The backend's.
        subject: Whom it is for.
        lifetime: Seconds until it expires.
        claims: More claims, such as ``iss`` and ``aud``.
    """
    now = time.time()
    body = {"sub": subject, "iat": int(now), "exp": now + lifetime, **claims}
    return str(jwt.encode(body, secret, algorithm="HS256"))


class TokenVerifier:
    """Verifies tokens: signature, expiry and subject are required.

    Args:
        config: The secret, the algorithms, and whom tokens come from and are for.
    """

    def __init__(self, config: BackendConfig) -> None:
        self._config = config

    def verify(self, token: object) -> Identity:
        """Return what a token says.

        Raises:
            Refusal: If there is none, it has expired, or it is not valid. Never repeats the token.
        """
        if not isinstance(token, str) or not token:
            raise Refusal("token_missing", "A token is needed: send it as auth.token.", "authentication")
        config = self._config
        try:
            claims = jwt.decode(
                token,
                config.secret,
                algorithms=list(config.algorithms),
                issuer=config.issuer,
                audience=config.audience,
                leeway=config.leeway,
                options={"require": ["exp", "sub"]},
            )
        except jwt.ExpiredSignatureError:
            raise Refusal("token_expired", "The token has expired.", "authentication") from None
        except jwt.PyJWTError as error:
            raise Refusal("token_invalid", f"The token is not valid: {error}.", "authentication") from None
        return Identity(subject=str(claims["sub"]), expires_at=float(claims["exp"]))

    def has_expired(self, expires_at: float) -> bool:
        """Tell whether a session whose token ends at ``expires_at`` must end now."""
        return expires_at + self._config.leeway <= time.time()
