"""A drawing as SVG, with ids and classes to style and to script and shapes that need no font; and as PNG."""

import math
from collections.abc import Iterable, Iterator
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from attrs import evolve, field, frozen

from realtime_fsm.diagram.drawing import (
    CHARACTER,
    SMALL,
    Box,
    Drawing,
    Line,
    PlacedChoice,
    PlacedEdge,
    PlacedNode,
    Point,
    Text,
)
from realtime_fsm.diagram.graph import DOT, TIMES, Edge, Graph, Node
from realtime_fsm.diagram.history import History, HistoryStep, Visits
from realtime_fsm.diagram.palette import DARK, LIGHT, THEMES, Theme
from realtime_fsm.machine.errors import InvalidArgumentError, MissingExtraError
from realtime_fsm.machine.figures import Form, duration

_BEND: Final = 8.0
_HEAD_LENGTH: Final = 8.0
_HEAD_WIDTH: Final = 4.0
_PILL_SIZE: Final = 10.0
_PILL_HEIGHT: Final = 15.0
_SHORT_OF_TIP: Final = 5.0
HALF_DIAMOND: Final = 9.0

_TITLE_DOWN: Final = 20.0
_FIRST_DOWN: Final = 38.0

_LEGEND_MARGIN: Final = 18.0
_LEGEND_GAP: Final = 22.0
_LEGEND_ROW: Final = 22.0
_TWICE: Final = f"{TIMES}2"
_SEVERITIES: Final[tuple[str, ...]] = ("info", "warning", "error")

_FONT: Final = 'ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace'
_PNG_FAMILY: Final = "IBM Plex Mono"
"""A typeface that comes with the extra: a PNG is alike on every machine."""

_SHAPES: Final = f"""\
.fsm text {{ font-family: {_FONT}; font-size: 12px; }}
.fsm .title {{ font-size: 13px; font-weight: bold; }}
.fsm .badge text, .fsm .now text {{ font-size: 10px; font-weight: bold; }}
.fsm .label {{ paint-order: stroke; stroke-width: 3px; stroke-linejoin: round; }}
.fsm .box {{ stroke-width: 1.5px; }}
.fsm .frame {{ stroke-width: 1px; stroke-dasharray: 6 4; }}
.fsm .line {{ fill: none; stroke-width: 1.5px; }}
.fsm .whole, .fsm .now {{ display: none; }}
.fsm .taken .whole, .fsm .current .now {{ display: inline; }}
.fsm .taken .line {{ stroke-width: 2.5px; }}
.fsm .current .box {{ stroke-width: 3.5px; }}
.fsm .unvisited, .fsm .untaken .line, .fsm .untaken .head, .fsm .untaken .label {{ opacity: 0.45; }}
.fsm .untaken .kept {{ opacity: 1; }}
"""


@frozen(kw_only=True)
class Marks:
    """The parts of a picture that stand out: the current state, and what a history has taken.

    Attributes:
        current: The state that is marked as the current one, or ``None``.
        history: What is marked as taken, with counts and times, or ``None``.
    """

    current: str | None = None
    history: History | None = None

    def steps(self, edge: Edge) -> tuple[HistoryStep, ...]:
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
        return f"{count}{duration(visits.seconds, Form.SHORT)}"

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


@frozen(kw_only=True)
class Look:
    """The manner in which a drawing is painted.

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
        text = Text(x=box.x + 12, y=box.y + _FIRST_DOWN + 15 * index, text=activity)
        yield _text(text, "activity")
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


@frozen(kw_only=True)
class Legend:
    """The signs of a picture and what they mean, in a row below it that breaks where the picture ends."""

    height: float
    lines: tuple[str, ...]


def legend(drawing: Drawing, *, current: bool, historic: bool) -> Legend:
    """Return the legend of a drawing.

    Args:
        drawing: What stands above it.
        current: Whether the current state is, or may be, marked.
        historic: Whether counts and times are shown.
    """
    x, y = _LEGEND_MARGIN, drawing.height + 20
    lines = ['<g class="legend">']
    entries = _entries(drawing, current=current, historic=historic)
    if not entries:
        return Legend(height=0, lines=())
    for sign, words in entries:
        taken = _sign_width(sign) + 6 + len(words) * SMALL * CHARACTER
        if x > _LEGEND_MARGIN and x + taken > drawing.width - _LEGEND_MARGIN / 2:
            x, y = _LEGEND_MARGIN, y + _LEGEND_ROW
        lines.append(_entry(sign, words, x, y))
        x += taken + _LEGEND_GAP
    return Legend(height=y - drawing.height + 18, lines=(*lines, "</g>"))


def _entries(drawing: Drawing, *, current: bool, historic: bool) -> list[tuple[str, str]]:
    """Return the signs that the picture holds, each with what it says."""
    severities = dict.fromkeys(placed.node.severity for placed in drawing.nodes)
    entries = [(severity, severity) for severity in _SEVERITIES if severity in severities]
    if current:
        entries.append(("now", "the current state"))
    if drawing.choices:
        entries.append(("choice", "the first guard that holds"))
    if historic:
        entries.append((_TWICE, "times taken or entered, time spent"))
    elif any(placed.node.activities for placed in drawing.nodes):
        entries.append(("", "in a state: what runs while it lasts"))
    return entries


def _sign_width(sign: str) -> float:
    if sign in {"now", _TWICE}:
        return pill_box((0, 0), sign).width
    return 16.0 if sign else -6.0


def _entry(sign: str, words: str, x: float, y: float) -> str:
    width = _sign_width(sign)
    middle = (x + width / 2, y)
    if sign in {"now", _TWICE}:
        shape = pill(middle, sign, "badge")
    elif sign == "choice":
        shape = diamond(middle)
    else:
        shape = glyph(sign, middle) if sign else ""
    where = f'x="{number(x + width + 6)}" y="{number(y + 4)}"'
    words_of = f'<text class="muted" {where}>{escape(words)}</text>'
    group = sign if sign in _SEVERITIES else "entry"
    return f'<g class="{group}">{shape}{words_of}</g>'


def number(value: float) -> str:
    """Return a coordinate with one digit behind the point at most."""
    return f"{round(value, 1) + 0.0:.1f}".removesuffix(".0")  # adding makes -0.0 a plain 0


def path(line: Line) -> str:
    """Return the data of a path; the corners of a line that is not curved are rounded."""
    points = line.points
    if line.curved:
        curves = " ".join(_at(point) for point in points[1:-1])
        return f"M{_at(points[0])} C{curves} L{_at(_end(line))}"
    parts = [f"M{_at(points[0])}"]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        near = min(_BEND, math.dist(before, corner) / 2, math.dist(corner, after) / 2)
        parts += [f"L{_at(_towards(corner, before, near))}"]
        parts += [f"Q{_at(corner)} {_at(_towards(corner, after, near))}"]
    return " ".join([*parts, f"L{_at(_end(line))}"])


def _end(line: Line) -> Point:
    """Return where a line ends: a little before the tip of its arrow, at which it must not look out."""
    tip, before = line.points[-1], line.points[-2]
    return _towards(tip, before, _SHORT_OF_TIP) if line.arrow else tip


def head(line: Line) -> str:
    """Return the arrow head at the end of a line."""
    tip, before = line.points[-1], line.points[-2]
    length = math.dist(tip, before) or 1.0
    across = ((tip[1] - before[1]) / length, (before[0] - tip[0]) / length)
    base = _towards(tip, before, _HEAD_LENGTH)
    corners = [tip] + [
        (base[0] + sign * _HEAD_WIDTH * across[0], base[1] + sign * _HEAD_WIDTH * across[1])
        for sign in (1, -1)
    ]
    return f'<polygon class="head" points="{" ".join(_at(corner) for corner in corners)}"/>'


def diamond(at: Point) -> str:
    """Return the sign of a choice."""
    x, y = at
    half = HALF_DIAMOND
    corners = [(x, y - half), (x + half, y), (x, y + half), (x - half, y)]
    return f'<polygon class="choice" points="{" ".join(_at(corner) for corner in corners)}"/>'


def joint(at: Point) -> str:
    """Return the dot where a line joins another; where two merely cross there is none."""
    return f'<circle class="head" cx="{number(at[0])}" cy="{number(at[1])}" r="3"/>'


def rectangle(box: Box, classes: str, *, radius: float) -> str:
    """Return a rectangle with round corners."""
    return (
        f'<rect class="{classes}" x="{number(box.x)}" y="{number(box.y)}" '
        f'width="{number(box.width)}" height="{number(box.height)}" rx="{number(radius)}"/>'
    )


def pill_box(at: Point, text: str) -> Box:
    """Return the room of a pill."""
    width = len(text) * _PILL_SIZE * CHARACTER + 10
    return Box(at[0] - width / 2, at[1] - _PILL_HEIGHT / 2, width, _PILL_HEIGHT)


def pill(at: Point, text: str, classes: str) -> str:
    """Return a word on a ground of its own."""
    shape = rectangle(pill_box(at, text), "pill", radius=_PILL_HEIGHT / 2)
    where = f'x="{number(at[0])}" y="{number(at[1] + 3.5)}" text-anchor="middle"'
    return f'<g class="{classes}">{shape}<text {where}>{escape(text)}</text></g>'


def glyph(severity: str, at: Point) -> str:
    """Return the sign of a severity: its shape says what its colour says; nothing for none."""
    x, y = at
    if severity == "error":
        shape = f'<rect class="glyph" x="{number(x - 6)}" y="{number(y - 6)}" width="12" height="12" rx="2"/>'
        mark = f"M{_at((x - 3, y - 3))} l6 6 m0 -6 l-6 6"
    elif severity == "warning":
        corners = [(x, y - 7), (x + 7, y + 6), (x - 7, y + 6)]
        shape = f'<polygon class="glyph" points="{" ".join(_at(corner) for corner in corners)}"/>'
        mark = f"M{_at((x, y - 2.5))} l0 4 m0 1.6 l0 1.4"
    elif severity == "info":
        shape = f'<circle class="glyph" cx="{number(x)}" cy="{number(y)}" r="6.5"/>'
        mark = f"M{_at((x, y - 3.6))} l0 1.6 m0 1.2 l0 4.4"
    else:
        return ""
    return f'{shape}<path class="glyph-mark" fill="none" stroke-width="1.6" d="{mark}"/>'


def _towards(start: Point, end: Point, length: float) -> Point:
    whole = math.dist(start, end) or 1.0
    share = length / whole
    return (start[0] + (end[0] - start[0]) * share, start[1] + (end[1] - start[1]) * share)


def _at(point: Point) -> str:
    return f"{number(point[0])},{number(point[1])}"


def checked_theme(theme: str | None) -> str | None:
    """Return a theme that there is.

    Raises:
        InvalidArgumentError: If there is none such.
    """
    if theme is not None and theme not in THEMES:
        raise InvalidArgumentError(f"theme={theme!r} is unknown.", remedy=f"Use {', '.join(THEMES)}.")
    return theme


def stylesheet(theme: str | None = None) -> str:
    """Return the rules that an SVG of this package needs; every selector begins with ``.fsm``.

    For a page with a strict content security policy, which takes no style from the SVG itself: serve this
    as a file of its own, and embed the SVG without style.

    Args:
        theme: ``light`` or ``dark``; ``None`` follows the reader's preference.
    """
    if theme is not None:
        return _SHAPES + _colours(THEMES[theme])
    dark = "".join(f"  {line}\n" for line in _colours(DARK).splitlines())
    return f"{_SHAPES}{_colours(LIGHT)}@media (prefers-color-scheme: dark) {{\n{dark}}}\n"


def _colours(theme: Theme) -> str:
    rules = {
        ".ground": f"fill: {theme.ground}",
        ".frame": f"fill: {theme.frame}; stroke: {theme.line}",
        "text": f"fill: {theme.text}",
        ".muted": f"fill: {theme.muted}",
        ".label": f"stroke: {theme.frame}",
        ".label.bare": f"stroke: {theme.ground}",
        ".line": f"stroke: {theme.line}",
        ".head": f"fill: {theme.line}",
        ".choice": f"fill: {theme.ground}; stroke: {theme.line}",
        **{
            selector: rule
            for severity, colours in {"plain": theme.plain, **theme.states}.items()
            for selector, rule in (
                (f".{severity} .box", f"fill: {colours.fill}; stroke: {colours.stroke}"),
                (f".{severity} .glyph", f"fill: {colours.stroke}"),
                (f".{severity} .glyph-mark", f"stroke: {theme.ground}"),
            )
        },
        ".taken .line": f"stroke: {theme.accent}",
        ".taken .head": f"fill: {theme.accent}",
        ".current .box": f"stroke: {theme.accent}",
        ".pill": f"fill: {theme.accent}",
        ".badge text": f"fill: {theme.accent_text}",
        ".now text": f"fill: {theme.accent_text}",
    }
    return "".join(f".fsm {selector} {{ {rule}; }}\n" for selector, rule in rules.items())


def raster(svg: str, *, scale: float = 2.0) -> bytes:
    """Return an SVG picture as PNG, by resvg.

    Args:
        svg: Painted for one theme: there is no reader whose preference could be asked.
        scale: Pixels per unit.

    Raises:
        MissingExtraError: If the extra [render] is not installed.
    """
    try:
        import fontpkg  # noqa: PLC0415 - an extra
        import resvg_py  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError(extra="render", what="A PNG") from error
    try:
        files = [str(fontpkg.path(_PNG_FAMILY, weight=weight)) for weight in (400, 700)]
    except fontpkg.FamilyNotInstalled as error:
        raise MissingExtraError(extra="render", what="A PNG") from error
    return bytes(
        resvg_py.svg_to_bytes(
            svg_string=svg.replace(_FONT, f'"{_PNG_FAMILY}"'),
            font_files=files,
            font_family=_PNG_FAMILY,
            monospace_family=_PNG_FAMILY,
            zoom=scale,
        )
    )
