"""The parts of a picture once everything has its position: boxes, lines and texts, in pixels.

A layout (``shipped``, ``layout``) makes a ``Drawing`` out of a graph, a painter (``svg``) writes it down.
Texts are set in a typeface of fixed width, so their size is known without asking a font.
"""

from typing import Final

from attrs import frozen

from realtime_fsm.diagram.graph import Edge, Graph, Node

CHARACTER: Final = 0.62
"""Width of a character per pixel of size; that of the widest common monospaced typeface."""
SMALL: Final = 12.0
TITLE: Final = 13.0
LINE_HEIGHT: Final = 15.0

ANCHORS: Final = ("start", "middle", "end")

Point = tuple[float, float]


@frozen
class Box:
    """A rectangle: its left upper corner and its size."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """The x of its right side."""
        return self.x + self.width

    @property
    def bottom(self) -> float:
        """The y of its lower side."""
        return self.y + self.height

    def overlaps(self, other: "Box") -> bool:
        """Tell whether they share more than a border."""
        across = self.x < other.right and other.x < self.right
        return across and self.y < other.bottom and other.y < self.bottom


@frozen(kw_only=True)
class Text:
    """One line of text.

    Attributes:
        x: Of its anchor.
        y: Of its base line.
        text: What it says.
        anchor: Which of its points stands at ``x``: ``start``, ``middle`` or ``end``.
        size: Of the typeface.
    """

    x: float
    y: float
    text: str
    anchor: str = "start"
    size: float = SMALL

    @property
    def box(self) -> Box:
        """The room that it takes."""
        width = len(self.text) * self.size * CHARACTER
        left = self.x - width * ANCHORS.index(self.anchor) / 2
        return Box(left, self.y - self.size * 0.8, width, self.size)


@frozen(kw_only=True)
class Line:
    """A line through points.

    Attributes:
        points: Where it bends; of a curved one a start, then three points for each cubic curve, and
            at last the tip, to which it is straight.
        arrow: Whether an arrow stands at its end.
        curved: Whether it consists of curves.
    """

    points: tuple[Point, ...]
    arrow: bool = True
    curved: bool = False


@frozen(kw_only=True)
class PlacedNode:
    """A state and its room.

    Attributes:
        node: The state.
        box: Its room.
        badge: Where a history says how often it was entered and for how long; the middle of the badge.
    """

    node: Node
    box: Box
    badge: Point


@frozen(kw_only=True)
class PlacedEdge:
    """A move and its line.

    Attributes:
        edge: The move.
        line: Where it runs.
        texts: What stands beside it.
        badge: Where a history says how often it was taken; the middle of the badge.
        shared: Whether another move is drawn on the same line: this one is seen where it is taken only.
        stub: The part of a shared line that is not shared.
    """

    edge: Edge
    line: Line
    texts: tuple[Text, ...] = ()
    badge: Point
    shared: bool = False
    stub: Line | None = None


@frozen(kw_only=True)
class PlacedChoice:
    """The common part of the guarded branches of one trigger: a line to a diamond, where they part.

    Attributes:
        source: The state that is left.
        trigger: What is fired.
        line: From the state to the diamond.
        at: The middle of the diamond.
        texts: What stands beside the line.
    """

    source: str
    trigger: str
    line: Line
    at: Point
    texts: tuple[Text, ...]


@frozen(kw_only=True)
class Drawing:
    """A whole picture.

    Attributes:
        graph: What is drawn.
        width: Of the picture.
        height: Of the picture, without a legend.
        nodes: Its states.
        edges: Its moves; every edge of the graph is one of them.
        choices: Where branches part.
        frame: Around all states but the initial one, where a trigger leads back from each of them.
        frame_texts: What stands at the frame.
        start: The mark of the initial state, where there is one: the middle of its dot.
        start_line: From the dot to the initial state.
    """

    graph: Graph
    width: float
    height: float
    nodes: tuple[PlacedNode, ...]
    edges: tuple[PlacedEdge, ...]
    choices: tuple[PlacedChoice, ...] = ()
    frame: Box | None = None
    frame_texts: tuple[Text, ...] = ()
    start: Point | None = None
    start_line: Line | None = None
