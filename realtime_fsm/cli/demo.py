"""``realtime-fsm demo``: a real client on a real server, and one fault after another."""

import argparse
import asyncio
import json
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from attrs import asdict, define, evolve, field, frozen

from realtime_fsm.cli.arguments import EXIT_FAILED, EXIT_OK
from realtime_fsm.cli.demo_backend import (
    CHANNEL,
    PUBLISHED,
    QUIET,
    RECEIVED,
    Backend,
    numbers,
    received_numbers,
)
from realtime_fsm.cli.paint import Painter
from realtime_fsm.engine.subscriptions import Missed, Position
from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.machine.dialect import Dialect
from realtime_fsm.machine.errors import TokenSourceError
from realtime_fsm.machine.record import StatusChange
from realtime_fsm.machine.table import TRAITS, ConnectionStatus
from realtime_fsm.server import issue_token
from realtime_fsm.service import RealtimeService
from realtime_fsm.testing.proxy.proxy import FaultProxy
from realtime_fsm.web import StatusPage, serve_status_page

_EMIT_PACE: Final = 0.05
_TOKEN_LIFE: Final = 5.0
"""Short, so that tokens are refreshed on the live connection all the while."""

_SOCKET_PATH: Final = "/socket.io"

_STEP_LIMIT: Final = 15.0
_WATCHED_STEP_LIMIT: Final = 600.0
"""Somebody may press Pause."""

_OPENING: Final = 20.0
"""Seconds that a person gets to open the page, before the first fault."""


def run_demo(parsed: argparse.Namespace) -> int:
    """Run the demo; return 0 only when all six states were visited, and nothing was lost or repeated."""
    show = Show(
        narrator=Narrator(quiet=parsed.json), port=parsed.port if parsed.web else None, pace=parsed.pace
    )
    with tempfile.TemporaryDirectory(prefix="realtime_fsm_demo_") as folder:
        result = asyncio.run(_demo(Path(folder), show))
    if parsed.json:
        sys.stdout.write(json.dumps(asdict(result), indent=2) + "\n")
    return EXIT_OK if result.ok else EXIT_FAILED


@frozen(kw_only=True)
class DemoResult:
    """The counts of the demo; ``--json`` prints them.

    Attributes:
        ok: All six states were visited, nothing was lost, and nothing was applied or heard twice.
        states_visited: In the order of the first visit.
        transitions: Transitions taken.
        emitted: Messages that ``emit`` accepted.
        delivered: Different messages that the server applied: they are in its database.
        lost: Messages that were accepted and that the server never applied.
        duplicated: Messages that the server applied more than once.
        repeats_dropped: Messages that came to the server again, and that it told from new ones.
        events_published: Events that the server published while the client was there.
        events_received: Of them, the ones that the client knows of: heard, or loaded by its resync hook.
        events_missed: Of them, the ones that it does not know of.
        events_repeated: Events that its handler heard twice, or out of order.
        resyncs: Times that the server could not replay, and the hook loaded a snapshot.
        recovery_seconds: For each fault, from its beginning (for the blocked socket: from its end) until the
            client was connected.
    """

    ok: bool
    states_visited: list[str]
    transitions: int
    emitted: int
    delivered: int
    lost: int
    duplicated: int
    repeats_dropped: int
    events_published: int
    events_received: int
    events_missed: int
    events_repeated: int
    resyncs: int
    recovery_seconds: dict[str, float]


@define
class Narrator:
    """Tells what happens as it happens, unless it is to be quiet.

    Attributes:
        quiet: Say nothing.
        painter: Where it goes.
        began: Clock of the first word.
    """

    quiet: bool
    painter: Painter = field(factory=Painter)
    began: float = field(factory=time.monotonic)

    def chapter(self, title: str, explanation: str) -> None:
        """Announce a fault in a line of its own."""
        if not self.quiet:
            self.painter.line()
            self.painter.line(
                f"{self.painter.paint(title, 'bold')}  {self.painter.paint(explanation, 'dim')}"
            )

    def change(self, change: StatusChange) -> None:
        """Show a status change."""
        if self.quiet:
            return
        then = "" if change.retry_in is None else f"; attempt {change.attempt} in {change.retry_in:.1f} s"
        clock = self.painter.paint(f"{time.monotonic() - self.began:6.2f}s", "dim")
        self.painter.line(f"  {clock}  {self.painter.status(change.current)} {change.reason}{then}")

    def _bad(self, count: int) -> str:
        """Return a number that should be 0, in green or red."""
        return self.painter.paint(str(count), "red" if count else "green")

    def summary(self, result: DemoResult) -> None:
        """Show what was counted."""
        if self.quiet:
            return
        painter = self.painter
        painter.line()
        painter.line(painter.paint("Summary", "bold"))
        painter.line(
            f"  states visited   {len(result.states_visited)} of 6: {', '.join(result.states_visited)}"
        )
        painter.line(f"  transitions      {result.transitions}")
        painter.line(
            f"  messages         {result.emitted} emitted, {result.delivered} delivered, "
            f"{self._bad(result.lost)} lost, {self._bad(result.duplicated)} applied twice "
            f"({result.repeats_dropped} repeats dropped)"
        )
        painter.line(
            f"  events           {result.events_published} published, "
            f"{self._bad(result.events_missed)} missed, {self._bad(result.events_repeated)} heard twice "
            f"({result.resyncs} snapshots loaded)"
        )
        for fault, seconds in result.recovery_seconds.items():
            painter.line(f"  {fault:<16} connected again after {seconds:.2f} s")


@define(kw_only=True)
class Show:
    """The way the demo is shown: at full speed for who reads the lines, slowly for who watches the page.

    Attributes:
        narrator: Tells it in lines.
        port: The page's; 0 picks one, ``None`` where there is to be no page.
        pace: Seconds between a fault's end and the next one, on the page; waits for attempts go with it.
        page: The page, while it is served.
    """

    narrator: Narrator
    port: int | None
    pace: float
    page: StatusPage | None = None

    @property
    def step_limit(self) -> float:
        """Seconds that any one step may take before the demo says that it failed."""
        return _STEP_LIMIT if self.port is None else _WATCHED_STEP_LIMIT

    def paced(self, config: RealtimeConfig) -> RealtimeConfig:
        """Return a configuration with pauses that a person can watch, where somebody does."""
        if self.port is None:
            return config
        long, short = self.pace * 4 / 3, self.pace * 2 / 3
        return evolve(
            config,
            first_retry_within=long,
            backoff_base=short,
            backoff_maximum=long,
            reconnect_interval=long,
        )

    @asynccontextmanager
    async def running(self, realtime: RealtimeService) -> AsyncIterator[None]:
        """Serve the page of the demo's client, and say where; give time to open it."""
        if self.port is None:
            yield
            return
        async with serve_status_page(realtime, port=self.port) as page:
            self.page = page
            # Where stdout is for one JSON object, or for a pipe, a person still has to find the page.
            out = sys.stderr if self.narrator.quiet else sys.stdout
            out.write(f"Watch it at {page.url} (the first fault comes when you are there)\n")
            out.flush()
            page.announce("The demo waits for you, and then begins.")
            await page.opened(_OPENING)
            yield

    def chapter(self, title: str, explanation: str) -> None:
        """Announce a fault in the lines and on the page."""
        self.narrator.chapter(title, explanation)
        self.note(f"{title[0].upper()}{title[1:]}: {explanation}.")

    def note(self, text: str) -> None:
        """Say something on the page alone."""
        if self.page is not None:
            self.page.announce(text)

    async def look(self) -> None:
        """Give a person time to see what is so now."""
        if self.page is not None:
            await asyncio.sleep(self.pace)

    async def linger(self) -> None:
        """Leave the page as it is until Ctrl-C, where a person watches at a terminal."""
        if self.page is None or not sys.stdout.isatty():
            return
        ended = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, ended.set)
        sys.stdout.write(f"\nThe page stays at {self.page.url} until Ctrl-C.\n")
        await ended.wait()


async def _demo(folder: Path, show: Show) -> DemoResult:
    secret = secrets.token_hex(32)
    async with Backend(folder, secret) as backend, FaultProxy("127.0.0.1", backend.port) as proxy:
        return await _Demo(folder, secret, backend, proxy, show).run()


class _Identity:
    """The demo's token source: it gives tokens that expire soon, and can be told to fail."""

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self.is_down = False

    async def __call__(self) -> str:
        """Return a fresh token."""
        if self.is_down:
            raise TokenSourceError("The demo's token source is down.")
        return issue_token(self._secret, "demo", _TOKEN_LIFE)


class _Demo:
    """One run: traffic both ways all the while, and one fault after another."""

    def __init__(self, folder: Path, secret: str, backend: Backend, proxy: FaultProxy, show: Show) -> None:
        self._folder = folder
        self._backend = backend
        self._proxy = proxy
        self._show = show
        self._identity = _Identity(secret)
        self._visited: dict[ConnectionStatus, None] = {ConnectionStatus.DISCONNECTED: None}
        self._transitions = 0
        self._emitted = 0
        self._is_emitting = True
        self._events: list[int] = []
        self._events_repeated = 0
        self._recovery: dict[str, float] = {}
        self._realtime = RealtimeService(show.paced(_config(proxy.url, folder)), token=self._identity)
        self._realtime.connection_status.subscribe(self._changed)
        self._realtime.on("tick", self._hear)
        self._realtime.on_resync(self._load)

    async def run(self) -> DemoResult:
        """Play all faults and return what was counted."""
        async with self._show.running(self._realtime):
            result = await self._play()
            self._show.narrator.summary(result)
            verdict = "Nothing was lost" if result.ok else "Something went wrong"
            self._show.note(f"The demo is over. {verdict}: the figures are in the terminal.")
            await self._show.linger()
            await self._realtime.disconnect()  # somebody may have pressed Resume
        return result

    async def _play(self) -> DemoResult:
        already_published = 0
        self._show.chapter("Connect", "a client, a server, and a proxy that makes trouble between them")
        async with self._realtime as realtime:
            await realtime.subscribe([CHANNEL])
            already_published = len(numbers(self._folder / PUBLISHED))
            emitting = asyncio.create_task(self._emit())
            try:
                await self._stable()
                await self._faults()
            finally:
                self._is_emitting = False
                await emitting
            self._show.chapter("Disconnect", "what is left is delivered first")
            (self._folder / QUIET).touch()
            await self._wait(lambda: realtime.metrics.messages_waiting == 0)
            await self._settle()
        await asyncio.sleep(0)  # the last change is counted in the loop's next turn
        return self._result(already_published)

    async def _faults(self) -> None:
        await self._fault("reset", "the TCP connection is reset", self._reset)
        await self._fault("black hole", "nothing is closed, nothing is forwarded", self._black_hole)
        await self._fault("server killed", "SIGKILL, and a new process", self._kill)
        await self._fault(
            "token expired", "no new token is to be had until the session has ended", self._expire
        )
        await self._fault("socket blocked", "only plain HTTP gets through", self._block)

    async def _reset(self) -> float:
        began = time.monotonic()
        self._proxy.reset_peer()
        return began

    async def _black_hole(self) -> float:
        """Only the heartbeat can notice."""
        began = time.monotonic()
        self._proxy.black_hole(True)
        await self._left_connected()
        self._proxy.black_hole(False)
        return began

    async def _kill(self) -> float:
        began = time.monotonic()
        await self._backend.end(signal.SIGKILL)
        await self._left_connected()
        await self._backend.start()
        self._proxy.set_target("127.0.0.1", self._backend.port)
        return began

    async def _expire(self) -> float:
        """The server ends a session whose token has expired. Counted from that end."""
        self._identity.is_down = True
        await self._left_connected()
        self._identity.is_down = False
        return time.monotonic()

    async def _block(self) -> float:
        """The attempts run out, and polling takes over. Counted from the unblocking."""
        self._proxy.block(_SOCKET_PATH)
        await self._until(ConnectionStatus.FALLBACK)
        before = len(self._events)
        await self._wait(lambda: len(self._events) >= before + 5)
        await self._show.look()
        self._show.chapter("socket unblocked", "probing finds it by itself")
        self._proxy.block(None)
        return time.monotonic()

    async def _fault(self, name: str, explanation: str, make: Callable[[], Awaitable[float]]) -> None:
        """Make a fault, wait until it has been felt and overcome, and until the connection is stable."""
        self._show.chapter(name, explanation)
        connections = self._realtime.metrics.total_connections
        began = await make()
        await self._wait(lambda: self._realtime.metrics.total_connections > connections)
        await self._until(ConnectionStatus.CONNECTED)
        self._recovery[name] = round(time.monotonic() - began, 3)
        self._show.note(f"Over: {name}. Connected again after {self._recovery[name]:.1f} s.")
        await self._stable()
        await self._show.look()

    async def _stable(self) -> None:
        """Wait until the connection counts as stable, and messages flow again."""
        delivered = self._realtime.metrics.messages_delivered
        stable_after = self._realtime.config.stable_after
        await self._wait(lambda: self._realtime.metrics.uptime >= stable_after)
        await self._wait(lambda: self._realtime.metrics.messages_delivered > delivered)

    async def _settle(self) -> None:
        """Give the last published events a moment to arrive, as long as more of them come."""
        seen = -1
        while seen != len(self._events):
            seen = len(self._events)
            await asyncio.sleep(0.25)

    async def _left_connected(self) -> None:
        await self._wait(lambda: not TRAITS[self._realtime.status].sends)

    async def _until(self, status: ConnectionStatus) -> None:
        await self._realtime.wait_for(status, timeout=self._show.step_limit)

    async def _wait(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(self._show.step_limit):
            while not condition():  # noqa: ASYNC110 - of counters, in this process and in files
                await asyncio.sleep(0.01)

    async def _emit(self) -> None:
        """Emit numbered messages for as long as the demo lasts."""
        while self._is_emitting:
            await self._realtime.emit("number", {"n": self._emitted + 1})  # exactly once, by default
            self._emitted += 1
            await asyncio.sleep(_EMIT_PACE)

    def _hear(self, data: dict[str, int]) -> None:
        """Mirror a number that was published."""
        self._events_repeated += bool(self._events) and data["n"] <= self._events[-1]
        self._events.append(data["n"])

    async def _load(self, _: Missed) -> Position:
        """Load all numbers anew: the server was killed, and its log with it."""
        answer = await self._realtime.call("snapshot", timeout=self._show.step_limit)
        self._events = answer["numbers"]
        return Position(epoch=answer["epoch"], offset=answer["offset"])

    def _changed(self, change: StatusChange) -> None:
        self._transitions += 1
        self._visited[change.current] = None
        self._show.narrator.change(change)

    def _result(self, already_published: int) -> DemoResult:
        received = received_numbers(self._folder / RECEIVED)
        delivered = set(received)
        lost = set(range(1, self._emitted + 1)) - delivered
        visited = [str(status) for status in self._visited]
        published = set(numbers(self._folder / PUBLISHED)[already_published:])
        known = published & set(self._events)
        duplicated = len(received) - len(delivered)
        wrong = len(lost) + duplicated + len(published - known) + self._events_repeated
        return DemoResult(
            ok=len(visited) == len(ConnectionStatus) and not wrong,
            states_visited=visited,
            transitions=self._transitions,
            emitted=self._emitted,
            delivered=len(delivered),
            lost=len(lost),
            duplicated=duplicated,
            repeats_dropped=self._realtime.metrics.messages_repeated,
            events_published=len(published),
            events_received=len(known),
            events_missed=len(published - known),
            events_repeated=self._events_repeated,
            resyncs=self._realtime.metrics.resyncs,
            recovery_seconds=self._recovery,
        )


def _config(url: str, folder: Path) -> RealtimeConfig:
    """Return the demo's configuration: everything faster than one would have it in production."""
    return RealtimeConfig(
        server_url=url,
        dialect=Dialect.REFERENCE,
        outbox_path=str(folder / "outbox.db"),
        max_reconnect_attempts=3,
        connection_timeout=2.0,
        stable_after=1.0,
        backoff_base=0.3,
        backoff_maximum=1.0,
        backoff_jitter=False,
        heartbeat_interval=1.0,
        heartbeat_timeout=0.5,
        fallback_polling_interval=0.5,
        reconnect_interval=1.0,
        close_timeout=5.0,
        log_level="error",
    )
