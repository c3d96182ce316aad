"""What stands out in a picture: the current state, and what a history has taken."""

from attrs import evolve, frozen

from realtime_fsm.diagram.graph import DOT, TIMES, Edge, Graph, Node
from realtime_fsm.diagram.history import History, Step, Visits, duration
from realtime_fsm.machine.errors import InvalidArgumentError


@frozen(kw_only=True)
class Marks:
    """What stands out.

    Attributes:
        current: The state that is marked as the current one, or ``None``.
        history: What is marked as taken, with counts and times, or ``None``.
    """

    current: str | None = None
    history: History | None = None

    def steps(self, edge: Edge) -> tuple[Step, ...]:
        """Return the times at which an edge was taken."""
        return () if self.history is None else self.history.taken(edge.source, edge.trigger, edge.dest)

    def visits(self, node: Node) -> Visits | None:
        """Return how a state fared, or ``None`` where the connection never was in it."""
        return None if self.history is None else self.history.visits(node.name)

    def time(self, node: Node) -> str:
        """Return how often a state was entered and how long it lasted, or nothing."""
        visits = self.visits(node)
        if visits is None:
            return ""
        count = f"{TIMES}{visits.entries} {DOT} " if visits.entries else ""
        return f"{count}{duration(visits.seconds)}"

    def on(self, graph: Graph) -> Graph:
        """Return a graph that says in words what stands out in it."""
        return evolve(
            graph,
            nodes=tuple(
                evolve(node, current=node.name == self.current, note=self.time(node)) for node in graph.nodes
            ),
            edges=tuple(evolve(edge, count=len(self.steps(edge))) for edge in graph.edges),
        )


def marks_of(graph: Graph, *, highlight: str | None, history: History | None) -> Marks:
    """Return the marks for a graph; the current state is by default the one in which the history ends.

    Raises:
        InvalidArgumentError: If the graph has not the state, or not what the history has taken.
    """
    names = [node.name for node in graph.nodes]
    if highlight is not None and highlight not in names:
        raise InvalidArgumentError(
            f"highlight={highlight!r} is no state.", remedy=f"The states are {', '.join(names)}."
        )
    if history is None:
        return Marks(current=highlight)
    known = {(edge.source, edge.trigger, edge.dest) for edge in graph.edges}
    for step in history.steps:
        if (step.source, step.trigger, step.dest) not in known:
            raise InvalidArgumentError(
                f"The history holds {step.source} -> {step.dest} by {step.trigger}, which is no move here.",
                remedy="Use the machine that the history was recorded of.",
            )
    return Marks(current=highlight or history.current, history=history)
