"""The demo's backend process: started, killed, started again."""

import asyncio
import contextlib
import signal
import sys
from pathlib import Path
from typing import Final, Self

from realtime_fsm.machine.errors import InternalError

_START_LIMIT: Final = 15.0
_END_LIMIT: Final = 5.0


class Backend:
    """The backend's process: started, killed, started again."""

    def __init__(self, folder: Path, secret: str) -> None:
        self._folder = folder
        self._secret = secret
        self._process: asyncio.subprocess.Process | None = None
        self.port = 0

    async def start(self) -> None:
        """Start it, and wait until it listens."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "realtime_fsm.cli.demo_backend",
            str(self._folder),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the demo, which then ends this process
        )
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:  # pragma: no cover - both were asked for
            raise InternalError("The backend has no pipes.")
        stdin.write(f"{self._secret}\n".encode())
        stdin.close()
        async with asyncio.timeout(_START_LIMIT):
            line = await stdout.readline()
        if not line:
            raise InternalError("The backend did not start.", remedy="See its messages above.")
        self.port = int(line)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        if self._process is not None:
            self._process.send_signal(number)

    async def end(self, how: signal.Signals) -> None:
        """End it by a signal, and make sure that it is gone."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(how)
        try:
            async with asyncio.timeout(_END_LIMIT):
                await process.communicate()
        except TimeoutError:
            process.kill()
            await process.communicate()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.end(signal.SIGTERM)
