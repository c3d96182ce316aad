"""The graph in DOT, the language of Graphviz."""

from html import escape

from realtime_fsm.diagram.graph import Arrow, Graph, Node
from realtime_fsm.diagram.palette import FRAME, LINE, PALETTE, TEXT

_FONT = 'fontname="Helvetica,Arial,sans-serif"'
_START = 'start [shape=circle, width=0.15, fixedsize=true, style=filled, fillcolor="{colour}", label=""]'


def render_dot(graph: Graph) -> str:
    """Return the graph as a ``digraph``; ``dot -Tsvg`` draws it."""
    framed = [node for node in graph.nodes if node.name != graph.initial]
    lines = ["digraph realtime_fsm {"]
    lines += [
        "    graph [compound=true, newrank=true, nodesep=0.7, ranksep=0.8, pad=0.2]",
        f'    node [shape=box, style="rounded,filled", {_FONT}, fontsize=13, margin="0.2,0.1"]',
        f'    edge [{_FONT}, fontsize=11, color="{LINE}", fontcolor="{TEXT}", arrowsize=0.7]',
        "    " + _START.format(colour=TEXT),
        *(f"    {_node(node)}" for node in graph.nodes if node.name == graph.initial),
        "    subgraph cluster_active {",
        f'        graph [style="rounded,filled", fillcolor="{FRAME}", color="{LINE}", margin=18]',
        *(f"        {_node(node)}" for node in framed),
        "    }",
        f"    start -> {graph.initial}",
    ]
    lines += [f"    {_arrow(arrow)}" for arrow in graph.arrows]
    if graph.endings:
        ending = f'[label="{_lines(graph.endings)}", ltail=cluster_active]'
        lines.append(f"    {framed[0].name} -> {graph.initial} {ending}")
    return "\n".join([*lines, "}"]) + "\n"


def _node(node: Node) -> str:
    title = f"<b>{escape(node.name.upper())}</b>"
    activities = "".join(f'<br/><font point-size="11">{escape(text)}</font>' for text in node.activities)
    colours = PALETTE[node.severity]
    return f'{node.name} [label=<{title}{activities}>, fillcolor="{colours.fill}", color="{colours.stroke}"]'


def _arrow(arrow: Arrow) -> str:
    return f'{arrow.source} -> {arrow.dest} [label="{_lines(arrow.labels)}"]'


def _lines(labels: tuple[str, ...]) -> str:
    """Return labels one below the other, with air so that they do not touch the arrow."""
    return "\\n".join(f" {label} " for label in labels)
