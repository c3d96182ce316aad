"""From a plan, places by name, and a graph to a drawing: every state and move has its place, or none has."""

from collections.abc import Mapping

from attrs import field, frozen

from realtime_fsm.diagram.drawing import (
    Box,
    Drawing,
    Line,
    PlacedChoice,
    PlacedEdge,
    PlacedNode,
    Point,
    Text,
)
from realtime_fsm.diagram.graph import Edge, Graph
from realtime_fsm.machine.errors import InternalError

Move = tuple[str, str, str]
"""``(source, trigger, destination)``."""


@frozen
class At:
    """Where a text stands: its anchor, and which point of the text that is."""

    x: float
    y: float
    anchor: str = "start"


@frozen(kw_only=True)
class Route:
    """How a move runs.

    Attributes:
        points: From border to border.
        badge: The middle of the badge that counts it.
        label: Where its label stands; ``None`` where another move's label speaks for it.
        shared: Whether another move is drawn on the same line.
        stub: The points of the part that is not shared.
    """

    points: tuple[Point, ...]
    badge: Point
    label: At | None = None
    shared: bool = False
    stub: tuple[Point, ...] = ()


@frozen(kw_only=True)
class Fork:
    """How the common part of guarded branches runs: its points, the last of which is the diamond."""

    points: tuple[Point, ...]
    label: At


@frozen(kw_only=True)
class Plan:
    """A place for everything; the attributes are those of ``Drawing``, by name of state and move."""

    width: float
    height: float
    boxes: Mapping[str, Box]
    badges: Mapping[str, Point]
    routes: Mapping[Move, Route]
    forks: Mapping[tuple[str, str], Fork]
    frame: Box
    frame_texts: tuple[Text, ...] = field(factory=tuple)
    start: Point
    start_points: tuple[Point, ...]


def placed(graph: Graph, plan: Plan) -> Drawing:
    """Return the drawing of a graph by a plan.

    Raises:
        InternalError: If a state or a move has no place, or a place has none of them.
    """
    moves = {(edge.source, edge.trigger, edge.dest) for edge in graph.edges}
    names = {node.name for node in graph.nodes}
    if moves != set(plan.routes) or names != set(plan.boxes) or names != set(plan.badges):
        odd = sorted(map(str, moves ^ set(plan.routes) | names ^ set(plan.boxes)))
        raise InternalError(f"The picture and the table differ in {', '.join(odd)}: mend the plan.")
    return Drawing(
        graph=graph,
        width=plan.width,
        height=plan.height,
        nodes=tuple(
            PlacedNode(node=node, box=plan.boxes[node.name], badge=plan.badges[node.name])
            for node in graph.nodes
        ),
        edges=tuple(_edge(edge, plan) for edge in graph.edges),
        choices=tuple(
            PlacedChoice(
                source=source,
                trigger=trigger,
                line=Line(points=fork.points, arrow=False),
                at=fork.points[-1],
                texts=(_text(fork.label, trigger),),
            )
            for (source, trigger), fork in plan.forks.items()
        ),
        frame=plan.frame,
        frame_texts=plan.frame_texts,
        start=plan.start,
        start_line=Line(points=plan.start_points),
    )


def _edge(edge: Edge, plan: Plan) -> PlacedEdge:
    route = plan.routes[edge.source, edge.trigger, edge.dest]
    parts = (edge.source, edge.trigger) in plan.forks
    label = f"[{edge.guard}]" if parts else edge.label
    return PlacedEdge(
        edge=edge,
        line=Line(points=route.points),
        texts=() if route.label is None else (_text(route.label, label),),
        badge=route.badge,
        shared=route.shared,
        stub=Line(points=route.stub, arrow=False) if route.stub else None,
    )


def _text(at: At, text: str) -> Text:
    return Text(x=at.x, y=at.y, anchor=at.anchor, text=text)
