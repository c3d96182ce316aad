import inspect
from typing import Any

import attrs
import pytest

from realtime_fsm.machine.backoff import BackoffLimits, Jitter
from realtime_fsm.machine.config import LOG_LEVELS, Endpoint, RealtimeConfig
from realtime_fsm.machine.delivery import Delivery, Durability, InboundOverflow, Overflow
from realtime_fsm.machine.dialect import Dialect
from realtime_fsm.machine.errors import ConfigurationError

FIELDS = attrs.fields_dict(RealtimeConfig)
DURATIONS = [name for name, attribute in FIELDS.items() if attribute.type is float]
COUNTS = [name for name, attribute in FIELDS.items() if attribute.type is int]
FLAGS = [name for name, attribute in FIELDS.items() if attribute.type is bool]
MAY_BE_ZERO = {"stable_after", "first_retry_within"}


def problems_of(**given: Any) -> tuple[str, ...]:
    """Return what a configuration is refused for."""
    with pytest.raises(ConfigurationError) as refused:
        RealtimeConfig(**given)
    return refused.value.problems


DEFAULTS: dict[str, object] = {
    "server_url": "http://localhost:3001",
    "namespace": "/",
    "socketio_path": "socket.io",
    "transports": ("websocket", "polling"),
    "dialect": Dialect.PLAIN,
    "max_reconnect_attempts": 10,
    "retry_initial": True,
    "connection_timeout": 10.0,
    "stable_after": 10.0,
    "first_retry_within": 1.0,
    "backoff": Jitter.EXPONENTIAL,
    "backoff_base": 1.0,
    "backoff_maximum": 30.0,
    "backoff_jitter": True,
    "backoff_spread": 1.0,
    "heartbeat_interval": 25.0,
    "heartbeat_timeout": 10.0,
    "enable_fallback": True,
    "fallback_polling_interval": 30.0,
    "fallback_endpoints": (),
    "reconnect_interval": 5.0,
    "request_timeout": 10.0,
    "default_delivery": Delivery.AT_MOST_ONCE,
    "message_ttl": None,
    "max_delivery_attempts": 10,
    "ack_timeout": 30.0,
    "max_in_flight": 32,
    "outbox_path": None,
    "outbox_durability": Durability.POWER,
    "outbox_overflow": Overflow.REJECT,
    "outbox_max_dead_letters": 1_000,
    "outbox_max_messages": 10_000,
    "outbox_max_bytes": 67_108_864,
    "max_message_bytes": 1_000_000,
    "max_inbound_bytes": 4_194_304,
    "max_pending_events": 1_024,
    "max_pending_bytes": 16 * 1024 * 1024,
    "inbound_overflow": InboundOverflow.DROP_OLDEST,
    "close_timeout": 5.0,
    "debug_mode": False,
    "log_level": "warn",
    "fallback_after": 15.0,
    "max_retry_after": 3600.0,
}


def test_config_defaults_are_those_that_are_promised() -> None:
    """Each field has the default that the specification and the documentation promise."""
    assert attrs.asdict(RealtimeConfig(), recurse=False) == DEFAULTS


def test_config_documents_every_field_once_and_no_other() -> None:
    """The docstring lists exactly the fields, in their order."""
    text = inspect.cleandoc(RealtimeConfig.__doc__ or "").partition("Attributes:")[2]
    listed = [line.strip().partition(":")[0] for line in text.splitlines() if line.startswith(" " * 4)]
    assert [name for name in listed if name in FIELDS] == list(FIELDS)


def test_config_is_frozen_and_keyword_only() -> None:
    """A configuration cannot change under the engine, and its fields cannot be mixed up."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        RealtimeConfig().debug_mode = True  # type: ignore[misc]
    with pytest.raises(TypeError):
        RealtimeConfig("http://localhost")  # type: ignore[misc]


@pytest.mark.parametrize("value", [-1, -0.5, float("nan"), float("inf"), "5", None, True])
@pytest.mark.parametrize("name", DURATIONS)
def test_config_duration_must_be_finite_seconds(name: str, value: object) -> None:
    """A duration is a finite number, never negative, never a string or a flag."""
    (problem,) = problems_of(**{name: value})
    assert problem.startswith(f"{name}={value!r} must be ")


@pytest.mark.parametrize("name", DURATIONS)
def test_config_duration_may_be_zero_only_where_zero_means_something(name: str) -> None:
    """Zero is accepted only where it switches something off."""
    if name in MAY_BE_ZERO:
        assert getattr(RealtimeConfig(**{name: 0}), name) == 0
    else:
        assert any(problem.startswith(f"{name}=0 must be") for problem in problems_of(**{name: 0}))


@pytest.mark.parametrize("value", [-1, 1.5, "5", None, True])
@pytest.mark.parametrize("name", COUNTS)
def test_config_count_must_be_a_whole_number(name: str, value: object) -> None:
    """A count is an int, never negative, never a flag."""
    (problem,) = problems_of(**{name: value})
    assert problem.startswith(f"{name}={value!r} must be a whole number")


@pytest.mark.parametrize("name", COUNTS)
def test_config_count_zero_is_only_for_attempts(name: str) -> None:
    """No reconnection at all can be asked for; no other limit can be zero."""
    if name == "max_reconnect_attempts":
        assert RealtimeConfig(max_reconnect_attempts=0).max_reconnect_attempts == 0
    else:
        assert problems_of(**{name: 0}) == (f"{name}=0 must be a whole number, 1 or more",)


@pytest.mark.parametrize("value", [None, 0, 10**9])
def test_config_attempts_may_be_none_or_any_number(value: int | None) -> None:
    """`None` is no limit, and 0 is no attempt at all."""
    assert RealtimeConfig(max_reconnect_attempts=value).max_reconnect_attempts == value


@pytest.mark.parametrize("value", [-1, 1.5, "unlimited", True])
def test_config_attempts_must_be_a_whole_number(value: Any) -> None:
    """What is neither a count nor `None` is refused."""
    (problem,) = problems_of(max_reconnect_attempts=value)
    assert problem == f"max_reconnect_attempts={value!r} must be a whole number, 0 or more"


def test_config_fallback_may_come_at_once_or_never_by_time() -> None:
    """0 falls back at the first failure, `None` leaves it to the attempts; nothing else is odd."""
    assert RealtimeConfig(fallback_after=0.0).fallback_after == 0.0
    assert RealtimeConfig(fallback_after=None).fallback_after is None
    for wrong in (-1.0, float("inf"), float("nan"), "15"):
        (problem,) = problems_of(fallback_after=wrong)
        assert problem.startswith(f"fallback_after={wrong!r} must be a ")


@pytest.mark.parametrize("value", [0, 1, "true", None])
@pytest.mark.parametrize("name", FLAGS)
def test_config_flag_must_be_a_bool(name: str, value: object) -> None:
    """A flag is True or False, nothing that merely looks like it."""
    assert problems_of(**{name: value}) == (f"{name}={value!r} must be true or false",)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"log_level": "verbose"}, "log_level='verbose' must be one of error, warn, info, debug"),
        ({"backoff": "linear"}, "backoff='linear' must be one of exponential, full, decorrelated"),
        ({"dialect": "klingon"}, "dialect='klingon' must be plain, reference, or a Dialect of your own"),
        ({"namespace": "admin"}, "namespace='admin' must begin with / and hold no comma"),
        ({"namespace": "/a,b"}, "namespace='/a,b' must begin with / and hold no comma"),
        ({"socketio_path": "/"}, "socketio_path='/' must be a path"),
        ({"transports": ()}, "transports=() must be websocket, polling, or both"),
        ({"transports": "carrier pigeon"}, "transports=('carrier pigeon',) must be websocket"),
        ({"transports": ["polling", "polling"]}, "transports=('polling', 'polling') must be"),
        (
            {"default_delivery": "maybe"},
            "default_delivery='maybe' must be one of volatile, at_most_once, at_least_once, exactly_once",
        ),
    ],
)
def test_config_choice_must_be_a_known_one(given: dict[str, Any], problem: str) -> None:
    """A wrong choice is refused, and the known ones are named."""
    (found,) = problems_of(**given)
    assert found.startswith(problem)


@pytest.mark.parametrize("level", LOG_LEVELS)
def test_config_accepts_every_log_level(level: str) -> None:
    """The four levels of the specification are accepted."""
    assert RealtimeConfig(log_level=level).log_level == level


def test_config_keeps_plain_words_as_what_they_mean() -> None:
    """Names given as words become what they name."""
    config = RealtimeConfig(
        backoff="full", default_delivery="at_least_once", dialect="reference", transports="polling, websocket"
    )
    assert config.backoff is Jitter.FULL
    assert config.default_delivery is Delivery.AT_LEAST_ONCE
    assert config.dialect is Dialect.REFERENCE
    assert config.transports == ("polling", "websocket")
    assert RealtimeConfig(dialect=Dialect(name="mine")).dialect.name == "mine"
    assert RealtimeConfig(transports=["polling"]).transports == ("polling",)


@pytest.mark.parametrize(
    ("url", "instead"),
    [
        ("ws://localhost:3001", "http://localhost:3001"),
        ("wss://example.org/path", "https://example.org/path"),
        ("WS://example.org", "http://example.org"),
    ],
)
def test_config_refuses_a_raw_websocket_and_names_the_address_to_use(url: str, instead: str) -> None:
    """A `ws://` address is refused with the `http://` one to use instead."""
    (problem,) = problems_of(server_url=url)
    assert f"use {instead} " in problem
    assert "Socket.IO" in problem


@pytest.mark.parametrize(
    "url",
    [
        "https://user:hunter2@example.org",
        "ws://user:hunter2@example.org",
        "https://example.org/?token=hunter2",
        "https://example.org/?a=1&Access_Token=hunter2",
        "ws://example.org/?token=hunter2",
        "user:hunter2@example.org",
        "https://user:hunter2/x@example.org",
        "https://user:hunter2@[::1",
        "ftp://user:hunter2@example.org",
    ],
)
def test_config_refuses_secrets_in_the_address_and_does_not_show_them(url: str) -> None:
    """Credentials in an address are refused, and the refusal does not repeat them."""
    (problem,) = problems_of(server_url=url)
    assert "hunter2" not in problem
    assert problem.startswith("server_url=")


@pytest.mark.parametrize(
    "url",
    ["", "  ", None, 5, "example.org", "/path", "ftp://example.org", "http://", "http://:80", "http://h:0"],
)
def test_config_refuses_what_is_not_an_address(url: object) -> None:
    """An address without scheme or host is refused, with an example of one."""
    (problem,) = problems_of(server_url=url)
    assert problem.startswith("server_url=")
    assert "http" in problem


@pytest.mark.parametrize("url", ["http://[::1", "http://h:port", "http://h:99999", "http://h\u2100/"])
def test_config_refuses_an_address_that_cannot_be_read(url: str) -> None:
    """An address that cannot even be split is a problem like any other."""
    assert problems_of(server_url=url) == (
        f"server_url={url!r} is not an address: its host or port cannot be read",
    )


@pytest.mark.parametrize(
    "url", ["http://localhost", "https://example.org:8443/base?x=1", "http://[::1]:3001"]
)
def test_config_accepts_a_sound_address(url: str) -> None:
    """An http(s) address with a host is taken as it is."""
    assert RealtimeConfig(server_url=url).server_url == url


def test_config_reports_all_problems_at_once() -> None:
    """Nobody has to mend one problem to be told of the next."""
    problems = problems_of(
        server_url="ws://h", max_reconnect_attempts=-1, heartbeat_interval=0, log_level="loud", debug_mode=1
    )
    assert [problem.partition("=")[0] for problem in problems] == [
        "server_url",
        "max_reconnect_attempts",
        "heartbeat_interval",
        "debug_mode",
        "log_level",
    ]


@pytest.mark.parametrize(
    ("shorter", "longer", "low", "high"),
    [
        ("heartbeat_timeout", "heartbeat_interval", 5.0, 6.0),
        ("backoff_base", "backoff_maximum", 2.0, 3.0),
        ("max_message_bytes", "outbox_max_bytes", 100, 101),
    ],
)
def test_config_refuses_two_values_that_contradict(shorter: str, longer: str, low: Any, high: Any) -> None:
    """What cannot be more than something else is refused where it is; equal is allowed."""
    (problem,) = problems_of(**{shorter: high, longer: low})
    assert problem.startswith(f"{shorter}={high!r} must not be more than {longer}={low!r}: ")
    RealtimeConfig(**{shorter: low, longer: low})


def test_config_compares_only_values_that_are_sound_themselves() -> None:
    """A value that is wrong by itself is reported once, and not compared."""
    assert len(problems_of(heartbeat_timeout="long")) == 1


@pytest.mark.parametrize(
    ("text", "event", "url"),
    [
        ("bookings=/api/bookings", "bookings", "/api/bookings"),
        ("/api/bookings", "/api/bookings", "/api/bookings"),
        (" /api?x=1 ", "/api", "/api?x=1"),
        ("https://host/api?a=b", "/api", "https://host/api?a=b"),
        ("news=https://host/api?a=b", "news", "https://host/api?a=b"),
        ("https://host", "https://host", "https://host"),
        ("=/api", "/api", "/api"),
    ],
)
def test_endpoint_parse_tells_the_event_from_the_address(text: str, event: str, url: str) -> None:
    """`event=url` names the event; without a name the path is it, and a query keeps its signs."""
    assert Endpoint.parse(text) == Endpoint(url=url, event=event)


def test_config_takes_endpoints_in_every_form() -> None:
    """Endpoints are given as text, as a list, or as records."""
    a, b = Endpoint(url="/a", event="/a"), Endpoint(url="/b", event="b")
    for given in ("/a, b=/b,", ["/a", "b=/b"], (a, b), [a, "b=/b"]):
        assert RealtimeConfig(fallback_endpoints=given).fallback_endpoints == (a, b)


@pytest.mark.parametrize("url", ["mailto:me", "ftp://h/x", "http://[x", ""])
def test_config_refuses_an_endpoint_that_cannot_be_polled(url: str) -> None:
    """Only a path or an http(s) address can be polled."""
    (problem,) = problems_of(fallback_endpoints=[Endpoint(url=url, event="e")])
    assert problem.startswith(f"fallback_endpoints: {url!r} must be a path or an http(s) address")


def test_config_refuses_credentials_in_an_endpoint_and_does_not_show_them() -> None:
    """An endpoint holds no secret either, and its refusal does not repeat one."""
    (problem,) = problems_of(fallback_endpoints="https://me:hunter2@host/api")
    assert problem == (
        "fallback_endpoints: 'https://host/api' must not hold credentials, which would end in logs"
    )


def test_config_judges_endpoints_even_where_the_server_is_wrong() -> None:
    """A wrong server does not make a path on it wrong as well."""
    assert len(problems_of(server_url="ws://h", fallback_endpoints="/api")) == 1


@pytest.mark.parametrize(
    ("given", "can_poll", "available"),
    [
        ({}, False, False),
        ({"fallback_endpoints": "/api"}, True, True),
        ({"dialect": "reference"}, True, True),
        ({"fallback_endpoints": "/api", "enable_fallback": False}, True, False),
    ],
)
def test_config_fallback_needs_something_to_poll(
    given: dict[str, Any], can_poll: bool, available: bool
) -> None:
    """Falling back needs to be enabled, and something to poll."""
    config = RealtimeConfig(**given)
    assert (config.can_poll, config.fallback_available) == (can_poll, available)


def test_config_makes_paths_absolute_and_knows_its_own_origin() -> None:
    """A path is on the server; the token is only for scheme, host and port of the server."""
    config = RealtimeConfig(server_url="https://example.org:8443/base")
    assert config.absolute("/api") == "https://example.org:8443/api"
    assert config.absolute("https://other.org/x") == "https://other.org/x"
    assert config.is_own_origin("https://EXAMPLE.org:8443/api")
    for url in ("http://example.org:8443/", "https://example.org/", "https://other.org:8443/"):
        assert not config.is_own_origin(url)


def test_config_hands_the_backoff_its_limits() -> None:
    """The backoff gets base, maximum and jitter as configured."""
    config = RealtimeConfig(backoff_base=2.0, backoff_maximum=9.0, backoff_jitter=False)
    assert config.backoff_limits == BackoffLimits(base=2.0, maximum=9.0, jitter=False)


def test_config_default_delivery_is_the_strongest_that_the_dialect_offers() -> None:
    """Exactly once where the server drops repeats, at most once elsewhere; asking for more is refused."""
    assert RealtimeConfig().default_delivery is Delivery.AT_MOST_ONCE
    assert RealtimeConfig(dialect="reference").default_delivery is Delivery.EXACTLY_ONCE
    with pytest.raises(ConfigurationError, match=r"default_delivery='exactly_once'.*plain"):
        RealtimeConfig(default_delivery="exactly_once")


def test_config_hides_parts_of_addresses_and_nothing_else() -> None:
    """Only in a server's address are query and credentials hidden; other refused values are shown whole."""
    assert problems_of(log_level="a@b?c") == ("log_level='a@b?c' must be one of error, warn, info, debug",)
    assert problems_of(transports="a@b?c")[0].startswith("transports=('a@b?c',) ")
    assert problems_of(backoff="a@b?c")[0].startswith("backoff='a@b?c' ")
    assert problems_of(stable_after="a@b?c")[0].startswith("stable_after='a@b?c' ")
    assert problems_of(server_url="ftp://a@b?c")[0].startswith("server_url='ftp://b' ")


def test_config_does_not_compare_a_delivery_with_a_dialect_that_is_none() -> None:
    """Exactly once is judged only with a dialect that is one, and only where it is a delivery itself."""
    (problem,) = problems_of(dialect="nonsense", default_delivery="exactly_once")
    assert problem.startswith("dialect='nonsense' ")
    (problem,) = problems_of(dialect=Dialect.PLAIN, default_delivery="twice")
    assert problem.startswith("default_delivery='twice' ")
    (problem,) = problems_of(dialect=Dialect.PLAIN, default_delivery="exactly_once")
    assert problem.startswith("default_delivery='exactly_once' needs a server that drops repeats")
    assert len(problems_of(default_delivery="exactly_once", log_level="loud")) == 2


@pytest.mark.parametrize("path", ["", " ", 5, b"outbox.db"])
def test_config_outbox_path_must_name_a_file(path: object) -> None:
    """A path is a text that is not blank, or none at all."""
    assert problems_of(outbox_path=path) == (f"outbox_path={path!r} must be the path of a file",)
    assert RealtimeConfig(outbox_path="outbox.db").outbox_path == "outbox.db"
    assert RealtimeConfig(outbox_path=None).outbox_path is None


@pytest.mark.parametrize("credentials", ["user", "user:word", ":word", ":"])
def test_config_refuses_half_of_the_credentials_too(credentials: str) -> None:
    """A name without a password is refused as well, in the server's address and in that of an endpoint."""
    (problem,) = problems_of(server_url=f"https://{credentials}@example.org")
    assert "must not hold credentials" in problem
    assert "@" not in problem
    (problem,) = problems_of(fallback_endpoints=f"a=https://{credentials}@example.org/a")
    assert "must not hold credentials" in problem
    assert "@" not in problem


def test_endpoint_is_frozen_and_keyword_only() -> None:
    """Event and address of an endpoint cannot be mixed up, nor changed."""
    with pytest.raises(TypeError):
        Endpoint("/a", "a")  # type: ignore[misc]
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Endpoint(url="/a", event="a").url = "/b"  # type: ignore[misc]


@pytest.mark.parametrize("name", DURATIONS)
def test_config_says_which_durations_may_be_zero(name: str) -> None:
    """The refusal of a duration says whether zero would be one."""
    least = "0 or more" if name in MAY_BE_ZERO else "more than 0"
    assert problems_of(**{name: -1.0}) == (f"{name}=-1.0 must be a finite number of seconds, {least}",)
