import inspect
import re
from typing import Any

import attrs
import pytest

from realtime_fsm.machine.config import OLD_NAMES, OTHER_NAMES, PREFIX, Endpoint, RealtimeConfig
from realtime_fsm.machine.dialect import Dialect
from realtime_fsm.machine.errors import ConfigurationError
from realtime_fsm.server import BackendConfig

GIVEN: dict[str, tuple[str, object]] = {
    "server_url": ("https://example.org", "https://example.org"),
    "namespace": ("/admin", "/admin"),
    "socketio_path": ("rt", "rt"),
    "transports": ("polling,websocket", ("polling", "websocket")),
    "dialect": ("reference", Dialect.REFERENCE),
    "max_reconnect_attempts": ("3", 3),
    "retry_initial": ("no", False),
    "connection_timeout": ("2.5", 2.5),
    "stable_after": ("0", 0.0),
    "first_retry_within": ("0.5", 0.5),
    "backoff": ("full", "full"),
    "backoff_base": ("0.5", 0.5),
    "backoff_maximum": ("60", 60.0),
    "backoff_jitter": ("off", False),
    "backoff_spread": ("2.5", 2.5),
    "heartbeat_interval": ("12", 12.0),
    "heartbeat_timeout": ("3", 3.0),
    "enable_fallback": ("FALSE", False),
    "fallback_polling_interval": ("7", 7.0),
    "fallback_endpoints": (
        "a=/a,/b",
        (Endpoint(url="/a", event="a"), Endpoint(url="/b", event="/b")),
    ),
    "reconnect_interval": ("1e1", 10.0),
    "request_timeout": ("4", 4.0),
    "default_delivery": ("volatile", "volatile"),
    "message_ttl": ("90", 90.0),
    "max_delivery_attempts": ("4", 4),
    "ack_timeout": ("8", 8.0),
    "max_in_flight": ("4", 4),
    "outbox_path": ("outbox.db", "outbox.db"),
    "outbox_durability": ("process", "process"),
    "outbox_overflow": ("drop_oldest", "drop_oldest"),
    "outbox_max_dead_letters": ("9", 9),
    "outbox_max_messages": ("5", 5),
    "outbox_max_bytes": ("2000000", 2_000_000),
    "max_message_bytes": ("1000", 1000),
    "max_inbound_bytes": ("2000", 2000),
    "max_pending_events": ("6", 6),
    "max_pending_bytes": ("7", 7),
    "inbound_overflow": ("latest", "latest"),
    "close_timeout": ("1", 1.0),
    "debug_mode": (" On ", True),
    "log_level": ("debug", "debug"),
    "fallback_after": ("20", 20.0),
    "max_retry_after": ("600", 600.0),
}

OLD: list[tuple[str, str, str, object]] = [
    ("VITE_WS_URL", "https://old.example.org", "server_url", "https://old.example.org"),
    ("VITE_WS_RECONNECT_ATTEMPTS", "7", "max_reconnect_attempts", 7),
    ("VITE_WS_RECONNECT_INTERVAL", "5000", "reconnect_interval", 5.0),
    ("VITE_WS_CONNECTION_TIMEOUT", "10000", "connection_timeout", 10.0),
    ("VITE_ENABLE_FALLBACK", "false", "enable_fallback", False),
    ("VITE_FALLBACK_POLLING_INTERVAL", "30000", "fallback_polling_interval", 30.0),
    ("VITE_WS_DEBUG_MODE", "true", "debug_mode", True),
    ("VITE_WS_LOG_LEVEL", "info", "log_level", "info"),
]


def problems_of(environ: dict[str, str]) -> tuple[str, ...]:
    """Return what an environment is refused for."""
    with pytest.raises(ConfigurationError) as refused:
        RealtimeConfig.from_env(environ)
    return refused.value.problems


def test_environment_test_covers_every_field() -> None:
    """No field is left out below, so every field can be given by the environment."""
    assert set(GIVEN) == set(attrs.fields_dict(RealtimeConfig))


@pytest.mark.parametrize("name", GIVEN)
def test_environment_gives_the_field_by_its_name(name: str) -> None:
    """`REALTIME_<FIELD>` gives the field, and leaves the others at their defaults."""
    text, value = GIVEN[name]
    config = RealtimeConfig.from_env({PREFIX + name.upper(): text})
    assert getattr(config, name) == value
    assert config == RealtimeConfig(**{name: value})  # type: ignore[arg-type]


def test_environment_without_names_gives_the_defaults() -> None:
    """An environment that says nothing changes nothing; names of others are not looked at."""
    assert RealtimeConfig.from_env({"PATH": "/bin", "VITE_OTHER": "1"}) == RealtimeConfig()


def test_environment_is_by_default_that_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an argument the environment of the process is read."""
    monkeypatch.setenv("REALTIME_LOG_LEVEL", "error")
    assert RealtimeConfig.from_env().log_level == "error"


def test_environment_yields_to_what_the_code_says() -> None:
    """A field given in the code wins over the environment."""
    assert RealtimeConfig.from_env({"REALTIME_LOG_LEVEL": "error"}, log_level="info").log_level == "info"


def test_environment_old_names_are_those_of_the_specification() -> None:
    """Exactly the old front end's names are accepted, each tested below."""
    assert list(OLD_NAMES) == [old for old, *_ in OLD]


@pytest.mark.parametrize(("old", "text", "name", "value"), OLD)
def test_environment_accepts_an_old_name_and_warns(old: str, text: str, name: str, value: Any) -> None:
    """An old name gives its field, milliseconds as seconds, and a warning that names the new one."""
    unit = " in seconds" if isinstance(value, float) else ""
    with pytest.warns(DeprecationWarning, match="is deprecated") as warned:
        config = RealtimeConfig.from_env({old: text})
    assert [str(warning.message) for warning in warned] == [
        f"{old} is deprecated: set REALTIME_{name.upper()}{unit}"
    ]
    assert warned[0].filename == __file__
    assert getattr(config, name) == value
    assert config == RealtimeConfig(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(("old", "text", "name", "value"), OLD)
def test_environment_new_name_wins_over_the_old_one(old: str, text: str, name: str, value: object) -> None:
    """Where both are given the new one counts, and the old one still warns."""
    given, expected = GIVEN[name]
    with pytest.warns(DeprecationWarning, match=old):
        config = RealtimeConfig.from_env({old: text, PREFIX + name.upper(): given})
    assert getattr(config, name) == expected


@pytest.mark.parametrize(
    ("variable", "hint"),
    [
        ("REALTIME_SERVER_URI", "did you mean REALTIME_SERVER_URL?"),
        ("REALTIME_HEARTBEAT_INTERVALL", "did you mean REALTIME_HEARTBEAT_INTERVAL?"),
        ("REALTIME_XYZZY", "known are REALTIME_SERVER_URL, REALTIME_NAMESPACE, "),
    ],
)
@pytest.mark.parametrize("text", ["", "1"])
def test_environment_refuses_an_unknown_name_with_a_suggestion(variable: str, hint: str, text: str) -> None:
    """A misspelt name is an error that says what was meant, even where its value is empty."""
    (problem,) = problems_of({variable: text})
    assert problem.startswith(f"{variable} is not a known name: {hint}")


@pytest.mark.parametrize("variable", sorted(OTHER_NAMES))
def test_environment_lets_names_of_the_command_line_pass(variable: str) -> None:
    """Names that are read elsewhere are no error, and their values are not shown."""
    assert RealtimeConfig.from_env({variable: "hunter2"}) == RealtimeConfig()


@pytest.mark.parametrize("text", ["", " ", "\t"])
@pytest.mark.parametrize("variable", ["REALTIME_SERVER_URL", "REALTIME_MAX_IN_FLIGHT", "VITE_WS_URL"])
def test_environment_empty_value_counts_as_not_given(variable: str, text: str) -> None:
    """An empty value is no value: the default stands, and an old name does not warn."""
    assert RealtimeConfig.from_env({variable: text}) == RealtimeConfig()


def test_environment_empty_new_name_leaves_the_old_one_standing() -> None:
    """An empty new name does not hide the old one."""
    with pytest.warns(DeprecationWarning, match="VITE_WS_LOG_LEVEL"):
        config = RealtimeConfig.from_env({"REALTIME_LOG_LEVEL": "", "VITE_WS_LOG_LEVEL": "info"})
    assert config.log_level == "info"


@pytest.mark.parametrize(
    ("variable", "text", "rule"),
    [
        ("REALTIME_DEBUG_MODE", "maybe", "must be true or false"),
        ("REALTIME_MAX_IN_FLIGHT", "many", "must be a whole number"),
        ("REALTIME_MAX_IN_FLIGHT", "1.5", "must be a whole number"),
        ("REALTIME_CLOSE_TIMEOUT", "5s", "must be a number of seconds, such as 2.5"),
    ],
)
def test_environment_refuses_a_value_that_cannot_be_read(variable: str, text: str, rule: str) -> None:
    """A value that cannot be read is refused under the name of its variable."""
    assert problems_of({variable: text}) == (f"{variable}={text!r} {rule}",)


@pytest.mark.parametrize("text", ["nan", "inf", "-1", "0"])
def test_environment_value_that_can_be_read_is_still_checked(text: str) -> None:
    """What can be read and makes no sense is refused by the configuration."""
    (problem,) = problems_of({"REALTIME_CLOSE_TIMEOUT": text})
    assert problem.startswith("close_timeout=")


def test_environment_refuses_the_old_raw_websocket_address() -> None:
    """The mismatch that began it all: the old name with its `ws://` address is refused with the right one."""
    with pytest.warns(DeprecationWarning, match="VITE_WS_URL"):
        (problem,) = problems_of({"VITE_WS_URL": "ws://localhost:3001"})
    assert "use http://localhost:3001 " in problem


def test_environment_reports_all_problems_at_once() -> None:
    """Unknown names and unreadable values, new and old, are reported together."""
    with pytest.warns(DeprecationWarning, match="VITE_WS_RECONNECT_INTERVAL"):
        problems = problems_of(
            {
                "REALTIME_DEBUG_MODE": "maybe",
                "REALTIME_SERVER_URI": "x",
                "REALTIME_MAX_IN_FLIGHT": "many",
                "VITE_WS_RECONNECT_INTERVAL": "soon",
            }
        )
    assert [problem.replace("=", " ").split()[0] for problem in problems] == [
        "REALTIME_DEBUG_MODE",
        "REALTIME_MAX_IN_FLIGHT",
        "REALTIME_SERVER_URI",
        "VITE_WS_RECONNECT_INTERVAL",
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [(word, True) for word in ("1", "true", "YES", "on")] + [(w, False) for w in ("0", "False", "no", "OFF")],
)
def test_environment_reads_flags_in_the_usual_words(text: str, value: bool) -> None:
    """The usual words for yes and no are read, in any case."""
    assert RealtimeConfig.from_env({"REALTIME_BACKOFF_JITTER": text}).backoff_jitter is value


@pytest.mark.parametrize("name", ["max_reconnect_attempts", "fallback_after", "message_ttl"])
@pytest.mark.parametrize("text", ["unlimited", " UNLIMITED "])
def test_environment_reads_unlimited_as_no_limit(name: str, text: str) -> None:
    """A limit that may be absent is lifted by one word."""
    assert getattr(RealtimeConfig.from_env({PREFIX + name.upper(): text}), name) is None


def test_environment_reads_unlimited_in_an_old_name() -> None:
    """The old front end's attempts can be without a limit as well."""
    with pytest.warns(DeprecationWarning, match="VITE_WS_RECONNECT_ATTEMPTS"):
        config = RealtimeConfig.from_env({"VITE_WS_RECONNECT_ATTEMPTS": "unlimited"})
    assert config.max_reconnect_attempts is None


def test_environment_of_the_backend_does_not_disturb_the_client() -> None:
    """Every name that the backend reads may be set where a client runs too."""
    names = re.findall(r'"(REALTIME_\w+)"', inspect.getsource(BackendConfig.from_env))
    assert names
    RealtimeConfig.from_env(dict.fromkeys(names, "x"))
