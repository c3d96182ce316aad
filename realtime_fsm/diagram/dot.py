"""The graph in DOT, the language of Graphviz."""

import re
from html import escape
from typing import Final

from realtime_fsm.diagram.graph import Arrow, Graph, Node
from realtime_fsm.diagram.palette import FRAME, LIGHT, LINE, PALETTE, PLAIN, TEXT

_FONT: Final = 'fontname="Helvetica,Arial,sans-serif"'
_START: Final = (
    'start [shape=circle, width=0.15, fixedsize=true, style=filled, fillcolor="{colour}", label=""]'
)
_WORD: Final = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_KEYWORDS: Final = frozenset({"node", "edge", "graph", "digraph", "subgraph", "strict", "start"})


def render_dot(graph: Graph, direction: str | None = None) -> str:
    """Return the graph as a ``digraph``; ``dot -Tsvg`` draws it.

    Args:
        graph: What is drawn.
        direction: ``LR`` or ``TB``; by default Graphviz decides.
    """
    framed = [node for node in graph.nodes if graph.endings and node.name != graph.initial]
    turned = f"rankdir={direction}, " if direction else ""
    lines = ["digraph realtime_fsm {"]
    lines += [
        f"    graph [{turned}compound=true, newrank=true, nodesep=0.7, ranksep=0.8, pad=0.2]",
        f'    node [shape=box, style="rounded,filled", {_FONT}, fontsize=13, margin="0.2,0.1"]',
        f'    edge [{_FONT}, fontsize=11, color="{LINE}", fontcolor="{TEXT}", arrowsize=0.7]',
    ]
    lines += ["    " + _START.format(colour=TEXT)] if graph.initial else []
    lines += [f"    {_node(node)}" for node in graph.nodes if node not in framed]
    if framed:
        lines += [
            "    subgraph cluster_active {",
            f'        graph [style="rounded,filled", fillcolor="{FRAME}", color="{LINE}", margin=18]',
            *(f"        {_node(node)}" for node in framed),
            "    }",
        ]
    lines += [f"    start -> {_id(graph.initial)}"] if graph.initial else []
    lines += [f"    {_arrow(arrow)}" for arrow in graph.arrows]
    if framed:
        ending = f'[label="{_lines(graph.ending_labels)}", ltail=cluster_active]'
        lines.append(f"    {_id(framed[0].name)} -> {_id(graph.initial)} {ending}")
    return "\n".join([*lines, "}"]) + "\n"


def _node(node: Node) -> str:
    title = f"<b>{escape(node.title)}</b>"
    rows = "".join(f'<br/><font point-size="11">{escape(text)}</font>' for text in node.lines)
    colours = PALETTE.get(node.severity, PLAIN)
    stroke = f'color="{LIGHT.accent}", penwidth=3' if node.current else f'color="{colours.stroke}"'
    return f'{_id(node.name)} [label=<{title}{rows}>, fillcolor="{colours.fill}", {stroke}]'


def _id(name: str) -> str:
    """Return a name as DOT takes it: in quotes, where it is not a plain word."""
    plain = _WORD.fullmatch(name) is not None and name.lower() not in _KEYWORDS
    return name if plain else f'"state {_quoted(name)}"'


def _arrow(arrow: Arrow) -> str:
    return f'{_id(arrow.source)} -> {_id(arrow.dest)} [label="{_lines(arrow.labels)}"]'


def _lines(labels: tuple[str, ...]) -> str:
    """Return labels one below the other, with air so that they do not touch the arrow."""
    return "\\n".join(f" {_quoted(label)} " for label in labels)


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
