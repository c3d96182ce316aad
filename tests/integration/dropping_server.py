"""A python-socketio server, in a process of its own, that resets a client's connection when it asks for it.

Prints its port, and ends when its standard input does.
"""

import asyncio
import socket
import struct
import sys
from typing import Any

import socketio
from aiohttp import web


def make_app() -> web.Application:
    """Return the application."""
    sio = socketio.AsyncServer(async_mode="aiohttp")
    app = web.Application()
    sio.attach(app)

    async def ask(_: str, data: Any) -> Any:
        return data

    async def drop(sid: str) -> None:
        transport = sio.get_environ(sid)["aiohttp.request"].transport
        reset = struct.pack("ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        transport.abort()

    sio.on("ask", ask)
    sio.on("drop", drop)
    return app


async def serve() -> None:
    """Serve until the standard input ends."""
    runner = web.AppRunner(make_app(), shutdown_timeout=0.5)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    sys.stdout.write(f"{runner.addresses[0][1]}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(serve())
