"""Server-sent events: the snapshot first, then every change, and figures while they move."""

import asyncio
import contextlib
import json
import logging
import secrets
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from aiohttp import web
from attrs import define, field

from realtime_fsm.machine.record import StatusChange
from realtime_fsm.service import RealtimeService
from realtime_fsm.web.snapshot import change_json, changes_after, looks_like, view

_RETRY_MS: Final = 1000
"""What a browser waits before it comes back."""

_NOTES: Final = 50
_LONGEST_NOTE: Final = 500
_ENDING: Final = 0.5
"""Seconds that readers get to take what is left, when the page is shut down."""

_HEADERS: Final = {"Content-Type": "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no"}

_logger = logging.getLogger("realtime_fsm.web")


def frame(event: str, data: Any, event_id: str | None = None) -> bytes:
    """Return one event as it goes over the wire.

    Args:
        event: Its name.
        data: JSON.
        event_id: What a reader that comes back names, where it can go on from here.
    """
    body = json.dumps(data, ensure_ascii=False, separators=(",", ":"))  # it has no line break in it
    identity = "" if event_id is None else f"id: {event_id}\n"
    return f"{identity}event: {event}\ndata: {body}\n\n".encode()


HEARTBEAT: Final = b": heartbeat\n\n" + frame("beat", None)
"""The comment keeps proxies from closing the stream; the event tells the page's script that it is alive."""


@define(eq=False)
class Reader:
    """A stream that is open.

    Attributes:
        transport: What is cut where it does not read.
        frames: What it has not been sent yet; ``None`` ends it.
        epoch: The last change that it was told.
    """

    transport: asyncio.Transport | None
    frames: asyncio.Queue[bytes | None]
    epoch: int = 0


@define(kw_only=True)
class Traffic:
    """Counts of the streams.

    Attributes:
        opened: Streams opened.
        dropped: Of them, the ones that ended because their readers did not keep up.
        refused: Streams that were not opened, because there were too many.
        replayed: Changes that readers had missed, and were told when they came back.
        open: The streams there are.
    """

    opened: int = 0
    dropped: int = 0
    refused: int = 0
    replayed: int = 0
    open: set[Reader] = field(factory=set, repr=False)


class EventHub:
    """Tells all readers of the page what happens to one client.

    An id is the number of this hub and the epoch of a change, so the client's own history (its last 200
    changes) is what is replayed; whoever comes back from before that, or from another process, begins anew
    with a snapshot. Figures bear no id: they are sent whole, at most once per ``interval``, when they differ.

    Args:
        realtime: The client.
        wall: The wall clock.
        interval: Seconds between two looks at the figures, while somebody reads.
        heartbeat: Seconds of silence after which a reader gets a sign of life.
        backlog: Frames that a reader may leave unread before it is dropped.
        most: Readers at one time.

    Attributes:
        traffic: What the streams counted.
        watched: Set once somebody has opened a stream.
        extra: Gives what else belongs to a view.
    """

    def __init__(
        self,
        realtime: RealtimeService,
        *,
        wall: Callable[[], float],
        interval: float,
        heartbeat: float,
        backlog: int,
        most: int,
    ) -> None:
        self._realtime = realtime
        self._wall = wall
        self._interval = interval
        self._heartbeat = heartbeat
        self._backlog = backlog
        self._most = most
        self._name = secrets.token_hex(4)
        self._notes: deque[dict[str, Any]] = deque(maxlen=_NOTES)
        self._looking: asyncio.Task[None] | None = None
        self._shown: dict[str, Any] | None = None
        self._is_closed = False
        self._gone = asyncio.Event()
        self._unsubscribe: Callable[[], None] = lambda: None
        self.traffic = Traffic()
        self.watched = asyncio.Event()
        self.extra: Callable[[], dict[str, Any]] = dict

    def start(self) -> None:
        """Follow the client from now on."""
        self._unsubscribe = self._realtime.connection_status.subscribe(self._changed)

    def announce(self, text: str) -> None:
        """Put a note among the changes: what the program does, such as the faults of a demo."""
        self._notes.append({"at": self._wall(), "text": text[:_LONGEST_NOTE]})
        self._send_view()

    def view(self) -> dict[str, Any]:
        """Return where the client stands now."""
        told = view(self._realtime, now=self._wall())
        return {**told, "notes": list(self._notes), **self.extra()}

    def snapshot(self) -> dict[str, Any]:
        """Return everything that the page shows."""
        changes = [change_json(change) for change in self._realtime.connection_status.history]
        return {"view": self.view(), "changes": changes}

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Serve one reader until it goes, is dropped, or the page is shut down."""
        if self._is_closed or len(self.traffic.open) >= self._most:
            self.traffic.refused += 1
            return web.json_response(
                {"error": "There are too many readers."}, status=503, headers={"Retry-After": "5"}
            )
        response = web.StreamResponse(headers=_HEADERS)
        await response.prepare(request)
        if self._is_closed:  # meanwhile
            return response
        reader = Reader(request.transport, asyncio.Queue(self._backlog))
        self._open(reader)
        after = request.headers.get("Last-Event-ID") or request.query.get("after", "")
        try:
            with contextlib.suppress(ConnectionResetError):  # it has gone, or was dropped
                await response.write(self._beginning(reader, after))
                await self._pass_on(reader, response)
        finally:
            self._close(reader)
        return response

    async def stop(self) -> None:
        """End all streams: in order, or by cutting those that do not read."""
        self._is_closed = True
        self._unsubscribe()
        await self._stop_looking()
        for reader in list(self.traffic.open):
            self._push(reader, None)
        try:
            async with asyncio.timeout(_ENDING):
                while self.traffic.open:
                    self._gone.clear()
                    await self._gone.wait()
        except TimeoutError:
            for reader in self.traffic.open:
                _cut(reader)

    # Inside: readers.

    def _open(self, reader: Reader) -> None:
        self.traffic.open.add(reader)
        self.traffic.opened += 1
        self.watched.set()
        if self._looking is None:
            self._looking = asyncio.create_task(self._look(), name="realtime_fsm status page")

    def _close(self, reader: Reader) -> None:
        self.traffic.open.discard(reader)
        self._gone.set()
        if not self.traffic.open and self._looking is not None:
            self._looking.cancel()
            self._looking = None

    def _beginning(self, reader: Reader, after: str) -> bytes:
        """Return what a reader is told first; from here on it misses nothing."""
        history = self._realtime.connection_status.history
        missed = self._missed(after)
        reader.epoch = history[-1].epoch if history else 0
        opening = f"retry: {_RETRY_MS}\n\n".encode()
        if len(self.traffic.open) == 1:  # nobody else waits for what differs from the last view
            self._shown = self.view()
        if missed is None:
            return opening + frame("snapshot", self.snapshot(), self._id(reader.epoch))
        self.traffic.replayed += len(missed)
        told = [frame("change", change_json(change), self._id(change.epoch)) for change in missed]
        return opening + b"".join(told) + frame("view", self.view())

    def _missed(self, after: str) -> list[StatusChange] | None:
        """Return the changes since an id, or ``None`` where it leads nowhere."""
        name, _, number = after.partition("-")
        if name != self._name or not (number.isascii() and number.isdigit()) or len(number) > len(str(2**63)):
            return None
        return changes_after(self._realtime.connection_status.history, int(number))

    def _id(self, epoch: int) -> str:
        return f"{self._name}-{epoch}"

    async def _pass_on(self, reader: Reader, response: web.StreamResponse) -> None:
        while True:
            try:
                async with asyncio.timeout(self._heartbeat):
                    told = await reader.frames.get()
            except TimeoutError:
                told = HEARTBEAT
            if told is None:
                return
            await response.write(told)

    def _push(self, reader: Reader, told: bytes | None) -> None:
        try:
            reader.frames.put_nowait(told)
        except asyncio.QueueFull:
            self.traffic.dropped += 1
            _logger.warning("a reader of the status page does not keep up, and is dropped")
            _cut(reader)
            self._close(reader)

    # Inside: what is told.

    def _changed(self, change: StatusChange) -> None:
        readers = [reader for reader in self.traffic.open if reader.epoch < change.epoch]
        if not readers:
            return
        told = frame("change", change_json(change), self._id(change.epoch))
        for reader in readers:
            reader.epoch = change.epoch
            self._push(reader, told)
        self._send_view()

    def _send_view(self) -> None:
        if not self.traffic.open:
            return
        self._shown = self.view()
        told = frame("view", self._shown)
        for reader in list(self.traffic.open):
            self._push(reader, told)

    async def _look(self) -> None:
        """Send the figures when they differ from what was shown last, and let those go who have gone."""
        while True:
            await asyncio.sleep(self._interval)
            for reader in list(self.traffic.open):
                if reader.transport is None or reader.transport.is_closing():
                    self._push(reader, None)
            if self._shown is None or not looks_like(self._shown, self.view()):
                self._send_view()

    async def _stop_looking(self) -> None:
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.cancel()
            await asyncio.wait({looking})


def _cut(reader: Reader) -> None:
    if reader.transport is not None:
        reader.transport.abort()
