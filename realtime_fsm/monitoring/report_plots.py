"""The plots of a report, by matplotlib, as SVG with light and dark colours."""

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from io import StringIO
from typing import TYPE_CHECKING, Any, Final

from attrs import frozen

from realtime_fsm.machine.errors import MissingExtraError
from realtime_fsm.monitoring import report_panels as panels
from realtime_fsm.monitoring.report import Report
from realtime_fsm.monitoring.report_svg import embedded, standalone

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_INK: Final = "#1f2328"
_GRID: Final = "#d1d9e0"
_STYLE: Final = {
    "axes.axisbelow": True,
    "axes.edgecolor": panels.MUTED,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": panels.MUTED,
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
    "xtick.color": panels.MUTED,
    "ytick.color": panels.MUTED,
    "ytick.major.size": 0,
}
_WIDTH: Final = 5.2
_HEIGHT: Final = 2.9
_LOW: Final = 0.95
_COLUMNS: Final = 3
_PAD: Final = 0.08


@frozen(kw_only=True)
class Plot:
    """One picture.

    Attributes:
        name: Its name in ids.
        title: What it shows.
        svg: The picture, to stand inside a page.
    """

    name: str
    title: str
    svg: str


def plots(report: Report) -> list[Plot]:
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


def plots_as_svg(report: Report) -> str:
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


def _one(draw: Callable[..., None], report: Report) -> str:
    figure = _figure(_WIDTH, _HEIGHT)
    axes = figure.add_subplot()
    draw(axes, report)
    _legend(axes, report)
    return _svg(figure)


def _legend(axes: Any, report: Report) -> None:
    if len(report.sections) > 1 and axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best")


def _draw_comparison(figure: Any, report: Report, *, columns: int) -> None:
    for place, one in enumerate(report.comparison):
        axes = figure.add_subplot(-(-len(report.comparison) // columns), columns, place + 1)
        panels.comparison(axes, one)


def _svg(figure: "Figure") -> str:
    text = StringIO()
    with warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes; the tables have it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def _has(name: str, report: Report) -> bool:
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


_PANELS: Final[tuple[tuple[str, str, Callable[..., None]], ...]] = (
    ("availability", "Time that was not live", panels.availability),
    ("recovery", "Time to recover", panels.recovery),
    ("causes", "Failed attempts by cause", panels.causes),
    ("latency", "Latency", panels.latency),
)
