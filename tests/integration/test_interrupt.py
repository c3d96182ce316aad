"""Ctrl-C in each of the six states: everything closed in time, nothing left, no traceback."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import canary
import pytest

from realtime_fsm import ConnectionStatus, RealtimeConfig
from realtime_fsm.server import BackendConfig, WebSocketService

S = ConnectionStatus
SECRET = canary.SIGNING

PROGRAM = """
import asyncio, logging, sys, threading
from realtime_fsm import RealtimeConfig, RealtimeService
from engineio import base_client

status, url, token = sys.argv[1:]
config = RealtimeConfig(
    server_url=url,
    dialect="reference",
    connection_timeout=60.0,
    backoff_base=25.0,
    max_reconnect_attempts=0 if status in {"failed", "fallback"} else 10,
    enable_fallback=status == "fallback",
)
logging.getLogger("realtime_fsm").addHandler(logging.StreamHandler())

async def main():
    realtime = RealtimeService(config, token=token)
    realtime.connection_status.subscribe(lambda change: print(change.current, flush=True))
    if status == "disconnected":
        print("disconnected", flush=True)
    try:
        async with realtime if status != "disconnected" else asyncio.timeout(None):
            await asyncio.sleep(60)
        if status != "failed":
            raise SystemExit("it was not interrupted")
    except Exception as error:
        if status != "failed":
            raise
    finally:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        print("left:", len(left), len(base_client.connected_clients), threading.active_count(), flush=True)

async def rest_in_failed():
    realtime = RealtimeService(config, token=token)
    realtime.connection_status.subscribe(lambda change: print(change.current, flush=True))
    try:
        try:
            await realtime.connect()
        except Exception:
            pass
        await asyncio.sleep(60)
    finally:
        await realtime.disconnect()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        print("left:", len(left), len(base_client.connected_clients), threading.active_count(), flush=True)

try:
    asyncio.run(rest_in_failed() if status == "failed" else main())
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@asynccontextmanager
async def address_for(status: ConnectionStatus) -> AsyncIterator[str]:
    """Give an address at which a client comes to a status and stays there."""
    if status is S.CONNECTING:  # accepts and stays silent
        writers: list[asyncio.StreamWriter] = []
        server = await asyncio.start_server(lambda _, writer: writers.append(writer), "127.0.0.1", 0)
        async with server:  # which, since Python 3.12, ends when its connections have
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            for writer in writers:
                writer.close()
    elif status in {S.CONNECTED, S.DISCONNECTED}:
        async with WebSocketService(BackendConfig(port=0, secret=SECRET)) as backend:
            yield backend.url
    else:  # nobody listens
        async with WebSocketService(BackendConfig(port=0, secret=SECRET)) as backend:
            url = backend.url
        yield url


@pytest.mark.parametrize("status", list(S))
async def test_interrupt_ends_everything_in_every_state(status: ConnectionStatus) -> None:
    """Ctrl-C ends the program within ``close_timeout``, with no task, session or thread left."""
    async with address_for(status) as url:
        token = canary.jwt("me", 60)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-X", "dev", "-W", "error", "-c", PROGRAM, status, url, token),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            assert process.stdout is not None
            async with asyncio.timeout(20):
                while (line := await process.stdout.readline()).decode().strip() != status:
                    assert line, (await canary.output_of(process))[1].decode()
            process.send_signal(signal.SIGINT)
            async with asyncio.timeout(RealtimeConfig().close_timeout + 2.0):
                out, error = await canary.output_of(process)
        finally:
            if process.returncode is None:
                process.kill()
                await canary.output_of(process)
        said = out.decode().splitlines()
        assert "left: 0 0 1" in said, (said, error.decode())
        assert said[-1] == "interrupted"
        assert "Traceback" not in error.decode()
        assert process.returncode == 0
