import base64
import json
from typing import Any

import canary
import jwt
import pytest

from realtime_fsm.server import BackendConfig, TokenRefusedError, TokenVerifier, issue_token

SECRET = canary.SIGNING
NOW = 1_000_000_000.25


def verifier(now: float = NOW, **options: Any) -> TokenVerifier:
    """Return a verifier whose clock stands still."""
    return TokenVerifier(BackendConfig(secret=SECRET, **options), clock=lambda: now)


def signed(**claims: Any) -> str:
    """Return a token that says what it is told to."""
    return jwt.encode(claims, SECRET, algorithm="HS256")


def part(value: object) -> str:
    """Return a part of a token."""
    text = value if isinstance(value, str) else json.dumps(value)
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def test_verifier_accepts_an_issued_token_to_the_fraction_of_a_second() -> None:
    """A token is accepted until its expiry, and refused from then on; the leeway moves that."""
    token = issue_token(SECRET, "ann", 1.5, now=NOW, claims={"role": "admin"})
    identity = verifier(NOW + 1.49).verify(token)
    assert (identity.subject, identity.expires_at, identity.claims["role"]) == ("ann", NOW + 1.5, "admin")
    with pytest.raises(TokenRefusedError) as caught:
        verifier(NOW + 1.5).verify(token)
    assert caught.value.code == "token_expired"
    assert verifier(NOW + 3, leeway=5).verify(token).ends_at == NOW + 6.5


def test_verifier_checks_issuer_and_audience_where_they_are_configured() -> None:
    """A configured issuer or audience must match; one that is not configured does not matter."""
    token = issue_token(SECRET, "ann", 60, now=NOW, issuer="us", audience="app")
    assert verifier().verify(token).subject == "ann"
    assert verifier(issuer="us", audience="app").verify(token).subject == "ann"
    for options in ({"issuer": "them"}, {"audience": "other"}):
        with pytest.raises(TokenRefusedError):
            verifier(**options).verify(token)
    with pytest.raises(TokenRefusedError):
        verifier(issuer="us").verify(issue_token(SECRET, "ann", 60, now=NOW))


@pytest.mark.parametrize(
    ("token", "code"),
    [
        (None, "token_missing"),
        ("", "token_missing"),
        (7, "token_invalid"),
        ({"a": 1}, "token_invalid"),
        ("garbage", "token_invalid"),
        (signed(sub="half a pair: \ud800", exp=NOW + 60), "token_invalid"),
        ("a.b.c", "token_invalid"),
        ("\ud800.b.c", "token_invalid"),
        ("x" * 9000, "token_invalid"),
        (part("[" * 5000) + ".e30.x", "token_invalid"),
        (part({"alg": "none"}) + "." + part({"sub": "ann", "exp": NOW + 60}) + ".", "token_invalid"),
        (signed(sub="ann"), "token_invalid"),
        (signed(exp=NOW + 60), "token_invalid"),
        (signed(sub="", exp=NOW + 60), "token_invalid"),
        (signed(sub="ann", exp="soon"), "token_invalid"),
        (signed(sub="ann", exp=True), "token_invalid"),
        (signed(sub="ann", exp=float("inf")), "token_invalid"),
        (signed(sub="ann", exp=NOW + 60) + "x", "token_invalid"),
        (signed(sub="ann", exp=NOW + 60, iat=float("inf")), "token_invalid"),
        (signed(sub="ann", exp=NOW - 1), "token_expired"),
        (jwt.encode({"sub": "ann", "exp": NOW + 60}, "x" * 64, algorithm="HS512"), "token_invalid"),
        (jwt.encode({"sub": "ann", "exp": NOW + 60}, "other" * 10, algorithm="HS256"), "token_invalid"),
    ],
)
def test_verifier_refuses_with_the_code_that_says_why(token: object, code: str) -> None:
    """What is not a valid token is refused by its code, and the error does not quote it."""
    with pytest.raises(TokenRefusedError) as caught:
        verifier().verify(token)
    assert caught.value.code == code
    assert caught.value.__cause__ is None
    if isinstance(token, str) and len(token) > 10:
        assert token not in str(caught.value)
