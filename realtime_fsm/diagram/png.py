"""An SVG picture as PNG, by resvg and with a typeface that comes with it: alike on every machine."""

from typing import Final

from realtime_fsm.diagram.svg import FONT
from realtime_fsm.machine.errors import MissingExtraError

_FAMILY: Final = "IBM Plex Mono"


def raster(svg: str, *, scale: float = 2.0) -> bytes:
    """Return a picture as PNG.

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
        files = [str(fontpkg.path(_FAMILY, weight=weight)) for weight in (400, 700)]
    except fontpkg.FamilyNotInstalled as error:
        raise MissingExtraError(extra="render", what="A PNG") from error
    return bytes(
        resvg_py.svg_to_bytes(
            svg_string=svg.replace(FONT, f'"{_FAMILY}"'),
            font_files=files,
            font_family=_FAMILY,
            monospace_family=_FAMILY,
            zoom=scale,
        )
    )
