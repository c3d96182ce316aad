"""Nginx in front of a server: a child process, its files in one folder, on a port that stays its own."""

import asyncio
import os
import shutil
import signal
import socket
from pathlib import Path
from typing import Final, Self

import pytest

_SOON: Final = 20.0
_UPGRADE: Final = "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;"
_CONFIG: Final = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log; {user}
worker_shutdown_timeout 100ms;
events {{ worker_connections 128; }}
http {{
  access_log {folder}/access.log;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://127.0.0.1:{upstream}; proxy_http_version 1.1; proxy_set_header Host $http_host;
      proxy_read_timeout {idle_ms}ms; {upgrade}
    }}
  }}
}}
"""


def program() -> str:
    """Return where nginx is; skip the test where it is not, but never in continuous integration."""
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        problem = "nginx is needed to stand in front of the server: apt-get install nginx-light"
        if os.environ.get("CI"):
            pytest.fail(problem)
        pytest.skip(problem)
    return found


class Nginx:
    """Forwards to a server on 127.0.0.1.

    Args:
        folder: For its files; it is made.
        upstream: Port of the server.
        idle_timeout: Seconds without data from the server after which it gives a connection up.
        does_upgrade: Whether WebSockets can pass.
    """

    def __init__(
        self, folder: Path, upstream: int, *, idle_timeout: float = 60.0, does_upgrade: bool = True
    ) -> None:
        self._program = program()
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None
        self._port_keeper = socket.socket()
        self._settings = {
            "folder": folder,
            "user": "user root;" if os.getuid() == 0 else "",
            "upstream": upstream,
            "idle_ms": int(idle_timeout * 1000),
            "upgrade": _UPGRADE if does_upgrade else "",
        }
        self.port = 0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._folder.mkdir()
        # Bound and never listening: dials are refused while nginx is away, and nobody else gets the port.
        self._port_keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._port_keeper.bind(("127.0.0.1", 0))
        self.port = self._port_keeper.getsockname()[1]
        try:
            await self.start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self.stop()
        finally:
            self._port_keeper.close()

    async def start(self) -> None:
        """Start it, and wait until it listens."""
        config = self._folder / "nginx.conf"
        config.write_text(_CONFIG.format(port=self.port, **self._settings))
        words = ("-p", str(self._folder), "-e", str(self._folder / "error.log"), "-c", str(config))
        self._process = await asyncio.create_subprocess_exec(self._program, *words)
        async with asyncio.timeout(_SOON):
            while not await self._listens():
                assert self._process.returncode is None, self.errors()
                await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """Stop it with all its connections, and wait until it is gone."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), _SOON)
            except TimeoutError:
                process.kill()
                await process.wait()
                raise

    def reload(self) -> None:
        """Let it read its configuration again: new workers come, and the old ones end soon."""
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def errors(self) -> str:
        """Return what it complained about."""
        return (self._folder / "error.log").read_text()

    def answers(self) -> list[str]:
        """Return the lines of its access log: an answer each, once it is complete."""
        return (self._folder / "access.log").read_text().splitlines()

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except ConnectionRefusedError:
            return False
        writer.close()
        await writer.wait_closed()
        return True
