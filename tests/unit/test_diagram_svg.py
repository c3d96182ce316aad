"""The finished pictures of the shipped machine, and what may be marked in them."""

import itertools
import re
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

import pytest

from realtime_fsm.diagram import render, shipped_svg, stylesheet
from realtime_fsm.diagram.drawing import Box, Drawing, Line, Point, Text
from realtime_fsm.diagram.graph import Edge, Graph, build_graph
from realtime_fsm.diagram.palette import THEMES
from realtime_fsm.diagram.shipped import PLANS, data_name, paint_shipped, placed, shipped_drawing
from realtime_fsm.diagram.svg import HALF_DIAMOND, number, path, pill_box
from realtime_fsm.machine.errors import InternalError, InvalidArgumentError
from realtime_fsm.machine.table import ACTIVITIES, TRAITS, TRANSITIONS, ConnectionStatus, rows_of

ROOT = Path(__file__).parents[2]
DATA = ROOT / "realtime_fsm" / "diagram" / "data"
SVG = "{http://www.w3.org/2000/svg}"
DIRECTIONS = sorted(PLANS)
PHONE = 390

both = pytest.mark.parametrize("direction", DIRECTIONS)


def parsed(svg: str) -> ET.Element:
    """Return the root of an SVG document of this project."""
    return ET.fromstring(svg)  # noqa: S314 - our own document


def by_id(root: ET.Element) -> dict[str, ET.Element]:
    """Return the elements that have an id; each id is there once."""
    elements = [element for element in root.iter() if "id" in element.attrib]
    counts = Counter(element.attrib["id"] for element in elements)
    assert set(counts.values()) <= {1}
    return {element.attrib["id"]: element for element in elements}


def texts(element: ET.Element, *, kind: str = "") -> list[str]:
    """Return what stands in an element, or only texts of one class."""
    found = element.iter(f"{SVG}text")
    return [str(text.text) for text in found if not kind or kind in text.attrib.get("class", "").split()]


def strokes(drawing: Drawing) -> list[Line]:
    """Return all lines that are seen in a drawing."""
    lines = [edge.line for edge in drawing.edges if not edge.shared]
    lines += [edge.stub for edge in drawing.edges if edge.stub is not None]
    return lines + [choice.line for choice in drawing.choices]


def labels(drawing: Drawing) -> list[Text]:
    """Return all texts outside of the states."""
    found = [text for edge in drawing.edges for text in edge.texts]
    found += [text for choice in drawing.choices for text in choice.texts]
    return found + list(drawing.frame_texts)


def bars(line: Line) -> list[Box]:
    """Return the room of a line that keeps to the grid, piece by piece."""
    found = []
    for (x, y), (to_x, to_y) in itertools.pairwise(line.points):
        left, top = min(x, to_x) - 0.75, min(y, to_y) - 0.75
        found.append(Box(left, top, abs(to_x - x) + 1.5, abs(to_y - y) + 1.5))
    return found


def on_border(box: Box, point: Point) -> bool:
    """Tell whether a point lies on the border of a box."""
    x, y = point
    across = box.x <= x <= box.right and y in {box.y, box.bottom}
    return across or (box.y <= y <= box.bottom and x in {box.x, box.right})


@both
@pytest.mark.parametrize("folder", [DATA, ROOT / "diagrams"])
def test_svg_file_is_fresh(direction: str, folder: Path) -> None:
    """The finished picture, in the package and among the diagrams, is what the machine gives today."""
    lying = (folder / data_name(direction)).read_text(encoding="utf-8")
    assert lying == paint_shipped(direction), "renew it: python .ci/pictures.py"


@both
def test_svg_of_the_command_is_the_finished_one(direction: str) -> None:
    """What is painted on request is the picture that lies in the package."""
    assert render(format="svg", direction=direction) == shipped_svg(direction)


@both
def test_svg_has_every_state_with_its_activities_and_no_other(direction: str) -> None:
    """Each state is a group with a stable id, and shows its name, severity and activities."""
    ids = by_id(parsed(shipped_svg(direction)))
    assert {name for name in ids if name.startswith("state-")} == {
        f"state-{s.value}" for s in ConnectionStatus
    }
    for status in ConnectionStatus:
        element = ids[f"state-{status.value}"]
        shown = [
            row.activity.value + (f" [{row.guard.value}]" if row.guard else "")
            for row in ACTIVITIES
            if row.state is status
        ]
        assert texts(element, kind="title") == [status.value.upper()]
        assert texts(element, kind="activity") == shown
        assert TRAITS[status].severity.value in element.attrib["class"].split()
        assert TRAITS[status].meaning in str(element.findtext(f"{SVG}title"))


@both
def test_svg_has_every_row_of_the_table_and_no_other(direction: str) -> None:
    """Each row is a branch with a stable id, inside the group of its state and trigger."""
    ids = by_id(parsed(shipped_svg(direction)))
    pairs = {f"edge-{row.source.value}-{row.trigger.value}" for row in TRANSITIONS}
    branches = {f"edge-{r.source.value}-{r.trigger.value}-{r.dest.value}": r for r in TRANSITIONS}
    assert {name for name in ids if name.startswith("edge-")} == pairs | set(branches)
    for name, row in branches.items():
        element = ids[name]
        said = (element.attrib["data-source"], element.attrib["data-trigger"], element.attrib["data-dest"])
        assert said == (row.source.value, row.trigger.value, row.dest.value)
        inside = [child.attrib.get("id") for child in ids[name.rpartition("-")[0]]]
        assert name in inside
    assert "edge-connected-connection_lost" in ids


@both
def test_svg_says_trigger_and_guard_of_every_row(direction: str) -> None:
    """On the arrow of each row, or on the one that it shares, stand its trigger and its guard."""
    ids = by_id(parsed(shipped_svg(direction)))
    for row in TRANSITIONS:
        pair = ids[f"edge-{row.source.value}-{row.trigger.value}"]
        said = texts(pair)
        if not said:  # it joins a line that leads to the same state and says the same
            fellows = [r for r in TRANSITIONS if (r.trigger, r.dest) == (row.trigger, row.dest)]
            said = [text for r in fellows for text in texts(ids[f"edge-{r.source.value}-{r.trigger.value}"])]
        assert any(text.split()[0] == row.trigger.value for text in said)
        branches = rows_of(row.source, row.trigger)
        guard = row.guard.value if row.guard else "else" if len(branches) > 1 else None
        assert guard is None or any(f"[{guard}]" in text for text in said)


@both
def test_svg_texts_touch_nothing(direction: str) -> None:
    """No text lies on another text, on a line, on a diamond or on a state, or outside of the picture."""
    drawing = shipped_drawing(direction)
    rooms = [text.box for text in labels(drawing)]
    for one, other in itertools.combinations(rooms, 2):
        assert not one.overlaps(other)
    lines = [bar for line in strokes(drawing) for bar in bars(line)]
    half = HALF_DIAMOND
    lines += [Box(c.at[0] - half, c.at[1] - half, 2 * half, 2 * half) for c in drawing.choices]
    for text in labels(drawing):
        assert not any(text.box.overlaps(line) for line in lines), text
        assert not any(text.box.overlaps(node.box) for node in drawing.nodes), text
        assert text.box.x >= 0
        assert text.box.right <= drawing.width


@both
def test_svg_lines_lead_from_border_to_border(direction: str) -> None:
    """Each line keeps to the grid, begins and ends where it should, and runs through no state."""
    drawing = shipped_drawing(direction)
    boxes = {node.node.name: node.box for node in drawing.nodes}
    forks = {(choice.source, choice.trigger): choice for choice in drawing.choices}
    assert drawing.frame is not None
    for edge in drawing.edges:
        first, last = edge.line.points[0], edge.line.points[-1]
        fork = forks.get((edge.edge.source, edge.edge.trigger))
        ended = edge.edge.trigger in drawing.graph.endings
        if fork is not None:
            x, y = fork.at
            assert abs(first[0] - x) + abs(first[1] - y) == HALF_DIAMOND
            assert on_border(boxes[edge.edge.source], fork.line.points[0])
        else:
            assert on_border(drawing.frame if ended else boxes[edge.edge.source], first), edge.edge
        assert on_border(boxes[edge.edge.dest], last), edge.edge
        for (x, y), (to_x, to_y) in itertools.pairwise(edge.line.points):
            assert (x == to_x) != (y == to_y), edge.edge
    for line, (name, box) in itertools.product(strokes(drawing), boxes.items()):
        inner = Box(box.x + 1, box.y + 1, box.width - 2, box.height - 2)
        assert not any(bar.overlaps(inner) for bar in bars(line)), (name, line)


@both
def test_svg_states_hold_their_texts_and_stand_apart(direction: str) -> None:
    """Every text of a state lies inside its box, and no two boxes touch."""
    root = by_id(parsed(shipped_svg(direction)))
    drawing = shipped_drawing(direction)
    for one, other in itertools.combinations([node.box for node in drawing.nodes], 2):
        assert not one.overlaps(other)
    for node in drawing.nodes:
        for text in root[f"state-{node.node.name}"].findall(f"{SVG}text"):
            size = 13 if text.attrib["class"] == "title" else 12
            x, y = float(text.attrib["x"]), float(text.attrib["y"])
            room = Text(x=x, y=y, text=str(text.text), size=size).box
            assert node.box.x < room.x
            assert room.right < node.box.right, text.text
            assert room.bottom < node.box.bottom, text.text


@both
def test_svg_badges_touch_no_other_badge_and_no_label(direction: str) -> None:
    """Counts of two digits and times have room: they hide no label and none of each other."""
    drawing = shipped_drawing(direction)
    rooms = {edge.badge: pill_box(edge.badge, "x12") for edge in drawing.edges}
    rooms |= {node.badge: pill_box(node.badge, "x12 - 4m 22s") for node in drawing.nodes}
    for (_, one), (_, other) in itertools.combinations(rooms.items(), 2):
        assert not one.overlaps(other), (one, other)
    for at, room in rooms.items():
        assert room.x >= 0
        assert room.right <= drawing.width
        assert not [text for text in labels(drawing) if text.box.overlaps(room)], at


def test_svg_from_top_to_bottom_fits_a_phone() -> None:
    """The picture for a phone is as wide as one, so that its texts are not made smaller."""
    assert float(parsed(shipped_svg("TB")).attrib["width"]) == PHONE
    assert all(text.size >= 12 for text in labels(shipped_drawing("TB")))


@both
def test_svg_legend_explains_every_sign(direction: str) -> None:
    """The legend names the severities, the current state and the choice, and ends inside the picture."""
    root = parsed(shipped_svg(direction))
    legend = next(element for element in root if element.attrib.get("class") == "legend")
    said = " ".join(texts(legend))
    for word in ("info", "warning", "error", "current state", "guard", "while it lasts"):
        assert word in said
    for text in legend.iter(f"{SVG}text"):
        anchor = text.attrib.get("text-anchor", "start")
        at = {"x": float(text.attrib["x"]), "y": float(text.attrib["y"])}
        room = Text(**at, text=str(text.text), anchor=anchor).box
        assert room.right <= float(root.attrib["width"])
        assert room.bottom <= float(root.attrib["height"])


def test_svg_severities_differ_in_shape() -> None:
    """The signs of the severities are of three shapes: colour is never alone."""
    ids = by_id(parsed(shipped_svg()))
    shapes = {}
    for status in ConnectionStatus:
        sign = next(e for e in ids[f"state-{status.value}"] if e.attrib.get("class") == "glyph")
        shapes.setdefault(TRAITS[status].severity, set()).add(sign.tag)
    assert all(len(tags) == 1 for tags in shapes.values())
    assert len(set.union(*shapes.values())) == len(shapes) == 3


@both
def test_svg_can_be_embedded_in_a_page(direction: str) -> None:
    """It refers to nothing, runs nothing, carries no style attribute, and its rules touch it alone."""
    root = parsed(shipped_svg(direction, styled=False))
    assert not [element for element in root.iter() if element.tag in {f"{SVG}style", f"{SVG}script"}]
    for element in root.iter():
        assert not [
            name for name in element.attrib if name == "style" or name.startswith("on") or "href" in name
        ]
        assert "url(" not in " ".join(element.attrib.values())
    rules = re.sub(r"@media [^{]*\{", "", stylesheet())
    selectors = [part for line in re.findall(r"([^{}]+)\{", rules) for part in line.split(",")]
    assert selectors
    assert all(selector.strip().startswith(".fsm ") for selector in selectors)
    assert stylesheet().rstrip() in shipped_svg(direction)


def test_svg_says_what_it_shows_to_those_who_do_not_see_it() -> None:
    """It has the role of a picture and a name."""
    root = parsed(shipped_svg())
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"]


@both
@pytest.mark.parametrize("status", ConnectionStatus)
def test_svg_highlight_marks_one_state_and_says_so_in_a_word(
    direction: str, status: ConnectionStatus
) -> None:
    """The state gets the class `current`, no other does, and it is what a highlight on request gives."""
    svg = shipped_svg(direction, highlight=status.value)
    current = [e for e in parsed(svg).iter() if "current" in e.attrib.get("class", "").split()]
    assert [element.attrib["id"] for element in current] == [f"state-{status.value}"]
    assert "now" in texts(current[0])
    assert render(format="svg", direction=direction, highlight=status.value) == svg


def test_svg_hides_the_word_now_in_every_state_but_the_current() -> None:
    """The word belongs to every state, and is shown in the one that is current."""
    assert ".fsm .now { display: none; }" in stylesheet().replace(".fsm .whole, .fsm .now", ".fsm .now")
    assert ".fsm .current .now { display: inline; }" in stylesheet().replace(".fsm .taken .whole, ", "")


@pytest.mark.parametrize("wrong", [{"direction": "RL"}, {"highlight": "asleep"}])
def test_svg_refuses_what_there_is_not(wrong: dict[str, str]) -> None:
    """An unknown direction or state is refused by name, from the package and on request."""
    name, value = next(iter(wrong.items()))
    with pytest.raises(InvalidArgumentError, match=f"{name}={value!r}"):
        shipped_svg(**wrong)
    with pytest.raises(InvalidArgumentError, match=f"{name}={value!r}"):
        render(format="svg", **wrong)


def test_svg_refuses_an_unknown_theme() -> None:
    """An unknown theme is refused, and the known ones are named."""
    with pytest.raises(InvalidArgumentError, match=r"theme='pink' is unknown\. Use light, dark"):
        render(format="svg", theme="pink")


def test_svg_follows_the_reader_unless_a_theme_is_fixed() -> None:
    """Without a theme it holds both, the dark one for those who prefer it; with one, that one alone."""
    free = shipped_svg()
    assert "@media (prefers-color-scheme: dark)" in free
    for name, theme in THEMES.items():
        fixed = render(format="svg", theme=name)
        other = THEMES["light" if name == "dark" else "dark"]
        assert "@media" not in fixed
        assert theme.ground in fixed
        assert other.ground not in fixed
        assert theme.ground in free


def luminance(colour: str) -> float:
    """Return the relative luminance of a colour (WCAG 2)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours (WCAG 2)."""
    dark, bright = sorted([luminance(one), luminance(other)])
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("name", sorted(THEMES))
def test_svg_colours_are_told_apart(name: str) -> None:
    """Texts have a contrast of 4.5 to their ground, lines and outlines one of 3, in both themes."""
    theme = THEMES[name]
    for ground in (theme.ground, theme.frame):
        assert contrast(theme.text, ground) >= 4.5
        assert contrast(theme.muted, ground) >= 4.5
        assert contrast(theme.line, ground) >= 3
        assert contrast(theme.accent, ground) >= 3
    assert contrast(theme.accent_text, theme.accent) >= 4.5
    for colours in (theme.plain, *theme.states.values()):
        assert contrast(theme.text, colours.fill) >= 4.5
        assert contrast(colours.stroke, theme.frame) >= 3


@both
@pytest.mark.parametrize("change", ["missing", "new"])
def test_svg_plan_that_differs_from_the_table_is_refused(direction: str, change: str) -> None:
    """A row without a place, or a place without its row, stops the generator and is named."""
    graph = build_graph()
    odd = (
        graph.edges[:-1]
        if change == "missing"
        else (*graph.edges, Edge(source="failed", trigger="x", dest="failed"))
    )
    other = Graph(initial=graph.initial, nodes=graph.nodes, triggers=graph.triggers, edges=odd, ignored=())
    named = graph.edges[-1].source if change == "missing" else "failed"
    with pytest.raises(InternalError, match=named):
        placed(other, PLANS[direction])


def test_svg_numbers_are_short_and_never_minus_zero() -> None:
    """Coordinates have one digit behind the point at most, and no sign where there is nothing."""
    assert [number(value) for value in (3.0, 2.25, -0.04, 10, -1.5)] == ["3", "2.2", "0", "10", "-1.5"]


def test_svg_path_rounds_corners_and_ends_short_of_the_tip() -> None:
    """A line bends softly, and does not look out at the tip of its arrow."""
    line = Line(points=((0, 0), (40, 0), (40, 40)))
    assert path(line) == "M0,0 L32,0 Q40,0 40,8 L40,35"
    assert path(Line(points=line.points[:2], arrow=False)) == "M0,0 L40,0"
