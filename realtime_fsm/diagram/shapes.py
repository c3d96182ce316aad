"""The elements of the SVG pictures."""

import math
from typing import Final
from xml.sax.saxutils import escape

from realtime_fsm.diagram.drawing import CHARACTER, Box, Line, Point

_BEND: Final = 8.0
_HEAD_LENGTH: Final = 8.0
_HEAD_WIDTH: Final = 4.0
_PILL_SIZE: Final = 10.0
_PILL_HEIGHT: Final = 15.0
_SHORT_OF_TIP: Final = 5.0
HALF_DIAMOND: Final = 9.0


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
    place = f'x="{number(at[0])}" y="{number(at[1] + 3.5)}" text-anchor="middle"'
    return f'<g class="{classes}">{shape}<text {place}>{escape(text)}</text></g>'


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
