"""The plots of a report, by matplotlib, as SVG with light and dark colours."""

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from io import StringIO
from math import nan
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree as ET

from attrs import frozen

from realtime_fsm.machine.errors import MissingExtraError
from realtime_fsm.machine.figures import scale_of
from realtime_fsm.monitoring.records import Level
from realtime_fsm.report import words
from realtime_fsm.report.comparison import Comparison
from realtime_fsm.report.figures import recoveries
from realtime_fsm.report.report import MetricsReport, Section

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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

_INK: Final = "#1f2328"
_GRID: Final = "#d1d9e0"
_STYLE: Final = {
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": MUTED,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": _INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "figure.facecolor": "none",
    "font.family": ["DejaVu Sans"],  # comes with matplotlib: alike on every machine
    "font.size": 8.5,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "legend.edgecolor": "none",
    "legend.facecolor": "#ffffff",
    "legend.framealpha": 0.8,
    "legend.labelcolor": _INK,
    "lines.linewidth": 1.6,
    "svg.fonttype": "path",
    "svg.hashsalt": "realtime-fsm",
    "text.color": _INK,
    "text.parse_math": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "ytick.major.size": 0,
}
_WIDTH: Final = 5.2
_HEIGHT: Final = 2.9
_LOW: Final = 0.95
_COLUMNS: Final = 3
_PAD: Final = 0.08

_SVG: Final = "http://www.w3.org/2000/svg"
_DARK: Final = {
    "#ffffff": "#0d1117",
    "#1f2328": "#e6edf3",
    "#59636e": "#9198a1",
    "#d1d9e0": "#3d444d",
    "#0969da": "#4493f8",
    "#bc4c00": "#f0883e",
    "#1a7f37": "#3fb950",
    "#8250df": "#ab7df8",
}
"""What each colour of the plots becomes in the dark."""

_REFERENCE: Final = re.compile(r"#([\w.-]+)\)")


@frozen(kw_only=True)
class Plot:
    """One picture of a report, with its title.

    Attributes:
        name: Its name in ids.
        title: What it shows.
        svg: The picture, to stand inside a page.
    """

    name: str
    title: str
    svg: str


def plots(report: MetricsReport) -> list[Plot]:
    """Draw each plot by itself, for a page.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    drawn = []
    with _style():
        for name, title, draw in _PANELS:
            if _has(name, report):
                drawn.append(Plot(name=name, title=title, svg=embedded(_one(draw, report), name, title)))
        if report.comparison:
            title = "Both with their 95 % confidence intervals"
            figure = _figure(_WIDTH, _LOW * len(report.comparison))
            _draw_comparison(figure, report, columns=1)
            drawn.append(
                Plot(name="comparison", title=title, svg=embedded(_svg(figure), "comparison", title))
            )
    return drawn


def plots_as_svg(report: MetricsReport) -> str:
    """Draw all plots as one picture, for a file.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    with _style():
        shown = [panel for panel in _PANELS if _has(panel[0], report)]
        rows = (len(shown) + 1) // 2
        height = _HEIGHT * rows + 0.4
        below = _LOW * -(-len(report.comparison) // _COLUMNS)
        figure = _figure(2 * _WIDTH, height + below)
        figure.set_facecolor("#ffffff")
        parts = [figure]
        if below:
            parts = list(figure.subfigures(2, 1, height_ratios=[height, below]))  # type: ignore[arg-type]
        for part in parts:
            part.set_facecolor("#ffffff")
        for place, (_, title, draw) in enumerate(shown):
            axes = parts[0].add_subplot(rows, 2, place + 1)
            draw(axes, report)
            axes.set_title(title)
            _legend(axes, report)
        if below:
            _draw_comparison(parts[1], report, columns=_COLUMNS)
        return standalone(_svg(figure), f"Report on {report.source}")


def _style() -> AbstractContextManager[None]:
    try:
        import matplotlib.style  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise MissingExtraError(extra="report", what="A plot") from error
    return matplotlib.style.context(["default", _STYLE], after_reset=True)


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure  # noqa: PLC0415 - an extra; pyplot would look for a display
    from matplotlib.layout_engine import ConstrainedLayoutEngine  # noqa: PLC0415

    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=_PAD, h_pad=_PAD))


def _one(draw: Callable[..., None], report: MetricsReport) -> str:
    figure = _figure(_WIDTH, _HEIGHT)
    axes = figure.add_subplot()
    draw(axes, report)
    _legend(axes, report)
    return _svg(figure)


def _legend(axes: Any, report: MetricsReport) -> None:
    if len(report.sections) > 1 and axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best")


def _draw_comparison(figure: Any, report: MetricsReport, *, columns: int) -> None:
    for place, one in enumerate(report.comparison):
        axes = figure.add_subplot(-(-len(report.comparison) // columns), columns, place + 1)
        comparison(axes, one)


def _svg(figure: "Figure") -> str:
    text = StringIO()
    with warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes; the tables have it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def _has(name: str, report: MetricsReport) -> bool:
    """Tell whether there is anything to draw."""
    return any(
        {
            "availability": section.figures.availability.wanted > 0,
            "recovery": section.figures.recovery.count > 0,
            "causes": section.figures.attempts.failures > 0,
            "latency": section.figures.latency.count > 0,
        }[name]
        for section in report.sections
    )


# What is drawn in each plot, on the axes of matplotlib.


def availability(axes: "Axes", report: MetricsReport) -> None:
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


def recovery(axes: "Axes", report: MetricsReport) -> None:
    """Draw how many outages were over after how long."""
    _spread(
        axes, report, [[seconds for _, seconds in recoveries(one.measurements)] for one in report.sections]
    )
    axes.set_ylabel("% of the outages over")


def latency(axes: "Axes", report: MetricsReport) -> None:
    """Draw how many round trips took how long at most."""
    _spread(axes, report, [[one.seconds for one in s.measurements.latencies] for s in report.sections])
    axes.set_ylabel("% of the round trips")


def causes(axes: "Axes", report: MetricsReport) -> None:
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
        factor, unit = scale_of(max(values))
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


def _spread(axes: "Axes", report: MetricsReport, seconds: Sequence[Sequence[float]]) -> None:
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


_PANELS: Final[tuple[tuple[str, str, Callable[..., None]], ...]] = (
    ("availability", "Time that was not live", availability),
    ("recovery", "Time to recover", recovery),
    ("causes", "Failed attempts by cause", causes),
    ("latency", "Latency", latency),
)


# What becomes of the SVG that matplotlib writes: no foreign addresses, unique ids, light and dark.


def dark_rules(within: str = "") -> str:
    """Return the style sheet that turns the plots dark where people prefer it.

    The light colours stand in the drawing itself: what knows no style sheets shows it light.

    Args:
        within: A selector that the drawings are in.
    """
    rules = "".join(
        f'{within}[style*="{kind}: {light}"],{within}[{kind}="{light}"]{{{kind}:{dark}!important}}'
        for light, dark in _DARK.items()
        for kind in ("fill", "stroke")
    )
    return f"@media (prefers-color-scheme:dark){{{rules}}}"


def embedded(svg: str, name: str, title: str) -> str:
    """Return a drawing to stand inside a page of HTML.

    Args:
        svg: As matplotlib writes it.
        name: What makes its ids different from those of other drawings.
        title: What it shows, for who cannot see it.
    """
    return ET.tostring(_cleaned(svg, f"{name}-", title), encoding="unicode")


def standalone(svg: str, title: str) -> str:
    """Return a drawing for a file of its own."""
    root = _cleaned(svg, "", title)
    root.set("xmlns", _SVG)
    style = ET.Element("style")
    style.text = dark_rules()
    root.insert(1, style)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _cleaned(svg: str, prefix: str, title: str) -> ET.Element:
    root = ET.fromstring(svg)  # noqa: S314 - matplotlib has just written it
    for parent in list(root.iter()):
        for child in [one for one in parent if _name(one.tag) in {"metadata", "style"}]:
            parent.remove(child)
    for element in root.iter():
        element.tag = _name(element.tag)
        element.attrib = dict(_attributes(element, prefix))
    # matplotlib says this of every element there is, in the page around it too.
    root.attrib |= {"stroke-linejoin": "round", "stroke-linecap": "butt", "role": "img"}
    root.attrib.pop("version", None)
    # In points not everything that draws SVG knows how large that is.
    root.attrib["width"], root.attrib["height"] = root.attrib["viewBox"].split()[2:]
    label = ET.Element("title")
    label.text = title
    root.insert(0, label)
    return root


def _attributes(element: ET.Element, prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in element.attrib.items():
        name = _name(key)
        if name == "id":
            yield name, prefix + value
        elif name == "href" and value.startswith("#"):
            yield name, f"#{prefix}{value[1:]}"
        else:
            yield name, _REFERENCE.sub(rf"#{prefix}\1)", value)


def _name(qualified: str) -> str:
    return qualified.rpartition("}")[2]
