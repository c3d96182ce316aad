"""The colours of the pictures: one pair per severity, dark text on light ground."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from attrs import frozen


@frozen
class Colours:
    """Fill and outline of a state, as ``#rrggbb``."""

    fill: str
    stroke: str


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
