"""Processes on cores of their own, so that a client is not measured beside its server's work."""

import os
from typing import Final

SERVER_CORE: Final = 0
CLIENT_CORE: Final = 1


def pin(index: int) -> bool:
    """Pin this process to one of the cores it may use; return whether there are two to choose from.

    Args:
        index: Which of them, 0-based.
    """
    if not hasattr(os, "sched_setaffinity"):
        return False
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        return False
    os.sched_setaffinity(0, {cores[index]})
    return True
