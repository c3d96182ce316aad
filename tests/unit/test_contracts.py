"""What the library brings keeps the laws of its ports, where no network is needed."""

import asyncio
import itertools
import time
from collections.abc import Coroutine
from functools import cached_property
from pathlib import Path
from typing import Any

import canary
import pytest

from realtime_fsm.adapters.outbox_writer import SqliteOutbox
from realtime_fsm.engine.outbox import MemoryOutbox, Outbox
from realtime_fsm.engine.port import HttpClient, Token, TokenSource, Transport, TransportListener
from realtime_fsm.machine.errors import (
    AuthenticationError,
    MalformedFrameError,
    ProtocolError,
    RealtimeError,
    RedirectRefusedError,
    ServerUnavailableError,
    ServerUnreachableError,
)
from realtime_fsm.testing import (
    OutboxContract,
    PollerContract,
    SimulatedDisk,
    SimulatedHttp,
    SimulatedOutbox,
    SimulatedServer,
    TokenSourceContract,
    TransportContract,
    echo_only,
    run_in_real_time,
)


def refuse(error: RealtimeError) -> None:
    """Fail on an error that nobody awaits: none is expected."""
    raise error


class TestMemoryOutbox(OutboxContract):
    """The one in memory."""

    def make(self, folder: Path, *, max_dead_letters: int = 1000) -> Outbox:
        """Return one."""
        return MemoryOutbox(max_dead_letters=max_dead_letters)


class TestSqliteOutbox(OutboxContract):
    """The one in a file, as durable as can be."""

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        """Run a law on a real loop: a thread writes the file."""
        run_in_real_time(main)

    def make(self, folder: Path, *, max_dead_letters: int = 1000) -> Outbox:
        """Return one."""
        return SqliteOutbox(folder / "outbox.db", max_dead_letters=max_dead_letters, report=refuse)


class TestSqliteOutboxOfProcess(TestSqliteOutbox):
    """The one in a file that survives the process only."""

    def make(self, folder: Path, *, max_dead_letters: int = 1000) -> Outbox:
        """Return one."""
        return SqliteOutbox(
            folder / "outbox.db", durability="process", max_dead_letters=max_dead_letters, report=refuse
        )


class TestSimulatedOutbox(OutboxContract):
    """The one that commits in virtual time."""

    kind: type[SimulatedOutbox] = SimulatedOutbox

    @cached_property
    def disks(self) -> dict[Path, SimulatedDisk]:
        """The disks, by their folders."""
        return {}

    def make(self, folder: Path, *, max_dead_letters: int = 1000) -> Outbox:
        """Return one; a folder stands for a disk."""
        disk = self.disks.setdefault(folder, SimulatedDisk())
        return self.kind(disk, max_dead_letters=max_dead_letters)


class TestSimulatedTransport(TransportContract):
    """The one without a network."""

    @cached_property
    def simulated(self) -> SimulatedServer:
        """What it connects to."""
        return SimulatedServer(acknowledge=echo_only("echo"))

    async def set_up(self) -> None:
        """Begin anew: some laws need two servers."""
        self.__dict__.pop("simulated", None)

    async def make(self, listener: TransportListener) -> Transport:
        """Return one."""
        return self.simulated(listener)

    async def make_failing(self, listener: TransportListener, kind: type[RealtimeError]) -> Transport:
        """Return one that is refused."""
        self.simulated.refusal = kind("It was to fail.")
        return await self.make(listener)

    async def make_hanging(self, listener: TransportListener) -> Transport:
        """Return one to which nobody answers."""
        self.simulated.is_silent = True
        return await self.make(listener)

    async def emit(self, event: str, *args: Any) -> None:
        """Emit an event."""
        self.simulated.emit(event, *args)

    async def break_connections(self) -> None:
        """Reset them."""
        self.simulated.reset()

    async def silence(self) -> None:
        """Open a black hole."""
        self.simulated.is_black_hole = True

    def notes(self) -> list[Any]:
        """Return what arrived."""
        return self.simulated.received_of("note")


class TestSimulatedHttp(PollerContract):
    """The HTTP client without a network."""

    @cached_property
    def http(self) -> SimulatedHttp:
        """The client, which is its server too."""
        return SimulatedHttp()

    async def set_up(self) -> None:
        """Serve the paths of the contract, anew."""
        count = itertools.count(1)
        self.__dict__.pop("http", None)
        self.http.resources = {
            "/count": lambda _: next(count),
            "/same": lambda _: ["same", 1],
            "/echo": lambda request: {
                "body": request.body,
                "token": request.token,
                "key": request.idempotency_key,
            },
            "/unauthorized": AuthenticationError("401."),
            "/forbidden": AuthenticationError("403."),
            "/missing": ProtocolError("404."),
            "/moved": RedirectRefusedError("302."),
            "/garbled": MalformedFrameError("No JSON."),
            "/busy": ServerUnavailableError("503.", retry_after=7.0),
        }

    async def make(self) -> HttpClient:
        """Return one."""
        return self.http

    async def make_unreachable(self) -> tuple[HttpClient, str]:
        """Return one that reaches nobody."""
        return SimulatedHttp(refusal=ServerUnreachableError("Nobody.")), self.url("/")

    def url(self, path: str) -> str:
        """Return an address; asked for the silent path the client falls silent."""
        self.http.is_silent = path.startswith("/silent")
        return f"http://server{path}"


class TestFixedString(TokenSourceContract):
    """A token that is a string."""

    async def make(self) -> TokenSource:
        """Return one."""
        return canary.token("fixed")


class TestFixedToken(TokenSourceContract):
    """A token that knows when it expires."""

    async def make(self) -> TokenSource:
        """Return one."""
        return Token(value=canary.token("known"), expires_at=self.wall() + 60.0)


class TestCoroutineFunction(TokenSourceContract):
    """A coroutine function that gives JSON Web Tokens."""

    is_failing = False
    is_hanging = False

    async def make(self) -> TokenSource:
        """Return one."""
        return self.fetch

    async def fetch(self) -> str:
        """Give a token, after a while."""
        token = canary.jwt("contract")
        if self.is_hanging:
            await asyncio.Event().wait()
        await asyncio.sleep(0.01)
        if self.is_failing:
            raise OSError(f"down; the last token was {token}")
        return token

    async def fail(self, failing: bool) -> None:
        """Raise an error that holds the token."""
        self.is_failing = failing

    async def hang(self) -> None:
        """Wait for ever."""
        self.is_hanging = True

    def wall(self) -> float:
        """Tell the real time: that is what the tokens are signed with."""
        return time.time()


class TestPlainFunction(TestCoroutineFunction):
    """A function that gives a token at once, and cannot hang."""

    async def make(self) -> TokenSource:
        """Return one."""
        return self.give

    def give(self) -> Token:
        """Give a token."""
        value = canary.token("plain")
        if self.is_failing:
            raise ValueError(value)
        return Token(value=value)

    async def hang(self) -> None:
        """It cannot."""
        pytest.skip("it does not wait")
