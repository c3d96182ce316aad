"""One python-socketio client, from its dial to its disposal.

python-socketio opens the session, joins the namespace, answers pings and closes. The messages do not pass
through it: ``FrameTap`` takes them off on their way in, ``Outflow`` hands them to the wire on their way out.
"""

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from typing import Any, Final

from engineio import base_client

from realtime_fsm.adapters import error_translation, frame
from realtime_fsm.adapters.frame import PacketType
from realtime_fsm.adapters.library_check import make_client
from realtime_fsm.adapters.link_session import ConnectorFactory, LinkSession
from realtime_fsm.adapters.outflow import (
    POLLING_LIMIT,
    POLLING_MAX_BYTES,
    WEBSOCKET_LIMIT,
    WEBSOCKET_MAX_BYTES,
    Outflow,
    Parcel,
)
from realtime_fsm.adapters.tap import FrameTap
from realtime_fsm.engine.port import TransportListener
from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.machine.errors import (
    ConnectionLostError,
    ConnectTimeoutError,
    HeartbeatTimeoutError,
    InternalError,
    RealtimeError,
)

_UNBOUNDED: Final = 24 * 3600.0  # for python-socketio, which wants a number: the caller bounds the dial
_MAX_PINGS: Final = 4  # that wait to be sent at the same time
_STEP_TIMEOUT: Final = 1.0  # bound of each step of the disposal, none of which should wait at all

_SESSION_KEYS: Final = frozenset({"pid", "offset"})
"""What an auth object holds that leads back to a session, and says nothing of who the client is."""

_logger = logging.getLogger(__name__)


def _tells_who(header: str) -> bool:
    """Tell by its name whether a header says who the client is: ``Authorization``, ``X-Api-Key``."""
    return any(part in header.lower() for part in ("auth", "cookie", "key", "token"))


class BatchPacket:
    """Becomes all messages that fit into one request when python-socketio encodes it.

    Stands in for ``engineio.packet.Packet`` in the queue of a polling connection, where python-socketio would
    put everything that waits into one body, and servers throw away bodies of more than 16 packets.

    Args:
        outflow: From which the messages come.
    """

    binary = False

    def __init__(self, outflow: Outflow) -> None:
        self._outflow = outflow
        self.is_queued = False

    def encode(self, *, b64: bool = False) -> str:  # noqa: ARG002 - the signature is python-socketio's
        """Return the packets, encoded as a part of a body."""
        self.is_queued = False
        return self._outflow.encode()


class ClientConnection:
    """A connection over one transport.

    Args:
        name: ``websocket`` or ``polling``.
        config: Where to connect, and the limits.
        listener: Told everything, from when ``open`` has returned.
        connector_factory: As for ``LinkSession``.
        headers: Sent with every HTTP request, the one that opens a websocket included.
    """

    def __init__(
        self,
        name: str,
        config: RealtimeConfig,
        listener: TransportListener,
        connector_factory: ConnectorFactory | None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self._config = config
        self._listener = listener
        self._connector_factory = connector_factory
        self._headers = dict(headers or {})
        self._loop = asyncio.get_running_loop()
        self.tap = FrameTap(listener, config.namespace, self._loop, self._backlog)
        polling = name == "polling"
        self.outflow = Outflow(
            limit=POLLING_LIMIT if polling else WEBSOCKET_LIMIT,
            max_bytes=POLLING_MAX_BYTES if polling else WEBSOCKET_MAX_BYTES,
            on_waiting=self._queue_batch if polling else self._wake_writer,
            on_written=self._on_written,
        )
        self._batch = BatchPacket(self.outflow)
        self._writer_idle: asyncio.Future[None] | None = None
        self._session: LinkSession | None = None
        self._client = make_client(http_session=self._make_session, request_timeout=config.connection_timeout)
        self._tasks: dict[str, asyncio.Task[Any]] = {}
        self._is_open = False
        self._is_identified = any(_tells_who(name) for name in self._headers)

    @property
    def session_id(self) -> str | None:
        """The identity of the Engine.IO session, once it is open."""
        sid: str | None = self._client.eio.sid
        return sid

    def _backlog(self) -> int:
        return int(self._client.eio.queue.qsize())

    def _make_session(self) -> LinkSession:
        if self._session is None:  # python-socketio asks anew once it was closed; it shall stay closed
            self._session = LinkSession(
                self.tap,
                self.outflow,
                self._config.max_inbound_bytes,
                self._connector_factory,
                identified=self._is_identified,
            )
        return self._session

    def _start(self, role: str, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = self._tasks[role] = self._loop.create_task(work, name=f"realtime {role}")
        return task

    # Opening.

    async def open(self, auth: Mapping[str, Any] | None, open_within: float | None) -> None:
        """Open the session and join the namespace.

        Args:
            auth: For the CONNECT packet.
            open_within: Seconds after which a session that is not open is given up.

        Raises:
            RealtimeError: The first thing that went wrong.
        """
        config = self._config
        self._is_identified = self._is_identified or not _SESSION_KEYS.issuperset(auth or ())
        connecting = self._start(
            "connect",
            self._client.connect(
                config.server_url,
                headers=dict(self._headers),
                auth=None if auth is None else dict(auth),
                transports=[self.name],
                namespaces=[config.namespace],
                socketio_path=config.socketio_path,
                wait_timeout=_UNBOUNDED,
            ),
        )
        failed, opened = self.tap.failed, self.tap.opened
        first = asyncio.FIRST_COMPLETED
        done, _ = await asyncio.wait({connecting, failed, opened}, timeout=open_within, return_when=first)
        if not done:
            self.tap.lose(
                ConnectTimeoutError(f"No session over {self.name} within {open_within:g} s."), specific=True
            )
        await asyncio.wait({connecting, failed}, return_when=first)
        self._check_open(connecting)
        for task in (self._client.eio.read_loop_task, self._client.eio.write_loop_task):
            task.add_done_callback(self._on_loop_end)
        if self.name == "websocket":
            self._start("write", self._write())
        self._is_open = True
        self._loop.call_soon(self.tap.go_live)

    def _check_open(self, connecting: asyncio.Task[Any]) -> None:
        """Believe only what can be seen: python-socketio says connected on a dead transport as well."""
        engine = self._client.eio
        error = connecting.exception() if connecting.done() and not connecting.cancelled() else None
        if error is not None:
            self.tap.lose(error_translation.from_exception(error, url=self._config.server_url))
        loops = (engine.read_loop_task, engine.write_loop_task)
        alive = engine.state == "connected" and all(task is not None and not task.done() for task in loops)
        if not alive or not self.tap.is_usable:
            self.tap.lose(ConnectionLostError("The connection ended while it was opened."))
        if self.tap.failed.done():
            raise self.tap.failed.result()

    # While it is open.

    def _on_loop_end(self, task: asyncio.Task[Any]) -> None:
        """Find out why a loop of python-socketio ended, if nobody else has."""
        error = None if task.cancelled() else task.exception()
        if error is None:
            self.tap.lose(self._silence())
        else:
            self.tap.lose(error_translation.from_exception(error, url=self._config.server_url))

    def _silence(self) -> RealtimeError:
        handshake = self.tap.handshake
        quiet = self._loop.time() - self.tap.last_received
        if handshake is not None and quiet >= max(handshake.ping_interval, handshake.ping_timeout):
            return HeartbeatTimeoutError(f"The server has not pinged for {quiet:.1f} s.")
        return ConnectionLostError("The connection ended.")

    async def _write(self) -> None:
        """Write what waits, for as long as the connection lasts."""
        websocket = None if self._session is None else self._session.websocket
        if websocket is None:
            self.tap.lose(InternalError("A websocket connection has no websocket."))
            return
        try:
            while True:
                if self.outflow.is_empty:
                    self._writer_idle = self._loop.create_future()
                    await self._writer_idle
                await self.outflow.write(websocket)
        except ConnectionResetError:
            return  # noted by the websocket
        except Exception as error:  # noqa: BLE001 - nobody awaits this task: whatever it is must be told
            self.tap.lose(error_translation.from_exception(error, url=self._config.server_url))

    def _wake_writer(self) -> None:
        if self._writer_idle is not None and not self._writer_idle.done():
            self._writer_idle.set_result(None)

    def _queue_batch(self) -> None:
        if not self._batch.is_queued:
            self._batch.is_queued = True
            self._client.eio.queue.put_nowait(self._batch)

    def _on_written(self) -> None:
        if self.tap.is_usable:
            self._listener.on_written()

    def ping(self, number: int) -> bool:
        """Send a ping of the websocket, unless too many still wait to be sent."""
        websocket = None if self._session is None else self._session.websocket
        if websocket is None or not self.tap.is_usable:
            return False
        role = f"ping {number % _MAX_PINGS}"
        last = self._tasks.get(role)
        if last is None or last.done():
            self._start(role, websocket.ping(number))
        return True

    # The end.

    async def say_goodbye(self) -> None:
        """Leave the namespace and close the session, so that the server forgets it. The caller bounds it."""
        if not self._is_open or not self.tap.is_usable or self._session is None:
            self.tap.silence()
            return
        self.tap.leave()
        self.outflow.put(Parcel(frame.head(PacketType.DISCONNECT, self._config.namespace)))
        self.outflow.put(Parcel(frame.CLOSE))
        drained = self._start("drain", self.outflow.drain())
        reading = self._client.eio.read_loop_task
        await asyncio.wait({drained, reading}, return_when=asyncio.FIRST_COMPLETED)
        if drained.done() and self._session.websocket is not None:
            # The answer proves that the server has had all. Who reads gets it, and `close` may return before.
            await self._session.websocket.close()
            await asyncio.wait({reading})

    def cut(self) -> None:
        """Give everything up that can be given up without waiting."""
        self.tap.silence()
        self.outflow.clear()
        for task in self._all_tasks():
            task.cancel()
        if self._session is not None:
            self._session.cut()

    def _all_tasks(self) -> list[asyncio.Task[Any]]:
        engine = self._client.eio
        loops = (engine.read_loop_task, engine.write_loop_task)
        return [task for task in (*loops, *self._tasks.values()) if task is not None]

    async def release(self) -> None:
        """Release everything. Never raises, and every step is bounded."""
        tasks = self._all_tasks()
        self.cut()
        if tasks:
            await asyncio.wait(tasks, timeout=_STEP_TIMEOUT)
        for task in tasks:
            if task.done() and not task.cancelled():
                task.exception()  # what it was has been noted long ago
        engine = self._client.eio
        await self._step("abort", engine.disconnect(abort=True))
        if engine in base_client.connected_clients:
            base_client.connected_clients.remove(engine)
        if self._session is not None:
            await self._step("dispose of", self._session.dispose())

    async def _step(self, what: str, work: Coroutine[Any, Any, Any]) -> None:
        """Do a step of the disposal. What goes wrong in it is of interest only to who mends this library."""
        try:
            async with asyncio.timeout(_STEP_TIMEOUT):
                await work
        except Exception:
            _logger.warning("Could not %s a connection.", what, exc_info=True)
