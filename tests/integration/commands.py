"""Commands of the package, as processes of their own."""

import asyncio
import os
import subprocess
import sys

import canary


async def command(*arguments: str, **environment: str) -> asyncio.subprocess.Process:
    """Start a command of the package."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "realtime_fsm.cli", *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
    )


async def line(process: asyncio.subprocess.Process) -> str:
    """Return the next line of a command's output, bounded."""
    assert process.stdout is not None
    async with asyncio.timeout(20):
        text = (await process.stdout.readline()).decode().strip()
    assert text, (await canary.output_of(process))[1].decode()
    assert not canary.found_in(text)
    return text
