"""Print a command of the README's Quick start: ``python3 .ci/quick_start.py 1`` or ``2``."""

import re
import sys
from pathlib import Path


def commands(readme: str) -> list[str]:
    """Return the commands of the section, in order: one a fenced block, continued lines joined by bash."""
    section = re.search(r"^## Quick start\n(.*?)(?=^## )", readme, flags=re.MULTILINE | re.DOTALL)
    if section is None:
        raise SystemExit("The README has no section '## Quick start'.")
    return [
        block.strip() for block in re.findall(r"^```bash\n(.*?)^```", section[1], re.MULTILINE | re.DOTALL)
    ]


if __name__ == "__main__":
    found = commands((Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8"))
    expected = 2
    if len(found) != expected:
        raise SystemExit(f"The Quick start holds {len(found)} commands, and exactly {expected} are promised.")
    sys.stdout.write(found[int(sys.argv[1]) - 1] + "\n")
