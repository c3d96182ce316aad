"""The pictures of the shipped machine: painted, or as they lie finished beside this module."""

import re
from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType
from typing import Final

from realtime_fsm.diagram.drawing import Drawing
from realtime_fsm.diagram.graph import build_graph
from realtime_fsm.diagram.plan import Plan, placed
from realtime_fsm.diagram.shipped_lr import PLAN_LR
from realtime_fsm.diagram.shipped_tb import PLAN_TB
from realtime_fsm.diagram.svg import Look, paint, state_id
from realtime_fsm.machine.errors import InvalidArgumentError
from realtime_fsm.machine.table import ConnectionStatus

PLANS: Final[Mapping[str, Plan]] = MappingProxyType({"LR": PLAN_LR, "TB": PLAN_TB})
"""The plans by direction: from left to right for a wide page, from top to bottom for a phone."""

NAME: Final = "The states of a connection, and what moves it from one to another"

_STYLE = re.compile(r"<style>.*?</style>\n", re.DOTALL)


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
