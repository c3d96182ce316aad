"""The report on a metrics database: figures that were computed by hand, and what is told of differences."""

import json
from pathlib import Path
from typing import Any

import pytest
from recorded import MAY, many_runs, record, two_runs, with_an_outage

from realtime_fsm.adapters.metrics_file import read
from realtime_fsm.machine.errors import InvalidArgumentError, MetricsStorageError
from realtime_fsm.monitoring.database import MetricsDatabase
from realtime_fsm.monitoring.records import Level, Measurements
from realtime_fsm.report import statistics as confidence
from realtime_fsm.report import words
from realtime_fsm.report.comparison import Comparison, ComparisonVerdict
from realtime_fsm.report.report import MetricsReport, make_report
from realtime_fsm.report.statistics import Interval


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resample less often than for people."""
    monkeypatch.setattr(confidence, "RESAMPLES", 300)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the file is to be."""
    return tmp_path / "metrics.db"


def report_on(
    path: Path, *, since: float | None = None, compared: tuple[str, str] | None = None
) -> MetricsReport:
    """Make a report as the command does."""
    found = Measurements.from_rows(read(path, since=since or 0.0), since=since or 0.0)
    return make_report(found, source="metrics.db", since=since, compared=compared)


def by_figure(report: MetricsReport) -> dict[str, Comparison]:
    """Return what is told of each figure."""
    return {one.figure: one for one in report.comparison}


def test_availability_is_computed_as_by_hand(path: Path) -> None:
    """Shares are of the wanted time; time that nobody wanted, or that nothing is known of, does not count."""
    two_runs(path)
    (section,) = report_on(path).sections
    availability = section.figures.availability
    assert (availability.live, availability.degraded, availability.down) == (14_130.0, 40.0, 230.0)
    assert availability.wanted == 14_400.0
    assert availability.share(Level.LIVE) == 0.98125
    assert (section.figures.runs, section.figures.instances, section.figures.versions) == (
        2,
        ("a", "b"),
        ("1.0", "1.1"),
    )


def test_outages_and_recovery_are_computed_as_by_hand(path: Path) -> None:
    """An outage that is over has a time to recover; one that is not counts until its run was last seen."""
    two_runs(path)
    (section,) = report_on(path).sections
    outages, recovery = section.figures.outages, section.figures.recovery
    assert (outages.count, outages.recovered, outages.unfinished, outages.abandoned) == (2, 1, 1, 0)
    assert (outages.seconds, outages.longest, outages.per_day) == (260.0, 200.0, 12.0)
    assert outages.causes == {"PingTimeoutError": 1, "TransportClosedError": 1}
    assert (recovery.count, recovery.p50, recovery.p95, recovery.maximum) == (1, 60.0, 60.0, 60.0)


def test_outage_that_nobody_waited_for_is_no_recovery(path: Path) -> None:
    """An outage that ended because nobody wanted the connection any more has no time to recover."""

    def fill(database: MetricsDatabase) -> None:
        database.record_outage(MAY, cause="x", ended_at=MAY + 5, recovered=False)
        database.record_outage(MAY + 50, cause="x", ended_at=MAY + 40)  # the clock was set back

    record(path, "new", fill, seconds=60)
    figures = report_on(path).sections[0].figures
    assert (figures.outages.abandoned, figures.outages.recovered, figures.outages.seconds) == (1, 1, 5.0)
    assert figures.recovery.maximum == 0.0
    assert figures.outages.per_day is None
    assert figures.availability.share(Level.LIVE) is None


def test_attempts_and_latency_are_computed_as_by_hand(path: Path) -> None:
    """Failures are counted by cause; percentiles of 0.01 to 0.20 s are their 10th, 19th and 20th."""
    two_runs(path)
    figures = report_on(path).sections[0].figures
    assert (figures.attempts.count, figures.attempts.failures, figures.attempts.failure_rate) == (5, 2, 0.4)
    assert figures.attempts.causes == {"ConnectTimeoutError": 1, "ServerRefusedError": 1}
    latency = figures.latency
    assert (latency.count, latency.p50, latency.p95, latency.p99) == (20, 0.10, 0.19, 0.20)


def test_versions_are_told_apart_and_add_up(path: Path) -> None:
    """Each version has figures of its own; where there is one version only, it has none."""
    two_runs(path)
    record(path, "new", with_an_outage, seconds=7300, version="2.0")
    legacy, new = report_on(path).sections
    assert [(version, figures.availability.wanted) for version, figures in legacy.by_version] == [
        ("1.0", 7200.0),
        ("1.1", 7200.0),
    ]
    assert new.by_version == ()


def test_records_before_since_do_not_count(path: Path) -> None:
    """From ``since`` on: the level that lasted then counts from there, and so do outages that went on."""
    two_runs(path)
    report = report_on(path, since=MAY + 3630)
    figures = report.sections[0].figures
    assert (figures.availability.live, figures.availability.degraded, figures.availability.down) == (
        3540.0 + 3370.0,
        30.0,
        200.0,
    )
    assert (figures.attempts.count, figures.attempts.failures) == (1, 0)
    assert (figures.outages.count, figures.latency.count) == (2, 0)
    assert report.timeline.begin == MAY + 3630


def test_timeline_adds_up_to_the_figures(path: Path) -> None:
    """Each bucket holds what happened in it, and all of them together are what the figures say."""
    two_runs(path)
    report = report_on(path)
    (section,) = report.sections
    assert (report.timeline.unit, len(section.buckets)) == ("hour", 3)  # the last second is in the third
    assert [bucket.begin for bucket in section.buckets] == [MAY, MAY + 3600, MAY + 7200]
    second = section.buckets[1]
    assert (second.availability.degraded, second.availability.down) == (40.0, 220.0)
    assert (second.outages, second.attempts, second.failures) == (2, 3, 2)
    whole = section.figures
    for name in ("live", "degraded", "down"):
        assert sum(getattr(bucket.availability, name) for bucket in section.buckets) == getattr(
            whole.availability, name
        )
    assert sum(bucket.attempts for bucket in section.buckets) == whole.attempts.count


@pytest.mark.parametrize(
    ("seconds", "unit", "most"),
    [(0.0, "minute", 1), (7000.0, "minute", 118), (86_400.0, "hour", 25), (30 * 86_400.0, "day", 31)],
)
def test_timeline_is_cut_as_it_is_long(path: Path, seconds: float, unit: str, most: int) -> None:
    """Two hours are told by minutes, three days by hours, and a month by days."""

    def fill(database: MetricsDatabase) -> None:
        database.record_latency(0.1, at=MAY)
        database.record_latency(0.1, at=MAY + seconds)

    record(path, "new", fill, seconds=1)
    report = report_on(path)
    assert report.timeline.unit == unit
    assert len(report.sections[0].buckets) in {most, max(1, most - 1)}


def test_timeline_of_a_lifetime_is_bounded(path: Path) -> None:
    """A clock that began at zero makes few long buckets, not millions of short ones."""

    def fill(database: MetricsDatabase) -> None:
        database.record_latency(0.1, at=0.0)
        database.record_latency(0.1, at=MAY)

    record(path, "new", fill, seconds=1)
    report = report_on(path)
    assert len(report.sections[0].buckets) <= 400
    assert report.timeline.unit.endswith(" days")


def test_candidate_that_is_better_is_said_to_be(path: Path) -> None:
    """Where the intervals leave no doubt each figure says so, with both values and the difference."""
    many_runs(path, "legacy", failures=68, recover=60.0, latency=0.2)
    many_runs(path, "new", failures=24, recover=10.0, latency=0.1)
    told = by_figure(report_on(path, compared=("legacy", "new")))
    assert {name for name, one in told.items() if one.verdict is ComparisonVerdict.BETTER} == {
        "availability",
        "recovery",
        "failures",
        "latency",
    }
    assert told["failures"].sentence == (
        "new fails less: 1.2 % against 3.4 %, difference -2.2 points [-3.2, -1.3]."
    )
    assert told["recovery"].sentence.startswith(
        "new recovers faster (median): 9.5 s against 57.0 s, difference -48 s ["
    )
    assert told["availability"].difference == pytest.approx(50 * 0.975 / 3600)
    assert told["outages"].verdict is ComparisonVerdict.UNDECIDED
    assert told["outages"].sentence == (
        "No difference in the number of outages can be told: "
        "new 24 a day, legacy 24 a day, difference +0.0 a day [+0.0, +0.0]."
    )


def test_candidate_that_is_worse_is_said_to_be(path: Path) -> None:
    """The other way round everything is worse, and the differences have the other sign."""
    many_runs(path, "legacy", failures=24, recover=10.0, latency=0.1)
    many_runs(path, "new", failures=68, recover=60.0, latency=0.2)
    told = by_figure(report_on(path, compared=("legacy", "new")))
    swapped = by_figure(report_on(path, compared=("new", "legacy")))
    for figure in ("availability", "recovery", "failures", "latency"):
        assert told[figure].verdict is ComparisonVerdict.WORSE
        assert swapped[figure].verdict is ComparisonVerdict.BETTER
        assert told[figure].difference == -(swapped[figure].difference or 0.0)
    assert told["failures"].sentence.startswith("new fails more: 3.4 % against 1.2 %, difference +2.2 points")
    assert told["availability"].sentence.startswith("new is available less: ")


def test_equal_implementations_cannot_be_told_apart(path: Path) -> None:
    """Of two that behave alike no figure claims a difference, and each interval holds zero."""
    for name in ("legacy", "new"):
        many_runs(path, name, failures=30)
    for one in report_on(path, compared=("legacy", "new")).comparison:
        assert one.verdict is ComparisonVerdict.UNDECIDED
        assert one.interval is not None
        assert one.interval.low <= 0 <= one.interval.high
        assert "No difference" in one.sentence


def test_too_few_samples_are_said(path: Path) -> None:
    """With too few runs nothing is claimed: the sentence says how many there are and are needed."""
    two_runs(path)
    many_runs(path, "new", runs=8)
    told = by_figure(report_on(path, compared=("legacy", "new")))
    assert {one.verdict for one in told.values()} == {ComparisonVerdict.TOO_FEW}
    assert told["availability"].sentence == (
        "Too few runs to compare the availability: new has 8, legacy 2, and each needs 8."
    )
    assert told["recovery"].sentence == (
        "Too few runs with an outage that they got over to compare the median time to recover: "
        "new has 8, legacy 1, and each needs 8."
    )
    assert told["failures"].sentence == (
        "Too few attempts to compare the failure rate: new has 1600, legacy 5, and each needs 20."
    )
    assert told["availability"].interval is None
    assert told["availability"].candidate.interval is not None


def test_side_without_any_record_is_too_few(path: Path) -> None:
    """A figure that one side has no record of is not compared, and no value is made up."""
    record(path, "legacy", lambda database: database.record_latency(0.1, at=MAY), seconds=1)
    many_runs(path, "new", runs=8)
    told = by_figure(report_on(path, compared=("legacy", "new")))
    assert told["failures"].baseline.value is None
    assert told["availability"].baseline.value is None
    assert told["failures"].difference is None
    assert {one.verdict for one in told.values()} == {ComparisonVerdict.TOO_FEW}


def test_report_of_the_same_file_is_always_the_same(path: Path) -> None:
    """Chance has a fixed seed: two reports on one file are equal to the last digit."""
    many_runs(path, "legacy", failures=40)
    many_runs(path, "new", failures=20)
    one, two = (report_on(path, compared=("legacy", "new")).to_json() for _ in range(2))
    assert json.dumps(one) == json.dumps(two)


def test_what_cannot_be_reported_is_an_error_that_says_why(path: Path) -> None:
    """No records, an unknown name and a comparison with itself are told in a sentence each."""
    two_runs(path)
    with pytest.raises(MetricsStorageError, match=r"no records in metrics.db since 2026-06-01T00:00:00Z"):
        report_on(path, since=MAY + 31 * 86_400)
    with pytest.raises(MetricsStorageError, match=r"no records of new .* has records of legacy"):
        report_on(path, compared=("legacy", "new"))
    with pytest.raises(InvalidArgumentError, match="with itself"):
        report_on(path, compared=("legacy", "legacy"))


def names_in(value: Any, at: str = "") -> set[str]:
    """Return the paths of all fields; what is a mapping of causes counts as one field."""
    if isinstance(value, dict) and not at.endswith("causes"):
        return {name for key, inner in value.items() for name in names_in(inner, f"{at}.{key}")}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return {name for inner in value for name in names_in(inner, f"{at}[]")}
    return {at}


DISTRIBUTION = "count p50 p95 p99 max"
LEVELS = "live_seconds degraded_seconds down_seconds"
FIGURES = {
    "": "runs instances versions",
    "availability.": f"wanted_seconds {LEVELS} live_share degraded_share down_share",
    "time_to_recover.": DISTRIBUTION,
    "latency.": DISTRIBUTION,
    "outages.": "count recovered abandoned unfinished seconds longest per_day causes",
    "attempts.": "count failures failure_rate causes",
}
FIELDS = {
    ".": "schema file since begin end bucket_seconds",
    ".implementations[].": "implementation by_version",
    **{f".implementations[].{place}": names for place, names in FIGURES.items() if place},
    ".implementations[].by_version[].": f"version {FIGURES['']}",
    **{f".implementations[].by_version[].{place}": names for place, names in FIGURES.items() if place},
    ".implementations[].timeline[].": f"begin {LEVELS} outages attempts failures",
    ".comparison.": "baseline candidate confidence",
    ".comparison.figures[].": "figure unit difference interval verdict sentence",
    ".comparison.figures[].baseline.": "samples value interval",
    ".comparison.figures[].candidate.": "samples value interval",
}


def test_json_has_the_fields_that_it_always_had(path: Path) -> None:
    """Who reads the JSON form may rely on its fields: a change needs another number of the schema."""
    two_runs(path)
    many_runs(path, "new", runs=8)
    found = report_on(path, since=MAY, compared=("legacy", "new")).to_json()
    expected = {f"{place}{name}" for place, names in FIELDS.items() for name in names.split()}
    expected |= {f".implementations[].{name}" for name in FIGURES[""].split()}
    assert found["schema"] == 1
    assert names_in(found) == expected
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["since"], found["begin"]) == ("2026-05-01T00:00:00Z", "2026-05-01T00:00:00Z")


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (None, "-"), (0.0, "0 %"), (1.0, "100 %"), (0.966, "96.6 %"), (0.5, "50.0 %"), (0.034, "3.4 %"),
        (0.99987, "99.987 %"), (0.0004, "0.040 %"), (1 - 1e-8, "> 99.9999 %"), (1e-8, "< 0.0001 %"),
    ],
)  # fmt: skip
def test_only_a_whole_is_said_to_be_100_percent(share: float | None, said: str) -> None:
    """A share is never rounded to all or nothing."""
    assert words.percent(share) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "-"), (0.0, "0.0 ms"), (0.0123, "12 ms"), (3.44, "3.4 s"), (600.0, "10.0 min"),
        (7200.0, "2.0 h"), (864_000.0, "10.0 d"),
    ],
)  # fmt: skip
def test_durations_are_said_in_units_that_fit(seconds: float | None, said: str) -> None:
    """A duration is told in the unit in which it has few digits."""
    assert words.duration(seconds) == said


@pytest.mark.parametrize(
    ("value", "low", "high", "said"),
    [
        (-2.2, -2.9, -1.5, "-2.2 points [-2.9, -1.5]"),
        (-0.0004, -0.00061, -0.0002, "-0.00040 points [-0.00061, -0.00020]"),
        (2.0, 0.003, 4.0, "+2.000 points [+0.003, +4.000]"),
        (-30.0, -35.2, -24.9, "-30 points [-35, -25]"),
        (-0.01, -3.0, 3.0, "+0.0 points [-3.0, +3.0]"),
        (0.0, 0.0, 0.0, "+0.0 points [+0.0, +0.0]"),
    ],
)
def test_differences_have_the_digits_that_it_takes(value: float, low: float, high: float, said: str) -> None:
    """A difference that is certain never reads as zero, and no digit stands there that means nothing."""
    assert words.difference(value, Interval(low, high), "points") == said
