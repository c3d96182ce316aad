"""The graph as a Mermaid state diagram, which GitHub and others draw in place."""

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Final

from realtime_fsm.diagram.graph import TIMES, Arrow, Graph, Node
from realtime_fsm.diagram.history import History
from realtime_fsm.diagram.palette import FRAME, LIGHT, LINE, PALETTE, PLAIN, TEXT
from realtime_fsm.machine.figures import Form, duration

# The graph in DOT, the language of Graphviz.

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


# The graph as Markdown tables: every pair of state and trigger, and what becomes of it.

IGNORED_CELL = "ignored"

_ABOUT_IGNORED = (
    "from top to bottom. *ignored* does nothing, for the reason below. An empty cell is illegal:",
    "it raises `IllegalTransitionError`.",
)


def render_table(graph: Graph, history: History | None = None) -> str:
    """Return the tables: all pairs, why some are ignored, what the states mean, and what happened.

    Args:
        graph: What they tell of.
        history: What happened; without one, that table is left out.
    """
    return "\n".join(
        [
            "# Every state, every trigger",
            "",
            "A cell names the state that is entered, with the guard that must hold; branches are tried",
            *(_ABOUT_IGNORED if graph.ignored else ["from top to bottom."]),
            "",
            *_markdown(["trigger", *(node.title for node in graph.nodes)], _matrix(graph)),
            *_ignored(graph),
            *_states(graph),
            *(() if history is None else _history(graph, history)),
            "",
        ]
    )


def _ignored(graph: Graph) -> Iterable[str]:
    if graph.ignored:
        rows = ([pair.state.upper(), f"`{pair.trigger}`", pair.reason] for pair in graph.ignored)
        yield from ["", "## Why a pair is ignored", "", *_markdown(["state", "trigger", "reason"], rows)]


def _states(graph: Graph) -> Iterable[str]:
    """Yield what is known of the states, in those columns that hold something."""
    columns = {
        "state": [node.title for node in graph.nodes],
        "runs while it lasts": [
            "<br>".join(f"`{activity}`" for activity in node.activities) or "nothing" for node in graph.nodes
        ],
        "severity": [node.severity for node in graph.nodes],
        "meaning": [node.meaning for node in graph.nodes],
        "entered, lasted": [node.note for node in graph.nodes],
    }
    held = {head: cells for head, cells in columns.items() if any(cells)}
    yield from ["", "## What a state means", "", *_markdown(list(held), zip(*held.values(), strict=True))]


def _history(graph: Graph, history: History) -> Iterable[str]:
    """Yield every step, and how long the state that it entered lasted."""
    headings = {node.name: node.heading for node in graph.nodes}
    ends = [*(step.at for step in history.steps[1:]), None]
    rows = (
        [
            step.clock,
            headings[step.source],
            f"`{step.trigger}`",
            headings[step.dest],
            "it is the present one" if end is None else duration(max(0.0, end - step.at), Form.SHORT),
            step.reason,
        ]
        for step, end in zip(history.steps, ends, strict=True)
    )
    head = ["time (UTC)", "from", "trigger", "to", "which lasted", "reason"]
    yield from ["", "## What happened", "", *_markdown(head, rows)]


def _matrix(graph: Graph) -> Iterable[Sequence[str]]:
    cells: dict[tuple[str, str], list[str]] = {
        (pair.state, pair.trigger): [f"*{IGNORED_CELL}*"] for pair in graph.ignored
    }
    headings = {node.name: node.heading for node in graph.nodes}
    for edge in graph.edges:
        guard = "" if edge.guard is None else f" `[{edge.guard}]`"
        guard += f" {TIMES}{edge.count}" if edge.count else ""
        cells.setdefault((edge.source, edge.trigger), []).append(headings[edge.dest] + guard)
    for trigger in graph.triggers:
        yield [f"`{trigger}`", *("<br>".join(cells.get((node.name, trigger), [])) for node in graph.nodes)]


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [_line(head), _line(["---"] * len(head)), *map(_line, rows)]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


_FRAME: Final = "active"
_MERMAID_WORD: Final = re.compile(r"[A-Za-z]\w*", re.ASCII)
_MERMAID_KEYWORDS: Final = frozenset(
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
    ids = {node.name: _mermaid_id(node.name, index) for index, node in enumerate(graph.nodes)}
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


def _mermaid_id(name: str, index: int) -> str:
    """Return what a state is called inside the diagram: its name, where Mermaid takes it for one."""
    plain = _MERMAID_WORD.fullmatch(name) is not None and name.lower() not in _MERMAID_KEYWORDS
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
