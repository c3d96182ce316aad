"""What can be said about a rollout, where, and who has the last word (SPEC G2, G3)."""

import json
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime_fsm.machine.config import RealtimeConfig, read_environment
from realtime_fsm.machine.errors import ConfigurationError
from realtime_fsm.rollout.setting import (
    Decision,
    DecisionKind,
    Decisions,
    Implementation,
    RolloutConfig,
    RolloutControl,
    RolloutSetting,
    SettingFile,
    Source,
    choose,
    place_of,
)

LEGACY, NEW = RolloutSetting(Implementation.LEGACY), RolloutSetting(Implementation.NEW)
SHADOW = RolloutSetting(Implementation.SHADOW)


@pytest.mark.parametrize(
    ("said", "role", "source"),
    [
        ((NEW, LEGACY, LEGACY, LEGACY), "new", Source.OVERRIDE),
        ((SHADOW, None, NEW, NEW), "shadow", Source.OVERRIDE),
        ((None, LEGACY, NEW, NEW), "legacy", Source.ROLLBACK),
        ((None, None, NEW, LEGACY), "new", Source.FILE),
        ((None, None, None, NEW), "new", Source.ENVIRONMENT),
        ((None, None, None, None), "legacy", Source.CONFIG),
        ((None, None, RolloutSetting(Implementation.PERCENT, 100.0), LEGACY), "new", Source.FILE),
        ((None, None, RolloutSetting(Implementation.PERCENT, 0.0), NEW), "legacy", Source.FILE),
    ],
)
def test_first_source_that_says_anything_has_the_last_word(
    said: tuple[RolloutSetting | None, ...], role: str, source: Source
) -> None:
    """Override before rollback before file before environment before config (SPEC G3)."""
    sources = (Source.OVERRIDE, Source.ROLLBACK, Source.FILE, Source.ENVIRONMENT, Source.CONFIG)
    chosen = choose(dict(zip(sources, (*said, LEGACY), strict=True)), "me")
    assert (chosen.role.value, chosen.source) == (role, source)


@given(client_id=st.text(), low=st.floats(0, 100), high=st.floats(0, 100))
def test_raising_the_percentage_moves_nobody_back(client_id: str, low: float, high: float) -> None:
    """Whoever has the new one keeps it at every higher percentage; 0 is nobody, 100 is everybody."""
    low, high = sorted((low, high))
    at_low, at_high = (RolloutSetting(Implementation.PERCENT, p).role(client_id) for p in (low, high))
    assert at_low is Implementation.LEGACY or at_high is Implementation.NEW
    assert RolloutSetting(Implementation.PERCENT, 0.0).role(client_id) is Implementation.LEGACY
    assert RolloutSetting(Implementation.PERCENT, 100.0).role(client_id) is Implementation.NEW


@given(client_id=st.text())
def test_place_of_a_client_is_stable(client_id: str) -> None:
    """The same id stands at the same place, within the scale."""
    assert place_of(client_id) == place_of(client_id)
    assert 0.0 <= place_of(client_id) < 100.0


def test_place_of_a_client_does_not_change_between_versions() -> None:
    """The places are a promise to every process and version: a known id stands where it always did."""
    assert place_of("me") == pytest.approx(KNOWN_PLACE, abs=1e-9)


KNOWN_PLACE = 73.66568053328132


def test_half_of_many_clients_get_the_new_one() -> None:
    """At 50 % about half of the ids get it, and at 10 % about a tenth."""
    for percent in (50.0, 10.0):
        setting = RolloutSetting(Implementation.PERCENT, percent)
        count = sum(setting.role(f"user-{n}") is Implementation.NEW for n in range(4000))
        assert count / 40 == pytest.approx(percent, abs=3.0)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"implementation": "newer"}', "implementation='newer' must be one of legacy, shadow, percent, new"),
        ('{"implementation": 3}', "implementation=3 must be one of"),
        ('{"percent": 101}', "percent=101 must be a number from 0 to 100: set it to 50, say"),
        ('{"percent": true}', "percent=True must be a number"),
        ('{"percent": NaN}', "percent=nan must be a number"),
        ('{"percent": "half"}', "percent='half' must be a number"),
        ('{"implementation": "percent"}', "needs a part: set percent to a number"),
        ('{"implementation": "new", "percent": 5}', "percent=5 says nothing beside implementation='new'"),
        ('{"implmentation": "new"}', "'implmentation' is not a known field"),
        ("[]", "holds a list and must hold an object"),
        ("{", "the file is not JSON"),
        ("[" * 100_000, "the file is not JSON"),
    ],
)
def test_wrong_setting_is_told_with_field_value_rule_and_remedy(text: str, told: str) -> None:
    """A text that is no setting is refused, and what is wrong is named."""
    with pytest.raises(ConfigurationError) as caught:
        RolloutSetting.of_text(text)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("environ", "setting"),
    [
        ({}, None),
        ({"REALTIME_IMPLEMENTATION": " "}, None),
        ({"REALTIME_IMPLEMENTATION": "New"}, NEW),
        ({"REALTIME_ROLLOUT_PERCENT": "12.5"}, RolloutSetting(Implementation.PERCENT, 12.5)),
        ({"REALTIME_ROLLOUT_PERCENT": "50%"}, RolloutSetting(Implementation.PERCENT, 50.0)),
        (
            {"REALTIME_IMPLEMENTATION": "percent", "REALTIME_ROLLOUT_PERCENT": "5"},
            RolloutSetting(Implementation.PERCENT, 5.0),
        ),
    ],
)
def test_environment_says_what_runs(environ: dict[str, str], setting: RolloutSetting | None) -> None:
    """The two variables are read; one that is empty says nothing."""
    assert RolloutSetting.of_environment(environ) == setting


def test_wrong_environment_is_told_by_the_name_of_the_variable() -> None:
    """A value that is wrong is told by its variable's name."""
    with pytest.raises(ConfigurationError, match="REALTIME_ROLLOUT_PERCENT='x' must be a number"):
        RolloutSetting.of_environment({"REALTIME_ROLLOUT_PERCENT": "x"})


def test_variables_of_a_rollout_are_no_mistake_to_the_configuration() -> None:
    """The variables of a rollout do not stop ``RealtimeConfig.from_env``."""
    environ = {
        "REALTIME_IMPLEMENTATION": "new",
        "REALTIME_ROLLOUT_PERCENT": "5",
        "REALTIME_ROLLOUT_FILE": "rollout.json",
    }
    assert read_environment(RealtimeConfig, environ) == {}


@pytest.mark.parametrize(
    "wrong",
    [
        {"implementation": "old"},
        {"implementation": "percent"},
        {"percent": 50.0},
        {"fallback": "new"},
        {"poll_interval": 0},
        {"drain_timeout": float("inf")},
        {"switch_timeout": True},
    ],
)
def test_wrong_configuration_is_refused(wrong: dict[str, object]) -> None:
    """A configuration that is wrong names the field."""
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        RolloutConfig(**wrong)  # type: ignore[arg-type]


def loaded(file: SettingFile) -> str | None:
    """Look at a file once."""
    return file.take(*file.load())


def test_bad_file_is_told_once_and_the_last_good_setting_stays(tmp_path: Path) -> None:
    """What a file said when it was good holds, whatever becomes of it; each problem is told once."""
    path = tmp_path / "rollout.json"
    file = SettingFile(path)
    assert (loaded(file), file.setting) == (None, None)
    path.write_text('{"percent": 20}', encoding="utf-8")
    assert (loaded(file), file.setting) == (None, RolloutSetting(Implementation.PERCENT, 20.0))
    for content in (b'{"percent": 200}', b"\xff", b"x" * 70_000, b""):
        path.write_bytes(content)
        told = loaded(file)
        assert "stays: 20 %" in str(told)
        assert loaded(file) is None, "told twice"
        assert file.setting == RolloutSetting(Implementation.PERCENT, 20.0)
    path.unlink()
    told = loaded(file)
    assert "it is gone" in str(told)
    path.write_text("{}", encoding="utf-8")
    assert (loaded(file), file.setting) == (None, None)


def control(**options: object) -> tuple[RolloutControl, Decisions]:
    """Return a control of a client, and its decisions."""
    decisions = Decisions(lambda: 1.0)
    given: dict[str, object] = {"client_id": "me", "environ": {}, "decisions": decisions}
    return RolloutControl(RolloutConfig(implementation="new"), **{**given, **options}), decisions  # type: ignore[arg-type]


def test_rollback_holds_until_a_person_releases_it() -> None:
    """A hold wins over the config, an override wins over the hold, and only a release ends it."""
    control_, decisions = control()
    control_.hold(DecisionKind.ROLLBACK, "it fails")
    assert control_.chosen.role is Implementation.LEGACY
    control_.override("new")
    assert control_.chosen.role is Implementation.NEW
    control_.override(None)
    assert control_.chosen.source is Source.ROLLBACK
    assert control_.release()
    assert not control_.release()
    assert control_.chosen.role is Implementation.NEW
    kinds = [decision.kind.value for decision in decisions]
    assert kinds == ["rollback", "override", "override", "release"]


def test_override_that_is_none_is_refused() -> None:
    """An override that is no implementation is refused, and changes nothing."""
    control_, decisions = control()
    with pytest.raises(ConfigurationError, match="must be one of"):
        control_.override("old")
    assert (control_.is_overridden, len(decisions)) == (False, 0)


def test_decisions_are_bounded_counted_logged_and_told(caplog: pytest.LogCaptureFixture) -> None:
    """The list is bounded, the counts are not; each is logged and told, and an observer cannot break it."""
    decisions = Decisions(lambda: 7.0)
    told: list[Decision] = []

    def broken(_: Decision) -> None:
        raise ValueError("no")

    decisions.subscribe(broken)
    stop = decisions.subscribe(told.append)
    with caplog.at_level(logging.INFO, "realtime_fsm.migration"):
        for number in range(250):
            decisions.add(DecisionKind.SWITCH, running="new", source="file", reason=f"because {number}")
    stop()
    decisions.add(DecisionKind.RELEASE, running="new", source="file", reason="x")
    assert (len(decisions), decisions.counts["switch"], len(told)) == (200, 250, 250)
    assert "rollout: switch: because 0 (new, by file)" in caplog.text
    assert json.loads(json.dumps(decisions[0].to_json()))["at"] == 7.0
