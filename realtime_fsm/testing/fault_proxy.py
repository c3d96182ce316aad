"""A TCP proxy that makes faults, on real sockets on 127.0.0.1."""

import asyncio
import socket
from random import Random
from typing import Final, Self

from attrs import define

from realtime_fsm.testing.frame_rules import Action, FrameLog, FrameRules, Match, Rule
from realtime_fsm.testing.network_faults import NetworkFaults
from realtime_fsm.testing.proxied_connection import ProxiedConnection

_HOST: Final = "127.0.0.1"
_CLOSE_TIMEOUT: Final = 5.0


@define
class ProxyCounters:
    """What passed through a proxy.

    Attributes:
        accepted: Connections accepted.
        refused: Accepted connections that the server did not take. (What is refused while the proxy does not
            listen is refused by the kernel, and nobody counts it.)
        reset: Connections that the proxy reset, the blocked ones included.
        bytes_up: Bytes forwarded to the server.
        bytes_down: Bytes forwarded to the client.
    """

    accepted: int = 0
    refused: int = 0
    reset: int = 0
    bytes_up: int = 0
    bytes_down: int = 0


class FaultProxy(NetworkFaults):
    """Forwards TCP connections to a server, and makes trouble when it is told to.

    ::

        async with FaultProxy("127.0.0.1", port) as proxy:
            ...  # connect to proxy.url
            proxy.reset_peer()

    Faults can be switched at any time, and apply to the connections there are and to new ones. Without one,
    what either side does reaches the other: data, an orderly end, a reset. The others are those of
    ``NetworkFaults``.

    Args:
        host: Of the server.
        port: Of the server.
        random: Where the jitter and the sizes of segments come from; by default it is the same in every run.
        frames: Read HTTP, polling and WebSocket, so that ``rule`` can be used and ``log`` is kept. What is
            not HTTP passes. WebSockets are not compressed then.

    Attributes:
        port: Where it listens; it stays the same as long as the proxy lives.
        blocked_path: See ``block``.
        target: Host and port of the server.
        frames: The rules for frames, where frames are read.
        counters: What passed through.
    """

    def __init__(self, host: str, port: int, *, random: Random | None = None, frames: bool = False) -> None:
        super().__init__(Random(0) if random is None else random)  # noqa: S311 - jitter is no secret
        self._socket: socket.socket | None = None
        self._is_listening = False
        self._connections: dict[asyncio.Task[None], ProxiedConnection] = {}
        self.target = (host, port)
        self.port = 0
        self.blocked_path: str | None = None
        self.frames = FrameRules() if frames else None
        self.counters = ProxyCounters()

    @property
    def url(self) -> str:
        """Where the proxy listens."""
        return f"http://{_HOST}:{self.port}"

    @property
    def connection_count(self) -> int:
        """Connections that are open."""
        return len(self._connections)

    @property
    def log(self) -> FrameLog:
        """The frames that passed, and what was done with them.

        Raises:
            RuntimeError: If the proxy does not read frames.
        """
        return self._rules().log

    async def __aenter__(self) -> Self:
        self._reserve()
        self._listen()
        return self

    async def __aexit__(self, *exception: object) -> None:
        """Reset every connection and release everything, within a few seconds.

        Raises:
            RuntimeError: If a connection does not end.
        """
        self._release()
        tasks = set(self._connections)
        for connection in self._connections.values():
            connection.reset()
        if tasks:
            _, pending = await asyncio.wait(tasks, timeout=_CLOSE_TIMEOUT)
            if pending:
                raise RuntimeError(f"{len(pending)} connections of the proxy do not end: {pending}")

    def set_target(self, host: str, port: int) -> None:
        """Forward new connections to another server."""
        self.target = (host, port)

    def reset_peer(self) -> None:
        """Reset every connection: both sides see RST."""
        for connection in self._connections.values():
            connection.make_reset()

    def cut(self) -> None:
        """Close every connection in an orderly way: both sides see FIN."""
        for connection in self._connections.values():
            connection.cut()

    def rule(self, match: Match, action: Action, *, times: int | None = 1, skip: int = 0) -> Rule:
        """Do something with single frames: swallow an acknowledgement, refuse the second dial, ...

        Args:
            match: Which ones. Where several rules match, the one that was added first decides.
            action: What is done with them.
            times: How often at most; ``None`` for always.
            skip: So many matches pass before.

        Returns:
            The rule; its ``happened`` can be awaited.

        Raises:
            RuntimeError: If the proxy does not read frames.
        """
        rule = Rule(match, action, times, skip)
        self._rules().rules.append(rule)
        return rule

    def faults_changed(self) -> None:
        """Let every connection look at its deadline again."""
        for connection in self._connections.values():
            connection.set_deadline()

    def _rules(self) -> FrameRules:
        if self.frames is None:
            raise RuntimeError("frames are read by a proxy made with FaultProxy(..., frames=True)")
        return self.frames

    def block(self, path: str | None) -> None:
        """Reset connections whose first request is for a path that begins so; ``None`` ends it.

        Connections for other paths pass: so the socket can be blocked while plain HTTP gets through. Later
        requests on a connection are not looked at.
        """
        self.blocked_path = path
        for connection in self._connections.values():
            if connection.is_blocked:
                connection.make_reset()

    def refuse(self, enabled: bool) -> None:
        """Refuse new connections at once, as when nothing listens; the port is kept for later."""
        if enabled and self._is_listening:
            self._release()
            self._reserve()
        elif not enabled and not self._is_listening:
            self._listen()

    def _reserve(self) -> None:
        """Take the port without listening: connects are refused, and nobody else can have it."""
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((_HOST, self.port))
        self.port = self._socket.getsockname()[1]

    def _listen(self) -> None:
        if self._socket is None:
            raise RuntimeError("the proxy is used outside its `async with`")
        self._socket.listen()
        # Not asyncio's server: one that is closed just while a connection comes in forgets it, open.
        asyncio.get_running_loop().add_reader(self._socket, self._accept, self._socket)
        self._is_listening = True

    def _release(self) -> None:
        """Give the port up. The kernel resets the connections that have not been accepted."""
        if self._is_listening and self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
        self._is_listening = False
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _accept(self, listening: socket.socket) -> None:
        try:
            client, _ = listening.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # it has gone again
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.counters.accepted += 1
        connection = ProxiedConnection(self, client)
        task = asyncio.create_task(connection.run(), name="fault proxy: connection")
        self._connections[task] = connection
        task.add_done_callback(self._connections.pop)
