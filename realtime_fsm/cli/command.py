"""How a command is added to the command line: each has examples and its exit codes in its help."""

import argparse
from collections.abc import Sequence
from typing import Final

Commands = argparse._SubParsersAction  # noqa: SLF001 - argparse names the type of its own result so

EXIT_CODES: Final = """
exit codes:
  0 all is well   1 the command failed   2 wrong usage   3 unreachable   4 refused   130 interrupted
"""


def add_command(
    commands: "Commands[argparse.ArgumentParser]",
    name: str,
    summary: str,
    examples: str,
    parents: Sequence[argparse.ArgumentParser] = (),
) -> argparse.ArgumentParser:
    """Add a command, and return its parser.

    Args:
        commands: Where to.
        name: What is typed.
        summary: What it does, in a line that begins small and has no full stop.
        examples: Lines that can be typed as they are; its own exit codes may follow them.
        parents: Parsers whose arguments it has too.
    """
    codes = "" if "exit codes:" in examples else EXIT_CODES
    return commands.add_parser(
        name,
        parents=parents,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=f"examples:\n{examples}{codes}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
