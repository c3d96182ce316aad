"""The backend as a process of its own."""

import asyncio
import signal
import sys

from realtime_fsm.server.config import BackendConfig
from realtime_fsm.server.websocket_service import WebSocketService


def serve(config: BackendConfig) -> None:
    """Serve until SIGINT or SIGTERM, then stop cleanly. The first line on stdout is the address.

    Args:
        config: Everything that can be configured.

    Raises:
        ConfigurationError: If nothing can listen at the address.
    """
    asyncio.run(_serve(config))


async def _serve(config: BackendConfig) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    signals = (signal.SIGINT, signal.SIGTERM) if sys.platform != "win32" else ()
    async with WebSocketService(config) as service:
        for number in signals:  # on Windows Ctrl-C cancels this coroutine, which stops the service as well
            loop.add_signal_handler(number, stop.set)
        try:
            sys.stdout.write(f"{service.url}\n")
            sys.stdout.flush()
            await stop.wait()
        finally:
            for number in signals:
                loop.remove_signal_handler(number)
