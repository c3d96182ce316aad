"""The raw libraries, without ours, on a network in memory: what a pinned test of their behaviour needs."""

import asyncio
import gc
import warnings
from collections.abc import Awaitable, Callable, Coroutine
from random import Random
from typing import Any, TypeVar

import aiohttp
import socketio
from aiohttp import web
from engineio import base_client

from realtime_fsm.testing.fuzz.memory_network import MemoryNetwork
from realtime_fsm.testing.virtual_loop import LeakError, VirtualSession

T = TypeVar("T")
URL = "http://server"
OPEN = '0{"sid":"x","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}'
Script = Callable[[web.WebSocketResponse], Awaitable[None]]


_sessions: list[aiohttp.ClientSession] = []
_networks: list[MemoryNetwork] = []


def watched(main: Coroutine[Any, Any, T]) -> T:
    """Run in virtual time, put up with what the libraries leave behind, and clear it away."""
    clients = list(base_client.connected_clients)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # of connections that the libraries forget
        result = _run(main)
        base_client.connected_clients[:] = clients
        gc.collect()
    return result


def _run(main: Coroutine[Any, Any, T]) -> T:
    session = VirtualSession()
    result: list[T] = []
    try:
        with session:
            try:
                result.append(session.run(main))
            finally:
                session.run(_clear_away())
    except LeakError:
        pass
    return result[0]


async def _clear_away() -> None:
    mine = asyncio.current_task()
    tasks = {task for task in asyncio.all_tasks() if task is not mine}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=10)
    sessions, networks = list(_sessions), list(_networks)
    _sessions.clear()
    _networks.clear()
    for network in networks:
        network.heal()
        network.reset_peer()
    for http in sessions:
        await http.close()
    for network in networks:
        await network.close()


def new_network() -> MemoryNetwork:
    """Return a network that is closed in the end."""
    network = MemoryNetwork(Random(1))  # noqa: S311 - there is no jitter
    _networks.append(network)
    return network


def http_session(network: MemoryNetwork) -> aiohttp.ClientSession:
    """Return a session that is closed in the end."""
    session = aiohttp.ClientSession(connector=network.connector())
    _sessions.append(session)
    return session


async def fake_server(script: Script) -> MemoryNetwork:
    """Return a network with a server that speaks by a script, over websocket."""
    network = new_network()

    async def serve(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await script(socket)
        return socket

    application = web.Application()
    application.router.add_get("/socket.io/", serve)
    await network.serve(application, "server")
    return network


async def join(socket: web.WebSocketResponse) -> None:
    """Let a client in."""
    await socket.send_str(OPEN)
    await socket.receive()
    await socket.send_str('40{"sid":"s"}')


async def for_ever(_: web.WebSocketResponse | None = None) -> None:
    """Do nothing more."""
    await asyncio.sleep(1_000_000)


def raw_client(network: MemoryNetwork, **options: Any) -> socketio.AsyncClient:
    """Return a client of python-socketio on the network."""
    return socketio.AsyncClient(
        reconnection=False, handle_sigint=False, http_session=lambda: http_session(network), **options
    )


async def connect(client: socketio.AsyncClient) -> None:
    """Connect over websocket."""
    await client.connect(URL, transports=["websocket"], wait_timeout=10)


async def real_server(**options: Any) -> tuple[MemoryNetwork, socketio.AsyncServer]:
    """Return a network with a python-socketio server."""
    network = new_network()
    server = socketio.AsyncServer(
        async_mode="aiohttp", cors_allowed_origins=[], monitor_clients=False, **options
    )
    application = web.Application()
    server.attach(application)
    await network.serve(application, "server")
    return network, server
