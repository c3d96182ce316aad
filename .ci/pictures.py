"""Writes the finished pictures of the shipped machine; ``--check`` only compares.

They lie in the package, where ``shipped_svg()`` finds them, and in ``diagrams/``, where people do.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from realtime_fsm.diagram.shipped import PLANS, data_name, paint_shipped

ROOT = Path(__file__).parents[1]
FOLDERS = (ROOT / "realtime_fsm" / "diagram" / "data", ROOT / "diagrams")


def main(arguments: Sequence[str]) -> int:
    """Write or check; return the exit code."""
    stale = []
    for direction in PLANS:
        svg = paint_shipped(direction)
        for folder in FOLDERS:
            path = folder / data_name(direction)
            if "--check" not in arguments:
                path.write_text(svg, encoding="utf-8")
            elif not path.is_file() or path.read_text(encoding="utf-8") != svg:
                stale.append(str(path.relative_to(ROOT)))
    if stale:
        sys.stderr.write(f"{', '.join(stale)}: stale; renew with: python .ci/pictures.py\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
