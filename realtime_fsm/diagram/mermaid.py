"""The graph as a Mermaid state diagram, which GitHub and others draw in place."""

import re
from collections.abc import Mapping
from typing import Final

from realtime_fsm.diagram.graph import Arrow, Graph, Node
from realtime_fsm.diagram.palette import LIGHT, PALETTE, PLAIN, TEXT

_FRAME: Final = "active"
_WORD: Final = re.compile(r"[A-Za-z]\w*", re.ASCII)
_KEYWORDS: Final = frozenset(
    {"as", "class", "classdef", "click", "default", "direction", "end", "note", "state", "style", _FRAME}
)
_SIGNS: Final = str.maketrans({sign: f"#{ord(sign)};" for sign in '#;:<>"\n'})
"""Signs that mean something to Mermaid, as the entities that it shows them for."""


def render_mermaid(graph: Graph, direction: str | None = None) -> str:
    """Return the graph as a ``stateDiagram-v2``; a state names what runs while it lasts.

    Args:
        graph: What is drawn.
        direction: ``LR`` or ``TB``; by default Mermaid decides.
    """
    ids = {node.name: _id(node.name, index) for index, node in enumerate(graph.nodes)}
    framed = [node for node in graph.nodes if graph.endings and node.name != graph.initial]
    inside = {node.name for node in framed}
    lines = ["stateDiagram-v2"]
    lines += [f"    direction {direction}"] if direction else []
    lines += [f"    [*] --> {ids[graph.initial]}"] if graph.initial else []
    lines += [f"    {line}" for node in graph.nodes if node not in framed for line in _described(node, ids)]
    if framed:
        lines += [f"    state {_FRAME} {{"]
        lines += [f"        {line}" for node in framed for line in _described(node, ids)]
        lines += [f"        {_drawn(arrow, ids)}" for arrow in graph.arrows if arrow.source in inside]
        lines += ["    }"]
    lines += [f"    {_drawn(arrow, ids)}" for arrow in graph.arrows if arrow.source not in inside]
    if framed:
        lines.append(f"    {_FRAME} --> {ids[graph.initial]} : {_labels(graph.ending_labels)}")
    lines += _coloured(graph, ids)
    return "\n".join(lines) + "\n"


def _id(name: str, index: int) -> str:
    """Return what a state is called inside the diagram: its name, where Mermaid takes it for one."""
    plain = _WORD.fullmatch(name) is not None and name.lower() not in _KEYWORDS
    return name if plain else f"state_{index}"


def _described(node: Node, ids: Mapping[str, str]) -> list[str]:
    # The first description is the title; without one, the first activity would take its place.
    return [f"{ids[node.name]} : {text.translate(_SIGNS)}" for text in (node.title, *node.lines)]


def _drawn(arrow: Arrow, ids: Mapping[str, str]) -> str:
    return f"{ids[arrow.source]} --> {ids[arrow.dest]} : {_labels(arrow.labels)}"


def _labels(labels: tuple[str, ...]) -> str:
    return "<br/>".join(label.translate(_SIGNS) for label in labels)


def _coloured(graph: Graph, ids: Mapping[str, str]) -> list[str]:
    used = {node.severity for node in graph.nodes}
    palette = {**PALETTE, **({"plain": PLAIN} if "" in used else {})}
    styles = [
        f"    classDef {severity} fill:{colours.fill},stroke:{colours.stroke},color:{TEXT}"
        for severity, colours in palette.items()
        if severity == "plain" or used - {""}
    ]
    if any(node.current for node in graph.nodes):
        styles.append(f"    classDef current stroke:{LIGHT.accent},stroke-width:4px")
    return [
        *styles,
        *(f"    class {ids[node.name]} {node.severity or 'plain'}" for node in graph.nodes),
        *(f"    class {ids[node.name]} current" for node in graph.nodes if node.current),
    ]
