"""What the signs of a picture mean, in a row below it that breaks where the picture ends."""

from xml.sax.saxutils import escape

from attrs import frozen

from realtime_fsm.diagram.drawing import CHARACTER, SMALL, Drawing
from realtime_fsm.diagram.graph import TIMES
from realtime_fsm.diagram.shapes import diamond, glyph, number, pill, pill_box

_MARGIN = 18.0
_GAP = 22.0
_ROW = 22.0
_TWICE = f"{TIMES}2"
_SEVERITIES = ("info", "warning", "error")


@frozen(kw_only=True)
class Legend:
    """The legend: its height, and its elements."""

    height: float
    lines: tuple[str, ...]


def legend(drawing: Drawing, *, current: bool, historic: bool) -> Legend:
    """Return the legend of a drawing.

    Args:
        drawing: What stands above it.
        current: Whether the current state is, or may be, marked.
        historic: Whether counts and times are shown.
    """
    x, y = _MARGIN, drawing.height + 20
    lines = ['<g class="legend">']
    entries = _entries(drawing, current=current, historic=historic)
    if not entries:
        return Legend(height=0, lines=())
    for sign, words in entries:
        taken = _sign_width(sign) + 6 + len(words) * SMALL * CHARACTER
        if x > _MARGIN and x + taken > drawing.width - _MARGIN / 2:
            x, y = _MARGIN, y + _ROW
        lines.append(_entry(sign, words, x, y))
        x += taken + _GAP
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
    place = f'x="{number(x + width + 6)}" y="{number(y + 4)}"'
    words_of = f'<text class="muted" {place}>{escape(words)}</text>'
    group = sign if sign in _SEVERITIES else "entry"
    return f'<g class="{group}">{shape}{words_of}</g>'
