"""Servers in processes of their own: what they hold and do is not the client's."""

import contextlib
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent

ENVIRONMENT: Final[Mapping[str, str]] = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
"""For scripts of this folder: this checkout is what they import, installed or not."""


@contextlib.contextmanager
def running(command: Sequence[str], env: Mapping[str, str] = ENVIRONMENT) -> Iterator[int]:
    """Run a server that prints its port, and that ends when its standard input does.

    Yields:
        Its port.
    """
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    ) as server:
        try:
            assert server.stdout is not None
            port = server.stdout.readline()
            assert port, f"{command} did not start: exit code {server.wait(timeout=10)}"
            yield int(port)
            server.communicate(timeout=10)
        finally:
            server.kill()
    assert server.returncode == 0, f"{command} ended with exit code {server.returncode}"
