"""The graph as Markdown tables: every pair of state and trigger, and what becomes of it."""

from collections.abc import Iterable, Sequence

from realtime_fsm.diagram.graph import TIMES, Graph
from realtime_fsm.diagram.history import History, duration

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
            "it is the present one" if end is None else duration(max(0.0, end - step.at)),
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
