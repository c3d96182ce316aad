from collections.abc import Callable, Iterable

import attrs
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from realtime_fsm.machine.config import OLD_NAMES, PREFIX, Endpoint, RealtimeConfig
from realtime_fsm.machine.dialect import Dialect
from realtime_fsm.machine.errors import ConfigurationError
from realtime_fsm.testing import configs

FIELDS = attrs.fields_dict(RealtimeConfig)
NAMES = st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=8)
WRITABLE = configs(dialect=st.sampled_from([Dialect.PLAIN, Dialect.REFERENCE]))
"""Configurations that an environment can hold: a dialect of one's own is given in code."""


def written(value: object) -> str:
    """Return a value as a person writes it into the environment."""
    if value is None:
        return "unlimited"
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


def environment_of(config: RealtimeConfig, names: Iterable[str]) -> dict[str, str]:
    """Return the environment that gives fields of a configuration."""
    given = {name: getattr(config, name) for name in names}
    unset = {name for name, value in given.items() if value is None and FIELDS[name].default is None}
    return {PREFIX + name.upper(): written(value) for name, value in given.items() if name not in unset}


@given(WRITABLE)
def test_config_survives_the_way_through_the_environment(config: RealtimeConfig) -> None:
    """What is written into the environment comes back as the same configuration."""
    assert RealtimeConfig.from_env(environment_of(config, FIELDS)) == config


@given(WRITABLE)
def test_config_needs_in_the_environment_only_what_differs(config: RealtimeConfig) -> None:
    """A field that is not in the environment has its default."""
    plain = RealtimeConfig(dialect=config.dialect)
    differing = [name for name in FIELDS if getattr(config, name) != getattr(plain, name)]
    assert RealtimeConfig.from_env(environment_of(config, ["dialect", *differing])) == config


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
