from collections.abc import Callable
from typing import Any

import attrs
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from realtime_fsm.machine.backoff import Jitter
from realtime_fsm.machine.config import LOG_LEVELS, Endpoint, RealtimeConfig
from realtime_fsm.machine.delivery import Delivery, Durability, Overflow
from realtime_fsm.machine.dialect import Dialect
from realtime_fsm.machine.environment import OLD_NAMES, PREFIX
from realtime_fsm.machine.errors import ConfigurationError

FIELDS = attrs.fields_dict(RealtimeConfig)
NAMES = st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=8)
BY_TYPE: dict[object, st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    int: st.integers(1, 2**40),
    float: st.floats(0.001, 1e9),
    Jitter: st.sampled_from(Jitter),
    float | None: st.floats(0.001, 1e9),
    Delivery: st.sampled_from(Delivery),
    Durability: st.sampled_from(Durability),
    Overflow: st.sampled_from(Overflow),
    Dialect: st.sampled_from([Dialect.PLAIN, Dialect.REFERENCE]),
}
BY_NAME: dict[str, st.SearchStrategy[Any]] = {
    "server_url": st.builds("https://{}.example:{}".format, NAMES, st.integers(1, 65535)),
    "namespace": NAMES.map("/{}".format),
    "socketio_path": NAMES,
    "transports": st.permutations(["websocket", "polling"]).map(tuple) | st.just(("polling",)),
    "fallback_endpoints": st.lists(
        st.builds(lambda event, path: Endpoint(url=f"/{path}", event=event), NAMES, NAMES), max_size=3
    ).map(tuple),
    "outbox_path": NAMES,
    "log_level": st.sampled_from(LOG_LEVELS),
}


@st.composite
def fields_given(draw: st.DrawFn) -> dict[str, Any]:
    """Draw sound values for some of the fields; pairs that must be ordered are put in order."""
    given = {
        name: draw(BY_NAME[name] if name in BY_NAME else BY_TYPE[attribute.type], label=name)
        for name, attribute in FIELDS.items()
        if draw(st.booleans())
    }
    defaults = RealtimeConfig()
    for shorter, longer in (
        ("heartbeat_timeout", "heartbeat_interval"),
        ("backoff_base", "backoff_maximum"),
        ("max_message_bytes", "outbox_max_bytes"),
    ):
        pair = [given.get(name, getattr(defaults, name)) for name in (shorter, longer)]
        given[shorter], given[longer] = sorted(pair)
    if given.get("default_delivery") is Delivery.EXACTLY_ONCE:
        given["dialect"] = Dialect.REFERENCE  # no other one offers it
    return given


def written(value: object) -> str:
    """Return a value as a person writes it into the environment."""
    if isinstance(value, tuple):
        return ",".join(map(written, value))
    if isinstance(value, Endpoint):
        return f"{value.event}={value.url}"
    return value.name if isinstance(value, Dialect) else str(value)


def config_or_refusal(make: Callable[[], RealtimeConfig]) -> RealtimeConfig | ConfigurationError:
    """Return the configuration, or the refusal; any other error fails the test."""
    try:
        return make()
    except ConfigurationError as refusal:
        return refusal


@given(fields_given())
def test_config_survives_the_way_through_the_environment(given: dict[str, Any]) -> None:
    """What is written into the environment comes back as the same configuration."""
    environ = {PREFIX + name.upper(): written(value) for name, value in given.items()}
    assert RealtimeConfig.from_env(environ) == RealtimeConfig(**given)


@given(st.sampled_from([n for n, (_, ms) in OLD_NAMES.items() if ms]), st.integers(1, 10**9))
def test_config_reads_old_milliseconds_as_seconds(old: str, milliseconds: int) -> None:
    """An old duration of n milliseconds is one of n / 1000 seconds."""
    with pytest.warns(DeprecationWarning, match=old):
        config = RealtimeConfig.from_env({old: str(milliseconds)})
    assert getattr(config, OLD_NAMES[old][0]) == pytest.approx(milliseconds / 1000)


@given(st.sampled_from(sorted(FIELDS)), st.text("abcdefghijklmnopqrstuvwxyz0123456789._-/:@? ", max_size=20))
def test_config_text_is_read_or_refused_and_nothing_else(name: str, text: str) -> None:
    """Any text for any field gives a configuration, or a `ConfigurationError` that names the field."""
    outcome = config_or_refusal(lambda: RealtimeConfig.from_env({PREFIX + name.upper(): text}))
    if isinstance(outcome, ConfigurationError):
        assert outcome.problems
        assert all(name in problem.lower() for problem in outcome.problems)


@given(st.text(max_size=30), st.sampled_from(["", "http://", "ws://", "https://me:", "http://["]))
def test_config_any_server_address_is_accepted_or_refused(text: str, start: str) -> None:
    """No address, however strange, makes it raise anything but `ConfigurationError`."""
    outcome = config_or_refusal(lambda: RealtimeConfig(server_url=start + text))
    if isinstance(outcome, ConfigurationError):
        assert outcome.problems[0].startswith("server_url=")
    else:
        assert outcome.is_own_origin(outcome.absolute("/api"))


@given(NAMES.map(lambda name: f"s3cret{name}"), st.sampled_from(["http", "https", "ws", "wss", "ftp"]))
def test_config_never_shows_a_password(password: str, scheme: str) -> None:
    """A password in an address is refused, and stands nowhere in the refusal."""
    with pytest.raises(ConfigurationError) as refused:
        RealtimeConfig(server_url=f"{scheme}://me:{password}@example.org/?token={password}")
    assert password not in str(refused.value)


@given(st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ_", min_size=1, max_size=20))
def test_config_refuses_every_unknown_name(name: str) -> None:
    """No name with our prefix is ignored silently."""
    assume(name.lower() not in FIELDS and name not in {"TOKEN", "SERVER_SECRET"})
    with pytest.raises(ConfigurationError) as refused:
        RealtimeConfig.from_env({PREFIX + name: "1"})
    assert refused.value.problems[0].startswith(f"{PREFIX}{name} is not a known name: ")
