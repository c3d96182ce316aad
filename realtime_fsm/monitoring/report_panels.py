"""What is drawn in each plot of a report, on the axes of matplotlib."""

from collections.abc import Sequence
from datetime import UTC, datetime
from math import nan
from typing import TYPE_CHECKING, Final

from realtime_fsm.monitoring import report_words as words
from realtime_fsm.monitoring.report import Report, Section
from realtime_fsm.monitoring.report_comparison import Comparison
from realtime_fsm.monitoring.report_data import Level
from realtime_fsm.monitoring.report_figures import recoveries

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MUTED: Final = "#59636e"
_COLOURS: Final = ("#0969da", "#bc4c00", "#1a7f37", "#8250df")
_LINES: Final = ("-", "--", "-.", ":")
_MARKS: Final = ("o", "s", "^", "D")
_HATCHES: Final = ("", "////", "....", "xxxx")

_MOST_POINTS: Final = 300
_MOST_CAUSES: Final = 6
_LONGEST_NAME: Final = 24
_TITLES: Final = {
    "availability": "availability",
    "outages": "outages",
    "recovery": "median time to recover",
    "failures": "failure rate",
    "latency": "median latency",
}
_UNITS: Final = ((86_400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"), (0.001, "ms"), (1e-6, "µs"))
_TICKS_PER_DECADE: Final = (0.001, 0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 36_000.0)


def availability(axes: "Axes", report: Report) -> None:
    """Draw how much of the wanted time was not live, bucket by bucket."""
    middle = report.timeline.step / 2
    for place, section in enumerate(report.sections):
        colour, line, mark, _ = _look(place)
        shares = [bucket.availability.share(Level.LIVE) for bucket in section.buckets]
        # A gap where nothing is known.
        values = [nan if share is None else 100 * (1 - share) for share in shares]
        moments = [datetime.fromtimestamp(bucket.begin + middle, UTC) for bucket in section.buckets]
        style = {"marker": mark, "markersize": 3.5, "linestyle": line, "color": colour}
        axes.plot(moments, values, label=_cut(section.implementation), **style)  # type: ignore[arg-type]
    _label_times(axes)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("% of the wanted time")


def recovery(axes: "Axes", report: Report) -> None:
    """Draw how many outages were over after how long."""
    _spread(
        axes, report, [[seconds for _, seconds in recoveries(one.measurements)] for one in report.sections]
    )
    axes.set_ylabel("% of the outages over")


def latency(axes: "Axes", report: Report) -> None:
    """Draw how many round trips took how long at most."""
    _spread(axes, report, [[one.seconds for one in s.measurements.latencies] for s in report.sections])
    axes.set_ylabel("% of the round trips")


def causes(axes: "Axes", report: Report) -> None:
    """Draw how many of 100 attempts failed by what."""
    rates = [_failures(section) for section in report.sections]
    names = sorted({name for one in rates for name in one}, key=lambda name: -max(_of(name, rates)))
    names = names[:_MOST_CAUSES][::-1]
    thick = 0.8 / len(rates)
    for place, (section, rate) in enumerate(zip(report.sections, rates, strict=True)):
        heights = [row + 0.4 - (place + 0.5) * thick for row in range(len(names))]
        colour, _, _, hatch = _look(place)
        bars = axes.barh(
            heights,
            [rate.get(name, 0.0) for name in names],
            height=thick * 0.9,
            color=colour,
            label=_cut(section.implementation),
        )
        for bar in bars:
            bar.set_hatch(hatch)
            bar.set_edgecolor("#ffffff")
            bar.set_linewidth(0)
    axes.set_yticks(range(len(names)), [_cut(name) for name in names])
    axes.grid(visible=False, axis="y")
    axes.set_xlim(left=0)
    axes.set_xlabel("of 100 attempts")


def comparison(axes: "Axes", one: Comparison) -> None:
    """Draw one figure of both implementations, each with its interval."""
    factor, unit = 1.0, one.unit
    values = [side.value for side in (one.baseline, one.candidate) if side.value is not None]
    if one.unit == "share":
        factor, unit = 100.0, "%"
    elif one.unit == "seconds" and values:
        factor, unit = words.scale_of(max(values))
    for place, side in enumerate((one.baseline, one.candidate)):
        colour, _, mark, _ = _look(place)
        if side.value is None:
            continue
        value = side.value * factor
        reach = None
        if side.interval is not None:
            low, high = side.interval.low * factor, side.interval.high * factor
            reach = [[max(0.0, value - low)], [max(0.0, high - value)]]
        axes.errorbar([value], [place], xerr=reach, fmt=mark, color=colour, markersize=5, capsize=3)
    axes.set_yticks([0, 1], [_cut(one.baseline.implementation), _cut(one.candidate.implementation)])
    axes.set_ylim(1.6, -0.6)
    axes.locator_params(axis="x", nbins=4)
    axes.ticklabel_format(axis="x", useOffset=False, style="plain")
    axes.margins(x=0.15)
    axes.set_title(f"{_TITLES[one.figure]}, {unit}", fontsize=9)


def _look(place: int) -> tuple[str, str, str, str]:
    """Return colour, line, mark and hatch of an implementation: colour is never the only sign."""
    first, second = place % len(_COLOURS), (place + place // len(_COLOURS)) % len(_LINES)
    return _COLOURS[first], _LINES[second], _MARKS[second], _HATCHES[second]


def _spread(axes: "Axes", report: Report, seconds: Sequence[Sequence[float]]) -> None:
    """Draw a cumulative distribution over a logarithmic axis of time for each implementation."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator  # noqa: PLC0415 - an extra

    shown: list[float] = []
    for place, (section, values) in enumerate(zip(report.sections, seconds, strict=True)):
        ordered = sorted(max(value, 1e-4) for value in values)
        if not ordered:
            continue
        count = min(len(ordered), _MOST_POINTS)
        ranks = [max(1, round((number + 1) * len(ordered) / count)) for number in range(count)]
        colour, line, _, _ = _look(place)
        times = [ordered[0], *(ordered[rank - 1] for rank in ranks)]
        shares = [0.0, *(100 * rank / len(ordered) for rank in ranks)]
        shown.extend(times)
        label = _cut(section.implementation)
        axes.step(times, shares, where="post", color=colour, linestyle=line, label=label)
    axes.set_ylim(0, 103)
    axes.set_yticks([0, 25, 50, 75, 100])
    if shown:
        axes.set_xscale("log")
        low, high = min(shown) / 1.2, max(shown) * 1.2
        axes.set_xlim(low, high)
        axes.xaxis.set_major_locator(FixedLocator(_ticks(low, high)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _time(value)))


def _ticks(low: float, high: float) -> list[float]:
    """Return round times of an axis; finer ones where it is short."""
    fine = [
        *(digit * 10.0**power for power in range(-4, 1) for digit in (1, 2, 5)),
        *(
            10.0,
            20.0,
            60.0,
            120.0,
            300.0,
            600.0,
            1800.0,
            3600.0,
            7200.0,
            18_000.0,
            43_200.0,
            86_400.0,
            604_800.0,
        ),
    ]
    inside = [tick for tick in fine if low <= tick <= high]
    return inside if len(inside) <= 7 else [tick for tick in _TICKS_PER_DECADE if low <= tick <= high]  # noqa: PLR2004 - what fits


def _time(seconds: float) -> str:
    size, unit = next(one for one in _UNITS if seconds >= one[0] * 0.999)
    return f"{seconds / size:g} {unit}"


def _label_times(axes: "Axes") -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter  # noqa: PLC0415 - an extra

    locator = AutoDateLocator(tz=UTC, minticks=3, maxticks=6)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=UTC))  # type: ignore[no-untyped-call]


def _failures(section: Section) -> dict[str, float]:
    attempts = section.figures.attempts
    return {name: 100 * count / attempts.count for name, count in attempts.causes.items()}


def _of(name: str, rates: Sequence[dict[str, float]]) -> list[float]:
    return [rate.get(name, 0.0) for rate in rates]


def _cut(name: str) -> str:
    """Return a name that fits, and that matplotlib does not hide: it leaves out what begins with "_"."""
    text = name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text.lstrip("_") or words.NOTHING
