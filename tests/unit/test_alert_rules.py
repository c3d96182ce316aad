"""The rules of alerts, and the engine that decides by them: pure, so tested without a client."""

import random
from itertools import pairwise
from typing import Any

import pytest
from attrs import evolve

from realtime_fsm import ConfigurationError, Severity
from realtime_fsm.machine.figures import duration
from realtime_fsm.monitoring.alert_engine import Alert, AlertState, Sample, Watch, begin, evaluate
from realtime_fsm.monitoring.alert_rules import (
    DEFAULT_RULES,
    MAX_ROUND_TRIPS,
    AlertRule,
    Measure,
    check_rules,
    read_rules,
)

WALL = 1_700_000_000.0


def rule(measure: str = "outbox_age", **fields: Any) -> AlertRule:
    """Return a rule, by default of the age of the outbox: 100 s fires, 50 s clears, nothing is held back."""
    given: dict[str, Any] = {
        "name": "age",
        "measure": measure,
        "threshold": 100.0,
        "clear_threshold": 50.0,
        "cool_down": 0.0,
        "sentence": "It is {value}, and {threshold} is too much.",
        "remedy": "Mend it.",
    }
    return AlertRule(**{**given, **fields})


class Bench:
    """Feeds samples to one rule, and notes what is told and when."""

    def __init__(self, *rules: AlertRule) -> None:
        self.watch: Watch = begin(rules, "test")
        self.told: list[tuple[float, Alert]] = []

    def see(self, now: float, **fields: Any) -> list[str]:
        """Take a sample; return the states of what is told."""
        self.watch, alerts = evaluate(self.watch, Sample(at=WALL + now, **fields), now)
        self.told += [(now, alert) for alert in alerts]
        return [alert.state.value for alert in alerts]

    @property
    def story(self) -> list[tuple[float, str]]:
        """What was told, with its time."""
        return [(now, alert.state.value) for now, alert in self.told]


def test_rule_with_everything_wrong_is_refused_with_everything() -> None:
    """All problems of a rule are reported at once, each with its field and its value."""
    with pytest.raises(ConfigurationError) as raised:
        rule(
            "nonsense",
            name="Bad Name",
            threshold=float("nan"),
            clear_threshold=-1,
            window="long",
            min_samples=0,
            hold=float("inf"),
            cool_down=True,
            severity="loud",
            sentence="{value.__class__}",
            remedy=" ",
        )
    told = raised.value.problems
    named = [problem.split(": ", 1)[1].split("=")[0] for problem in told]
    assert named == [
        "name",
        "measure",
        "threshold",
        "clear_threshold",
        "window",
        "min_samples",
        "hold",
        "cool_down",
        "severity",
        "sentence",
        "remedy",
    ]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"clear_threshold": 100.0}, "must be less than threshold"),
        ({"measure": "outages"}, "window=0.0 must be more than 0"),
        ({"measure": "outages", "window": 1e6}, "at most 86400 s"),
        ({"window": 5.0}, "window=5.0 must be 0"),
        ({"min_samples": 2}, "min_samples=2 must be 1"),
        ({"min_samples": MAX_ROUND_TRIPS + 1}, "min_samples"),
        ({"measure": "failure_rate", "window": 9.0}, "must be at most 1, or it never fires"),
        ({"measure": "deafness"}, "must be at most 1, or it never fires"),
        ({"sentence": "{valu}"}, "may hold only {value}, {threshold}, {window}"),
        ({"sentence": "{value!r}"}, "may hold only"),
        ({"sentence": "{value:>9999999}"}, "may hold only"),
        ({"sentence": "{}"}, "may hold only"),
        ({"sentence": "{value"}, "cannot be filled in"),
    ],
)
def test_rule_whose_parts_do_not_fit_is_refused(fields: dict[str, Any], said: str) -> None:
    """A rule that could not work is refused, with the reason."""
    with pytest.raises(ConfigurationError) as raised:
        rule(**fields)
    assert any(said in problem for problem in raised.value.problems), raised.value.problems


def test_rules_are_checked_together() -> None:
    """What is no rule, and every name that is given twice, are reported at once; no rule at all is wrong."""
    with pytest.raises(ConfigurationError) as raised:
        check_rules([rule(), rule(), "x"])  # type: ignore[list-item]
    assert len(raised.value.problems) == 2
    assert "its name is given to 2 rules" in raised.value.problems[1]
    with pytest.raises(ConfigurationError, match="there is no rule"):
        check_rules([])


def test_rules_of_a_file_are_read_or_refused_together() -> None:
    """Mappings become rules; the problems of all of them come at once, the missing and unknown fields too."""
    good = {
        "name": "slow",
        "measure": "latency_p95",
        "threshold": 2,
        "clear_threshold": 1,
        "window": 60,
        "severity": "error",
        "sentence": "Slow: {value}.",
        "remedy": "Hurry.",
    }
    (read,) = read_rules([good])
    assert (read.measure, read.severity) == (Measure.LATENCY_P95, Severity.ERROR)
    with pytest.raises(ConfigurationError) as raised:
        read_rules(
            [
                {**good, "treshold": 1},
                {"name": "bare"},
                {**good, "window": -1, "hold": -1},
                "nothing",  # type: ignore[list-item]
            ]
        )
    problems = raised.value.problems
    assert "rule 4: 'nothing' is no mapping of fields to values" in problems
    assert "rule 'slow': treshold is no field of a rule" in problems
    assert "rule 'bare': sentence is missing" in problems
    assert sum("must be a finite number of seconds" in problem for problem in problems) == 2


def test_value_fires_at_its_threshold_and_clears_at_the_lower_one() -> None:
    """Between the two thresholds nothing changes, whichever way the value goes."""
    bench = Bench(rule())
    for now, age in enumerate([99.9, 100.0, 99.0, 101.0, 51.0, 50.0, 99.0, 100.0, 0.0]):
        bench.see(float(now), outbox_age=age)
    assert bench.story == [(1.0, "fired"), (5.0, "resolved"), (7.0, "fired"), (8.0, "resolved")]


def test_rule_must_hold_before_it_fires() -> None:
    """Nobody is told before the value has been too high for `hold` without a break."""
    bench = Bench(rule(hold=30.0))
    for now, age in [(0, 100), (20, 100), (25, 99), (29, 100), (58, 100), (59, 100), (90, 0)]:
        bench.see(float(now), outbox_age=float(age))
    assert bench.story == [(59.0, "fired"), (90.0, "resolved")]
    assert bench.told[0][1].began_at == WALL + 29


def test_flapping_inside_the_cool_down_is_told_once() -> None:
    """After an alert the rule is quiet for `cool_down`; the ends of what was not told are not told either."""
    bench = Bench(rule(cool_down=100.0))
    for now in range(0, 100, 2):
        bench.see(float(now), outbox_age=200.0)
        bench.see(float(now + 1), outbox_age=0.0)
    assert bench.story == [(0.0, "fired"), (1.0, "resolved")]
    assert bench.watch.progress[0].suppressed == 49
    bench.see(100.0, outbox_age=200.0)
    assert bench.story[2:] == [(100.0, "fired")]


def test_what_still_holds_after_the_cool_down_is_told_then() -> None:
    """A cool-down delays an alert, and never swallows one that goes on; meanwhile it counts as active."""
    bench = Bench(rule(cool_down=60.0))
    bench.see(0.0, outbox_age=200.0)
    bench.see(10.0, outbox_age=0.0)
    bench.see(20.0, outbox_age=200.0)
    assert len(bench.watch.active) == 1
    bench.see(59.0, outbox_age=200.0)
    bench.see(60.0, outbox_age=200.0)
    bench.see(61.0, outbox_age=200.0)
    bench.see(70.0, outbox_age=0.0)
    assert bench.story == [(0.0, "fired"), (10.0, "resolved"), (60.0, "fired"), (70.0, "resolved")]
    assert bench.told[2][1].began_at == WALL + 20
    assert bench.told[2][1].at == WALL + 60


def test_resolution_names_the_incident_that_it_ends() -> None:
    """A resolution has the incident of its alert, another id, its words, and how long it was."""
    bench = Bench(rule(severity="error"))
    for now, age in [(0, 150), (240, 10), (300, 200)]:
        bench.see(float(now), outbox_age=float(age))
    (_, fired), (_, resolved), (_, again) = bench.told
    assert fired.sentence == "It is 2.5 min, and 100 s is too much."
    assert resolved.sentence == f"Over after 4 min: {fired.sentence}"
    assert fired.incident == resolved.incident == "test-age-1"
    assert again.incident == "test-age-2"
    assert len({fired.id, resolved.id, again.id}) == 3
    assert resolved.severity is fired.severity is Severity.ERROR
    assert (resolved.value, resolved.state) == (10.0, AlertState.RESOLVED)
    assert fired.to_json()["severity"] == "error"


def test_counters_of_before_the_start_fire_nothing() -> None:
    """What was counted before the first sample is nobody's news; what is counted after it is."""
    bench = Bench(
        rule("outages", name="outages", threshold=3, clear_threshold=1, window=60.0),
        rule("dead_letters", name="dead", threshold=1, clear_threshold=0, window=60.0),
        rule("failure_rate", name="rate", threshold=0.5, clear_threshold=0.1, window=60.0, min_samples=4),
    )
    old = {"losses": 90, "dead_letters": 9, "attempts": 100, "failed_attempts": 100}
    for now in range(100):
        assert bench.see(float(now), **old) == []
    new = {"losses": 93, "dead_letters": 10, "attempts": 104, "failed_attempts": 102}
    assert bench.see(100.0, **new) == ["fired"] * 3


def test_window_forgets() -> None:
    """What happened longer ago than the window does not count; what happened within it does."""
    bench = Bench(rule("outages", threshold=3, clear_threshold=1, window=100.0))
    bench.see(0.0)
    for now, losses in [(10, 1), (50, 2), (109, 2), (111, 3), (149, 4)]:
        bench.see(float(now), losses=losses)
    assert bench.story == [(149.0, "fired")]
    bench.see(152.0, losses=4)
    assert bench.watch.progress[0].value == 2.0
    assert len(bench.watch.active) == 1
    bench.see(220.0, losses=4)
    assert bench.story[1:] == [(220.0, "resolved")]


def test_failure_rate_needs_its_samples() -> None:
    """Few attempts say nothing: a rate of 1 out of 3 attempts is not known where 4 are asked for."""
    bench = Bench(rule("failure_rate", threshold=0.5, clear_threshold=0.2, window=600.0, min_samples=4))
    bench.see(0.0)
    assert bench.see(1.0, attempts=3, failed_attempts=3, down_for=1.0) == []
    assert bench.watch.progress[0].value is None
    assert bench.see(2.0, attempts=4, failed_attempts=3, down_for=2.0) == ["fired"]
    assert bench.told[0][1].sentence == "It is 75%, and 50% is too much."


def test_what_is_not_known_resolves_nothing_while_the_connection_is_down() -> None:
    """A window that runs empty because nothing is tried is no recovery; with the connection back it is."""
    bench = Bench(rule("failure_rate", threshold=0.5, clear_threshold=0.2, window=60.0, min_samples=4))
    bench.see(0.0)
    assert bench.see(5.0, attempts=8, failed_attempts=8, down_for=5.0) == ["fired"]
    assert bench.see(500.0, attempts=8, failed_attempts=8, down_for=500.0) == []
    assert bench.watch.progress[0].value is None
    assert bench.see(501.0, attempts=9, failed_attempts=8) == ["resolved"]


def test_latency_is_the_percentile_of_the_window() -> None:
    """One outlier in twenty-one is none; what is older than the window does not count."""
    bench = Bench(
        rule("latency_p95", threshold=1.0, clear_threshold=0.5, window=100.0, min_samples=5),
    )
    bench.see(0.0, round_trips=(9.0,) * 4)
    assert bench.watch.progress[0].value is None
    assert bench.see(101.0, round_trips=(0.1,) * 20 + (9.0,)) == []
    assert bench.watch.progress[0].value == 0.1
    assert bench.see(150.0, round_trips=(2.0,)) == ["fired"]
    assert bench.see(202.0, round_trips=(0.2,) * 30) == ["resolved"]


def test_memory_is_bounded_and_windows_stay_right() -> None:
    """However many samples come, few are kept, and a window still counts to within a step."""
    windows = {"long": 3600.0, "short": 30.0, "longest": 86400.0}
    bench = Bench(
        *(
            rule("outages", name=name, threshold=1e9, clear_threshold=0, window=window)
            for name, window in windows.items()
        )
    )
    for tick in range(20_000):
        bench.see(tick / 2, losses=tick, round_trips=(0.1, 0.2))
    for past in bench.watch.pasts:
        assert len(past.points) <= 1030
        assert len(past.round_trips) <= MAX_ROUND_TRIPS
    assert bench.watch.progress[0].value == pytest.approx(7200, abs=32)
    assert bench.watch.progress[1].value == pytest.approx(60, abs=1)
    assert bench.watch.progress[2].value == 19_999


def test_engine_is_deterministic_and_alerts_alternate() -> None:
    """The same samples give the same story, and each rule's alerts fire and resolve strictly in turn."""

    def story(seed: int) -> list[tuple[float, Alert]]:
        chance = random.Random(seed)  # noqa: S311 - not for secrets
        bench = Bench(*(evolve(one, hold=one.hold / 10, cool_down=20.0) for one in DEFAULT_RULES))
        attempts = failed = losses = dead = 0
        for tick in range(2000):
            attempts += (tried := chance.random() < 0.5)
            failed += tried and chance.random() < (0.9 if tick % 700 < 300 else 0.05)
            losses += chance.random() < 0.01
            dead += chance.random() < 0.004
            bench.see(
                tick * 5.0,
                attempts=attempts,
                failed_attempts=failed,
                losses=losses,
                dead_letters=dead,
                round_trips=(chance.uniform(0.0, 2.0 if tick % 500 < 200 else 0.4),),
                down_for=chance.choice([None, 200.0]),
                outbox_age=chance.uniform(0.0, 400.0),
                deaf=chance.random() < 0.4,
            )
        return bench.told

    for seed in range(3):
        told = story(seed)
        assert told == story(seed)
        for one in DEFAULT_RULES:
            states = [alert.state.value for _, alert in told if alert.rule == one.name]
            assert states, f"{one.name} never fired"
            assert states == (["fired", "resolved"] * len(states))[: len(states)]
            fired = [now for now, alert in told if alert.rule == one.name and alert.state == "fired"]
            assert all(later - now >= 20.0 for now, later in pairwise(fired))


def test_default_rules_watch_everything_and_speak_to_people() -> None:
    """There is one rule for each measure, with hysteresis, a filled-in sentence, and a remedy."""
    assert sorted(one.measure for one in DEFAULT_RULES) == sorted(Measure)
    for one in check_rules(DEFAULT_RULES):
        words = one.words(one.threshold)
        assert "{" not in words
        assert words.endswith(".")
        assert one.cool_down > 0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "0 s"),
        (0.25, "250 ms"),
        (1.5, "1.5 s"),
        (119.0, "119 s"),
        (600.0, "10 min"),
        (125.0, "2.1 min"),
        (1e6, "277.8 h"),
        (7200.0, "2 h"),
    ],
)
def test_durations_are_shown_in_the_unit_that_suits_them(seconds: float, words: str) -> None:
    """People read minutes and hours."""
    assert duration(seconds) == words
