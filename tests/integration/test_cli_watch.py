"""``realtime-fsm watch``, as a user would run it: on a real server, through a real outage."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import canary
import pytest
from attrs import define, field
from commands import command, line

from realtime_fsm.cli.arguments import EXIT_OK, EXIT_REFUSED, EXIT_UNREACHABLE, EXIT_USAGE
from realtime_fsm.diagram import read_history
from realtime_fsm.server import BackendConfig, WebSocketService
from realtime_fsm.testing.proxy.proxy import FaultProxy

SECRET: Final = canary.SIGNING
SOON: Final = 20.0
QUICK: Final = {
    "REALTIME_HEARTBEAT_INTERVAL": "1.0",
    "REALTIME_HEARTBEAT_TIMEOUT": "1.0",
    "REALTIME_FIRST_RETRY_WITHIN": "0.05",
    "REALTIME_BACKOFF_BASE": "0.2",
    "REALTIME_BACKOFF_MAXIMUM": "0.4",
    "REALTIME_MAX_RECONNECT_ATTEMPTS": "1000",
}
BEGIN, END = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"


@asynccontextmanager
async def proxied() -> AsyncIterator[FaultProxy]:
    """Give a proxy in front of a backend."""
    backend = WebSocketService(BackendConfig(port=0, secret=SECRET))
    async with backend, FaultProxy("127.0.0.1", backend.port) as proxy:
        yield proxy


def arguments(url: str, *more: str) -> tuple[str, ...]:
    """Return the command line for a server."""
    return ("watch", url, "--dialect", "reference", "--token-env", "A_TOKEN", *more)


def environment() -> dict[str, str]:
    """Return an environment with a token and short waits."""
    return {**QUICK, "A_TOKEN": canary.jwt("me", 60)}


async def ended(process: asyncio.subprocess.Process) -> tuple[str, str]:
    """Wait for the end of a command, bounded; return what it said."""
    try:
        async with asyncio.timeout(SOON):
            out, error = await canary.output_of(process)
    except TimeoutError:
        process.kill()
        await process.communicate()
        raise
    return (out or b"").decode(), (error or b"").decode()


async def test_watch_tells_an_outage_from_its_beginning_to_its_end(tmp_path: Path) -> None:
    """Connected, lost, retrying, connected again; the last line counts it, and `diagram` can draw it."""
    async with proxied() as proxy:
        process = await command(*arguments(proxy.url, "--json"), **environment())
        lines: list[str] = []

        async def until(status: str, trigger: str) -> None:
            while True:
                lines.append(await line(process))
                told = json.loads(lines[-1])
                if (told.get("current"), told.get("trigger")) == (status, trigger):
                    return

        try:
            await until("connected", "established")
            proxy.refuse(True)
            proxy.reset_peer()
            await until("reconnecting", "connection_lost")
            await until("reconnecting", "attempt_failed")
            proxy.refuse(False)
            await until("connected", "established")
        finally:
            process.send_signal(signal.SIGINT)
            out, error = await ended(process)
        assert (process.returncode, error) == (EXIT_OK, "")
    last = json.loads(out.splitlines()[-1])
    assert (last["kind"], last["status"]) == ("view", "connected")
    (outage,) = last["outages"]
    assert outage["ended_at"] > outage["began_at"]
    assert last["failures"]["failed"] >= 1
    path = tmp_path / "changes.jsonl"
    path.write_text("\n".join(lines) + "\n" + out, encoding="utf-8")
    history = read_history(path)
    assert [step.dest for step in history.steps][:3] == ["connecting", "connected", "reconnecting"]
    assert history.current == "connected"


async def test_watch_in_a_pipe_prints_a_line_for_each_change_with_what_happens_next() -> None:
    """Sentences for each change, the figures now and then and in the end; no colour, no cursor."""
    async with proxied() as proxy:
        process = await command(*arguments(proxy.url, "--every", "0.05"), **environment())
        said = []
        try:
            while "latency: " not in (said := [*said, await line(process)])[-1]:
                pass
            proxy.refuse(True)
            proxy.reset_peer()
            while "The connection is down: " not in (said := [*said, await line(process)])[-1]:
                pass
        finally:
            process.send_signal(signal.SIGTERM)
            out, error = await ended(process)
    assert (process.returncode, error) == (EXIT_OK, "")
    changes = [text for text in said if "outbox: " not in text]  # the figures come at their own times
    assert "◔ connecting   Connecting (attempt 1 of 1000). It takes 10 s at most" in changes[0]
    assert "● connected    Connected. Data arrives as it happens." in changes[1]
    assert re.search(r"◑ reconnecting The connection is down: .* Attempt \d+ of 1000 follows ", said[-1])
    assert "outbox: empty; failures: " in out.splitlines()[-1]
    assert "\x1b" not in "".join(said) + out


@pytest.mark.parametrize(("reachable", "code"), [(True, EXIT_OK), (False, EXIT_UNREACHABLE)])
async def test_watch_for_a_time_says_whether_data_flows_at_its_end(reachable: bool, code: int) -> None:
    """``--for`` ends by itself: 0 where data flows at the end, 3 where it is still being tried for."""
    async with proxied() as proxy:
        proxy.refuse(not reachable)
        process = await command(*arguments(proxy.url, "--for", "1", "--json"), **environment())
        out, error = await ended(process)
    assert (process.returncode, error) == (code, "")
    last = json.loads(out.splitlines()[-1])
    assert last["kind"] == "view"
    assert last["health"]["ready"] is reachable
    assert last["status"] != "disconnected"


async def test_watch_tells_a_refusal_and_wrong_usage_apart() -> None:
    """A refused token is 4 and one line, without the token; a variable that is not set is 2."""
    async with proxied() as proxy:
        process = await command(*arguments(proxy.url), **{**QUICK, "A_TOKEN": canary.token()})
        out, error = await ended(process)
        assert process.returncode == EXIT_REFUSED
        assert "✗ failed       No connection: " in out
        assert error.startswith("realtime-fsm: ")
        assert error.count("\n") == 1
        process = await command("watch", proxy.url, "--token-env", "NOT_SET_AT_ALL")
        out, error = await ended(process)
        assert (process.returncode, out) == (EXIT_USAGE, "")
        assert error == "realtime-fsm: --token-env NOT_SET_AT_ALL: this variable is not set, or empty.\n"


async def test_watch_ends_when_nobody_reads_it_any_more() -> None:
    """``watch | head -1`` ends by itself with the next figures, in silence."""
    async with proxied() as proxy:
        reading, writing = os.pipe()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "realtime_fsm.cli", *arguments(proxy.url, "--every", "0.05")),
            stdout=writing,
            stderr=subprocess.PIPE,
            env={**os.environ, **environment()},
        )
        os.close(writing)
        assert await asyncio.to_thread(os.read, reading, 4096)
        os.close(reading)
        _, error = await ended(process)
        assert (process.returncode, error) == (EXIT_OK, "")


@define
class Terminal:
    """A pseudo-terminal on which a command runs.

    Attributes:
        process: The command.
        ours: Our side of it.
        seen: All that was shown.
    """

    process: asyncio.subprocess.Process
    ours: int
    seen: str = ""
    _reader: asyncio.StreamReader = field(factory=asyncio.StreamReader)

    @classmethod
    async def start(cls, *words: str, **more: str) -> "Terminal":
        """Start a command on a terminal of 100 columns and 30 lines."""
        import pty  # noqa: PLC0415 - not on Windows

        ours, theirs = pty.openpty()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "realtime_fsm.cli", *words),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "30", **more},
        )
        os.close(theirs)
        terminal = cls(process, ours)
        asyncio.get_running_loop().add_reader(ours, terminal._read)
        return terminal

    def _read(self) -> None:
        try:
            chunk = os.read(self.ours, 65536)
        except OSError:  # how Linux says that the other side is closed
            chunk = b""
        if chunk:
            self._reader.feed_data(chunk)
        else:
            asyncio.get_running_loop().remove_reader(self.ours)
            self._reader.feed_eof()

    async def until(self, *wanted: str) -> str:
        """Wait until one view shows all of it; return that view."""
        async with asyncio.timeout(SOON):
            while True:
                complete = self.seen.split("\x1b[J")[:-1]
                if complete and all(text in complete[-1] for text in wanted):
                    return complete[-1]
                chunk = await self._reader.read(65536)
                assert chunk, self.seen
                self.seen += chunk.decode(errors="replace")

    async def end(self) -> str:
        """Wait for the end of the command, bounded; return what it leaves on the terminal."""
        try:
            async with asyncio.timeout(SOON):
                self.seen += (await self._reader.read()).decode(errors="replace")
                await self.process.wait()
        finally:
            if self.process.returncode is None:
                self.process.kill()
                await self.process.wait()
            asyncio.get_running_loop().remove_reader(self.ours)
            os.close(self.ours)
        assert not canary.found_in(self.seen)
        return self.seen.rpartition(END)[2]


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
async def test_watch_on_a_terminal_shows_an_outage_live_and_gives_the_screen_back() -> None:
    """One view, drawn in place, through an outage; Ctrl-C restores the screen and leaves the last view."""
    async with proxied() as proxy:
        terminal = await Terminal.start(*arguments(proxy.url), **environment(), NO_COLOR="")
        try:
            await terminal.until("● CONNECTED", "half within")
            proxy.refuse(True)
            proxy.reset_peer()
            waiting = await terminal.until("◑ RECONNECTING", "because: ", "ServerUnreachableError")
            assert re.search(r"\d+ of 1000.*in \d\.\d s", waiting)
            assert "one lasts" in waiting
            assert "\x1b[33m" in waiting
            proxy.refuse(False)
            await terminal.until("● CONNECTED", "altogether")
        finally:
            terminal.process.send_signal(signal.SIGINT)
            left = await terminal.end()
    assert terminal.process.returncode == EXIT_OK
    assert terminal.seen.count(BEGIN) == terminal.seen.count(END) == 1
    assert "\n" not in terminal.seen.partition(BEGIN)[2].partition(END)[0]  # or it would scroll
    assert "● CONNECTED" in left
    assert "1, " in left.partition("outages")[2]


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
async def test_watch_on_a_terminal_gives_the_screen_back_when_it_gives_up() -> None:
    """Where nothing is tried any more the screen is restored, and the reason is the last line."""
    async with proxied() as proxy:
        proxy.refuse(True)
        given = {**environment(), "REALTIME_MAX_RECONNECT_ATTEMPTS": "0", "NO_COLOR": "1"}
        given["REALTIME_ENABLE_FALLBACK"] = "false"
        terminal = await Terminal.start(*arguments(proxy.url), **given)
        left = await terminal.end()
    assert terminal.process.returncode == EXIT_UNREACHABLE
    assert "✗ FAILED" in left
    assert left.splitlines()[-1].startswith("realtime-fsm: ")
    assert not re.search("\x1b\\[[0-9;]*m", terminal.seen)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
async def test_watch_on_a_dumb_terminal_prints_lines() -> None:
    """A terminal that cannot be drawn on gets what a pipe gets."""
    async with proxied() as proxy:
        given = {**environment(), "TERM": "dumb"}
        terminal = await Terminal.start(*arguments(proxy.url, "--for", "1"), **given)
        await terminal.end()
    assert terminal.process.returncode == EXIT_OK
    assert "● connected    Connected. Data arrives" in terminal.seen
    assert "\x1b" not in terminal.seen
