"""The pictures of the shipped machine: painted, or as they lie finished beside this module."""

import re
from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType
from typing import Final

from attrs import evolve, field, frozen

from realtime_fsm.diagram.drawing import Box, Drawing, Line, PlacedChoice, PlacedEdge, PlacedNode, Point, Text
from realtime_fsm.diagram.graph import Edge, Graph, build_graph
from realtime_fsm.diagram.svg import Look, paint, state_id
from realtime_fsm.machine.errors import InternalError, InvalidArgumentError
from realtime_fsm.machine.table import ConnectionStatus

NAME: Final = "The states of a connection, and what moves it from one to another"

_STYLE: Final = re.compile(r"<style>.*?</style>\n", re.DOTALL)

MoveKey = tuple[str, str, str]
"""The key of a move in a plan: ``(source, trigger, destination)``."""


@frozen
class At:
    """The position of a text: its anchor, and which point of the text that is."""

    x: float
    y: float
    anchor: str = "start"


@frozen(kw_only=True)
class Route:
    """The line by which a move is drawn.

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
    """The line that guarded branches have in common: its points, the last of which is the diamond."""

    points: tuple[Point, ...]
    label: At


@frozen(kw_only=True)
class Plan:
    """The positions of everything; the attributes are those of ``Drawing``, by name of state and move."""

    width: float
    height: float
    boxes: Mapping[str, Box]
    badges: Mapping[str, Point]
    routes: Mapping[MoveKey, Route]
    forks: Mapping[tuple[str, str], Fork]
    frame: Box
    frame_texts: tuple[Text, ...] = field(factory=tuple)
    start: Point
    start_points: tuple[Point, ...]


def placed(graph: Graph, plan: Plan) -> Drawing:
    """Return the drawing of a graph by a plan.

    Raises:
        InternalError: If the plan lacks a state or a move, or has one that the graph lacks.
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


# The plan of the shipped machine from left to right: for a wide page.
#
# A line keeps to the grid, leaves and enters a state at its border, and crosses another at two points only:
# where being forced out of RECONNECTING leads to FALLBACK, which the outcomes of a loss stand around.

_ENDING_LR: Final = Route(points=((188, 340), (87, 340), (87, 116)), badge=(138, 340), shared=True)
"""One line out of the frame, for every state in it; where it is not shared its label speaks for all."""


PLAN_LR: Final = Plan(
    width=1056,
    height=578,
    start=(87, 50),
    start_points=((87, 56), (87, 84)),
    frame=Box(188, 10, 858, 558),
    frame_texts=(Text(x=95, y=259, text="from any"), Text(x=95, y=274, text="of these")),
    boxes={
        "disconnected": Box(16, 84, 142, 32),
        "connecting": Box(270, 68, 130, 64),
        "connected": Box(690, 62, 130, 80),
        "reconnecting": Box(475, 250, 140, 50),
        "failed": Box(475, 424, 140, 64),
        "fallback": Box(815, 414, 176, 80),
    },
    badges={
        "disconnected": (130, 118),
        "connecting": (384, 134),
        "connected": (712, 144),
        "reconnecting": (520, 302),
        "failed": (545, 490),
        "fallback": (838, 496),
    },
    forks={
        ("connecting", "attempt_failed"): Fork(points=((340, 132), (340, 275)), label=At(348, 200)),
        ("connected", "connection_lost"): Fork(points=((770, 142), (770, 275)), label=At(762, 200, "end")),
    },
    routes={
        ("disconnected", "connect", "connecting"): Route(
            points=((158, 100), (270, 100)), badge=(174, 100), label=At(229, 94, "middle")
        ),
        ("connecting", "established", "connected"): Route(
            points=((400, 84), (690, 84)), badge=(620, 84), label=At(545, 78, "middle")
        ),
        ("connecting", "attempt_failed", "reconnecting"): Route(
            points=((349, 275), (475, 275)), badge=(452, 275), label=At(355, 269)
        ),
        ("connecting", "attempt_failed", "failed"): Route(
            points=((340, 284), (340, 440), (475, 440)), badge=(410, 440), label=At(348, 360)
        ),
        ("connecting", "force_fallback", "fallback"): Route(
            points=((335, 68), (335, 36), (1026, 36), (1026, 440), (991, 440)),
            badge=(430, 36),
            label=At(545, 30, "middle"),
        ),
        ("connected", "connection_lost", "reconnecting"): Route(
            points=((761, 275), (615, 275)), badge=(640, 275), label=At(755, 269, "end")
        ),
        ("connected", "connection_lost", "failed"): Route(
            points=((770, 284), (770, 385), (560, 385), (560, 424)),
            badge=(650, 385),
            label=At(762, 365, "end"),
        ),
        ("connected", "force_fallback", "fallback"): Route(
            points=((820, 84), (1026, 84), (1026, 440), (991, 440)),
            stub=((820, 84), (1026, 84)),
            badge=(920, 84),
            shared=True,
        ),
        ("reconnecting", "retry", "connecting"): Route(
            points=((545, 250), (545, 112), (400, 112)), badge=(545, 190), label=At(490, 106, "middle")
        ),
        ("reconnecting", "force_fallback", "fallback"): Route(
            points=((580, 300), (580, 330), (1026, 330), (1026, 440), (991, 440)),
            stub=((580, 300), (580, 330), (1026, 330)),
            badge=(680, 330),
            shared=True,
        ),
        ("failed", "connect", "connecting"): Route(
            points=((475, 470), (300, 470), (300, 132)), badge=(300, 240), label=At(292, 300, "end")
        ),
        ("failed", "retry", "connecting"): Route(
            points=((475, 470), (300, 470), (300, 132)),
            badge=(300, 360),
            label=At(292, 316, "end"),
            shared=True,
        ),
        ("failed", "fall_back", "fallback"): Route(
            points=((615, 450), (815, 450)), badge=(640, 450), label=At(808, 430, "end")
        ),
        ("failed", "force_fallback", "fallback"): Route(
            points=((615, 450), (815, 450)), badge=(686, 450), label=At(808, 444, "end"), shared=True
        ),
        ("fallback", "established", "connected"): Route(
            points=((903, 414), (903, 118), (820, 118)), badge=(903, 260), label=At(911, 220)
        ),
        ("fallback", "polling_refused", "failed"): Route(
            points=((815, 476), (615, 476)), badge=(780, 476), label=At(690, 491, "middle")
        ),
        ("fallback", "force_fallback", "fallback"): Route(
            points=((900, 494), (900, 524), (960, 524), (960, 494)),
            badge=(900, 512),
            label=At(930, 540, "middle"),
        ),
        ("fallback", "release_fallback", "fallback"): Route(
            points=((900, 494), (900, 524), (960, 524), (960, 494)),
            badge=(960, 512),
            label=At(930, 555, "middle"),
            shared=True,
        ),
        ("connecting", "disconnect", "disconnected"): evolve(_ENDING_LR, label=At(95, 240), shared=False),
        ("connected", "disconnect", "disconnected"): _ENDING_LR,
        ("reconnecting", "disconnect", "disconnected"): _ENDING_LR,
        ("failed", "disconnect", "disconnected"): _ENDING_LR,
        ("fallback", "disconnect", "disconnected"): _ENDING_LR,
    },
)

# The plan of the shipped machine from top to bottom: 390 pixels wide, as a phone is.

_ENDING_TB: Final = Route(points=((200, 128), (200, 60), (166, 60)), badge=(200, 116), shared=True)


PLAN_TB: Final = Plan(
    width=390,
    height=712,
    start=(95, 14),
    start_points=((95, 20), (95, 44)),
    frame=Box(4, 128, 382, 578),
    frame_texts=(Text(x=208, y=102, text="from any of these"),),
    boxes={
        "disconnected": Box(24, 44, 142, 32),
        "connecting": Box(18, 170, 122, 64),
        "connected": Box(238, 170, 122, 80),
        "reconnecting": Box(125, 334, 140, 50),
        "failed": Box(125, 444, 140, 64),
        "fallback": Box(170, 612, 190, 80),
    },
    badges={
        "disconnected": (126, 78),
        "connecting": (112, 236),
        "connected": (276, 252),
        "reconnecting": (195, 386),
        "failed": (153, 510),
        "fallback": (265, 694),
    },
    forks={
        ("connecting", "attempt_failed"): Fork(points=((62, 234), (62, 302)), label=At(68, 270)),
        ("connected", "connection_lost"): Fork(points=((328, 250), (328, 302)), label=At(322, 280, "end")),
    },
    routes={
        ("disconnected", "connect", "connecting"): Route(
            points=((60, 76), (60, 170)), badge=(60, 112), label=At(68, 150)
        ),
        ("connecting", "established", "connected"): Route(
            points=((140, 188), (238, 188)), badge=(189, 188), label=At(189, 177, "middle")
        ),
        ("connecting", "attempt_failed", "reconnecting"): Route(
            points=((71, 302), (172, 302), (172, 334)), badge=(172, 314), label=At(120, 296, "middle")
        ),
        ("connecting", "attempt_failed", "failed"): Route(
            points=((62, 311), (62, 462), (125, 462)), badge=(62, 380), label=At(68, 418)
        ),
        ("connecting", "force_fallback", "fallback"): Route(
            points=((130, 170), (130, 150), (372, 150), (372, 640), (360, 640)),
            badge=(160, 150),
            label=At(310, 144, "end"),
        ),
        ("connected", "connection_lost", "reconnecting"): Route(
            points=((319, 302), (218, 302), (218, 334)), badge=(218, 314), label=At(268, 296, "middle")
        ),
        ("connected", "connection_lost", "failed"): Route(
            points=((328, 311), (328, 462), (265, 462)), badge=(328, 390), label=At(322, 418, "end")
        ),
        ("connected", "force_fallback", "fallback"): Route(
            points=((360, 186), (372, 186), (372, 640), (360, 640)),
            stub=((360, 186), (372, 186)),
            badge=(361, 186),
            shared=True,
        ),
        ("reconnecting", "retry", "connecting"): Route(
            points=((195, 334), (195, 218), (140, 218)), badge=(195, 246), label=At(170, 212, "middle")
        ),
        ("reconnecting", "force_fallback", "fallback"): Route(
            points=((265, 360), (372, 360), (372, 640), (360, 640)),
            stub=((265, 360), (372, 360)),
            badge=(294, 360),
            shared=True,
        ),
        ("failed", "connect", "connecting"): Route(
            points=((125, 490), (32, 490), (32, 234)), badge=(32, 440), label=At(84, 505, "middle")
        ),
        ("failed", "retry", "connecting"): Route(
            points=((125, 490), (32, 490), (32, 234)),
            badge=(32, 460),
            label=At(84, 520, "middle"),
            shared=True,
        ),
        ("failed", "fall_back", "fallback"): Route(
            points=((212, 508), (212, 612)), badge=(212, 524), label=At(205, 552, "end")
        ),
        ("failed", "force_fallback", "fallback"): Route(
            points=((212, 508), (212, 612)), badge=(212, 588), label=At(205, 568, "end"), shared=True
        ),
        ("fallback", "established", "connected"): Route(
            points=((350, 612), (350, 250)), badge=(350, 520), label=At(344, 550, "end")
        ),
        ("fallback", "polling_refused", "failed"): Route(
            points=((230, 612), (230, 508)), badge=(230, 556), label=At(235, 592)
        ),
        ("fallback", "force_fallback", "fallback"): Route(
            points=((170, 632), (140, 632), (140, 682), (170, 682)),
            badge=(148, 632),
            label=At(132, 654, "end"),
        ),
        ("fallback", "release_fallback", "fallback"): Route(
            points=((170, 632), (140, 632), (140, 682), (170, 682)),
            badge=(148, 682),
            label=At(132, 669, "end"),
            shared=True,
        ),
        ("connecting", "disconnect", "disconnected"): evolve(_ENDING_TB, label=At(208, 87), shared=False),
        ("connected", "disconnect", "disconnected"): _ENDING_TB,
        ("reconnecting", "disconnect", "disconnected"): _ENDING_TB,
        ("failed", "disconnect", "disconnected"): _ENDING_TB,
        ("fallback", "disconnect", "disconnected"): _ENDING_TB,
    },
)

PLANS: Final[Mapping[str, Plan]] = MappingProxyType({"LR": PLAN_LR, "TB": PLAN_TB})
"""The plans by direction: from left to right for a wide page, from top to bottom for a phone."""


def shipped_drawing(direction: str) -> Drawing:
    """Return the drawing of the machine that runs.

    Raises:
        InvalidArgumentError: If there is no such direction.
    """
    return placed(build_graph(), PLANS[checked_direction(direction)])


def paint_shipped(direction: str) -> str:
    """Return the picture as it should lie beside this module."""
    return paint(shipped_drawing(direction), Look(name=NAME, live=True))


def data_name(direction: str) -> str:
    """Return the name of the finished picture."""
    return f"realtime_fsm.{direction.lower()}.svg"


def shipped_svg(direction: str = "LR", *, highlight: str | None = None, styled: bool = True) -> str:
    """Return the finished picture of the shipped machine. Needs no extra.

    Every state is a group with the id ``state-NAME``, every pair of state and trigger one with the id
    ``edge-STATE-TRIGGER``, and in it every branch one with the id ``edge-STATE-TRIGGER-DESTINATION``. The
    class ``current`` on a state, and ``taken`` on an edge, makes it stand out.

    Args:
        direction: ``LR`` for a wide page, ``TB`` for a phone.
        highlight: A state that gets the class ``current``.
        styled: Whether the style sheet is part of it; without, the page brings ``stylesheet()``.

    Raises:
        InvalidArgumentError: If there is no such direction or state.
    """
    name = data_name(checked_direction(direction))
    svg = files("realtime_fsm.diagram").joinpath("data", name).read_text(encoding="utf-8")
    if not styled:
        svg = _STYLE.sub("", svg)
    if highlight is None:
        return svg
    known = [status.value for status in ConnectionStatus]
    if highlight not in known:
        raise InvalidArgumentError(
            f"highlight={highlight!r} is no state.", remedy=f"The states are {', '.join(known)}."
        )
    marked, count = re.subn(f'" id="{state_id(highlight)}"', rf' current" id="{state_id(highlight)}"', svg)
    assert count == 1  # noqa: S101 - a test compares the states of the file with the table
    return marked


def checked_direction(direction: str) -> str:
    """Return a direction that there is.

    Raises:
        InvalidArgumentError: If there is none such.
    """
    if direction not in PLANS:
        raise InvalidArgumentError(f"direction={direction!r} is unknown.", remedy=f"Use {', '.join(PLANS)}.")
    return direction
