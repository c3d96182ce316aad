"""A drawing as SVG: ids and classes to style and to script, shapes that need no font, no reference."""

from collections.abc import Iterable, Iterator
from xml.sax.saxutils import escape, quoteattr

from attrs import field, frozen

from realtime_fsm.diagram.drawing import Box, Drawing, Line, PlacedChoice, PlacedEdge, PlacedNode, Point, Text
from realtime_fsm.diagram.graph import TIMES, Edge
from realtime_fsm.diagram.legend import legend
from realtime_fsm.diagram.marks import Marks
from realtime_fsm.diagram.shapes import diamond, glyph, head, joint, number, path, pill, rectangle
from realtime_fsm.diagram.style import stylesheet

_TITLE_DOWN = 20.0
_FIRST_DOWN = 38.0


@frozen(kw_only=True)
class Look:
    """How a drawing is painted.

    Attributes:
        name: What the picture shows, for those who do not see it.
        marks: What stands out.
        theme: ``light`` or ``dark``; ``None`` follows the reader's preference.
        styled: Whether the style sheet is part of the SVG.
        live: Whether the current state may be marked later, by a page that embeds it.
    """

    name: str
    marks: Marks = field(factory=Marks)
    theme: str | None = None
    styled: bool = True
    live: bool = False


def paint(drawing: Drawing, look: Look) -> str:
    """Return a drawing as an SVG document; deterministic, ends with a newline."""
    current = look.live or look.marks.current is not None
    key = legend(drawing, current=current, historic=look.marks.history is not None)
    height = number(drawing.height + key.height)
    width = number(drawing.width)
    classes = "fsm" if look.marks.history is None else "fsm history"
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="{classes}" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" aria-label={quoteattr(look.name)}>'
    )
    lines = [opening]
    if look.styled:
        lines += ["<style>", stylesheet(look.theme).rstrip(), "</style>"]
    lines += [rectangle(Box(0, 0, drawing.width, drawing.height + key.height), "ground", radius=8)]
    lines += _frame(drawing)
    lines += _edges(drawing, look)
    for placed in drawing.nodes:
        lines += _node(placed, look)
    lines += _badges(drawing, look)
    lines += key.lines
    return "\n".join([*lines, "</svg>"]) + "\n"


def state_id(state: str) -> str:
    """Return the id of a state's element: ``state-connected``."""
    return f"state-{_name(state)}"


def edge_id(source: str, trigger: str, dest: str | None = None) -> str:
    """Return the id of a pair's element, ``edge-connected-connection_lost``, or of one of its branches."""
    return "-".join(["edge", _name(source), _name(trigger), *([] if dest is None else [_name(dest)])])


def _name(text: str) -> str:
    """Return a text without what an id must not hold."""
    return "".join(sign if sign.isalnum() or sign in "_.:" else "_" for sign in text)


def _frame(drawing: Drawing) -> Iterator[str]:
    if drawing.frame is not None:
        yield rectangle(drawing.frame, "frame", radius=10)
    yield '<g class="start">'
    yield from (_text(text, "label bare muted") for text in drawing.frame_texts)
    if drawing.start is not None and drawing.start_line is not None:
        x, y = drawing.start
        yield f'<circle class="head" cx="{number(x)}" cy="{number(y)}" r="6"/>'
        yield from _line(drawing.start_line)
    yield "</g>"


def _edges(drawing: Drawing, look: Look) -> Iterator[str]:
    """Yield a group per pair of state and trigger, in it one per branch."""
    pairs: dict[tuple[str, str], list[PlacedEdge]] = {}
    for placed in drawing.edges:
        pairs.setdefault((placed.edge.source, placed.edge.trigger), []).append(placed)
    forks = {(fork.source, fork.trigger): fork for fork in drawing.choices}
    spoken = _spoken(drawing, look)
    for (source, trigger), branches in pairs.items():
        fork = forks.get((source, trigger))
        taken = _either(look, any(look.marks.steps(placed.edge) for placed in branches), "taken")
        yield f'<g class="pair" id="{edge_id(source, trigger)}">'
        if fork is not None:
            yield from _choice(fork, taken)
        for placed in branches:
            yield from _edge(placed, look, drawing.frame, spoken)
        yield "</g>"


def _choice(fork: PlacedChoice, taken: str) -> Iterator[str]:
    yield f'<g class="stem{taken}">'
    yield from _line(fork.line)
    yield diamond(fork.at)
    yield from (_text(text, "label") for text in fork.texts)
    yield "</g>"


def _spoken(drawing: Drawing, look: Look) -> set[Edge]:
    """Return the edges whose label speaks for another one that was taken, and that ends at the same tip."""

    def end(placed: PlacedEdge) -> tuple[str, Point]:
        return placed.edge.trigger, placed.line.points[-1]

    taken = {end(placed) for placed in drawing.edges if not placed.texts and look.marks.steps(placed.edge)}
    return {placed.edge for placed in drawing.edges if end(placed) in taken}


def _edge(placed: PlacedEdge, look: Look, frame: Box | None, spoken: set[Edge]) -> Iterator[str]:
    edge = placed.edge
    steps = look.marks.steps(edge)
    classes = "edge" + _either(look, bool(steps), "taken")
    yield (
        f'<g class="{classes}" id="{edge_id(edge.source, edge.trigger, edge.dest)}" '
        f"data-source={quoteattr(edge.source)} data-trigger={quoteattr(edge.trigger)} "
        f"data-dest={quoteattr(edge.dest)}>"
    )
    told = [f"{step.clock} {step.reason}".rstrip() for step in steps]
    yield f"<title>{escape(chr(10).join([_sentence(edge), *told]))}</title>"
    if placed.shared:
        if placed.stub is not None:
            yield from _line(placed.stub)
            yield joint(placed.stub.points[-1])
        yield '<g class="whole">'
        yield from _line(placed.line)
        yield "</g>"
    else:
        yield from _line(placed.line)
    for text in placed.texts:
        outside = frame is None or not frame.overlaps(text.box)
        yield _text(text, "label" + (" bare" if outside else "") + (" kept" if edge in spoken else ""))
    yield "</g>"


def _sentence(edge: Edge) -> str:
    return f"{edge.source} → {edge.dest}: {edge.label}"


def _node(placed: PlacedNode, look: Look) -> Iterator[str]:
    node, box = placed.node, placed.box
    classes = f"state {node.severity or 'plain'}" + (" current" if node.name == look.marks.current else "")
    classes += _either(look, look.marks.visits(node) is not None, "visited")
    yield f'<g class="{classes}" id="{state_id(node.name)}" data-state={quoteattr(node.name)}>'
    told = [
        node.name,
        f" ({node.severity})" if node.severity else "",
        f": {node.meaning}" if node.meaning else "",
    ]
    yield f"<title>{escape(''.join(told))}</title>"
    yield rectangle(box, "box", radius=8)
    yield glyph(node.severity, (box.x + 16, box.y + _TITLE_DOWN - 4.5))
    yield _text(
        Text(x=box.x + (29 if node.severity else 12), y=box.y + _TITLE_DOWN, text=node.heading, size=13),
        "title",
    )
    for index, activity in enumerate(node.activities):
        place = Text(x=box.x + 12, y=box.y + _FIRST_DOWN + 15 * index, text=activity)
        yield _text(place, "activity")
    yield pill((box.x + 18, box.y - 1), "now", "now")
    yield "</g>"


def _badges(drawing: Drawing, look: Look) -> Iterator[str]:
    """Yield the counts and times; moves that are drawn as one are counted as one."""
    counts: dict[Point, int] = {}
    for placed in drawing.edges:
        taken = len(look.marks.steps(placed.edge))
        if taken:
            counts[placed.badge] = counts.get(placed.badge, 0) + taken
    yield from (pill(at, f"{TIMES}{count}", "badge") for at, count in counts.items())
    for node in drawing.nodes:
        time = look.marks.time(node.node)
        if time:
            yield pill(node.badge, time, "badge")


def _either(look: Look, holds: bool, word: str) -> str:
    """Return a class, or its opposite, where a history is shown."""
    if look.marks.history is None:
        return ""
    return f" {word}" if holds else f" un{word}"


def _line(line: Line) -> Iterable[str]:
    yield f'<path class="line" d="{path(line)}"/>'
    if line.arrow:
        yield head(line)


def _text(text: Text, classes: str) -> str:
    anchor = "" if text.anchor == "start" else f' text-anchor="{text.anchor}"'
    at = f'x="{number(text.x)}" y="{number(text.y)}"'
    return f'<text class="{classes}" {at}{anchor}>{escape(text.text)}</text>'
