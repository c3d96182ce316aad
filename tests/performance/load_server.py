"""The server of the benchmarks: a plain python-socketio server on aiohttp, in a process of its own.

Prints its port, and ends when its standard input does. Run by ``benchmark.py``.
"""

import asyncio
import socket
import sys
from typing import Any

import socketio
from aiohttp import web
from benchmark_payload import PAYLOAD
from core_pinning import SERVER_CORE, pin


def make_app() -> web.Application:
    """Return the application, with what the benchmarks ask of it."""
    sio = socketio.AsyncServer(async_mode="aiohttp")
    app = web.Application()
    sio.attach(app)

    async def note(_: str, __: Any) -> None:
        """Take a message and say nothing."""

    async def flush(_: str) -> bool:
        return True

    async def ask(_: str, data: Any) -> Any:
        return data

    async def flood(sid: str, count: int, bulk: bool) -> None:
        if bulk:
            connection = sio.get_environ(sid)["aiohttp.request"].transport.get_extra_info("socket")
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        for _ in range(count):
            await sio.emit("price", PAYLOAD, to=sid)

    for handler in (note, flush, ask, flood):
        sio.on(handler.__name__, handler)
    return app


async def serve() -> None:
    """Serve until the standard input ends."""
    runner = web.AppRunner(make_app(), shutdown_timeout=0.5)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    pin(SERVER_CORE)
    asyncio.run(serve())
