"""Pictures of the machine: the machine, then a neutral graph, then a renderer per format."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from realtime_fsm.diagram.dot import render_dot
from realtime_fsm.diagram.graph import Graph, build_graph
from realtime_fsm.diagram.mermaid import render_mermaid
from realtime_fsm.diagram.shipped import shipped_svg
from realtime_fsm.diagram.style import stylesheet
from realtime_fsm.diagram.table import render_table
from realtime_fsm.machine.errors import InvalidArgumentError

__all__ = ["FORMATS", "readme_block", "render", "shipped_svg", "stylesheet"]

FORMATS: Final[Mapping[str, Callable[[Graph], str]]] = MappingProxyType(
    {"mermaid": render_mermaid, "dot": render_dot, "table": render_table}
)
"""The renderers by name. A new format is one function from the graph to text."""


def render(format: str) -> str:  # noqa: A002 - the word that the command line uses
    """Return the shipped machine in a format; deterministic, ends with a newline.

    Args:
        format: A name in ``FORMATS``.

    Raises:
        InvalidArgumentError: If there is no such format.
    """
    renderer = FORMATS.get(format)
    if renderer is None:
        raise InvalidArgumentError(f"format={format!r} is unknown.", remedy=f"Use {', '.join(FORMATS)}.")
    return renderer(build_graph())


def readme_block() -> str:
    """Return the Mermaid diagram in a fenced block, as it stands in the README between its markers."""
    return f"```mermaid\n{render('mermaid')}```\n"
