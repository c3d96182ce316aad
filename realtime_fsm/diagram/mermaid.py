"""The graph as a Mermaid state diagram, which GitHub and others draw in place."""

from realtime_fsm.diagram.graph import Arrow, Graph, Node
from realtime_fsm.diagram.palette import PALETTE, TEXT

_FRAME = "active"


def render_mermaid(graph: Graph) -> str:
    """Return the graph as a ``stateDiagram-v2``; a state names what runs while it lasts."""
    framed = [node for node in graph.nodes if node.name != graph.initial]
    lines = ["stateDiagram-v2", f"    [*] --> {graph.initial}"]
    lines += [f"    {graph.initial} : {graph.initial.upper()}", f"    state {_FRAME} {{"]
    lines += [f"        {line}" for node in framed for line in _described(node)]
    lines += [f"        {_drawn(arrow)}" for arrow in graph.arrows if arrow.source != graph.initial]
    lines += ["    }"]
    lines += [f"    {_drawn(arrow)}" for arrow in graph.arrows if arrow.source == graph.initial]
    if graph.endings:
        lines.append(f"    {_FRAME} --> {graph.initial} : {'<br/>'.join(graph.endings)}")
    lines += _coloured(graph)
    return "\n".join(lines) + "\n"


def _described(node: Node) -> list[str]:
    # The first description is the title; without one, the first activity would take its place.
    return [f"{node.name} : {text}" for text in (node.name.upper(), *node.activities)]


def _drawn(arrow: Arrow) -> str:
    return f"{arrow.source} --> {arrow.dest} : {'<br/>'.join(arrow.labels)}"


def _coloured(graph: Graph) -> list[str]:
    styles = [
        f"    classDef {severity} fill:{colours.fill},stroke:{colours.stroke},color:{TEXT}"
        for severity, colours in PALETTE.items()
    ]
    return styles + [f"    class {node.name} {node.severity}" for node in graph.nodes]
