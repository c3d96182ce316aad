"""What servers say, without the secrets that they repeat."""

from itertools import permutations

import canary
import pytest

from realtime_fsm.machine.errors import AuthenticationError
from realtime_fsm.machine.redaction import redact, redacted


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no secrets here", "no secrets here"),
        ("bad token top-secret-token.", "bad token ***."),
        ("top-secret-token", "***"),
        ("top-secret-tokentop-secret-token", "******"),
        ("cut off: top-secret-tok…", "cut off: ***…"),
        ("top-secrecy", "***cy"),
        ("top-sec", "top-sec"),
        ("ab top-secret-token, top-secret-token, top-secret-token", "ab ***, ***, ***"),
        ("top-secretop-secret", "***op-secret"),
        ("top-secre top-secret-token", "*** ***"),
        ("token pin", "token pin"),
    ],
)
def test_redaction_takes_out_a_known_secret_whole_or_cut_off(text: str, shown: str) -> None:
    """A secret is masked wherever it begins; what is too short to be one is left alone."""
    assert redacted(text, ["top-secret-token", "pin", ""]) == shown


@pytest.mark.parametrize("said", ["alike-AAAAAAAA", "alike-alike-BBBB", "alike-alike-B", "alike-alike-CCCC"])
def test_redaction_does_not_depend_on_the_order_of_the_secrets(said: str) -> None:
    """Secrets that begin alike leave nothing of one another, whatever their order."""
    secrets = ["alike-AAAAAAAA", "alike-alike", "alike-alike-BBBB", "alike-alike-CCCC"]
    assert {redacted(f"no {said}!", order) for order in permutations(secrets)} == {"no ***!"}


def test_redaction_takes_out_json_web_tokens_without_knowing_them() -> None:
    """Whatever looks like a JSON Web Token is masked, whole or cut off anywhere."""
    token = canary.jwt()
    for end in (len(token), len(token) - 20, token.index(".") + 10, token.index(".")):
        assert redacted(f"token={token[:end]}, expired") == "token=***, expired"
    assert redacted("eyJ is no token, nor is keyJack5") == "eyJ is no token, nor is keyJack5"


def test_redaction_of_an_error_reaches_all_its_words() -> None:
    """Message and ``str`` of an error lose the secret; the rest of it stays."""
    error = AuthenticationError(f"The server says: {canary.token()}.", remedy="Mend it.")
    redact(error, [canary.token()])
    assert (error.message, str(error)) == ("The server says: ***.", "The server says: ***. Mend it.")
    assert canary.found_in_error(error) == []


def test_redaction_counts_as_secret_what_has_eight_characters() -> None:
    """The shortest secret has 8 characters, the first of which are enough to find it."""
    assert redacted("pass 12345678 on", ["12345678"]) == "pass *** on"
    assert redacted("pass 1234567 on", ["1234567"]) == "pass 1234567 on"
    assert redacted("pass 12345678 on", ["123456789"]) == "pass *** on"
    assert redacted("pass 1234567 on", ["123456789"]) == "pass 1234567 on"


def test_redaction_ends_where_the_mask_holds_the_secret() -> None:
    """A secret of asterisks is masked once and not for ever."""
    assert redacted("a ********** b", ["*" * 10]) == "a *** b"


def test_redaction_needs_five_characters_after_the_head_of_a_web_token() -> None:
    """A JSON Web Token begins with ``eyJ`` and five more; a word that only begins so is left alone."""
    assert redacted("eyJabcd eyJabcde") == "eyJabcd ***"


def test_redaction_goes_on_behind_each_mask() -> None:
    """A mask is not searched again, although masks side by side may look like the secret."""
    assert redacted("********ab" * 3, ["********ab"]) == "*" * 9
    assert redacted("-" + "********ab" * 4, ["********ab"]) == "-" + "*" * 12


def test_redaction_knows_secrets_in_every_script() -> None:
    """A secret is compared character by character, by what they are and not by which object holds them."""
    assert redacted("слово: пароль-секрет!", ["пароль-секрет"]) == "слово: ***!"
