"""A TCP proxy that makes faults, on real sockets on 127.0.0.1."""

import asyncio
import contextlib
import socket
import struct
from typing import Final, Self

from attrs import define, field

_CHUNK: Final = 64 * 1024
_RESET: Final = struct.pack("ii", 1, 0)
_DIAL_TIMEOUT: Final = 5.0
_CLOSE_TIMEOUT: Final = 2.0


@define
class ProxyCounters:
    """What passed through a proxy.

    Attributes:
        accepted: Connections accepted.
        reset: Connections that the proxy reset.
        bytes_up: Bytes forwarded to the server.
        bytes_down: Bytes forwarded to the client.
    """

    accepted: int = 0
    reset: int = 0
    bytes_up: int = 0
    bytes_down: int = 0


@define(eq=False)
class _Connection:
    """A client's connection and the one to the server that belongs to it."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter | None = None
    task: "asyncio.Task[None] | None" = None
    path: str | None = None
    pumps: list["asyncio.Task[None]"] = field(factory=list)

    def reset(self) -> None:
        """Reset both sides at once: RST, and what was buffered is lost."""
        for writer in (self.client, self.server):
            if writer is None:
                continue
            transport_socket = writer.get_extra_info("socket")
            if transport_socket is not None and transport_socket.fileno() >= 0:
                transport_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()

    def finish(self) -> None:
        """Close both sides in an orderly way: FIN."""
        for writer in (self.client, self.server):
            if writer is not None:
                writer.close()


class FaultProxy:
    """Forwards TCP connections to a server, and makes trouble when it is told to.

    ::

        async with FaultProxy("127.0.0.1", port) as proxy:
            ...  # connect to proxy.url
            proxy.reset_peer()

    Faults can be switched at any time, and apply to the connections there are and to new ones.

    Args:
        host: Of the server.
        port: Of the server.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._blocked: str | None = None
        self.port = 0
        self.latency = 0.0
        self.counters = ProxyCounters()

    @property
    def url(self) -> str:
        """Where the proxy listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def connection_count(self) -> int:
        """Connections that are open."""
        return len(self._connections)

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._flowing.set()
        if self._listener is not None:
            self._listener.close()
        tasks = {connection.task for connection in self._connections if connection.task is not None}
        for connection in self._connections:
            connection.reset()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CLOSE_TIMEOUT)

    def set_target(self, host: str, port: int) -> None:
        """Forward new connections to another server."""
        self._target = (host, port)

    def reset_peer(self) -> None:
        """Reset every connection: both sides see RST."""
        for connection in list(self._connections):
            self.counters.reset += 1
            connection.reset()

    def cut(self) -> None:
        """Close every connection in an orderly way: both sides see FIN."""
        for connection in list(self._connections):
            connection.finish()

    def black_hole(self, enabled: bool) -> None:
        """Close nothing and forward nothing; connections are still accepted. Healed, what was held flows."""
        if enabled:
            self._flowing.clear()
        else:
            self._flowing.set()

    def block(self, path: str | None) -> None:
        """Reset connections whose first request is for ``path`` or below; ``None`` ends it.

        Connections for other paths pass: so the socket can be blocked while plain HTTP gets through.
        """
        self._blocked = path
        for connection in list(self._connections):
            if self._is_blocked(connection):
                self.counters.reset += 1
                connection.reset()

    async def refuse(self, enabled: bool) -> None:
        """Refuse new connections at once, as when nothing listens; the port is kept for later."""
        if enabled and self._listener is not None:
            self._listener.close()
            self._listener = None
        elif not enabled and self._listener is None:
            await self._listen()

    async def _listen(self) -> None:
        self._listener = await asyncio.start_server(
            self._accept, "127.0.0.1", self.port, reuse_address=True, limit=_CHUNK
        )
        self.port = self._listener.sockets[0].getsockname()[1]

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(client=writer)
        connection.task = asyncio.create_task(self._carry(connection, reader))
        self._connections.add(connection)
        self.counters.accepted += 1

    async def _carry(self, connection: _Connection, reader: asyncio.StreamReader) -> None:
        try:
            await self._serve(connection, reader)
        except OSError:
            connection.reset()  # the server refuses, or one side has gone: so does the other
        finally:
            for pump in connection.pumps:
                pump.cancel()
            if connection.pumps:
                await asyncio.wait(connection.pumps, timeout=_CLOSE_TIMEOUT)
            connection.finish()
            self._connections.discard(connection)

    async def _serve(self, connection: _Connection, reader: asyncio.StreamReader) -> None:
        first = await reader.read(_CHUNK)
        connection.path = _path_of(first)
        if self._is_blocked(connection):
            self.counters.reset += 1
            connection.reset()
            return
        await self._flowing.wait()
        async with asyncio.timeout(_DIAL_TIMEOUT):
            server_reader, connection.server = await asyncio.open_connection(*self._target, limit=_CHUNK)
        connection.server.write(first)
        self.counters.bytes_up += len(first)
        connection.pumps = [
            asyncio.create_task(self._pump(reader, connection.server, upwards=True)),
            asyncio.create_task(self._pump(server_reader, connection.client, upwards=False)),
        ]
        await asyncio.wait(connection.pumps, return_when=asyncio.FIRST_COMPLETED)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, upwards: bool
    ) -> None:
        with contextlib.suppress(OSError):  # the connection has ended, which ends the other pump too
            while data := await reader.read(_CHUNK):
                if self.latency:
                    await asyncio.sleep(self.latency)
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
                if upwards:
                    self.counters.bytes_up += len(data)
                else:
                    self.counters.bytes_down += len(data)

    def _is_blocked(self, connection: _Connection) -> bool:
        return bool(self._blocked and connection.path and connection.path.startswith(self._blocked))


def _path_of(head: bytes) -> str | None:
    """Return the path of an HTTP request's first line; ``None`` where it is none."""
    words = head.split(b"\r\n", 1)[0].split(b" ")
    return words[1].decode("latin-1") if len(words) == 3 else None  # noqa: PLR2004 - method, path, version
