from typing import Any

import canary
import pytest

from realtime_fsm.machine.errors import ConfigurationError
from realtime_fsm.server import BackendConfig

SECRET = canary.SIGNING


def test_config_has_the_asked_for_defaults() -> None:
    """Only the secret must be given; the rest has the defaults of the specification."""
    config = BackendConfig(secret=SECRET)
    assert (config.host, config.port, config.algorithms) == ("127.0.0.1", 3001, ("HS256",))
    assert (config.ping_interval, config.ping_timeout, config.log_size) == (25, 20, 1000)
    assert config.origins == ("http://localhost:3000",)
    assert config.transports == ("websocket", "polling")


def test_config_reports_all_problems_at_once() -> None:
    """Every wrong field is named in one error."""
    wrong: dict[str, Any] = {
        "host": "",
        "port": 65536,
        "algorithms": ("none",),
        "leeway": 31,
        "frontend_url": "*",
        "transports": ("carrier pigeon",),
        "ping_interval": 0.3,
        "ping_timeout": True,
        "log_size": 0,
        "expiry_check_interval": 2,
        "max_message_bytes": "big",
        "ledger_path": ":memory:",
        "max_ledger_clients": 0,
    }
    with pytest.raises(ConfigurationError) as caught:
        BackendConfig(secret=SECRET, **wrong)
    assert {problem.partition("=")[0] for problem in caught.value.problems} == set(wrong)


@pytest.mark.parametrize(
    ("secret", "algorithms"), [("", "HS256"), ("x" * 31, "HS256"), (b"x" * 31, "HS256"), ("x" * 63, "HS512")]
)
def test_config_refuses_a_short_secret_without_showing_it(secret: str | bytes, algorithms: str) -> None:
    """A secret shorter than its hash is refused, and no error or repr holds it."""
    with pytest.raises(ConfigurationError, match="REALTIME_SERVER_SECRET") as caught:
        BackendConfig(secret=secret, algorithms=algorithms)
    assert "xxx" not in str(caught.value)
    assert "xxx" not in repr(BackendConfig(secret="x" * 64, algorithms=algorithms))


@pytest.mark.parametrize(
    ("given", "origins"),
    [
        ("https://App.Example:443/, http://localhost:3000", ("https://app.example", "http://localhost:3000")),
        ("http://[::1]:80", ("http://[::1]",)),
    ],
)
def test_config_reads_origins_as_browsers_write_them(given: str, origins: tuple[str, ...]) -> None:
    """Case, a final slash and the default port do not matter."""
    assert BackendConfig(secret=SECRET, frontend_url=given).origins == origins


@pytest.mark.parametrize(
    "given",
    [
        "*",
        "https://a.example, *",
        "null",
        "",
        ",",
        "a.example",
        "https://a.example/app",
        "https://u:p@a.example",
        "https://a.example:99999",
        "ftp://a.example",
    ],
)
def test_config_refuses_what_is_not_an_origin(given: str) -> None:
    """A wildcard, and what no browser sends as an origin, is refused."""
    with pytest.raises(ConfigurationError, match="frontend_url"):
        BackendConfig(secret=SECRET, frontend_url=given)


def test_config_reads_the_environment() -> None:
    """The environment gives the secret and the origins; what code gives wins; blank counts as not given."""
    environ = {"REALTIME_SERVER_SECRET": SECRET, "FRONTEND_URL": "https://a.example"}
    assert BackendConfig.from_env(environ).origins == ("https://a.example",)
    assert BackendConfig.from_env(environ, port=0, frontend_url="https://b.example").origins == (
        "https://b.example",
    )
    assert BackendConfig.from_env(environ).ledger_path is None
    ledger = {**environ, "REALTIME_SERVER_LEDGER_PATH": "a.db"}
    assert BackendConfig.from_env(ledger).ledger_path == "a.db"
    assert BackendConfig.from_env({**ledger, "REALTIME_SERVER_LEDGER_PATH": ""}).ledger_path is None
    assert BackendConfig.from_env({**environ, "FRONTEND_URL": ""}).origins == ("http://localhost:3000",)
    with pytest.raises(ConfigurationError, match="REALTIME_SERVER_SECRET"):
        BackendConfig.from_env({})
