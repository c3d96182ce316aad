"""The graph in three languages of text: Mermaid and DOT, which are drawn by others, and Markdown tables."""

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Final

from realtime_fsm.diagram.graph import TIMES, Arrow, Graph, Node
from realtime_fsm.diagram.history import History
from realtime_fsm.diagram.palette import FRAME, LIGHT, LINE, PALETTE, PLAIN, TEXT
from realtime_fsm.machine.figures import Form, duration

_MERMAID_FRAME: Final = "active"
_MERMAID_WORD: Final = re.compile(r"[A-Za-z]\w*", re.ASCII)
_MERMAID_KEYWORDS: Final = frozenset(
    {
        *("as", "class", "classdef", "click", "default", "direction", "end", "note", "state", "style"),
        _MERMAID_FRAME,
    }
)
_MERMAID_SIGNS: Final = str.maketrans({sign: f"#{ord(sign)};" for sign in '#;:<>"\n'})
"""Signs that mean something to Mermaid, as the entities that it shows them for."""

_DOT_FONT: Final = 'fontname="Helvetica,Arial,sans-serif"'
_DOT_START: Final = (
    'start [shape=circle, width=0.15, fixedsize=true, style=filled, fillcolor="{colour}", label=""]'
)
_DOT_WORD: Final = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_DOT_KEYWORDS: Final = frozenset({"node", "edge", "graph", "digraph", "subgraph", "strict", "start"})

IGNORED_CELL: Final = "ignored"
"""The cell of a pair that does nothing."""

_ABOUT_IGNORED: Final = (
    "from top to bottom. *ignored* does nothing, for the reason below. An empty cell is illegal:",
    "it raises `IllegalTransitionError`.",
)


def render_mermaid(graph: Graph, direction: str | None = None) -> str:
    """Return the graph as a Mermaid ``stateDiagram-v2``, which GitHub draws; a state names what runs in it.

    Args:
        graph: What is drawn.
        direction: ``LR`` or ``TB``; by default Mermaid decides.
    """
    names = _mermaid_names(graph)
    framed = [node for node in graph.nodes if graph.endings and node.name != graph.initial]
    inside = {node.name for node in framed}
    lines = ["stateDiagram-v2"]
    lines += [f"    direction {direction}"] if direction else []
    lines += [f"    [*] --> {names[graph.initial]}"] if graph.initial else []
    lines += [
        f"    {line}" for node in graph.nodes if node not in framed for line in _mermaid_node(node, names)
    ]
    if framed:
        lines += [f"    state {_MERMAID_FRAME} {{"]
        lines += [f"        {line}" for node in framed for line in _mermaid_node(node, names)]
        lines += [
            f"        {_mermaid_arrow(arrow, names)}" for arrow in graph.arrows if arrow.source in inside
        ]
        lines += ["    }"]
    lines += [f"    {_mermaid_arrow(arrow, names)}" for arrow in graph.arrows if arrow.source not in inside]
    if framed:
        lines.append(
            f"    {_MERMAID_FRAME} --> {names[graph.initial]} : {_mermaid_labels(graph.ending_labels)}"
        )
    lines += _mermaid_styles(graph, names)
    return "\n".join(lines) + "\n"


def _mermaid_names(graph: Graph) -> dict[str, str]:
    """Return how each state is called inside the diagram: by its name, where Mermaid takes it for one."""

    def is_taken(name: str) -> bool:
        return _MERMAID_WORD.fullmatch(name) is not None and name.lower() not in _MERMAID_KEYWORDS

    return {
        node.name: node.name if is_taken(node.name) else f"state_{index}"
        for index, node in enumerate(graph.nodes)
    }


def _mermaid_node(node: Node, names: Mapping[str, str]) -> list[str]:
    # The first description is the title; without one, the first activity would take its place.
    return [f"{names[node.name]} : {text.translate(_MERMAID_SIGNS)}" for text in (node.title, *node.lines)]


def _mermaid_arrow(arrow: Arrow, names: Mapping[str, str]) -> str:
    return f"{names[arrow.source]} --> {names[arrow.dest]} : {_mermaid_labels(arrow.labels)}"


def _mermaid_labels(labels: tuple[str, ...]) -> str:
    return "<br/>".join(label.translate(_MERMAID_SIGNS) for label in labels)


def _mermaid_styles(graph: Graph, names: Mapping[str, str]) -> list[str]:
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
        *(f"    class {names[node.name]} {node.severity or 'plain'}" for node in graph.nodes),
        *(f"    class {names[node.name]} current" for node in graph.nodes if node.current),
    ]


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
        f'    node [shape=box, style="rounded,filled", {_DOT_FONT}, fontsize=13, margin="0.2,0.1"]',
        f'    edge [{_DOT_FONT}, fontsize=11, color="{LINE}", fontcolor="{TEXT}", arrowsize=0.7]',
    ]
    lines += ["    " + _DOT_START.format(colour=TEXT)] if graph.initial else []
    lines += [f"    {_dot_node(node)}" for node in graph.nodes if node not in framed]
    if framed:
        lines += [
            "    subgraph cluster_active {",
            f'        graph [style="rounded,filled", fillcolor="{FRAME}", color="{LINE}", margin=18]',
            *(f"        {_dot_node(node)}" for node in framed),
            "    }",
        ]
    lines += [f"    start -> {_dot_name(graph.initial)}"] if graph.initial else []
    lines += [f"    {_dot_arrow(arrow)}" for arrow in graph.arrows]
    if framed:
        ending = f'[label="{_dot_labels(graph.ending_labels)}", ltail=cluster_active]'
        lines.append(f"    {_dot_name(framed[0].name)} -> {_dot_name(graph.initial)} {ending}")
    return "\n".join([*lines, "}"]) + "\n"


def _dot_node(node: Node) -> str:
    title = f"<b>{escape(node.title)}</b>"
    rows = "".join(f'<br/><font point-size="11">{escape(text)}</font>' for text in node.lines)
    colours = PALETTE.get(node.severity, PLAIN)
    stroke = f'color="{LIGHT.accent}", penwidth=3' if node.current else f'color="{colours.stroke}"'
    return f'{_dot_name(node.name)} [label=<{title}{rows}>, fillcolor="{colours.fill}", {stroke}]'


def _dot_name(name: str) -> str:
    """Return a name as DOT takes it: in quotes, where it is not a plain word."""
    plain = _DOT_WORD.fullmatch(name) is not None and name.lower() not in _DOT_KEYWORDS
    return name if plain else f'"state {_dot_quoted(name)}"'


def _dot_arrow(arrow: Arrow) -> str:
    return f'{_dot_name(arrow.source)} -> {_dot_name(arrow.dest)} [label="{_dot_labels(arrow.labels)}"]'


def _dot_labels(labels: tuple[str, ...]) -> str:
    """Return labels one below the other, with air so that they do not touch the arrow."""
    return "\\n".join(f" {_dot_quoted(label)} " for label in labels)


def _dot_quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def render_table(graph: Graph, history: History | None = None) -> str:
    """Return the graph as Markdown tables: all pairs, the ignored ones, the states, and what happened.

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
            *_table(["trigger", *(node.title for node in graph.nodes)], _pairs(graph)),
            *_ignored(graph),
            *_states(graph),
            *(() if history is None else _history(graph, history)),
            "",
        ]
    )


def _ignored(graph: Graph) -> Iterable[str]:
    if graph.ignored:
        rows = ([pair.state.upper(), f"`{pair.trigger}`", pair.reason] for pair in graph.ignored)
        yield from ["", "## Why a pair is ignored", "", *_table(["state", "trigger", "reason"], rows)]


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
    yield from ["", "## What a state means", "", *_table(list(held), zip(*held.values(), strict=True))]


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
    yield from ["", "## What happened", "", *_table(head, rows)]


def _pairs(graph: Graph) -> Iterable[Sequence[str]]:
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


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [_table_row(head), _table_row(["---"] * len(head)), *map(_table_row, rows)]


def _table_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
