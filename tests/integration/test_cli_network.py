"""The commands that talk to a network, as a user would run them."""

import asyncio
import json
import os
import signal
import subprocess
import sys

import aiohttp
import canary
import pytest
from commands import command, line

from realtime_fsm.cli.arguments import EXIT_OK, EXIT_REFUSED, EXIT_UNREACHABLE, EXIT_USAGE
from realtime_fsm.server import BackendConfig, WebSocketService

SECRET = canary.SIGNING


async def test_cli_listen_prints_changes_and_events_until_interrupted() -> None:
    """``listen --json`` prints one object per line, and ends cleanly with 0 on Ctrl-C."""
    async with WebSocketService(BackendConfig(port=0, secret=SECRET)) as backend:
        process = await command(
            *("listen", backend.url, "--dialect", "reference", "--channel", "news"),
            *("--token-env", "A_TOKEN", "--json"),
            A_TOKEN=canary.jwt("me", 60),
        )
        try:
            statuses = [json.loads(await line(process))["current"] for _ in range(2)]
            assert statuses == ["connecting", "connected"]
            async with asyncio.timeout(20):
                while not backend.subscriber_count("news"):  # noqa: ASYNC110 - of another process
                    await asyncio.sleep(0.01)
            backend.publish("news", "headline", {"n": 1})
            event = json.loads(await line(process))
            assert (event["event"], event["args"]) == ("headline", [{"n": 1}])
        finally:
            process.send_signal(signal.SIGINT)
            out, error = await canary.output_of(process)
        assert json.loads(out.decode().splitlines()[-1])["current"] == "disconnected"
        assert (process.returncode, error.decode()) == (EXIT_OK, "")


async def test_cli_listen_tells_a_refusal_from_an_unreachable_server() -> None:
    """A refused token exits with 4 in one line; the token is not in it."""
    async with WebSocketService(BackendConfig(port=0, secret=SECRET)) as backend:
        process = await command(*("listen", backend.url, "--token-env", "A_TOKEN"), A_TOKEN=canary.token())
        async with asyncio.timeout(20):
            _, error = await canary.output_of(process)
        assert process.returncode == EXIT_REFUSED
        assert "Traceback" not in error.decode()
        assert canary.found_in(error.decode()) == []
        url = backend.url
    process = await command("listen", url, REALTIME_MAX_RECONNECT_ATTEMPTS="0")
    async with asyncio.timeout(20):
        _, error = await canary.output_of(process)
    assert process.returncode == EXIT_UNREACHABLE
    assert "Check that the server runs" in error.decode()


async def test_cli_listen_ends_when_nobody_reads_it_any_more() -> None:
    """``listen | head -1`` ends by itself with the next line, in silence, and leaves the server."""
    async with WebSocketService(BackendConfig(port=0, secret=SECRET)) as backend:
        reading, writing = os.pipe()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "realtime_fsm.cli", "listen", backend.url),
            *("--dialect", "reference", "--channel", "news", "--token-env", "A_TOKEN"),
            stdout=writing,
            stderr=subprocess.PIPE,
            env={**os.environ, "A_TOKEN": canary.jwt("me", 60)},
        )
        os.close(writing)
        try:
            assert b"connecting" in await asyncio.to_thread(os.read, reading, 4096)
            async with asyncio.timeout(20):
                while not backend.subscriber_count("news"):  # noqa: ASYNC110 - of another process
                    await asyncio.sleep(0.01)
            os.close(reading)
            backend.publish("news", "headline", {"n": 1})
            async with asyncio.timeout(20):
                _, error = await canary.output_of(process)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert (process.returncode, error.decode()) == (EXIT_OK, "")


async def test_cli_listen_lets_no_server_command_the_terminal() -> None:
    """What a server sends, names of events included, is printed without control characters."""
    async with WebSocketService(BackendConfig(port=0, secret=SECRET)) as backend:
        process = await command(
            *("listen", backend.url, "--dialect", "reference", "--channel", "news"),
            *("--token-env", "A_TOKEN"),
            A_TOKEN=canary.jwt("me", 60),
        )
        try:
            for _ in range(2):
                await line(process)
            async with asyncio.timeout(20):
                while not backend.subscriber_count("news"):  # noqa: ASYNC110 - of another process
                    await asyncio.sleep(0.01)
            backend.publish("news", "clear\x1b[2J", {"text": "\x9b2J\x1b]0;title\x07"})
            said = await line(process)
            assert "clear\\x1b[2J" in said
            assert said.isprintable()
        finally:
            process.send_signal(signal.SIGINT)
            await canary.output_of(process)


async def test_cli_serve_prints_its_address_and_ends_on_a_signal() -> None:
    """``serve`` says where it listens in its first line, and ends with 0 on SIGTERM."""
    process = await command("serve", "--port", "0", REALTIME_SERVER_SECRET=SECRET)
    url = await line(process)
    assert url.startswith("http://127.0.0.1:")
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(20):
        _, error = await canary.output_of(process)
    assert (process.returncode, error.decode()) == (EXIT_OK, "")


async def test_cli_serve_without_a_secret_says_how_to_make_one() -> None:
    """Without a secret ``serve`` is refused in one line that names the variable and the command."""
    process = await command("serve", REALTIME_SERVER_SECRET="")
    async with asyncio.timeout(20):
        _, error = await canary.output_of(process)
    assert process.returncode == 2
    assert "REALTIME_SERVER_SECRET" in error.decode()
    assert "Traceback" not in error.decode()


@pytest.mark.real_loop(timeout=90)
async def test_cli_demo_visits_all_states_and_loses_nothing() -> None:
    """``demo --json`` prints one object: six states, nothing lost or repeated, all faults overcome."""
    process = await command("demo", "--json")
    async with asyncio.timeout(60):
        out, error = await canary.output_of(process)
    assert process.returncode == EXIT_OK, error.decode()
    result = json.loads(out)
    assert result["ok"] is True
    assert len(set(result["states_visited"])) == 6
    assert result["lost"] == 0
    assert result["emitted"] == result["delivered"] > 100
    assert result["duplicated"] == result["events_missed"] == result["events_repeated"] == 0
    assert result["events_received"] == result["events_published"] > 0
    assert result["resyncs"] == 1  # the server was killed once, and its log with it
    assert set(result["recovery_seconds"]) == {
        "reset", "black hole", "server killed", "token expired", "socket blocked",
    }  # fmt: skip


async def test_cli_listen_serves_the_page_where_it_is_asked_for() -> None:
    """``listen --web`` tells the page's address on stderr; the page shows this client; Ctrl-C ends both."""
    async with WebSocketService(BackendConfig(port=0, secret=SECRET)) as backend:
        process = await command(
            *(
                "listen",
                backend.url,
                "--dialect",
                "reference",
                "--token-env",
                "A_TOKEN",
                "--json",
                "--web",
            ),
            A_TOKEN=canary.jwt("me", 60),
        )
        try:
            assert process.stderr is not None
            async with asyncio.timeout(20):
                said = (await process.stderr.readline()).decode()
            url = said.split()[-1]
            assert said == f"The status page is at {url}\n"
            statuses = [json.loads(await line(process))["current"] for _ in range(2)]
            assert statuses == ["connecting", "connected"]
            async with aiohttp.ClientSession() as http:
                stream = await http.get(f"{url}events")  # which does not hold the end
                async with http.get(f"{url}snapshot.json") as response:
                    told = await response.text()
                assert json.loads(told)["view"]["status"] == "connected"
                assert not canary.found_in(told)
                process.send_signal(signal.SIGINT)
                out, error = await canary.output_of(process)
                stream.close()
        except BaseException:
            process.kill()
            await process.communicate()
            raise
        assert json.loads(out.decode().splitlines()[-1])["current"] == "disconnected"
        assert (process.returncode, error.decode()) == (EXIT_OK, "")


async def test_cli_web_says_when_nothing_can_listen() -> None:
    """A port that is taken is one line on stderr, and wrong usage."""
    async with WebSocketService(BackendConfig(port=0, secret=SECRET)) as backend:
        process = await command("listen", backend.url, "--web", "--port", str(backend.port))
        async with asyncio.timeout(20):
            _, error = await canary.output_of(process)
        assert "nothing can listen" in error.decode()
        assert "Traceback" not in error.decode()
        assert process.returncode == EXIT_USAGE
