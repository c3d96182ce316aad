"""The graph as Markdown tables: every pair of state and trigger, and what becomes of it."""

from collections.abc import Iterable, Sequence

from realtime_fsm.diagram.graph import Graph

IGNORED_CELL = "ignored"


def render_table(graph: Graph) -> str:
    """Return three tables: all pairs, why some are ignored, and what the states mean."""
    return "\n".join(
        [
            "# Every state, every trigger",
            "",
            "A cell names the state that is entered, with the guard that must hold; branches are tried",
            "from top to bottom. *ignored* does nothing, for the reason below. An empty cell is illegal:",
            "it raises `IllegalTransitionError`.",
            "",
            *_markdown(["trigger", *(node.name.upper() for node in graph.nodes)], _matrix(graph)),
            "",
            "## Why a pair is ignored",
            "",
            *_markdown(
                ["state", "trigger", "reason"],
                ([pair.state.upper(), f"`{pair.trigger}`", pair.reason] for pair in graph.ignored),
            ),
            "",
            "## What a state means",
            "",
            *_markdown(
                ["state", "runs while it lasts", "severity", "meaning"],
                (
                    [
                        node.name.upper(),
                        "<br>".join(f"`{activity}`" for activity in node.activities) or "nothing",
                        node.severity,
                        node.meaning,
                    ]
                    for node in graph.nodes
                ),
            ),
            "",
        ]
    )


def _matrix(graph: Graph) -> Iterable[Sequence[str]]:
    cells: dict[tuple[str, str], list[str]] = {
        (pair.state, pair.trigger): [f"*{IGNORED_CELL}*"] for pair in graph.ignored
    }
    for edge in graph.edges:
        guard = "" if edge.guard is None else f" `[{edge.guard}]`"
        cells.setdefault((edge.source, edge.trigger), []).append(edge.dest.upper() + guard)
    for trigger in graph.triggers:
        yield [f"`{trigger}`", *("<br>".join(cells.get((node.name, trigger), [])) for node in graph.nodes)]


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [_line(head), _line(["---"] * len(head)), *map(_line, rows)]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
