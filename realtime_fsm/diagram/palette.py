"""The colours of the pictures, light and dark: a pair per severity, and those of everything else."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from attrs import frozen


@frozen
class Colours:
    """Fill and outline of a state, as ``#rrggbb``."""

    fill: str
    stroke: str


@frozen(kw_only=True)
class Theme:
    """All colours of a picture.

    Attributes:
        ground: Behind everything.
        frame: Behind the states that one trigger ends.
        text: Of titles and labels.
        muted: Of what is said by the way.
        line: Of arrows.
        accent: Of the current state and of what a history has taken.
        accent_text: Of texts on ``accent``.
        plain: Of a state that has no severity.
        states: Of the states that have one.
    """

    ground: str
    frame: str
    text: str
    muted: str
    line: str
    accent: str
    accent_text: str
    plain: Colours
    states: Mapping[str, Colours]


TEXT: Final = "#1f2328"
LINE: Final = "#6e7781"
FRAME: Final = "#f6f8fa"

PALETTE: Final[Mapping[str, Colours]] = MappingProxyType(
    {
        "info": Colours("#dff3e4", "#2e8b57"),
        "warning": Colours("#fdf0cf", "#b8860b"),
        "error": Colours("#fbdcd9", "#c0392b"),
    }
)

PLAIN: Final = Colours("#eef2f6", "#59636e")
"""Of a state that has no severity."""

LIGHT: Final = Theme(
    ground="#ffffff",
    frame=FRAME,
    text=TEXT,
    muted="#59636e",
    line=LINE,
    accent="#0550ae",
    accent_text="#ffffff",
    plain=PLAIN,
    states=PALETTE,
)
DARK: Final = Theme(
    ground="#0d1117",
    frame="#161b22",
    text="#e6edf3",
    muted="#9198a1",
    line="#8b949e",
    accent="#79c0ff",
    accent_text="#0d1117",
    plain=Colours("#1c2530", "#8b949e"),
    states=MappingProxyType(
        {
            "info": Colours("#12301f", "#3fb950"),
            "warning": Colours("#3a2a06", "#d29922"),
            "error": Colours("#3f1513", "#f85149"),
        }
    ),
)
THEMES: Final[Mapping[str, Theme]] = MappingProxyType({"light": LIGHT, "dark": DARK})
