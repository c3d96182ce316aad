"""The style sheet of the SVG pictures, out of the palette."""

from realtime_fsm.diagram.palette import DARK, LIGHT, THEMES, Theme
from realtime_fsm.machine.errors import InvalidArgumentError

FONT = 'ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace'

_SHAPES = f"""\
.fsm text {{ font-family: {FONT}; font-size: 12px; }}
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
