"""What the arguments of several commands are read as."""

import argparse
from typing import Final

_LONGEST: Final = 24 * 3600.0


def seconds(text: str) -> float:
    """Read a number of seconds that is more than 0.

    Raises:
        ArgumentTypeError: If it is none.
    """
    read = seconds_or_none(text)
    if read == 0:
        raise argparse.ArgumentTypeError("must be more than 0 seconds")
    return read


def seconds_or_none(text: str) -> float:
    """Read a number of seconds, 0 included.

    Raises:
        ArgumentTypeError: If it is none.
    """
    try:
        read = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None
    if not 0 <= read <= _LONGEST:
        raise argparse.ArgumentTypeError(f"must be 0 to {_LONGEST:.0f} seconds")
    return read
