"""Pictures of the machine: the machine, then a neutral graph, then a renderer per format.

::

    render(format="svg")                                   the shipped machine; needs nothing
    render(my_machine, format="svg")                       a machine of `transitions`: the extra [render]
    render([("off", "press", "on")], format="mermaid")     a table; needs nothing
    render(format="svg", history="changes.jsonl")          what happened, as `listen --json` printed it
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, overload

from realtime_fsm.diagram.graph import Graph, MachineLike, build_graph, graph_of
from realtime_fsm.diagram.history import History, HistoryLike, HistoryStep, history_of, read_history
from realtime_fsm.diagram.layout import laid_out
from realtime_fsm.diagram.shipped import NAME, PLANS, checked_direction, placed, shipped_svg
from realtime_fsm.diagram.svg import Look, Marks, checked_theme, marks_of, paint, raster, stylesheet
from realtime_fsm.diagram.text import render_dot, render_mermaid, render_table
from realtime_fsm.machine.connection_machine import ConnectionMachine
from realtime_fsm.machine.errors import InvalidArgumentError

__all__ = [
    "FORMATS",
    "History",
    "HistoryLike",
    "HistoryStep",
    "MachineLike",
    "read_history",
    "render",
    "shipped_svg",
    "stylesheet",
]

FORMATS: Final = ("svg", "png", "mermaid", "dot", "table")
"""The formats by name."""

TextFormat = Literal["svg", "mermaid", "dot", "table"]


def __getattr__(name: str) -> Any:
    """Give ``HistoryStep`` by the name that it had before."""
    if name != "Step":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn("Step is called HistoryStep now.", DeprecationWarning, stacklevel=2)
    return HistoryStep


@overload
def render(
    machine: MachineLike | None = None,
    *,
    format: TextFormat = "mermaid",
    direction: str | None = None,
    highlight: str | None = None,
    history: HistoryLike | None = None,
    theme: str | None = None,
    activities: Mapping[Any, Sequence[str]] | None = None,
) -> str: ...
@overload
def render(
    machine: MachineLike | None = None,
    *,
    format: Literal["png"],
    direction: str | None = None,
    highlight: str | None = None,
    history: HistoryLike | None = None,
    theme: str | None = None,
    activities: Mapping[Any, Sequence[str]] | None = None,
) -> bytes: ...
@overload
def render(
    machine: MachineLike | None = None,
    *,
    format: str,
    direction: str | None = None,
    highlight: str | None = None,
    history: HistoryLike | None = None,
    theme: str | None = None,
    activities: Mapping[Any, Sequence[str]] | None = None,
) -> str | bytes: ...
def render(
    machine: MachineLike | None = None,
    *,
    format: str = "mermaid",  # noqa: A002 - the word that the command line uses
    direction: str | None = None,
    highlight: str | None = None,
    history: HistoryLike | None = None,
    theme: str | None = None,
    activities: Mapping[Any, Sequence[str]] | None = None,
) -> str | bytes:
    """Return a machine in a format; deterministic, and text ends with a newline.

    Args:
        machine: A machine of ``transitions``, a table of rows (see ``MachineLike``); ``None`` is the
            shipped one.
        format: A name in ``FORMATS``; ``png`` gives bytes.
        direction: ``LR`` or ``TB``; by default ``LR`` for SVG and PNG, and the renderer's choice otherwise.
        highlight: The state that is marked as the current one; by default the one where a history ends.
        history: What happened: changes as observers are told them, or a file of ``listen --json``.
        theme: ``light`` or ``dark``, for SVG and PNG; by default an SVG follows its reader, a PNG is light.
        activities: What is written into the states of a machine of your own, by their names.

    Raises:
        InvalidArgumentError: If there is no such format, direction, theme or state, or if the machine or
            the history cannot be understood, or if they do not belong together.
        MissingExtraError: If PNG, or SVG of a machine of your own, is asked for without [render].
    """
    if format not in FORMATS:
        raise InvalidArgumentError(f"format={format!r} is unknown.", remedy=f"Use {', '.join(FORMATS)}.")
    if direction is not None:
        checked_direction(direction)
    checked_theme(theme)
    graph = build_graph() if machine is None else graph_of(machine, activities=activities)
    told = None if history is None else history_of(history)
    marks = marks_of(graph, highlight=highlight, history=told)
    if format == "table":
        return render_table(marks.on(graph), told)
    if format in {"mermaid", "dot"}:
        return (render_dot if format == "dot" else render_mermaid)(marks.on(graph), direction)
    shipped = machine is None or isinstance(machine, ConnectionMachine)
    if format == "png":
        return raster(_svg(graph, marks, direction, theme or "light", shipped=shipped))
    return _svg(graph, marks, direction, theme, shipped=shipped)


def _svg(graph: Graph, marks: Marks, direction: str | None, theme: str | None, *, shipped: bool) -> str:
    way = direction or "LR"
    drawing = placed(graph, PLANS[way]) if shipped else laid_out(graph, way, badges=marks.history is not None)
    name = NAME if shipped else f"The states {', '.join(node.name for node in graph.nodes)}"
    return paint(drawing, Look(name=name, marks=marks, theme=theme, live=shipped))
